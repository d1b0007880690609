r"""D-Adaptation of AdamW: Adam's step, times a lower bound d of the distance to the solution that
only grows.

γ = η d √(1 − β2^t) / (1 − β1^t)          β3 = √β2
r ← β3 r + (1 − β3) γ Σ ⟨g, s / (√v + ε)⟩                   (s and v of the step before)
m ← β1 m + (1 − β1) γ g
v ← β2 v + (1 − β2) g²
s ← β3 s + (1 − β3) γ g
d ← max(d, r / ((1 − β3) Σ ‖s‖₁))                            (sums over all arrays)
θ ← θ − m / (√v + ε) − γ λ θ
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative, Positive, Squares
from gradtx.transforms.distances import (
    Estimate,
    EstimateParts,
    finite_norm1,
    init_estimate,
    raise_estimate,
)
from gradtx.transforms.moments import average, corrected_rate
from gradtx.tree.arithmetic import abs_sq, dot, sqrt, sum_scalars
from gradtx.tree.casts import real_zeros, zeros


class Slots(NamedTuple):
    """Averages of scaled gradients (mu), of squared gradients (nu), and a weighted sum of
    gradients.
    """

    mu: jax.Array
    nu: Squares
    grad_sum: jax.Array


def _init(param) -> Slots:
    return Slots(zeros(param), real_zeros(param), zeros(param))


def _measure(
    grad, slots: Slots, param, step, *, learning_rate, b1, b2, eps, estim_lr
) -> EstimateParts:
    rate = corrected_rate(learning_rate * estim_lr, b1, b2, step)
    root = sqrt(slots.nu) + eps
    # With ε = 0 the root is 0 until the first gradient, and so is s.
    direction = jnp.where(root > 0, slots.grad_sum / jnp.where(root > 0, root, 1.0), 0.0)
    grad_sum = average(slots.grad_sum, rate * grad, sqrt(b2))
    return EstimateParts(dot(grad, direction), finite_norm1(grad_sum))


def _conclude(measures, tree_slots: Estimate, step, *, learning_rate, b1, b2):
    b3 = sqrt(b2)
    rate = corrected_rate(learning_rate * tree_slots.estim_lr, b1, b2, step)
    numerator = average(tree_slots.numerator, rate * sum_scalars(measures.inner), b3)
    divisor = (1 - b3) * sum_scalars(measures.norm1)
    return {"rate": rate}, raise_estimate(tree_slots, numerator, divisor)


def _dadapt_adamw(grad, slots: Slots, param, step, *, b1, b2, eps, weight_decay, rate):
    # γ is inside m, as in the paper: each gradient enters with the estimate of its own step.
    mu, nu = average(slots.mu, rate * grad, b1), average(slots.nu, abs_sq(grad), b2)
    grad_sum = average(slots.grad_sum, rate * grad, sqrt(b2))
    update = -mu / (sqrt(nu) + eps) - rate * weight_decay * param
    return update, Slots(mu, nu, grad_sum)


@definition
def dadapt_adamw(
    learning_rate: Hyperparam = 1.0,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""D-Adaptation: AdamW without a learning rate to tune.

    Its learning rate is a lower bound of the distance to the solution, which grows during training.

    For every array, all of one shape but d, r and γ, which are scalars of the whole tree: γ = η d
    √(1 − β2^t)/(1 − β1^t), r ← β3 r + (1 − β3) γ ⟨g, s/(√v + ε)⟩, m ← β1 m + (1 − β1) γ g, v ← β2 v
    + (1 − β2) g², s ← β3 s + (1 − β3) γ g, d ← max(d, r/((1 − β3) ‖s‖₁)), θ ← θ − m/(√v + ε) − γ λ
    θ, with β3 = √β2.

    When: Adam suits the problem and its learning rate is unknown. When not: `prodigy` is
    available, which reaches the same estimate sooner; or the learning rate is known, for `adamw`
    stores a third less.

    d never falls: misleading gradients early in a run leave it too large. Entries that are not
    finite do not count in the sums, and a step whose sums are zero or overflow leaves d as it was.

    Args:
      learning_rate: η, a factor of the estimate, without unit; 1, or a schedule that ends in 0.
      betas: β1 and β2, each in [0, 1), as in Adam.
      eps: ε ≥ 0, added to the root; 1e-8.
      estim_lr0: d before the first step, > 0, less than the distance; 1e-8 to 1e-4, with little
        effect.
      weight_decay: λ ≥ 0, decoupled, per unit of γ; 0 to 0.1.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 12 bytes per parameter (m, v, s), and two scalars.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.dadapt_adamw()
    >>> w = jnp.array([3.0, -1.0])
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(400):  # half the squared distance to 0, which is unknown
    ...     updates, state = step(w, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> bool(jnp.linalg.norm(w) < 0.1), bool(1.0 < state.slots["dadapt_adamw"]["estim_lr"] < 10.0)
    (True, True)

    See also: `prodigy`, `adamw`.

    Defazio and Mishchenko 2023, arXiv 2301.07733, the algorithm for Adam, with bias correction.
    """
    b1, b2 = betas
    return apply_axis_flags(
        leafwise(
            _init,
            _dadapt_adamw,
            measure=_measure,
            conclude=_conclude,
            init_tree_slots=init_estimate,
            needs_params=True,
            b1=b1,
            b2=b2,
        ),
        flags,
    )
