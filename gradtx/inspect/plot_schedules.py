"""`plot_schedules`: plots of learning rates and other schedules over the steps."""

import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.definition.schedule import Schedule, function_schedule, operand_fault
from gradtx.definition.show import show
from gradtx.definition.types import Array, Numeric
from gradtx.inspect.figures import COLORS, finish, new_panels
from gradtx.training.hyperparams import leaves_by_address, short_names

POINTS = 4096
"""The most counts of one curve; a longer run is drawn at this many of its counts."""


class Curve(NamedTuple):
    """A schedule in a plot: its label, and the quantity that it is a value of."""

    label: str
    quantity: str
    schedule: Schedule


def plot_schedules(
    *schedules: Schedule
    | GradientTransformation
    | Callable[..., Any]
    | Mapping[str, Schedule | Callable[..., Any] | Numeric],
    steps: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Plot learning rate schedules over the steps, several in one figure.

    All values come from one jitted call. Long runs are drawn at 4096 of their counts.

    Args:
      schedules: a mapping from labels to schedules, schedules, or gradient transformations. Of a
        transformation every scheduled hyperparameter is drawn, under its name in `hyperparams`, at
        counts of its own member; each quantity has its own panel.
      steps: the last count of the plot. None: the largest `length` of the schedules.
      path: a file for the plot, `schedules.png` for example; None: no file.

    Returns:
      The `matplotlib.figure.Figure`, which a notebook displays.

    Raises:
      HyperparamError: something that is not a schedule, or a transformation without one.
      GradtxError: no schedule has a length and `steps` is None, or matplotlib is not installed.

    >>> import gradtx
    >>> rate = gradtx.phases(gradtx.warmup(100, 1.0), gradtx.cooldown(900, shape="cosine"))
    >>> figure = gradtx.plot_schedules({"as planned": rate, "half": 0.5 * rate})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['as planned', 'half']
    >>> figure = gradtx.plot_schedules(gradtx.adamw(rate), steps=2000)
    >>> figure.axes[0].get_ylabel()
    'learning rate'

    See also: `hyperparams`, the values at one count; `metrics`, for logging.
    """
    curves = _curves(schedules)
    counts = _counts(curves, steps)
    values = jax.device_get(_evaluate([curve.schedule for curve in curves], counts))
    quantities = list(dict.fromkeys(curve.quantity for curve in curves))
    height = 4.2 if len(quantities) == 1 else 2.6
    panels = new_panels("plot_schedules", len(quantities), (7.0, height))
    for axes, quantity in zip(panels, quantities, strict=True):
        pairs = zip(curves, values, strict=True)
        own = [(curve, value) for curve, value in pairs if curve.quantity == quantity]
        _draw(axes, counts, own)
        axes.set(ylabel=quantity)
    panels[-1].set(xlabel="step")
    return finish(panels[0], path)


@jax.jit
def _evaluate(schedules: Sequence[Schedule], counts: Array) -> list[Array]:
    return [jax.vmap(schedule)(counts) for schedule in schedules]


def _draw(axes: Any, counts: np.ndarray, curves: Sequence[tuple[Curve, np.ndarray]]) -> None:
    for index, (curve, values) in enumerate(curves):
        rows = np.asarray(values).reshape(len(counts), -1)  # a batch of schedules has several
        style = ("-", "--", ":")[index // len(COLORS) % 3]
        lines = axes.plot(counts, rows, color=COLORS[index % len(COLORS)], lw=2, ls=style)
        if len(curves) > 1:
            lines[0].set_label(curve.label)
    label, quantity, _ = curves[0][0]
    if len(curves) == 1 and label.replace("_", " ") != quantity:
        axes.set_title(textwrap.fill(label, 80), fontsize="medium")


def _counts(curves: Sequence[Curve], steps: int | None) -> np.ndarray:
    """The counts of the plot: 0 to `steps`, both included."""
    lengths = [curve.schedule.length for curve in curves]
    known = [int(np.max(length)) for length in lengths if length is not None]
    last = max(known, default=0) if steps is None else steps
    if steps is None and last == 0:
        labels = ", ".join(curve.label for curve in curves)
        raise GradtxError(f"plot_schedules: {labels} has no length; give the last count, steps=...")
    if isinstance(last, bool) or not isinstance(last, int | np.integer) or last < 1:
        raise GradtxError(f"plot_schedules: steps = {steps!r} must be a whole number, 1 or more")
    points = min(last + 1, POINTS)
    return np.linspace(0, last, points).round().astype(np.int64)


def _curves(schedules: Sequence[Any]) -> list[Curve]:
    curves = [curve for one in schedules for curve in _curves_of(one)]
    if not curves:
        raise HyperparamError(
            "plot_schedules: there is nothing to plot; give schedules, or {label: schedule}"
        )
    labels = Counter(curve.label for curve in curves)
    return [
        curve._replace(label=show(curve.schedule)) if labels[curve.label] > 1 else curve
        for curve in curves
    ]


def _curves_of(value: Any) -> Iterator[Curve]:
    if isinstance(value, Mapping):
        for label, one in value.items():
            yield Curve(str(label), "value", _as_schedule(one, f"the schedule {label!r}"))
    elif isinstance(value, GradientTransformation):
        yield from _scheduled(value)
    else:
        one = _as_schedule(value, "an argument")
        yield Curve(one.name if callable(value) else show(value), "value", one)


def _scheduled(tx: GradientTransformation) -> Iterator[Curve]:
    """The scheduled hyperparameters of a definition, by their short names."""
    values = leaves_by_address(tx, Schedule)
    names = {address: name for name, address in short_names(values).items()}
    moving = {address: one for address, one in values.items() if isinstance(one, Schedule)}
    if not moving:
        raise HyperparamError(
            f"plot_schedules: {tx.name} has no schedule to plot; its hyperparameters are numbers"
        )
    for address, one in moving.items():
        yield Curve(names[address], address[-1].replace("_", " "), one)


def _as_schedule(value: Any, where: str) -> Schedule:
    """A schedule; a number is a constant one."""
    if isinstance(value, Schedule):
        return value
    if (fault := operand_fault(value)) is not None:
        raise HyperparamError(f"plot_schedules: {where}: {fault}")
    function: Callable[[Any], Any] = value if callable(value) else partial(_constant, value)
    return function_schedule(function)


def _constant(value: Any, count: Array) -> Array:
    return jnp.asarray(value, jnp.result_type(float))
