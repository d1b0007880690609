"""Softmax cross-entropy at the edges: extreme logits, low precision, masks, modes, placement."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.definition.errors import GradtxError
from gradtx.losses.cross_entropy import (
    safe_softmax_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from tests.functions.cross_entropy import _integer_labels, _softmax_cross_entropy

INTEGER = softmax_cross_entropy_with_integer_labels
SIZES = [1.0, 1e4]
HALVES = [jnp.bfloat16, jnp.float16]


def logits_and_labels(size: float, dtype: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits of that size, soft labels, and indices that are not always the largest logit."""
    keys = jax.random.split(jax.random.key(0), 3)
    logits = (size * jax.random.normal(keys[0], (16, 40))).astype(dtype)
    soft = jax.nn.softmax(jax.random.normal(keys[1], (16, 40))).astype(dtype)
    return logits, soft, jax.random.randint(keys[2], (16,), 0, 40)


def double(array: jax.Array) -> np.ndarray:
    return np.asarray(array.astype(jnp.float32), np.float64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [jnp.float32, *HALVES])
def test_low_precision_rounds_the_result_and_nothing_else(size: float, dtype: Any) -> None:
    """Within one rounding of float64, where Optax loses whole units at logits of 1e4."""
    logits, soft, index = logits_and_labels(size, dtype)
    rounding = 2 * float(jnp.finfo(dtype).eps) if dtype in HALVES else 1e-6
    for loss, right in (
        (INTEGER(logits, index), _integer_labels(double(logits), np.asarray(index))),
        (softmax_cross_entropy(logits, soft), _softmax_cross_entropy(double(logits), double(soft))),
    ):
        assert loss.dtype == dtype
        finite = np.abs(right) < float(jnp.finfo(dtype).max)
        np.testing.assert_allclose(double(loss)[finite], right[finite], rounding, rounding)


@pytest.mark.parametrize("dtype", HALVES)
def test_gradient_of_low_precision_is_softmax_minus_label(dtype: Any) -> None:
    """p − 1 near p = 1 has all digits of the dtype: it is not a difference of rounded numbers."""
    logits = jnp.array([[12.0, 0.0, 0.0]], dtype)
    gradient = jax.grad(lambda z: INTEGER(z, jnp.array([0])).sum())(logits)
    p = np.exp(double(logits)) / np.exp(double(logits)).sum()
    right = p - np.array([[1.0, 0.0, 0.0]])
    assert gradient.dtype == dtype
    # One rounding of the dtype, and that of 1 in float32.
    np.testing.assert_allclose(double(gradient), right, float(jnp.finfo(dtype).eps), 2e-7)


@pytest.mark.parametrize("loss", [softmax_cross_entropy, safe_softmax_cross_entropy])
@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 3e38])
def test_equal_logits(loss: Any, value: float) -> None:
    logits, labels = jnp.full(4, value), jnp.array([1.0, 0.0, 0.0, 0.0])
    found, gradient = jax.value_and_grad(loss)(logits, labels)
    np.testing.assert_allclose(found, np.log(4.0), 1e-6)
    np.testing.assert_allclose(gradient, 0.25 - labels, 1e-6)
    index, slope = jax.value_and_grad(INTEGER)(logits, jnp.array(0))
    np.testing.assert_array_equal((index, *slope), (found, *gradient))


def test_impossible_class_of_probability_0() -> None:
    """Where the loss is finite, so is the gradient, to the labels as well; else nan or ∞."""
    logits, labels = jnp.array([1.0, 2.0, -jnp.inf]), jnp.array([0.5, 0.5, 0.0])
    p = np.array([1 / (1 + np.e), np.e / (1 + np.e), 0.0])
    gradients = jax.grad(safe_softmax_cross_entropy, (0, 1))(logits, labels)
    np.testing.assert_allclose(gradients[0], p - labels, 1e-6)
    np.testing.assert_allclose(gradients[1], [-np.log(p[0]), -np.log(p[1]), 0.0], 1e-6)
    np.testing.assert_allclose(jax.grad(INTEGER)(logits, jnp.array(0)), p - [1, 0, 0], 1e-6)
    assert jnp.isnan(softmax_cross_entropy(logits, labels))
    assert safe_softmax_cross_entropy(logits, jnp.array([0.5, 0.4, 0.1])) == jnp.inf
    assert INTEGER(logits, jnp.array(2)) == jnp.inf


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("order", [1, 2])
def test_masked_entries_poison_nothing(bad: float, order: int) -> None:
    """Neither values nor gradients nor second derivatives, for classes and for whole examples."""
    clean = jax.random.normal(jax.random.key(1), (3, 4))
    soft, index = jax.nn.softmax(2 * clean), jnp.array([0, 1, 1])
    classes = jnp.array([[True, True, False, True], [True] * 4, [False] * 4])
    for mask in (classes, jnp.array([True, False, True])):
        full = mask if mask.ndim == 2 else jnp.broadcast_to(mask[:, None], (3, 4))
        dirty = jnp.where(full, clean, bad)
        for loss, labels in ((softmax_cross_entropy, soft), (INTEGER, index)):

            def value(z: jax.Array, loss: Any = loss, labels: Any = labels, m: Any = mask) -> Any:
                return jnp.sum(jnp.sin(loss(z, labels, where=m)))

            derive = jax.grad(value)
            if order == 2:
                derive = jax.grad(lambda z, derive=derive: jnp.sum(jnp.cos(derive(z))))
            np.testing.assert_array_equal(value(dirty), value(clean))
            np.testing.assert_array_equal(derive(dirty), derive(clean))
            assert jnp.all(jnp.where(full, 0, derive(dirty)) == 0)


def test_all_masked_is_0() -> None:
    logits, mask = jnp.ones((2, 3)), jnp.zeros(2, bool)
    for loss, labels in ((INTEGER, jnp.zeros(2, int)), (softmax_cross_entropy, logits)):
        call = functools.partial(loss, labels=labels, where=mask)
        assert call(logits).tolist() == [0.0, 0.0]
        assert not jax.grad(lambda z, call=call: call(z).sum())(logits).any()


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int8, jnp.int16, jnp.uint32, jnp.int32])
def test_labels_of_any_integer_dtype(dtype: Any) -> None:
    """Of 200 classes, int8 could not even count."""
    logits = jax.random.normal(jax.random.key(2), (3, 200))
    labels = np.array([0, 100, 127])
    right = INTEGER(logits, labels)
    np.testing.assert_array_equal(INTEGER(logits, jnp.asarray(labels, dtype)), right)
    gradient = jax.grad(lambda z: INTEGER(z, jnp.asarray(labels, dtype)).sum())(logits)
    assert (jnp.argmin(gradient, 1) == labels).all()


def test_labels_out_of_range_give_nan() -> None:
    """Negative ones count from the end as far as there are classes, as with Optax."""
    logits, labels = jnp.arange(15.0).reshape(5, 3) ** 1.1, jnp.array([-3, -1, 3, -4, 99])
    found, right = (
        f(logits, labels) for f in (INTEGER, optax.softmax_cross_entropy_with_integer_labels)
    )
    np.testing.assert_array_equal(jnp.isnan(found), [False, False, True, True, True])
    np.testing.assert_allclose(found, right, 1e-6)
    slopes = [
        jax.grad(lambda z, f=f: f(z, labels).sum())(logits)
        for f in (INTEGER, optax.softmax_cross_entropy_with_integer_labels)
    ]
    np.testing.assert_allclose(slopes[0], slopes[1], 1e-6, 1e-7)


def test_forward_mode_vmap_and_second_derivatives() -> None:
    with jax.enable_x64(True):
        logits, soft, index = logits_and_labels(2.0, jnp.float64)
        logits, soft, index = logits[0, :6], soft[0, :6], index[0] % 6
        batch = jnp.stack([logits, 2 * logits])
        for loss, labels in ((INTEGER, index), (softmax_cross_entropy, soft)):
            call = functools.partial(loss, labels=labels)
            p, weight = jax.nn.softmax(logits), 1.0 if labels.ndim == 0 else jnp.sum(labels)
            right = weight * (jnp.diag(p) - jnp.outer(p, p))
            for one in (
                jax.hessian(call),
                jax.jacrev(jax.jacrev(call)),
                jax.jacfwd(jax.grad(call)),
            ):
                np.testing.assert_allclose(one(logits), right, 1e-12, 1e-14)
            np.testing.assert_allclose(jax.jacfwd(call)(logits), jax.grad(call)(logits), 1e-12)
            np.testing.assert_allclose(jax.vmap(call)(batch), [call(row) for row in batch], 1e-12)


def test_strict_promotion_and_python_numbers() -> None:
    with jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.float32, jnp.bfloat16):
            logits, soft, index = logits_and_labels(1.0, dtype)
            mask = jnp.ones(16, bool)
            for call in (
                lambda z, y=soft, m=mask: softmax_cross_entropy(z, y, where=m),
                lambda z, y=soft: safe_softmax_cross_entropy(z, y),
                lambda z, y=index, m=mask: INTEGER(z, y.astype(jnp.uint8), where=m),
            ):
                gradient = jax.jit(jax.grad(lambda z, call=call: call(z).sum()))(logits)
                assert gradient.dtype == dtype
    assert softmax_cross_entropy(logits, soft.astype(jnp.float32)).dtype == jnp.float32
    assert softmax_cross_entropy(logits, jnp.ones((16, 40), int)).dtype == logits.dtype


def test_eager_gradient_holds_no_copy_of_the_logits() -> None:
    """Between the passes it holds the logits themselves and a few numbers of each example."""
    logits, soft, index = logits_and_labels(1.0, jnp.bfloat16)
    for loss, labels in ((INTEGER, index), (softmax_cross_entropy, soft)):
        _, backward = jax.vjp(lambda z, f=loss, y=labels: f(z, y), logits)
        large = [x for x in jax.tree.leaves(backward) if x.size >= logits.size]
        assert all(x.dtype == jnp.bfloat16 for x in large)
        assert len(large) == (1 if labels.ndim == 1 else 2)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("cut", [("x",), (None, "x")])
def test_logits_that_are_cut_over_devices(kind: AxisType, cut: tuple[str | None, ...]) -> None:
    """By examples and by classes, as in tensor parallelism."""
    logits, soft, index = logits_and_labels(1.0, jnp.float32)
    mesh = jax.make_mesh((4,), ("x",), axis_types=(kind,))

    def put(array: jax.Array) -> jax.Array:
        spec = PartitionSpec(*cut[: array.ndim])
        return jax.device_put(array, NamedSharding(mesh, spec))

    for loss, labels in ((INTEGER, index), (softmax_cross_entropy, soft)):
        step = jax.jit(jax.value_and_grad(lambda z, y, f=loss: f(z, y).mean()))
        right, found = step(logits, labels), step(put(logits), put(labels))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-8), found, right)
        assert found[1].sharding.is_equivalent_to(put(logits).sharding, 2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: INTEGER(jnp.ones((2, 3)), jnp.ones(2)),
            "softmax_cross_entropy_with_integer_labels: labels has dtype float32, not class "
            "indices; cast with .astype(jnp.int32), or take jnp.argmax of probabilities",
        ),
        (
            lambda: INTEGER(jnp.ones((2, 3)), jnp.zeros(3, int)),
            "softmax_cross_entropy_with_integer_labels: labels have shape (3,); logits of shape "
            "(2, 3) with classes along axis -1 need (2,)",
        ),
        (
            lambda: INTEGER(jnp.ones((2, 3), int), jnp.zeros(2, int)),
            "softmax_cross_entropy_with_integer_labels: logits has dtype int32, not "
            "real floats; cast with .astype(jnp.float32)",
        ),
        (
            lambda: INTEGER(jnp.ones((2, 3)), jnp.zeros(2, int), axis=2),
            "softmax_cross_entropy_with_integer_labels: axis=2 does not name different axes of "
            "logits of shape (2, 3)",
        ),
        (
            lambda: INTEGER(jnp.ones((2, 3)), jnp.zeros(2, int), where=jnp.ones(4, bool)),
            "softmax_cross_entropy_with_integer_labels: where has shape (4,), which fits neither "
            "logits of shape (2, 3) nor those without axis 1",
        ),
        (
            lambda: softmax_cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 3)), where=jnp.ones(2)),
            "softmax_cross_entropy: where has dtype float32, not bools; pass where != 0",
        ),
        (
            lambda: softmax_cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 4)), axis=1),
            "softmax_cross_entropy: labels have shape (2, 4) and logits (2, 3), which differ; give "
            "one label per class along axis 1",
        ),
        (
            lambda: safe_softmax_cross_entropy(jnp.ones((2, 3), complex), jnp.ones((2, 3))),
            "safe_softmax_cross_entropy: logits has dtype complex64, not real floats; "
            "pass its real part",
        ),
    ],
)
def test_messages(call: Any, text: str) -> None:
    with pytest.raises(GradtxError) as error:
        call()
    assert str(error.value) == text
