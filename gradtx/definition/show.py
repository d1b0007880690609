"""Printing: arrays as `f32[3,4]`, functions by name, definitions as their calls."""

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.definition.types import DTypeLike

_SHORT = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}
WIDTH = 100
"""The columns of the longest line that a definition prints."""
INDENT = 4


def show_dtype(dtype: DTypeLike) -> str:
    """Shorten the name of a dtype: `float32` is `f32`."""
    name = np.dtype(dtype).name if not jnp.issubdtype(dtype, jax.dtypes.extended) else str(dtype)
    word = name.rstrip("0123456789")
    return _SHORT[word] + name[len(word) :] if word in _SHORT and word != name else name


def show_array(array: Any) -> str:
    """Print the dtype and the shape of an array: `f32[768,3072]`."""
    return f"{show_dtype(array.dtype)}[{','.join(map(str, array.shape))}]"


def show_type(value: Any) -> str:
    """Print the type of a value with its article: `an int`, `a dict`, `an ndarray`."""
    name = type(value).__name__
    is_spoken_with_vowel = name[0] in "AEIOaeio" or name == "ndarray"
    return f"{'an' if is_spoken_with_vowel else 'a'} {name}"


class Call(Protocol):
    """A definition, as this file sees it: its builder and the arguments of the call."""

    factory: Any
    arguments: dict[str, Any]


class Text(NamedTuple):
    """A call or a collection, which may be broken over lines between its items."""

    left: str
    items: tuple[tuple[str, "Text | str"], ...]
    """A name or key in front of each item, `b1=`, and the item."""
    right: str
    is_call: bool = False

    @property
    def comma(self) -> str:
        """The comma that makes a tuple of one item."""
        return "," if self.left == "(" and len(self.items) == 1 else ""


def show(value: Any) -> str:
    """Print a value as an argument of a call, on one line."""
    return _flat(_text(value))


def show_call(call: Call) -> str:
    """Print a definition as its call, over several lines where it is longer than one."""
    return _broken(_call_text(call, ()), 0, 0, 0)


def show_head(call: Call, without: type) -> str:
    """Print a definition on one short line.

    Without the arguments that are of a class, or hold such; calls among the others as `name(...)`.
    """
    text = _call_text(call, without)
    items = ((name, _short(item)) for name, item in text.items)
    return _flat(text._replace(items=tuple(items)))


def _short(text: "Text | str") -> "Text | str":
    if isinstance(text, str):
        return text
    if text.is_call:
        return f"{text.left}...)" if text.items else _flat(text)
    return text._replace(items=tuple((name, _short(item)) for name, item in text.items))


def _text(value: Any) -> "Text | str":
    if isinstance(value, Mapping):
        return Text("{", tuple((f"{key!r}: ", _text(item)) for key, item in value.items()), "}")
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        left, right = "()" if isinstance(value, tuple) else "[]"
        return Text(left, tuple(("", _text(item)) for item in value), right)
    if _is_call(value):
        expression = getattr(value, "expression", None)  # of schedules: `0.5 * schedule`
        return _call_text(value, ()) if expression is None else expression
    return _record_text(value) if _is_record(value) else _atom(value)


def _is_record(value: Any) -> bool:
    """Whether a value is a dataclass that prints as one."""
    is_one = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_one and repr(value).startswith(f"{type(value).__name__}(")


def _record_text(value: Any) -> Text:
    """A dataclass without the fields that have their default."""
    fields = [one for one in dataclasses.fields(value) if one.repr]
    items = [
        (f"{one.name}=", _text(getattr(value, one.name)))
        for one in fields
        if not _is_default(getattr(value, one.name), one.default)
    ]
    return Text(f"{type(value).__name__}(", tuple(items), ")")


def _is_call(value: Any) -> TypeGuard[Call]:
    return hasattr(type(value), "factory") and hasattr(type(value), "arguments")


def _atom(value: Any) -> str:
    if isinstance(value, np.ndarray | jax.Array):
        is_number = (
            value.ndim == 0
            and not isinstance(value, Tracer)
            and not jnp.issubdtype(value.dtype, jax.dtypes.extended)
        )
        return f"{value.item():.8g}" if is_number else show_array(value)
    if isinstance(value, np.generic):
        return f"{value.item():.8g}" if isinstance(value, np.floating) else str(value.item())
    if is_dtype(value):
        return np.dtype(value).name
    return getattr(value, "__name__", None) or repr(value)


def _call_text(call: Call, without: type | tuple[()]) -> Text:
    """A call without the arguments that have their default."""
    items: list[tuple[str, Text | str]] = []
    for name, parameter in call.factory.signature.parameters.items():
        value = call.arguments[name]
        if without and _holds(value, without):
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            items += [("", _text(item)) for item in value]
        elif parameter.kind is parameter.VAR_KEYWORD:
            items += [(f"{key}=", _text(item)) for key, item in value.items()]
        elif not _is_default(value, parameter.default):
            items.append((f"{name}=", _text(value)))
    return Text(f"{call.factory.__name__}(", tuple(items), ")", is_call=True)


def _holds(value: Any, kind: type) -> bool:
    """Whether a value is of a class, or a collection of such values."""
    items = value.values() if isinstance(value, Mapping) else value
    is_group = isinstance(value, Mapping | tuple | list) and bool(value)
    return isinstance(value, kind) or (is_group and any(isinstance(one, kind) for one in items))


def _flat(text: "Text | str") -> str:
    """The text on one line."""
    return text if isinstance(text, str) else f"{text.left}{_joined(text)}{text.right}"


def _joined(text: Text) -> str:
    return ", ".join(f"{name}{_flat(item)}" for name, item in text.items) + text.comma


def _broken(text: "Text | str", indent: int, used: int, tail: int) -> str:
    """The text on lines of at most `WIDTH` columns where its items allow it.

    `indent` is that of its line, `used` the columns before it, `tail` those needed behind it.
    """
    flat = _flat(text)
    if used + len(flat) + tail <= WIDTH or not flat:
        return flat
    inner, edge = indent + INDENT, " " * indent
    if isinstance(text, str):
        return _broken_string(text, inner, edge)
    joined = _joined(text)
    is_nested = any(isinstance(item, Text) and item.is_call for _, item in text.items)
    if not is_nested and inner + len(joined) <= WIDTH:
        lines = joined
    else:
        pad = " " * inner
        lines = f"\n{pad}".join(
            f"{name}{_broken(item, inner, inner + len(name), 1)}," for name, item in text.items
        )
    return f"{text.left}\n{' ' * inner}{lines}\n{edge}{text.right}"


def _broken_string(text: str, inner: int, edge: str) -> str:
    """The text of a long string as several literals, which Python joins; others as they are."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    if not isinstance(value, str) or inner >= WIDTH - INDENT:
        return text
    pieces, room = [""], WIDTH - inner
    for character in value:
        if len(repr(pieces[-1] + character)) > room:
            pieces.append("")
        pieces[-1] += character
    pad = f"\n{' ' * inner}"
    return f"({pad}{pad.join(map(repr, pieces))}\n{edge})"


def is_dtype(value: Any) -> bool:
    """Whether a value is a dtype: `jnp.bfloat16` or `np.dtype("int8")`.

    Python's own types and strings are not, although NumPy would accept them.
    """
    if not isinstance(value, type | np.dtype):
        return False
    try:
        np.dtype(value)
    except TypeError:
        return False
    return value not in (bool, int, float, complex, object, str, bytes)


def _is_default(value: Any, default: Any) -> bool:
    # `==` of arrays is an array, and may not be known while JAX traces.
    if isinstance(value, jax.Array | np.ndarray) or isinstance(default, jax.Array | np.ndarray):
        return value is default
    # 1 == True, but the two print differently.
    return type(value) is type(default) and value == default


def show_table(lines: Sequence[Sequence[str]], text_columns: int) -> str:
    """Print lines of cells as a table: columns of text first, then columns of numbers.

    Text is aligned left, numbers are aligned right.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(_padded(line, widths, text_columns)).rstrip() for line in lines)


def _padded(line: Sequence[str], widths: Sequence[int], text_columns: int) -> list[str]:
    cells = enumerate(zip(line, widths, strict=True))
    return [
        cell.ljust(width) if number < text_columns else cell.rjust(width)
        for number, (cell, width) in cells
    ]
