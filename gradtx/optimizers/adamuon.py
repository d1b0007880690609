r"""AdaMuon: Muon with Adam's second moment. Each entry of an orthogonal direction is divided by its
recent size.

m ← β m + g,   O = U Vᵀ of sign(m)
v ← β v + (1 − β) O²
D = O / (√v + ε),   θ ← θ − η (0.2 √(n k) D / ‖D‖ + λ θ)        (θ is n × k)
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
from gradtx.transforms.moments import average, divide_by_root
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.transforms.orthogonal import (
    Coefficients,
    Polar,
    average_gradients,
    polar_arguments,
    polar_factor,
)
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import real_zeros
from gradtx.wrappers.by_role import by_role


class PolarMoment(NamedTuple):
    """An average of the squares of orthogonal directions."""

    nu: Squares


def _init(param) -> PolarMoment:
    return PolarMoment(real_zeros(param))


def _adamuon(
    grad,
    slots: PolarMoment,
    param,
    step,
    *,
    eps,
    beta,
    polar: Polar,
    spectrum_numbers: jax.Array | None = None,
):
    # Signs make the factor independent of the size of single entries.
    factor = polar_factor(jnp.sign(grad), eps, polar, spectrum_numbers)
    nu = average(slots.nu, abs_sq(factor), beta)
    even = divide_by_root(factor, nu, eps, False)
    norm = sqrt(jnp.sum(abs_sq(even), axis=(-2, -1), keepdims=True))
    # 0.2 is about the root mean square of an update of AdamW; v needs no bias correction, because
    # D is normalized.
    length = 0.2 * (grad.shape[-2] * grad.shape[-1]) ** 0.5
    return length * even / jnp.where(norm == 0, 1.0, norm), PolarMoment(nu)


@definition
def scale_by_adamuon(
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[PolarFlags],
) -> GradientTransformation:
    r"""AdaMuon's direction: the orthogonal factor of the momentum's signs over its second moment.

    Each entry is divided by the root of its average square. The mean square of the result is 0.2².

    Args:
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: the number of polynomials; None: that of the preset.
      beta: β in [0, 1), decay of momentum and squares.
      eps: ε ≥ 0, keeps matrices near zero small.
      mu_dtype: dtype of the momentum; None: the parameter's, float32 at least.
      nesterov: True for the average one step ahead.
      compute_dtype: dtype of the products; None: the gradient's, float32 at least.
      spectrum: a function of singular values in the place of the polar factor, `soft_polar(0.2)`
        or `spectral_power(0.25)` for example; None: `polar()`.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number out of its range, an unknown preset.
      StructureError: an array of fewer than two axes.

    State: 8 bytes per parameter (m and v).

    >>> import gradtx, jax.numpy as jnp
    >>> tx, w = gradtx.scale_by_adamuon("svd"), jnp.array([[1.0, 0.0], [2.0, -3.0]])
    >>> u, _ = tx.update(w, tx.init(w))
    >>> print(u.round(3))  # the first step: every entry by 0.2, as Adam at a fifth of its rate
    [[ 0.2  0.2]
     [ 0.2 -0.2]]

    See also: `adamuon`, `scale_by_muon`.
    """
    even = matrixwise(
        _init,
        _adamuon,
        **polar_arguments("scale_by_adamuon", ns_coeffs, ns_steps, flags),
        **select_flags(MatrixFlags, flags),
    )
    return chain(averaged=average_gradients(momentum), by_entry=even)


@definition
def adamuon(
    learning_rate: Hyperparam,
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[PolarAdamFlags],
) -> GradientTransformation:
    r"""AdaMuon: Muon with Adam's second moment, AdamW for the rest.

    Each entry of an orthogonal direction is divided by its recent size. For every hidden matrix
    (n, k): m ← β m + (1 − β) g, O = U Vᵀ of sign(m), v ← β v + (1 − β) O², D = O / (√v + ε),
    θ ← θ − η (0.2 √(n k) D / ‖D‖ + λ θ). AdamW updates embeddings, heads, norms, biases, routers
    and vectors, as `by_role` tells them apart.

    When: AdamW's learning rate and decay are known: a step has a mean square of 0.2², about that of
    AdamW. When not: memory counts; the state is as large as AdamW's.

    Args:
      learning_rate: η, AdamW's; 1e-4 to 3e-3.
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: the number of polynomials; None: that of the preset, 5.
      beta: β in [0, 1), decay of momentum and squares; 0.95.
      eps: ε ≥ 0, keeps matrices near zero small; also Adam's.
      weight_decay: λ ≥ 0 of hidden matrices; 0 to 0.1.
      mask: which of them decay; None: all.
      mu_dtype: dtype of both first moments; None: the parameter's, float32 at least.
      nesterov: the average one step ahead.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: the same η.
      compute_dtype: dtype of the products; None: float32 at least.
      spectrum: a function of singular values in the place of the polar factor, `soft_polar(0.2)`
        or `spectral_power(0.25)` for example; None: `polar()`.
      routes: rules `[(pattern, "adamuon" or "adam"), ...]` that take precedence over the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `muon`.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m for hidden matrices, such as `k_maxwell()`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them, for both.

    Raises:
      HyperparamError: a number out of its range, an unknown preset.
      SelectionError: `routes` or `dimensions` that fit no parameter; a route that sends a vector or
        an embedding here.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (two moments, in both groups).

    >>> import gradtx, jax.numpy as jnp
    >>> tx, w = gradtx.adamuon(0.1, "svd"), jnp.array([[1.0, 0.0], [2.0, -3.0]])
    >>> updates, _ = tx.update(w, tx.init(w), w)
    >>> print(updates.round(3))
    [[-0.02 -0.02]
     [-0.02  0.02]]

    See also: `muon`, `normuon`.

    Si, Zhang and Shen 2025, arXiv 2507.11005, Algorithm 1.
    """
    direction = scale_by_adamuon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        **select_flags(PolarFlags, flags),
        momentum=momentum,
    )
    step = select_flags(StepFlags, flags)
    hidden = descend(direction, learning_rate, weight_decay, mask, **step)
    rest = adamw(eps=eps, mu_dtype=mu_dtype, **adam_arguments(learning_rate, flags))
    return by_role({"adamuon": hidden, "adam": rest}, **select_flags(RoleFlags, flags))
