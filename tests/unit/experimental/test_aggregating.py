"""Aggregating gradients per example: Optax's numbers, float64 references, clocks and messages."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.experimental import aggregating as optax_aggregating

import gradtx
from gradtx.experimental import aggregating

OURS: Any = (gradtx, aggregating)
THEIRS: Any = (optax, optax_aggregating)
NAMES = [
    "accumulate_avg_updates",
    "add_mean_variance_to_opt",
    "average_incrementally_updates",
    "average_per_element_updates",
    "get_batch_size_from_per_elt_updates",
    "get_per_element_mean_and_sum_sq_diff_grads",
    "get_unbiased_mean_and_variance_ema",
    "process",
    "track_per_element_mean_and_variance_with_ema",
    "AccumulateAvgUpdatesState",
    "PerElementMeanAndSumSqDiffGradsState",
    "PerElementMeanAndVarianceEMAState",
    "Aggregator",
]


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_those_of_optax(name: str) -> None:
    ours, theirs = (
        inspect.signature(getattr(module, name)).parameters
        for module in (aggregating, optax_aggregating)
    )
    assert [(one.name, one.default) for one in ours.values()] == [
        (one.name, one.default) for one in theirs.values()
    ]


def gradients(step: int, *axes: int) -> Any:
    generator = np.random.default_rng(step)
    return {name: jnp.asarray(generator.normal(size=(*axes, *s))) for name, s in SHAPES.items()}


SHAPES: dict[str, tuple[int, ...]] = {"w": (2, 3), "b": (2,), "s": ()}
TRANSFORMATIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "accumulate": (lambda lib, agg: agg.accumulate_avg_updates(3), ()),
    "average": (lambda lib, agg: agg.average_per_element_updates(), (5,)),
    "average along two axes": (lambda lib, agg: agg.average_per_element_updates([0, 1]), (5, 2)),
    "nothing": (lambda lib, agg: agg.average_incrementally_updates(None, 1), ()),
    "microbatches": (lambda lib, agg: agg.average_incrementally_updates(None, 2), ()),
    "examples": (lambda lib, agg: agg.average_incrementally_updates(0, 1), (4,)),
    "both": (lambda lib, agg: agg.average_incrementally_updates(0, 2), (4,)),
    "process": (
        lambda lib, agg: agg.process(
            lib.clip(0.5), agg.average_incrementally_updates(0, 3), lib.adam(0.1)
        ),
        (4,),
    ),
    "process with a schedule": (
        lambda lib, agg: agg.process(
            lib.identity(),
            agg.average_incrementally_updates(None, 2),
            lib.sgd(lib.linear_schedule(1.0, 0.0, 4)),
        ),
        (),
    ),
    "moments": (
        lambda lib, agg: agg.add_mean_variance_to_opt(lib.adam(0.1), 0.8, 0, 1),
        (4,),
    ),
    "moments of microbatches": (
        lambda lib, agg: agg.add_mean_variance_to_opt(lib.adam(0.1), 0.8, (0, 1), 3),
        (4, 2),
    ),
}


def follow(tx: Any, axes: tuple[int, ...], steps: int = 7) -> list[Any]:
    params, updates = gradients(99), []
    state, run = tx.init(params), jax.jit(tx.update)
    for step in range(steps):
        new, state = run(gradients(step, *axes), state, params)
        updates.append(new)
    return [updates, state]


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_updates_are_those_of_optax(name: str) -> None:
    make, axes = TRANSFORMATIONS[name]
    with jax.enable_x64(True):
        (ours, state), (theirs, other) = (follow(make(*libs), axes) for libs in (OURS, THEIRS))
        for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-13)
        if "moments" in name:
            moments = aggregating.get_unbiased_mean_and_variance_ema(state)
            right = optax_aggregating.get_unbiased_mean_and_variance_ema(other)
            # Optax divides the sums of microbatches by n - 1 in float32.
            rtol = 1e-7 if "microbatches" in name else 1e-11
            for one, two in zip(jax.tree.leaves(moments), jax.tree.leaves(right), strict=True):
                np.testing.assert_allclose(one, two, rtol=rtol)


def test_averages_over_time_are_those_of_the_equation() -> None:
    """M and V of three updates of two microbatches each, without their bias."""
    beta, mean, variance = 0.8, np.zeros((2, 3)), np.zeros((2, 3))
    with jax.enable_x64(True):
        tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(0.1), beta, 0, 2)
        params = gradients(99)
        state = tx.init(params)
        for step in range(3):
            parts = [gradients(2 * step + part, 4) for part in range(2)]
            for part in parts:
                _, state = tx.update(part, state, params)
            whole = np.concatenate([np.asarray(part["w"]) for part in parts])
            mean = beta * mean + (1 - beta) * whole.mean(0)
            variance = beta * variance + (1 - beta) * whole.var(0, ddof=1)
        ours = aggregating.get_unbiased_mean_and_variance_ema(state)
        for tree, right in zip(ours, (mean, variance), strict=True):
            np.testing.assert_allclose(tree["w"], right / (1 - beta**3), rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 3])
def test_moments_of_microbatches_are_those_of_all_examples(steps: int) -> None:
    with jax.enable_x64(True):
        moments = aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, steps)
        parts = [gradients(step, 4) for step in range(steps)]
        state = moments.init(gradients(0))
        result: Any = None
        for number, part in enumerate(parts, 1):
            result, state = jax.jit(moments.update)(part, state)
            if number < steps:
                assert not any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(result))
        mean, aux = result
        assert int(aux["sample_size"]) == 4 * steps
        for name in SHAPES:
            whole = np.concatenate([np.asarray(part[name]) for part in parts])
            np.testing.assert_allclose(mean[name], whole.mean(0), rtol=1e-12, atol=1e-14)
            squares = len(whole) * whole.var(0)
            np.testing.assert_allclose(aux["sum_sq_diff_grads"][name], squares, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_of_low_precision_run_in_float32(dtype: Any) -> None:
    ones = jnp.ones((4096,), dtype).at[0].set(3)
    mean, _ = aggregating.average_per_element_updates().update(ones, ())
    assert mean.dtype == dtype and float(mean) == 1.0
    tx = aggregating.accumulate_avg_updates(1000)
    state = tx.init(ones[1])

    def body(state: Any, grad: Any) -> tuple[Any, Any]:
        update, state = tx.update(grad, state)
        return state, update

    _, updates = jax.lax.scan(body, state, 0.1 * jnp.ones(1000, dtype))
    assert updates.dtype == dtype
    np.testing.assert_allclose(float(updates[-1]), float(dtype(0.1)), rtol=1e-3)


def test_means_of_large_gradients_are_finite() -> None:
    tx, big = aggregating.accumulate_avg_updates(2), jnp.asarray(3e38)
    state = tx.init(big)
    for grad in (big, -big):
        update, state = tx.update(grad, state)
    assert float(update) == 0.0


def test_the_clock_counts_updates_of_the_optimizer() -> None:
    def rate(count: Any) -> Any:
        return 1.0 / (1 + count)

    tx = aggregating.process(
        gradtx.identity(), aggregating.accumulate_avg_updates(2), gradtx.sgd(rate)
    )
    g = jnp.ones(())
    state, updates = tx.init(g), []
    for _ in range(6):
        update, state = tx.update(g, state, g)
        updates.append(float(update))
    np.testing.assert_allclose(updates, [0, -1, 0, -0.5, 0, -1 / 3], rtol=1e-6)
    assert int(state.count) == 3
    assert gradtx.hyperparams(tx, at=state)["learning_rate"] == pytest.approx(0.25)


def test_the_optimizer_rests_until_a_result_is_ready() -> None:
    tx = aggregating.process(
        gradtx.identity(), aggregating.average_incrementally_updates(0, 2), gradtx.adam(0.1)
    )
    params = gradients(0)
    state = tx.init(params)
    for step in range(2):  # a whole cycle, so that moments are not 0
        _, state = tx.update(gradients(step, 4), state, params)
    updates, after = tx.update(gradients(2, 4), state, params)
    assert all(bool(jnp.all(jnp.signbit(leaf))) for leaf in jax.tree.leaves(updates))
    moments = after.slots["process"].postprocessor, state.slots["process"].postprocessor
    for new, old in zip(*map(jax.tree.leaves, moments), strict=True):
        np.testing.assert_array_equal(new, old)


def test_members_of_other_libraries() -> None:
    """Optax's transformations as parts, and a part of gradtx that clips and adds noise."""
    params, grads = gradients(0), gradients(1, 4)
    mixed = aggregating.process(
        optax.clip(0.5), aggregating.average_per_element_updates(), optax.sgd(0.1)
    )
    ours = aggregating.process(
        gradtx.clip(0.5), aggregating.average_per_element_updates(), gradtx.sgd(0.1)
    )
    both = [tx.update(grads, tx.init(params), params)[0] for tx in (mixed, ours)]
    for one, two in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
    private = gradtx.differentially_private_aggregate(1.0, 0.0)
    tx = aggregating.process(gradtx.identity(), private, gradtx.sgd(0.1))
    dpsgd = gradtx.dpsgd(0.1, 1.0, 0.0)
    both = [one.update(grads, one.init(params), params)[0] for one in (tx, dpsgd)]
    for one, two in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def test_a_definition_is_data() -> None:
    tx, same = (aggregating.add_mean_variance_to_opt(gradtx.adam(0.1), 0.8) for _ in range(2))
    assert tx == same
    assert str(tx) == "add_mean_variance_to_opt(opt=adam(learning_rate=0.1), ema_decay=0.8)"
    slower = gradtx.replace(tx, learning_rate=0.05)
    grads, params = gradients(1, 4), gradients(0)
    run: Any = jax.jit(lambda tx, g, p: tx.update(g, tx.init(p), p)[0])
    fast, slow = run(tx, grads, params), run(slower, grads, params)
    for one, two in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        np.testing.assert_allclose(one, 2 * two, rtol=1e-5)
    assert run._cache_size() == 1


def test_which_definitions_take_gradients_per_example() -> None:
    average, identity = aggregating.average_per_element_updates(), gradtx.identity()
    sgd, micro = gradtx.sgd(0.1), aggregating.accumulate_avg_updates(2)
    for tx in (
        average,
        aggregating.process(identity, average, sgd),
        aggregating.add_mean_variance_to_opt(sgd),
        gradtx.differentially_private_aggregate(1.0, 0.0),
    ):
        assert isinstance(tx, aggregating.Aggregator)
    for tx in (sgd, micro, aggregating.process(identity, micro, sgd), optax.sgd(0.1), 3):
        assert not isinstance(tx, aggregating.Aggregator)


def test_a_variance_of_one_example() -> None:
    tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(0.1))
    w = jnp.zeros(())
    text = (
        r"^track_per_element_mean_and_variance_with_ema: sample_size = 1, and a variance needs at "
        r"least 2 examples; take larger batches, or more accumulation_steps"
    )
    with pytest.raises(gradtx.HyperparamError, match=text):
        tx.update(jnp.ones(1), tx.init(w), w)
    mean, variance = aggregating.get_unbiased_mean_and_variance_ema(tx.init(w))
    assert float(mean) == float(variance) == 0.0


MESSAGES: dict[str, tuple[Callable[[], Any], str]] = {
    "steps": (
        lambda: aggregating.accumulate_avg_updates(0),
        r"^accumulate_avg_updates: accumulation_steps = 0 is not a number of microbatches; give a "
        r"whole number from 1 on",
    ),
    "steps of moments": (
        lambda: aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, True),
        r"^get_per_element_mean_and_sum_sq_diff_grads: accumulation_steps = True is not a number",
    ),
    "axis": (
        lambda: aggregating.average_per_element_updates(()),
        r"^per_elt_axis = \(\) is not an axis of the examples; give a whole number, or a sequence",
    ),
    "sizes": (
        lambda: aggregating.get_batch_size_from_per_elt_updates(
            {"a": jnp.ones((4, 2)), "b": jnp.ones(3)}, 0
        ),
        r"^gradients per example must have the same batch size: 'a' has 4 examples along the axes "
        r"\(0,\), and 'b' has 3$",
    ),
    "no axis": (
        lambda: aggregating.get_batch_size_from_per_elt_updates({"a": jnp.ones(4)}, (0, 1)),
        r"^gradients per example need the axes \(0, 1\) of the examples: 'a' has shape \(4,\); "
        r"compute them with jax.vmap\(jax.grad\(loss\), \.\.\.\)$",
    ),
    "empty": (
        lambda: aggregating.get_batch_size_from_per_elt_updates({}, 0),
        r"^gradients per example: the tree has no arrays, so no number of examples$",
    ),
    "no averages": (
        lambda: aggregating.get_unbiased_mean_and_variance_ema(gradtx.sgd(0.1).init(jnp.ones(2))),
        r"^get_unbiased_mean_and_variance_ema: the state holds 0 states of "
        r"PerElementMeanAndVarianceEMAState, and must hold one; pass the state of an optimizer "
        r"from add_mean_variance_to_opt$",
    ),
    "aux": (
        lambda: run_once(
            aggregating.process(
                gradtx.identity(),
                aggregating.average_per_element_updates(),
                gradtx.sgd(0.1),
                aggregator_has_aux=True,
            )
        ),
        r"^process: aggregator_has_aux is True, and the aggregator did not return \(\(updates, aux"
        r"\), state\) with a dict aux; return that, or give aggregator_has_aux=False",
    ),
}


def run_once(tx: Any) -> Any:
    w = jnp.zeros(())
    return tx.update(jnp.ones(3), tx.init(w), w)


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name: str) -> None:
    call, text = MESSAGES[name]
    with pytest.raises(gradtx.GradtxError, match=text):
        call()
