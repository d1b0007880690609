"""`gradtx.sweep`: every training as by itself, one program for each structure, and its errors."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
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
        points={"sgd.nesterov": [True, False]},
        momentum=[None, 0.8, 0.9],
        learning_rate=[0.1],
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

    result = gradtx.sweep(rate, tx, points={"learning_rate.peak_value": [0.1, 0.2]})
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

    result = gradtx.sweep(
        updates, tx, points={"a.learning_rate": [1.0, 2.0], "b.learning_rate": [3.0]}
    )
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
    sums = gradtx.sweep(
        lambda tx: jnp.sum(tx.update(ones, tx.init(ones))[0]),
        scaled(factors[0]),
        factors=[factors[1], jnp.array(5.0)],
    )
    assert sums.values.tolist() == [7, 10]
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
    np.testing.assert_allclose(seeds.values, np.array([[1], [2]]) * np.array([row]), rtol=1e-6)
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
