r"""MoMo with Adam's preconditioner: Adam, as far as a model of the loss by averaged tangents takes
to reach a lower bound of it.

    d ← β1 d + (1 − β1) g,   f̄ ← β1 f̄ + (1 − β1) f,   γ ← β1 γ + (1 − β1) ⟨g, θ⟩,   ρ = 1 − β1^t
    v ← β2 v + (1 − β2) g²,   D = √(v / (1 − β2^t)) + ε
    h = (1 + η λ) (f̄ − γ) + ⟨d, θ⟩
    τ = min(η / ρ, max(h − (1 + η λ) ρ f_*, 0) / ⟨d, d / D⟩)
    θ ← θ / (1 + η λ) − τ d / D

Inner products run over all arrays. With τ = η/ρ this is Adam's step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.optimizers.momo import Found, Model, init_model, step_length
from gradtx.transforms.moments import Moments, average, debias
from gradtx.tree.arithmetic import abs_sq, dot
from gradtx.tree.casts import real_zeros, zeros


class Scaled(NamedTuple):
    """The moments of one array after a step, and its direction d / D."""

    moments: Moments
    direction: jax.Array


def _init(param: jax.Array) -> Moments:
    return Moments(zeros(param), real_zeros(param))


def _scaled(
    grad: jax.Array, slots: Moments, step: jax.Array, b1: jax.Array, b2: jax.Array, eps: jax.Array
) -> Scaled:
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, abs_sq(grad), b2)
    return Scaled(Moments(mu, nu), mu / (jnp.sqrt(debias(nu, b2, step)) + eps))


def _measure(
    grad: jax.Array,
    slots: Moments,
    param: jax.Array,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
) -> Found:
    (mu, _), direction = _scaled(grad, slots, step, b1, b2, eps)
    return Found(dot(grad, param), dot(mu, param), dot(mu, direction))


def _conclude(
    found: Any,
    shared: Model,
    step: jax.Array,
    *,
    value: jax.Array,
    learning_rate: jax.Array,
    b1: jax.Array,
    lower_bound: jax.Array,
    weight_decay: jax.Array,
    adapt_lower_bound: bool,
) -> Any:
    shrink, weight = 1 + learning_rate * weight_decay, 1 / debias(jnp.ones_like(b1), b1, step)
    length, new = step_length(
        found,
        shared,
        value,
        b1,
        learning_rate / weight,
        weight,
        lower_bound,
        shrink,
        adapt_lower_bound,
    )
    return {"length": length, "decayed": learning_rate * weight_decay / shrink}, new


def _update(
    grad: jax.Array,
    slots: Moments,
    param: jax.Array,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    length: jax.Array,
    decayed: jax.Array,
) -> Any:
    moments, direction = _scaled(grad, slots, step, b1, b2, eps)
    return -length * direction - decayed * param, moments


@definition
def momo_adam(
    learning_rate: NonNegative = 0.01,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    lower_bound: Hyperparam = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformation:
    r"""Adam whose steps shorten by themselves: no further than a model of the loss says it falls.

    For arrays of any shapes, with inner products over all of them: d, f̄ and γ are averages of g,
    of the loss f and of ⟨g, θ⟩, ρ = 1 − β1^t, D = √v̂ + ε, h = (1 + η λ)(f̄ − γ) + ⟨d, θ⟩, τ =
    min(η/ρ, max(h − (1 + η λ) ρ f_*, 0)/⟨d, d/D⟩), θ ← θ/(1 + η λ) − τ d/D.

    `update` must be told the loss: `update(grads, state, params, value=loss)`.

    When: Adam suits the problem, a lower bound of the loss is known, and η shall not need tuning:
    it may be 10 times Adam's. When not: the loss is negative without bound.

    Entries that are not finite do not count in the sums. A zero gradient, a loss of nan and sums
    that overflow make a step of zero.

    Args:
      learning_rate: η ≥ 0, Adam's, and the longest step here; 1e-3 to 1e-2, or a schedule.
      b1: β1 in [0, 1), decay of d, f̄ and γ; 0.9.
      b2: β2 in [0, 1), decay of v; 0.999.
      eps: ε ≥ 0, beside the root; 1e-8.
      lower_bound: f_*, a lower bound of the loss; 0 for most losses.
      weight_decay: λ ≥ 0: parameters shrink by 1/(1 + η λ) beside the step; 0 to 0.1.
      adapt_lower_bound: whether f_* is estimated on the way, from `lower_bound` up, as in `momo`.

    Raises:
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is not told the loss.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (d and v), and three scalars.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([3.0, -4.0])
    >>> tx = gradtx.momo_adam(learning_rate=100.0)
    >>> updates, _ = tx.update(jnp.sign(w), tx.init(w), w, value=jnp.abs(w).sum())  # the loss is |w1| + |w2| = 7
    >>> [round(u, 4) for u in updates.tolist()]  # not 100, but 7 between the two
    [-3.5, 3.5]

    See also: `momo`, `adam`.

    Schaipp, Ohana, Eickenberg, Defazio and Gower 2023, arXiv 2305.07583, MoMo-Adam.
    """
    return leafwise(
        _init,
        _update,
        learning_rate=learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        lower_bound=lower_bound,
        weight_decay=weight_decay,
        adapt_lower_bound=adapt_lower_bound,
        measure=_measure,
        conclude=_conclude,
        init_tree_slots=init_model,
        extra=("value",),
        needs_params=True,
    )
