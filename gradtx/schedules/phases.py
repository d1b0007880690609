r"""Phases by length: warmup, constant, cooldown, one after another.

value before phase i       v_i = the value at which phase i − 1 ended;  v_1 = init_value
begin of phase i           b_i = b_{i−1} + steps_{i−1};                 b_1 = 0
inside, p the share done   η = (1 − f(p)) v_i + f(p) v_{i+1},  f the shape
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, ParamSpec

import jax.numpy as jnp

from gradtx.definition.definition import Definition, Factory
from gradtx.definition.errors import HyperparamError
from gradtx.definition.pytree import register
from gradtx.definition.schedule import Schedule, length_of, schedule
from gradtx.definition.show import show
from gradtx.definition.signature import builder_of
from gradtx.definition.types import Array, Hyperparam, NonNegative
from gradtx.schedules.parts import (
    SHAPES,
    add_steps,
    blend,
    check_exponential,
    fill,
    has_begun,
    phase,
    raise_done,
    real,
    steps_since,
    travel,
)

P = ParamSpec("P")
POLYNOMIAL, POWER = "polynomial", "power"
POWERS = (POLYNOMIAL, POWER)
"""The shapes with an exponent."""


class Phase(Definition):
    """One phase of a schedule: a length, and the value at its end. `phases` joins several."""

    __slots__ = ()
    public_names: ClassVar[tuple[str, ...]] = ("arguments",)
    plural: ClassVar[str] = "phases"
    misplaced: ClassVar[str] = "one phase of a schedule; write gradtx.phases(...) around it"

    def verify(self) -> None:
        steps = self.arguments["steps"]
        if isinstance(steps, int | float) and 0 < steps < 1:
            names = ", ".join(self.factory.signature.parameters)
            raise HyperparamError(
                f"{self.factory.__name__}: steps = {steps} is less than one step; the order of the "
                f"arguments is {names}"
            )
        if self.factory.check is not None:
            self.factory.check(self.factory.__name__, **self.arguments)

    @classmethod
    def coerce(cls, value: Any, where: str) -> "Phase":
        builder = where.partition(":")[0]
        if isinstance(value, list | tuple):
            raise HyperparamError(
                f"{builder}: pass the phases of a list one by one, {builder}(*list)"
            )
        raise HyperparamError(
            f"{builder}: {show(value)} is not a phase; write gradtx.warmup(steps, peak_value), "
            f"gradtx.constant(steps), gradtx.cooldown(steps) or a schedule"
        )


register(Phase)


class Leg(NamedTuple):
    """The numbers of a phase; None for a value: that before the phase."""

    steps: Hyperparam
    init_value: Hyperparam | None
    end_value: Hyperparam | None
    shape: str = "linear"
    power: Hyperparam | None = None


def _phase(
    function: Callable[P, Leg], check: Callable[..., None] | None = None
) -> Callable[P, Phase]:
    factory = Factory(function, Phase, check=check)
    return builder_of(factory, function)


def _check_shape(name: str, shape: str, power: Any, **values: Any) -> None:
    choices = (*SHAPES, *POWERS)
    if shape not in choices:
        raise HyperparamError(
            f"{name}: shape is {shape!r}, which is unknown; choose one of "
            f"{', '.join(map(repr, choices))}"
        )
    if shape in POWERS and power is None:
        raise HyperparamError(f"{name}: shape={shape!r} needs power, for example power=2.0")
    if shape not in POWERS and power is not None:
        raise HyperparamError(
            f"{name}: power = {show(power)} belongs to shape='polynomial' or 'power', and the "
            f"shape is {shape!r}"
        )
    ends = (value for argument, value in values.items() if argument.endswith("value"))
    check_exponential(name, shape, *ends)


@functools.partial(_phase, check=_check_shape)
def warmup(
    steps: NonNegative,
    peak_value: Hyperparam,
    init_value: Hyperparam | None = None,
    shape: str = "linear",
    power: NonNegative | None = None,
) -> Leg:
    """Warmup phase: a rise to the peak of the learning rate, for `phases`.

    With p the share of the steps that is done: η = (1 − f) η_init + f η_peak, f = p ("linear").

    When: the first phase; or a second rise in a longer run. When not: a warmup before a whole
    schedule; take `with_warmup`.

    Args:
      steps: the length ≥ 0 in updates; 100 to 10000.
      peak_value: η_peak, the value at its end.
      init_value: η_init, the value at its start. None: the value before the phase; 0 for the first.
      shape: "linear", "cosine", "1-sqrt", "sqrt", "exponential", "polynomial" or "power", as in
        `cooldown`.
      power: c ≥ 0, of the shapes "polynomial" and "power" alone.

    Raises:
      HyperparamError: a negative length, an unknown shape, or an exponential from 0.

    >>> import gradtx, jax.numpy as jnp
    >>> rate = gradtx.phases(gradtx.warmup(4, 1.0))
    >>> rate(jnp.arange(6)).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]

    See also: `phases`, `cooldown`, `with_warmup`.

    Goyal et al. 2017, arXiv 1706.02677, section 2.2.
    """
    return Leg(steps, init_value, peak_value, shape, power)


@_phase
def constant(steps: NonNegative, value: Hyperparam | None = None) -> Leg:
    """Constant phase: the learning rate stays where it is, for `phases`.

    When: the stable phase between warmup and cooldown. When not: a schedule that is constant from
    start to end; give the number itself.

    Args:
      steps: the length ≥ 0 in updates.
      value: η, another value from its start on. None: the value before the phase.

    Raises:
      HyperparamError: a negative length.

    >>> import gradtx, jax.numpy as jnp
    >>> steps = gradtx.phases(gradtx.constant(2, 1.0), gradtx.constant(2, 0.1))
    >>> [round(x, 3) for x in steps(jnp.arange(5)).tolist()]
    [1.0, 1.0, 0.1, 0.1, 0.1]

    See also: `phases`, `constant_schedule`.
    """
    return Leg(steps, value, None)


@functools.partial(_phase, check=_check_shape)
def cooldown(
    steps: NonNegative,
    end_value: Hyperparam = 0.0,
    shape: str = "linear",
    power: NonNegative | None = None,
) -> Leg:
    """Cooldown phase: the decay of the learning rate to its end value, for `phases`.

    With p the share of the steps that is done, and η_0 the value before the phase: η = (1 − f) η_0
    + f η_end, with

    | shape | f |
    |---|---|
    | "linear" | p |
    | "cosine" | ½ (1 − cos πp) |
    | "1-sqrt" | √p: falls fast at first |
    | "sqrt" | 1 − √(1 − p): falls fast at the end |
    | "polynomial" | 1 − (1 − p)^c, c the power |
    | "power" | p^c: with c < 1 falls fast at first |

    and η = η_0^(1 − p) η_end^p for "exponential".

    When: the end of warmup-stable-decay (WSD), 10 to 20 % of the run; or the whole decay after a
    warmup. When not: the length of the run is open and no end is planned; take
    `inverse_sqrt_schedule`.

    Args:
      steps: the length ≥ 0 in updates.
      end_value: η_end, the value at its end; 0 to 0.1 of the peak.
      shape: one of the table.
      power: c ≥ 0, of the shapes "polynomial" and "power" alone.

    Raises:
      HyperparamError: a negative length, an unknown shape, or an exponential to 0.

    >>> import gradtx, jax.numpy as jnp
    >>> for shape in ("linear", "cosine", "1-sqrt", "sqrt"):
    ...     rate = gradtx.phases(gradtx.cooldown(4, shape=shape), init_value=1.0)
    ...     print(shape, [round(x, 2) for x in rate(jnp.arange(5)).tolist()])
    linear [1.0, 0.75, 0.5, 0.25, 0.0]
    cosine [1.0, 0.85, 0.5, 0.15, 0.0]
    1-sqrt [1.0, 0.5, 0.29, 0.13, 0.0]
    sqrt [1.0, 0.87, 0.71, 0.5, 0.0]

    See also: `phases`, `warmup_stable_decay_schedule`.

    "1-sqrt": Hägele et al. 2024, arXiv 2405.18392.
    """
    return Leg(steps, None, end_value, shape, power)


def _check_phases(*phases: Phase | Schedule, init_value: Any) -> None:
    if not phases:
        raise HyperparamError(
            "phases: there is no phase; give phases in order, for example "
            "phases(warmup(1000, 3e-4), constant(5000), cooldown(1000))"
        )
    for one in phases[:-1]:
        if isinstance(one, Schedule) and one.length is None:
            raise HyperparamError(
                f"phases: {one.factory.__name__}(...) has no end, and a phase follows it; only the "
                "last phase may be without an end"
            )
    _check_starts(phases, init_value)


def _check_starts(phases: Sequence[Phase | Schedule], value: Any) -> None:
    """Raise where a phase needs the value before it, and there is none that it can start from."""
    for one in phases:
        if isinstance(one, Schedule):
            value = one  # its last value is not a Python number
            continue
        name, leg = one.factory.__name__, one.call()
        start = value if leg.init_value is None else leg.init_value
        if start is None and name != warmup.__name__:
            raise HyperparamError(
                f"phases: the first phase, {one!r}, has no value to start from; give "
                "phases(..., init_value=...)"
            )
        check_exponential(f"phases: {name}", leg.shape, 0.0 if start is None else start)
        value = start if leg.end_value is None else leg.end_value


def _phases_length(phases: Sequence[Phase | Schedule], **_: Any) -> Any:
    lengths = [_steps(one) for one in phases]
    return None if lengths[-1] is None else sum(lengths)


def _steps(one: Phase | Schedule) -> Any:
    return length_of(one) if isinstance(one, Schedule) else one.arguments["steps"]


@schedule(check=_check_phases, length=_phases_length)
def phases(count: Array, *phases: Phase | Schedule, init_value: Hyperparam | None = None) -> Array:
    """Build a learning rate schedule from phases by length: warmup, constant, cooldown.

    Each phase starts when the one before has made its steps, at the value at which that one ended.
    After the last phase the value is constant. `schedule.length` is the sum of all steps.

    When: warmup-stable-decay (WSD) and every other sequence of phases. When not: you know the
    boundaries as absolute counts; take `join_schedules` or `piecewise_interpolate_schedule`.

    Args:
      phases: `warmup(steps, peak_value)`, `constant(steps)`, `cooldown(steps)`, in order. A
        schedule with a length is a phase, too; it starts at its own first value. The last one may
        be without an end.
      init_value: the value at count 0. None: 0 before a warmup; any other first phase needs it.

    Raises:
      HyperparamError: no phase, a first phase without a value, or an endless schedule before
        another phase.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> rate = gradtx.phases(
    ...     gradtx.warmup(2, 1.0), gradtx.constant(3), gradtx.cooldown(4, shape="1-sqrt")
    ... )
    >>> [round(x, 3) for x in rate(jnp.arange(11)).tolist()]
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.293, 0.134, 0.0, 0.0]
    >>> rate.length
    9
    >>> rate == gradtx.from_config(gradtx.to_config(rate))
    True

    See also: `restarts`, `warmup_stable_decay_schedule`, `join_schedules`.
    """
    value, begin = fill(count, 0.0 if init_value is None else init_value), 0
    for one in phases:
        if isinstance(one, Schedule):
            value = jnp.where(has_begun(count, begin), real(one(steps_since(count, begin))), value)
        else:
            value = _follow(one.call(), count, begin, value)
        steps = _steps(one)
        begin = begin if steps is None else add_steps(begin, steps)
    return value


def _follow(leg: Leg, count: Array, begin: Any, value: Array) -> Array:
    """The value before a phase, inside of it and after it."""
    if leg.init_value is not None:
        value = jnp.where(has_begun(count, begin), real(leg.init_value), value)
    if leg.end_value is None:
        return value
    weights = phase(count, begin, add_steps(begin, leg.steps))
    if leg.shape == POWER and leg.power is not None:
        return blend(raise_done(weights, leg.power), value, leg.end_value)
    shape = "linear" if leg.shape == POLYNOMIAL else leg.shape  # a line to a power
    return travel(shape, weights, value, leg.end_value, leg.power)
