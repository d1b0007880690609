r"""Mechanic: a learning rate found for another optimizer, by a bet on the direction that it has
taken so far.

With U the base optimizer's update, of whatever size, θ0 the first parameters, S the sum of the s_i,
which begin at 0, and for n rates of forgetting β_i = 1 − 10^−i, i = 1, …, n:

    Δ = (θ0 − θ) / (S + ε)                                 how far the base optimizer went, at scale 1
    h = ⟨g + λ S ‖g‖ / (‖θ‖ + ε) θ, Δ⟩                     what a larger scale would have gained
    r_i ← β_i r_i + clip(h, −m_i, m_i) s_i
    m_i ← max(β_i m_i, |h| + ε)
    v_i ← β_i² v_i + h²
    s_i ← (s0 m_i / n + max(r_i, 0)) / (√v_i + ε)
    θ ← θ0 − S (Δ − U)                                     (with the new S)

Norms and inner products run over all arrays.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import NonNegative, Precise
from gradtx.engine.rules import Child
from gradtx.tree.arithmetic import dot, sum_scalars
from gradtx.tree.casts import float_copy


class Start(NamedTuple):
    """The first parameters."""

    params0: Precise


class Bets(NamedTuple):
    """For every rate of forgetting: reward, largest gain, sum of squared gains, and scale."""

    r: jax.Array
    m: jax.Array
    v: jax.Array
    s: jax.Array


class Found(NamedTuple):
    """Of one array: the squares of g and θ, and their inner products with θ0 − θ."""

    grad: jax.Array
    param: jax.Array
    grad_way: jax.Array
    param_way: jax.Array


def _init(param: jax.Array) -> Start:
    return Start(float_copy(param))


def _init_shared(*, num_betas: int) -> Bets:
    return Bets(*(jnp.zeros(num_betas) for _ in Bets._fields))


def _measure(
    update: jax.Array, slots: Start, param: jax.Array, step: jax.Array, *, input_grad: jax.Array
) -> Found:
    way = slots.params0 - param
    return Found(
        dot(input_grad, input_grad), dot(param, param), dot(input_grad, way), dot(param, way)
    )


def _conclude(
    found: Any,
    shared: Bets,
    step: jax.Array,
    *,
    weight_decay: jax.Array,
    eps: jax.Array,
    s_init: jax.Array,
    num_betas: int,
) -> tuple[dict[str, Any], Bets]:
    scale, decays = (
        jnp.sum(shared.s),
        1 - 10.0 ** -jnp.arange(1, num_betas + 1, dtype=shared.s.dtype),
    )
    pull = (
        weight_decay
        * scale
        * jnp.sqrt(sum_scalars(found.grad))
        / (jnp.sqrt(sum_scalars(found.param)) + eps)
    )
    gain = (sum_scalars(found.grad_way) + pull * sum_scalars(found.param_way)) / (scale + eps)
    r = decays * shared.r + jnp.clip(gain, -shared.m, shared.m) * shared.s
    m = jnp.maximum(decays * shared.m, jnp.abs(gain) + eps)
    v = decays**2 * shared.v + gain**2
    s = (s_init / num_betas * m + jnp.maximum(r, 0.0)) / (jnp.sqrt(v) + eps)
    # Sums that overflow, and the divisions by zero that eps=0 allows, leave the bets as they were.
    usable = jnp.all(jnp.isfinite(s)) & jnp.isfinite(gain**2)
    new = Bets(
        *(
            jnp.where(usable, now, before)
            for now, before in zip(Bets(r, m, v, s), shared, strict=True)
        )
    )
    now = jnp.sum(new.s)
    return {"back": (scale + eps - now) / (scale + eps), "scale": now}, new


def _update(
    update: jax.Array,
    slots: Start,
    param: jax.Array,
    step: jax.Array,
    *,
    back: jax.Array,
    scale: jax.Array,
) -> Any:
    return back * (
        slots.params0 - param
    ) + scale * update, slots  # θ0 − S (Δ − U) − θ, without a difference of near equals


def _init_both(params: Any, *, both: GradientTransformation) -> dict[str, Any]:
    return both.init_slots(params)


def _update_both(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    both: GradientTransformation,
    extra: Mapping[str, Any],
) -> Any:
    return both.update_slots(updates, slots, params, step, extra)


def _inside(slots: Any, count: Any, *, both: GradientTransformation) -> list[Child]:
    return [Child(both, slots, count)]


@definition
def mechanize(
    base_optimizer: GradientTransformation,
    weight_decay: NonNegative = 1e-2,
    eps: NonNegative = 1e-8,
    s_init: NonNegative = 1e-6,
    num_betas: int = 6,
) -> GradientTransformation:
    r"""Mechanic: the base optimizer's updates, times a scale S that is learned on the way.

    For arrays of any shapes, with norms and inner products over all of them, and n = `num_betas`: Δ
    = (θ0 − θ)/(S + ε), h = ⟨g + λ S ‖g‖/(‖θ‖ + ε) θ, Δ⟩, r_i ← β_i r_i + clip(h, −m_i, m_i) s_i,
    m_i ← max(β_i m_i, |h| + ε), v_i ← β_i² v_i + h², s_i ← (s0 m_i/n + max(r_i, 0))/(√v_i + ε), S =
    Σ s_i, θ ← θ0 − S (Δ − U), with β_i = 1 − 10^−i.

    When: the base optimizer and its schedule are known, and the learning rate alone is not: give it
    a rate of 1. When not: the rate is known; or updates are accumulated or skipped inside
    `base_optimizer`, for every step counts as its bet.

    Entries that are not finite do not count in the sums; sums that overflow leave the scale as it
    was.

    Args:
      base_optimizer: gives U, a descending update with its schedule: `sgd(1.0)`,
        `adamw(warmup_cosine_decay_schedule(...))`.
      weight_decay: λ ≥ 0, for the scale alone: it makes for steadier ones; 0 to 0.1.
      eps: ε ≥ 0, beside the divisors; 1e-8.
      s_init: s0 ≥ 0, the scale at first, with little effect while it is too small; but s0 U must
        move a parameter by more than its rounding, in float32 1e-7 of its size, or nothing ever
        begins; 1e-8 to 1e-3.
      num_betas: n, how many rates of forgetting bet beside each other. Static; 6.

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
            f"mechanize: num_betas = {num_betas!r} is no whole number of at least 1"
        )
    bet = leafwise(
        _init,
        _update,
        weight_decay=weight_decay,
        eps=eps,
        s_init=s_init,
        num_betas=num_betas,
        measure=_measure,
        conclude=_conclude,
        init_tree_slots=_init_shared,
        needs_params=True,
    )
    both = chain(
        base_optimizer=base_optimizer, mechanic=bet
    )  # a program of its own, whose raw gradient is what `mechanize` is given
    return treewise(_init_both, _update_both, both=both, children=_inside)
