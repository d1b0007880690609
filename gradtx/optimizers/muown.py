r"""Muown: Muon on the directions of outputs, Adam on their lengths (weight normalization).

w_j = γ_j v_j / ‖v_j‖          for every output j of a matrix W (n, m), v_j in Rⁿ
u_j = w_j / γ_j,   dγ_j = ⟨g_j, u_j⟩,   dv_j = (γ_j / r_j) (g_j − u_j dγ_j),   r_j = ‖v_j‖
M ← β M + (1 − β) dV,   V ← V − η s O,   O = U Sᵀ of M = U Σ Sᵀ,   s = 0.2 √max(n, m)
γ ← (1 − η λ) γ − η Adam(dγ),   w_j ← γ_j v_j / ‖v_j‖
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative, Precise, Squares
from gradtx.optimizers.adamw import adamw
from gradtx.transforms.flags import (
    MatrixFlags,
    PolarAdamFlags,
    PolarFlags,
    RoleFlags,
    adam_arguments,
    select_flags,
)
from gradtx.transforms.moments import average, debias, divide_by_root
from gradtx.transforms.orthogonal import (
    Coefficients,
    Polar,
    polar_arguments,
    polar_factor,
    shape_factor,
)
from gradtx.tree.arithmetic import sqrt
from gradtx.tree.casts import real_zeros_along, zeros
from gradtx.wrappers.by_role import by_role


class OutputLengths(NamedTuple):
    """An average of the gradients of directions; per output its length and Adam's moments."""

    mu: jax.Array
    gain: Precise
    radius: Precise
    """r, the lengths of the directions, which the parameter does not hold."""
    gain_mu: jax.Array
    gain_nu: Squares


def _lengths(x: jax.Array) -> jax.Array:
    return sqrt(jnp.sum(x * x, axis=-2))


def _init(param, *, mu_dtype: DTypeLike | None) -> OutputLengths:
    *batch, _, outputs = range(param.ndim)
    mu = zeros(param, mu_dtype)
    return OutputLengths(mu, *(real_zeros_along(param, (*batch, outputs)) for _ in range(4)))


def _muown(
    grad,
    slots: OutputLengths,
    param,
    step,
    *,
    learning_rate,
    beta,
    gain_b1,
    gain_b2,
    weight_decay,
    eps,
    polar: Polar,
    spectrum_numbers: jax.Array | None = None,
):
    if not grad.size:
        return grad, slots
    # The first step reads γ and r from the parameter: `init` may know its shape alone.
    start = jnp.maximum(_lengths(param), 1e-12)
    gain, radius = (jnp.where(step == 1, start, one) for one in (slots.gain, slots.radius))
    unit = param / jnp.where(gain == 0, 1.0, gain)[..., None, :]
    d_gain = jnp.sum(grad * unit, axis=-2)
    d_direction = (gain / radius)[..., None, :] * (grad - unit * d_gain[..., None, :])
    mu = average(slots.mu, d_direction, beta)
    factor = polar_factor(mu, eps, polar, spectrum_numbers)
    scale = learning_rate * shape_factor("match_rms_adamw", grad.shape)
    moved = radius[..., None, :] * unit - scale * factor
    gain_mu, gain_nu = (
        average(slots.gain_mu, d_gain, gain_b1),
        average(slots.gain_nu, d_gain * d_gain, gain_b2),
    )
    adam = divide_by_root(
        debias(gain_mu, gain_b1, step), debias(gain_nu, gain_b2, step), eps, False
    )
    gain = (1 - learning_rate * weight_decay) * gain - learning_rate * adam
    radius = jnp.maximum(_lengths(moved), 1e-12)
    update = (gain / radius)[..., None, :] * moved - param
    return update, OutputLengths(mu, gain, radius, gain_mu, gain_nu)


@definition
def muown(
    learning_rate: Hyperparam,
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    gain_b1: Decay = 0.9,
    gain_b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    **flags: Unpack[PolarAdamFlags],
) -> GradientTransformation:
    r"""Muown: Muon on weight-normalized matrices, AdamW for the rest.

    Every output j of a hidden matrix is w_j = γ_j v_j / ‖v_j‖: Muon moves the directions V, Adam
    the lengths γ, and the parameter stays an ordinary matrix. dγ_j = ⟨g_j, u_j⟩ with u_j = w_j/γ_j,
    dv_j = (γ_j/r_j)(g_j − u_j dγ_j), M ← β M + (1 − β) dV, V ← V − η s O, s = 0.2 √max(n, m), γ ←
    (1 − η λ) γ − η Adam(dγ). The lengths r_j = ‖v_j‖ grow with the steps, and shrink later ones, as
    a learning rate of their own. AdamW updates embeddings, heads, norms, biases and vectors.

    When: long runs in which the norms of weights drift, in the place of weight decay. When not:
    outputs of length 0 at the start, as a zero-initialized projection has: they stay near 0 until
    Adam moves γ. On a small regression of 400 steps Muon reached a lower loss.

    Args:
      learning_rate: η, AdamW's; 1e-3 to 1e-2.
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: the number of polynomials; None: that of the preset.
      beta: β in [0, 1), decay of M; 0.95.
      gain_b1: β1 in [0, 1) of Adam on γ; 0.9.
      gain_b2: β2 in [0, 1) of Adam on γ; 0.95.
      eps: ε ≥ 0, of both.
      weight_decay: λ ≥ 0 of the lengths γ, a fraction per unit of learning rate.
      mu_dtype: dtype of M and of AdamW's first moment; None: the parameter's, float32 at least.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: the same η.
      compute_dtype: dtype of the products; None: float32 at least.
      spectrum: the function of singular values in the place of the polar factor, as in `muon`.
      routes: rules `[(pattern, "muown" or "adam"), ...]` that take precedence over the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `muon`.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them, for AdamW.

    Raises:
      HyperparamError: a number out of its range, an unknown preset.
      SelectionError: `routes` or `dimensions` that fit no parameter.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter of hidden matrices (M), 16 per output, 8 per parameter of the rest.

    >>> import gradtx, jax.numpy as jnp
    >>> w = {"layer": jnp.diag(jnp.array([2.0, 3.0]))}
    >>> tx = gradtx.muown(0.1)
    >>> g = {"layer": jnp.array([[0.0, 1.0], [1.0, 0.0]])}  # turns the outputs
    >>> new = gradtx.apply_updates(w, tx.update(g, tx.init(w), w)[0])["layer"]
    >>> jnp.linalg.norm(new, axis=0).round(4).tolist(), bool(new[0, 1] < 0)
    ([2.0, 3.0], True)

    See also: `muon`, `hyperball`.

    Lion et al. 2026, arXiv 2605.10797, appendix C; decay as in NVIDIA's Emerging-Optimizers.
    """
    hidden = matrixwise(
        _init,
        _muown,
        needs_params=True,
        real_only=True,
        **polar_arguments("muown", ns_coeffs, ns_steps, flags),
        **select_flags(MatrixFlags, select_flags(PolarFlags, flags)),
    )
    rest = adamw(eps=eps, mu_dtype=mu_dtype, **adam_arguments(learning_rate, flags))
    return by_role({"muown": hidden, "adam": rest}, **select_flags(RoleFlags, flags))
