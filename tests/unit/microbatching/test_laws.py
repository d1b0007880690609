"""Microbatching: precision, derivatives, devices, memory, the size of programs, and messages."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from gradtx.microbatching import (
    AccumulationType,
    Accumulator,
    micro_grad,
    micro_vmap,
    microbatch,
    reshape_batch_axis,
)

SUM, MEAN = AccumulationType.SUM, AccumulationType.MEAN
RUNNING, CONCAT = AccumulationType.RUNNING_MEAN, AccumulationType.CONCAT
X = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)


def squares(x: Any) -> tuple[jax.Array, jax.Array]:
    return x**2, jnp.sum(x**2)


@pytest.mark.parametrize("size", [1, 2, 3, 12])
def test_the_plain_function_in_float64(size: int) -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=(12, 3)))
        rows, total = microbatch(squares, 0, size, (CONCAT, SUM))(x)
        np.testing.assert_allclose(rows, x**2, rtol=1e-12)
        np.testing.assert_allclose(total, jnp.sum(x**2), rtol=1e-12)
        for kind in (MEAN, RUNNING):
            mean = microbatch(lambda x: jnp.mean(x, 0), 0, size, kind)(x)
            np.testing.assert_allclose(mean, jnp.mean(x, 0), rtol=1e-12, atol=1e-15)
            examples = micro_vmap(jnp.sin, microbatch_size=size, accumulator=kind)(x)
            np.testing.assert_allclose(examples, jnp.mean(jnp.sin(x), 0), rtol=1e-12, atol=1e-15)
        mapped = micro_vmap(jnp.sin, microbatch_size=size)(x)
        np.testing.assert_allclose(mapped, jax.vmap(jnp.sin)(x), rtol=1e-12)
        grads, aux = micro_grad(lambda w, x: jnp.sum(x @ w) ** 2, microbatch_size=size)(x[0], x)
        one = jax.vmap(jax.value_and_grad(lambda w, x: jnp.sum(x @ w) ** 2), (None, 0))
        values, each = one(x[0], x[:, None])
        np.testing.assert_allclose(grads, jnp.sum(each, 0), rtol=1e-12)
        np.testing.assert_allclose(aux.values, values, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_of_low_precision_run_in_float32(dtype: Any) -> None:
    """In bfloat16, 256 + 1 is 256; in float16 a sum of 2048 ones stops there."""
    ones = jnp.ones(4096, dtype)
    for kind, expected in ((SUM, 4096.0), (MEAN, 1.0), (RUNNING, 1.0)):
        total = microbatch(jnp.sum, 0, 1, kind)(ones)
        mapped = micro_vmap(lambda x: x, microbatch_size=2, accumulator=kind)(ones)
        assert total.dtype == mapped.dtype == dtype
        assert float(total) == float(mapped) == expected
    assert microbatch(lambda x: x, 0, 2, CONCAT)(ones).dtype == dtype
    grad, _ = micro_grad(lambda w, x: jnp.sum(w * x), microbatch_size=1)(ones[0], ones)
    assert grad.dtype == dtype and float(grad) == 4096.0


def test_a_running_mean_of_large_numbers_is_finite() -> None:
    big = 3e38 * jnp.array([1.0, -1.0, 1.0, 1.0])
    mean = microbatch(jnp.sum, 0, 1, RUNNING)(big)
    np.testing.assert_allclose(mean, 1.5e38, rtol=1e-6)


def test_complex_numbers_have_means() -> None:
    z = X[:, 0] + 1j * X[:, 1]
    for kind in (MEAN, RUNNING):
        np.testing.assert_allclose(microbatch(jnp.mean, 0, 3, kind)(z), jnp.mean(z), rtol=1e-5)


def test_strict_promotion() -> None:
    with jax.numpy_dtype_promotion("strict"):
        for kind in (SUM, MEAN, RUNNING, CONCAT):
            for dtype in (jnp.float32, jnp.bfloat16, jnp.complex64):
                x = X.astype(dtype)
                microbatch(lambda x: jnp.sum(x, 1), 0, 3, kind)(x)
                micro_vmap(jnp.sum, microbatch_size=3, accumulator=kind)(x)
        micro_grad(lambda w, x: jnp.sum(w[None] * x), microbatch_size=3)(X[0], X)


@pytest.mark.parametrize("limit", [None, 2, "array"])
@pytest.mark.parametrize("kind", [SUM, MEAN, RUNNING, CONCAT])
def test_derivatives(kind: AccumulationType, limit: Any) -> None:
    """Those of the function without a loop, in both modes; also where the limit is an array."""

    def parts(x: Any, number: Any) -> jax.Array:
        options = {} if limit is None else {"num_real_microbatches": number}
        return jnp.sum(jnp.sin(microbatch(lambda x: x**2, 0, 3, kind, **options)(x)))

    def plain(x: Any) -> jax.Array:
        rows = jnp.stack([x[i::4] ** 2 for i in range(4)][: 4 if limit is None else 2])
        if kind is CONCAT:
            return jnp.sum(jnp.sin(rows))
        total = jnp.sum(rows, 0)
        return jnp.sum(jnp.sin(total / {SUM: 1, MEAN: 4, RUNNING: len(rows)}[kind]))

    number = None if limit is None else jnp.asarray(2) if limit == "array" else 2
    run = jax.jit(jax.grad(parts)) if limit == "array" else jax.grad(parts)
    np.testing.assert_allclose(run(X, number), jax.grad(plain)(X), rtol=1e-5, atol=1e-6)
    forward = jax.jvp(lambda x: parts(x, number), (X,), (jnp.ones_like(X),))
    expected = jax.jvp(plain, (X,), (jnp.ones_like(X),))
    np.testing.assert_allclose(forward, expected, rtol=1e-4)


def test_a_limit_as_an_array_serves_all_sizes_with_one_program() -> None:
    def total(x: jax.Array, number: jax.Array) -> Any:
        kinds = (CONCAT, SUM)
        return microbatch(squares, 0, 3, kinds, num_real_microbatches=number)(x)

    run, traces = jax.jit(total), []
    for number in range(5):
        rows, value = run(X, number)
        x = np.asarray(X).copy().reshape(3, 4, 3)
        x[:, number:] = 0
        np.testing.assert_allclose(rows, x.reshape(12, 3) ** 2, rtol=1e-6)
        np.testing.assert_allclose(value, np.sum(x**2), rtol=1e-6)
        traces.append(run._cache_size())  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
    assert set(traces) == {1}
    mapped = jax.vmap(total, (None, 0))(X, jnp.arange(5))[1]
    np.testing.assert_allclose(mapped, [run(X, n)[1] for n in range(5)], rtol=1e-6)


def test_a_batch_of_microbatched_functions() -> None:
    stacked = jnp.stack([X, 2 * X])
    rows, total = jax.vmap(microbatch(squares, 0, 4, (CONCAT, SUM)))(stacked)
    np.testing.assert_allclose(rows, stacked**2, rtol=1e-6)
    np.testing.assert_allclose(total, jnp.sum(stacked**2, (1, 2)), rtol=1e-6)


def test_random_keys_have_a_batch_axis() -> None:
    keys = jax.random.split(jax.random.key(0), 6)
    assert jnp.all(microbatch(lambda k: k, 0, 2, CONCAT)(keys) == keys)
    drawn = micro_vmap(jax.random.normal, microbatch_size=3)(keys)
    np.testing.assert_array_equal(drawn, jax.vmap(jax.random.normal)(keys))


def test_axes_as_a_prefix_of_an_argument() -> None:
    rows = {"x": X.T, "scale": 2.0}
    total = microbatch(
        lambda d: d["scale"] * jnp.sum(d["x"], 1), 0, 4, in_axes=({"x": -1, "scale": None},)
    )
    np.testing.assert_allclose(total(rows), 2 * jnp.sum(X, 0), rtol=1e-5)
    mapped = micro_vmap(
        lambda d: d["scale"] * d["x"], ({"x": 1, "scale": None},), microbatch_size=4
    )
    np.testing.assert_allclose(mapped(rows), 2 * X, rtol=1e-6)


def test_integers_among_the_parameters_have_no_gradient() -> None:
    params = {"w": X[0], "n": 3}
    grads, _ = micro_grad(lambda p, x: jnp.sum(x @ p["w"]) * p["n"], microbatch_size=4)(params, X)
    assert grads["n"] is None
    np.testing.assert_allclose(grads["w"], 3 * jnp.sum(X, 0), rtol=1e-5)


def test_the_function_is_traced_once_and_programs_do_not_grow() -> None:
    traces = []

    def seen(x: jax.Array) -> jax.Array:
        traces.append(x.shape)
        return jnp.sum(jnp.sin(x))

    sizes = []
    for count in (2, 64):
        run = jax.jit(microbatch(seen, 0, 4))
        text = run.lower(jnp.ones((4 * count, 3))).as_text()
        sizes.append(len(text.splitlines()))
    assert traces == [(4, 3)] * 2 and sizes[0] == sizes[1]


WIDE, ROWS = 512, 4096
"""Enough that other arrays do not count: each microbatch of 512 rows has activations of 2 MB."""


def activations(w: jax.Array, x: jax.Array) -> jax.Array:
    """Two layers, whose outputs a derivative has to keep."""
    return jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w.T))


def temporaries(function: Callable[..., Any], rows: int = ROWS) -> int:
    args = jnp.ones((8, WIDE)), jnp.ones((rows, 8))
    analysis = jax.jit(function).lower(*args).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_memory_is_that_of_one_microbatch() -> None:
    """Temporaries of 8 microbatches are those of one alone, its rows, and two sums."""
    grad, size = jax.grad(activations), ROWS // 8
    one, whole = temporaries(grad, size), temporaries(grad)
    assert whole >= 7 * one > 7 * size * WIDE * 4
    rows_and_sums = size * 8 * 4 + 2 * 8 * WIDE * 4 + 1024
    assert temporaries(microbatch(grad, 1, size)) <= one + rows_and_sums
    for transform in (jnp.square, jnp.tanh):
        # Gradients per example: those of one microbatch, and never of the batch.
        clipped = functools.partial(micro_grad, activations, transform_fn=transform)
        examples = temporaries(clipped(microbatch_size=64), 1024)
        assert examples <= temporaries(clipped(), 64) + 64 * 8 * 4 + 2 * 8 * WIDE * 4 + 8192
        assert examples < temporaries(clipped(), 1024) / 8


def test_joined_results_are_written_once() -> None:
    """No temporary array beside a microbatch and the one result."""
    x = jnp.ones((64, 1024))
    run = jax.jit(microbatch(jnp.sin, 0, 8, CONCAT))
    analysis = run.lower(x).compile().memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes <= x.nbytes + x.nbytes // 8 + 1024


def on_four(axis_type: Any) -> Any:
    return jax.make_mesh((4,), ("b",), axis_types=(axis_type,))


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_a_batch_over_four_devices_stays_in_place(axis_type: Any) -> None:
    mesh = on_four(axis_type)
    x = jax.device_put(jnp.tile(X, (4, 1))[:16], NamedSharding(mesh, PartitionSpec("b")))
    w = jax.device_put(X[0], NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh):

        def losses(w: Any, x: Any) -> Any:
            return jnp.sum(x * w[None], 1), jnp.sum((x * w[None]) ** 2)

        run = jax.jit(microbatch(losses, 1, 4, (CONCAT, SUM)))
        text = run.lower(w, x).compile().as_text() or ""
        each, total = run(w, x)
    assert "all-to-all" not in text and "all-gather" not in text
    np.testing.assert_allclose(each, np.sum(np.asarray(x) * np.asarray(w), 1), rtol=1e-5)
    np.testing.assert_allclose(total, np.sum((np.asarray(x) * np.asarray(w)) ** 2), rtol=1e-5)
    assert each.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("b")), 1)


def test_within_shard_map() -> None:
    mesh = on_four(AxisType.Auto)
    spec = PartitionSpec("b")

    def local(x: jax.Array) -> Any:
        return jax.lax.psum(microbatch(lambda x: jnp.sum(x**2), 0, 1)(x), "b")

    mapped = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=PartitionSpec())
    np.testing.assert_allclose(jax.jit(mapped)(X), jnp.sum(X**2), rtol=1e-5)


MESSAGES: dict[str, tuple[Callable[[], Any], str]] = {
    "indivisible": (
        lambda: microbatch(jnp.sum, 0, 5)(X),
        r"^microbatch: the 12 examples of 'argument 0', shape \(12, 3\), are not divisible by "
        r"microbatch_size = 5; give a divisor, or fill up the batch$",
    ),
    "two batches": (
        lambda: microbatch(lambda x, y: x, (0, 1), 2)({"x": X}, X[:8]),
        r"^microbatch: batch axes must have one size: 'argument 0/x' has shape \(12, 3\) and 12 "
        r"examples, and 'argument 1' has shape \(8, 3\) and 8$",
    ),
    "a scalar": (
        lambda: microbatch(jnp.sum, 0, 2)(1.0),
        r"^microbatch: 'argument 0' has shape \(\), and no axis 0 to split into microbatches; only "
        r"arrays with a batch axis may be batch arguments$",
    ),
    "no axis": (
        lambda: micro_vmap(jnp.sum, 2, microbatch_size=2)(X),
        r"^micro_vmap: 'argument 0' has shape \(12, 3\), and no axis 2 to split",
    ),
    "an axis that is a text": (
        lambda: reshape_batch_axis(X, 2, "x"),  # pyright: ignore[reportArgumentType]
        r"^reshape_batch_axis: the batch axis of '' is 'x'; give a whole number$",
    ),
    "size": (
        lambda: microbatch(jnp.sum, 0, 0),
        r"^microbatch: microbatch_size = 0 is not a number of examples; give a whole number from 1 "
        r"on$",
    ),
    "size of micro_vmap": (
        lambda: micro_vmap(jnp.sum, microbatch_size=2.0),  # pyright: ignore[reportArgumentType]
        r"^micro_vmap: microbatch_size = 2.0 is not a number of examples",
    ),
    "size of micro_grad": (
        lambda: micro_grad(jnp.sum, microbatch_size=True),
        r"^micro_grad: microbatch_size = True is not a number of examples",
    ),
    "size of reshape": (
        lambda: reshape_batch_axis(X, 5),
        r"^reshape_batch_axis: the 12 examples of '', shape \(12, 3\), are not divisible by ",
    ),
    "argnums": (
        lambda: microbatch(jnp.sum, 1, 2)(X),
        r"^microbatch: argnums has 1, and the function got 1 positional arguments; pass the batch "
        r"by position, or name it in argnames$",
    ),
    "argnames": (
        lambda: microbatch(jnp.sum, 0, 2, argnames="y")(X, axis=0),
        r"^microbatch: argnames has 'y', and the function got the keyword arguments \['axis'\]; "
        r"pass it by keyword, or take its position into argnums$",
    ),
    "in_axes": (
        lambda: microbatch(jnp.sum, 0, 2, in_axes=(0, 1))(X),
        r"^microbatch: in_axes has 2 entries, and there are 1 batch arguments; give one number for "
        r"all, or one for each of argnums and argnames$",
    ),
    "in_axes of micro_vmap": (
        lambda: micro_vmap(jnp.sum, (0, 0), microbatch_size=2)(X),
        r"^micro_vmap: in_axes has 2 entries, and the function got 1 positional arguments; give "
        r"one number for all, or one for each of them$",
    ),
    "no batch": (
        lambda: microbatch(jnp.sum, (), 2)(X),
        r"^microbatch: no array of the arguments has a batch axis to split; name the batch in "
        r"argnums or argnames$",
    ),
    "accumulator": (
        lambda: microbatch(jnp.sum, 0, 2, "sum")(X),
        r"^microbatch: accumulator = 'sum' is not an AccumulationType or an Accumulator; give "
        r"AccumulationType.SUM, MEAN, RUNNING_MEAN or CONCAT, or a tree of them$",
    ),
    "None as an accumulator": (
        lambda: micro_vmap(jnp.sum, accumulator=None)(X),
        r"^micro_vmap: accumulator = None is not an AccumulationType",
    ),
    "prefix": (
        lambda: microbatch(squares, 0, 2, (SUM,))(X),
        r"^microbatch: accumulator has the structure PyTreeDef\(\(\*,\)\), which is not a prefix "
        r"of the structure of the results, PyTreeDef\(\(\*, \*\)\)$",
    ),
    "a mean of integers": (
        lambda: microbatch(jnp.sum, 0, 2, MEAN)(jnp.arange(4)),
        r"^MEAN of microbatches: a result has dtype int32, and a mean needs floating-point "
        r"numbers; cast it, or take AccumulationType.SUM$",
    ),
    "limit": (
        lambda: microbatch(jnp.sum, 0, 2, num_real_microbatches=7)(X),
        r"^microbatch: num_real_microbatches = 7 is outside its range \[0, 6\]; the batch has 6 "
        r"microbatches$",
    ),
    "a limit that is not whole": (
        lambda: microbatch(jnp.sum, 0, 2, num_real_microbatches=1.5)(X),
        r"^microbatch: num_real_microbatches = 1.5 is not a number of microbatches; give a whole "
        r"number, or an integer array without axes$",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name: str) -> None:
    call, text = MESSAGES[name]
    with pytest.raises(gradtx.GradtxError, match=text):
        call()


def test_other_axes_of_the_result_are_refused() -> None:
    text = r"^micro_vmap: out_axes = 1 is not supported; give 0, and move the axis of the result"
    with pytest.raises(NotImplementedError, match=text):
        micro_vmap(jnp.sum, 0, 1)


def test_an_accumulator_with_another_structure_in_its_carry() -> None:
    """The largest result and its microbatch, from a tree of two arrays."""

    def init(like: Any) -> Any:
        return jnp.full((), -jnp.inf), jnp.zeros((), jnp.int32)

    def update(carry: Any, value: Any, index: Any) -> Any:
        better = value["a"] + value["b"] > carry[0]
        new = value["a"] + value["b"], index
        return jax.tree.map(lambda n, o: jnp.where(better, n, o), new, carry)

    largest = Accumulator(init, update, lambda carry: carry[1], functools.partial(jnp.max, axis=0))
    best = microbatch(lambda x: {"a": jnp.sum(x), "b": jnp.max(x)}, 0, 2, largest)(
        jnp.array([1.0, 5.0, 2.0, 0.0, 7.0, 1.0])
    )
    assert int(best) == 1
