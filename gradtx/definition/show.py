"""How values print: arrays as `f32[3,4]`, functions by name, definitions as their calls."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_SHORT = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}


def show_dtype(dtype: Any) -> str:
    """`float32` as `f32`."""
    name = np.dtype(dtype).name if not jnp.issubdtype(dtype, jax.dtypes.extended) else str(dtype)
    word = name.rstrip("0123456789")
    return _SHORT[word] + name[len(word) :] if word in _SHORT and word != name else name


def show_array(array: Any) -> str:
    """Shape and dtype, `f32[768,3072]`."""
    return f"{show_dtype(array.dtype)}[{','.join(map(str, array.shape))}]"


def show(value: Any) -> str:
    """A value as it reads in a call."""
    if isinstance(value, np.ndarray | jax.Array):
        known = (
            value.ndim == 0
            and not isinstance(value, Tracer)
            and not jnp.issubdtype(value.dtype, jax.dtypes.extended)
        )
        return f"{value.item():.8g}" if known else show_array(value)
    if isinstance(value, np.generic):
        return f"{value.item():.8g}" if isinstance(value, np.floating) else str(value.item())
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        left, right = "()" if isinstance(value, tuple) else "[]"
        return f"{left}{', '.join(map(show, value))}{',' if len(value) == 1 and left == '(' else ''}{right}"
    if is_dtype(value):
        return np.dtype(value).name
    return getattr(value, "__name__", None) or repr(value)


def is_dtype(value: Any) -> bool:
    """Whether a value names a dtype: `jnp.bfloat16` or `np.dtype("int8")`, not `float` or a string."""
    if not isinstance(value, type | np.dtype):
        return False
    try:
        np.dtype(value)
    except TypeError:
        return False
    return value not in (bool, int, float, complex, object, str, bytes)


def show_table(lines: Sequence[Sequence[str]], text_columns: int) -> str:
    """Lines of cells as text, every column as wide as its widest cell; after the columns of text,
    which stand left, numbers stand right.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(_padded(line, widths, text_columns)).rstrip() for line in lines)


def _padded(line: Sequence[str], widths: Sequence[int], text_columns: int) -> list[str]:
    cells = enumerate(zip(line, widths, strict=True))
    return [
        cell.ljust(width) if number < text_columns else cell.rjust(width)
        for number, (cell, width) in cells
    ]
