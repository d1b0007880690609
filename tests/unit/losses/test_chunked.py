"""Softmax cross-entropy without logits: its numbers, its memory, and tokens cut over devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.definition.errors import GradtxError
from gradtx.losses.chunked import chunked_softmax_cross_entropy
from gradtx.losses.cross_entropy import softmax_cross_entropy_with_integer_labels

TOKENS, FEATURES, CLASSES = 32768, 768, 50257
PEAK = 1 / 8
"""The bar: temporary memory of loss and gradient, relative to the plain form."""


def plain(hidden: jax.Array, embedding: jax.Array, labels: jax.Array) -> jax.Array:
    logits = jnp.matmul(hidden, embedding, preferred_element_type=jnp.float32)
    return softmax_cross_entropy_with_integer_labels(logits, labels)


def operands(dtype: Any = jnp.float32) -> tuple[jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (8, 6, 12)).astype(dtype)
    embedding = jax.random.normal(keys[1], (12, 50)).astype(dtype)
    return hidden, embedding, jax.random.randint(keys[2], (8, 6), 0, 50)


def weighted(loss: Any) -> Any:
    """A number with another cotangent for every token."""
    weights = jnp.cos(jnp.arange(48.0)).reshape(8, 6)
    return lambda h, w, y, **kwargs: jnp.sum(weights * loss(h, w, y, **kwargs))


@pytest.mark.parametrize("chunk", [1, 7, 16, 25, 50, 51, 1024])
def test_values_and_gradients_are_those_of_the_plain_form(chunk: int) -> None:
    """Chunks that divide the 50 classes, that leave a rest, and one for all."""
    args = operands()
    np.testing.assert_allclose(
        chunked_softmax_cross_entropy(*args, chunk=chunk), plain(*args), 1e-5
    )
    found, right = (
        jax.grad(weighted(loss), (0, 1))(*args, **kwargs)
        for loss, kwargs in ((chunked_softmax_cross_entropy, {"chunk": chunk}), (plain, {}))
    )
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-5 * float(jnp.max(jnp.abs(other))))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_sums_in_float32(dtype: Any) -> None:
    """The loss is float32's of the same operands; gradients round once, in the operands' dtype."""
    args = operands(dtype)
    exact = args[0].astype(jnp.float32), args[1].astype(jnp.float32), args[2]
    loss = chunked_softmax_cross_entropy(*args, chunk=16)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, plain(*exact), 1e-5)
    found = jax.grad(weighted(chunked_softmax_cross_entropy), (0, 1))(*args, chunk=16)
    right = jax.grad(weighted(plain), (0, 1))(*exact)
    for one, other in zip(found, right, strict=True):
        assert one.dtype == dtype
        # p − e_label is rounded for the product, as the gradient of plain logits would be.
        bound = 2 * float(jnp.finfo(dtype).eps) * float(jnp.max(jnp.abs(other)))
        np.testing.assert_allclose(one.astype(jnp.float32), other, 0, bound)


def test_mixed_dtypes_and_strict_promotion() -> None:
    hidden, embedding, labels = operands()
    with jax.numpy_dtype_promotion("strict"):
        call = jax.jit(jax.grad(weighted(chunked_softmax_cross_entropy), (0, 1)))
        found = call(hidden.astype(jnp.bfloat16), embedding, labels.astype(jnp.int8))
    assert [x.dtype for x in found] == [jnp.bfloat16, jnp.float32]


def test_ignored_tokens() -> None:
    """Whatever they hold, they change nothing and receive nothing."""
    hidden, embedding, labels = operands()
    keep = labels % 3 != 0
    dirty = jnp.where(keep[..., None], hidden, jnp.nan)
    ignored = jnp.where(keep, labels, -100)
    call = weighted(chunked_softmax_cross_entropy)
    found = jax.value_and_grad(call, (0, 1))(dirty, embedding, ignored, chunk=16, where=keep)
    right = jax.value_and_grad(weighted(lambda *args: jnp.where(keep, plain(*args), 0)), (0, 1))(
        hidden, embedding, labels
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5), found, right)
    assert not jnp.where(keep[..., None], 0, found[1][0]).any()


def test_labels_out_of_range_give_nan() -> None:
    hidden, embedding, _ = operands()
    labels = jnp.array([-1, -50, -51, 50, 0, 49])
    loss = chunked_softmax_cross_entropy(hidden[0], embedding, labels, chunk=16)
    assert jnp.isnan(loss).tolist() == [False, False, True, True, False, False]
    right = plain(hidden[0, :2], embedding, jnp.array([49, 0]))
    np.testing.assert_allclose(loss[:2], right, 1e-5)


def test_second_derivatives_and_vmap() -> None:
    with jax.enable_x64(True):
        hidden, embedding, labels = operands(jnp.float64)
        args = hidden[0, 0], embedding, labels[0, 0]
        for derive in (lambda f: jax.jacrev(jax.grad(f)), lambda f: jax.jacfwd(jax.grad(f))):
            found, right = (
                derive(lambda h, f=f: f(h, *args[1:]))(args[0])
                for f in (lambda *a: chunked_softmax_cross_entropy(*a, chunk=16), plain_double)
            )
            np.testing.assert_allclose(found, right, 1e-10, 1e-12)
        batch = jax.vmap(lambda h, y: chunked_softmax_cross_entropy(h, embedding, y, chunk=16))(
            hidden, labels
        )
        whole = chunked_softmax_cross_entropy(hidden, embedding, labels, chunk=16)
        np.testing.assert_allclose(batch, whole, 1e-12)


def plain_double(hidden: jax.Array, embedding: jax.Array, labels: jax.Array) -> jax.Array:
    return softmax_cross_entropy_with_integer_labels(hidden @ embedding, labels)


def shapes(dtype: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    return (
        jax.ShapeDtypeStruct((TOKENS, FEATURES), dtype),
        jax.ShapeDtypeStruct((FEATURES, CLASSES), dtype),
        jax.ShapeDtypeStruct((TOKENS,), jnp.int32),
    )


def mean_step(loss: Any) -> Any:
    return jax.jit(jax.value_and_grad(lambda h, w, y: loss(h, w, y).mean(), (0, 1)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_peak_memory_of_32k_tokens_and_50k_classes(dtype: Any) -> None:
    """Compiled, not run."""
    found, right = (
        mean_step(loss).lower(*shapes(dtype)).compile().memory_analysis()
        for loss in (chunked_softmax_cross_entropy, plain)
    )
    assert found.temp_size_in_bytes <= PEAK * right.temp_size_in_bytes


def test_no_array_is_larger_than_a_chunk_of_logits_or_an_operand() -> None:
    jaxpr = jax.make_jaxpr(mean_step(chunked_softmax_cross_entropy))(*shapes(jnp.bfloat16))
    largest = max(sizes(jaxpr.jaxpr))
    assert largest == max(TOKENS * 1024, FEATURES * CLASSES)
    assert largest <= TOKENS * CLASSES / 40


def sizes(jaxpr: Any) -> list[int]:
    """The sizes of all intermediate arrays, of inner programs as well."""
    own = [v.aval.size for e in jaxpr.eqns for v in e.outvars if hasattr(v.aval, "size")]
    parts = jax.tree.leaves([list(e.params.values()) for e in jaxpr.eqns], is_leaf=is_program)
    inner = [size for one in parts if is_program(one) for size in sizes(getattr(one, "jaxpr", one))]
    return own + inner


def is_program(value: Any) -> bool:
    return hasattr(value, "eqns")


def test_loss_and_gradient_take_four_products() -> None:
    """8 N D K operations: logits, logits again, and one product for each gradient."""
    args = jax.ShapeDtypeStruct((64, 16), jnp.float32), jax.ShapeDtypeStruct((16, 96), jnp.float32)
    labels = jax.ShapeDtypeStruct((64,), jnp.int32)
    step = mean_step(lambda h, w, y: chunked_softmax_cross_entropy(h, w, y, chunk=96))
    text = step.lower(*args, labels).as_text()
    assert text.count("stablehlo.dot_general") == 4


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_tokens_that_are_cut_over_devices_stay_where_they_are(kind: AxisType) -> None:
    """No array is gathered; devices add their parts of the embedding's gradient."""
    args = operands()
    mesh = jax.make_mesh((4,), ("x",), axis_types=(kind,))
    tokens, whole = (NamedSharding(mesh, PartitionSpec(*cut)) for cut in (("x",), ()))
    placed = [jax.device_put(x, s) for x, s in zip(args, (tokens, whole, tokens), strict=True)]
    step = mean_step(lambda h, w, y: chunked_softmax_cross_entropy(h, w, y, chunk=16))
    found, right = step(*placed), step(*args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-7), found, right)
    assert found[1][0].sharding.is_equivalent_to(tokens, 3)
    text = step.lower(*placed).compile().as_text()
    assert "all-gather" not in text and "all-to-all" not in text and "all-reduce(" in text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"labels": jnp.zeros((8, 6))},
            "labels has dtype float32, not class indices; cast with .astype(jnp.int32), or take "
            "jnp.argmax of probabilities",
        ),
        (
            {"labels": jnp.zeros((8, 5), int)},
            "labels have shape (8, 5); hidden of shape (8, 6, 12) needs (8, 6)",
        ),
        (
            {"axis": 0},
            "hidden has shape (8, 6, 12) and embedding (12, 50); with axis=0 the last axis of "
            "hidden must have size 50",
        ),
        (
            {"embedding": jnp.ones((2, 12, 50))},
            "embedding has shape (2, 12, 50) and axis=-1; give a matrix, and the axis that counts "
            "its classes, 0 or -1",
        ),
        ({"chunk": 0}, "chunk=0 must be a positive integer"),
        ({"chunk": 16.0}, "chunk=16.0 must be a positive integer"),
        (
            {"where": jnp.ones((8, 5), bool)},
            "where has shape (8, 5) and dtype bool; give bools that broadcast to the labels' shape "
            "(8, 6)",
        ),
        (
            {"hidden": jnp.ones((8, 6, 12), int)},
            "hidden has dtype int32, not real floats; cast with .astype(jnp.float32)",
        ),
    ],
)
def test_messages(change: dict[str, Any], text: str) -> None:
    hidden, embedding, labels = operands()
    arguments = {"hidden": hidden, "embedding": embedding, "labels": labels, **change}
    with pytest.raises(GradtxError) as error:
        chunked_softmax_cross_entropy(**arguments)
    assert str(error.value) == f"chunked_softmax_cross_entropy: {text}"
