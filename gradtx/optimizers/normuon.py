r"""NorMuon: Muon with one second moment per output, so that all outputs learn at one pace.

O = U Vᵀ of Muon's momentum                      (n × m, m outputs)
v ← β2 v + (1 − β2) mean of O² over inputs        (m)
O' = O / (√v + 1e-10),   θ ← θ − η (s O' ‖O‖ / ‖O'‖ + λ θ)
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative, Squares
from gradtx.engine.selector import Where
from gradtx.optimizers.adamw import adamw
from gradtx.transforms.flags import (
    MatrixFlags,
    PolarAdamFlags,
    PolarFlags,
    RoleFlags,
    adam_arguments,
    select_flags,
)
from gradtx.transforms.moments import average
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.transforms.orthogonal import (
    Coefficients,
    Polar,
    Scaling,
    average_gradients,
    check_scaling,
    polar_arguments,
    polar_factor,
    shape_factor,
)
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import real_zeros_along
from gradtx.wrappers.by_role import by_role


class OutputMoment(NamedTuple):
    """An average of the mean squares of the orthogonal direction, one for every output."""

    nu: Squares


def _init(param) -> OutputMoment:
    *batch, _, outputs = range(param.ndim)
    return OutputMoment(real_zeros_along(param, (*batch, outputs)))


def _normuon(
    grad,
    slots: OutputMoment,
    param,
    step,
    *,
    eps,
    b2,
    scaling: Scaling,
    polar: Polar,
    spectrum_numbers: jax.Array | None = None,
):
    factor = polar_factor(grad, eps, polar, spectrum_numbers)
    # The mean over no inputs would be nan, which the average would keep.
    square = jnp.mean(abs_sq(factor), axis=-2) if grad.size else slots.nu
    nu = average(slots.nu, square, b2)
    # 1e-10: an output without any gradient so far has v = 0.
    even = factor / (sqrt(nu) + 1e-10)[..., None, :]
    length, even_length = (
        sqrt(jnp.sum(abs_sq(x), axis=(-2, -1), keepdims=True)) for x in (factor, even)
    )
    # A zero direction stays zero. The inner `where` keeps nan out of the derivative.
    is_zero = even_length == 0
    ratio = jnp.where(is_zero, 0.0, length / jnp.where(is_zero, 1.0, even_length))
    return shape_factor(scaling, grad.shape) * even * ratio, OutputMoment(nu)


@definition
def scale_by_normuon(
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    scaling: Scaling = "none",
    momentum: MomentumKernel | None = None,
    **flags: Unpack[PolarFlags],
) -> GradientTransformation:
    r"""NorMuon's direction: Muon's O with its outputs brought to one size.

    Each output is divided by the root of its average mean square; the whole keeps the length of O.

    Args:
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: the number of polynomials; None: that of the preset.
      beta: β in [0, 1), decay of the momentum.
      b2: β2 in [0, 1), decay of the mean squares of outputs.
      eps: ε ≥ 0, keeps matrices near zero small.
      mu_dtype: dtype of the momentum; None: the parameter's, float32 at least.
      nesterov: False for the average of this step.
      scaling: s, as in `muon`.
      compute_dtype: dtype of the products; None: the gradient's, float32 at least.
      spectrum: a function of singular values in the place of the polar factor, `soft_polar(0.2)`
        or `spectral_power(0.25)` for example; None: `polar()`.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number out of its range, an unknown preset or scaling.
      StructureError: an array of fewer than two axes.

    State: 4 bytes per parameter (m), and 4 per output (v).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_normuon("svd")
    >>> w = jnp.array([[1.0, 0.0, 0.0], [0.0, 3.0, 4.0]])
    >>> u, _ = tx.update(w, tx.init(w))  # Muon's second row is 0.6, 0.8; here outputs are equal
    >>> [[round(x, 2) for x in row] for row in u.tolist()]
    [[0.82, 0.0, 0.0], [0.0, 0.82, 0.82]]

    See also: `normuon`, `scale_by_muon`.
    """
    check_scaling("scale_by_normuon", scaling)
    even = matrixwise(
        _init,
        _normuon,
        **polar_arguments("scale_by_normuon", ns_coeffs, ns_steps, flags),
        **select_flags(MatrixFlags, flags),
    )
    return chain(averaged=average_gradients(momentum), by_output=even)


@definition
def normuon(
    learning_rate: Hyperparam,
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    scaling: Scaling = "original",
    momentum: MomentumKernel | None = None,
    **flags: Unpack[PolarAdamFlags],
) -> GradientTransformation:
    r"""NorMuon: Muon with a second moment per output, AdamW for the rest.

    Each output of the orthogonal direction is divided by its recent size, so that all outputs learn
    at one pace. For every hidden matrix (n, m): O of Muon, v ← β2 v + (1 − β2) mean over inputs of
    O², O' = O / √v, θ ← θ − η (s O' ‖O‖ / ‖O'‖ + λ θ). AdamW updates embeddings, heads, norms,
    biases, routers and vectors, as `by_role` tells them apart.

    When: as Muon, where a few outputs of a layer take most of the step.
    When not: square matrices of full rank, whose O is even already.

    Args:
      learning_rate: η; 0.02 with "original", 1e-3 with "match_rms_adamw".
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: the number of polynomials; None: that of the preset, 5.
      beta: β in [0, 1), decay of the momentum; 0.95.
      b2: β2 in [0, 1), decay of the mean squares of outputs; 0.95.
      eps: ε ≥ 0, keeps matrices near zero small; also Adam's.
      weight_decay: λ ≥ 0 of hidden matrices; 0 to 0.1.
      mask: which of them decay; None: all.
      mu_dtype: dtype of both first moments; None: the parameter's, float32 at least.
      nesterov: the average one step ahead.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: the same η.
      scaling: s, as in `muon`; "match_rms_adamw" is the paper's form, "original" that of its code.
      compute_dtype: dtype of the products; None: float32 at least.
      spectrum: a function of singular values in the place of the polar factor, `soft_polar(0.2)`
        or `spectral_power(0.25)` for example; None: `polar()`.
      routes: rules `[(pattern, "normuon" or "adam"), ...]` that take precedence over the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `muon`.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m for hidden matrices, such as `k_maxwell()`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them, for both.

    Raises:
      HyperparamError: a number out of its range, an unknown preset or scaling.
      SelectionError: `routes` or `dimensions` that fit no parameter; a route that sends a vector or
        an embedding here.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter of hidden matrices (m), 4 per output (v), 8 per parameter of the
    rest.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([[1.0, 0.0, 0.0], [0.0, 3.0, 4.0]])
    >>> tx = gradtx.normuon(0.1, "svd", scaling="none")
    >>> updates, _ = tx.update(w, tx.init(w), w)  # Muon's length, 0.1 √2, even over outputs
    >>> print(updates.round(3)[:, 1:])
    [[-0.    -0.   ]
     [-0.082 -0.082]]

    See also: `muon`, `adamuon`.

    Li et al. 2025, arXiv 2510.05491, Algorithm 1.
    """
    direction = scale_by_normuon(
        ns_coeffs,
        ns_steps,
        beta,
        b2,
        eps,
        mu_dtype,
        nesterov=nesterov,
        scaling=scaling,
        **select_flags(PolarFlags, flags),
        momentum=momentum,
    )
    step = select_flags(StepFlags, flags)
    hidden = descend(direction, learning_rate, weight_decay, mask, **step)
    rest = adamw(eps=eps, mu_dtype=mu_dtype, **adam_arguments(learning_rate, flags))
    return by_role({"normuon": hidden, "adam": rest}, **select_flags(RoleFlags, flags))
