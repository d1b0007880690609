"""One valid call of every builder, from the tables of methods and schedules, to spoil in tests."""

from collections.abc import Iterator
from typing import Any

import gradtx
from gradtx.definition.definition import Definition, Factory, registry
from gradtx.definition.types import Interval
from tests.methods import METHODS
from tests.support.schedule_cases import CASES, ours

INTERNAL = {
    "GradientTransformation",
    "_offloaded_member",
    "_stacked_member",
    "_stored_member",
    "_transfer_member",
    "call_function",
    "follow_states",
    "function_schedule",
    "held",
    "injected",
    "kernel_values",
    "leafwise",
    "matrixwise",
    "treewise",
    "wrapwise",
}
"""Builders that no user calls by name; those of rules take arrays and dicts on purpose."""


def _inside(value: Any) -> Iterator[Definition]:
    """A definition, and those in its arguments and in its expansion."""
    if isinstance(value, Definition):
        yield value
        for item in value.arguments.values():
            yield from _inside(item)
        if isinstance(value, gradtx.GradientTransformation):
            yield from _inside(value.expansion)
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _inside(item)
    elif hasattr(value, "member"):
        yield from _inside(value.member)


ARGUMENTS = [
    gradtx.along([0.5, 1.0]),
    gradtx.layer_decay(0.5, 3),
    gradtx.polar(),
    gradtx.spectral_cap(0.5),
    gradtx.spectral_clip(0.1, 0.5),
    gradtx.spectral_series((0.5, 0.5)),
]
"""Definitions that are arguments of a transformation, and that no row has."""


def _calls() -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    for top in [*(row.tx for row in METHODS.values()), *map(ours, CASES), *ARGUMENTS]:
        for one in _inside(top):
            found.setdefault(one.factory.name, one)
    return {name: one for name, one in found.items() if name not in INTERNAL and ":" not in name}


CALLS = _calls()
"""A definition of every builder, by its name."""
BUILDERS = sorted(
    name for name in registry if name not in INTERNAL and ":" not in name and name != "chain"
)


def call(name: str, **changes: Any) -> Any:
    """The call again, with some arguments changed."""
    factory = registry[name]
    args, kwargs = factory.arguments({**CALLS[name].arguments, **changes})
    return factory(*args, **kwargs)


def numbers(factory: Factory) -> dict[str, Interval]:
    """The arguments of a builder that are one number, each with its range."""
    return {
        name: mark
        for name, marks in factory.dynamic.items()
        if name not in factory.plural_arguments
        for mark in marks
        if isinstance(mark, Interval)
    }
