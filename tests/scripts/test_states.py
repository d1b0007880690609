"""Scripts that read and write states, and that pass none where nothing is stored."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from gradtx.definition.errors import StateError
from tests.scripts.twice import LIBRARIES, PARAMS, assert_equal_numbers, train
from tests.support.peer import optax as peer


def after_a_step(tx: Any) -> Any:
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[1]


def moments_by_attribute(optax: Any) -> Any:
    adam = after_a_step(optax.scale_by_adam())
    trace, ema = after_a_step(optax.trace(0.9)), after_a_step(optax.ema(0.9))
    return adam.mu, adam.nu, adam.count, trace.trace, ema.ema


def moments_by_position(optax: Any) -> Any:
    state = after_a_step(optax.adam(0.1))
    inside = after_a_step(optax.chain(optax.clip(1.0), optax.adam(0.1)))
    return state[0].mu, state[0].count, inside[1][0].nu


def moments_by_name(optax: Any) -> Any:
    tx = optax.named_chain(("clip", optax.clip(1.0)), ("moments", optax.scale_by_adam()))
    return after_a_step(tx)["moments"].mu


def moments_by_a_walk(optax: Any) -> Any:
    """The fields of named tuples, dicts and tuples, all the way down."""

    def find(node: Any, name: str) -> Any:
        if hasattr(node, "_fields"):
            node = {field: getattr(node, field) for field in node._fields}
        if isinstance(node, dict) and name in node:
            return node[name]
        items = node.values() if isinstance(node, dict) else node
        if not isinstance(items, tuple | list | type({}.values())):
            return None
        found = (find(item, name) for item in items)
        return next((one for one in found if one is not None), None)

    return find(after_a_step(optax.adamw(0.1)), "nu")


def counters_of_multi_steps(optax: Any) -> Any:
    tx = optax.MultiSteps(optax.sgd(0.1, momentum=0.9), every_k_schedule=3)
    state, fields = tx.init(PARAMS), []
    for _ in range(4):
        _, state = tx.update(PARAMS, state, PARAMS)
        fields.append((state.mini_step, state.gradient_step))
    return fields, state.inner_opt_state[0].trace


def states_of_groups(optax: Any) -> Any:
    tx = optax.multi_transform({"a": optax.adam(0.1), "b": optax.sgd(0.1)}, {"w": "a", "b": "b"})
    state = after_a_step(tx)
    return state.inner_states["a"].inner_state[0].mu["w"]


def plateau(optax: Any) -> Any:
    tx = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, accumulation_size=1)
    state = tx.init(PARAMS)
    for value in (1.0, 1.0, 1.0):
        _, state = tx.update(PARAMS, state, PARAMS, value=jnp.array(value))
    return state.scale


def writes_beside_a_clip(optax: Any) -> Any:
    """The rate of the second member is annealed by the loop."""
    tx = optax.chain(
        optax.clip_by_global_norm(0.5), optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    )
    state = tx.init(PARAMS)
    for rate in (0.2, 0.05):
        state[1].hyperparams["learning_rate"] = jnp.array(rate)
        updates, state = jax.jit(tx.update)(PARAMS, state, PARAMS)
    return updates, state[1].hyperparams["learning_rate"]


def replaces_hyperparams(optax: Any) -> Any:
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    first = tx.init(PARAMS)
    rate = {**first.hyperparams, "learning_rate": jnp.array(0.5)}
    second = first._replace(hyperparams=rate)
    assert float(first.hyperparams["learning_rate"]) == pytest.approx(0.1)
    return train(tx, state=second), second.inner_state[0].mu


def sets_by_name(optax: Any) -> Any:
    """With Optax's functions, which know the states of both libraries."""
    tx = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9))
    state = peer.tree_utils.tree_set(tx.init(PARAMS), learning_rate=jnp.array(0.5))
    params = train(tx, state=state)
    return params, peer.tree_utils.tree_get(state, "learning_rate")


def masked_states(optax: Any) -> Any:
    """What a masked member stores is mapped, and what is masked is left out."""
    tx = optax.masked(optax.sgd(0.1, momentum=0.9), {"w": True, "b": False})
    state = after_a_step(tx)
    doubled = peer.tree_map_params(tx, lambda slot: 2 * slot, state)
    return train(tx, state=doubled), doubled.inner_state[0].trace["w"]


def nodes_that_are_masked(optax: Any) -> Any:
    """A walk that stops at masked nodes counts them and the arrays beside them."""
    tx = optax.masked(optax.sgd(0.1, momentum=0.9), {"w": True, "b": False})

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    nodes = jax.tree.leaves(tx.init(PARAMS), is_leaf=is_masked)
    return sum(map(is_masked, nodes)), sum(isinstance(node, jax.Array) for node in nodes) > 0


def no_state(optax: Any) -> Any:
    """Of what stores nothing: None, (), an empty state of Optax's."""
    nothing = peer.EmptyState()
    return (
        optax.clip(0.5).update(PARAMS, None),
        optax.scale(2.0).update(PARAMS, ())[0],
        optax.clip_by_global_norm(1.0).update(PARAMS, nothing)[0],
        optax.add_decayed_weights(0.1).update(PARAMS, nothing, PARAMS)[0],
        optax.chain(optax.clip(1.0), optax.scale(2.0)).update(PARAMS, (nothing, nothing))[0],
        optax.sgd(0.1).update(PARAMS, (nothing, nothing))[0],
        jax.jit(lambda updates: optax.centralize().update(updates, None)[0])(PARAMS),
    )


SCRIPTS: list[Callable[[Any], Any]] = [
    moments_by_attribute,
    moments_by_position,
    moments_by_name,
    moments_by_a_walk,
    counters_of_multi_steps,
    states_of_groups,
    plateau,
    writes_beside_a_clip,
    replaces_hyperparams,
    sets_by_name,
    masked_states,
    nodes_that_are_masked,
    no_state,
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_script(script: Callable[[Any], Any]) -> None:
    assert_equal_numbers(script)


@pytest.mark.parametrize("library", LIBRARIES)
def test_noise_needs_its_count(library: str) -> None:
    """The same noise at every step would be wrong, and nobody would see it."""
    tx = LIBRARIES[library].add_noise(0.1, 0.5, 0)
    with pytest.raises((StateError, AttributeError)):
        tx.update(PARAMS, None)
