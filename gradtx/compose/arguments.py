"""The arguments of a rule, sorted by the annotations of its functions.

A keyword-only parameter annotated as an array (`jax.Array`) is a hyperparameter: data, which
may be scheduled, traced and batched. Any other annotation (`bool`, `str`, a dtype, a function)
makes it an option, which chooses the program. Without an annotation the value decides.
"""

import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.definition import Definition, building
from gradtx.definition.errors import GradtxError
from gradtx.definition.schedule import Schedule
from gradtx.engine.rules import keyword_names

Function = Callable[..., Any]
Kind = Literal["array", "static", "any"]
SIGNATURES: dict[str, tuple[str, ...]] = {
    "init": ("param",),
    "update": ("grad", "slots", "param", "step"),
    "measure": ("grad", "slots", "param", "step"),
    "conclude": ("measures", "tree_slots", "step"),
    "init_tree_slots": (),
}
"""The arguments that each function of a rule on arrays receives by position."""
OF_TREES: dict[str, tuple[str, ...]] = {
    "init": ("params",),
    "update": ("updates", "slots", "params", "step"),
}
"""The same, for rules on trees and wrapping rules."""


class Arguments(NamedTuple):
    """The arguments of a rule: data, static options, and the transformations that it runs."""

    name: str
    """The builder's, or that of the lifter where there is no builder."""
    hyperparams: dict[str, Any]
    options: dict[str, Any]
    members: dict[str, GradientTransformation]


def sort_arguments(
    lifter: str,
    functions: Mapping[str, Function | None],
    given: Mapping[str, Any],
    supplied: Iterable[str],
) -> Arguments:
    """Sort the arguments of a rule into hyperparameters, options and members.

    What a rule asks for by name and is not given comes from the arguments of the builder that is
    running. `supplied` names what the engine hands to a rule beside them. A hyperparameter that
    is None is dropped: the rule's own default holds.
    """
    known = {role: function for role, function in functions.items() if function is not None}
    signatures = OF_TREES if lifter in ("treewise", "wrapwise") else SIGNATURES
    for role, function in known.items():
        if role in signatures:
            _check_positional(role, function, signatures[role])
    rules, builder, told = list(known.values()), building(), frozenset(supplied)
    asked = frozenset[str]().union(*map(keyword_names, rules))
    rule, open_ended = _name_of(known["update"]), known["update"] if "conclude" in known else None
    passed = {} if builder is None else _from_builder(builder, asked - told - set(given))
    _check_names(rule, rules, {**passed, **given}, told, open_ended)
    found = Arguments(_rule_name(lifter, rule, builder), {}, {}, {})
    for name, value in {**passed, **given}.items():
        if isinstance(value, GradientTransformation):
            found.members[name] = value
        elif _is_hyperparam(rule, name, value, _kind_among(rules, name)):
            found.hyperparams[name] = value
        elif value is not None or not _has_default(rules, name):
            found.options[name] = value
    if builder is not None:
        _check_declared(rule, builder, found)
    return found


def _from_builder(builder: Definition, names: frozenset[str]) -> dict[str, Any]:
    """The arguments of the builder that the rule asks for."""
    return {name: value for name, value in builder.arguments.items() if name in names}


def _has_default(rules: Sequence[Function], name: str) -> bool:
    """Whether a rule does without a name: it has a default wherever it is asked for."""
    return not any(name in keyword_names(one, required=True) for one in rules)


def _kind_among(rules: Sequence[Function], name: str) -> Kind:
    """What the first annotation of a name says of it."""
    kinds: list[Kind] = [_kind(one, name) for one in rules if name in keyword_names(one)]
    certain: list[Kind] = [kind for kind in kinds if kind != "any"]
    return certain[0] if certain else "any"


def _is_hyperparam(rule: str, name: str, value: Any, kind: Kind) -> bool:
    """Whether a value is data for the rule; an error where annotation and value disagree."""
    if kind == "any":
        return is_data(value)
    if kind == "static":
        if isinstance(value, jax.Array | Schedule):
            raise GradtxError(
                f"{rule} annotates {name} as an option, and it is given {value!r}, which is data: "
                f"annotate it as an array, `{name}: jax.Array`"
            )
        return False
    if value is None or (callable(value) and not isinstance(value, jax.Array | Schedule)):
        return value is not None
    if not is_data(value):
        raise GradtxError(
            f"{rule} annotates {name} as an array, and it is given {value!r}: give a number, an "
            f"array or a schedule, or annotate {name} as what it is"
        )
    return True


def _check_declared(rule: str, builder: Definition, found: Arguments) -> None:
    """Raise where builder and rule disagree on whether an argument is data."""
    dynamic, where = builder.factory.dynamic, builder.factory.__name__
    for name in found.hyperparams:
        # The value may be computed, `1 - decay`; what counts is that the argument is a number.
        if name not in dynamic and is_data(builder.arguments.get(name)):
            raise GradtxError(
                f"{where}: its rule {rule} uses {name} as a hyperparameter, and {where} does not "
                f"declare it as data: annotate it, `{name}: gradtx.Hyperparam = "
                f"{builder.arguments[name]!r}`"
            )
    for name, value in found.options.items():
        if name in dynamic and builder.arguments[name] is value and is_data(value):
            raise GradtxError(
                f"{where} declares {name} as data, and its rule {rule} takes it as an option: "
                f"annotate it in the rule as an array, `{name}: jax.Array`"
            )


def _rule_name(lifter: str, rule: str, builder: Definition | None) -> str:
    """The name of a rule: the builder's; without a builder, that of its function."""
    if builder is not None:
        return builder.factory.__name__
    name = rule.strip("_")
    return name if name.isidentifier() else lifter


def is_data(value: Any) -> bool:
    """Whether a value can be a hyperparameter: a number, an array, or a schedule."""
    if isinstance(value, bool | np.bool_):
        return False
    return isinstance(value, numbers.Number | np.ndarray | np.generic | jax.Array | Schedule)


def _name_of(function: Function) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", repr(function))


@functools.lru_cache(maxsize=2048)
def _hints(function: Function) -> Mapping[str, Any]:
    """The annotations of a function; none where they cannot be evaluated."""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}


def _kind(function: Function, name: str) -> Kind:
    """What the annotation of a parameter makes of it."""
    hint = _hints(function).get(name, Any)
    if hint is Any:
        return "any"
    return "array" if _holds_array(hint) else "static"


def _holds_array(hint: Any) -> bool:
    """Whether an annotation is an array, or a union with one, such as `jax.Array | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_holds_array(part) for part in typing.get_args(hint))
    return hint is jax.Array


def _check_positional(role: str, function: Function, expected: Sequence[str]) -> None:
    """Raise when a function takes more or fewer arguments by position than it receives."""
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return
    names = [one.name for one in parameters if one.kind <= one.POSITIONAL_OR_KEYWORD]
    shown = f"({', '.join(expected)})"
    if extra := names[len(expected) :]:
        raise GradtxError(
            f"{_name_of(function)} takes {', '.join(extra)} by position, and {role} receives only "
            f"{shown} by position: put a * before {extra[0]}"
        )
    if len(names) < len(expected):
        raise GradtxError(
            f"{_name_of(function)} takes ({', '.join(names)}) by position, and {role} receives "
            f"{shown}: name each of them"
        )


def _check_names(
    rule: str,
    known: Sequence[Function],
    given: Mapping[str, Any],
    supplied: frozenset[str],
    open_ended: Function | None,
) -> None:
    """Raise when a rule asks for a name that it is not given, or is given one that it never uses.

    What `conclude` returns reaches `update` by name, so that `update` may ask for more.
    """
    asked = frozenset[str]().union(*map(keyword_names, known))
    if unused := sorted(set(given) - asked):
        raise GradtxError(
            f"{rule}: {', '.join(unused)} is given, but no function of the rule has a keyword-only "
            f"argument of that name"
        )
    required = [keyword_names(one, required=True) for one in known if one is not open_ended]
    if missing := sorted(frozenset[str]().union(*required) - set(given) - supplied):
        raise GradtxError(
            f"{rule} asks for {', '.join(missing)}, which it is not given: pass "
            f"{', '.join(f'{name}=...' for name in missing)} beside the functions of the rule"
        )
