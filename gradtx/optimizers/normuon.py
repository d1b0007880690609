r"""NorMuon: Muon whose outputs all learn at one pace: each output of the orthogonal direction is
divided by its recent size.

O = U Vᵀ of Muon's momentum                      (n × m, m outputs)
v ← β2 v + (1 − β2) mean of O² over inputs        (m)
O' = O / (√v + 1e-10),   θ ← θ − η (s O' ‖O‖ / ‖O'‖ + λ θ)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, NonNegative, Squares
from gradtx.engine.selector import Where
from gradtx.linalg.orthogonalize import orthogonalize
from gradtx.optimizers.adamw import adamw
from gradtx.optimizers.muon import (
    Coefficients,
    Scaling,
    averaged,
    check_scaling,
    factor_of,
    polar_options,
)
from gradtx.transforms.moments import average
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_dtype
from gradtx.wrappers.by_role import by_role


class OutputMoment(NamedTuple):
    """An average of the mean squares of the orthogonal direction, one for every output."""

    nu: Squares


def _init(param: jax.Array) -> OutputMoment:
    return OutputMoment(jnp.zeros((*param.shape[:-2], param.shape[-1]), real_dtype(param.dtype)))


def _update(
    grad: jax.Array,
    slots: OutputMoment,
    param: None,
    step: jax.Array,
    *,
    eps: jax.Array,
    b2: jax.Array,
    scaling: Scaling,
    polar: dict[str, Any],
) -> Any:
    factor = orthogonalize(grad, eps=eps, **polar)
    square = jnp.mean(abs_sq(factor), axis=-2) if grad.size else slots.nu
    nu = average(slots.nu, square, b2)
    even = factor / (jnp.sqrt(nu) + 1e-10)[..., None, :]
    return factor_of(scaling, grad.shape) * even * _ratio(factor, even), OutputMoment(nu)


def _ratio(one: jax.Array, other: jax.Array) -> jax.Array:
    """‖one‖ / ‖other‖ of each matrix; 0 where the other is zero."""
    above, below = (
        jnp.sqrt(jnp.sum(abs_sq(x), axis=(-2, -1), keepdims=True)) for x in (one, other)
    )
    return jnp.where(below == 0, 0.0, above / jnp.where(below == 0, 1.0, below))


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
    compute_dtype: DTypeLike | None = None,
    dimensions: Any = None,
    shard: Any = None,
) -> GradientTransformation:
    r"""NorMuon's direction: Muon's O, each output over the root of its mean square of late, brought
    back to the length of O.

    Args:
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: their number; None: that of the preset.
      beta: β in [0, 1), decay of the momentum.
      b2: β2 in [0, 1), decay of the mean squares of outputs.
      eps: ε ≥ 0, keeps matrices near zero small.
      mu_dtype: dtype of the momentum; None: the parameter's, float32 at least.
      nesterov: False for the average of this step.
      scaling: s, as in `muon`.
      compute_dtype: of the products; None: the gradient's, float32 at least.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range, an unknown preset or scaling.
      StructureError: an array of fewer than two axes.

    State: 4 bytes per parameter (m), and 4 per output (v).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_normuon("svd")
    >>> w = jnp.array([[1.0, 0.0, 0.0], [0.0, 3.0, 4.0]])
    >>> u, _ = tx.update(w, tx.init(w))  # Muon's second row is 0.6, 0.8; here all outputs move alike
    >>> [[round(x, 2) for x in row] for row in u.tolist()]
    [[0.82, 0.0, 0.0], [0.0, 0.82, 0.82]]

    See also: `normuon`, `scale_by_muon`.
    """
    check_scaling("scale_by_normuon", scaling)
    even = matrixwise(
        _init,
        _update,
        eps=eps,
        b2=b2,
        scaling=scaling,
        polar=polar_options(ns_coeffs, ns_steps, compute_dtype, "frobenius"),
        dimensions=dimensions,
        shard=shard,
    )
    return chain(averaged(beta, mu_dtype, nesterov=nesterov), by_output=even)


@definition
def normuon(
    learning_rate: NonNegative,
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
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: NonNegative | None = None,
    scaling: Scaling = "original",
    compute_dtype: DTypeLike | None = None,
    routes: Sequence[tuple[Any, str]] | None = None,
    dimensions: Any = None,
    shard: Any = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Muon whose outputs all learn at one pace: each is divided by its recent size in the
    orthogonal direction.

    For every hidden matrix (n, m): O of Muon, v ← β2 v + (1 − β2) mean over inputs of O², O' = O /
    √v, θ ← θ − η (s O' ‖O‖ / ‖O'‖ + λ θ). Embeddings, heads, norms, biases, routers and vectors get
    AdamW, by their paths (`by_role`).

    When: as Muon, where a few outputs of a layer take most of the step.
    When not: square matrices of full rank, whose O is even already.

    Args:
      learning_rate: η ≥ 0; 0.02 with "original", 1e-3 with "match_rms_adamw".
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: their number; None: that of the preset, 5.
      beta: β in [0, 1), decay of the momentum; 0.95.
      b2: β2 in [0, 1), decay of the mean squares of outputs; 0.95.
      eps: ε ≥ 0, keeps matrices near zero small; also Adam's.
      weight_decay: λ ≥ 0 of hidden matrices; 0 to 0.1.
      mask: which of them decay; None: all.
      mu_dtype: dtype of both first moments; None: the parameter's, float32 at least.
      nesterov: the average of a step ahead.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: the same η.
      scaling: s, as in `muon`; "match_rms_adamw" is the paper's form, "original" that of its code.
      compute_dtype: of the products; None: float32 at least.
      routes: rules `[(pattern, "normuon" or "adam"), ...]` that go before the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `muon`.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them, for
        both.

    Raises:
      HyperparamError: a number out of its range, an unknown preset or scaling.
      SelectionError: `routes` or `dimensions` that fit no parameter; a route that sends a vector or
        an embedding here.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter of hidden matrices (m), 4 per output (v), 8 per parameter of the
    rest.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, w = gradtx.normuon(0.1, "svd", scaling="none"), jnp.array([[1.0, 0.0, 0.0], [0.0, 3.0, 4.0]])
    >>> updates, _ = tx.update(w, tx.init(w), w)  # the length of Muon's step, 0.1 √2, even over outputs
    >>> print(updates.round(3)[:, 1:])
    [[-0.    -0.   ]
     [-0.082 -0.082]]

    See also: `muon`, `adamuon`.

    Li et al. 2025, arXiv 2510.05491, Algorithm 1.
    """
    told: dict[str, Any] = {
        "nesterov": nesterov,
        "scaling": scaling,
        "compute_dtype": compute_dtype,
        "dimensions": dimensions,
        "shard": shard,
    }
    hidden = descend(
        scale_by_normuon(ns_coeffs, ns_steps, beta, b2, eps, mu_dtype, **told),
        learning_rate,
        weight_decay,
        mask,
        **flags,
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    rest = adamw(
        rate, adam_b1, adam_b2, eps, mu_dtype=mu_dtype, weight_decay=adam_weight_decay, **flags
    )
    return by_role({"normuon": hidden, "adam": rest}, routes, dimensions)
