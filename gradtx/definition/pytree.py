"""Definitions as pytrees: the data are the leaves, all other arguments are static."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.tree_util import DictKey, GetAttrKey

from gradtx.definition.definition import Definition
from gradtx.definition.spelling import label_text
from gradtx.definition.static import Static

Layout = tuple[str, str, tuple[Any, ...]]


def _children(definition: Definition) -> tuple[list[tuple[Any, Any]], tuple[Layout, ...]]:
    """Return the data of a definition with keys, and their layout: argument, container, items."""
    children: list[tuple[Any, Any]] = []
    layout: list[Layout] = []
    for name, marks in definition.factory.dynamic.items():
        value = definition.arguments[name]
        if isinstance(value, Mapping):
            layout.append((name, "dict", tuple(value)))
            # A member has the name of its group; a number has its key behind the argument's name.
            text = label_text if _holds_members(marks) else functools.partial(_key, name)
            children += [(DictKey(text(key)), item) for key, item in value.items()]
        elif isinstance(value, tuple):
            layout.append((name, "tuple", tuple(range(len(value)))))
            children += [
                (DictKey(_key(name, key)), item)
                for key, item in zip(definition.item_names(value), value, strict=True)
            ]
        else:
            layout.append((name, "value", (name,)))
            children.append((GetAttrKey(name), value))
    return children, tuple(layout)


def _holds_members(marks: Sequence[Any]) -> bool:
    return any(isinstance(mark, type) and issubclass(mark, Definition) for mark in marks)


def _key(name: str, key: Any) -> str:
    """Name an item in paths: by its own name, else by its position in the argument."""
    return key if isinstance(key, str) else f"{name}[{key}]"


def _static(definition: Definition) -> Static:
    cache = definition.cache
    if "static" not in cache:
        dynamic = definition.factory.dynamic
        cache["static"] = Static(
            {name: value for name, value in definition.arguments.items() if name not in dynamic}
        )
    return cache["static"]


def _flatten_with_keys(definition: Definition) -> tuple[list[tuple[Any, Any]], Any]:
    children, layout = _children(definition)
    return children, (definition.factory, _static(definition), layout)


def _flatten(definition: Definition) -> tuple[list[Any], Any]:
    children, aux = _flatten_with_keys(definition)
    return [value for _, value in children], aux


def _unflatten(kind: type[Definition], aux: Any, values: Iterable[Any]) -> Definition:
    factory, static, layout = aux
    remaining, data = iter(values), {}
    for name, container, items in layout:
        values_of = {item: next(remaining) for item in items}
        if container == "dict":
            data[name] = values_of
        else:
            data[name] = tuple(values_of.values()) if container == "tuple" else values_of[name]
    definition = kind.of(
        factory,
        {
            name: data[name] if name in data else static.values[name]
            for name in factory.signature.parameters
        },
    )
    definition.cache["static"] = static  # its hash is expensive, and is the same
    return definition


def register(kind: type[Definition]) -> None:
    """Make a kind of definition a pytree."""
    unflatten = functools.partial(_unflatten, kind)
    jax.tree_util.register_pytree_with_keys(
        kind,
        _flatten_with_keys,  # pyright: ignore[reportArgumentType]
        unflatten,
        _flatten,
    )
