r"""MoMo: momentum, as far as a model of the loss by averaged tangents takes to reach a lower bound
of it.

    d ← β d + (1 − β) g,   f̄ ← β f̄ + (1 − β) f,   γ ← β γ + (1 − β) ⟨g, θ⟩       (at t = 1: d = g, f̄ = f, γ = ⟨g, θ⟩)
    h = (1 + η λ) (f̄ − γ) + ⟨d, θ⟩                                                (the model at θ)
    τ = min(η, max(h − (1 + η λ) f_*, 0) / ‖d‖²)
    θ ← θ / (1 + η λ) − τ d

Norms and inner products run over all arrays. With `adapt_lower_bound` f_* follows the model, never
below the bound f0 given: before the step, if h < (1 + η λ) f_*, f_* ← max(h / (2 (1 + η λ)), f0);
after it, f_* ← max(f̄ + ⟨d, θ⟩ − γ − τ ‖d‖²/2, f0)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.transforms.moments import average
from gradtx.tree.arithmetic import abs_sq, dot, finite, sum_scalars
from gradtx.tree.casts import zeros


class Slots(NamedTuple):
    """An average of gradients."""

    mu: jax.Array


class Model(NamedTuple):
    """Averages of the loss and of ⟨g, θ⟩, and the lower bound of the loss."""

    value: jax.Array
    gamma: jax.Array
    lower_bound: jax.Array


class Found(NamedTuple):
    """Of one array: ⟨g, θ⟩, ⟨d, θ⟩ and the square of d in the norm of the step."""

    grad: jax.Array
    inner: jax.Array
    square: jax.Array


def init_model(*, lower_bound: jax.Array) -> Model:
    return Model(jnp.zeros(()), jnp.zeros(()), jnp.asarray(lower_bound))


def step_length(
    found: Any,
    old: Model,
    value: jax.Array,
    decay: jax.Array,
    longest: jax.Array,
    weight: jax.Array,
    bind_rule: jax.Array,
    shrink: jax.Array,
    adapt_lower_bound: bool,
) -> tuple[jax.Array, Model]:
    """τ ≤ `longest`, and the model after the step.

    `weight` is what the averages lack of 1 when they began at zero (ρ = 1 − β^t), `shrink` is 1 + η
    λ."""
    mean, gamma = (
        average(old.value, value, decay),
        average(old.gamma, sum_scalars(found.grad), decay),
    )
    inner, square, least = sum_scalars(found.inner), sum_scalars(found.square), old.lower_bound
    height = shrink * (mean - gamma) + inner
    if adapt_lower_bound:
        least = jnp.where(
            height < shrink * weight * least,
            jnp.maximum(height / (2 * shrink * weight), bind_rule),
            least,
        )
    gap = jnp.maximum(height - shrink * weight * least, 0.0)
    # No step without a gradient, nor with a loss of nan or sums that overflow, which change no
    # average either.
    length = jnp.where(
        square > 0, jnp.minimum(longest, gap / jnp.where(square > 0, square, 1.0)), 0.0
    )
    if adapt_lower_bound:
        least = jnp.maximum((mean + inner - gamma - length * square / 2) / weight, bind_rule)
    new = Model(mean, gamma, least)
    usable = jnp.isfinite(height) & jnp.isfinite(square)
    return jnp.where(usable, length, 0.0), Model(
        *(jnp.where(usable, now, before) for now, before in zip(new, old, strict=True))
    )


def _init(param: jax.Array) -> Slots:
    return Slots(zeros(param))


def _kept(beta: jax.Array, step: jax.Array) -> jax.Array:
    """How much of an average a step keeps: nothing at the first, where averages begin."""
    return jnp.where(step == 1, 0.0, beta)


def _measure(
    grad: jax.Array, slots: Slots, param: jax.Array, step: jax.Array, *, beta: jax.Array
) -> Found:
    mu = average(slots.mu, grad, _kept(beta, step))
    return Found(dot(grad, param), dot(mu, param), jnp.sum(abs_sq(finite(mu))))


def _conclude(
    found: Any,
    shared: Model,
    step: jax.Array,
    *,
    value: jax.Array,
    learning_rate: jax.Array,
    beta: jax.Array,
    lower_bound: jax.Array,
    weight_decay: jax.Array,
    adapt_lower_bound: bool,
) -> Any:
    shrink, one = 1 + learning_rate * weight_decay, jnp.ones_like(learning_rate)
    length, new = step_length(
        found,
        shared,
        value,
        _kept(beta, step),
        learning_rate,
        one,
        lower_bound,
        shrink,
        adapt_lower_bound,
    )
    return {"length": length, "decayed": learning_rate * weight_decay / shrink}, new


def _update(
    grad: jax.Array,
    slots: Slots,
    param: jax.Array,
    step: jax.Array,
    *,
    beta: jax.Array,
    length: jax.Array,
    decayed: jax.Array,
) -> Any:
    mu = average(slots.mu, grad, _kept(beta, step))
    return -length * mu - decayed * param, Slots(mu)


@definition
def momo(
    learning_rate: NonNegative = 1.0,
    beta: Decay = 0.9,
    lower_bound: Hyperparam = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformation:
    r"""SGD with momentum whose steps shorten by themselves: no further than a model of the loss
    says it falls.

    For arrays of any shapes, with norms and inner products over all of them: d, f̄ and γ are
    averages of g, of the loss f and of ⟨g, θ⟩, h = (1 + η λ)(f̄ − γ) + ⟨d, θ⟩, τ = min(η, max(h −
    (1 + η λ) f_*, 0)/‖d‖²), θ ← θ/(1 + η λ) − τ d.

    `update` must be told the loss: `update(grads, state, params, value=loss)`.

    When: momentum suits the problem, a lower bound of the loss is known, and η shall not need
    tuning: too large an η does little harm.
    When not: the loss is negative without bound, or Adam suits the problem; take `momo_adam`.

    Entries that are not finite do not count in the sums. A zero gradient, a loss of nan and sums
    that overflow make a step of zero.

    Args:
      learning_rate: η ≥ 0, the longest step, parameter units per unit of gradient; 1, or a
        schedule.
      beta: β in [0, 1), decay of the averages; 0.9.
      lower_bound: f_*, a lower bound of the loss; 0 for most losses.
      weight_decay: λ ≥ 0: parameters shrink by 1/(1 + η λ) beside the step; 0 to 1e-3.
      adapt_lower_bound: whether f_* is estimated on the way, from `lower_bound` up.

    Raises:
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is not told the loss.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (d), and three scalars.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = gradtx.momo(learning_rate=100.0)
    >>> norm = jnp.linalg.norm(w)
    >>> updates, _ = tx.update(w / norm, tx.init(w), w, value=norm)  # the loss is ‖w‖: one step to its minimum
    >>> [round(x, 5) for x in (w + updates).tolist()]
    [0.0, 0.0]

    See also: `momo_adam`, `polyak_sgd`.

    Schaipp, Ohana, Eickenberg, Defazio and Gower 2023, arXiv 2305.07583, Algorithm 1, averages
    beginning at their first values; its section on a bound that adapts.
    """
    return leafwise(
        _init,
        _update,
        learning_rate=learning_rate,
        beta=beta,
        lower_bound=lower_bound,
        weight_decay=weight_decay,
        adapt_lower_bound=adapt_lower_bound,
        measure=_measure,
        conclude=_conclude,
        init_tree_slots=init_model,
        extra=("value",),
        needs_params=True,
    )
