"""A guard with a window: the loss and the norm of the gradient beside the last of each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Params
from gradtx.transforms.rolling import init_window, is_active, is_spike, record, statistics

COUNTERS = ("applied", "skipped", "not_finite", "too_large", "spikes")


class WatchGuard(NamedTuple):
    """The counters of a guard with a window, and the last numbers of what it watches."""

    applied: jax.Array
    """The number of updates that `inner` made: its clock."""
    skipped: jax.Array
    """The number of skipped steps, for any of the next three reasons."""
    not_finite: jax.Array
    """The number of steps skipped because the norm or the loss was inf or nan."""
    too_large: jax.Array
    """The number of steps skipped because the norm was above `max_norm`."""
    spikes: jax.Array
    """The number of steps skipped because the norm or the loss was far from earlier ones."""
    norm: jax.Array
    """The norm of the last gradient, skipped or not."""
    value: Any
    """The last loss; None unless it is watched."""
    norms: Any
    """The last norms, in a ring; None unless they are watched."""
    norm_count: Any
    """The number of norms so far; from 2 W on it goes back to W."""
    values: Any
    """The last losses, in a ring; None unless they are watched."""
    value_count: Any
    """The number of losses so far; from 2 W on it goes back to W."""


WATCHED = ("grad_norm", "value")
WINDOW, ZSCORE = 128, 6.0
"""The window and the limit of a guard that watches, where the caller names none."""


def init_watch(params: Params, *, watch: tuple[str, ...], window: int) -> WatchGuard:
    # Each number is an array of its own: one array twice could not be donated.
    counters = {name: jnp.zeros((), jnp.int32) for name in COUNTERS}
    last_norm, last_value = (jnp.zeros((), jnp.result_type(float)) for _ in range(2))
    (norms, norm_count), (values, value_count) = (
        (init_window(window), jnp.zeros((), jnp.int32)) if name in watch else (None, None)
        for name in WATCHED
    )
    return WatchGuard(
        **counters,
        norm=last_norm,
        value=None if values is None else last_value,
        norms=norms,
        norm_count=norm_count,
        values=values,
        value_count=value_count,
    )


def judge_watched(
    norm: jax.Array,
    value: jax.Array | None,
    own: WatchGuard,
    finite: bool,
    max_norm: jax.Array | None,
    zscore: jax.Array,
    warmup_steps: jax.Array,
    two_sided: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return whether a step is not finite, too large, or a spike; at most one is True."""
    numbers = jnp.stack([norm] if value is None else [norm, value])
    not_finite = ~jnp.all(jnp.isfinite(numbers)) if finite else jnp.asarray(False)
    too_large = jnp.asarray(False) if max_norm is None else (norm > max_norm) & ~not_finite
    spike = jnp.asarray(False)
    series = ((norm, own.norms, own.norm_count), (value, own.values, own.value_count))
    for number, history, count in series:
        if history is not None and number is not None:
            active = is_active(count, history.shape[0], warmup_steps)
            spike |= active & is_spike(number, statistics(history, count), zscore, two_sided)
    return not_finite, too_large, spike & ~not_finite & ~too_large


def remember(
    own: WatchGuard, norm: jax.Array, value: jax.Array | None, max_norm: jax.Array | None
) -> WatchGuard:
    """Put the numbers of this step into their windows, whether it is skipped or not.

    A window without the skipped numbers would never follow a lasting new level.
    """
    if own.norms is not None:
        enters = jnp.isfinite(norm) & (True if max_norm is None else norm <= max_norm)
        norms, norm_count = record(own.norms, own.norm_count, norm, enters)
        own = own._replace(norms=norms, norm_count=norm_count)
    if value is not None:
        values, value_count = record(own.values, own.value_count, value, jnp.isfinite(value))
        own = own._replace(value=value, values=values, value_count=value_count)
    return own


def watched_names(watch: Any) -> tuple[str, ...]:
    """The names that a guard watches, each known and once."""
    names = (WATCHED[0],) if watch is None else (watch,) if isinstance(watch, str) else tuple(watch)
    unknown = [name for name in names if name not in WATCHED]
    if unknown or not names:
        fault = (
            f"has {unknown[0]!r}, which is none of" if unknown else "is empty: name one or both of"
        )
        raise HyperparamError(
            f"guard: watch = {watch!r} {fault} 'grad_norm' and 'value'; 'value' is the loss, which "
            f"update receives as value=loss"
        )
    return tuple(name for name in WATCHED if name in names)
