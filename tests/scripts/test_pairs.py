"""Scripts that mix both libraries, and pairs of functions of their own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from tests.scripts.twice import PARAMS, assert_equal_numbers, train
from tests.support.peer import optax as peer


class Counter(NamedTuple):
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def _negated(updates: Any, scale: Any = 1.0) -> Any:
    return jax.tree.map(lambda leaf: -0.1 * scale * leaf, updates)


def pair_with(optax: Any, empty: Any) -> Any:
    """A transformation of the script's own, whose state holds nothing."""

    def init(params: Any) -> Any:
        return empty

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return _negated(updates), state

    return optax.GradientTransformation(init, update)


def pairs_with_empty_states(optax: Any) -> Any:
    members = [pair_with(optax, empty) for empty in (None, (), {}, peer.EmptyState())]
    return train(optax.chain(optax.scale_by_adam(), *members)), [train(one) for one in members]


def pair_that_counts(optax: Any) -> Any:
    def init(params: Any) -> Counter:
        return Counter(jnp.zeros([], jnp.int32))

    def update(updates: Any, state: Counter, params: Any = None) -> Any:
        return _negated(updates, 1 / (1 + state.count)), Counter(state.count + 1)

    tx = optax.chain(optax.clip(1.0), optax.GradientTransformation(init, update))
    state = jax.jit(tx.init)(PARAMS)
    return jax.jit(lambda state: train(tx, state=state))(state)


def pair_with_extra_arguments(optax: Any) -> Any:
    def init(params: Any) -> Any:
        return ()

    def update(updates: Any, state: Any, params: Any = None, *, scale: Any, **extra: Any) -> Any:
        return _negated(updates, scale), state

    tx = optax.chain(optax.trace(0.9), peer.GradientTransformationExtraArgs(init, update))
    return train(tx, scale=jnp.array(0.5)), train(tx, scale=2.0, value=jnp.array(1.0))


def unpacked(optax: Any) -> Any:
    init, update = optax.adamw(0.1)
    state = init(PARAMS)
    updates, state = update(PARAMS, state, PARAMS)
    updates, state = update(PARAMS, state, PARAMS)
    return updates


def steps_of_optax_around(optax: Any) -> Any:
    tx = peer.MultiSteps(optax.adam(0.1), 2, use_grad_mean=True)
    return train(tx.gradient_transformation(), steps=6)


def mask_of_optax_around(optax: Any) -> Any:
    return train(peer.masked(optax.sgd(0.1, momentum=0.9), {"w": True, "b": False}))


def lookahead_of_optax_around(optax: Any) -> Any:
    params = peer.LookaheadParams.init_synced(PARAMS)
    tx = peer.lookahead(optax.sgd(0.1), sync_period=2, slow_step_size=0.5)
    state = tx.init(params)
    for _ in range(4):
        updates, state = tx.update(params.fast, state, params)
        params = peer.apply_updates(params, updates)
    return params


def schedule_free_of_optax_around(optax: Any) -> Any:
    return train(peer.contrib.schedule_free(optax.sgd(0.1), 0.1, b1=0.9))


def groups_of_optax_around(optax: Any) -> Any:
    members = {"a": optax.adam(0.1), "b": peer.sgd(0.1)}
    return train(peer.partition(members, {"w": "a", "b": "b"}))


def guard_of_optax_around(optax: Any) -> Any:
    tx = peer.apply_if_finite(optax.adam(0.1), 2)
    state, updates = tx.init(PARAMS), []
    for factor in (1.0, jnp.nan, 1.0):
        grads = jax.tree.map(lambda leaf, factor=factor: factor * leaf, PARAMS)
        changes, state = tx.update(grads, state, PARAMS)
        updates.append(changes)
    return updates


def schedules_of_optax_inside(optax: Any) -> Any:
    return train(optax.adamw(peer.cosine_decay_schedule(0.1, 10)))


SCRIPTS: list[Callable[[Any], Any]] = [
    pairs_with_empty_states,
    pair_that_counts,
    pair_with_extra_arguments,
    unpacked,
    steps_of_optax_around,
    mask_of_optax_around,
    lookahead_of_optax_around,
    schedule_free_of_optax_around,
    groups_of_optax_around,
    guard_of_optax_around,
    schedules_of_optax_inside,
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_script(script: Callable[[Any], Any]) -> None:
    assert_equal_numbers(script)
