r"""Muon: orthogonalized momentum. Every direction of a weight matrix moves by the same amount.

m ← β m + (1 − β) g
M = β m̂ + (1 − β) ĝ              (Nesterov; m̂ and ĝ corrected for the start at zero)
O = U Vᵀ of M = U Σ Vᵀ            (by Newton and Schulz's iteration, to within 0.15)
θ ← θ − η (s O + λ θ)             s = √max(1, fan_out / fan_in)
"""

from typing import Annotated, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.binding import Branch
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Default, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.linalg.orthogonalize import Normalize
from gradtx.optimizers.adamw import adamw
from gradtx.transforms.flags import (
    Dimensions,
    MatrixFlags,
    PolarAdamFlags,
    PolarFlags,
    RoleFlags,
    adam_arguments,
    select_flags,
)
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.transforms.orthogonal import (
    Coefficients,
    Polar,
    Scaling,
    Vectors,
    average_gradients,
    check_scaling,
    merge_slots,
    polar_arguments,
    polar_factor,
    shape_factor,
    unit_vectors,
)
from gradtx.wrappers.by_role import by_role


class MuonFlags(PolarFlags, total=False):
    """The keyword arguments that `scale_by_muon` and `muon` share."""

    adaptive: Annotated[bool, Default(False)]
    preconditioning: Annotated[Normalize, Default("frobenius")]
    bias_correction: Annotated[bool, Default(True)]
    normalize_before: Vectors | None
    normalize_after: Vectors | None


class MuonAdamFlags(MuonFlags, PolarAdamFlags, total=False):
    """The flags of `muon`, which gives all but hidden matrices to AdamW."""

    adam_eps_root: Annotated[NonNegative, Default(0.0)]


def _muon(
    grad,
    slots: None,
    param,
    step,
    *,
    eps,
    adaptive: bool,
    scaling: Scaling,
    polar: Polar,
    spectrum_numbers: jax.Array | None = None,
    normalize_before: Vectors | None = None,
    normalize_after: Vectors | None = None,
):
    even = grad if normalize_before is None else unit_vectors(grad, normalize_before)
    factor = polar_factor(even, eps, polar, spectrum_numbers)
    if normalize_after is not None:
        factor = unit_vectors(factor, normalize_after)
    if adaptive:
        # ⟨M, O⟩ is the sum of the singular values of M: a small gradient gives a small step.
        factor = factor * jnp.sum((factor.conj() * grad).real, axis=(-2, -1), keepdims=True)
    return shape_factor(scaling, grad.shape) * factor, slots


@definition
def scale_by_muon(
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    weight_dimension_numbers: Dimensions | None = None,
    scaling: Scaling = "none",
    momentum: MomentumKernel | None = None,
    **flags: Unpack[MuonFlags],
) -> list[Branch]:
    r"""Muon's direction: the orthogonal factor of an average of gradients.

    u = s U Vᵀ of β m̂ + (1 − β) ĝ = U Σ Vᵀ.

    Args:
      ns_coeffs: the polynomials of the iteration: a preset of `gradtx.linalg.orthogonalize`, one
        triple (a, b, c), which is repeated, or a triple for every step.
      ns_steps: the number of polynomials; None: that of the preset, 5.
      beta: β in [0, 1), decay of m.
      eps: ε ≥ 0, keeps matrices near zero small.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      nesterov: False for m̂ in place of the average one step ahead.
      adaptive: multiply by ⟨M, O⟩, so that the direction grows with the gradient.
      preconditioning: how M is scaled into the interval of the polynomials: `normalize` of
        `orthogonalize`.
      weight_dimension_numbers: Optax's name for `dimensions`.
      scaling: s, from the inputs and outputs of the matrix; "none": 1; `muon` explains the others.
      bias_correction: False for plain averages, as in the first implementation; the direction
        hardly changes.
      normalize_before: "outputs", "inputs", "inputs outputs" or "outputs inputs": divide these
        vectors of M by their norms before the iteration (MuonEq); None: none.
      normalize_after: the same for O after the iteration (Muon+).
      compute_dtype: dtype of the products; None: the gradient's, float32 at least. bfloat16 costs
        less on accelerators.
      spectrum: a function of singular values in the place of the polar factor, `soft_polar(0.2)`
        or `spectral_power(0.25)` for example; None: `polar()`.
      dimensions: which axes of an array are inputs, outputs, and batches of matrices, as in
        `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number out of its range, an unknown preset.
      StructureError: an array of fewer than two axes.

    State: 4 bytes per parameter (m).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_muon("deepseek")
    >>> w = jnp.array([[3.0, 0.0], [0.0, -0.1]])  # two directions of very different size
    >>> u, _ = tx.update(w, tx.init(w))  # both move by the same amount
    >>> u.round(2).tolist()
    [[1.0, 0.0], [0.0, -1.0]]

    See also: `muon`.
    """
    check_scaling("scale_by_muon", scaling)
    if weight_dimension_numbers is not None:
        flags["dimensions"] = weight_dimension_numbers
    direction = matrixwise(
        None,
        _muon,
        **polar_arguments("scale_by_muon", ns_coeffs, ns_steps, flags),
        normalize_before=flags.get("normalize_before"),
        normalize_after=flags.get("normalize_after"),
        **select_flags(MatrixFlags, flags),
    )
    return merge_slots(average_gradients(momentum), direction)


@definition
def muon(
    learning_rate: Hyperparam,
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Where | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    muon_weight_dimension_numbers: Dimensions | None = None,
    consistent_rms: float | None = None,
    scaling: Scaling = "original",
    momentum: MomentumKernel | None = None,
    **flags: Unpack[MuonAdamFlags],
) -> GradientTransformation:
    r"""Muon: orthogonalized momentum for hidden matrices, AdamW for the rest.

    Every direction of a hidden matrix moves by the same amount. For every hidden matrix θ, g, m of
    shape (n, m): m ← β m + (1 − β) g, O = U Vᵀ of β m̂ + (1 − β) ĝ = U Σ Vᵀ, θ ← θ − η (s O + λ θ).
    AdamW updates embeddings, heads, norms, biases, routers, convolutions and vectors. Paths, shapes
    and classes of modules decide (`by_role`); `coverage(tx, params)` shows the table.

    ==================  ===========================  ============================================
    scaling             s                            a step changes
    ==================  ===========================  ============================================
    "original"          √max(1, fan_out / fan_in)    entries by η / √fan_in or less
    "match_rms_adamw"   0.2 √max(fan_in, fan_out)    entries by 0.2 η, so AdamW's η and λ fit
    "spectral"          √(fan_out / fan_in)          outputs by η: η transfers between widths
    "none"              1                            the matrix by η in every direction
    ==================  ===========================  ============================================

    The default polynomials, "polar_express", bring singular values to within 0.15 of 1. Those of
    Optax, "jordan", bring them to within 0.53.

    When: the hidden matrices of transformers and of other networks. A step costs a few matrix
    products more than AdamW's; the state is half as large.
    When not: fine-tuning a model that AdamW trained; parameters that are not matrices.

    Args:
      learning_rate: η; 0.02 with "original", 1e-3 with "match_rms_adamw".
      ns_coeffs: the polynomials: a preset of `gradtx.linalg.orthogonalize`, one triple (a, b, c),
        or a triple for every step.
      ns_steps: the number of polynomials; None: that of the preset, 5.
      beta: β in [0, 1), decay of m; 0.95.
      eps: ε ≥ 0, keeps matrices near zero small; also Adam's.
      weight_decay: λ ≥ 0 of hidden matrices, a fraction per unit of learning rate; 0 to 0.1.
      weight_decay_mask: which of them decay; None: all.
      mu_dtype: dtype of both first moments; None: the parameter's, float32 at least.
      nesterov: the average one step ahead, for Muon and Adam.
      adaptive: multiply O by ⟨M, O⟩, so that steps shrink with gradients.
      preconditioning: "frobenius", "schatten", "aol" or "spectral": how M is scaled before the
        polynomials.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_eps_root: ε under AdamW's root.
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: the same η, which suits "match_rms_adamw"; else 3e-4 to
        3e-3.
      muon_weight_dimension_numbers: Optax's name for `dimensions`.
      consistent_rms: Optax's spelling of "match_rms_adamw", with this number in place of 0.2; it
        takes precedence over `scaling`.
      scaling: s, see above.
      bias_correction: False for plain averages in Muon's momentum.
      normalize_before: "outputs", "inputs", "inputs outputs" or "outputs inputs": divide the vector
        of every output (input) of M by its norm before the iteration (MuonEq); None: none.
      normalize_after: the same for O after the iteration (Muon+).
      compute_dtype: dtype of the products; None: float32 at least. bfloat16 costs less on
        accelerators.
      spectrum: a function of singular values in the place of the polar factor, `soft_polar(0.2)`
        or `spectral_power(0.25)` for example; None: `polar()`.
      routes: rules `[(pattern, "muon" or "adam"), ...]` that take precedence over the roles.
      dimensions: which axes of an array are inputs, outputs and batches: `[("conv.*kernel", "in in
        in out"), ("qkv", "in out/3")]`. Rules take precedence over the axes that `by_role` finds. A
        convolution is a hidden matrix only if a rule names it here, or if a route sends it.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m for hidden matrices, such as `k_maxwell()`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them, for both.

    Raises:
      HyperparamError: a number out of its range, an unknown preset or scaling.
      SelectionError: `routes` or `dimensions` that fit no parameter; a route that sends a vector or
        an embedding to Muon.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter of hidden matrices (m), 8 of the rest.

    >>> import gradtx, jax.numpy as jnp
    >>> layer = {"kernel": jnp.diag(jnp.array([3.0, 0.1])), "bias": jnp.zeros(2)}
    >>> params = {"embed": jnp.ones((4, 2)), "layer": layer}
    >>> tx = gradtx.muon(0.25, "deepseek")
    >>> print(gradtx.coverage(tx, params))
    embed         adam  an embedding, by its name
    layer/bias    adam  a norm or bias, by its name
    layer/kernel  muon  a hidden matrix (in out), in JAX's order
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> print(jnp.diag(updates["layer"]["kernel"]).round(2))
    [-0.25 -0.25]

    See also: `normuon`, `soap`, `gradtx.linalg.orthogonalize`.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon); Liu et al. 2025, arXiv 2502.16982,
    equation 4, for "match_rms_adamw"; Bernstein and Newhouse 2024, arXiv 2409.20325, for
    "spectral"."""
    if muon_weight_dimension_numbers is not None:
        flags["dimensions"] = muon_weight_dimension_numbers
    direction = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        scaling=scaling if consistent_rms is None else float(consistent_rms),
        **select_flags(MuonFlags, flags),
        momentum=momentum,
    )
    step = select_flags(StepFlags, flags)
    hidden = descend(direction, learning_rate, weight_decay, weight_decay_mask, **step)
    adam = adam_arguments(learning_rate, flags)
    rest = adamw(eps=eps, mu_dtype=mu_dtype, nesterov=nesterov, **adam)
    return by_role({"muon": hidden, "adam": rest}, **select_flags(RoleFlags, flags))
