r"""Scion: steps to the point of a norm ball that is furthest along the momentum (a linear
minimization oracle), with a norm for each kind of layer.

m ← β m + (1 − β) g
θ ← (1 − η) θ − η ρ d(m)      constrained: θ stays in the ball of radius ρ, once it is there
θ ← θ − η ρ d(m)              unconstrained

where −d is the linear minimization oracle of the unit ball, d(m) = argmax ⟨m, x⟩ over ‖x‖ ≤ 1:

    hidden matrices (n, m)    inputs and outputs in the mean square    √(m/n) U Vᵀ of m = U Σ Vᵀ
    heads (n, m)              inputs in the mean square, outputs each  sign(m) / n
    embeddings, vectors       one entry at a time                      sign(m)
"""

from typing import Literal, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.binding import Branch
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.select import partition
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative, Params
from gradtx.engine.roles import leaf_roles
from gradtx.engine.selector import PerLeaf, leaves_of
from gradtx.transforms.flags import HiddenFlags, MatrixFlags, PolarFlags, RoleFlags, select_flags
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.transforms.orthogonal import (
    Coefficients,
    Polar,
    average_gradients,
    merge_slots,
    polar_arguments,
    polar_factor,
    shape_factor,
)
from gradtx.tree.names import HEAD
from gradtx.wrappers.by_role import by_role

Norm = Literal["spectral", "sign", "sign_per_input"]


class ScionFlags(PolarFlags, HiddenFlags, total=False):
    """The flags of `scion`."""


def _scion(
    grad,
    slots: None,
    param,
    step,
    *,
    radius,
    eps,
    norm: Norm,
    polar: Polar,
    spectrum_numbers: jax.Array | None = None,
):
    if norm == "spectral":
        factor = radius * shape_factor("spectral", grad.shape)
        return factor * polar_factor(grad, eps, polar, spectrum_numbers), slots
    inputs = max(1, grad.shape[-2]) if norm == "sign_per_input" else 1
    return radius / inputs * jnp.sign(grad), slots


@definition
def scale_by_scion(
    beta: Decay = 0.9,
    radius: NonNegative = 1.0,
    norm: Norm = "spectral",
    *,
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[PolarFlags],
) -> list[Branch]:
    r"""Scion's direction: the point of a norm ball furthest along the momentum.

    u = argmax ⟨m, x⟩ over ‖x‖ ≤ ρ. m is (n, m): u = ρ √(m/n) U Vᵀ of m = U Σ Vᵀ in the spectral
    norm, ρ sign(m) in the largest entry, ρ sign(m)/n in the largest entry times the number of
    inputs.

    Args:
      beta: β in [0, 1), decay of m.
      radius: ρ ≥ 0.
      norm: "spectral", "sign" or "sign_per_input".
      ns_coeffs: the polynomials of the orthogonal factor, as in `muon`.
      ns_steps: the number of polynomials; None: that of the preset.
      eps: ε ≥ 0, keeps matrices near zero small.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      compute_dtype: dtype of the products; None: the gradient's, float32 at least.
      spectrum: a function of singular values in the place of the polar factor, `soft_polar(0.2)`
        or `spectral_power(0.25)` for example; None: `polar()`.
      dimensions: which axes of an array are inputs, outputs, and batches of matrices, as in
        `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number out of its range, an unknown norm or preset.
      StructureError: with "spectral", an array of fewer than two axes.

    State: 4 bytes per parameter (m).

    >>> import gradtx, jax.numpy as jnp
    >>> g = jnp.array([[1e-3, 5.0], [0.0, -2.0]])
    >>> for norm in ("sign", "sign_per_input"):
    ...     tx = gradtx.scale_by_scion(radius=3.0, norm=norm)
    ...     tx.update(g, tx.init(g))[0].tolist()
    [[3.0, 3.0], [0.0, -3.0]]
    [[1.5, 1.5], [0.0, -1.5]]

    See also: `scion`, `scale_by_muon`.

    Pethick and others 2025, arXiv 2502.07529, Algorithm 1, and the tables of norms in section 4.
    """
    is_spectral = norm == "spectral"
    if not is_spectral and flags.get("spectrum") is not None:
        raise HyperparamError(
            f"scale_by_scion: spectrum is for the spectral norm, and norm = {norm!r} takes signs: "
            "leave it out"
        )
    direction = matrixwise(
        None,
        _scion,
        **polar_arguments("scale_by_scion", ns_coeffs, ns_steps, flags),
        # Signs act on single entries: the axes of a matrix and its devices do not matter.
        vectors="refuse" if is_spectral else "rows",
        **select_flags(MatrixFlags, flags if is_spectral else {}),
    )
    # Plain averages, as in Algorithm 1: only the direction of m matters.
    average = average_gradients(momentum, nesterov=False, bias_correction=False)
    return merge_slots(average, direction)


def _heads(params: Params) -> PerLeaf:
    """Label the parameters: "head" where their role is that of a head, "rest" elsewhere."""
    return PerLeaf(
        None if role is None else "head" if role.name == HEAD else "rest"
        for role in leaf_roles(leaves_of(params))
    )


@definition
def scion(
    learning_rate: Hyperparam,
    beta: Decay = 0.9,
    radius: NonNegative = 50.0,
    head_radius: NonNegative = 3000.0,
    rest_radius: NonNegative = 1.0,
    mu_dtype: DTypeLike | None = None,
    *,
    constrained: bool = True,
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    eps: NonNegative = 1e-8,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[ScionFlags],
) -> GradientTransformation:
    r"""Scion: steps of one length in the norm of each layer, within a radius.

    For every array: m ← β m + (1 − β) g, θ ← (1 − η) θ − η ρ d(m), where d(m) is furthest along m
    in the unit ball of the layer's norm. It is √(fan_out/fan_in) U Vᵀ of m = U Σ Vᵀ for hidden
    matrices, sign(m)/fan_in for heads, and sign(m) for embeddings, norms, biases and all else. The
    path of a parameter decides (`by_role`). Unconstrained: θ ← θ − η ρ d(m). The constrained form
    is the unconstrained one with a weight decay of 1.

    When: one learning rate for networks of all widths; no second moments; parameters that stay
    bounded through a long run. When not: the radii are unknown, and there is no small network to
    find them on; fine-tuning, where shrinking undoes the first training: take `constrained=False`.

    Args:
      learning_rate: η in [0, 1], the part of the way to the point furthest along m; 2⁻¹² with these
        radii.
      beta: β in [0, 1), decay of m; 0.9; 0.5 for short runs with little noise.
      radius: ρ ≥ 0 of hidden matrices; 50 for a transformer without scales in its norms, 1 to 10
        for other networks.
      head_radius: ρ ≥ 0 of heads; 3000, which with 768 inputs bounds entries by 4.
      rest_radius: ρ ≥ 0 of the rest, which bounds their entries.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      constrained: False: θ is not shrunk.
      ns_coeffs: the polynomials of the orthogonal factor, as in `muon`.
      ns_steps: the number of polynomials; None: that of the preset.
      eps: ε ≥ 0, keeps matrices near zero small.
      compute_dtype: dtype of the products; None: the gradient's, float32 at least.
      spectrum: a function of singular values in the place of the polar factor, `soft_polar(0.2)`
        or `spectral_power(0.25)` for example; None: `polar()`.
      routes: rules `[(pattern, "scion" or "sign"), ...]` that take precedence over the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
        Rules take precedence over the axes that `by_role` finds.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them; a form only with `constrained`.

    Raises:
      HyperparamError: a number out of its range, an unknown preset.
      SelectionError: `routes` or `dimensions` that fit no parameter, or that send a vector to the
        spectral norm.
      MissingParamsError: `update` is called without parameters, and constrained.

    State: 4 bytes per parameter (m).

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w = {"layer": 9 * jnp.eye(2), "bias": jnp.array([5.0, -0.5])}
    >>> tx = gradtx.scion(0.1, radius=3.0, rest_radius=1.0, ns_coeffs="deepseek")
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(100):  # whatever the gradient
    ...     updates, state = step({"layer": jnp.eye(2), "bias": jnp.array([1e-6, -1e6])}, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> w["layer"].round(2).tolist(), w["bias"].round(2).tolist()
    ([[-3.0, 0.0], [0.0, -3.0]], [-1.0, 1.0])

    See also: `muon`, `signum`, `scale_by_scion`.

    Pethick and others 2025, arXiv 2502.07529, Algorithms 1 and 2, and the tables of norms in
    section 4; radii as in its code."""
    hidden = scale_by_scion(
        beta,
        radius,
        mu_dtype=mu_dtype,
        ns_coeffs=ns_coeffs,
        ns_steps=ns_steps,
        eps=eps,
        **select_flags(PolarFlags, flags),
        momentum=momentum,
    )
    head = scale_by_scion(beta, head_radius, "sign_per_input", mu_dtype=mu_dtype, momentum=momentum)
    rest = scale_by_scion(beta, rest_radius, "sign", mu_dtype=mu_dtype, momentum=momentum)
    # θ ← (1 − η) θ − η ρ d is a weight decay of 1.
    pull = 1.0 if constrained else None
    step = select_flags(StepFlags, flags)
    hidden, head, rest = (
        descend(rule, learning_rate, pull, **step) for rule in (hidden, head, rest)
    )
    signs = partition({"head": head, "rest": rest}, _heads)
    return by_role({"scion": hidden, "sign": signs}, **select_flags(RoleFlags, flags))
