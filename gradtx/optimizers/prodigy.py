r"""Prodigy: Adam's step, times an estimate d of the distance to the solution that only grows.

    γ = η d √(1 − β2^t) / (1 − β1^t)
    m ← β1 m + (1 − β1) d g
    v ← β2 v + (1 − β2) d² g²
    r ← β3 r + (d / d0) γ Σ ⟨g, θ0 − θ⟩
    s ← β3 s + (d / d0) γ g                                  (d in place of γ with `safeguard_warmup`)
    d' = max(d, c r / Σ ‖s‖₁)                                (sums over all arrays)
    θ ← θ − γ (m / (√v + d' ε) + λ θ),  then d ← d'

Only ε sees the new estimate in the step that finds it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, NonNegative, Positive, Precise, Squares
from gradtx.optimizers.dadapt_adamw import Estimate, Found, grown, init_estimate, norm1
from gradtx.transforms.moments import average, corrected_rate
from gradtx.tree.arithmetic import abs_sq, dot, sum_scalars
from gradtx.tree.casts import float_copy, real_zeros, zeros


class Slots(NamedTuple):
    """Averages of scaled gradients (mu) and of their squares (nu), a weighted sum of gradients, and
    the first parameters.
    """

    mu: jax.Array
    nu: Squares
    grad_sum: jax.Array
    params0: Precise


def _init(param: jax.Array) -> Slots:
    return Slots(zeros(param), real_zeros(param), zeros(param), float_copy(param))


def _new_sum(
    grad: jax.Array, old: jax.Array, weight: jax.Array, b2: jax.Array, beta3: jax.Array | None
) -> jax.Array:
    return _beta3(b2, beta3) * old + weight * grad


def _beta3(b2: jax.Array, beta3: jax.Array | None) -> jax.Array:
    return jnp.sqrt(b2) if beta3 is None else beta3


def _weight(
    estim_lr: jax.Array, estim_lr0: jax.Array, rate: jax.Array, safeguard_warmup: bool
) -> jax.Array:
    """What a gradient counts in the denominator of the estimate; with the safeguard a warmup does
    not make it small.
    """
    return estim_lr / estim_lr0 * (estim_lr if safeguard_warmup else rate)


def _measure(
    grad: jax.Array,
    slots: Slots,
    param: jax.Array,
    step: jax.Array,
    *,
    learning_rate: jax.Array,
    b1: jax.Array,
    b2: jax.Array,
    beta3: jax.Array | None = None,
    estim_lr0: jax.Array,
    estim_lr: jax.Array,
    safeguard_warmup: bool,
) -> Found:
    rate = corrected_rate(learning_rate * estim_lr, b1, b2, step)
    weight = _weight(estim_lr, estim_lr0, rate, safeguard_warmup)
    return Found(
        dot(grad, slots.params0 - param), norm1(_new_sum(grad, slots.grad_sum, weight, b2, beta3))
    )


def _conclude(
    found: Any,
    shared: Estimate,
    step: jax.Array,
    *,
    learning_rate: jax.Array,
    b1: jax.Array,
    b2: jax.Array,
    beta3: jax.Array | None = None,
    estim_lr0: jax.Array,
    estim_lr_coef: jax.Array,
    safeguard_warmup: bool,
) -> Any:
    old = shared.estim_lr
    rate = corrected_rate(learning_rate * old, b1, b2, step)
    numerator = _beta3(b2, beta3) * shared.numerator + old / estim_lr0 * rate * sum_scalars(
        found.inner
    )
    divisor = sum_scalars(found.norm1)
    new = grown(shared, numerator, divisor / estim_lr_coef)
    return {
        "rate": rate,
        "old": old,
        "new": new.estim_lr,
        "weight": _weight(old, estim_lr0, rate, safeguard_warmup),
    }, new


def _update(
    grad: jax.Array,
    slots: Slots,
    param: jax.Array,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    beta3: jax.Array | None = None,
    eps: jax.Array,
    weight_decay: jax.Array,
    rate: jax.Array,
    old: jax.Array,
    new: jax.Array,
    weight: jax.Array,
) -> Any:
    mu, nu = average(slots.mu, old * grad, b1), average(slots.nu, abs_sq(old * grad), b2)
    kept = Slots(mu, nu, _new_sum(grad, slots.grad_sum, weight, b2, beta3), slots.params0)
    return -rate * (mu / (jnp.sqrt(nu) + new * eps) + weight_decay * param), kept


@definition
def prodigy(
    learning_rate: NonNegative = 1.0,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    beta3: Decay | None = None,
    eps: NonNegative = 1e-8,
    estim_lr0: Positive = 1e-6,
    estim_lr_coef: Positive = 1.0,
    weight_decay: NonNegative = 0.0,
    safeguard_warmup: bool = False,
) -> GradientTransformation:
    r"""AdamW whose learning rate is found on the way, from how far the parameters travelled along
    their gradients.

    For every array, all of one shape but d, r and γ, which are scalars of the whole tree: γ = η d
    √(1 − β2^t)/(1 − β1^t), m ← β1 m + (1 − β1) d g, v ← β2 v + (1 − β2) d² g², r ← β3 r + (d/d0) γ
    ⟨g, θ0 − θ⟩, s ← β3 s + (d/d0) γ g, d' = max(d, c r/‖s‖₁), θ ← θ − γ (m/(√v + d' ε) + λ θ), then
    d ← d'.

    When: the learning rate is unknown, and one run is all there is; fine-tuning and diffusion
    models are its common uses.
    When not: memory is short, or the learning rate is known; take `adamw`, which keeps half.

    d never falls: one misleading stretch early leaves it too large. Entries that are not finite do
    not count in the sums, and a step whose sums are zero or overflow leaves d as it was.

    Args:
      learning_rate: η ≥ 0, a factor of the estimate, without unit; 1, or a schedule that ends in 0.
      betas: β1 and β2, each in [0, 1), as in Adam.
      beta3: β3 in [0, 1), memory of the estimate; None: √β2.
      eps: ε ≥ 0, relative to d; 1e-8.
      estim_lr0: d0 > 0, d before the first step; 1e-6, with little effect while it is less than the
        distance.
      estim_lr_coef: c > 0, a factor of the estimate, and the number to tune if any; 0.5 to 2.
      weight_decay: λ ≥ 0, decoupled, per unit of γ; 0 to 0.1.
      safeguard_warmup: d in place of γ in s, so that a warmup of η does not raise the estimate.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 16 bytes per parameter (m, v, s, θ0), and two scalars.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.prodigy()
    >>> w = jnp.array([3.0, -1.0])
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(200):  # half the squared distance to 0; nobody says how far that is
    ...     updates, state = step(w, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> bool(jnp.linalg.norm(w) < 0.1), bool(0.1 < state.slots["prodigy"]["estim_lr"] < 3.2)
    (True, True)

    See also: `dadapt_adamw`, `adamw`.

    Mishchenko and Defazio 2023, arXiv 2306.06101, the algorithm for Adam, with bias correction.
    """
    b1, b2 = betas
    return leafwise(
        _init,
        _update,
        learning_rate=learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        estim_lr0=estim_lr0,
        estim_lr_coef=estim_lr_coef,
        beta3=beta3,
        safeguard_warmup=safeguard_warmup,
        measure=_measure,
        conclude=_conclude,
        init_tree_slots=init_estimate,
        needs_params=True,
    )
