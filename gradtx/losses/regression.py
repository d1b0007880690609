"""Losses of regression: squared errors, Huber's loss, and log-cosh, entry by entry."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import DtypeError
from gradtx.definition.types import ArrayLike
from gradtx.losses.inputs import (
    check_equal_shapes,
    common_shape,
    float_array,
    number_like,
    promoted,
    real_array,
)
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import real_dtype


def squared_error(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """Squared error (the terms of the MSE): |p − t|² for every entry.

    The mean squared error is `squared_error(p, t).mean()`.

    When: errors are about normal, and large ones matter most. When not: data with outliers; take
    `huber_loss`.

    Args:
      predictions: p, real or complex floats of any shape.
      targets: t, of the same shape; None: zeros.

    Returns:
      The loss of every entry, real, with the shape of p. Float32 arithmetic at least.

    Raises:
      DtypeError: p are not floats.
      StructureError: the shapes differ.

    >>> from gradtx import losses
    >>> import jax, jax.numpy as jnp
    >>> loss = lambda p: losses.squared_error(p, jnp.array([1.0, 1.0])).mean()
    >>> jax.value_and_grad(loss)(jnp.array([1.0, 4.0]))[1].tolist()  # 2 (p - t) / 2
    [0.0, 3.0]

    See also: `l2_loss`, which is half of it.
    """
    errors, dtype = _errors("squared_error", predictions, targets)
    return abs_sq(errors).astype(dtype)


def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """L2 loss, half the squared error: ½ |p − t|² for every entry.

    Its derivative is p − t.

    When: as `squared_error`; the factor ½ makes the gradient the error itself. When not: a score
    to compare with others, most of which are mean squared errors.

    Args:
      predictions: p, real or complex floats of any shape.
      targets: t, of the same shape; None: zeros.

    Returns:
      The loss of every entry, real, with the shape of p. Float32 arithmetic at least.

    Raises:
      DtypeError: p are not floats.
      StructureError: the shapes differ.

    >>> from gradtx import losses
    >>> import jax, jax.numpy as jnp
    >>> jax.grad(lambda p: losses.l2_loss(p, 1.0))(4.0).item()
    3.0

    Bishop 2006, Pattern Recognition and Machine Learning, equation 3.26.
    """
    errors, dtype = _errors("l2_loss", predictions, targets)
    return (abs_sq(errors) / 2).astype(dtype)


def huber_loss(
    predictions: ArrayLike, targets: ArrayLike | None = None, *, delta: ArrayLike = 1.0
) -> jax.Array:
    """Huber loss (smooth L1): quadratic for small errors, linear for large ones.

    With e = |p − t| of every entry: e²/2 for e ≤ δ, else δ (e − δ/2). Its derivative is p − t,
    clipped to [−δ, δ].

    When: data with outliers, temporal-difference errors. When not: δ is far above all errors; it is
    then `l2_loss`.

    Args:
      predictions: p, real or complex floats of any shape.
      targets: t, which broadcast with p; None: zeros.
      delta: δ > 0, in the unit of the errors; one number, or an array that broadcasts.

    Returns:
      The loss of every entry, real. Float32 arithmetic at least.

    Raises:
      DtypeError: p are not floats.
      StructureError: the shapes do not broadcast.

    >>> from gradtx import losses
    >>> import jax, jax.numpy as jnp
    >>> loss = lambda p: losses.huber_loss(p, delta=1.0).sum()
    >>> jax.grad(loss)(jnp.array([0.5, -20.0])).tolist()
    [0.5, -1.0]

    Huber 1964, Annals of Mathematical Statistics 35(1), section 3.
    """
    errors, dtype = _broadcast_errors("huber_loss", predictions, targets)
    size = sqrt(abs_sq(errors)) if jnp.iscomplexobj(errors) else jnp.abs(errors)
    limit = number_like(delta, size)
    quadratic = jnp.minimum(size, limit)
    return (quadratic * quadratic / 2 + limit * (size - quadratic)).astype(dtype)


def log_cosh(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """Log-cosh loss: log(cosh(p − t)), a smooth form of the absolute error.

    It is about (p − t)²/2 for small errors, and |p − t| − log 2 for large ones. Its derivative is
    tanh(p − t). Both ends are computed to full precision, at any size.

    When: data with outliers, where a method needs second derivatives, which `huber_loss` lacks at
    δ. When not: errors need a unit: the bend is at about 1.

    Args:
      predictions: p, real floats of any shape.
      targets: t, which broadcast with p; None: zeros.

    Returns:
      The loss of every entry. Float32 arithmetic at least.

    Raises:
      DtypeError: p are not real floats.
      StructureError: the shapes do not broadcast.

    >>> from gradtx import losses
    >>> import jax, jax.numpy as jnp
    >>> [float(f"{x:.4g}") for x in losses.log_cosh(jnp.array([1e-4, 1.0, 1e4]))]
    [5e-09, 0.4338, 9999.0]

    Chen, Chen and Liu 2019, Log Hyperbolic Cosine Loss Improves Variational Auto-Encoder,
    section 3.
    """
    float_array("log_cosh", "predictions", predictions)
    if targets is not None:
        real_array("log_cosh", "targets", targets)
    errors, dtype = _broadcast_errors("log_cosh", predictions, targets)
    return _log_cosh(errors).astype(dtype)


@jax.custom_jvp
def _log_cosh(errors: jax.Array) -> jax.Array:
    size, square = jnp.abs(errors), errors * errors
    # For large errors |x| − log 2 + log(1 + exp(−2|x|)) does not overflow, but its terms cancel for
    # small ones: these take the series. Its next term is 1e-7 at 1/4, and below 1e-15 at 1/50.
    series = square / 2 * (1 - square / 6 * (1 - square * (4 / 15) * (1 - square * (17 / 56))))
    large = size - math.log(2) + jnp.log1p(jnp.exp(-2 * size))
    return jnp.where(size < (0.25 if errors.dtype == jnp.float32 else 0.02), series, large)


@_log_cosh.defjvp
def _log_cosh_jvp(
    arrays: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (errors,), (tangent,) = arrays, tangents
    return _log_cosh(errors), jnp.tanh(errors) * tangent


def _errors(
    function: str, predictions: ArrayLike, targets: ArrayLike | None
) -> tuple[jax.Array, np.dtype]:
    """p − t of equal shapes, and the real dtype of the loss."""
    if targets is not None:
        arrays = {"predictions": jnp.asarray(predictions), "targets": jnp.asarray(targets)}
        check_equal_shapes(function, **arrays)
    return _broadcast_errors(function, predictions, targets)


def _broadcast_errors(
    function: str, predictions: ArrayLike, targets: ArrayLike | None
) -> tuple[jax.Array, np.dtype]:
    """p − t of shapes that broadcast, and the real dtype of the loss."""
    predictions = jnp.asarray(predictions)
    if not jnp.issubdtype(predictions.dtype, jnp.inexact):
        raise DtypeError(
            f"{function}: predictions has dtype {predictions.dtype}, not floats; cast with "
            ".astype(jnp.float32)"
        )
    if targets is None:
        (errors,), dtype = promoted(predictions)
    else:
        common_shape(function, predictions=predictions, targets=jnp.asarray(targets))
        (left, right), dtype = promoted(predictions, targets)
        errors = left - right
    return errors, _real(dtype)


def _real(dtype: np.dtype) -> np.dtype:
    """The dtype of the absolute value of numbers of a dtype."""
    return real_dtype(dtype) if jnp.issubdtype(dtype, jnp.complexfloating) else dtype
