"""`gradtx.sweep`: every training as by itself, one program for each structure, and its errors."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError, StructureError
from gradtx.definition.types import ArrayHyperparam

RATES, DECAYS = [0.01, 0.1, 0.3], [0.0, 0.5]
X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)
Y = X @ jnp.array([1.0, -2.0, 3.0])
traced: list[str] = []
"""One entry for each trace of `regress`."""


def regress(tx: Any, key: jax.Array, x: jax.Array, y: jax.Array, steps: int) -> dict[str, Any]:
    """A linear regression from a random start."""
    traced.append(str(tx))

    def loss(w: jax.Array) -> jax.Array:
        return jnp.mean((x @ w - y) ** 2)

    def step(carry: Any, _: None) -> Any:
        w, state = carry
        value, grads = jax.value_and_grad(loss)(w)
        updates, state = tx.update(grads, state, w)
        return (gradtx.apply_updates(w, updates), state), value

    w = jax.random.normal(key, (3,))
    (w, _), losses = jax.lax.scan(step, (w, tx.init(w)), None, steps)
    return {"loss": losses, "w": w}


def square(tx: Any, w: Any = 1.0) -> jax.Array:
    """The loss w²/2 after one step from w, whose gradient is w."""
    updates, _ = tx.update(jnp.asarray(w), tx.init(jnp.asarray(w)), jnp.asarray(w))
    return (w + updates) ** 2 / 2


def test_every_training_is_as_by_itself() -> None:
    tx = gradtx.adamw(1e-3, b1=0.5)
    result = gradtx.sweep(
        *(regress, tx, X, Y, 20), learning_rate=RATES, weight_decay=DECAYS, seeds=[7, 3]
    )
    assert result.dims == ("learning_rate", "weight_decay", "seeds") and result.shape == (3, 2, 2)
    assert result["loss"].shape == (3, 2, 2, 20) and result["w"].shape == (3, 2, 2, 3)
    alone = jax.jit(regress, static_argnums=(0, 4))
    for i, rate in enumerate(RATES):
        for j, decay in enumerate(DECAYS):
            for k, seed in enumerate((7, 3)):
                one = alone(
                    gradtx.adamw(rate, b1=0.5, weight_decay=decay), jax.random.key(seed), X, Y, 20
                )
                # Both are float32, and XLA orders the sums of a batch differently.
                np.testing.assert_allclose(result["loss"][i, j, k], one["loss"], rtol=2e-5)
                np.testing.assert_allclose(result["w"][i, j, k], one["w"], rtol=2e-5, atol=1e-6)
    assert isinstance(result.values["w"], np.ndarray)


def test_one_trace_for_all_trainings_and_for_later_sweeps() -> None:
    def run(rates: Sequence[float]) -> Any:
        return gradtx.sweep(
            *(regress, gradtx.sgd(0.1), X, Y, 3), learning_rate=rates, seeds=2, chunk=4
        )

    traced.clear()
    first, second = run([0.1, 0.2, 0.3]), run([0.3, 0.4, 0.5])
    assert len(traced) == 1
    np.testing.assert_allclose(second["loss"][0], first["loss"][2], rtol=1e-6)


def test_options_are_sorted_by_program() -> None:
    tx = gradtx.chain(gradtx.clip(10.0), gradtx.sgd(0.1))
    traced.clear()
    result = gradtx.sweep(
        *(regress, tx, X, Y, 10),
        **{"sgd.nesterov": [True, False], "momentum": [None, 0.8, 0.9], "learning_rate": [0.1]},
        seeds=2,
    )
    # Two values of `nesterov`, and a momentum that is None or a number.
    assert len(traced) == 4 and result.shape == (2, 3, 1, 2)
    for number, point in enumerate(result.points):
        options = {"nesterov": point["sgd.nesterov"], "momentum": point["momentum"]}
        one = regress(gradtx.sgd(0.1, **options), jax.random.key(1), X, Y, 10)
        loss = result["loss"].reshape(6, 2, 10)[number, 1]
        np.testing.assert_allclose(loss, one["loss"], rtol=1e-5)


def test_lists_of_points() -> None:
    grid = gradtx.sweep(square, gradtx.adam(0.1), learning_rate=RATES, b1=[0.5, 0.9])
    columns = gradtx.sweep(
        square, gradtx.adam(0.1), grid=False, learning_rate=[0.3, 0.01], b1=[0.9, 0.5]
    )
    points = [{"learning_rate": 0.3, "b1": 0.9}, {"b1": 0.5, "learning_rate": 0.01}]
    listed = gradtx.sweep(square, gradtx.adam(0.1), points=points)
    assert columns.dims == ("point",) and columns.shape == (2,)
    assert listed.axes["learning_rate"].tolist() == [0.3, 0.01]
    np.testing.assert_array_equal(columns.values, listed.values)
    np.testing.assert_allclose(columns.values, [grid.values[2, 1], grid.values[0, 0]], rtol=1e-6)


def test_numbers_of_schedules_and_schedules() -> None:
    tx = gradtx.sgd(gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 2, 4))

    def rate(tx: Any) -> Any:
        return gradtx.hyperparams(tx, at=2)["learning_rate"]

    result = gradtx.sweep(rate, tx, **{"learning_rate.peak_value": [0.1, 0.2]})
    np.testing.assert_allclose(result.values, [0.1, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(
        gradtx.sweep(rate, tx, peak_value=[0.1, 0.2]).values, result.values
    )
    schedules = [gradtx.linear_schedule(value, 0.0, 4) for value in (1.0, 2.0)]
    result = gradtx.sweep(rate, tx, learning_rate=[*schedules, gradtx.constant_schedule(3.0)])
    np.testing.assert_allclose(result.values, [0.5, 1.0, 3.0], rtol=1e-6)
    assert result.best == {"learning_rate": schedules[0]}


def test_names_of_groups() -> None:
    tx = gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.sgd(0.2)}, [("^a", "a"), (".*", "b")])

    def updates(tx: Any) -> Any:
        grads = {"a": jnp.array(1.0), "b": jnp.array(1.0)}
        return tx.update(grads, tx.init(grads), grads)[0]

    result = gradtx.sweep(updates, tx, **{"a.learning_rate": [1.0, 2.0], "b.learning_rate": [3.0]})
    assert result["a"].tolist() == [[-1], [-2]] and result["b"].tolist() == [[-3], [-3]]


@pytest.mark.parametrize("values", [(0.1, 0.2), np.array([0.1, 0.2], np.float32), [0.1, 0.2]])
def test_forms_of_a_list(values: Any) -> None:
    for given in (values, jnp.array(values)):
        result = gradtx.sweep(square, gradtx.sgd(1.0), learning_rate=given)
        np.testing.assert_allclose(result.values, [0.405, 0.32], rtol=1e-6)
        assert result.best == {"learning_rate": 0.2}  # a Python number, as short as in float32


def test_numbers_leave_the_dtypes_as_they_are() -> None:
    def dtype(tx: Any) -> Any:
        w = jnp.ones(2, jnp.bfloat16)
        return (
            gradtx.apply_updates(w, tx.update(w, tx.init(w), w)[0]) * gradtx.hyperparams(tx)["eps"]
        )

    alone = dtype(gradtx.adam(0.1))
    result = gradtx.sweep(dtype, gradtx.adam(0.1), eps=[1e-8, 1e-4])
    assert result.values.dtype == alone.dtype == jnp.bfloat16
    assert result.values[0].tolist() == alone.tolist()


def test_arrays_and_whole_numbers_as_values() -> None:
    @gradtx.definition
    def scaled(factors: ArrayHyperparam) -> Any:
        return gradtx.leafwise(None, _scale)

    factors = [jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])]
    ones = jnp.ones(2)
    result = gradtx.sweep(
        lambda tx: {"loss": tx.update(ones, tx.init(ones))[0]}, scaled(factors[0]), factors=factors
    )
    assert result["loss"].tolist() == [[1, 2], [3, 4]]
    every = gradtx.sweep(
        lambda tx: gradtx.hyperparams(tx)["every"],
        gradtx.accumulate(gradtx.sgd(0.1), 2),
        every=[2, 3],
    )
    assert every.values.tolist() == [2, 3] and every.values.dtype == np.int32


def _scale(grad: Any, slots: Any, param: Any, step: Any, *, factors: Any) -> Any:
    return factors * grad, slots


def test_keys_and_seeds() -> None:
    def draw(tx: Any, key: jax.Array) -> jax.Array:
        return jax.random.normal(key) * gradtx.hyperparams(tx)["learning_rate"]

    options: dict[str, Any] = {"learning_rate": [1.0, 2.0]}
    seeds = gradtx.sweep(draw, gradtx.sgd(0.1), **options, seeds=2)
    row = [float(jax.random.normal(jax.random.key(seed))) for seed in range(2)]
    np.testing.assert_allclose(seeds.values, [row, 2 * np.array(row)], rtol=1e-6)
    assert seeds.seeds == (0, 1) and seeds.axes["seeds"].tolist() == [0, 1]
    for keys in (jax.random.key, jax.random.PRNGKey):
        stack = jnp.stack([keys(0), keys(1)])
        result = gradtx.sweep(draw, gradtx.sgd(0.1), **options, keys=stack)
        np.testing.assert_array_equal(result.values, seeds.values)
    one = gradtx.sweep(draw, gradtx.sgd(0.1), **options, seeds=1)
    np.testing.assert_allclose(one.values[:, 0], seeds.values[:, 0], rtol=1e-6)


def test_a_value_that_never_varies_is_a_constant() -> None:
    """Python may decide on it, as in a training by itself."""

    def train(tx: Any) -> Any:
        return square(tx) if gradtx.hyperparams(tx)["b1"] > 0 else 0.0

    result = gradtx.sweep(train, gradtx.adam(0.1), learning_rate=[0.1, 0.2], b1=[0.5])
    np.testing.assert_allclose(result.values[:, 0], [0.405, 0.32], rtol=1e-5)


def test_a_callable_with_arrays_and_results_of_python() -> None:
    class Training:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, tx: Any) -> Any:
            return 3, [square(tx)]

    result = gradtx.sweep(Training(), gradtx.sgd(0.1), learning_rate=[0.1, 0.2, 0.3])
    assert result[0].tolist() == [3, 3, 3] and result[1][0].shape == (3,)


def decide(tx: Any, key: Any = None, x: Any = None) -> Any:
    """Python decides on one hyperparameter, and on an array."""
    if x is not None and x > 0:
        return 0.0
    values = gradtx.hyperparams(tx)
    return square(tx) if values["b1"] > 0.5 else float(values["learning_rate"])


def run(train: Any = square, tx: Any = None, *args: Any, **values: Any) -> Any:
    tx = gradtx.adamw(1e-3) if tx is None else tx
    return lambda: gradtx.sweep(train, tx, *args, **values)


SCHEDULED = gradtx.sgd(gradtx.cosine_decay_schedule(0.1, 100))
TWO = gradtx.chain(gradtx.adam(0.1), gradtx.sgd(0.1))
CASES: dict[str, tuple[Any, type[Exception], str]] = {
    "an unknown name": (
        run(lr=[0.1]),
        HyperparamError,
        "sweep: adamw has no hyperparameter or option 'lr'; did you mean 'learning_rate'? Its "
        "hyperparameters are learning_rate, b1, b2, eps, eps_root, weight_decay",
    ),
    "a name of sweep's own": (
        run(seed=[0, 1]),
        HyperparamError,
        "adamw has no hyperparameter or option 'seed'; did you mean 'seeds'?",
    ),
    "a name unlike any": (
        run(xyz=[1]),
        HyperparamError,
        "no hyperparameter or option 'xyz'; its hyperparameters are learning_rate, b1,",
    ),
    "two of a name": (
        run(tx=TWO, learning_rate=[0.1]),
        HyperparamError,
        "'learning_rate' is ambiguous: it may be adam.learning_rate or sgd.learning_rate",
    ),
    "two options of a name": (
        run(tx=TWO, nesterov=[True]),
        HyperparamError,
        "sweep: 'nesterov' is ambiguous: it may be adam.nesterov or sgd.nesterov",
    ),
    "nothing varies": (
        run(),
        HyperparamError,
        "sweep: no hyperparameter varies; name one with its values, learning_rate=[1e-3, 1e-2]",
    ),
    "an empty list": (
        run(learning_rate=[]),
        HyperparamError,
        "sweep: learning_rate is an empty list; give at least one value",
    ),
    "one number": (
        run(learning_rate=0.1),
        HyperparamError,
        "sweep: learning_rate = 0.1 is not a list; write a list of values, learning_rate=[...]; "
        "one value for all trainings belongs to the definition, gradtx.replace(tx, ",
    ),
    "a matrix": (
        run(learning_rate=np.ones((2, 2))),
        HyperparamError,
        "sweep: learning_rate = f64[2,2] is an array of shape (2, 2); write a list of values",
    ),
    "lengths that differ": (
        run(grid=False, learning_rate=[0.1, 0.2], b1=[0.9]),
        HyperparamError,
        "with grid=False the lists are columns of one table, and their lengths differ: "
        "learning_rate has 2, b1 has 1 values; make them equal, or sweep the product with ",
    ),
    "points and lists": (
        run(points=[{"b1": 0.9}], b2=[0.9]),
        HyperparamError,
        "sweep: both points= and lists by name, b2: put every value into points",
    ),
    "points that differ": (
        run(points=[{"b1": 0.9}, {"b1": 0.9, "b2": 0.9}]),
        HyperparamError,
        "sweep: points[0] has no 'b2', points[1] has one; name the same hyperparameters in every",
    ),
    "one point": (
        run(points={"b1": [0.9]}),
        HyperparamError,
        "sweep: points is not a list of dicts; write points=[{'learning_rate': 1e-3}, ...]",
    ),
    "no points": (run(points=[]), HyperparamError, "sweep: points is empty; give one dict"),
    "out of range": (
        run(b1=[0.9, 1.5]),
        HyperparamError,
        "adamw: b1 = 1.5 is outside its range [0, 1)",
    ),
    "numbers for a schedule": (
        run(tx=SCHEDULED, learning_rate=[0.1]),
        HyperparamError,
        "sweep: learning_rate follows cosine_decay_schedule(init_value=0.1, decay_steps=100), and "
        "numbers would replace the schedule by constants; name one of its numbers, "
        "'learning_rate.init_value', 'learning_rate.decay_steps',",
    ),
    "seeds and keys": (
        run(seeds=2, keys=jax.random.split(jax.random.key(0)), b1=[0.9]),
        HyperparamError,
        "sweep: both seeds and keys; give one of them",
    ),
    "no seeds": (
        run(seeds=0, b1=[0.9]),
        HyperparamError,
        "sweep: seeds = 0 is not a number of seeds; write seeds=3 for the keys of 0, 1 and 2",
    ),
    "one key": (
        run(keys=jax.random.key(0), b1=[0.9]),
        HyperparamError,
        "is not a list of keys; write keys=jax.random.split(key, 3)",
    ),
    "a chunk of nothing": (
        run(chunk=0, b1=[0.9]),
        HyperparamError,
        "sweep: chunk = 0 is not a number of trainings; give a whole number of 1 or more, or None",
    ),
    "a mode": (
        run(mode="maximum", b1=[0.9]),
        HyperparamError,
        "sweep: mode = 'maximum' is unknown; choose one of 'min', 'max'",
    ),
    "the wrong order": (
        run(gradtx.adam(0.1), square, b1=[0.9]),
        GradtxError,
        "sweep: train = adam(learning_rate=0.1) is not a function; the order is sweep(train, ",
    ),
    "too many arguments": (
        run(square, None, 1.0, 2.0, b1=[0.9]),
        GradtxError,
        "sweep: train(tx, w) cannot be called as train(tx, args[0], args[1]), the call without "
        "seeds: too many positional arguments; change its parameters, or the arguments after tx",
    ),
    "no key": (
        run(lambda tx: 0.0, seeds=2, b1=[0.9]),
        GradtxError,
        "train(tx) cannot be called as train(tx, key), the call with seeds",
    ),
    "no result": (
        run(lambda tx: None, b1=[0.9]),
        GradtxError,
        "sweep: train returned None, without an array; return the final loss, or a tree of arrays",
    ),
    "a text": (
        run(lambda tx: {"loss": 1.0, "name": "run"}, b1=[0.9]),
        GradtxError,
        "sweep: train returned a str at 'name'; return numbers and arrays",
    ),
    "a metric that is not there": (
        run(lambda tx: {"loss": 1.0, "accuracy": 1.0}, metric="acuracy", b1=[0.9]),
        GradtxError,
        "sweep: train returned no 'acuracy' for metric=; did you mean 'accuracy'? It returned "
        "'accuracy', 'loss'",
    ),
    "a metric that is a matrix": (
        run(lambda tx: {"w": jnp.ones((2, 2))}, metric="w", b1=[0.9]),
        GradtxError,
        "sweep: the metric 'w' is f32[2,2] for each training; return one real number, or one for",
    ),
    "other arrays for an option": (
        run(lambda tx: jnp.ones(2 if tx.arguments["nesterov"] else 3), nesterov=[True, False]),
        StructureError,
        "sweep: train returns other arrays where an option changes; return the same shapes and",
    ),
    "a decision": (
        run(decide, b1=[0.9, 0.5], learning_rate=[0.1]),
        GradtxError,
        "of test_sweep.py) needs the value of b1, or of a number computed from it, in Python, "
        "where all trainings are traced as one program; write jnp.where or jax.lax.cond in place "
        "of if, jax.lax.while_loop in place of while, and no float()",
    ),
    "a float": (
        run(decide, b1=[0.5], learning_rate=[0.1, 0.2]),
        GradtxError,
        "needs the value of learning_rate, or of a number computed from it, in Python",
    ),
    "a decision on data": (
        run(decide, None, jnp.array(1.0), b1=[0.9, 0.5], seeds=2),
        GradtxError,
        "needs the value of an array, or of a number computed from it, in",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_mistakes_are_answered(name: str) -> None:
    call, kind, text = CASES[name]
    with pytest.raises(kind, match=re.escape(text)):
        call()


def test_a_decision_is_found_by_its_line() -> None:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    line = next(number for number, text in enumerate(lines, 1) if 'if values["b1"]' in text)
    with pytest.raises(GradtxError, match=rf"train \(line {line} of test_sweep.py\)"):
        gradtx.sweep(decide, gradtx.adam(0.1), b1=[0.9, 0.5])


def test_an_error_of_the_caller_passes() -> None:
    def train(tx: Any) -> Any:
        raise LookupError("no data")

    with pytest.raises(LookupError, match="no data"):
        gradtx.sweep(train, gradtx.sgd(0.1), learning_rate=[0.1])
