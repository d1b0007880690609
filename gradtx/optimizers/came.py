r"""CAME: Adafactor with momentum; steps shrink where the momentum does not confirm them.

    r, c ← averages (β2) of the column and row means of g² + ε1
    u = g / √(r ⊗ c / mean(r)),   u ← u / max(1, rms(u) / d)
    m ← β1 m + (1 − β1) u
    R, C ← averages (β3) of the column and row means of (u − m)² + ε2
    θ ← θ − η m / √(R ⊗ C / mean(R))

An array that is not factored stores v, the average of g² + ε1 per entry, and steps by m.
"""

from typing import Annotated, NamedTuple, Unpack

import jax

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import SQUARES, Decay, Hyperparam, NonNegative, Positive
from gradtx.transforms import factoring
from gradtx.transforms.clipping import shrink
from gradtx.transforms.factoring import (
    Factored,
    average_factored,
    bounded_square,
    divide_by_factored_root,
)
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import average, mean_of
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, root_mean_square
from gradtx.tree.casts import zeros


class Confidence(NamedTuple):
    """Averages of directions, of squared gradients, and of squared distances of the two.

    An array that is factored has None for nu, others for all rows and columns.
    """

    mu: jax.Array
    nu_row: jax.Array | None
    nu_col: jax.Array | None
    nu: Annotated[jax.Array | None, SQUARES]
    distance_row: jax.Array | None
    distance_col: jax.Array | None


def _init(param, *, min_dim_size_to_factor: int) -> Confidence:
    axes = factoring.factored_axes(param.shape, min_dim_size_to_factor)
    squares, distances = (factoring.init_factored(param, axes) for _ in range(2))
    return Confidence(zeros(param), *squares, distances.nu_row, distances.nu_col)


def _came(
    grad,
    slots: Confidence,
    param,
    step,
    *,
    b1,
    b2,
    b3,
    eps,
    eps_distance,
    clipping_threshold,
    min_dim_size_to_factor: int,
):
    axes = factoring.factored_axes(grad.shape, min_dim_size_to_factor)
    squares = Factored(slots.nu_row, slots.nu_col, slots.nu)
    squares = average_factored(squares, bounded_square(grad) + eps, b2, axes)
    direction = divide_by_factored_root(grad, squares, axes)
    direction = shrink(root_mean_square(direction), clipping_threshold) * direction
    mu = average(slots.mu, direction, b1)
    mean = mean_of(mu)
    if axes is None:  # a confidence per entry would cost a third array
        return mean, Confidence(mu, *squares, None, None)
    distances = Factored(slots.distance_row, slots.distance_col, None)
    # The distance is from the new average, as in the paper.
    distances = average_factored(distances, abs_sq(direction - mean) + eps_distance, b3, axes)
    update = divide_by_factored_root(mean, distances, axes)
    return update, Confidence(mu, *squares, distances.nu_row, distances.nu_col)


@definition
def scale_by_came(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    eps: NonNegative = 1e-30,
    eps_distance: NonNegative = 1e-16,
    clipping_threshold: Positive = 1.0,
    min_dim_size_to_factor: int = 1,
    *,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """CAME's direction: u = m / √(R ⊗ C / mean(R)).

    m is an average of Adafactor's directions. R and C are averages of their squared distances from
    m.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r and c.
      b3: β3 in [0, 1), decay of R and C.
      eps: ε1 ≥ 0, added to g².
      eps_distance: ε2 ≥ 0, added to the squared distance of direction and m.
      clipping_threshold: d > 0, the largest root mean square of a direction.
      min_dim_size_to_factor: the least length of the second longest axis of a factored array; 1
        factors every matrix.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 4 bytes per parameter, and 8 per row and per column; 8 bytes per parameter where the
    array is not factored.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w, tx = jnp.zeros((512, 256)), gradtx.scale_by_came()
    >>> sum(leaf.size for leaf in jax.tree.leaves(tx.init(w).slots)) - w.size
    1536

    Luo et al. 2023, arXiv 2307.02047, Algorithm 2.
    """
    return momentwise(_init, _came, momentum)


@definition
def came(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    eps: NonNegative = 1e-30,
    eps_distance: NonNegative = 1e-16,
    clipping_threshold: Positive = 1.0,
    min_dim_size_to_factor: int = 1,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""CAME: Adafactor with momentum and confidence-guided steps.

    The root mean square distance of directions from their average divides a step.

    For a matrix g (n, k): u as in `adafactor` with a constant β2, m ← β1 m + (1 − β1) u, R (n) and
    C (k) averages of the means of (u − m)² + ε2, θ ← θ − η m / √(R ⊗ C / mean(R)).

    When: for language models in little memory, as stable as `adam`. When not: for vectors and small
    matrices, where CAME saves nothing; without memory for m take `adafactor`.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 6e-4, below AdamW's.
      b1: β1 in [0, 1), decay of m; 0.9.
      b2: β2 in [0, 1), decay of r and c; 0.999.
      b3: β3 in [0, 1), decay of R and C; 0.9999.
      eps: ε1 ≥ 0, added to g²; 1e-30.
      eps_distance: ε2 ≥ 0, added to the squared distance; 1e-16.
      clipping_threshold: d > 0, the largest root mean square of a direction; 1.0.
      min_dim_size_to_factor: the least length of the second longest axis of a factored array; 1
        factors every matrix.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `weight_decay`, `mask`, `decay_form`, `huber_delta`, `cautious`,
        `peak_learning_rate` and `axis_names`; see `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 4 bytes per parameter (m), and 8 per row and per column; 8 bytes per parameter for
    vectors (m and v).

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.zeros((2, 2)), gradtx.came(0.1)
    >>> small, _ = tx.update(jnp.full((2, 2), 1e-6), tx.init(w))
    >>> large, _ = tx.update(jnp.full((2, 2), 1e6), tx.init(w))
    >>> bool(jnp.allclose(small, large))  # the scale of the gradient does not matter
    True

    See also: `adafactor`, `scale_by_came`.

    Luo et al. 2023, arXiv 2307.02047, Algorithm 2.
    """
    rule = scale_by_came(
        b1, b2, b3, eps, eps_distance, clipping_threshold, min_dim_size_to_factor, momentum=momentum
    )
    return descend(rule, learning_rate, **flags)
