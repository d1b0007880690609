r"""AdaMuon: Muon and Adam at once: each entry of an orthogonal direction is divided by its recent
size.

m ← β m + g,   O = U Vᵀ of sign(m)
v ← β v + (1 − β) O²
D = O / (√v + ε),   θ ← θ − η (0.2 √(n k) D / ‖D‖ + λ θ)        (θ is n × k)
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
from gradtx.optimizers.muon import Coefficients, averaged, polar_options
from gradtx.transforms.moments import average, divide_by_root
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_zeros
from gradtx.wrappers.by_role import by_role


class SquareOfPolar(NamedTuple):
    """An average of the squares of orthogonal directions."""

    nu: Squares


def _init(param: jax.Array) -> SquareOfPolar:
    return SquareOfPolar(real_zeros(param))


def _update(
    grad: jax.Array,
    slots: SquareOfPolar,
    param: None,
    step: jax.Array,
    *,
    eps: jax.Array,
    beta: jax.Array,
    polar: dict[str, Any],
) -> Any:
    factor = orthogonalize(jnp.sign(grad), eps=eps, **polar)
    nu = average(slots.nu, abs_sq(factor), beta)
    even = divide_by_root(factor, nu, eps, False)
    norm = jnp.sqrt(jnp.sum(abs_sq(even), axis=(-2, -1), keepdims=True))
    return 0.2 * (grad.shape[-2] * grad.shape[-1]) ** 0.5 * even / jnp.where(
        norm == 0, 1.0, norm
    ), SquareOfPolar(nu)


@definition
def scale_by_adamuon(
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    compute_dtype: DTypeLike | None = None,
    dimensions: Any = None,
    shard: Any = None,
) -> GradientTransformation:
    r"""AdaMuon's direction: the orthogonal factor of the momentum's signs, over the root of its
    average square, with a mean square of 0.2².

    Args:
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: their number; None: that of the preset.
      beta: β in [0, 1), decay of momentum and squares.
      eps: ε ≥ 0, keeps matrices near zero small.
      mu_dtype: dtype of the momentum; None: the parameter's, float32 at least.
      nesterov: True for the average of a step ahead.
      compute_dtype: of the products; None: the gradient's, float32 at least.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range, an unknown preset.
      StructureError: an array of fewer than two axes.

    State: 8 bytes per parameter (m and v).

    >>> import gradtx, jax.numpy as jnp
    >>> tx, w = gradtx.scale_by_adamuon("svd"), jnp.array([[1.0, 0.0], [2.0, -3.0]])
    >>> u, _ = tx.update(w, tx.init(w))
    >>> print(u.round(3))  # on the first step every entry by 0.2, as with Adam at a fifth of its rate
    [[ 0.2  0.2]
     [ 0.2 -0.2]]

    See also: `adamuon`, `scale_by_muon`.
    """
    even = matrixwise(
        _init,
        _update,
        eps=eps,
        beta=beta,
        polar=polar_options(ns_coeffs, ns_steps, compute_dtype, "frobenius"),
        dimensions=dimensions,
        shard=shard,
    )
    return chain(averaged(beta, mu_dtype, nesterov=nesterov), by_entry=even)


@definition
def adamuon(
    learning_rate: NonNegative,
    ns_coeffs: Coefficients = "polar_express",
    ns_steps: int | None = None,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_weight_decay: NonNegative = 0.0,
    adam_learning_rate: NonNegative | None = None,
    compute_dtype: DTypeLike | None = None,
    routes: Sequence[tuple[Any, str]] | None = None,
    dimensions: Any = None,
    shard: Any = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Muon and Adam at once: each entry of an orthogonal direction is divided by its recent size.

    For every hidden matrix (n, k): m ← β m + (1 − β) g, O = U Vᵀ of sign(m), v ← β v + (1 − β) O²,
    D = O / (√v + ε), θ ← θ − η (0.2 √(n k) D / ‖D‖ + λ θ).
    Embeddings, heads, norms, biases, routers and vectors get AdamW, by their paths (`by_role`).

    When: AdamW's learning rate and decay are known: a step has the mean square of 0.2², as AdamW's
    has about. When not: memory counts; it keeps as much as AdamW.

    Args:
      learning_rate: η ≥ 0, AdamW's; 1e-4 to 3e-3.
      ns_coeffs: the polynomials, as in `muon`.
      ns_steps: their number; None: that of the preset, 5.
      beta: β in [0, 1), decay of momentum and squares; 0.95.
      eps: ε ≥ 0, keeps matrices near zero small; also Adam's.
      weight_decay: λ ≥ 0 of hidden matrices; 0 to 0.1.
      mask: which of them decay; None: all.
      mu_dtype: dtype of both first moments; None: the parameter's, float32 at least.
      nesterov: the average of a step ahead.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_weight_decay: λ ≥ 0 of AdamW.
      adam_learning_rate: η of AdamW; None: the same η.
      compute_dtype: of the products; None: float32 at least.
      routes: rules `[(pattern, "adamuon" or "adam"), ...]` that go before the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `muon`.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them, for
        both.

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
    told: dict[str, Any] = {
        "nesterov": nesterov,
        "compute_dtype": compute_dtype,
        "dimensions": dimensions,
        "shard": shard,
    }
    hidden = descend(
        scale_by_adamuon(ns_coeffs, ns_steps, beta, eps, mu_dtype, **told),
        learning_rate,
        weight_decay,
        mask,
        **flags,
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    rest = adamw(
        rate, adam_b1, adam_b2, eps, mu_dtype=mu_dtype, weight_decay=adam_weight_decay, **flags
    )
    return by_role({"adamuon": hidden, "adam": rest}, routes, dimensions)
