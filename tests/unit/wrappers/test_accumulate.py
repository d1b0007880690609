"""accumulate: the large batch from small ones, what an update waits for, weights, and where it
stands among other wrappers.
"""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError
from tests.support.bits import TINY, bits

ONE, INF = jnp.array(1.0), jnp.array(jnp.inf)


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


def ramp(count: Any) -> Any:
    """k = 1, 1, 2, 2, 3, 3, ... up to 7."""
    return jnp.minimum(1 + count // 2, 7)


def constant(k: int, count: Any) -> Any:
    return k


def optimizer() -> gradtx.GradientTransformation:
    """Its clip acts at every step, the rate changes with each, and ε is large enough that no entry
    is a ratio of two roundings.
    """
    rate = gradtx.warmup_cosine_decay_schedule(0.0, 0.05, 4, decay_steps=20)
    return gradtx.chain(
        gradtx.clip_by_global_norm(0.2), gradtx.adamw(rate, eps=1e-3, weight_decay=0.05)
    )


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


def step(tx: Any, params: Any, state: Any, grads: Any, **extra: Any) -> Any:
    updates, state = tx.update(grads, state, params, **extra)
    return gradtx.apply_updates(params, updates), state


def run(tx: Any, grads: Any, **extra: Any) -> tuple[list[Any], Any]:
    """The updates of scalar gradients, one after another, and the last state."""
    state, seen = tx.init(ONE), []
    for grad in grads:
        updates, state = tx.update(jnp.asarray(grad), state, ONE, **extra)
        seen.append(float(updates))
    return seen, state


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


@pytest.mark.parametrize("jit", [False, True])
def test_tokens_weigh(jit: bool) -> None:
    tx = gradtx.accumulate(gradtx.scale(1.0), 3)
    seen, state = weighed(tx, [1.0, 4.0, 9.0, 1.0, 1.0, 7.0], [2, 1, 1, 0, 1, jnp.asarray(2)], jit)
    np.testing.assert_allclose(seen, [0.0, 0.0, 15 / 4, 0.0, 0.0, 5.0], rtol=1e-6)
    assert int(state.slots["accumulate"].weight) == 3


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_weighs_nothing_adds_nothing(place: int, jit: bool) -> None:
    """The mean over no tokens is nan, at the first micro-step too, where the last sum is still
    there.
    """
    tx, grads, weights = gradtx.accumulate(gradtx.scale(1.0), 3), [5.0, 7.0], [1, 1]
    grads.insert(place, jnp.nan)
    weights.insert(place, 0)
    assert weighed(tx, [2.0] * 3 + grads, [1] * 3 + weights, jit)[0] == [
        0.0,
        0.0,
        2.0,
        0.0,
        0.0,
        6.0,
    ]


def test_weights_that_sum_to_zero() -> None:
    tx = gradtx.accumulate(gradtx.trace(0.5), 2)
    with pytest.raises(
        HyperparamError,
        match=r"^accumulate: the weights of the last 2 micro-batches sum to 0, so they have no "
        r"mean: "
        r"give each micro-batch a weight > 0, or leave those out that hold nothing$",
    ):
        weighed(tx, [1.0, 2.0], [0, 0])
    seen, state = weighed(tx, [2.0, 2.0, 1.0, 2.0, 3.0, 5.0], [1, 1, 0, 0, 1, 1], jit=True)
    assert seen == [0.0, 2.0, 0.0, 0.0, 0.0, 5.0], (
        "no update, the trace as it was, and the next one begins"
    )
    assert int(state.count) == 2


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (
            -1.0,
            r"^accumulate: weight = -1\.0 is outside its range \[0, inf\): give how much "
            r"the micro-batch counts$",
        ),
        (np.nan, r"^accumulate: weight = nan is outside its range"),
        (np.inf, r"^accumulate: weight = inf is outside its range"),
        (
            np.ones(3),
            r"^accumulate: weight= has shape \(3,\): give one number for the "
            r"micro-batch, such as its tokens$",
        ),
    ],
)
def test_weights_that_are_none(weight: Any, text: str) -> None:
    tx = gradtx.accumulate(gradtx.sgd(0.1), 2)
    with pytest.raises(HyperparamError, match=text):
        tx.update(ONE, tx.init(ONE), weight=weight)


@pytest.mark.parametrize(
    ("every", "text"),
    [
        (0, r"accumulate: every = 0 is outside its range \[1, inf\]"),
        (-4, r"accumulate: every = -4 is outside its range \[1, inf\]"),
        (0.5, r"accumulate: every = 0\.5 is outside its range \[1, inf\]"),
        ("2", r"accumulate: every = '2' is neither a number, an array nor a schedule"),
    ],
)
def test_numbers_of_micro_steps_that_are_none(every: Any, text: str) -> None:
    with pytest.raises(HyperparamError, match=text):
        gradtx.accumulate(gradtx.sgd(0.1), every)
    with pytest.raises(HyperparamError, match="accumulate"):
        gradtx.MultiSteps(gradtx.sgd(0.1), every)


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
    _, seen = jax.lax.scan(lambda state, _: tx.update(g, state)[::-1], state, None, length=300)
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
    inside = gradtx.accumulate(
        gradtx.partition(
            {"one": gradtx.scale(1.0), "two": gradtx.scale(2.0)}, {"a": "one", "b": "two"}
        ),
        2,
    )
    for tx, expected in (
        (masked, [(0, 1), (2, 3)]),
        (split, [(0, 1), (2, 3)]),
        (inside, [(0, 0), (2, 4)]),
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


# Wherever a step may run


SHARDED = {"w": jnp.arange(32.0).reshape(8, 4) / 10, "v": jnp.arange(8.0)}


def train(tx: Any, params: Any, steps: int = 5) -> Any:
    """Micro-steps in a scan whose gradients are the parameters."""

    def body(carry: Any, _: None) -> Any:
        params, state = carry
        return step(tx, params, state, params), None

    return jax.lax.scan(body, (params, tx.init(params)), None, length=steps)[0]


def test_a_scan_is_the_steps_one_by_one() -> None:
    tx = gradtx.accumulate(optimizer(), ramp)
    params, state = SHARDED, tx.init(SHARDED)
    for _ in range(5):
        params, state = step(tx, params, state, params)
    chex.assert_trees_all_close(
        jax.jit(functools.partial(train, tx))(SHARDED), (params, state), rtol=1e-6
    )


def test_many_learning_rates_and_many_k_in_one_program() -> None:
    rates, ks = jnp.array([0.1, 0.2, 0.3]), jnp.array([1, 2, 3])

    def trained(rate: Any, k: Any) -> Any:
        return train(gradtx.accumulate(gradtx.adam(rate), k), {"w": jnp.ones(3)})[0]["w"]

    together = jax.jit(jax.vmap(trained))(rates, ks)
    for row, rate, k in zip(together, (0.1, 0.2, 0.3), (1, 2, 3), strict=True):
        np.testing.assert_allclose(row, trained(rate, k), rtol=1e-6)


def test_a_hypergradient_goes_through() -> None:
    """Of the end of a run, by the learning rate."""

    def end(rate: Any) -> jax.Array:
        return jnp.sum(train(gradtx.accumulate(gradtx.sgd(rate), 2), jnp.ones(3), 4)[0])

    np.testing.assert_allclose(
        jax.jit(jax.grad(end))(0.1), -3 * 2 * (1 - 0.1), rtol=1e-6
    )  # each update takes the mean, which is w, times the rate


@pytest.mark.parametrize(
    "spec", [PartitionSpec(), PartitionSpec("x")], ids=["replicated", "sharded"]
)
@pytest.mark.parametrize("checked", [False, True])
def test_shard_map(checked: bool, spec: Any) -> None:
    mesh = Mesh(np.array(jax.devices()), ("x",))
    run = functools.partial(train, gradtx.accumulate(gradtx.adamw(0.1), 2))
    mapped = jax.shard_map(
        lambda params: run(params)[0], mesh=mesh, in_specs=spec, out_specs=spec, check_vma=checked
    )
    chex.assert_trees_all_close(jax.jit(mapped)(SHARDED), run(SHARDED)[0], rtol=1e-6)


def test_shardings_are_kept() -> None:
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x"))
    params, tx = jax.device_put(SHARDED, sharding), gradtx.accumulate(gradtx.adam(0.1), 2)
    state = tx.init(params)
    for update in (tx.update, jax.jit(tx.update)):
        updates, state = update(params, state, params)
        for leaf in jax.tree.leaves((updates, state.slots)):
            assert leaf.ndim == 0 or leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


def test_what_is_not_due_does_not_run() -> None:
    costly = gradtx.accumulate(gradtx.stateless(lambda u, p: jnp.sort(u)), 3)
    text = str(
        jax.jit(costly.update)
        .lower(jnp.ones(4096), costly.init(jnp.ones(4096)))
        .compile()
        .as_text()
    )
    assert (
        "sort(" in text and "sort(" not in text[text.index("\nENTRY") :] and "conditional(" in text
    )


def test_half_a_micro_step_is_told_and_plain_numbers_are_parameters() -> None:
    for wrong in (2.5, True):
        with pytest.raises(
            HyperparamError,
            match=rf"accumulate: every = {wrong} is no number of micro-steps; give a whole number",
        ):
            gradtx.accumulate(gradtx.sgd(1.0), wrong)
    tx = gradtx.accumulate(gradtx.sgd(1.0), 1)
    assert float(tx.update(2.0, tx.init(1.0), 1.0)[0]) == -2.0
