"""The signature that `help` shows: every flag with its default, and short names for types."""

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from gradtx.definition.types import Default


class TypeName:
    """The name of a type in place of the type; the type itself is in `typing.get_type_hints`."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name: str = name

    def __repr__(self) -> str:
        return self.name  # `inspect` prints an unknown annotation by its repr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypeName) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class LazySignature(inspect.Signature):
    """A signature that is computed when it is read, so that `import gradtx` computes none."""

    __slots__ = ("_compute",)

    def __init__(self, compute: Callable[[], inspect.Signature]):
        self._compute = compute

    @property
    def parameters(self) -> types.MappingProxyType[str, inspect.Parameter]:
        return self._compute().parameters

    @property
    def return_annotation(self) -> Any:
        return self._compute().return_annotation

    def replace(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, **changes: Any
    ) -> inspect.Signature:
        # The base class would call this class with parameters.
        return self._compute().replace(**changes)

    __replace__ = replace

    def __reduce__(self) -> Any:
        return LazySignature, (self._compute,)


def with_type_names(
    signature: inspect.Signature, hints: Mapping[str, Any], module: str
) -> inspect.Signature:
    """Replace every annotation by its name in `module`, or in another module of gradtx."""
    own = _aliases(module)
    aliases = {**own, **_package_aliases(), **own}  # its own names come first, with its own values
    parameters = [
        parameter.replace(annotation=TypeName(type_name(hints[name], aliases)))
        if name in hints
        else parameter
        for name, parameter in signature.parameters.items()
    ]
    result = TypeName(type_name(signature.return_annotation, aliases))
    return signature.replace(parameters=parameters, return_annotation=result)


@functools.cache
def _package_aliases() -> dict[str, Any]:
    """Collect them once: flags come from other modules than their builder."""
    modules = sorted(name for name in sys.modules if name.startswith("gradtx."))
    return {name: alias for one in modules for name, alias in _aliases(one).items()}


def _aliases(module: str) -> dict[str, Any]:
    """Collect the public names of unions and of types with a range, but not of a `Literal`.

    The choices of a `Literal` say more than its name.
    """
    return {
        name: value
        for name, value in vars(sys.modules[module]).items()
        if not name.startswith("_") and (_is_union(value) or typing.get_origin(value) is Annotated)
    }


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def type_name(annotation: Any, aliases: Mapping[str, Any]) -> str:
    """Name a type as its author wrote it: `NonNegative`, `DTypeLike | None`.

    >>> from gradtx.definition.types import Decay
    >>> type_name(Decay | None, {"Decay": Decay}), type_name(dict[str, bool], {})
    ('Decay | None', 'dict[str, bool]')
    """
    own = next((name for name, alias in aliases.items() if annotation == alias), None)
    if own is not None:
        return own
    if _is_union(annotation):
        return " | ".join(_union_names(typing.get_args(annotation), aliases))
    if typing.get_origin(annotation) is Annotated:
        return type_name(_without_default(annotation), aliases)
    if isinstance(annotation, list):  # the arguments of a Callable
        return f"[{', '.join(type_name(item, aliases) for item in annotation)}]"
    return _generic_name(annotation, aliases)


SPECIAL: dict[object, str] = {None: "None", type(None): "None", Ellipsis: "..."}


def _generic_name(annotation: Any, aliases: Mapping[str, Any]) -> str:
    """Name a class with its arguments: `Mapping[str, Decay]`."""
    if annotation in SPECIAL:
        return SPECIAL[annotation]
    # The name of `jax.Array` is `jaxlib._jax.Array`.
    name = (getattr(annotation, "__name__", None) or repr(annotation)).rpartition(".")[2]
    items = typing.get_args(annotation)
    is_literal = typing.get_origin(annotation) is typing.Literal
    names = map(repr, items) if is_literal else [type_name(item, aliases) for item in items]
    return f"{name}[{', '.join(names)}]" if items else name


def _union_names(members: tuple[Any, ...], aliases: Mapping[str, Any]) -> list[str]:
    """Name the members of a union; several are one alias: `DTypeLike` in `DTypeLike | None`."""
    rest, names = list(members), list[str]()
    for name, alias in aliases.items():
        parts = typing.get_args(alias) if _is_union(alias) else (alias,)
        if all(part in rest for part in parts):
            names.append(name)
            rest = [part for part in rest if part not in parts]
    return names + [type_name(part, aliases) for part in rest]


def _without_default(annotation: Any) -> Any:
    """Drop the default of a shared flag, or the range of a type that has no name."""
    base, *marks = typing.get_args(annotation)
    rest = tuple(mark for mark in marks if not isinstance(mark, Default))
    return Annotated[(base, *rest)] if 0 < len(rest) < len(marks) else base


def builder_of(factory: Any, function: Callable[..., Any]) -> Any:
    """Return a function that calls a factory, with the name, text and flags of another function."""

    @functools.wraps(function)
    def make(*args: Any, **kwargs: Any) -> Any:
        return factory(*args, **kwargs)

    builder: Any = make
    builder.factory, builder.__signature__ = factory, LazySignature(factory.shown_signature)
    return builder
