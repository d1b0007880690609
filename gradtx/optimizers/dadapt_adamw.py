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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, NonNegative, Positive, Squares
from gradtx.transforms.moments import average, corrected_rate
from gradtx.tree.arithmetic import abs_sq, dot, finite, sum_scalars, where_finite
from gradtx.tree.casts import real_zeros, zeros


class Slots(NamedTuple):
    """Averages of scaled gradients (mu), of squared gradients (nu), and a weighted sum of
    gradients.
    """

    mu: jax.Array
    nu: Squares
    grad_sum: jax.Array


class Estimate(NamedTuple):
    """The estimated distance d, and the numerator r of its next value."""

    estim_lr: jax.Array
    numerator: jax.Array


class Found(NamedTuple):
    """What one array adds to the numerator and to the denominator of the estimate."""

    inner: jax.Array
    norm1: jax.Array


def init_estimate(*, estim_lr0: jax.Array) -> Estimate:
    return Estimate(jnp.asarray(estim_lr0), jnp.zeros(()))


def grown(old: Estimate, numerator: jax.Array, divisor: jax.Array) -> Estimate:
    """d ← max(d, r / divisor); a divisor of zero and sums that overflow leave the estimate as it
    was.
    """
    ratio = numerator / jnp.where(divisor > 0, divisor, 1.0)
    usable = (divisor > 0) & jnp.isfinite(ratio)
    return Estimate(
        jnp.where(usable, jnp.maximum(old.estim_lr, ratio), old.estim_lr),
        where_finite(numerator, old.numerator),
    )


def norm1(array: jax.Array) -> jax.Array:
    """‖x‖₁ of the finite entries."""
    return jnp.sum(jnp.abs(finite(array)))


def _init(param: jax.Array) -> Slots:
    return Slots(zeros(param), real_zeros(param), zeros(param))


def _new_sum(grad: jax.Array, old: jax.Array, rate: jax.Array, b2: jax.Array) -> jax.Array:
    return average(old, rate * grad, jnp.sqrt(b2))


def _measure(
    grad: jax.Array,
    slots: Slots,
    param: jax.Array,
    step: jax.Array,
    *,
    learning_rate: jax.Array,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    estim_lr: jax.Array,
) -> Found:
    rate = corrected_rate(learning_rate * estim_lr, b1, b2, step)
    root = jnp.sqrt(slots.nu) + eps
    scaled = jnp.where(root > 0, slots.grad_sum / jnp.where(root > 0, root, 1.0), 0.0)
    return Found(dot(grad, scaled), norm1(_new_sum(grad, slots.grad_sum, rate, b2)))


def _conclude(
    found: Any,
    shared: Estimate,
    step: jax.Array,
    *,
    learning_rate: jax.Array,
    b1: jax.Array,
    b2: jax.Array,
) -> Any:
    b3 = jnp.sqrt(b2)
    rate = corrected_rate(learning_rate * shared.estim_lr, b1, b2, step)
    numerator = average(shared.numerator, rate * sum_scalars(found.inner), b3)
    return {"rate": rate}, grown(shared, numerator, (1 - b3) * sum_scalars(found.norm1))


def _update(
    grad: jax.Array,
    slots: Slots,
    param: jax.Array,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
    rate: jax.Array,
) -> Any:
    mu, nu = average(slots.mu, rate * grad, b1), average(slots.nu, abs_sq(grad), b2)
    return -mu / (jnp.sqrt(nu) + eps) - rate * weight_decay * param, Slots(
        mu, nu, _new_sum(grad, slots.grad_sum, rate, b2)
    )


@definition
def dadapt_adamw(
    learning_rate: NonNegative = 1.0,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    weight_decay: NonNegative = 0.0,
) -> GradientTransformation:
    r"""AdamW whose learning rate is an estimate of the distance to the solution, from below, that
    grows as it learns.

    For every array, all of one shape but d, r and γ, which are scalars of the whole tree: γ = η d
    √(1 − β2^t)/(1 − β1^t), r ← β3 r + (1 − β3) γ ⟨g, s/(√v + ε)⟩, m ← β1 m + (1 − β1) γ g, v ← β2 v
    + (1 − β2) g², s ← β3 s + (1 − β3) γ g, d ← max(d, r/((1 − β3) ‖s‖₁)), θ ← θ − m/(√v + ε) − γ λ
    θ, with β3 = √β2.

    When: Adam suits the problem and its learning rate is unknown. When not: `prodigy` is at hand,
    which finds the same number sooner; or the learning rate is known, for `adamw` keeps a third
    less.

    d never falls: one misleading stretch early leaves it too large. Entries that are not finite do
    not count in the sums, and a step whose sums are zero or overflow leaves d as it was.

    Args:
      learning_rate: η ≥ 0, a factor of the estimate, without unit; 1, or a schedule that ends in 0.
      betas: β1 and β2, each in [0, 1), as in Adam.
      eps: ε ≥ 0, beside the root; 1e-8.
      estim_lr0: d before the first step, > 0, less than the distance; 1e-8 to 1e-4, with little
        effect.
      weight_decay: λ ≥ 0, decoupled, per unit of γ; 0 to 0.1.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 12 bytes per parameter (m, v, s), and two scalars.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.dadapt_adamw()
    >>> w = jnp.array([3.0, -1.0])
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(400):  # half the squared distance to 0; nobody says how far that is
    ...     updates, state = step(w, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> bool(jnp.linalg.norm(w) < 0.1), bool(1.0 < state.slots["dadapt_adamw"]["estim_lr"] < 10.0)
    (True, True)

    See also: `prodigy`, `adamw`.

    Defazio and Mishchenko 2023, arXiv 2301.07733, the algorithm for Adam, with bias correction.
    """
    b1, b2 = betas
    return leafwise(
        _init,
        _update,
        learning_rate=learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        estim_lr0=estim_lr0,
        weight_decay=weight_decay,
        measure=_measure,
        conclude=_conclude,
        init_tree_slots=init_estimate,
        needs_params=True,
    )
