"""Printing: arrays as `f32[3,4]`, functions by name, definitions as their calls."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.definition.types import DTypeLike

_SHORT = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}


def show_dtype(dtype: DTypeLike) -> str:
    """Shorten the name of a dtype: `float32` is `f32`."""
    name = np.dtype(dtype).name if not jnp.issubdtype(dtype, jax.dtypes.extended) else str(dtype)
    word = name.rstrip("0123456789")
    return _SHORT[word] + name[len(word) :] if word in _SHORT and word != name else name


def show_array(array: Any) -> str:
    """Print the dtype and the shape of an array: `f32[768,3072]`."""
    return f"{show_dtype(array.dtype)}[{','.join(map(str, array.shape))}]"


def show(value: Any) -> str:
    """Print a value as an argument of a call."""
    if isinstance(value, np.ndarray | jax.Array):
        is_number = (
            value.ndim == 0
            and not isinstance(value, Tracer)
            and not jnp.issubdtype(value.dtype, jax.dtypes.extended)
        )
        return f"{value.item():.8g}" if is_number else show_array(value)
    if isinstance(value, np.generic):
        return f"{value.item():.8g}" if isinstance(value, np.floating) else str(value.item())
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        left, right = "()" if isinstance(value, tuple) else "[]"
        comma = "," if len(value) == 1 and left == "(" else ""
        return f"{left}{', '.join(map(show, value))}{comma}{right}"
    if is_dtype(value):
        return np.dtype(value).name
    return getattr(value, "__name__", None) or repr(value)


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


def show_call(signature: inspect.Signature, arguments: Mapping[str, Any]) -> str:
    """Print the arguments of a call, without those that have their default."""
    parts: list[str] = []
    for name, parameter in signature.parameters.items():
        value = arguments[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            parts += [show(item) for item in value]
        elif parameter.kind is parameter.VAR_KEYWORD:
            parts += [f"{key}={show(item)}" for key, item in value.items()]
        elif not _is_default(value, parameter.default):
            parts.append(f"{name}={show(value)}")
    return ", ".join(parts)


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
