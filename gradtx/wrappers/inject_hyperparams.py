"""`inject_hyperparams`: Optax's spelling of `tunable`, for a function that makes an optimizer."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import jax.numpy as jnp

from gradtx.compose.arguments import is_data
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.definition.call_checks import check_dtype
from gradtx.definition.definition import Definition, uncalled_builder
from gradtx.definition.errors import HyperparamError
from gradtx.definition.leaves import known_number
from gradtx.definition.schedule import Schedule, value_at
from gradtx.definition.show import show
from gradtx.definition.spelling import suggest
from gradtx.definition.types import ArrayHyperparam, DTypeLike
from gradtx.engine.selector import is_function
from gradtx.schedules.stateful import StatefulSchedule
from gradtx.training.hyperparams import (
    find,
    hyperparams_named,
    leaves_by_address,
    replace,
    short_names,
)
from gradtx.tree.casts import compute_dtype
from gradtx.wrappers.stateful_hyperparams import follow_states, is_stateful, value_of
from gradtx.wrappers.tunable import tunable, tune

P = ParamSpec("P")
Function = Callable[..., Any]


def inject_hyperparams(
    inner_factory: Callable[P, TransformationLike],
    static_args: str | Sequence[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[P, GradientTransformation]:
    """Optax's spelling of `tunable`: `inject_hyperparams(adam)(learning_rate=0.1)`.

    The state has the numbers and schedules of the call, by the names of the function's arguments.
    A function of your own receives their values at this step, so it may compute with them. Its
    schedules follow the calls of `update` here, whatever the function returns. The state keeps the
    state of a `StatefulSchedule` as `hyperparams_states`, and an entry that you add to
    `state.hyperparams` as it is.

    Args:
      inner_factory: makes the transformation; a builder of gradtx, or a function of your own, which
        may return any pair of `init` and `update`.
      static_args: names of arguments that stay in the definition.
      hyperparam_dtype: dtype of the numbers in the state; None: float32.

    Raises:
      HyperparamError: `static_args` names an unknown argument; a dtype is not a float.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = inject_hyperparams(gradtx.sgd)(0.1)
    >>> tx
    tunable(inner=sgd(learning_rate=0.1), 'learning_rate')
    >>> def make(rate):
    ...     return gradtx.scale(-rate)
    >>> inject_hyperparams(make)(0.1).init(jnp.ones(2)).hyperparams
    {'rate': Array(0.1, dtype=float32)}
    """
    if hyperparam_dtype is not None:
        check_dtype("inject_hyperparams: hyperparam_dtype", hyperparam_dtype)
    static = frozenset([static_args] if isinstance(static_args, str) else static_args)
    is_builder = uncalled_builder(inner_factory) is not None
    _check_static(inner_factory, static, is_builder)
    inject = _inject_builder if is_builder else _inject_function

    def make(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
        bound = inspect.signature(inner_factory).bind(*args, **kwargs)
        bound.apply_defaults()
        schedules = _take_stateful(bound, static)
        tx = inject(inner_factory, bound, static, hyperparam_dtype)
        return follow_states(tx, schedules) if schedules else tx

    return make


def inject_stateful_hyperparams(
    inner_factory: Callable[P, TransformationLike],
    static_args: str | Sequence[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[P, GradientTransformation]:
    """Inject hyperparameters with stateful schedules: an older name of `inject_hyperparams`.

    >>> import gradtx
    >>> from gradtx.schedules.stateful import WrappedSchedule
    >>> rate = WrappedSchedule(gradtx.linear_schedule(1.0, 0.0, 4))
    >>> tx = inject_stateful_hyperparams(gradtx.sgd)(learning_rate=rate)
    >>> float(tx.init(0.0).hyperparams["learning_rate"])
    1.0

    See also: `inject_hyperparams`, which has its arguments and its errors; `StatefulSchedule`.
    """
    return inject_hyperparams(inner_factory, static_args, hyperparam_dtype)


def _check_static(function: Function, static: frozenset[str], is_builder: bool) -> None:
    """Raise where a function has no such argument; a builder with members may have it in one."""
    parameters = inspect.signature(function).parameters
    is_open = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if is_open or (is_builder and _takes_members(function)):
        return
    for name in sorted(static - set(parameters)):
        raise HyperparamError(
            f"inject_hyperparams: static_args has {name!r}, which is not an argument of "
            f"{show(function)}{suggest(name, parameters)}"
        )


def _takes_members(builder: Function) -> bool:
    """Whether a builder takes transformations, whose hyperparameters are injected too."""
    marks = builder.factory.dynamic.values()  # pyright: ignore[reportFunctionMemberAccess]
    return any(GradientTransformation in each for each in marks)


def _take_stateful(
    bound: inspect.BoundArguments, static: frozenset[str]
) -> dict[str, StatefulSchedule]:
    """Take the stateful schedules out of a call; their first values stand in the call."""
    schedules = {
        name: value
        for name, value in bound.arguments.items()
        if name not in static and is_stateful(value)
    }
    for name, one in schedules.items():
        # A state of integers may become one of floats; a hyperparameter is a float always.
        first = jnp.asarray(value_of(name, one, one.init(), {}))
        bound.arguments[name] = first.astype(compute_dtype(first.dtype))
    return schedules


def _inject_builder(
    builder: Function,
    bound: inspect.BoundArguments,
    static: frozenset[str],
    dtype: DTypeLike | None,
) -> GradientTransformation:
    """Put the hyperparameters of a builder of gradtx into the state, those of members included."""
    inner = builder(*bound.args, **bound.kwargs)
    for name in sorted(static - set(bound.arguments)):
        find(inner, name)  # raises where the builder's members have no such hyperparameter
    names = [name for name in short_names(leaves_by_address(inner, Schedule)) if name not in static]
    typed = _typed(hyperparams_named(inner, names, None), dtype)
    return tunable(replace(inner, **typed), *names) if names else inner


def _inject_function(
    function: Function,
    bound: inspect.BoundArguments,
    static: frozenset[str],
    dtype: DTypeLike | None,
) -> GradientTransformation:
    """Put the numbers and the schedules of a call into the state, by the names of its arguments."""
    injected = {
        name: _as_schedule(value)
        for name, value in bound.arguments.items()
        if name not in static and (is_data(value) or _is_schedule(value))
    }
    options = {name: value for name, value in bound.arguments.items() if name not in injected}
    made = as_transformation(_call(function, injected, options))
    if not injected:
        return made
    numbers = {**injected, **_typed(injected, dtype)}
    inner = _call_function(function, numbers, options, made.name)
    return _injected(inner, tuple(injected))


def _is_schedule(value: Any) -> bool:
    """Whether an argument is a function of the count; a transformation and a tree are none."""
    is_definition = isinstance(value, Definition)
    return isinstance(value, Schedule) or (is_function(value) and not is_definition)


def _as_schedule(value: Any) -> Any:
    return value if is_data(value) else Definition.wrap_function(value)


def _typed(values: Mapping[str, Any], dtype: DTypeLike | None) -> dict[str, Any]:
    """The numbers among the values in a dtype; nothing where none is asked for."""
    numbers = {name: one for name, one in values.items() if not isinstance(one, Schedule)}
    if dtype is None:
        return {}
    return {name: known_number(jnp.asarray(one, dtype)) for name, one in numbers.items()}


def _call(function: Function, numbers: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Call the function with numbers; a schedule has its first value where no state has another."""
    values = {**options, **{name: value_at(one, 0) for name, one in numbers.items()}}
    signature = inspect.signature(function)
    ordered = {name: values[name] for name in signature.parameters if name in values}
    bound = inspect.BoundArguments(signature, ordered)  # pyright: ignore[reportArgumentType]
    return function(*bound.args, **bound.kwargs)


@functools.partial(definition, name="injected")
def _injected(inner: GradientTransformation, names: Sequence[str]) -> GradientTransformation:
    """The result of a function of the user's, with the arguments of its call in the state."""
    # The clock of the member may be slower, and the schedules count the calls of `update`.
    return tune(inner, tuple(names), leads=False)


@functools.partial(definition, name="call_function")
def _call_function(
    function: Function,
    numbers: Mapping[str, ArrayHyperparam],
    options: Mapping[str, Any],
    name: str,
) -> GradientTransformation:
    """The result of a function as a definition, whose data are the numbers of the call."""
    return as_transformation(_call(function, numbers, options))
