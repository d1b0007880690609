r"""Softmax cross-entropy of a linear output layer, computed without storing its logits.

    z = h W                                               h: (..., D), W: (D, K), z: (..., K)
    L = log Σ_k exp z_k − z_label                         L: (...)
    ∂L/∂z = softmax(z) − e_label,   ∂L/∂h = ∂L/∂z Wᵀ,   ∂L/∂W = hᵀ ∂L/∂z

The forward pass visits the classes in chunks, and holds of each example the peak and the sum of its
exponentials so far. The backward pass computes each chunk of logits again.

Chunks of classes, not of examples: W is read once per pass, each part of its gradient is written
once and not added to, and examples that are cut over devices stay where they are.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.losses.class_axes import common_shape, count_from_zero, index_array
from gradtx.losses.inputs import float_array
from gradtx.tree.casts import compute_dtype, widest
from gradtx.tree.placement import run_auto_if


class _Sums(NamedTuple):
    """Of each example, over the classes so far; in float32 at least."""

    peak: jax.Array
    """The largest logit."""
    total: jax.Array
    """Σ exp(z − peak)."""
    picked: jax.Array
    """z_label, or 0 before its chunk."""


class _Residuals(NamedTuple):
    """All that the backward pass reads."""

    hidden: jax.Array
    embedding: jax.Array
    labels: jax.Array
    peak: jax.Array
    log_total: jax.Array


def chunked_softmax_cross_entropy(
    hidden: ArrayLike,
    embedding: ArrayLike,
    labels: ArrayLike,
    *,
    chunk: int = 1024,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Softmax cross-entropy fused with the output layer: the logits h W are never stored.

    h: (..., D), W: (D, K), labels, L: (...), L = log Σ_k exp(h W)_k − (h W)_label. The result is
    that of `softmax_cross_entropy_with_integer_labels(hidden @ embedding, labels)`. Memory beside
    the arguments and their gradients: about N · (6 · chunk + 4 · D) bytes for N examples in
    bfloat16, against 4 · N · K bytes. Work: 8 N D K operations for loss and gradient instead of
    6 N D K, because the backward pass computes the logits again.

    When: language models, whose logits are the largest array of training. When not: the logits
    fit; the plain form is then faster by a product. Only the gradient is fused: there is no
    forward mode (`jvp`), and second derivatives store what the loop computes.

    Args:
      hidden: h, the last features of each example.
      embedding: W; float16 and bfloat16 are multiplied as they are, and summed in float32.
      labels: integers in [0, K); negative ones count from the end, beyond that the loss is nan.
      chunk: classes per step, 256 to 8192; the last step takes the rest. Memory grows with it.
      axis: the axis of W that counts classes: -1 for (D, K), 0 for tied embeddings (K, D).
      where: bools, shaped like the labels: False ignores an example, whose loss and gradient are 0,
        and whose hidden features may be nan.

    Returns:
      The loss of each example, in float32 at least. Its mean over the examples is the user's.

    Raises:
      StructureError: shapes do not match.
      DtypeError: labels are not integers, or operands are not real floats.
      HyperparamError: `chunk` is not a positive integer.

    >>> import jax.numpy as jnp
    >>> from gradtx.losses.chunked import chunked_softmax_cross_entropy
    >>> h, w = jnp.ones((4, 2)), jnp.zeros((2, 10))
    >>> labels = jnp.array([3, 1, 4, -100])
    >>> loss = chunked_softmax_cross_entropy(h, w, labels, chunk=4, where=labels != -100)
    >>> [round(x, 4) for x in loss.tolist()]  # log 10, and 0 for the ignored label
    [2.3026, 2.3026, 2.3026, 0.0]

    See also: `softmax_cross_entropy_with_integer_labels`.

    Wijmans et al. 2024, Cut Your Losses in Large-Vocabulary Language Models, arXiv 2411.09009,
    section 4, without its filter of small gradients: these gradients are exact. Sums with a peak
    that grows: Milakov and Gimelshein 2018, arXiv 1805.02867, Algorithm 3.
    """
    name = "chunked_softmax_cross_entropy"
    h, w = float_array(name, "hidden", hidden), float_array(name, "embedding", embedding)
    index = index_array(name, labels)
    places = _check_shapes(name, h.shape, w.shape, index.shape, axis)
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise HyperparamError(f"{name}: chunk={chunk!r} must be a positive integer")
    h, w = (array.astype(widest(h.dtype, w.dtype)) for array in (h, w))
    index = count_from_zero(index, w.shape[places[1]])
    mask = None if where is None else _example_mask(name, where, index.shape)
    return _program(h, w, index, mask, chunk, places)


_Places = tuple[int, int]
"""The axes of the embedding that count features and classes."""


@functools.partial(jax.jit, static_argnums=(4, 5))
def _program(
    hidden: jax.Array,
    embedding: jax.Array,
    index: jax.Array,
    mask: jax.Array | None,
    chunk: int,
    places: _Places,
) -> jax.Array:
    if mask is None:
        return _loss(hidden, embedding, index, chunk, places)
    # An ignored row may hold nan, which no cotangent of 0 would cancel.
    hidden = jnp.where(mask[..., None], hidden, 0)
    return jnp.where(mask, _loss(hidden, embedding, index, chunk, places), 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _loss(
    hidden: jax.Array, embedding: jax.Array, index: jax.Array, chunk: int, places: _Places
) -> jax.Array:
    return _forward(hidden, embedding, index, chunk, places)[0]


def _forward(
    hidden: jax.Array, embedding: jax.Array, index: jax.Array, chunk: int, places: _Places
) -> tuple[jax.Array, _Residuals]:
    call = functools.partial(_sums, chunk, places)
    loss, peak, log_total = run_auto_if(call, (index,) * 3, hidden, embedding, index)
    return loss, _Residuals(hidden, embedding, index, peak, log_total)


def _sums(
    chunk: int, places: _Places, hidden: jax.Array, embedding: jax.Array, index: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The loss, the peak of the logits, and log Σ exp(z − peak)."""
    dtype, classes = compute_dtype(hidden.dtype), embedding.shape[places[1]]
    zeros = jnp.zeros(index.shape, dtype)
    start = _Sums(zeros - float(jnp.finfo(dtype).max), zeros, zeros)
    add = functools.partial(_add_classes, hidden, embedding, index, places)
    peak, total, picked = _for_chunks(add, start, classes, chunk)
    log_total = jnp.log(total)
    return jnp.where(index < classes, log_total - (picked - peak), jnp.nan), peak, log_total


def _add_classes(
    hidden: jax.Array,
    embedding: jax.Array,
    index: jax.Array,
    places: _Places,
    start: Any,
    size: int,
    sums: _Sums,
) -> _Sums:
    """The sums with the classes from `start` on."""
    logits = _multiply(hidden, _slice(embedding, start, size, places), places[0])
    peak = jnp.maximum(sums.peak, jnp.max(logits, -1))
    total = sums.total * jnp.exp(sums.peak - peak)
    total += jnp.sum(jnp.exp(logits - peak[..., None]), -1)
    picked = jnp.sum(jnp.where(_is_label(index, start, size), logits, 0), -1)
    return _Sums(peak, total, sums.picked + picked)


def _backward(
    chunk: int, places: _Places, residuals: _Residuals, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    call = functools.partial(_gradients, chunk, places)
    like = (residuals.hidden, residuals.embedding)
    return (*run_auto_if(call, like, *residuals, cotangent), None)


def _gradients(
    chunk: int,
    places: _Places,
    hidden: jax.Array,
    embedding: jax.Array,
    index: jax.Array,
    peak: jax.Array,
    log_total: jax.Array,
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """∂L/∂h and ∂L/∂W."""
    residuals = _Residuals(hidden, embedding, index, peak, log_total)
    # Each chunk adds to ∂L/∂h, in float32; it alone writes its part of ∂L/∂W.
    start = (jnp.zeros(hidden.shape, compute_dtype(hidden.dtype)), jnp.zeros_like(embedding))
    add = functools.partial(_add_gradients, residuals, cotangent, places)
    to_hidden, to_embedding = _for_chunks(add, start, embedding.shape[places[1]], chunk)
    return to_hidden.astype(hidden.dtype), to_embedding


_loss.defvjp(_forward, _backward)


def _add_gradients(
    residuals: _Residuals,
    cotangent: jax.Array,
    places: _Places,
    start: Any,
    size: int,
    gradients: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """The gradients with the classes from `start` on."""
    hidden, embedding, index, peak, log_total = residuals
    to_hidden, to_embedding = gradients
    part = _slice(embedding, start, size, places)
    logits = _multiply(hidden, part, places[0])
    slope = jnp.exp(logits - peak[..., None] - log_total[..., None])
    slope = jnp.where(_is_label(index, start, size), slope - 1, slope) * cotangent[..., None]
    slope = slope.astype(hidden.dtype)
    to_hidden += _multiply(slope, part, places[1])
    examples = tuple(range(index.ndim))
    operands = (slope, hidden) if places[1] == 0 else (hidden, slope)
    piece = jnp.tensordot(*operands, (examples, examples), preferred_element_type=to_hidden.dtype)
    return to_hidden, jax.lax.dynamic_update_slice_in_dim(
        to_embedding, piece.astype(embedding.dtype), start, places[1]
    )


def _for_chunks(add: Callable[..., Any], start: Any, classes: int, chunk: int) -> Any:
    """Call `add(first class, number of classes, result so far)` for all classes in chunks."""
    whole = classes // chunk

    def step(number: Any, result: Any) -> Any:
        return add(number * chunk, chunk, result)

    result = jax.lax.fori_loop(0, whole, step, start) if whole else start
    rest = classes - whole * chunk
    return add(whole * chunk, rest, result) if rest else result


def _multiply(left: jax.Array, matrix: jax.Array, place: int) -> jax.Array:
    """The product along the last axis and one of a matrix, in float32 at least."""
    dtype = compute_dtype(left.dtype)
    return jnp.tensordot(left, matrix, ((-1,), (place,)), preferred_element_type=dtype)


def _slice(embedding: jax.Array, start: Any, size: int, places: _Places) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(embedding, start, size, places[1])


def _is_label(index: jax.Array, start: Any, size: int) -> jax.Array:
    """For each example and each class from `start` on, whether it is the label."""
    classes = jax.lax.broadcasted_iota(index.dtype, (*index.shape, size), index.ndim)
    return classes == (index - jnp.asarray(start, index.dtype))[..., None]


def _check_shapes(
    name: str, hidden: Any, embedding: Any, labels: tuple[int, ...], axis: int
) -> _Places:
    if len(embedding) != 2 or axis not in (-2, -1, 0, 1):
        raise StructureError(
            f"{name}: embedding has shape {embedding} and axis={axis}; give a matrix, and the axis "
            "that counts its classes, 0 or -1"
        )
    places = (1 - axis % 2, axis % 2)
    if not hidden or hidden[-1] != embedding[places[0]]:
        raise StructureError(
            f"{name}: hidden has shape {hidden} and embedding {embedding}; with axis={axis} the "
            f"last axis of hidden must have size {embedding[places[0]]}"
        )
    if labels != hidden[:-1]:
        raise StructureError(
            f"{name}: labels have shape {labels}; hidden of shape {hidden} needs {hidden[:-1]}"
        )
    return places


def _example_mask(name: str, where: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    mask = jnp.asarray(where)
    if mask.dtype != jnp.bool_ or common_shape(mask.shape, shape) != shape:
        raise StructureError(
            f"{name}: where has shape {mask.shape} and dtype {mask.dtype}; give bools that "
            f"broadcast to the labels' shape {shape}"
        )
    return jnp.broadcast_to(mask, shape)
