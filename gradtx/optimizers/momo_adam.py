r"""MoMo-Adam: Adam with step lengths from a model of the loss and a lower bound of it.

    d ← β1 d + (1 − β1) g,   f̄ ← β1 f̄ + (1 − β1) f,   γ ← β1 γ + (1 − β1) ⟨g, θ⟩,   ρ = 1 − β1^t
    v ← β2 v + (1 − β2) g²,   D = √(v / (1 − β2^t)) + ε
    h = (1 + η λ) (f̄ − γ) + ⟨d, θ⟩
    τ = min(η / ρ, max(h − (1 + η λ) ρ f_*, 0) / ⟨d, d / D⟩)
    θ ← θ / (1 + η λ) − τ d / D

Inner products run over all arrays. With τ = η/ρ this is Adam's step.
"""

from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.transforms.loss_models import LossModel, Products, init_loss_model, model_step
from gradtx.transforms.moments import Moments, average, debias
from gradtx.tree.arithmetic import abs_sq, dot, sqrt
from gradtx.tree.casts import real_zeros, zeros


def _init(param) -> Moments:
    return Moments(zeros(param), real_zeros(param))


def _direction(grad, slots: Moments, step, b1, b2, eps):
    """d / D, and the moments after the step."""
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, abs_sq(grad), b2)
    return mu / (sqrt(debias(nu, b2, step)) + eps), Moments(mu, nu)


def _measure(grad, slots: Moments, param, step, *, b1, b2, eps) -> Products:
    direction, (mu, _) = _direction(grad, slots, step, b1, b2, eps)
    return Products(dot(grad, param), dot(mu, param), dot(mu, direction))


def _conclude(
    measures,
    tree_slots: LossModel,
    step,
    *,
    value,
    learning_rate,
    b1,
    lower_bound,
    weight_decay,
    adapt_lower_bound: bool,
):
    shrink = 1 + learning_rate * weight_decay
    weight = 1 / debias(jnp.ones_like(b1), b1, step)  # ρ, with all digits for β1 close to 1
    length, model = model_step(
        measures,
        tree_slots,
        value,
        b1,
        learning_rate / weight,
        weight=weight,
        shrink=shrink,
        lower_bound=lower_bound,
        adapt_lower_bound=adapt_lower_bound,
    )
    return {"length": length, "decay_rate": learning_rate * weight_decay / shrink}, model


def _momo_adam(grad, slots: Moments, param, step, *, b1, b2, eps, length, decay_rate):
    # The direction was computed in `_measure` too: storing it would cost 4 bytes per parameter.
    direction, moments = _direction(grad, slots, step, b1, b2, eps)
    return -length * direction - decay_rate * param, moments


@definition
def momo_adam(
    learning_rate: Hyperparam = 0.01,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    lower_bound: Hyperparam = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""MoMo-Adam: Adam with an automatic step length.

    A model of the loss, from averages of tangents, bounds how far a step goes.

    For arrays of any shapes, with inner products over all of them: d, f̄ and γ are averages of g,
    of the loss f and of ⟨g, θ⟩, ρ = 1 − β1^t, D = √v̂ + ε, h = (1 + η λ)(f̄ − γ) + ⟨d, θ⟩, τ =
    min(η/ρ, max(h − (1 + η λ) ρ f_*, 0)/⟨d, d/D⟩), θ ← θ/(1 + η λ) − τ d/D.

    `update` needs the loss: `update(grads, state, params, value=loss)`.

    When: Adam suits the problem, a lower bound of the loss is known, and η is not to be tuned: it
    may be 10 times Adam's. When not: the loss is negative without bound.

    Entries that are not finite do not count in the sums. A zero gradient, a loss of nan and sums
    that overflow make a step of zero.

    Args:
      learning_rate: η, Adam's, and the longest step here; 1e-3 to 1e-2, or a schedule.
      b1: β1 in [0, 1), decay of d, f̄ and γ; 0.9.
      b2: β2 in [0, 1), decay of v; 0.999.
      eps: ε ≥ 0, added to the root; 1e-8.
      lower_bound: f_*, a lower bound of the loss; 0 for most losses.
      weight_decay: λ ≥ 0: parameters shrink by 1/(1 + η λ) in addition to the step; 0 to 0.1.
      adapt_lower_bound: whether f_* is estimated during training, from `lower_bound` up, as in
        `momo`.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is called without `value=`.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (d and v), and three scalars.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([3.0, -4.0])
    >>> tx = gradtx.momo_adam(learning_rate=100.0)
    >>> loss = jnp.abs(w).sum()  # |w1| + |w2| = 7
    >>> updates, _ = tx.update(jnp.sign(w), tx.init(w), w, value=loss)
    >>> [round(u, 4) for u in updates.tolist()]  # not 100, but 7 between the two
    [-3.5, 3.5]

    See also: `momo`, `adam`.

    Schaipp, Ohana, Eickenberg, Defazio and Gower 2023, arXiv 2305.07583, MoMo-Adam.
    """
    return apply_axis_flags(
        leafwise(
            _init,
            _momo_adam,
            measure=_measure,
            conclude=_conclude,
            init_tree_slots=init_loss_model,
            lower_bound=lower_bound,  # the tree slots have a field of this name too
            extra=("value",),
            needs_params=True,
        ),
        flags,
    )
