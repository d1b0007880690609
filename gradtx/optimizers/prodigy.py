r"""Prodigy: Adam's step, times an estimate d of the distance to the solution that only grows.

    γ = η d √(1 − β2^t) / (1 − β1^t)
    m ← β1 m + (1 − β1) d g
    v ← β2 v + (1 − β2) d² g²
    r ← β3 r + (d / d0) γ Σ ⟨g, θ0 − θ⟩
    s ← β3 s + (d / d0) γ g                      (d in place of γ with `safeguard_warmup`)
    d' = max(d, c r / Σ ‖s‖₁)                    (sums over all arrays)
    θ ← θ − γ (m / (√v + d' ε) + λ θ),  then d ← d'

Of the terms of a step only ε uses its new estimate d'.
"""

from typing import NamedTuple, Unpack

import jax

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative, Positive, Precise, Squares
from gradtx.transforms.distances import (
    Estimate,
    EstimateParts,
    finite_norm1,
    init_estimate,
    raise_estimate,
)
from gradtx.transforms.moments import average, corrected_rate
from gradtx.tree.arithmetic import abs_sq, dot, sqrt, sum_scalars
from gradtx.tree.casts import float_copy, real_zeros, zeros


class Slots(NamedTuple):
    """Averages of scaled gradients (mu) and of their squares (nu), a weighted sum of gradients, and
    the first parameters.
    """

    mu: jax.Array
    nu: Squares
    grad_sum: jax.Array
    params0: Precise


def _init(param) -> Slots:
    return Slots(zeros(param), real_zeros(param), zeros(param), float_copy(param))


def _rates(learning_rate, distance, b1, b2, step, estim_lr0, safeguard_warmup: bool):
    """γ, and the weight of a gradient in s.

    With the safeguard a small η of a warmup does not make the weight small: d / Σ ‖s‖₁ would then
    be too large.
    """
    rate = corrected_rate(learning_rate * distance, b1, b2, step)
    return rate, distance / estim_lr0 * (distance if safeguard_warmup else rate)


def _memory(b2, beta3):
    """β3, which is √β2 unless the caller sets it; β2 may be a schedule."""
    return sqrt(b2) if beta3 is None else beta3


def _measure(
    grad,
    slots: Slots,
    param,
    step,
    *,
    learning_rate,
    b1,
    b2,
    beta3=None,
    estim_lr0,
    estim_lr,
    safeguard_warmup: bool,
) -> EstimateParts:
    _, weight = _rates(learning_rate, estim_lr, b1, b2, step, estim_lr0, safeguard_warmup)
    grad_sum = _memory(b2, beta3) * slots.grad_sum + weight * grad
    return EstimateParts(dot(grad, slots.params0 - param), finite_norm1(grad_sum))


def _conclude(
    measures,
    tree_slots: Estimate,
    step,
    *,
    learning_rate,
    b1,
    b2,
    beta3=None,
    estim_lr0,
    estim_lr_coef,
    safeguard_warmup: bool,
):
    old = tree_slots.estim_lr
    rate, weight = _rates(learning_rate, old, b1, b2, step, estim_lr0, safeguard_warmup)
    # r has γ, not the weight, even with the safeguard, as in the authors' code.
    step_sum = old / estim_lr0 * rate * sum_scalars(measures.inner)
    numerator = _memory(b2, beta3) * tree_slots.numerator + step_sum
    new = raise_estimate(tree_slots, numerator, sum_scalars(measures.norm1) / estim_lr_coef)
    stats = {"rate": rate, "weight": weight, "distance": old, "next_distance": new.estim_lr}
    return stats, new


def _prodigy(
    grad,
    slots: Slots,
    param,
    step,
    *,
    b1,
    b2,
    beta3=None,
    eps,
    weight_decay,
    rate,
    weight,
    distance,
    next_distance,
):
    mu = average(slots.mu, distance * grad, b1)
    nu = average(slots.nu, abs_sq(distance * grad), b2)
    direction = mu / (sqrt(nu) + next_distance * eps) + weight_decay * param
    grad_sum = _memory(b2, beta3) * slots.grad_sum + weight * grad
    return -rate * direction, Slots(mu, nu, grad_sum, slots.params0)


@definition
def prodigy(
    learning_rate: Hyperparam = 1.0,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    beta3: Decay | None = None,
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    estim_lr_coef: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
    safeguard_warmup: bool = False,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""Prodigy: AdamW without a learning rate to tune.

    It estimates the learning rate during training, from the way of the parameters along their
    gradients.

    For every array, all of one shape but d, r and γ, which are scalars of the whole tree: γ = η d
    √(1 − β2^t)/(1 − β1^t), m ← β1 m + (1 − β1) d g, v ← β2 v + (1 − β2) d² g², r ← β3 r + (d/d0) γ
    ⟨g, θ0 − θ⟩, s ← β3 s + (d/d0) γ g, d' = max(d, c r/‖s‖₁), θ ← θ − γ (m/(√v + d' ε) + λ θ), then
    d ← d'.

    When: the learning rate is unknown, and there is time for one run only; fine-tuning and
    diffusion models are its common uses. When not: memory is short, or the learning rate is known;
    take `adamw`, which stores half.

    d never falls: misleading gradients early in a run leave it too large. Entries that are not
    finite do not count in the sums, and a step whose sums are zero or overflow leaves d as it was.

    Args:
      learning_rate: η, a factor of the estimate, without unit; 1, or a schedule that ends in 0.
      betas: β1 and β2, each in [0, 1), as in Adam.
      beta3: β3 in [0, 1), memory of the estimate; None: √β2.
      eps: ε ≥ 0, relative to d; 1e-8.
      estim_lr0: d0 > 0, d before the first step; 1e-6, with little effect while it is less than the
        distance.
      estim_lr_coef: c > 0, a factor of the estimate, and the number to tune if any; 0.5 to 2.
      weight_decay: λ ≥ 0, decoupled, per unit of γ; 0 to 0.1.
      safeguard_warmup: d in place of γ in s, so that a warmup of η does not raise the estimate.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 16 bytes per parameter (m, v, s, θ0), and two scalars.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.prodigy()
    >>> w = jnp.array([3.0, -1.0])
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(200):  # half the squared distance to 0, which is unknown
    ...     updates, state = step(w, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> bool(jnp.linalg.norm(w) < 0.1), bool(0.1 < state.slots["prodigy"]["estim_lr"] < 3.2)
    (True, True)

    See also: `dadapt_adamw`, `adamw`.

    Mishchenko and Defazio 2023, arXiv 2306.06101, the algorithm for Adam, with bias correction.
    """
    b1, b2 = betas
    return apply_axis_flags(
        leafwise(
            _init,
            _prodigy,
            measure=_measure,
            conclude=_conclude,
            init_tree_slots=init_estimate,
            needs_params=True,
            b1=b1,
            b2=b2,
        ),
        flags,
    )
