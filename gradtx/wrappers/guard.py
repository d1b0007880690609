r"""Guard: skip the steps whose gradient is not finite, too large, or a spike.

With n = ‖g‖ over all arrays, and m, v the mean and the variance of the norms so far:

    act = n finite  and  n ≤ n_max  and  n ≤ ℓ
    ℓ = m + z max(√v, m/100)                        once w norms are known that are not all 0
    θ, slots, count ← those of the inner transformation if act, else as they were
    ρ = max(1/t, 1 − β),  δ = min(n, ℓ) − m        for the t-th norm that is finite and within n_max
    m ← m + ρ δ,  v ← (1 − ρ)(v + ρ δ²)

With `watch`, the loss or the norm, or both, are compared with the last W of each instead:

    spike = x > m + z s                             m, s: mean and deviation of the last W

The inner transformation always runs. The kernels that write its slots choose between new and old
values, entry by entry: a guard needs no branch, no copy, and no transfer to the host.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import keep_if
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Check, Decay, Interval, Limit, Numeric, Positive
from gradtx.engine.clock import next_count
from gradtx.transforms.rolling import check_window
from gradtx.tree.arithmetic import norm_of_tree, sqrt
from gradtx.tree.casts import promote
from gradtx.wrappers.guard_window import (
    COUNTERS,
    WINDOW,
    ZSCORE,
    WatchGuard,
    init_watch,
    judge_watched,
    remember,
    watched_names,
)

Steps = Annotated[Numeric, Interval(1.0)]
"""A number of steps, 1 at least."""


class Guard(NamedTuple):
    """The counters of a guard, and its statistics of norms."""

    applied: jax.Array
    """The number of updates that `inner` made: its clock."""
    skipped: jax.Array
    """The number of skipped steps, for any of the next three reasons."""
    not_finite: jax.Array
    """The number of steps skipped because the norm was inf or nan."""
    too_large: jax.Array
    """The number of steps skipped because the norm was above `max_norm`."""
    spikes: jax.Array
    """The number of steps skipped because the norm was far above earlier norms."""
    norm: jax.Array
    """The norm of the last gradient, skipped or not."""
    mean: Any
    """The mean norm; None without `zscore`."""
    variance: Any
    """The variance of norms; None without `zscore`."""


class Verdict(NamedTuple):
    """The fault of a gradient: at most one of the three is True."""

    not_finite: jax.Array
    too_large: jax.Array
    spike: jax.Array


def _init(params, *, zscore=None) -> Guard:
    # Each number is an array of its own: one array twice could not be donated.
    counters = {name: jnp.zeros((), jnp.int32) for name in COUNTERS}
    norm, mean, variance = (jnp.zeros((), jnp.result_type(float)) for _ in range(3))
    statistics = (None, None) if zscore is None else (mean, variance)
    return Guard(**counters, norm=norm, mean=statistics[0], variance=statistics[1])


def _limit(own: Guard, zscore) -> jax.Array:
    """The largest norm that is not a spike."""
    # A hundredth of the mean: where norms are nearly equal, √v alone would make each a spike.
    return own.mean + zscore * jnp.maximum(sqrt(own.variance), 0.01 * own.mean)


def _norms(own: Guard) -> jax.Array:
    """The number of norms in the statistics; in floats, where two counters at their limit add."""
    return own.applied.astype(own.norm.dtype) + own.spikes.astype(own.norm.dtype)


def _judge(norm, own: Guard, finite: bool, max_norm, zscore, warmup_steps) -> Verdict:
    false = jnp.asarray(False)
    not_finite = ~jnp.isfinite(norm) if finite else false
    too_large = false if max_norm is None else (norm > max_norm) & ~not_finite
    if zscore is None:
        return Verdict(not_finite, too_large, false)
    # While the mean is 0 there is no scale to compare with: the limit would be 0.
    known = operator.ge(*promote(_norms(own), warmup_steps)) & (own.mean > 0)
    spike = known & (norm > _limit(own, zscore)) & ~not_finite & ~too_large
    return Verdict(not_finite, too_large, spike)


def _learn(norm, own: Guard, verdict: Verdict, zscore, decay) -> Guard:
    """Update mean and variance; a spike enters as the limit, so that they adapt to a new level."""
    # The count of norms that entered, this one included: equal weights over the first ones.
    rate = jnp.maximum(1 / (_norms(own) + 1.0), 1 - decay)
    change = jnp.where(verdict.spike, _limit(own, zscore), norm) - own.mean
    enters = jnp.isfinite(norm) & ~verdict.too_large
    mean = jnp.where(enters, own.mean + rate * change, own.mean)
    variance = jnp.where(enters, (1 - rate) * (own.variance + rate * change**2), own.variance)
    # `decay` may be of a wider dtype, and the state must keep its own.
    return own._replace(mean=mean.astype(norm.dtype), variance=variance.astype(norm.dtype))


def _count(own: Any, norm, verdict: Verdict, gate) -> Any:
    return own._replace(
        applied=next_count(own.applied, gate),
        skipped=next_count(own.skipped, ~gate),
        not_finite=next_count(own.not_finite, verdict.not_finite),
        too_large=next_count(own.too_large, verdict.too_large),
        spikes=next_count(own.spikes, verdict.spike),
        norm=norm,
    )


def _guard(
    updates,
    own: Guard,
    params,
    step,
    *,
    inner: Member,
    finite: bool,
    max_norm=None,
    zscore=None,
    decay,
    warmup_steps,
):
    norm = norm_of_tree(updates).astype(own.norm.dtype)
    verdict = _judge(norm, own, finite, max_norm, zscore, warmup_steps)
    gate = ~(verdict.not_finite | verdict.too_large | verdict.spike)
    # The statistics use the counters from before this step.
    new = own if zscore is None else _learn(norm, own, verdict, zscore, decay)
    updates, inner = inner.update(updates, params, gate=gate)
    # Where a wrapper further out skips the step, it zeroes the updates itself.
    return keep_if(gate, updates), inner, _count(new, norm, verdict, gate)


def _watch(
    updates,
    own: WatchGuard,
    params,
    step,
    *,
    inner: Member,
    extra: Mapping[str, Any],
    finite: bool,
    max_norm=None,
    zscore,
    warmup_steps,
    two_sided: bool,
):
    norm = norm_of_tree(updates).astype(own.norm.dtype)
    value = None if own.value is None else jnp.asarray(extra["value"]).astype(own.norm.dtype)
    verdict = Verdict(
        *judge_watched(norm, value, own, finite, max_norm, zscore, warmup_steps, two_sided)
    )
    accepts = ~(verdict.not_finite | verdict.too_large | verdict.spike)
    updates, inner = inner.update(updates, params, gate=accepts)
    new = _count(remember(own, norm, value, max_norm), norm, verdict, accepts)
    return keep_if(accepts, updates), inner, new


def _report(own: Guard | WatchGuard):
    reasons = {f"{name}_steps": getattr(own, name) for name in ("skipped", "not_finite")}
    reasons |= {"too_large_steps": own.too_large, "spike_steps": own.spikes}
    return {**reasons, "guarded_norm": own.norm}


def _report_watch(own: WatchGuard):
    value = {} if own.value is None else {"guarded_value": own.value}
    return {**_report(own), **value}


def _check_finite(where: str, finite: Any) -> None:
    if not isinstance(finite, bool):
        raise HyperparamError(
            f"{where} = {finite!r} must be True or False, whether to test for inf and nan; "
            f"a limit is max_norm={finite!r}"
        )


@definition
def guard(
    inner: TransformationLike,
    finite: Annotated[bool, Check(_check_finite)] = True,
    max_norm: Limit | None = None,
    zscore: Positive | None = None,
    *,
    decay: Decay = 0.97,
    warmup_steps: Steps = 25,
    watch: str | Sequence[str] | None = None,
    window: int | None = None,
    two_sided: bool = False,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""Skip steps whose gradient is not finite (NaN, inf), too large, or a spike.

    A skipped step changes nothing: neither parameters, nor slots, nor the count. With n = ‖g‖ over
    all arrays, in float32 at least, the guard skips a step when n is inf or nan; when n >
    `max_norm`; or when n is more than z standard deviations above the mean of earlier norms, n > m
    + z max(√v, m/100). The updates are then zero (−0, so that parameters keep the same bits), and
    the slots of `inner` keep their values. The next good step runs as if there had been no bad one.

    The clock of `inner` counts the steps that were not skipped. Where the guard is the whole
    definition, `state.count` is that clock. Schedules, bias corrections and `hyperparams(tx,
    at=state)` then use it. In a chain, a guard skips the steps of its own `inner` alone, so put the
    whole chain inside.

    With `watch` or `window`, m and s are the mean and the deviation of the last W norms
    ("grad_norm"), of the last W losses ("value"), or of both, each compared by itself; s is at
    least a thousandth of |m|. `update` then needs the loss: `update(grads, state, params,
    value=loss)`; a loss that is inf or nan makes a skip, too. The number of a skipped step enters
    its window, so that a lasting new level is accepted after a few steps, unless it is inf, nan or
    above `max_norm`. Loss and norm must be those of the whole batch: under `jax.jit` they are;
    inside `shard_map`, take the mean of the loss over devices first (`jax.lax.pmean`).

    Without them, m and v weigh the first 1/(1 − β) norms equally. After that they forget like
    averages with decay β. Until `warmup_steps` norms are known, and while all of them were 0, no
    step is a spike. A spike enters m and v as the largest norm that would have been accepted, so
    the guard accepts a lasting new level after some steps. After a lasting rise to ten times the
    norm it skips 32 steps at z = 4, and 16 at z = 6; where norms varied by a tenth before, 17 and
    8. A norm that is not finite or above `max_norm` never enters.

    Inside `shard_map` and `pmap`, name the mesh axes that cut the gradients: `axis_names="data"`.
    The norm is then that of whole arrays, and all devices skip the same steps.

    When: long runs in low precision, or on data with a few bad batches. When not: gradients that
    stay non-finite once they were; the guard then skips every step, and `skipped` counts them. To
    shorten large gradients instead of skipping them, use `clip_by_global_norm`; guard and clip
    together need one pass over the gradients.

    Args:
      inner: the transformation; put the whole chain here. Around `accumulate` a guard skips bad
        micro-batches; inside of it, bad means.
      finite: skip steps whose norm is inf or nan. A norm beyond float32, from entries of about
        1e19 on, counts as inf.
      max_norm: the largest accepted norm, ≥ 0, in units of the gradient; None: no such limit.
      zscore: z > 0, in standard deviations; 4 to 6; None: no such test, or 6 with `watch`. Only
        its presence is static.
      decay: β in [0, 1), of m and v; 0.97 to 0.99; without effect where there is a window.
      warmup_steps: the number of norms before the first test for spikes, ≥ 1; 25 to 100. At most
        the window counts.
      watch: "grad_norm", "value", or both, to compare each with the last W of its kind; None: the
        norm alone, with averages in the place of a window.
      window: W ≥ 2; None: 128 with `watch`, else no window.
      two_sided: whether numbers far below the mean are spikes, too; it needs a window.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range; `finite` is not a bool; all three tests are off;
        `watch` has an unknown name; a window below 2; `two_sided` without a window.
      MissingExtraError: the loss is watched, and `update` is called without `value=`.

    State: that of `inner`, and under "guard" the counters `applied`, `skipped`, `not_finite`,
    `too_large` and `spikes`, the last `norm`, and with `zscore` the `mean` and `variance` of
    norms; with a window, in their place, `norms` and `values`, W numbers each.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.guard(gradtx.sgd(0.5, momentum=0.9), max_norm=10.0)
    >>> w = jnp.array([1.0, 1.0])
    >>> _, state = tx.update(w, tx.init(w))
    >>> for bad in (jnp.array([jnp.nan, 1.0]), jnp.array([30.0, 40.0])):
    ...     updates, state = tx.update(bad, state)
    >>> updates.tolist(), state.slots["trace"].trace.tolist()
    ([-0.0, -0.0], [1.0, 1.0])
    >>> int(state.count), int(state.slots["guard"].skipped)
    (1, 2)

    See also: `apply_if_finite`, `dynamic_loss_scale`, `zclip`, `clip_by_zscore`, `metrics`.
    """
    if watch is not None or window is not None:
        names = watched_names(watch)
        length = WINDOW if window is None else window
        check_window("guard", length)
        rule = wrapwise(
            inner,
            init_watch,
            _watch,
            report=_report_watch,
            clock="applied",
            leads=True,
            extra=[name for name in names if name == "value"],
            watch=names,
            window=length,
            zscore=ZSCORE if zscore is None else zscore,
        )
        return apply_axis_flags(rule, flags)
    if two_sided:
        raise HyperparamError(
            f"guard: two_sided=True needs a window of earlier numbers: give window={WINDOW}"
        )
    if not finite and max_norm is None and zscore is None:
        raise HyperparamError(
            "guard: finite=False without max_norm and zscore tests nothing: set one of them"
        )
    return apply_axis_flags(
        wrapwise(inner, _init, _guard, report=_report, clock="applied", leads=True), flags
    )
