r"""CAME: Adafactor with momentum, where steps shrink that the momentum does not confirm.

    r, c ← averages (β2) of the column and row means of g² + ε1
    u = g / √(r ⊗ c / mean(r)),   u ← u / max(1, rms(u) / d)
    m ← β1 m + (1 − β1) u
    R, C ← averages (β3) of the column and row means of (u − m)² + ε2
    θ ← θ − η m / √(R ⊗ C / mean(R))

An array that is not factored keeps v, the average of g² + ε1 entry by entry, and steps by m.
"""

from typing import Annotated, Any, NamedTuple, Unpack

import jax

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import SQUARES, Decay, NonNegative, Positive
from gradtx.transforms.clipping import shrink
from gradtx.transforms.factoring import (
    Factored,
    average_factored,
    divide_by_factored_root,
    factored_axes,
    init_factored,
)
from gradtx.transforms.moments import average
from gradtx.tree.arithmetic import abs_sq, root_mean_square
from gradtx.tree.casts import zeros


class Confidence(NamedTuple):
    """Averages of directions (mu), of squared gradients (nu) and of squared distances of the two,
    by rows and columns where factored.
    """

    mu: jax.Array
    nu_row: Any
    nu_col: Any
    nu: Annotated[Any, SQUARES]
    distance_row: Any
    distance_col: Any


def _init(param: jax.Array, *, min_dim_size_to_factor: int) -> Confidence:
    axes = factored_axes(param.shape, min_dim_size_to_factor)
    squares, distances = init_factored(param, axes), init_factored(param, axes)
    return Confidence(zeros(param), *squares, distances.nu_row, distances.nu_col)


def _update(
    grad: jax.Array,
    slots: Confidence,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    b3: jax.Array,
    eps: jax.Array,
    eps_distance: jax.Array,
    clipping_threshold: jax.Array,
    min_dim_size_to_factor: int,
) -> Any:
    axes = factored_axes(grad.shape, min_dim_size_to_factor)
    squares = average_factored(
        Factored(slots.nu_row, slots.nu_col, slots.nu), abs_sq(grad) + eps, b2, axes
    )
    direction = divide_by_factored_root(grad, squares, axes)
    direction = shrink(root_mean_square(direction), clipping_threshold) * direction
    mu = average(slots.mu, direction, b1)
    if axes is None:
        return mu, Confidence(mu, *squares, None, None)
    square_distance = abs_sq(direction - mu) + eps_distance
    distances = average_factored(
        Factored(slots.distance_row, slots.distance_col, None), square_distance, b3, axes
    )
    return divide_by_factored_root(mu, distances, axes), Confidence(
        mu, *squares, distances.nu_row, distances.nu_col
    )


@definition
def scale_by_came(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    eps: NonNegative = 1e-30,
    eps_distance: NonNegative = 1e-16,
    clipping_threshold: Positive = 1.0,
    min_dim_size_to_factor: int = 1,
) -> GradientTransformation:
    """CAME's direction: u = m / √(R ⊗ C / mean(R)), m an average of Adafactor's directions, R and C
    averages of its squared distances.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r and c.
      b3: β3 in [0, 1), decay of R and C.
      eps: ε1 ≥ 0, added to g².
      eps_distance: ε2 ≥ 0, added to the squared distance of direction and m.
      clipping_threshold: d > 0, bound of the root mean square of a direction.
      min_dim_size_to_factor: length that the second longest axis must have, or the array is not
        factored; 1: every matrix is.

    Raises:
      HyperparamError: a number out of its range.

    State: 4 bytes per parameter, and 8 per row and per column; 8 bytes per parameter where the
    array is not factored.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w, tx = jnp.zeros((512, 256)), gradtx.scale_by_came()
    >>> sum(kept.size for kept in jax.tree.leaves(tx.init(w).slots)) - w.size
    1536

    Luo et al. 2023, arXiv 2307.02047, Algorithm 2.
    """
    return leafwise(
        _init,
        _update,
        b1=b1,
        b2=b2,
        b3=b3,
        eps=eps,
        eps_distance=eps_distance,
        clipping_threshold=clipping_threshold,
        min_dim_size_to_factor=min_dim_size_to_factor,
    )


@definition
def came(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    eps: NonNegative = 1e-30,
    eps_distance: NonNegative = 1e-16,
    clipping_threshold: Positive = 1.0,
    min_dim_size_to_factor: int = 1,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""Adafactor with momentum and with confidence: a step is divided by how far directions stray
    from their average.

    For a matrix g (n, k): u as in `adafactor` with a constant β2, m ← β1 m + (1 − β1) u,
    R (n) and C (k) averages of the means of (u − m)² + ε2, θ ← θ − η m / √(R ⊗ C / mean(R)).

    When: language models in little memory, as stable as `adam`. When not: mostly vectors and small
    matrices, where nothing is saved; no memory for m, take `adafactor`.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-4 to 6e-4, below AdamW's.
      b1: β1 in [0, 1), decay of m; 0.9.
      b2: β2 in [0, 1), decay of r and c; 0.999.
      b3: β3 in [0, 1), decay of R and C; 0.9999.
      eps: ε1 ≥ 0, added to g²; 1e-30.
      eps_distance: ε2 ≥ 0, added to the squared distance; 1e-16.
      clipping_threshold: d > 0, bound of the root mean square of a direction; 1.0.
      min_dim_size_to_factor: length that the second longest axis must have, or the array is not
        factored; 1: every matrix is.
      **flags: `weight_decay`, `mask`, `decay_form`, `cautious` and `peak_learning_rate`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 4 bytes per parameter (m), and 8 per row and per column; 8 bytes per parameter for
    vectors (m and v).

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.zeros((2, 2)), gradtx.came(0.1)
    >>> small, _ = tx.update(jnp.full((2, 2), 1e-6), tx.init(w))
    >>> large, _ = tx.update(jnp.full((2, 2), 1e6), tx.init(w))  # the scale of the gradient does not matter
    >>> bool(jnp.allclose(small, large))
    True

    See also: `adafactor`, `scale_by_came`.

    Luo et al. 2023, arXiv 2307.02047, Algorithm 2.
    """
    rule = scale_by_came(b1, b2, b3, eps, eps_distance, clipping_threshold, min_dim_size_to_factor)
    return descend(rule, learning_rate, **flags)
