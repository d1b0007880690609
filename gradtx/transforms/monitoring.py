"""Look at updates on their way through a chain: numbers that the state keeps, by name."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Decay, DTypeLike
from gradtx.transforms.moments import debias as debiased
from gradtx.tree.casts import compute_dtype, is_inexact_dtype

Measure = Callable[[Any], Any]
"""A function of the updates that gives an array, or a tree of arrays."""


def _blank(measure: Measure, params: Any, dtype: DTypeLike | None = None) -> Any:
    """Zeros like what a measure gives, in float32 at least."""
    return jax.tree.map(
        lambda shape: jnp.zeros(shape.shape, dtype or _kept_dtype(shape.dtype)),
        jax.eval_shape(measure, params),
    )


def _kept_dtype(dtype: Any) -> Any:
    return compute_dtype(dtype) if is_inexact_dtype(dtype) else dtype


def _like(new: Any, old: Any) -> Any:
    return jax.tree.map(lambda mine, theirs: jnp.asarray(mine).astype(theirs.dtype), new, old)


def _init_snapshot(params: Any, *, measure_name: str, measure: Measure) -> dict[str, Any]:
    return {measure_name: _blank(measure, params)}


def _update_snapshot(
    updates: Any, slots: Any, params: Any, step: Any, *, measure_name: str, measure: Measure
) -> Any:
    return updates, {measure_name: _like(measure(updates), slots[measure_name])}


@definition
def snapshot(measure_name: str, measure: Measure) -> GradientTransformation:
    """Keep what a function gives for the updates that pass here; they go on unchanged.

    Args:
      measure_name: under which name it stands in the state.
      measure: a function of the updates, such as `global_norm`; it gives an array, or a tree of
        arrays.

    State: what the function gives, 0 before the first update.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.snapshot("norm", gradtx.global_norm), gradtx.clip_by_global_norm(1.0))
    >>> w = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> _, state = tx.update(w, tx.init(w))
    >>> state.slots["snapshot"]["norm"].item()
    5.0
    """
    return treewise(_init_snapshot, _update_snapshot, measure_name=measure_name, measure=measure)


def _init_average(
    params: Any, *, measure: Measure, accumulator_dtype: DTypeLike | None
) -> dict[str, Any]:
    return {"ema": _blank(measure, params, accumulator_dtype)}


def _update_average(
    updates: Any, slots: Any, params: Any, step: Any, *, measure: Measure, decay: Any, correct: bool
) -> Any:
    """The corrected average follows m ← m + (1 − β)/(1 − β^t) (x − m), which keeps no uncorrected
    one beside it.
    """
    real = jnp.result_type(float)
    rate = 1 - jnp.asarray(decay, real)
    share = debiased(rate, jnp.asarray(decay, real), jnp.asarray(step, real)) if correct else rate
    new = jax.tree.map(
        lambda mean, value: mean + share * (value - mean), slots["ema"], measure(updates)
    )
    return updates, {"ema": _like(new, slots["ema"])}


@definition
def measure_with_ema(
    measure: Measure, decay: Decay, debias: bool = True, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformation:
    """Keep an exponential average of what a function gives for the updates that pass here; they go
    on unchanged.

    For a measure x: m ← β m + (1 − β) x; kept is m / (1 − β^t), or m.

    Args:
      measure: a function of the updates, such as `global_norm`; it gives an array, or a tree of
        arrays.
      decay: β in [0, 1); the average reaches back about 1/(1 − β) steps.
      debias: divide by 1 − β^t, so that the start at zero does not show.
      accumulator_dtype: dtype of the average; None: the measure's, float32 at least.

    Raises:
      HyperparamError: a decay out of its range.

    State: what the function gives, under the name `ema`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.measure_with_ema(gradtx.global_norm, decay=0.5))
    >>> state = tx.init(jnp.zeros(1))
    >>> for g in (2.0, 5.0): _, state = tx.update(jnp.array([g]), state)
    >>> round(state.slots["measure_with_ema"]["ema"].item(), 4)  # (0.25 · 2 + 0.5 · 5) / (1 − 0.5²)
    4.0
    """
    return treewise(
        _init_average,
        _update_average,
        decay=decay,
        measure=measure,
        correct=debias,
        accumulator_dtype=accumulator_dtype,
    )


def _init_monitor(params: Any, *, measures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: measure.init_slots(params)["ema"]
        if isinstance(measure, GradientTransformation)
        else _blank(measure, params)
        for name, measure in measures.items()
    }


def _update_monitor(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    measures: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> Any:
    def look(name: str, measure: Any) -> Any:
        if isinstance(measure, GradientTransformation):
            return measure.update_slots(updates, {"ema": slots[name]}, params, step, extra)[1][
                "ema"
            ]
        return _like(measure(updates), slots[name])

    return updates, {name: look(name, measure) for name, measure in measures.items()}


@definition
def monitor(measures: Mapping[str, Any]) -> GradientTransformation:
    """Keep several measures of the updates that pass here, by name; the updates go on unchanged.

    Args:
      measures: name -> a function of the updates, or `measure_with_ema` of one.

    State: what the functions give, 0 before the first update.

    >>> import gradtx, jax.numpy as jnp
    >>> look = gradtx.monitor({"norm": gradtx.global_norm, "smooth": gradtx.measure_with_ema(gradtx.global_norm, 0.9)})
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
                f"monitor: {name} is {measure!r}, which is no measure; give a function of the updates, or measure_with_ema of one"
            )
    return treewise(_init_monitor, _update_monitor, measures=dict(measures))
