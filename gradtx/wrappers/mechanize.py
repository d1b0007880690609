r"""Mechanic: a learned learning rate for another optimizer.

It bets on the direction that the base optimizer took so far.

With U the base optimizer's update, of whatever size, θ0 the first parameters, S the sum of the s_i,
which begin at 0, and for n rates of forgetting β_i = 1 − 10^−i, i = 1, …, n:

    Δ = (θ0 − θ) / (S + ε)                     the way of the base optimizer, at scale 1
    h = ⟨g + λ S ‖g‖ / (‖θ‖ + ε) θ, Δ⟩         the gain of a larger scale
    r_i ← β_i r_i + clip(h, −m_i, m_i) s_i
    m_i ← max(β_i m_i, |h| + ε)
    v_i ← β_i² v_i + h²
    s_i ← (s0 m_i / n + max(r_i, 0)) / (√v_i + ε)
    θ ← θ0 − S (Δ − U)                         (with the new S)

Norms and inner products run over all arrays.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import NonNegative, Precise
from gradtx.tree.arithmetic import dot, sqrt, sum_scalars
from gradtx.tree.casts import float_copy


class Start(NamedTuple):
    """The first parameters."""

    params0: Precise


class Bets(NamedTuple):
    """Reward, largest gain, sum of squared gains, and scale, for every rate of forgetting."""

    r: jax.Array
    m: jax.Array
    v: jax.Array
    s: jax.Array


class Products(NamedTuple):
    """The squared norms of g and θ of one array, and their inner products with θ0 − θ."""

    grad: jax.Array
    param: jax.Array
    grad_way: jax.Array
    param_way: jax.Array


def _init(param) -> Start:
    return Start(float_copy(param))


def _init_tree_slots(*, num_betas: int) -> Bets:
    return Bets(*(jnp.zeros(num_betas) for _ in Bets._fields))


def _measure(update, slots: Start, param, step, *, input_grad) -> Products:
    way = slots.params0 - param
    squares = dot(input_grad, input_grad), dot(param, param)
    return Products(*squares, dot(input_grad, way), dot(param, way))


def _conclude(
    measures, tree_slots: Bets, step, *, weight_decay, eps, s_init, num_betas: int
) -> tuple[dict[str, jax.Array], Bets]:
    r, m, v, s = tree_slots
    scale, decays = jnp.sum(s), 1 - 10.0 ** -jnp.arange(1, num_betas + 1, dtype=s.dtype)
    grad_norm = sqrt(sum_scalars(measures.grad))
    param_norm = sqrt(sum_scalars(measures.param))
    pull = weight_decay * scale * grad_norm / (param_norm + eps)
    product = sum_scalars(measures.grad_way) + pull * sum_scalars(measures.param_way)
    gain = product / (scale + eps)
    r = decays * r + jnp.clip(gain, -m, m) * s
    m = jnp.maximum(decays * m, jnp.abs(gain) + eps)
    v = decays**2 * v + gain**2
    s = (s_init / num_betas * m + jnp.maximum(r, 0.0)) / (sqrt(v) + eps)
    # Sums that overflow, and the divisions by zero that eps=0 allows, keep the old bets.
    usable = jnp.all(jnp.isfinite(s)) & jnp.isfinite(gain**2)
    pairs = zip((r, m, v, s), tree_slots, strict=True)
    bets = Bets(*(jnp.where(usable, new, old) for new, old in pairs))
    new_scale = jnp.sum(bets.s)
    return {"back": (scale + eps - new_scale) / (scale + eps), "scale": new_scale}, bets


def _mechanic(update, slots: Start, param, step, *, back, scale):
    # θ0 − S (Δ − U) − θ, written without a difference of near equals.
    return back * (slots.params0 - param) + scale * update, slots


def _mechanize(updates, own, params, step, *, inner: Member):
    return *inner.update(updates, params), own


@definition
def mechanize(
    base_optimizer: GradientTransformation,
    weight_decay: NonNegative = 1e-2,
    eps: NonNegative = 1e-8,
    s_init: NonNegative = 1e-6,
    num_betas: int = 6,
) -> GradientTransformation:
    r"""Mechanic: a learned learning rate (scale) for the updates of a base optimizer.

    For arrays of any shapes, with norms and inner products over all of them, and n = `num_betas`: Δ
    = (θ0 − θ)/(S + ε), h = ⟨g + λ S ‖g‖/(‖θ‖ + ε) θ, Δ⟩, r_i ← β_i r_i + clip(h, −m_i, m_i) s_i,
    m_i ← max(β_i m_i, |h| + ε), v_i ← β_i² v_i + h², s_i ← (s0 m_i/n + max(r_i, 0))/(√v_i + ε), S =
    Σ s_i, θ ← θ0 − S (Δ − U), with β_i = 1 − 10^−i.

    When: the base optimizer and its schedule are known, and only the learning rate is not; set the
    rate to 1. When not: the rate is known; or `base_optimizer` accumulates or skips updates,
    because every step counts as a bet.

    Entries that are not finite do not count in the sums. Where sums overflow, the scale keeps its
    value.

    Args:
      base_optimizer: gives U, a descending update with its schedule: `sgd(1.0)`,
        `adamw(warmup_cosine_decay_schedule(...))`.
      weight_decay: λ ≥ 0, for the scale alone; it makes the scale steadier; 0 to 0.1.
      eps: ε ≥ 0, added to the divisors; 1e-8.
      s_init: s0 ≥ 0, the scale at first; 1e-8 to 1e-3. A value that is too small has little
        effect. But s0 U must move a parameter by more than its rounding, in float32 1e-7 of its
        size, otherwise the scale never grows.
      num_betas: n, the number of rates of forgetting. Static; 6.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (θ0), 4 n scalars, and that of `base_optimizer`.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w = jnp.array([3.0, -1.0])
    >>> for rate in (1.0, 1e3):  # whatever the rate of the base optimizer
    ...     tx = gradtx.mechanize(gradtx.sgd(rate), weight_decay=0.0)
    ...     v, state, step = w, tx.init(w), jax.jit(tx.update)
    ...     for _ in range(300):  # half the squared distance to 0
    ...         updates, state = step(v, state, v)
    ...         v = gradtx.apply_updates(v, updates)
    ...     print(bool(jnp.linalg.norm(v) < 0.1))
    True
    True

    See also: `prodigy`, `dog`.

    Cutkosky, Defazio and Mehta 2023, arXiv 2306.00144, Algorithm 1, with Δ recovered from the
    parameters."""
    if not isinstance(num_betas, int) or num_betas < 1:
        raise HyperparamError(
            f"mechanize: num_betas = {num_betas!r} must be a whole number of at least 1"
        )
    bet = leafwise(
        _init,
        _mechanic,
        measure=_measure,
        conclude=_conclude,
        init_tree_slots=_init_tree_slots,
        needs_params=True,
    )
    # A wrapper around the chain: `input_grad` is then the gradient that `mechanize` itself
    # receives, also as a member of a longer chain.
    both = chain(base_optimizer=base_optimizer, mechanic=bet)
    return wrapwise(both, None, _mechanize)
