"""`from_optax_state`: the next updates are those that Optax would make."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import gradtx
from tests.support.peer import optax

PARAMS = {"dense": {"kernel": jnp.linspace(-1, 1, 12).reshape(3, 4), "bias": jnp.ones(4)}}
LABELS = {"dense": {"kernel": "a", "bias": "b"}}
MASK = {"dense": {"kernel": True, "bias": False}}
LARGE = {"dense": {"kernel": jnp.ones((130, 140)), "bias": jnp.ones(4)}}


def rate(count: Any) -> Any:
    return 0.1 / (1.0 + count)


Make = Callable[[Any], Any]
SAME: dict[str, Make] = {
    "adabelief": lambda o: o.adabelief(0.1),
    "adagrad": lambda o: o.adagrad(0.1),
    "adadelta": lambda o: o.adadelta(0.1),
    "adafactor": lambda o: o.adafactor(0.1),
    "adam": lambda o: o.adam(0.1),
    "adamax": lambda o: o.adamax(0.1),
    "adamw, a schedule": lambda o: o.adamw(rate, b1=0.8),
    "adan": lambda o: o.adan(0.1),
    "amsgrad": lambda o: o.amsgrad(0.1),
    "apply_if_finite": lambda o: o.apply_if_finite(o.adam(0.1), 3),
    "chain": lambda o: o.chain(o.clip_by_global_norm(0.5), o.adamw(rate), o.ema(0.9)),
    "chain of chains": lambda o: o.chain(o.chain(o.clip(0.5), o.trace(0.9)), o.scale(-0.1)),
    "inject_hyperparams": lambda o: o.inject_hyperparams(o.adamw)(learning_rate=0.1),
    "lamb": lambda o: o.lamb(0.1),
    "lion": lambda o: o.lion(0.1),
    "masked": lambda o: o.masked(o.adam(0.1), MASK),
    "nadam": lambda o: o.nadam(0.1),
    "novograd": lambda o: o.novograd(0.1),
    "partition": lambda o: o.partition(
        {"a": o.adam(0.1), "b": o.sgd(0.1, momentum=0.9)}, LABELS
    ),
    "partition, twice adam": lambda o: o.partition({"b": o.adam(0.1), "a": o.adam(0.2)}, LABELS),
    "radam": lambda o: o.radam(0.1),
    "rmsprop": lambda o: o.rmsprop(0.1, momentum=0.9, centered=True),
    "sgd": lambda o: o.sgd(0.1),
    "sgd, momentum": lambda o: o.sgd(rate, momentum=0.9, nesterov=True),
    "two traces": lambda o: o.chain(o.trace(0.9), o.trace(0.5), o.scale(-0.1)),
    "yogi": lambda o: o.yogi(0.1),
}  # fmt: skip


def trained(tx: Any, params: Any, steps: int) -> tuple[Any, Any]:
    state = tx.init(params)
    for step in range(steps):
        updates, state = tx.update(gradients(params, step), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


def gradients(params: Any, step: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.cos(leaf * (step + 1)), params)


ROUGH = {"radam": 2e-2}
"""Optax subtracts large numbers in float32: its own updates are that far from those in float64."""


def assert_goes_on(
    tx: Any, state: Any, peer: Any, theirs: Any, params: Any, steps: int, rtol: float = 2e-4
) -> None:
    for step in range(steps, steps + 3):
        grads = gradients(params, step)
        ours, state = tx.update(grads, state, params)
        expected, theirs = peer.update(grads, theirs, params)
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            # Both round in float32; a moment of zero would differ by more than a third.
            np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-6)
        params = jax.tree.map(jnp.add, params, expected)


@pytest.mark.parametrize("name", sorted(SAME))
def test_the_next_updates_are_those_of_optax(name: str) -> None:
    tx, peer = SAME[name](gradtx), SAME[name](optax)
    start = LARGE if name == "adafactor" else PARAMS
    params, theirs = trained(peer, start, 5)
    state = gradtx.from_optax_state(tx, theirs, params)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
    assert_goes_on(tx, state, peer, theirs, params, 5, ROUGH.get(name, 2e-4))


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("steps", [4, 5])
def test_multi_steps_within_a_cycle(steps: int, mean: bool) -> None:
    def make(o: Any) -> Any:
        return o.MultiSteps(o.chain(o.clip(0.5), o.adam(0.1)), 3, use_grad_mean=mean)

    peer = make(optax)
    params, theirs = trained(peer, PARAMS, steps)
    tx = gradtx.accumulate(gradtx.chain(gradtx.clip(0.5), gradtx.adam(0.1)), 3, use_grad_mean=mean)
    state = gradtx.from_optax_state(tx, theirs, params)
    assert int(state.count) == 1 and int(state.micro_step) == steps - 3
    assert_goes_on(tx, state, peer, theirs, params, steps)


# From files ---------------------------------------------------------------------------------------


def orbax_file(folder: Path, state: Any) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state")


def msgpack_file(folder: Path, state: Any) -> Any:
    (folder / "state").write_bytes(flax.serialization.to_bytes(state))
    return flax.serialization.msgpack_restore((folder / "state").read_bytes())


@pytest.mark.filterwarnings("ignore:.*[Ss]harding info not provided")  # Orbax, asked for nothing
@pytest.mark.parametrize("file", [orbax_file, msgpack_file])
@pytest.mark.parametrize(
    "name", ["adamw, a schedule", "chain", "inject_hyperparams", "partition", "two traces"]
)
def test_a_file_of_optax_is_read(
    name: str, file: Callable[[Path, Any], Any], tmp_path: Path
) -> None:
    tx, peer = SAME[name](gradtx), SAME[name](optax)
    params, theirs = trained(peer, PARAMS, 5)
    state = gradtx.from_optax_state(tx, file(tmp_path, theirs), params)
    expected = gradtx.from_optax_state(tx, theirs, params)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


# Mistakes -----------------------------------------------------------------------------------------


def text_of(call: Callable[[], Any]) -> str:
    with pytest.raises(gradtx.StateError) as caught:
        call()
    return str(caught.value)


def test_a_slot_that_optax_lacks_is_named() -> None:
    _, theirs = trained(optax.sgd(0.1, momentum=0.9), PARAMS, 1)
    assert text_of(lambda: gradtx.from_optax_state(gradtx.adam(0.1), theirs, PARAMS)) == (
        "from_optax_state: nothing in Optax's state fits the slots of scale_by_adam (mu, nu) by "
        "name and shape; it has 0/trace/dense: bias, kernel: write the definition that was "
        "trained, or restore its slots by hand with restore_state"
    )


def test_a_slot_that_gradtx_lacks_is_named() -> None:
    _, theirs = trained(optax.adam(0.1), PARAMS, 1)
    assert text_of(lambda: gradtx.from_optax_state(gradtx.lion(0.1), theirs, PARAMS)) == (
        "from_optax_state: 0/nu of Optax's state has no slot in this definition: write the "
        "definition that was trained"
    )


def test_counts_that_differ_need_one() -> None:
    peer, tx = (o.chain(o.adam(0.1), o.adam(0.1)) for o in (optax, gradtx))
    _, (first, second) = trained(peer, PARAMS, 3)
    theirs = (first, (second[0]._replace(count=jnp.int32(7)), *second[1:]))
    assert text_of(lambda: gradtx.from_optax_state(tx, theirs, PARAMS)) == (
        "from_optax_state: the counts of Optax's state differ (0/0/count = 3, 1/0/count = 7): pass "
        "count= with the number of updates of the whole"
    )
    assert int(gradtx.from_optax_state(tx, theirs, PARAMS, count=7).count) == 7


def test_other_parameters_are_refused() -> None:
    _, theirs = trained(optax.adam(0.1), PARAMS, 1)
    assert text_of(
        lambda: gradtx.from_optax_state(gradtx.adam(0.1), theirs, {"w": jnp.ones(3)})
    ).startswith("from_optax_state: nothing in Optax's state fits the slots of scale_by_adam")
