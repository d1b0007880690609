"""What the lifter owns: precision, kernels shared by shape, masks, the clock, keys, and
apply_updates.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx
from gradtx.tree.kernels import bundle_size, call_rows
from gradtx.tree.paths import tree_paths
from tests.methods.row import rate
from tests.support.peer import optax

MANY = {f"w{index}": jnp.full((2, 3), float(index)) for index in range(30)}


KERNELS = "run_rules", "run_any_shape", "_each_row"


def count_calls(tx: gradtx.GradientTransformation, params: Any) -> int:
    """How many calls a traced update makes at its outer level."""
    jaxpr = jax.make_jaxpr(tx.update)(params, tx.init(params), params)
    return sum(
        any(one in str(equation.params.get("name")) for one in KERNELS) for equation in jaxpr.eqns
    )


def test_tracing_costs_shapes_not_leaves() -> None:
    """30 leaves alike, a chain of three rules: one bundle of calls, not 90."""
    assert count_calls(gradtx.adamw(0.1), MANY) <= bundle_size(30) + 30 // bundle_size(30)
    assert bundle_size(500) == 20 and bundle_size(1) == 1
    assert all(1 <= bundle_size(n) <= n for n in range(1, 200))


TRACED: list[int] = []


def counted(
    grad: jax.Array, slots: None, param: None, step: jax.Array, *, factor: jax.Array
) -> Any:
    TRACED.append(1)
    return factor * grad, slots


def test_equal_rules_share_one_kernel() -> None:
    """Definitions with other numbers, and leaves of one shape, trace a rule once; another shape
    traces it again.
    """
    params = {"a": jnp.ones((7, 5)), "b": jnp.ones((7, 5))}
    for factor in (0.1, 0.2):
        tx = gradtx.leafwise(None, counted, factor=factor)
        tx.update(params, tx.init(params))
        jax.jit(tx.update)(params, tx.init(params))
    assert len(TRACED) == 1
    tx.update({"a": jnp.ones(9)}, tx.init({"a": jnp.ones(9)}))  # pyright: ignore[reportPossiblyUnboundVariable]
    assert len(TRACED) == 2


def half(shared: Any, row: Any) -> Any:
    return row[0] * shared


@given(st.integers(1, 40))
@settings(deadline=None, max_examples=10, derandomize=True)
def test_bundled_calls_keep_their_order(count: int) -> None:
    rows = [(jnp.asarray(float(index)),) for index in range(count)]
    assert [float(out) for out in call_rows(half, 0.5, rows)] == [
        index * 0.5 for index in range(count)
    ]


def test_gradients_in_low_precision_are_computed_in_float32() -> None:
    """In bfloat16, 1 + 0.001 is 1: a rule computed there would lose the decay."""
    g, w = jnp.asarray([1.0], jnp.bfloat16), jnp.asarray([-1.0], jnp.bfloat16)
    tx = gradtx.chain(
        gradtx.add_decayed_weights(1e-3), gradtx.add_decayed_weights(1.0), gradtx.scale(-1000.0)
    )
    updates, _ = tx.update(g, tx.init(w), w)  # (1 - 0.001 - 1) * -1000
    assert updates.dtype == jnp.bfloat16 and float(updates[0]) == pytest.approx(1.0, rel=2**-7)


def test_second_moments_are_float32_for_bfloat16_parameters() -> None:
    slots = (
        gradtx.adam(0.1, mu_dtype=jnp.bfloat16)
        .init({"w": jnp.ones(2, jnp.bfloat16)})
        .slots["scale_by_adam"]
    )
    assert slots.mu["w"].dtype == jnp.bfloat16 and slots.nu["w"].dtype == jnp.float32


def test_global_norm_of_low_precision_is_summed_in_float32() -> None:
    """4096 ones in float16 have norm 64; their sum of squares in bfloat16 would stop at 256."""
    ones = {"w": jnp.ones(4096, jnp.bfloat16)}
    assert float(gradtx.global_norm(ones)) == 64.0
    tx = gradtx.clip_by_global_norm(32.0)
    assert tx.update(ones, tx.init(ones))[0]["w"][0] == 0.5


def test_the_learning_rate_is_not_rounded_to_the_gradients_dtype() -> None:
    """0.3 is 0.30078 in bfloat16; 0.3 * 10 rounded once is 3.0."""
    g = jnp.asarray([10.0], jnp.bfloat16)
    tx = gradtx.tunable(gradtx.sgd(0.3), "learning_rate")
    assert tx.update(g, tx.init(g))[0][0] == -3.0
    assert gradtx.sgd(0.3).update(g, gradtx.sgd(0.3).init(g))[0][0] == -3.0


def test_b2_in_the_state_is_not_rounded_to_one() -> None:
    """With bfloat16 parameters 0.999 would round to 1, and Adam divide by zero."""
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    tx = gradtx.inject_hyperparams(gradtx.adam)(0.1)
    state = tx.init(params)
    assert state.hyperparams["b2"].dtype == jnp.float32 and state.hyperparams["b2"] < 1
    assert bool(jnp.all(jnp.isfinite(tx.update(params, state, params)[0]["w"])))


def test_a_gradient_of_none_leaves_its_parameter_and_slots_alone() -> None:
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = gradtx.adamw(0.1)
    _, state = tx.update(params, tx.init(params), params)
    updates, new = tx.update({"a": None, "b": jnp.ones(2)}, state, params)
    assert updates["a"] is None
    chex.assert_trees_all_equal(
        new.slots["scale_by_adam"].mu["a"], state.slots["scale_by_adam"].mu["a"]
    )
    chex.assert_trees_all_equal(gradtx.apply_updates(params, updates)["a"], params["a"])


def test_float0_gradients_of_integers() -> None:
    params = {"n": jnp.asarray(3), "w": jnp.asarray(2.0)}
    grads = jax.grad(lambda p: p["w"] ** 2, allow_int=True)(params)
    tx = gradtx.adamw(0.1)
    updates, _ = tx.update(grads, tx.init(params), params)
    new = gradtx.apply_updates(params, updates)
    assert new["n"] == 3 and new["w"] < 2


def test_masks_join_the_kernel() -> None:
    """adamw with a mask is one kernel per leaf, as without."""
    params = {"bias": jnp.ones(3), "kernel": jnp.ones((3, 3))}
    assert count_calls(gradtx.adamw(0.1, mask="kernel"), params) == count_calls(
        gradtx.adamw(0.1), params
    )


def test_the_clock_saturates() -> None:
    tx, params = gradtx.adam(rate), {"w": jnp.ones(2)}
    top = jnp.iinfo(jnp.int32).max
    state = tx.init(params)._replace(count=jnp.asarray(top, jnp.int32))
    updates, state = tx.update(params, state, params)
    assert int(state.count) == top and bool(jnp.all(jnp.isfinite(updates["w"])))


def test_one_clock_for_all_members() -> None:
    """A schedule sees the updates made so far; a rule's step is one more; nested members agree."""
    seen = gradtx.chain(
        gradtx.scale_by_schedule(lambda count: count + 1.0),
        inner=gradtx.chain(gradtx.ema(0.5), gradtx.scale(lambda count: 10.0 * count)),
    )
    state = seen.init(jnp.ones(()))
    updates = None
    for count in range(3):
        updates, state = seen.update(jnp.ones(()), state)
        assert int(state.count) == count + 1
    assert updates is not None
    average = (1 * 0.25 * 0.5 + 2 * 0.25 + 3 * 0.5) / (1 - 0.5**3)
    assert float(updates) == pytest.approx(10.0 * 2 * average, rel=1e-6)


class Noise(NamedTuple):
    last: jax.Array


def init_noise(param: jax.Array) -> Noise:
    return Noise(jnp.zeros(param.shape))


def add_noise(grad: jax.Array, slots: Noise, param: Any, step: jax.Array, *, key: jax.Array) -> Any:
    noise = jax.random.normal(key, grad.shape)
    return grad + noise, Noise(noise)


@pytest.mark.parametrize(
    "key", [jax.random.PRNGKey(0), jax.random.key(1)], ids=["input_grad", "typed"]
)
def test_one_random_key_per_leaf_and_step(key: jax.Array) -> None:
    tx = gradtx.leafwise(init_noise, add_noise, key=key)
    params = {"a": jnp.zeros(3), "b": jnp.zeros(3)}
    first, state = tx.update(params, tx.init(params))
    second, _ = jax.jit(tx.update)(params, state)
    draws = np.stack([first["a"], first["b"], second["a"], second["b"]])
    assert len(np.unique(draws)) == 12, "leaves and steps draw anew"
    again, _ = tx.update(
        {"b": jnp.zeros(3), "z": jnp.zeros(3)}, tx.init({"b": jnp.zeros(3), "z": jnp.zeros(3)})
    )
    np.testing.assert_array_equal(again["b"], first["b"])  # the same leaf, beside other leaves


class Copied(NamedTuple):
    start: jax.Array


def init_copied(param: jax.Array) -> Copied:
    return Copied(param)


def towards_start(grad: jax.Array, slots: Copied, param: jax.Array, step: jax.Array) -> Any:
    return slots.start - param, slots


def test_a_slot_that_is_the_parameter_is_copied_so_that_both_may_be_donated() -> None:
    tx = gradtx.leafwise(init_copied, towards_start, needs_params=True)
    step = gradtx.make_step(lambda w: jnp.sum(w**2), tx)
    params = jnp.ones(3)
    params, state, _ = step(params, tx.init(params))
    params, state, _ = step(params, state)
    assert params.tolist() == [1.0, 1.0, 1.0]


def test_rules_see_hyperparameters_as_float32() -> None:
    """Strict promotion holds inside kernels: integers given as hyperparameters arrive as floats."""
    with jax.numpy_dtype_promotion("strict"):
        tx = gradtx.chain(gradtx.clip_by_global_norm(1), gradtx.adamw(1, b1=0))
        params = {"w": jnp.ones((2, 2))}
        updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
        assert updates["w"].dtype == jnp.float32


def test_without_jit_the_numbers_agree() -> None:
    params = {"w": jnp.arange(4.0)}
    tx = gradtx.adam(0.1)
    expected = tx.update(params, tx.init(params))[0]
    with jax.disable_jit():
        chex.assert_trees_all_close(tx.update(params, tx.init(params))[0], expected, rtol=1e-6)


def test_leaves_on_several_devices_are_not_mixed() -> None:
    """The bundle of like leaves is by placement too, so a model spread over devices steps
    eagerly.
    """
    from gradtx.tree.kernels import signature

    leaf = jnp.ones(3)
    assert signature(leaf) == signature(jnp.zeros(3)) != signature(jnp.zeros(4))
    assert leaf.sharding in signature(leaf)


def test_apply_updates() -> None:
    params = {
        "w": jnp.ones(2, jnp.bfloat16),
        "n": jnp.asarray(3),
        "none": None,
        "key": jax.random.key(0),
    }
    new = gradtx.apply_updates(
        params, {"w": jnp.full(2, 0.5), "n": jnp.asarray(1), "none": None, "key": None}
    )
    assert new["w"].dtype == jnp.bfloat16 and new["w"].tolist() == [1.5, 1.5]
    assert new["n"] == 3 and new["none"] is None and new["key"] is params["key"]
    assert gradtx.apply_updates(1.0, 0.5) == 1.5 and gradtx.apply_updates({}, {}) == {}


def test_apply_updates_adds_as_optax_does() -> None:
    params = {"a": jnp.arange(6.0).reshape(2, 3), "b": [jnp.ones(3, jnp.float16)]}
    updates = jax.tree.map(lambda leaf: leaf * 0.1, params)
    chex.assert_trees_all_equal(
        gradtx.apply_updates(params, updates), optax.apply_updates(params, updates)
    )


@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3).map(tuple), min_size=1, max_size=5),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]),
)
@settings(deadline=None, max_examples=15, derandomize=True)
def test_any_shapes_and_dtypes(shapes: list[tuple[int, ...]], dtype: Any) -> None:
    params = [jnp.asarray(np.ones(shape), dtype) for shape in shapes]
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
    updates, state = tx.update(params, tx.init(params), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, updates)
    assert all(
        bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((updates, state.slots))
    )


def test_paths_ignore_a_trailing_value() -> None:
    class Variable(NamedTuple):
        value: Any

    assert tree_paths({"dense": {"kernel": Variable(1.0)}, "value": 2.0}) == (
        "dense/kernel",
        "value",
    )
    where = gradtx.masked(gradtx.scale(0.0), r"kernel$")
    params = {"dense": {"kernel": Variable(jnp.ones(2)), "bias": Variable(jnp.ones(2))}}
    updates, _ = where.update(params, where.init(params))
    assert updates["dense"]["kernel"].value.sum() == 0 and updates["dense"]["bias"].value.sum() == 2


def test_apply_updates_rounds_once() -> None:
    """Half a unit in the last place of 1, and a little more, rounds up; the update rounded first
    would be a tie, and round down.
    """
    half = 2.0**-8
    new = gradtx.apply_updates(
        {"w": jnp.ones(1, jnp.bfloat16)}, {"w": jnp.full(1, half * (1 + 2**-9), jnp.float32)}
    )
    assert float(new["w"][0]) == 1 + 2 * half


def test_parameters_may_be_python_floats() -> None:
    tx = gradtx.adam(0.1)
    updates, _ = tx.update({"w": 2.0}, tx.init({"w": 1.0}))
    assert float(updates["w"]) == pytest.approx(-0.1, rel=1e-4)
