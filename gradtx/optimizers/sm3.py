r"""SM3: AdaGrad with one accumulator per row, per column, and so on, in place of one per entry.

v = β2 min over axes(μ) + (1 − β2) g²        (+ g² for β2 = 1)
μ of an axis ← max of v over the other axes
m ← β1 m + (1 − β1) g / √(v + ε)
θ ← θ − η m
"""

import functools
import itertools
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Fraction, Hyperparam, NonNegative
from gradtx.transforms.moments import average, divide_by_root
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_dtype, zeros, zeros_along


class Covers(NamedTuple):
    """An average of directions (mu), and the accumulators of all axes in one vector (nu)."""

    mu: jax.Array
    nu: jax.Array


def _lengths(array) -> tuple[int, ...]:
    return array.shape or (1,)  # a scalar has one accumulator


def _init(param) -> Covers:
    # Accumulators of several axes lie behind each other, and follow none of them.
    axis = 0 if len(param.shape) == 1 else None
    covers = zeros_along(param, (sum(_lengths(param)),), real_dtype(param.dtype), [axis])
    return Covers(zeros(param), covers)


def _minimum(nu, shape):
    """For every entry, find the least of the accumulators that cover it."""
    parts = jnp.split(nu, list(itertools.accumulate(shape))[:-1])
    others = [[other for other in range(len(shape)) if other != axis] for axis in range(len(shape))]
    placed = map(jnp.expand_dims, parts, others)
    return jnp.broadcast_to(functools.reduce(jnp.minimum, placed), shape)


def _maximum(values):
    """For every axis, find the largest value that each accumulator covers; join all axes."""
    axes = range(values.ndim)
    others = [[other for other in axes if other != axis] for axis in axes]
    return jnp.concatenate([jnp.max(values, axis=over, initial=0.0) for over in others])


def _sm3(grad, slots: Covers, param, step, *, b1, b2, eps):
    shape = _lengths(grad)
    before = _minimum(slots.nu, shape)
    # β2 = 1 is AdaGrad's sum, which adds g² whole.
    square = b2 * before + jnp.where(b2 < 1, 1 - b2, 1.0) * abs_sq(grad).reshape(shape)
    mu = average(slots.mu, divide_by_root(grad, square.reshape(grad.shape), eps, True), b1)
    # inf and nan must not reach all that an axis covers.
    covered = jnp.where(jnp.isfinite(square), square, before)
    return mu, Covers(mu, _maximum(covered))


@definition
def scale_by_sm3(
    b1: Decay = 0.9, b2: Fraction = 1.0, eps: NonNegative = 1e-8
) -> GradientTransformation:
    """SM3's direction: an average of g / √(v + ε).

    v is g² plus the least accumulator that covers the entry.

    Args:
      b1: β1 in [0, 1), decay of the average of directions.
      b2: β2 in [0, 1]; below 1 the accumulators are averages, and forget.
      eps: ε ≥ 0, inside the root.

    Raises:
      HyperparamError: a number is out of its range.

    State: 4 bytes per parameter (the average), and 4 per row, per column, and so on; 8 for a
    vector.

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.zeros((100, 200)), gradtx.scale_by_sm3()
    >>> tx.init(w).slots["scale_by_sm3"].nu.size
    300

    Anil, Gupta, Koren and Singer 2019, arXiv 1901.11150, Algorithm SM3-II.
    """
    return leafwise(_init, _sm3)


@definition
def sm3(
    learning_rate: Hyperparam, momentum: Decay = 0.9, **flags: Unpack[AxisFlags]
) -> GradientTransformation:
    r"""SM3: memory-efficient AdaGrad with accumulators per row and per column.

    For a matrix g (n, k) with row and column accumulators a (n) and b (k): v_ij = min(a_i, b_j) +
    g_ij², m ← β m + (1 − β) g / √v, θ ← θ − η m, a_i ← max_j v_ij, b_j ← max_i v_ij. Arrays with
    more axes have accumulators per axis.

    When: for large embeddings and sparse gradients, where AdaGrad works but does not fit in memory.
    When not: for long runs on dense gradients; the sums grow until the parameters hardly move; take
    `adafactor`.

    Args:
      learning_rate: η, parameter units; 0.01 to 0.5, after a warmup.
      momentum: β in [0, 1), decay of m; typically 0.9.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number is out of its range.

    State: 4 bytes per parameter (m), and 4 per row, per column, and so on; 8 for a vector.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.sm3(0.1, momentum=0.0)
    >>> _, state = tx.update(jnp.array([[3.0, 0.0], [0.0, 0.0]]), tx.init(jnp.zeros((2, 2))))
    >>> u, _ = tx.update(jnp.array([[4.0, 1.0], [1.0, 1.0]]), state)
    >>> [[round(x, 4) for x in row] for row in u.tolist()]  # only the first entry has a past
    [[-0.08, -0.1], [-0.1, -0.1]]

    See also: `adagrad`, `adafactor`, `scale_by_sm3`.

    Anil, Gupta, Koren and Singer 2019, arXiv 1901.11150, Algorithm SM3-II.
    """
    return apply_axis_flags(descend(scale_by_sm3(momentum), learning_rate), flags)
