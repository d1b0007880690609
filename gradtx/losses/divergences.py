"""Kullback-Leibler divergences of distributions."""

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.definition.types import ArrayLike
from gradtx.losses.arithmetic import select
from gradtx.losses.inputs import Axis, axes_of, common_shape, float_array, mask_of, promoted


def kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Kullback-Leibler (KL) divergence KL(t ‖ q) of targets t from predictions q.

    KL = Σ t (log t − log q) along `axis`. A target of 0 adds 0, and its own gradient is 0.

    When: distillation, matching of distributions. When not: hard labels; cross entropy has the same
    gradient, and needs no logarithm of t.

    Args:
      log_predictions: log q, real floats, from `jax.nn.log_softmax` for example.
      targets: t ≥ 0, real floats that sum to 1 along `axis`; broadcast with log q.
      axis: axis or axes of the distribution; None: all.
      where: bools, which entries count; broadcasts to the entries. Others may be nan.

    Returns:
      One divergence per distribution: the common shape without `axis`. Sums run in float32 at
      least.

    Raises:
      DtypeError: arrays are not real floats, or `where` is not bools.
      StructureError: the shapes do not broadcast.
      HyperparamError: `axis` is not an axis.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> log_q = jnp.log(jnp.array([0.5, 0.5]))
    >>> losses.kl_divergence(log_q, jnp.array([1.0, 0.0])).item() == jnp.log(2.0).item()
    True

    Kullback and Leibler 1951, Annals of Mathematical Statistics 22(1), equation 2.4.
    """
    return _sum(
        "kl_divergence", _relative_entropy, {"targets": targets}, log_predictions, axis, where
    )


def kl_divergence_with_log_targets(
    log_predictions: ArrayLike,
    log_targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Kullback-Leibler (KL) divergence, where the targets are logarithms as well.

    KL = Σ exp(l) (l − log q) along `axis`, with l = log t. A target of probability 0, l = −∞,
    adds 0 where log q is finite.

    When: a teacher's log-probabilities are at hand. When not: targets may be negative or are
    probabilities; take `kl_divergence`.

    Args:
      log_predictions: log q, real floats, from `jax.nn.log_softmax` for example.
      log_targets: l, real floats; broadcast with log q.
      axis: axis or axes of the distribution; None: all.
      where: bools, which entries count; broadcasts to the entries. Others may be nan.

    Returns:
      One divergence per distribution: the common shape without `axis`. Sums run in float32 at
      least.

    Raises:
      DtypeError: arrays are not real floats, or `where` is not bools.
      StructureError: the shapes do not broadcast.
      HyperparamError: `axis` is not an axis.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> log_q, log_t = jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, -jnp.inf])
    >>> round(losses.kl_divergence_with_log_targets(log_q, log_t).item(), 4)  # log 2
    0.6931

    Kullback and Leibler 1951, Annals of Mathematical Statistics 22(1), equation 2.4.
    """
    return _sum(
        "kl_divergence_with_log_targets",
        _relative_entropy_of_logs,
        {"log_targets": log_targets},
        log_predictions,
        axis,
        where,
    )


def generalized_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Generalized KL divergence (I-divergence), for positive numbers that need not sum to 1.

    D = Σ t (log t − log q) − t + q along `axis`: the Bregman divergence of x log x − x. It is ≥ 0,
    convex in q, and equals `kl_divergence` where both sum to 1.

    When: counts, unnormalised intensities, matrix factorisation. When not: log-probabilities; the
    last two terms cancel, `kl_divergence` is cheaper.

    Args:
      log_predictions: log q, real floats.
      targets: t ≥ 0, real floats; broadcast with log q.
      axis: axis or axes to sum over; None: all.
      where: bools, which entries count; broadcasts to the entries. Others may be nan.

    Returns:
      One divergence per vector: the common shape without `axis`. Sums run in float32 at least.

    Raises:
      DtypeError: arrays are not real floats, or `where` is not bools.
      StructureError: the shapes do not broadcast.
      HyperparamError: `axis` is not an axis.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> log_q = jnp.array([0.0, 0.0])  # q = 1, 1
    >>> losses.generalized_kl_divergence(log_q, jnp.array([1.0, 0.0])).item()  # 0, and q - t = 1
    1.0

    Bregman 1967, USSR Computational Mathematics 7(3); Boyd and Vandenberghe 2004, Convex
    Optimization, page 90.
    """
    return _sum(
        "generalized_kl_divergence",
        _generalized_relative_entropy,
        {"targets": targets},
        log_predictions,
        axis,
        where,
    )


def convex_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Generalized KL divergence under its old name, for scripts that use it.

    When: an old script. When not: a new one; take `generalized_kl_divergence`, which it calls.

    Args:
      log_predictions: log q, real floats.
      targets: t ≥ 0, real floats; broadcast with log q.
      axis: axis or axes to sum over; None: all.
      where: bools, which entries count; broadcasts to the entries. Others may be nan.

    Returns:
      One divergence per vector: the common shape without `axis`.

    Raises:
      DtypeError, StructureError, HyperparamError: as `generalized_kl_divergence`.

    >>> from gradtx import losses
    >>> import warnings
    >>> import jax.numpy as jnp
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     losses.convex_kl_divergence(jnp.zeros(2), jnp.ones(2)).item()
    0.0
    >>> print(caught[0].message)
    convex_kl_divergence is an old name; use generalized_kl_divergence
    """
    warnings.warn(
        "convex_kl_divergence is an old name; use generalized_kl_divergence",
        DeprecationWarning,
        stacklevel=2,
    )
    return generalized_kl_divergence(log_predictions, targets, axis, where)


def _sum(
    function: str,
    entry: Callable[[jax.Array, jax.Array], jax.Array],
    targets: dict[str, ArrayLike],
    log_predictions: ArrayLike,
    axis: Axis,
    where: ArrayLike | None,
) -> jax.Array:
    """The sum of one function of two arrays, over the entries that count."""
    named = {"log_predictions": log_predictions, **targets}
    named = {name: float_array(function, name, array) for name, array in named.items()}
    shape = common_shape(function, **named)
    axes, mask = axes_of(function, axis, shape), mask_of(function, where, shape)
    arrays, dtype = promoted(*named.values())
    terms = entry(*(select(mask, array) for array in arrays))
    return jnp.sum(terms, axis=axes, where=mask).astype(dtype)


def _relative_entropy(log_predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """t (log t − log q), and 0 at t = 0 whatever q is."""
    is_zero = targets == 0
    gap = jnp.log(jnp.where(is_zero, 1, targets)) - log_predictions
    # One `where` around the gap: with one for each term, XLA:CPU stores the terms.
    return targets * jnp.where(is_zero, 0, gap)


def _relative_entropy_of_logs(log_predictions: jax.Array, log_targets: jax.Array) -> jax.Array:
    """exp(l) (l − log q), and 0 at l = −∞."""
    # A floor in place of a `where`, which XLA:CPU does not fuse with the sum.
    lowest = jnp.finfo(log_targets.dtype).min
    return jnp.exp(log_targets) * (jnp.maximum(log_targets, lowest) - log_predictions)


def _generalized_relative_entropy(log_predictions: jax.Array, targets: jax.Array) -> jax.Array:
    return _relative_entropy(log_predictions, targets) - targets + jnp.exp(log_predictions)
