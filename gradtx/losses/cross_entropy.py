r"""Softmax cross-entropy: with soft labels, with class indices, with classes of probability 0.

    L = −Σ_k y_k log p_k,    p = softmax(z),    log p_k = (z_k − max z) − log Σ_j exp(z_j − max z)
    ∂L/∂z = (Σ_k y_k) p − y

z_k − max z comes first: of logits near 1e4, float32 holds their differences better than log Σ exp.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from gradtx.definition.errors import StructureError
from gradtx.losses.class_axes import (
    Axes,
    axes_of,
    class_mask,
    common_shape,
    count_from_zero,
    index_array,
    show_axes,
)
from gradtx.losses.inputs import float_array
from gradtx.losses.log_sum_exp import (
    accurate,
    find_peak,
    log_sum_exp,
    recompute,
    softmax,
    sum_over,
)
from gradtx.tree.casts import widest
from gradtx.tree.placement import run_auto_if


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _index_loss(
    logits: jax.Array, index: jax.Array, mask: jax.Array | None, axis: int
) -> jax.Array:
    """log Σ exp(z − peak) − (z_label − peak), in float32 at least."""
    peak = find_peak(logits, mask, (axis,))
    picked = run_auto_if(functools.partial(_pick, axis), index, logits, index)
    return log_sum_exp(logits, peak, mask, (axis,)) - (accurate(picked) - peak)


def _pick(axis: int, logits: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, index, axis, mode="fill", fill_value=jnp.nan)


@_index_loss.defjvp
def _index_loss_jvp(axis: int, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    logits, index, mask = primals
    peak = find_peak(logits, mask, (axis,))
    log_sum = log_sum_exp(logits, peak, mask, (axis,))
    loss = _index_loss(logits, index, mask, axis)
    return loss, _index_tangent(logits, index, mask, peak, log_sum, tangents[0], axis)


@functools.partial(recompute, static_argnums=(6,))
def _index_tangent(
    logits: jax.Array,
    index: jax.Array,
    mask: jax.Array | None,
    peak: jax.Array,
    log_sum: jax.Array,
    tangent: jax.Array,
    axis: int,
) -> jax.Array:
    """Σ (p − [k = label]) dz: one pass over the logits, and no scatter."""
    classes = jax.lax.broadcasted_iota(index.dtype, _one_axis(logits, axis), axis)
    # `softmax` is wide enough for the difference: in bfloat16, p − 1 would lose all digits.
    slope = softmax(logits, peak, log_sum, mask)
    # Arithmetic, not `where`, which with explicit axes wants its condition cut as the logits are.
    slope -= (classes == index).astype(slope.dtype)
    return sum_over(slope * accurate(tangent), (axis,))


def _one_axis(logits: jax.Array, axis: int) -> tuple[int, ...]:
    return tuple(size if one == axis else 1 for one, size in enumerate(logits.shape))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _label_loss(
    logits: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None,
    axes: tuple[int, ...],
    is_safe: bool,
) -> jax.Array:
    """−Σ y log p, in float32 at least; 0 log 0 = 0 if `is_safe`."""
    peak = find_peak(logits, mask, axes)
    log_sum = log_sum_exp(logits, peak, mask, axes)
    products = labels.astype(log_sum.dtype) * (accurate(logits) - peak - log_sum)
    return -sum_over(products, axes, labels != 0 if is_safe else mask)


def _label_loss_jvp(
    axes: tuple[int, ...], is_safe: bool, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    logits, labels, mask = primals
    peak = find_peak(logits, mask, axes)
    log_sum = log_sum_exp(logits, peak, mask, axes)
    loss = _label_loss(logits, labels, mask, axes, is_safe)
    tangent = jnp.zeros_like(loss)
    # Logits or labels that are data have no tangent, and their part would cost a pass.
    if not isinstance(tangents[0], SymbolicZero):
        tangent += _logit_tangent(logits, labels, mask, peak, log_sum, tangents[0], axes)
    if not isinstance(tangents[1], SymbolicZero):
        tangent += _label_tangent(logits, mask, peak, log_sum, tangents[1], axes)
    return loss, tangent


_label_loss.defjvp(_label_loss_jvp, symbolic_zeros=True)


@functools.partial(recompute, static_argnums=(6,))
def _logit_tangent(
    logits: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None,
    peak: jax.Array,
    log_sum: jax.Array,
    tangent: jax.Array,
    axes: tuple[int, ...],
) -> jax.Array:
    """Σ_k ((Σ_j y_j) p_k − y_k) dz_k."""
    weights = labels.astype(log_sum.dtype)
    weights = weights if mask is None else jnp.where(mask, weights, 0)
    slope = sum_over(weights, axes) * softmax(logits, peak, log_sum, mask) - weights
    return sum_over(slope * accurate(tangent), axes)


@functools.partial(recompute, static_argnums=(5,))
def _label_tangent(
    logits: jax.Array,
    mask: jax.Array | None,
    peak: jax.Array,
    log_sum: jax.Array,
    tangent: jax.Array,
    axes: tuple[int, ...],
) -> jax.Array:
    """−Σ log p dy; 0 where p = 0, so that the gradient stays finite where the loss is."""
    slope = accurate(logits) - peak - log_sum
    slope = jnp.where(jnp.isfinite(slope), slope, 0)
    return -sum_over(slope * tangent.astype(slope.dtype), axes, mask)


def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> jax.Array:
    """Softmax cross-entropy of each example with soft labels: L = −Σ_k y_k log softmax(z)_k.

    z, y: (..., K); L: (...). Low precision is computed in float32 and returned in the dtype of
    logits and labels together.

    When: labels are probabilities: smoothed, mixed, or of a teacher. When not: one class is right;
    `softmax_cross_entropy_with_integer_labels` does not need K labels per example. Where
    impossible classes have the logit −∞, 0 · ∞ makes the loss nan; take
    `safe_softmax_cross_entropy`.

    Args:
      logits: z, floats of any size: ±1e4 keeps full accuracy.
      labels: y ≥ 0, broadcast against the logits; they usually sum to 1, and need not.
      axis: the axis of the classes, several axes, or None for all.
      where: the entries that take part, shaped like the logits, or without `axis` for whole
        examples. A masked entry may hold nan; an example without any has loss 0.

    Returns:
      The loss of each example: the shape of the logits without `axis`.

    Raises:
      StructureError: shapes do not match, or `axis` does not exist.
      DtypeError: logits are not real floats, or `where` is not of bools.

    >>> import jax.numpy as jnp
    >>> from gradtx.losses.cross_entropy import softmax_cross_entropy
    >>> z = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    >>> y = jnp.array([0.0, 0.5, 0.5])
    >>> float(softmax_cross_entropy(z, y) / jnp.log(2.0))  # 2 bits
    2.0

    See also: `safe_softmax_cross_entropy`, `softmax_cross_entropy_with_integer_labels`.

    Bishop 2006, Pattern Recognition and Machine Learning, equation 4.108.
    """
    name = "softmax_cross_entropy"
    z, y, axes = _label_arguments(name, logits, labels, axis)
    mask = class_mask(name, where, z.shape, axes)
    return _label_program(z, y, mask, axes, False)


def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Softmax cross-entropy with 0 · log 0 = 0, for labels of probability 0 at logits of −∞.

    L = −Σ_{k: y_k ≠ 0} y_k log softmax(z)_k, with z, y: (..., K) and L: (...).

    When: impossible classes have the logit −∞, as illegal moves do. When not: all logits are
    finite; `softmax_cross_entropy` then computes the same, with `axis` and `where`.

    Args:
      logits: z, floats, −∞ allowed.
      labels: y ≥ 0, broadcast against the logits.

    Returns:
      The loss of each example. It is ∞ where a class with y > 0 is impossible.

    Raises:
      StructureError: shapes do not match.
      DtypeError: logits are not real floats.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.losses.cross_entropy import safe_softmax_cross_entropy
    >>> z, y = jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([1.0, 0.0, 0.0])
    >>> jax.grad(safe_softmax_cross_entropy)(z, y).tolist()
    [-0.5, 0.5, 0.0]

    See also: `softmax_cross_entropy`.
    """
    z, y, axes = _label_arguments("safe_softmax_cross_entropy", logits, labels, -1)
    return _label_program(z, y, None, axes, True)


def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int | tuple[int, ...] = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Softmax cross-entropy of each example with one class index: L = log Σ_k exp z_k − z_label.

    z: (..., K); labels, L: (...). Low precision is computed in float32 and returned in the dtype of
    the logits. The gradient, softmax(z) − e_label, is one pass over the logits and stores nothing
    of their size beside itself.

    When: classification and language models. When not: labels are probabilities (take
    `softmax_cross_entropy`), or the logits of all tokens do not fit into memory (take
    `chunked_softmax_cross_entropy`).

    Args:
      logits: z, floats of any size: ±1e4 keeps full accuracy.
      labels: integers in [0, K). Negative ones count from the end, as in NumPy: −100 is not
        ignored; mask it with `where`. Beyond that the loss is nan.
      axis: the axis of the classes; of several axes, labels index the entries in their order.
      where: bools. Shaped like the logits without `axis`: examples, of which the masked ones have
        loss 0. Shaped like the logits: the classes that the sum counts. Masked entries may hold
        nan.

    Returns:
      The loss of each example: the shape of the labels.

    Raises:
      StructureError: shapes do not match, or `axis` does not exist.
      DtypeError: labels are not integers, logits are not real floats, or `where` is not of bools.

    >>> import jax.numpy as jnp
    >>> from gradtx.losses.cross_entropy import softmax_cross_entropy_with_integer_labels as loss
    >>> z, labels = jnp.array([[0.0, 0.0], [2e4, -2e4], [jnp.nan, 0.0]]), jnp.array([1, 1, -100])
    >>> loss(z, labels, where=labels != -100).tolist()  # log 2, a gap of 4e4, ignored
    [0.6931471824645996, 40000.0, 0.0]

    See also: `chunked_softmax_cross_entropy`, `softmax_cross_entropy`.

    Bishop 2006, Pattern Recognition and Machine Learning, equation 4.108, for y = e_label.
    """
    name = "softmax_cross_entropy_with_integer_labels"
    z, index = float_array(name, "logits", logits), index_array(name, labels)
    axes = axes_of(name, z.shape, axis)
    mask = class_mask(name, where, z.shape, axes)
    if len(axes) != 1:
        z, mask, axes = _one_class_axis(z, mask, axes)
    _check_labels(name, z.shape, index.shape, axes[0], axis)
    return _index_program(z, index, mask, axes[0])


# One program each, also where the caller does not jit.
@functools.partial(jax.jit, static_argnums=(3, 4))
def _label_program(
    logits: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None,
    axes: tuple[int, ...],
    is_safe: bool,
) -> jax.Array:
    loss = _label_loss(logits, labels, mask, axes, is_safe)
    loss = loss.astype(widest(logits.dtype, labels.dtype))
    return jnp.squeeze(_zero_where_empty(loss, mask, axes), axes)


@functools.partial(jax.jit, static_argnums=3)
def _index_program(
    logits: jax.Array, index: jax.Array, mask: jax.Array | None, axis: int
) -> jax.Array:
    index = jnp.expand_dims(count_from_zero(index, logits.shape[axis]), axis)
    loss = _index_loss(logits, index, mask, axis).astype(logits.dtype)
    return jnp.squeeze(_zero_where_empty(loss, mask, (axis,)), axis)


def _zero_where_empty(loss: jax.Array, mask: jax.Array | None, axes: tuple[int, ...]) -> jax.Array:
    """0 for an example whose mask is False everywhere."""
    return loss if mask is None else jnp.where(jnp.any(mask, axes, keepdims=True), loss, 0)


def _label_arguments(
    name: str, logits: ArrayLike, labels: ArrayLike, axis: Axes
) -> tuple[jax.Array, jax.Array, tuple[int, ...]]:
    """Logits and float labels of one shape, and the axes of the classes."""
    z, y = float_array(name, "logits", logits), jnp.asarray(labels)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        y = y.astype(z.dtype)
    axes = axes_of(name, z.shape, axis)
    shape = common_shape(z.shape, y.shape)
    if shape is None or any(shape[one - z.ndim] != z.shape[one] for one in axes):
        raise StructureError(
            f"{name}: labels have shape {y.shape} and logits {z.shape}, which differ; give one "
            f"label per class along axis {show_axes(axes)}"
        )
    axes = tuple(one + len(shape) - z.ndim for one in axes)
    return jnp.broadcast_to(z, shape), jnp.broadcast_to(y, shape), axes


def _one_class_axis(
    logits: jax.Array, mask: jax.Array | None, axes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array | None, tuple[int, ...]]:
    """The axes of the classes as one, the last."""

    def join(array: jax.Array) -> jax.Array:
        moved = jnp.moveaxis(array, axes, range(-len(axes), 0))
        return moved.reshape((*moved.shape[: array.ndim - len(axes)], -1))

    if mask is not None and any(mask.shape[one] > 1 for one in axes):
        mask = jnp.broadcast_to(mask, logits.shape)
    mask = None if mask is None else join(mask)
    return join(logits), mask, (logits.ndim - len(axes),)


def _check_labels(
    name: str, logits: tuple[int, ...], labels: tuple[int, ...], place: int, axis: Axes
) -> None:
    examples = (*logits[:place], *logits[place + 1 :])
    if len(labels) != len(examples) or common_shape(labels, examples) is None:
        raise StructureError(
            f"{name}: labels have shape {labels}; logits of shape {logits} with classes along axis "
            f"{axis} need {examples}"
        )
