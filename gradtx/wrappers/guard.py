r"""Guard: leave out the steps whose gradient is not finite, too large, or a spike.

With n = ‖g‖ over all arrays, and m, v the mean and the variance of the norms so far:

    act = n finite  and  n ≤ n_max  and  n ≤ ℓ,    ℓ = m + z max(√v, m/100), once w norms are known that are not all 0
    θ, slots, count ← those of the inner transformation if act, else as they were
    ρ = max(1/t, 1 − β),  δ = min(n, ℓ) − m        for the t-th norm that is finite and within n_max
    m ← m + ρ δ,  v ← (1 − ρ)(v + ρ δ²)

Everything is worked out, and chosen entry by entry in the kernels that write it: no branch, no
copy, no word to the host."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import attach, detach, keep_if
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Decay, Interval, NonNegative, Numeric, Positive
from gradtx.engine.rules import Child
from gradtx.tree.arithmetic import global_norm
from gradtx.tree.maps import choose

Steps = Annotated[Numeric, Interval(1.0)]
"""A number of steps, 1 at least."""


class Guard(NamedTuple):
    """What a guard counts, and what it knows of norms."""

    applied: Any
    """Steps at which `inner` acted: what its clock says."""
    skipped: Any
    """Steps left out, for one of the three reasons that follow."""
    not_finite: Any
    """Steps left out because the norm was inf or nan."""
    too_large: Any
    """Steps left out because the norm was above `max_norm`."""
    spikes: Any
    """Steps left out because the norm was far above those before."""
    norm: Any
    """The norm of the last gradient, of one left out too."""
    mean: Any
    """The mean norm; None without `zscore`."""
    variance: Any
    """The variance of norms; None without `zscore`."""


class Verdict(NamedTuple):
    """What is wrong with a gradient: at most one of three."""

    not_finite: jax.Array
    too_large: jax.Array
    spike: jax.Array

    @property
    def gate(self) -> jax.Array:
        return ~(self.not_finite | self.too_large | self.spike)


def _init(params: Any, *, inner: GradientTransformation, zscore: Any = None) -> dict[str, Any]:
    counts = {
        name: jnp.zeros((), jnp.int32)
        for name in ("applied", "skipped", "not_finite", "too_large", "spikes")
    }
    norm, mean, variance = (jnp.zeros((), jnp.result_type(float)) for _ in range(3))
    statistics = (
        {"mean": None, "variance": None} if zscore is None else {"mean": mean, "variance": variance}
    )
    return attach(inner.init_slots(params), "guard", Guard(**counts, norm=norm, **statistics))


def _limit(kept: Guard, zscore: Any) -> jax.Array:
    """The largest norm that is no spike."""
    return kept.mean + zscore * jnp.maximum(jnp.sqrt(kept.variance), 0.01 * kept.mean)


def _judge(
    norm: jax.Array, kept: Guard, finite: bool, max_norm: Any, zscore: Any, warmup_steps: Any
) -> Verdict:
    none = jnp.asarray(False)
    not_finite = ~jnp.isfinite(norm) if finite else none
    too_large = none if max_norm is None else (norm > max_norm) & ~not_finite
    if zscore is None:
        return Verdict(not_finite, too_large, none)
    known = (kept.applied + kept.spikes >= warmup_steps) & (kept.mean > 0)
    return Verdict(
        not_finite, too_large, known & (norm > _limit(kept, zscore)) & ~not_finite & ~too_large
    )


def _learn(
    norm: jax.Array, kept: Guard, verdict: Verdict, zscore: Any, decay: Any
) -> dict[str, Any]:
    """The new statistics: a spike enters as the largest norm that is none, so that a level that has
    risen for good is soon known.
    """
    if zscore is None:
        return {}
    rate = jnp.maximum(1 / (kept.applied + kept.spikes + 1.0), 1 - decay)
    change = jnp.where(verdict.spike, _limit(kept, zscore), norm) - kept.mean
    enters = jnp.isfinite(norm) & ~verdict.too_large
    mean = jnp.where(enters, kept.mean + rate * change, kept.mean)
    variance = jnp.where(enters, (1 - rate) * (kept.variance + rate * change**2), kept.variance)
    return {"mean": mean.astype(kept.mean.dtype), "variance": variance.astype(kept.variance.dtype)}


def _count(kept: Guard, norm: jax.Array, verdict: Verdict, statistics: dict[str, Any]) -> Guard:
    return kept._replace(
        applied=kept.applied + verdict.gate,
        skipped=kept.skipped + ~verdict.gate,
        not_finite=kept.not_finite + verdict.not_finite,
        too_large=kept.too_large + verdict.too_large,
        spikes=kept.spikes + verdict.spike,
        norm=norm,
        **statistics,
    )


def _update(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    inner: GradientTransformation,
    finite: bool,
    max_norm: Any = None,
    zscore: Any = None,
    decay: Any = None,
    warmup_steps: Any = None,
    extra: Any,
    gate: Any,
) -> Any:
    old, kept = detach(slots, "guard")
    norm = global_norm(updates).astype(kept.norm.dtype)
    verdict = _judge(norm, kept, finite, max_norm, zscore, warmup_steps)
    counts = _count(kept, norm, verdict, _learn(norm, kept, verdict, zscore, decay))
    asked = verdict.gate if gate is None else gate & verdict.gate
    updates, new = inner.update_slots(updates, old, params, kept.applied + 1, extra, asked)
    return keep_if(asked, updates), attach(new, "guard", choose(gate, counts, kept))


def _inside(slots: Any, count: Any, *, inner: GradientTransformation) -> list[Child]:
    old, kept = detach(slots, "guard")
    return [Child(inner, old, kept.applied)]


def _report(slots: Any) -> dict[str, Any]:
    kept = slots["guard"]
    reasons = {
        f"{name}_steps": getattr(kept, name) for name in ("skipped", "not_finite", "too_large")
    }
    return {**reasons, "spike_steps": kept.spikes, "guarded_norm": kept.norm}


@definition
def guard(
    inner: TransformationLike,
    finite: bool = True,
    max_norm: NonNegative | None = None,
    zscore: Positive | None = None,
    *,
    decay: Decay = 0.97,
    warmup_steps: Steps = 25,
) -> GradientTransformation:
    r"""Leave out whole steps, parameters, slots and count, whose gradient is not finite, too large,
    or a spike.

    With n = ‖g‖ over all arrays, in float32 at least, a step is left out when n is inf or nan; when
    n > `max_norm`; or when n is more than z standard deviations above the mean of the norms before,
    n > m + z max(√v, m/100). The updates are then zero (−0, so that parameters stay the same bits)
    and the slots of `inner` are what they were: the next good step is as if the bad one had not
    been.

    The clock of `inner` counts the steps that were not left out. Where the guard is the whole
    definition, `state.count` is that clock, and schedules, bias corrections and `hyperparams(tx,
    at=state)` go by it. As one member of a chain a guard stills its own `inner` alone, so put the
    whole chain inside.

    m and v are equal weighted over the first 1/(1 − β) norms, and then forget as averages with
    decay β do. Until `warmup_steps` norms are known, and while all of them were 0, no step is a
    spike. A spike enters them as the largest norm that would have been none, so that a level that
    has risen for good is accepted: ten times the norm, for good, is left out for 32 steps at z = 4,
    and 16 at z = 6; for 17 and 8 where norms varied by a tenth before. What is not finite or above
    `max_norm` never enters.

    Within `shard_map` each device sees the norm of what it holds. Give it gradients that are alike
    on all of them; with parts of a model on each, use `jit` and shardings.

    When: long runs in low precision, or on data with a few bad batches. When not: gradients are
    never finite again once they were not; a guard then skips for ever, and `skipped` says so. To
    shorten large gradients rather than drop them, `clip_by_global_norm`; both together take one
    pass over the gradients.

    Args:
      inner: the transformation; put the whole chain here. Around `accumulate` a guard drops bad
        micro-batches, inside of it bad means.
      finite: leave out steps whose norm is inf or nan. A norm beyond float32, from entries of about
        1e19 on, counts as inf.
      max_norm: the largest norm that is no reason to skip, ≥ 0, in units of the gradient; None: no
        such limit.
      zscore: z > 0, in standard deviations; 4 to 6; None: no such test. Static is only whether
        there is one.
      decay: β in [0, 1), of m and v; 0.97 to 0.99.
      warmup_steps: norms to know before any is called a spike, ≥ 1; 25 to 100.

    Raises:
      HyperparamError: a number out of its range; a number in the place of `finite`; nothing to
        guard against.

    State: that of `inner`, and beside it under "guard" the counters `applied`, `skipped`,
    `not_finite`, `too_large` and `spikes`, the last `norm`, and with `zscore` the `mean` and
    `variance` of norms.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.guard(gradtx.sgd(0.5, momentum=0.9), max_norm=10.0)
    >>> w = jnp.array([1.0, 1.0])
    >>> _, state = tx.update(w, tx.init(w))
    >>> for bad in (jnp.array([jnp.nan, 1.0]), jnp.array([30.0, 40.0])):
    ...     updates, state = tx.update(bad, state)
    >>> updates.tolist(), state.slots["trace"].trace.tolist(), int(state.count), int(state.slots["guard"].skipped)
    ([-0.0, -0.0], [1.0, 1.0], 1, 2)

    See also: `apply_if_finite`, `dynamic_loss_scale`, `zclip`, `metrics`.
    """
    if not isinstance(finite, bool):
        raise HyperparamError(
            f"guard: finite = {finite!r} says whether to look for inf and nan, True or False; a limit is max_norm={finite!r}"
        )
    if not finite and max_norm is None and zscore is None:
        raise HyperparamError(
            "guard: finite=False, and neither max_norm nor zscore is given: there is nothing to guard against"
        )
    given = {"max_norm": max_norm, "zscore": zscore}
    if zscore is not None:
        given |= {"decay": decay, "warmup_steps": warmup_steps}
    return treewise(
        _init,
        _update,
        **{name: value for name, value in given.items() if value is not None},
        finite=finite,
        inner=inner,
        children=_inside,
        report=_report,
        own_clock=True,
    )
