r"""MoMo: momentum with step lengths from a model of the loss and a lower bound of it.

    d ← β d + (1 − β) g,   f̄ ← β f̄ + (1 − β) f,   γ ← β γ + (1 − β) ⟨g, θ⟩
    (at t = 1: d = g, f̄ = f, γ = ⟨g, θ⟩)
    h = (1 + η λ) (f̄ − γ) + ⟨d, θ⟩                                    (the model at θ)
    τ = min(η, max(h − (1 + η λ) f_*, 0) / ‖d‖²)
    θ ← θ / (1 + η λ) − τ d

Norms and inner products run over all arrays. With `adapt_lower_bound` f_* follows the model, and
never falls below the bound f0 of the caller: before the step, if h < (1 + η λ) f_*,
f_* ← max(h / (2 (1 + η λ)), f0); after it, f_* ← max(f̄ + ⟨d, θ⟩ − γ − τ ‖d‖²/2, f0)."""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.transforms.loss_models import LossModel, Products, init_loss_model, model_step
from gradtx.transforms.moments import average
from gradtx.tree.arithmetic import abs_sq, dot, finite
from gradtx.tree.casts import zeros


class Slots(NamedTuple):
    """An average of gradients."""

    mu: jax.Array


def _init(param) -> Slots:
    return Slots(zeros(param))


def _decay_at(step, beta):
    """β, and 0 at the first step, so that averages begin at their first values."""
    return jnp.where(step == 1, 0.0, beta)


def _measure(grad, slots: Slots, param, step, *, beta) -> Products:
    mu = average(slots.mu, grad, _decay_at(step, beta))
    return Products(dot(grad, param), dot(mu, param), jnp.sum(abs_sq(finite(mu))))


def _conclude(
    measures,
    tree_slots: LossModel,
    step,
    *,
    value,
    learning_rate,
    beta,
    lower_bound,
    weight_decay,
    adapt_lower_bound: bool,
):
    shrink = 1 + learning_rate * weight_decay
    length, model = model_step(
        measures,
        tree_slots,
        value,
        _decay_at(step, beta),
        learning_rate,
        weight=jnp.ones_like(learning_rate),
        shrink=shrink,
        lower_bound=lower_bound,
        adapt_lower_bound=adapt_lower_bound,
    )
    return {"length": length, "decay_rate": learning_rate * weight_decay / shrink}, model


def _momo(grad, slots: Slots, param, step, *, beta, length, decay_rate):
    mu = average(slots.mu, grad, _decay_at(step, beta))
    return -length * mu - decay_rate * param, Slots(mu)


@definition
def momo(
    learning_rate: Hyperparam = 1.0,
    beta: Decay = 0.9,
    lower_bound: Hyperparam = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""MoMo: SGD with momentum and an automatic step length.

    A model of the loss, from averages of tangents, bounds how far a step goes.

    For arrays of any shapes, with norms and inner products over all of them: d, f̄ and γ are
    averages of g, of the loss f and of ⟨g, θ⟩, h = (1 + η λ)(f̄ − γ) + ⟨d, θ⟩, τ = min(η, max(h −
    (1 + η λ) f_*, 0)/‖d‖²), θ ← θ/(1 + η λ) − τ d.

    `update` needs the loss: `update(grads, state, params, value=loss)`.

    When: momentum suits the problem, a lower bound of the loss is known, and η is not to be tuned:
    too large an η does little harm. When not: the loss is negative without bound, or Adam suits the
    problem; take `momo_adam`.

    Entries that are not finite do not count in the sums. A zero gradient, a loss of nan and sums
    that overflow make a step of zero.

    Args:
      learning_rate: η, the longest step, parameter units per unit of gradient; 1, or a
        schedule.
      beta: β in [0, 1), decay of the averages; 0.9.
      lower_bound: f_*, a lower bound of the loss; 0 for most losses.
      weight_decay: λ ≥ 0: parameters shrink by 1/(1 + η λ) in addition to the step; 0 to 1e-3.
      adapt_lower_bound: whether f_* is estimated during training, from `lower_bound` up.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is called without `value=`.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (d), and three scalars.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = gradtx.momo(learning_rate=100.0)
    >>> norm = jnp.linalg.norm(w)
    >>> updates, _ = tx.update(w / norm, tx.init(w), w, value=norm)  # the loss is ‖w‖
    >>> [round(x, 5) for x in (w + updates).tolist()]  # one step to its minimum
    [0.0, 0.0]

    See also: `momo_adam`, `polyak_sgd`.

    Schaipp, Ohana, Eickenberg, Defazio and Gower 2023, arXiv 2305.07583, Algorithm 1, averages
    beginning at their first values; its section on a bound that adapts.
    """
    return apply_axis_flags(
        leafwise(
            _init,
            _momo,
            measure=_measure,
            conclude=_conclude,
            init_tree_slots=init_loss_model,
            lower_bound=lower_bound,  # the tree slots have a field of this name too
            extra=("value",),
            needs_params=True,
        ),
        flags,
    )
