r"""Scion: steps to the point of a ball that is furthest along the momentum, the ball being that of
a norm made for each layer.

m ← β m + (1 − β) g
θ ← (1 − η) θ − η ρ d(m)      constrained: θ stays in the ball of radius ρ, once it is there
θ ← θ − η ρ d(m)              unconstrained

where −d is the linear minimization oracle of the unit ball, d(m) = argmax ⟨m, x⟩ over ‖x‖ ≤ 1:

    hidden matrices (n, m)    inputs and outputs in the mean square    √(m/n) U Vᵀ of m = U Σ Vᵀ
    heads (n, m)              inputs in the mean square, outputs each  sign(m) / n
    embeddings, vectors       one entry at a time                      sign(m)
"""

from collections.abc import Sequence
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.select import partition
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Decay, DTypeLike, NonNegative
from gradtx.engine.program import leaves_of
from gradtx.linalg.orthogonalize import orthogonalize
from gradtx.optimizers.muon import Coefficients, averaged, factor_of, in_turn, polar_options
from gradtx.tree.roles import HEADS
from gradtx.wrappers.by_role import by_role

Norm = Literal["spectral", "sign", "sign_per_input"]


def _furthest(
    grad: jax.Array,
    slots: None,
    param: None,
    step: jax.Array,
    *,
    radius: jax.Array,
    eps: jax.Array,
    norm: Norm,
    polar: Any,
) -> Any:
    if norm == "spectral":
        return radius * factor_of("spectral", grad.shape) * orthogonalize(
            grad, eps=eps, **polar
        ), slots
    return radius / (max(1, grad.shape[-2]) if norm == "sign_per_input" else 1) * jnp.sign(
        grad
    ), slots


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
    compute_dtype: DTypeLike | None = None,
    dimensions: Any = None,
    shard: Any = None,
) -> GradientTransformation:
    r"""Scion's direction: the point of a ball furthest along an average of gradients, u = argmax
    ⟨m, x⟩ over ‖x‖ ≤ ρ.

    m is (n, m): u = ρ √(m/n) U Vᵀ of m = U Σ Vᵀ in the spectral norm, ρ sign(m) in the largest
    entry, ρ sign(m)/n in the largest entry times the number of inputs.

    Args:
      beta: β in [0, 1), decay of m.
      radius: ρ ≥ 0.
      norm: "spectral", "sign" or "sign_per_input".
      ns_coeffs: the polynomials of the orthogonal factor, as in `muon`.
      ns_steps: their number; None: that of the preset.
      eps: ε ≥ 0, keeps matrices near zero small.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      compute_dtype: of the products; None: the gradient's, float32 at least.
      dimensions: which axes of an array are inputs, outputs, and batches of matrices, as in
        `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.

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
    if norm not in ("spectral", "sign", "sign_per_input"):
        raise HyperparamError(
            f"scale_by_scion: norm = {norm!r} is unknown; choose 'spectral', 'sign' or 'sign_per_input'"
        )
    direction = matrixwise(
        None,
        _furthest,
        radius=radius,
        eps=eps,
        norm=norm,
        polar=polar_options(ns_coeffs, ns_steps, compute_dtype, "frobenius"),
        dimensions=dimensions if norm == "spectral" else None,
        shard=shard if norm == "spectral" else None,
        vectors="refuse" if norm == "spectral" else "rows",
    )
    return in_turn(averaged(beta, mu_dtype, nesterov=False, bias_correction=False), direction)


def heads(params: Any) -> Any:
    """Which parameters are heads, "head", by their paths; "rest" are all others."""
    leaves = leaves_of(params)
    groups = ["head" if HEADS.search(path) else "rest" for path in leaves.paths]
    return leaves._replace(
        values=[
            None if value is None else group
            for value, group in zip(leaves.values, groups, strict=True)
        ]
    ).tree


@definition
def scion(
    learning_rate: NonNegative,
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
    compute_dtype: DTypeLike | None = None,
    routes: Sequence[tuple[Any, str]] | None = None,
    dimensions: Any = None,
    shard: Any = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Steps of one length, as each kind of layer measures it, which keep every parameter within a
    radius.

    For every array: m ← β m + (1 − β) g, θ ← (1 − η) θ − η ρ d(m), where d(m) is furthest along m
    in the unit ball of the layer's norm: √(fan_out/fan_in) U Vᵀ of m = U Σ Vᵀ for hidden matrices,
    sign(m)/fan_in for heads, sign(m) for embeddings, norms, biases and all else, told apart by
    their paths (`by_role`). Unconstrained: θ ← θ − η ρ d(m). The one is the other with a weight
    decay of 1.

    When: one learning rate for networks of all widths; no second moments; parameters that stay
    bounded through a long run. When not: the radii are unknown, and there is no small network to
    find them on; fine-tuning, where shrinking undoes what was learned: take `constrained=False`.

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
      ns_steps: their number; None: that of the preset.
      eps: ε ≥ 0, keeps matrices near zero small.
      compute_dtype: of the products; None: the gradient's, float32 at least.
      routes: rules `[(pattern, "scion" or "sign"), ...]` that go before the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`; arrays
        of more than two axes are hidden matrices only if they are named here, or sent by a route,
        which takes the last two for inputs and outputs.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them; a form
        for what is constrained only.

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
    polar = {
        "ns_coeffs": ns_coeffs,
        "ns_steps": ns_steps,
        "compute_dtype": compute_dtype,
        "eps": eps,
    }
    hidden = scale_by_scion(
        beta, radius, mu_dtype=mu_dtype, dimensions=dimensions, shard=shard, **polar
    )
    head = scale_by_scion(beta, head_radius, "sign_per_input", mu_dtype=mu_dtype)
    rest = scale_by_scion(beta, rest_radius, "sign", mu_dtype=mu_dtype)
    pull, rules = 1.0 if constrained else None, {"scion": hidden, "head": head, "rest": rest}
    steps = {name: descend(rule, learning_rate, pull, **flags) for name, rule in rules.items()}
    return by_role(
        {
            "scion": steps["scion"],
            "sign": partition({"head": steps["head"], "rest": steps["rest"]}, heads),
        },
        routes,
        dimensions,
    )
