"""accumulate: the large batch from small ones, what an update waits for, weights, and where it
stands among other wrappers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError
from tests.support.accumulating import ONE, optimizer, ramp, run, step
from tests.support.bits import TINY, bits


def network(dtype: Any) -> Any:
    """A net of 3, 8 and 1 units, and 280 examples; enough for every k below."""
    generator = np.random.default_rng(0)
    params = {
        "u": 0.5 * generator.normal(size=(3, 8)),
        "c": 0.1 * generator.normal(size=8),
        "v": 0.5 * generator.normal(size=8),
    }
    x = generator.normal(size=(280, 3))
    return jax.tree.map(
        lambda a: jnp.asarray(np.float32(a), dtype), (params, x, np.sin(x.sum(axis=1)))
    )


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((jnp.tanh(x @ params["u"] + params["c"][None]) @ params["v"] - y) ** 2)


def constant(k: int, count: Any) -> Any:
    return k


def pieces(k: int, number: int, x: jax.Array, y: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """The micro-batches of one update, 7 examples or more each, and other ones at every update."""
    size = 84 // k
    order = np.random.default_rng(number).permutation(len(x))[: k * size].reshape(k, size)
    return [(x[rows], y[rows]) for rows in order]


@pytest.mark.parametrize("every", [1, 4, 7, ramp])
def test_the_large_batch(every: Any) -> None:
    """20 updates, to 1e-6 of the largest entry of each array; the large batch in float64, whose
    order of sums does not matter.
    """
    updates = 20
    k_of: Any = every if callable(every) else functools.partial(constant, every)
    params, x, y = network(jnp.float32)
    tx = gradtx.accumulate(optimizer(), every)
    slope, advance = jax.jit(jax.grad(loss)), jax.jit(functools.partial(step, tx))
    state = tx.init(params)
    for number in range(updates):
        for batch in pieces(int(k_of(number)), number, x, y):
            params, state = advance(params, state, slope(params, *batch))
    assert int(state.count) == updates and int(state.slots["accumulate"].micro_step) == 0
    for name, exact in large(updates, k_of).items():
        assert np.max(np.abs(params[name] - exact)) <= 1e-6 * np.max(np.abs(exact)), name


def large(updates: int, k_of: Any) -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        params, x, y = network(jnp.float64)
        tx = optimizer()
        state, slope, advance = (
            tx.init(params),
            jax.jit(jax.grad(loss)),
            jax.jit(functools.partial(step, tx)),
        )
        for number in range(updates):
            whole = (
                jnp.concatenate(parts)
                for parts in zip(*pieces(int(k_of(number)), number, x, y), strict=True)
            )
            params, state = advance(params, state, slope(params, *whole))
        return jax.tree.map(np.asarray, params)


def test_a_statistic_sees_the_mean_once() -> None:
    """Gradients of 10 and −10 have the mean 0: a clip of each would leave nothing to see either,
    one of 10 and 20 would.
    """
    tx = gradtx.accumulate(gradtx.clip_by_global_norm(12.0), 2)
    assert run(tx, [10.0, 20.0])[0] == [0.0, 12.0] and run(tx, [2.0, 4.0])[0] == [0.0, 3.0]
    assert run(gradtx.accumulate(gradtx.trace(0.5), 2), [1.0, 3.0, 5.0, 5.0])[0] == [
        0.0,
        2.0,
        0.0,
        6.0,
    ]


@pytest.mark.parametrize("jit", [False, True])
def test_an_inf_acts_when_its_mean_is_due_and_not_before(jit: bool) -> None:
    tx = gradtx.accumulate(gradtx.adamw(0.1), 3)
    advance = jax.jit(functools.partial(step, tx)) if jit else functools.partial(step, tx)
    state = tx.init(TINY)
    before = bits((TINY, own(state)))
    params = TINY
    for grads in (TINY, jax.tree.map(lambda w: w * jnp.inf, TINY)):
        params, state = advance(params, state, grads)
        assert bits((params, own(state))) == before and state.count == 0
    params, state = advance(params, state, TINY)
    assert state.count == 1 and not np.isfinite(params["w"]).any()
    fresh, _ = advance(
        TINY,
        state._replace(slots={**tx.init(TINY).slots, "accumulate": state.slots["accumulate"]}),
        TINY,
    )
    assert bits(fresh) == bits(TINY), "what the last update left is not in the next sum"


def own(state: Any) -> dict[str, Any]:
    """The slots of what is inside."""
    return {name: kept for name, kept in state.slots.items() if name != "accumulate"}


def test_the_next_sum_begins_anew() -> None:
    seen, state = run(
        gradtx.accumulate(gradtx.scale(1.0), 2), [1.0, jnp.inf, 2.0, 4.0, jnp.nan, 1.0, 1.0, 2.0]
    )
    np.testing.assert_array_equal(seen, [0.0, jnp.inf, 0.0, 3.0, 0.0, jnp.nan, 0.0, 1.5])
    assert int(state.count) == 4


# Weights


def weighed(tx: Any, grads: Any, weights: Any, jit: bool = False) -> tuple[list[float], Any]:
    update = jax.jit(tx.update) if jit else tx.update
    state, seen = tx.init(ONE), []
    for grad, weight in zip(grads, weights, strict=True):
        updates, state = update(jnp.asarray(grad), state, weight=weight)
        seen.append(float(updates))
    return seen, state


# What the inner transformation is told


def test_it_is_told_the_mean_loss_and_the_mean_gradient() -> None:
    """Losses of 1, then of 3 and 1 with weights 1 and 3: 1.5, which is no better."""
    tx = gradtx.accumulate(gradtx.reduce_on_plateau(0.5, patience=1), 2)
    state, update = tx.init(ONE), jax.jit(tx.update)
    for value, weight in ((1.0, 1), (1.0, 5), (3.0, 1), (1.0, 3)):
        _, state = update(ONE, state, value=value, weight=weight)
    kept = state.slots["reduce_on_plateau"]
    assert kept.best_value == 1.0 and kept.scale == 0.5 and state.slots["accumulate"].value == 6.0

    def told(updates: Any, slots: Any, params: Any, step: Any, *, grad: Any, extra: Any) -> Any:
        assert set(extra) == {"grad", "other"}
        return grad, slots

    asks = gradtx.treewise(None, told, extra=("grad",))
    tx = gradtx.accumulate(asks, 2)
    state, seen = tx.init(ONE), []
    for grad in (2.0, 4.0):
        updates, state = tx.update(
            jnp.asarray(grad), state, grad=jnp.asarray(99.0), weight=1.0, other=0
        )
        seen.append(float(updates))
    assert seen == [0.0, 3.0]


def test_a_sum_and_not_a_mean() -> None:
    tx = gradtx.accumulate(gradtx.scale(1.0), 2, use_grad_mean=False)
    assert run(tx, [1.0, 3.0])[0] == [0.0, 4.0]
    assert weighed(tx, [1.0, 3.0], [2, 3])[0] == [0.0, 11.0]


# Dtypes


def test_low_precision_is_summed_in_float32() -> None:
    """300 times 1: bfloat16 would stand still at 256."""
    tx = gradtx.accumulate(gradtx.scale(1.0), 300, use_grad_mean=False)
    g = jnp.ones(1, jnp.bfloat16)
    state = tx.init(g)
    assert state.slots["accumulate"].total.dtype == jnp.float32

    def step(state: gradtx.State, _: None) -> tuple[gradtx.State, jax.Array]:
        update, state = tx.update(g, state)
        return state, update

    _, seen = jax.lax.scan(step, state, None, length=300)
    assert seen.dtype == jnp.bfloat16 and seen[-1] == 300.0 and not seen[:-1].any()


@pytest.mark.parametrize("jit", [False, True])
def test_the_dtype_of_the_sum_may_be_chosen(jit: bool) -> None:
    """A narrow sum does not make the update narrow: it cannot stand in the place of the sum
    then.
    """
    tx = gradtx.accumulate(gradtx.scale(jnp.float32(1 / 3)), 2, accumulator_dtype=jnp.bfloat16)
    state, update = tx.init(ONE), jax.jit(tx.update) if jit else tx.update
    assert state.slots["accumulate"].total.dtype == jnp.bfloat16
    first, state = update(ONE, state)
    assert np.signbit(first) and first == 0
    second, state = update(ONE, state)
    assert (
        second == np.float32(1 / 3)
        and second.dtype == jnp.float32
        and state.slots["accumulate"].total.dtype == jnp.bfloat16
    )
    waves = gradtx.accumulate(gradtx.sgd(0.1), 2, accumulator_dtype=jnp.float32).init(
        jnp.ones(2, jnp.complex64)
    )
    assert waves.slots["accumulate"].total.dtype == jnp.complex64


def test_gradients_may_be_missing() -> None:
    """None is no gradient: it adds nothing to its sum, whatever the last window left there, and its
    parameter waits.
    """
    params = {"a": ONE, "b": ONE, "n": jnp.asarray(3)}
    tx = gradtx.accumulate(gradtx.sgd(1.0), 2)
    state, seen = tx.init(params), []
    for a, b in ((1.0, 1.0), (3.0, None), (1.0, 1.0), (1.0, 1.0), (1.0, None), (5.0, 4.0)):
        grads = {"a": a * ONE, "b": None if b is None else b * ONE, "n": jnp.asarray(0)}
        updates, state = tx.update(grads, state, params)
        seen.append((float(updates["a"]), updates["b"] if b is None else float(updates["b"])))
        assert updates["n"] == 0
    assert seen == [(0, 0), (-2, None), (0, 0), (-1, -1), (0, None), (-3, -2)]


# Clocks, and other wrappers


def test_the_inner_clock_counts_updates() -> None:
    tx = gradtx.accumulate(gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10)), 2)
    seen, state = run(tx, [1.0] * 7)
    np.testing.assert_allclose(seen, [0, -1.0, 0, -0.9, 0, -0.8, 0], rtol=1e-6)
    assert int(state.count) == 3 and int(state.slots["accumulate"].micro_step) == 1
    assert gradtx.hyperparams(tx, at=state)["learning_rate"] == pytest.approx(0.7)


def test_in_a_chain_each_has_its_clock() -> None:
    """The schedule outside sees every micro-step, the one inside the updates."""
    ramp_up = gradtx.linear_schedule(0.0, 1.0, 1)
    chained = gradtx.chain(
        gradtx.accumulate(gradtx.scale(lambda count: 1.0 + count), 2),
        gradtx.scale(lambda count: 10.0**count),
    )
    seen, state = run(chained, [1.0] * 4)
    assert seen == [0.0, 10.0, 0.0, 2000.0] and int(state.count) == 4
    tx = gradtx.chain(gradtx.accumulate(gradtx.sgd(ramp_up), 2), gradtx.scale(1.0))
    assert gradtx.hyperparams(tx, at=run(tx, [1.0, 1.0])[1])["learning_rate"] == 1.0


def test_under_a_mask_and_in_a_group() -> None:
    params = {"a": ONE, "b": ONE}
    masked = gradtx.masked(gradtx.accumulate(gradtx.scale(1.0), 2), "a")
    split = gradtx.partition(
        {"slow": gradtx.accumulate(gradtx.scale(1.0), 2), "fast": gradtx.scale(1.0)},
        {"a": "slow", "b": "fast"},
    )
    children = gradtx.accumulate(
        gradtx.partition(
            {"one": gradtx.scale(1.0), "two": gradtx.scale(2.0)}, {"a": "one", "b": "two"}
        ),
        2,
    )
    for tx, expected in (
        (masked, [(0, 1), (2, 3)]),
        (split, [(0, 1), (2, 3)]),
        (children, [(0, 0), (2, 4)]),
    ):
        state, seen = tx.init(params), []
        for grad in (1.0, 3.0):
            updates, state = jax.jit(tx.update)({"a": grad * ONE, "b": grad * ONE}, state, params)
            seen.append((float(updates["a"]), float(updates["b"])))
        assert seen == expected


def test_twice_around_is_refused_and_apart_is_not() -> None:
    with pytest.raises(GradtxError, match="accumulate directly around another accumulate"):
        gradtx.accumulate(gradtx.accumulate(gradtx.sgd(0.1), 2), 3).init(ONE)
    tx = gradtx.accumulate(
        gradtx.chain(gradtx.accumulate(gradtx.scale(1.0), 2), gradtx.scale(1.0)), 2
    )
    assert run(tx, [1.0, 3.0, 5.0, 7.0])[0] == [0.0, 0.0, 0.0, 4.0]
