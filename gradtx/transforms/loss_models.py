"""The model of the loss that MoMo and MoMo-Adam share: averaged tangents, and a lower bound.

    h = c (f̄ − γ) + ⟨d, θ⟩,   c = 1 + η λ
    τ = min(τ_max, max(h − c ρ f_*, 0) / ‖d‖²)

ρ is the weight of averages that began at zero; 1 where they began at their first values.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.transforms.moments import average
from gradtx.tree.arithmetic import sum_scalars


class LossModel(NamedTuple):
    """Averages of the loss and of ⟨g, θ⟩, and the lower bound of the loss."""

    value: jax.Array
    gamma: jax.Array
    lower_bound: jax.Array


class Products(NamedTuple):
    """Of one array: ⟨g, θ⟩, ⟨d, θ⟩, and the square of d in the norm of the step."""

    grad: jax.Array
    inner: jax.Array
    square: jax.Array


def init_loss_model(*, lower_bound: jax.Array) -> LossModel:
    """A model before the first loss."""
    return LossModel(jnp.zeros(()), jnp.zeros(()), jnp.asarray(lower_bound))


def model_step(
    measures: Any,
    old: LossModel,
    value: jax.Array,
    decay: jax.Array,
    longest: jax.Array,
    *,
    weight: jax.Array,
    shrink: jax.Array,
    lower_bound: jax.Array,
    adapt_lower_bound: bool,
) -> tuple[jax.Array, LossModel]:
    """The step length τ ≤ `longest`, and the model after the step.

    `measures` is a `Products` with one number per array in each field. `weight` is ρ, and
    `shrink` is c = 1 + η λ. With `adapt_lower_bound` f_* follows the model, and never falls below
    `lower_bound`.
    """
    mean = average(old.value, value, decay)
    gamma = average(old.gamma, sum_scalars(measures.grad), decay)
    inner, square = sum_scalars(measures.inner), sum_scalars(measures.square)
    height, least = shrink * (mean - gamma) + inner, old.lower_bound
    if adapt_lower_bound:
        lowered = jnp.maximum(height / (2 * shrink * weight), lower_bound)
        least = jnp.where(height < shrink * weight * least, lowered, least)
    gap = jnp.maximum(height - shrink * weight * least, 0.0)
    # Without a gradient there is no step; the inner `where` keeps 0/0 out of derivatives.
    ratio = gap / jnp.where(square > 0, square, 1.0)
    length = jnp.where(square > 0, jnp.minimum(longest, ratio), 0.0)
    if adapt_lower_bound:
        least = jnp.maximum((mean + inner - gamma - length * square / 2) / weight, lower_bound)
    # A loss of nan and sums that overflow make no step and change no average, which would stay nan.
    usable = jnp.isfinite(height) & jnp.isfinite(square)
    pairs = zip(LossModel(mean, gamma, least), old, strict=True)
    model = LossModel(*(jnp.where(usable, now, before) for now, before in pairs))
    return jnp.where(usable, length, 0.0), model
