"""`gradtx.find_learning_rate`: the curve by NumPy, the suggestion by its definition, and what may
go wrong.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError, StructureError

N = 100
X = np.random.default_rng(0).normal(size=(N, 8, 3))
Y = X @ np.array([1.0, -2.0, 3.0]) + np.random.default_rng(1).normal(size=(N, 8))
BATCHES = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
START = jnp.zeros(3)


def regression(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((x @ w - y) ** 2)


def quadratic(curvatures: jax.Array, w: jax.Array, _: Any) -> jax.Array:
    return jnp.sum(curvatures * w**2) / 2


def numpy_curve(w: np.ndarray, low: float, high: float, beta: float) -> tuple[np.ndarray, ...]:
    """Gradient descent on the regression with a rate that grows, everything in float64."""
    rates, losses, smoothed, average = low * (high / low) ** (np.arange(N) / (N - 1)), [], [], 0.0
    for step, (rate, x, y) in enumerate(zip(rates, X, Y, strict=True), 1):
        error = x @ w - y
        losses.append(np.mean(error**2))
        w = w - rate * 2 * x.T @ error / len(y)
        average = beta * average + (1 - beta) * losses[-1]
        smoothed.append(average / (1 - beta**step))
    return rates, np.array(losses), np.array(smoothed)


def numpy_suggestion(rates: np.ndarray, smoothed: np.ndarray, beta: float) -> float:
    """The rate of the largest fall of the smoothed loss over its reach, up to its smallest value;
    nan where there is none.
    """
    whole = next((i for i, value in enumerate(smoothed) if not np.isfinite(value)), len(smoothed))
    best, reach = int(np.argmin(smoothed[:whole])) if whole else 0, round(1 / (1 - beta))
    falls = {k: smoothed[k] - smoothed[k + reach] for k in range(reach, best - reach + 1)}
    steepest = max(falls, key=lambda k: falls[k], default=None)
    return rates[steepest] if steepest is not None and falls[steepest] > 0 else np.nan


@pytest.mark.parametrize(
    ("low", "high", "beta"), [(1e-4, 0.5, 0.9), (1e-5, 0.3, 0.0), (1e-3, 0.2, 0.75)]
)
def test_the_curve_is_that_of_numpy(low: float, high: float, beta: float) -> None:
    curve = gradtx.find_learning_rate(
        regression, START, gradtx.sgd(1.0), BATCHES, min_rate=low, max_rate=high, smoothing=beta
    )
    rates, losses, smoothed = numpy_curve(np.zeros(3), low, high, beta)
    np.testing.assert_allclose(curve.learning_rates, rates, rtol=1e-5)
    np.testing.assert_allclose(curve.losses, losses, rtol=1e-3)
    np.testing.assert_allclose(curve.smoothed, smoothed, rtol=1e-3)
    assert float(curve.suggestion) == pytest.approx(
        numpy_suggestion(rates, smoothed, beta), rel=1e-5
    )


@pytest.mark.parametrize("beta", [0.0, 0.75, 0.9])
def test_the_suggestion_for_any_course_of_losses(beta: float) -> None:
    """The losses are told as batches; they wander, and end in inf, nan or neither."""
    rng = np.random.default_rng(2)
    losses = np.cumsum(rng.normal(size=(60, 40)), axis=1) + 10 * rng.normal(size=(60, 1)) * (
        np.arange(40) == 0
    )
    for row, value in zip(losses[::2], np.resize([np.nan, np.inf, -np.inf], 30), strict=True):
        row[rng.integers(20, 40) :] = value

    def find(row: jax.Array) -> Any:
        return gradtx.find_learning_rate(
            lambda w, loss: loss + 0 * w, jnp.array(1.0), gradtx.sgd(1.0), row, smoothing=beta
        )

    curves = jax.vmap(find)(jnp.asarray(losses, jnp.float32))
    rates, smoothed = np.asarray(curves.learning_rates), np.asarray(curves.smoothed)
    expected = [numpy_suggestion(*pair, beta) for pair in zip(rates, smoothed, strict=True)]
    np.testing.assert_array_equal(curves.suggestion, expected)
    assert 5 < np.isnan(expected).sum() < 55


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("largest", [1.0, 1e-3, 1e4])
def test_the_suggestion_is_below_the_stable_limit_and_not_far(
    condition: float, largest: float
) -> None:
    curvatures = jnp.geomspace(largest / condition, largest, 50)
    limit = 2 / largest
    loss = functools.partial(quadratic, curvatures)
    curve = gradtx.find_learning_rate(
        loss,
        jnp.ones(50),
        gradtx.sgd(1.0),
        jnp.arange(N),
        min_rate=limit * 5e-8,
        max_rate=limit * 5,
    )
    assert limit / 26 < float(curve.suggestion) < limit / 11


def test_what_comes_after_divergence_has_no_part() -> None:
    options: dict[str, Any] = {"min_rate": 1e-4, "smoothing": 0.75}
    curve = gradtx.find_learning_rate(
        regression, START, gradtx.sgd(1.0), BATCHES, max_rate=1e9, **options
    )
    assert (
        np.isnan(curve.losses[-1]) and np.isinf(curve.losses).any() and np.isfinite(curve.losses[0])
    )
    rates, smoothed = np.asarray(curve.learning_rates), np.asarray(curve.smoothed)
    assert float(curve.suggestion) == pytest.approx(numpy_suggestion(rates, smoothed, 0.75))
    assert 1e-2 < float(curve.suggestion) < 1


def test_where_the_loss_never_falls_there_is_no_suggestion() -> None:
    flat = gradtx.find_learning_rate(
        lambda w, _: 0.0 * w + 1.0, jnp.array(1.0), gradtx.sgd(1.0), jnp.arange(N)
    )
    assert np.isnan(flat.suggestion) and np.all(np.asarray(flat.losses) == 1)
    away = gradtx.find_learning_rate(
        lambda w, _: -w,
        jnp.array(1.0),
        gradtx.chain(gradtx.scale(-1.0), gradtx.sgd(1.0)),
        jnp.arange(N),
    )
    assert np.isnan(away.suggestion) and away.losses[-1] > away.losses[0]
    lost = gradtx.find_learning_rate(
        lambda w, _: w * jnp.nan, jnp.array(1.0), gradtx.sgd(1.0), jnp.arange(N)
    )
    assert np.isnan(lost.suggestion)


def test_under_jit_and_for_a_batch_of_definitions() -> None:
    find = functools.partial(
        gradtx.find_learning_rate, regression, batches=BATCHES, min_rate=1e-4, max_rate=0.3
    )
    tx = gradtx.sgd(1.0, momentum=0.5)
    outside, children = (
        find(params=START, tx=tx),
        jax.jit(lambda params, tx: find(params=params, tx=tx))(START, tx),
    )
    for one, other in zip(outside, children, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    many = gradtx.replace(tx, momentum=jnp.array([0.0, 0.5, 0.9]))
    curves = jax.vmap(
        lambda tx: find(params=START, tx=tx), in_axes=(gradtx.vmap_axes(many, "momentum"),)
    )(many)
    assert curves.losses.shape == (3, N) and curves.suggestion.shape == (3,)
    np.testing.assert_allclose(curves.losses[1], outside.losses, rtol=1e-4)
    assert float(curves.suggestion[1]) == pytest.approx(float(outside.suggestion))
    assert float(curves.suggestion[2]) < float(curves.suggestion[0])


def test_it_is_one_scan_and_leaves_the_parameters() -> None:
    traced = jax.make_jaxpr(
        lambda w: gradtx.find_learning_rate(regression, w, gradtx.adam(1.0), BATCHES)
    )(START)
    assert [equation.primitive.name for equation in traced.eqns].count("scan") == 1
    params = {"w": jnp.ones(3)}
    gradtx.find_learning_rate(
        lambda p, x, y: regression(p["w"], x, y), params, gradtx.adam(1.0), BATCHES
    )
    assert params["w"].tolist() == [1, 1, 1]


TRANSFORMATIONS = {
    "schedule": gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10)),
    "chain": gradtx.chain(gradtx.clip_by_global_norm(1e9), gradtx.sgd(0.1)),
    "in the state": gradtx.tunable(gradtx.sgd(0.1), "learning_rate"),
    "scheduled, in the state": gradtx.tunable(gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10))),
    "partition": gradtx.partition({"all": gradtx.sgd(0.1)}, [(".*", "all")]),
    "guarded, watched": gradtx.guard(gradtx.with_metrics(gradtx.sgd(0.1))),
    "averaged": gradtx.chain(gradtx.sgd(0.1), gradtx.params_ema(0.9)),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_the_learning_rate_is_replaced_wherever_it_is(name: str) -> None:
    find = functools.partial(
        gradtx.find_learning_rate, regression, START, batches=BATCHES, min_rate=1e-4, max_rate=0.3
    )
    found, plain = find(TRANSFORMATIONS[name]), find(gradtx.sgd(1.0))
    np.testing.assert_allclose(found.losses, plain.losses, rtol=1e-4)
    assert float(found.suggestion) == float(plain.suggestion)


def test_the_step_is_told_what_make_step_tells() -> None:
    """A method of step sizes by the loss, whose learning rate is a bound; and another
    hyperparameter than the rate.
    """
    curve = gradtx.find_learning_rate(
        regression, START, gradtx.polyak_sgd(1.0), BATCHES, name="max_learning_rate", max_rate=1.0
    )
    assert float(curve.losses[-1]) < float(curve.losses[0])
    searched = gradtx.chain(gradtx.sgd(0.1), gradtx.scale_by_backtracking_linesearch(5))
    assert np.isfinite(gradtx.find_learning_rate(regression, START, searched, BATCHES).losses).all()


def test_trees_of_batches_python_numbers_and_other_dtypes() -> None:
    def loss(params: Any, batch: Any) -> Any:
        x, y = batch["x"], batch["y"]
        return jnp.mean((x @ params["w"] + params["b"] - y) ** 2).astype(jnp.bfloat16), {
            "size": len(y)
        }

    params = {"w": jnp.zeros(3, jnp.bfloat16), "b": 0.5}
    batches = {"x": BATCHES[0].astype(jnp.bfloat16), "y": BATCHES[1].astype(jnp.bfloat16)}
    curve = gradtx.find_learning_rate(loss, params, gradtx.adam(1.0), batches, has_aux=True)
    assert curve.losses.dtype == curve.smoothed.dtype == curve.suggestion.dtype == jnp.float32
    assert 1e-3 < float(curve.suggestion) < 10


def find(loss: Any = regression, tx: Any = None, batches: Any = BATCHES, **told: Any) -> Any:
    return lambda: gradtx.find_learning_rate(
        loss, START, gradtx.sgd(0.1) if tx is None else tx, batches, **told
    )


CASES: dict[str, tuple[Any, type[Exception], str]] = {
    "too few": (
        find(batches=jax.tree.map(lambda leaf: leaf[:29], BATCHES)),
        StructureError,
        "29 batches are too few to see a slope; give 30 or more, about 100, or less smoothing",
    ),
    "axes that differ": (
        find(batches=(BATCHES[0], BATCHES[1][:50])),
        StructureError,
        "batches at '1' has 50 entries along its first axis, at '0' 100; every array "
        "needs one entry per step",
    ),
    "a scalar": (
        find(batches=(BATCHES[0], 1.0)),
        StructureError,
        "batches at '1' is a scalar; stack the batches along a first axis",
    ),
    "nothing": (
        find(batches=()),
        StructureError,
        "batches hold no array; stack the batches along a first axis",
    ),
    "rates": (
        find(min_rate=1.0, max_rate=0.1),
        HyperparamError,
        "min_rate = 1.0 and max_rate = 0.1 span no range; give 0 < min_rate < max_rate",
    ),
    "a rate of zero": (
        find(min_rate=0.0),
        HyperparamError,
        "min_rate = 0.0 and max_rate = 10.0 span no range",
    ),
    "smoothing": (
        find(smoothing=1.0),
        HyperparamError,
        "smoothing = 1.0 is outside its range [0, 1)",
    ),
    "loss": (
        find(lambda w, x, y: x @ w - y),
        GradtxError,
        "loss_fn returns an array float32[8]; return a real scalar, for example the "
        "mean over a batch",
    ),
    "aux that is not told": (
        find(lambda w, x, y: (regression(w, x, y), y)),
        GradtxError,
        "loss_fn returns a tuple, not an array",
    ),
    "whole numbers": (
        find(lambda w, x, y: jnp.int32(1)),
        GradtxError,
        "loss_fn returns an array int32[]; return a real scalar",
    ),
    "name": (
        find(name="lr"),
        HyperparamError,
        "sgd has no hyperparameter 'lr'; did you mean 'learning_rate'? It has learning_rate",
    ),
    "no rate": (
        find(tx=gradtx.scale_by_adam()),
        HyperparamError,
        "scale_by_adam has no hyperparameter 'learning_rate'; it has",
    ),
    "part of a schedule": (
        find(tx=gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10)), name="learning_rate.init_value"),
        HyperparamError,
        "'learning_rate.init_value' is a parameter of a schedule; name the hyperparameter itself",
    ),
    "no transformation": (find(tx=0.1), GradtxError, "is 0.1, which has no init and update"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_told(name: str) -> None:
    call, kind, text = CASES[name]
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)


def test_the_plot(tmp_path: Path) -> None:
    curve = gradtx.find_learning_rate(
        regression, START, gradtx.sgd(1.0), BATCHES, min_rate=1e-4, max_rate=1e9
    )
    figure = curve.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    input_grad, smoothed, mark = axes.lines
    np.testing.assert_array_equal(input_grad.get_ydata(), curve.losses)
    np.testing.assert_array_equal(smoothed.get_ydata(), curve.smoothed)
    assert mark.get_xdata()[0] == pytest.approx(float(curve.suggestion))
    assert axes.get_xscale() == "log" and axes.get_ylim()[1] < 100
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), curve)
    with pytest.raises(GradtxError, match=r"a batch of curves, of shape \(2,\): take one"):
        batch.plot()
    flat = gradtx.find_learning_rate(
        lambda w, _: 0.0 * w + 1.0, jnp.array(1.0), gradtx.sgd(1.0), jnp.arange(N)
    )
    assert len(flat.plot().axes[0].lines) == 2


def test_integers_and_keys_among_the_parameters() -> None:
    """The curve is that of the floats alone."""
    rest = {"n": jnp.array([1, 2]), "key": jax.random.key(0), "absent": None}

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return regression(params["w"], x, y)

    curves = [
        gradtx.find_learning_rate(loss, params, gradtx.sgd(1.0), BATCHES)
        for params in ({"w": START}, {"w": START, **rest})
    ]
    for one, other in zip(*curves, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_curve_prints_on_one_line() -> None:
    """The suggestion, and shapes in the place of losses; also of a batch, and traced."""
    rates, nothing = jnp.ones(7), jnp.array(jnp.nan)
    curve = gradtx.LearningRateCurve(rates, rates, rates, jnp.array(0.081113))
    shapes = "learning_rates=f32[7], losses=f32[7], smoothed=f32[7]"
    assert repr(curve) == f"LearningRateCurve(suggestion=0.0811, {shapes})"
    assert repr(curve._replace(suggestion=nothing)).startswith("LearningRateCurve(suggestion=nan,")
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), curve)
    assert "suggestion=f32[2], learning_rates=f32[2,7]" in repr(batch)
    printed: list[str] = []
    jax.jit(lambda one: printed.append(repr(one)))(curve)
    assert printed == [f"LearningRateCurve(suggestion=f32[], {shapes})"]
