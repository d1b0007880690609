"""Logging inside a chain: the state stores measures of the updates, by name."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Decay, DTypeLike, Params, PyTree, Updates
from gradtx.transforms import moments
from gradtx.tree.arithmetic import where_finite
from gradtx.tree.casts import compute_dtype, is_inexact_dtype, promote

Measure = Callable[[Updates], PyTree]
"""A function of the updates that returns an array, or a tree of arrays."""


def _zeros(measure: Measure, params: Params, dtype: DTypeLike | None = None) -> PyTree:
    """Zeros like the result of a measure, in float32 at least."""

    def zeros(shape: jax.ShapeDtypeStruct) -> jax.Array:
        default = compute_dtype(shape.dtype) if is_inexact_dtype(shape.dtype) else shape.dtype
        return jnp.zeros(shape.shape, dtype or default)

    return jax.tree.map(zeros, jax.eval_shape(measure, params))


def _cast_like(new: PyTree, old: PyTree) -> PyTree:
    """The dtypes of a state must not change from step to step."""
    return jax.tree.map(lambda mine, theirs: jnp.asarray(mine).astype(theirs.dtype), new, old)


def _snapshot_init(params, *, measure_name: str, measure: Measure) -> dict[str, PyTree]:
    return {measure_name: _zeros(measure, params)}


def _snapshot(updates, slots, params, step, *, measure_name: str, measure: Measure):
    return updates, {measure_name: _cast_like(measure(updates), slots[measure_name])}


@definition
def snapshot(measure_name: str, measure: Measure) -> GradientTransformation:
    """Log a measure of the updates in the state; the updates do not change.

    Args:
      measure_name: its name in the state.
      measure: a function of the updates, for example `global_norm`; it returns an array, or a tree
        of arrays.

    State: the result of the function, 0 before the first update.

    >>> import gradtx, jax.numpy as jnp
    >>> look = gradtx.snapshot("norm", gradtx.global_norm)
    >>> tx = gradtx.chain(look, gradtx.clip_by_global_norm(1.0))
    >>> w = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> _, state = tx.update(w, tx.init(w))
    >>> state.slots["snapshot"]["norm"].item()
    5.0
    """
    return treewise(_snapshot_init, _snapshot)


def _ema_init(
    params, *, measure: Measure, accumulator_dtype: DTypeLike | None
) -> dict[str, PyTree]:
    return {"ema": _zeros(measure, params, accumulator_dtype)}


def _blend(rate: jax.Array, mean: jax.Array, value: Any) -> jax.Array:
    """The average with one more value; inf and nan would never leave it, so they do not enter."""
    rate, mean, value = promote(rate, mean, jnp.asarray(value))
    return where_finite(mean + rate * (value - mean), mean)


def _ema(updates, slots, params, step, *, measure: Measure, decay, debias: bool):
    decay = jnp.asarray(decay, jnp.result_type(float))
    rate = 1 - decay
    if debias:
        # m ← m + (1 − β)/(1 − β^t) (x − m) is the corrected average itself, without a second slot.
        rate = moments.debias(rate, decay, jnp.asarray(step, decay.dtype))
    new = jax.tree.map(functools.partial(_blend, rate), slots["ema"], measure(updates))
    return updates, {"ema": _cast_like(new, slots["ema"])}


@definition
def measure_with_ema(
    measure: Measure, decay: Decay, debias: bool = True, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformation:
    """Log the exponential moving average (EMA) of a measure of the updates.

    The updates do not change. For a measure x: m ← β m + (1 − β) x; the state stores m / (1 − β^t),
    or m. A measure of inf or nan does not enter the average.

    Args:
      measure: a function of the updates, for example `global_norm`; it returns an array, or a tree
        of arrays.
      decay: β in [0, 1); the average reaches back about 1/(1 − β) steps.
      debias: divide by 1 − β^t, to correct for the start at zero.
      accumulator_dtype: dtype of the average; None: the measure's, float32 at least.

    Raises:
      HyperparamError: a decay out of its range.

    State: the average, in the form of the measure, under the name `ema`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.measure_with_ema(gradtx.global_norm, decay=0.5))
    >>> state = tx.init(jnp.zeros(1))
    >>> for g in (2.0, 5.0): _, state = tx.update(jnp.array([g]), state)
    >>> round(state.slots["measure_with_ema"]["ema"].item(), 4)  # (0.25 · 2 + 0.5 · 5) / (1 − 0.5²)
    4.0
    """
    return treewise(_ema_init, _ema)


def _monitor_init(params, *, measures: Mapping[str, Any]) -> dict[str, PyTree]:
    return {
        name: measure.init_slots(params)["ema"]
        if isinstance(measure, GradientTransformation)
        else _zeros(measure, params)
        for name, measure in measures.items()
    }


def _monitor(updates, slots, params, step, *, measures: Mapping[str, Any], extra):
    def read(name: str, measure: Measure | GradientTransformation) -> PyTree:
        if isinstance(measure, GradientTransformation):
            old = {"ema": slots[name]}
            return measure.update_slots(updates, old, params, step, extra)[1]["ema"]
        return _cast_like(measure(updates), slots[name])

    return updates, {name: read(name, measure) for name, measure in measures.items()}


@definition
def monitor(measures: Mapping[str, Any]) -> GradientTransformation:
    """Log several measures of the updates in the state, by name; the updates do not change.

    Args:
      measures: name -> a function of the updates, or `measure_with_ema` of one.

    State: the results of the functions, 0 before the first update.

    >>> import gradtx, jax.numpy as jnp
    >>> smooth = gradtx.measure_with_ema(gradtx.global_norm, 0.9)
    >>> look = gradtx.monitor({"norm": gradtx.global_norm, "smooth": smooth})
    >>> tx = gradtx.chain(look, gradtx.scale(-0.1))
    >>> w = jnp.array([3.0, 4.0])
    >>> _, state = tx.update(w, tx.init(w))
    >>> {name: round(value.item(), 4) for name, value in state.slots["monitor"].items()}
    {'norm': 5.0, 'smooth': 5.0}
    """
    for name, measure in measures.items():
        whole = isinstance(measure, GradientTransformation)
        if not callable(measure) and not (whole and measure.name == "measure_with_ema"):
            raise GradtxError(
                f"monitor: {name} is {measure!r}, which is not a measure; "
                "pass a function of the updates, or measure_with_ema of one"
            )
    return treewise(_monitor_init, _monitor, measures=dict(measures))
