"""Rules that look at the whole tree first: measure, conclude, shared scalars, extra arguments; and
rules that absorb.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, MissingExtraError, StateError
from gradtx.tree.arithmetic import sum_scalars
from gradtx.tree.casts import zeros
from gradtx.tree.kernels import stack_scalars
from gradtx.tree.maps import make_leaves, map_leaves

PARAMS = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([[12.0]]), "n": jnp.array(7), "none": None}


class Slots(NamedTuple):
    seen: jax.Array


class Shared(NamedTuple):
    largest: jax.Array
    sum: jax.Array


class Norms(NamedTuple):
    square: jax.Array
    inner: jax.Array


def init(param: jax.Array) -> Slots:
    return Slots(jnp.zeros_like(param))


def init_tree_slots(*, start: float) -> Shared:
    return Shared(jnp.asarray(start), jnp.asarray(0.0))


def measure(
    grad: jax.Array,
    slots: Slots,
    param: jax.Array,
    step: jax.Array,
    *,
    largest: jax.Array,
    sign: float,
) -> Norms:
    return Norms(jnp.sum(grad**2), sign * jnp.sum(grad * param) + 0 * largest)


def conclude(
    found: Any, shared: Shared, step: jax.Array, *, value: jax.Array, start: jax.Array
) -> Any:
    norm = jnp.sqrt(sum(found.square))
    return {"norm": norm, "value": value}, Shared(
        jnp.maximum(shared.largest, norm), shared.sum + sum(found.inner)
    )


def update(
    grad: jax.Array, slots: Slots, param: Any, step: jax.Array, *, norm: jax.Array, value: jax.Array
) -> Any:
    return value * grad / norm, Slots(slots.seen + grad)


@gradtx.definition
def measured(start: gradtx.NonNegative = 0.0) -> gradtx.GradientTransformation:
    """A rule with all there is."""
    return gradtx.leafwise(
        init,
        update,
        start=start,
        sign=1.0,
        measure=measure,
        conclude=conclude,
        init_tree_slots=init_tree_slots,
        extra=("value",),
        needs_params=True,
    )


def test_scalars_of_all_arrays_reach_every_array() -> None:
    tx = measured()
    state = tx.init(PARAMS)
    assert state.slots["measured"] == {
        "seen": {"a": pytest.approx(0), "b": pytest.approx(0), "n": None, "none": None},
        "largest": 0.0,
        "sum": 0.0,
    }
    updates = PARAMS
    for _ in range(2):
        updates, state = jax.jit(tx.update)(PARAMS, state, PARAMS, value=26.0)
    np.testing.assert_allclose(updates["a"], [6.0, 8.0])
    np.testing.assert_allclose(updates["b"], [[24.0]])
    assert updates["n"] == 7
    kept = state.slots["measured"]
    assert (kept["largest"], kept["sum"]) == (13.0, 2 * 169.0)
    np.testing.assert_allclose(kept["seen"]["a"], [6.0, 8.0])


def measure_raw(
    grad: jax.Array, slots: None, param: None, step: jax.Array, *, input_grad: jax.Array
) -> Norms:
    return Norms(jnp.sum(input_grad**2), jnp.sum(grad * input_grad))


def conclude_raw(found: Any, shared: None, step: jax.Array) -> Any:
    return {"norm": jnp.sqrt(sum(found.square)), "value": sum(found.inner)}, shared


def update_by_raw(
    grad: jax.Array, slots: None, param: None, step: jax.Array, *, norm: jax.Array, value: jax.Array
) -> Any:
    return grad * value / norm, slots


def test_the_gradient_as_it_was_given_may_be_measured() -> None:
    """Also by a rule whose update does not ask for it."""
    tx = gradtx.chain(
        gradtx.scale(2.0),
        gradtx.leafwise(None, update_by_raw, measure=measure_raw, conclude=conclude_raw),
    )
    updates, _ = jax.jit(tx.update)(
        PARAMS, tx.init(PARAMS), PARAMS
    )  # 2 g times <2 g, g> / |g|, where |g| is 13
    np.testing.assert_allclose(updates["a"], 2 * 2 * 13 * np.array([3.0, 4.0]), rtol=1e-6)


def test_a_mask_narrows_what_is_measured() -> None:
    tx = gradtx.masked(measured(), "a")
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0)
    assert state.slots["measured"]["largest"] == 5.0


def test_shared_scalars_are_as_precise_as_the_widest_array() -> None:
    with jax.enable_x64(True):
        params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float64)}
        tx = measured()
        assert {
            leaf.dtype
            for leaf in (tx.init(params).slots["measured"][name] for name in Shared._fields)
        } == {jnp.dtype(jnp.float64)}
        assert tx.init({"a": params["a"]}).slots["measured"]["largest"].dtype == jnp.float32
        _, state = tx.update(params, tx.init(params), params, value=1.0)
        assert state.slots["measured"]["largest"].dtype == jnp.float64


def test_what_the_caller_must_pass_is_named() -> None:
    tx = gradtx.chain(gradtx.clip(1.0), measured())
    assert tx.needs == {"params", "value"} and gradtx.clip(1.0).needs == frozenset()
    assert gradtx.tunable(tx, "max_delta").needs == tx.needs
    with pytest.raises(
        MissingExtraError,
        match=r"measured needs value: call update\(grads, state, params, value=\.\.\.\)",
    ):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    tree = gradtx.treewise(None, by_value, extra=("value",))
    with pytest.raises(MissingExtraError, match="by_value needs value"):
        tree.update(PARAMS, tree.init(PARAMS), PARAMS)
    assert tree.update(PARAMS, tree.init(PARAMS), PARAMS, value=2.0)[0]["a"].tolist() == [6.0, 8.0]


def by_value(updates: Any, slots: None, params: Any, step: Any, *, value: Any) -> Any:
    return {**updates, "a": value * updates["a"]}, slots


def test_a_state_of_another_rule_is_refused() -> None:
    tx = measured()
    state = tx.init(PARAMS)
    lacking = {name: value for name, value in state.slots["measured"].items() if name != "sum"}
    with pytest.raises(StateError, match=r"member measured keeps Shared, its state holds dict"):
        tx.update(PARAMS, gradtx.State(state.count, {"measured": lacking}), PARAMS, value=1.0)
    with pytest.raises(
        GradtxError, match="measure measures and no `conclude` uses it: pass conclude="
    ):
        gradtx.leafwise(None, update, measure=measure)


def test_reading_a_batch_of_it() -> None:
    losses = jnp.array([1.0, 2.0])
    tx = measured()
    step = jax.vmap(lambda value: tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=value)[0]["a"])
    np.testing.assert_allclose(step(losses)[1], 2 * step(losses)[0])


@pytest.mark.parametrize(
    "wrap", [gradtx.chain, lambda *members: gradtx.chain(gradtx.chain(*members[:-1]), members[-1])]
)
def test_chain_of_adam_and_freeze_keeps_no_state_for_frozen_leaves(wrap: Any) -> None:
    params = {"head": jnp.ones(2), "trunk": jnp.ones(3)}
    tx = wrap(gradtx.scale_by_adam(), gradtx.scale(-0.1), gradtx.freeze("trunk"))
    state = tx.init(params)
    assert [leaf.shape for leaf in jax.tree.leaves(state.slots)] == [(2,), (2,)]
    updates, state = tx.update(params, state, params)
    assert updates["trunk"].tolist() == [0, 0, 0] and updates["head"].tolist() == pytest.approx(
        [-0.1, -0.1]
    )
    assert len(jax.tree.leaves(state.slots)) == 2


def test_a_norm_between_still_counts_what_is_frozen_later() -> None:
    params = {"head": jnp.array([3.0]), "trunk": jnp.array([4.0])}
    tx = gradtx.chain(gradtx.trace(0.9), gradtx.clip_by_global_norm(1.0), gradtx.freeze("trunk"))
    updates, state = tx.update(params, tx.init(params))
    assert updates["head"].item() == pytest.approx(0.6) and len(jax.tree.leaves(state.slots)) == 2


def test_maps_leave_alone_what_is_no_float() -> None:
    made = make_leaves(zeros, PARAMS)
    assert made["n"] is None and made["none"] is None and made["a"].tolist() == [0, 0]
    half = {"a": jnp.ones(2, jnp.bfloat16), "n": 1, "none": None}
    both = map_leaves(
        spread, half, {"a": jnp.full(2, 2.0**-9), "n": None, "none": None}, like=(0, 1), factor=3.0
    )
    assert (
        both[0]["a"].dtype == jnp.bfloat16
        and both[1]["a"].tolist() == [3 * (1 + 2.0**-9)] * 2
        and both[1]["n"] is None
    )
    assert map_leaves(operator.neg, half)["n"] == 1


def spread(x: jax.Array, y: jax.Array, *, factor: jax.Array) -> Any:
    return x + y, factor * (x + y)


def conclude_by_place(measures: Any, tree_slots: None, step: jax.Array) -> Any:
    first, *_, last = measures.square
    return {"factor": last - first + len(measures.square) + sum(measures.square[1:3])}, None


class SquareOf(NamedTuple):
    square: jax.Array


def measure_square(grad: Any, slots: None, param: None, step: jax.Array) -> SquareOf:
    return SquareOf(jnp.sum(grad**2))


def times(grad: Any, slots: None, param: None, step: jax.Array, *, factor: jax.Array) -> Any:
    return factor * grad, slots


@pytest.mark.parametrize("count", [300, 256, 129])
def test_measures_of_many_arrays_outside_of_jit(count: int) -> None:
    """They are stacked there, and a rule reads them like any others."""
    tree = {f"w{index:03}": jnp.full(2, index / count) for index in range(count)}
    by_place = gradtx.leafwise(None, times, measure=measure_square, conclude=conclude_by_place)
    for tx in (gradtx.clip_by_global_norm(1.0), by_place):
        update = functools.partial(tx.update, tree, tx.init(tree))
        for one, other in zip(
            jax.tree.leaves(update()), jax.tree.leaves(jax.jit(update)()), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-5)
    squares = [2 * (index / count) ** 2 for index in range(count)]
    factor = squares[-1] - squares[0] + count + squares[1] + squares[2]
    found = by_place.update(tree, by_place.init(tree))[0]["w001"]
    np.testing.assert_allclose(found, factor / count, rtol=1e-5)


def test_a_program_receives_many_measures_as_few_arrays() -> None:
    """XLA compiles n arguments in n² time."""
    scalars = stack_scalars([jnp.asarray(float(index)) for index in range(1000)])
    assert len(jax.tree.leaves(scalars)) == 16 and len(scalars) == 1000
    assert float(sum_scalars(scalars)) == 499_500 and float(scalars[-1]) == 999
