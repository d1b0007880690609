"""Checks of one call of a builder: its data by shape and range, its options by their types."""

import functools
import operator
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import HyperparamError
from gradtx.definition.show import show
from gradtx.definition.spelling import SPELLINGS, is_number_text, suggest
from gradtx.definition.types import Check, DTypeLike, Interval

FLOATS = ("bfloat16", "float16", "float32", "float64")
"""The dtypes of arithmetic and of slots; `stored` has formats with fewer bits."""


SLOT_DTYPES = ("mu_dtype", "accumulator_dtype", "state_dtype")
"""The options that may be complex too, for the slots of complex parameters."""


def is_collection(value: Any) -> bool:
    """Whether a value holds several; a named tuple is one value, as Optax's transformations are."""
    return isinstance(value, Mapping | list | tuple) and not hasattr(value, "_fields")


def takes_several(hint: Any) -> bool:
    """Whether an annotation has a place for several values, such as `Sequence[Positive]`."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(origin, type) and issubclass(origin, Collection):
        return True
    return origin is not Literal and any(map(takes_several, parts))


def check_number(
    where: str, value: Any, intervals: Sequence[Interval], names: Collection[str]
) -> None:
    """Raise unless a value is a real number in the range of its argument.

    `names` are the arguments of the builder, which the cure may name. The shape is another check,
    since a batch of definitions holds arrays.
    """
    name = where.rpartition(" ")[2]
    if is_collection(value) and (cure := _separate(name, value, names)) is not None:
        raise HyperparamError(f"{where} = {show(value)} is a {type(value).__name__}: {cure}")
    if holds_arrays(value):
        raise HyperparamError(
            f"{where} is a tree of arrays, as parameters are, and must be one number: a definition "
            f"takes no parameters, tx.init(params) does"
        )
    if is_collection(value):
        raise HyperparamError(
            f"{where} = {show(value)} is a {type(value).__name__}, and must be one number"
            f"{_only(value)}"
        )
    dtype = _dtype(value)
    if dtype is None:
        raise HyperparamError(
            f"{where} = {value!r} is neither a number, an array nor a schedule"
            f"{_number_for(value, names)}"
        )
    is_bool = jnp.issubdtype(dtype, jnp.bool_)
    if is_bool or jnp.issubdtype(dtype, jnp.complexfloating):
        kind = "a bool" if is_bool else "complex"
        raise HyperparamError(f"{where} = {show(value)} is {kind}, and must be a real number")
    for interval in intervals:
        interval.check(value, where, _cure(where, name, value))


INT32 = np.iinfo(np.int32)


def fit_number(value: Any, intervals: Iterable[Interval]) -> Any:
    """A number >= 0 that is too large for JAX's int32 as a float, any other value unchanged."""
    if type(value) is not int or INT32.min <= value <= INT32.max:
        return value
    # A random key may have any sign, and must not be rounded.
    return float(value) if any(one.low >= 0 for one in intervals) else value


def check_scalar(where: str, value: Any) -> None:
    """Raise where a caller passes an array in the place of one number; raw keys may pass."""
    shape = getattr(value, "shape", ())
    if shape and not (value.dtype == np.uint32 and len(shape) == 1):
        raise HyperparamError(
            f"{where} = {show(value)} is an array of shape {tuple(shape)}, and must be one number; "
            f"for a batch of definitions take gradtx.replace and gradtx.vmap_axes"
        )


def holds_arrays(value: Any) -> bool:
    """Whether a value is a tree of arrays, as parameters are, and no array or partial function."""
    if isinstance(value, jax.Array | np.ndarray | jax.ShapeDtypeStruct | functools.partial):
        return False
    return any(getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(value))


def _dtype(value: Any) -> Any:
    """The dtype of a number or an array; None for anything else."""
    if isinstance(value, bool | int | float | complex):
        return np.dtype(type(value))
    return value.dtype if isinstance(value, jax.Array | np.ndarray | np.generic) else None


def _separate(name: str, value: Any, names: Collection[str]) -> str | None:
    """The spelling of torch's pair `betas`: its numbers under their own names."""
    number = name.removeprefix("b")
    if isinstance(value, Mapping) or name == number or not number.isdigit():
        return None
    spelled = {f"b{int(number) + index}": one for index, one in enumerate(value)}
    if len(spelled) < 2 or not all(one in names for one in spelled):
        return None
    return f"write {', '.join(f'{one}={show(item)}' for one, item in spelled.items())}"


def _only(value: Any) -> str:
    """How to write the number in a collection of one; "" for several."""
    is_one = len(value) == 1 and not isinstance(value, Mapping)
    return f": write {show(next(iter(value)))}" if is_one else ""


def _number_for(value: Any, names: Collection[str]) -> str:
    """How to write the number that a text, or None, may stand for; "" where there is none."""
    if value is None:
        return "; to leave it out write 0.0, or drop the argument"
    if not is_number_text(value):
        return f"; write shape={value!r}" if "shape" in names else ""
    return f": write float({value!r}); YAML reads 1e-3 as a text, and 1.0e-3 as a number"


def _cure(where: str, name: str, value: Any) -> str:
    """How to write what a number out of its range may have meant; "" where it means nothing."""
    builder = where.partition(":")[0]
    if not isinstance(value, int | float):
        return ""
    if np.isinf(value) or np.isnan(value):
        return "; give a finite number"
    if value == 1:
        return "; at 1 an average would never move: give a number below 1"
    if value < 0 and name in ("weight_decay", "weight_decay_rate"):
        return f"; to let parameters grow, put add_decayed_weights({show(-value)}) behind {builder}"
    return ""


def check_option(where: str, hint: Any, value: Any, names: Iterable[str]) -> None:
    """Raise where an option has another type than its annotation says.

    An annotation with other parts than bool, int, float, text, function, choices and None says
    nothing of a value, except that None must be one of its parts.
    """
    parts = list(map(_kind, _parts(hint)))
    if value is None and type(None) not in parts and hint is not Any:
        raise HyperparamError(f"{where} is None, and must be given")
    for part in parts:
        if isinstance(part, Check):
            part.function(where, value)
    if set(typing.get_args(DTypeLike)) <= set(parts):
        if value is not None:
            check_dtype(where, value)
        return
    tests = [_test(part) for part in parts]
    if not any(test is None or test(value) for test in tests):
        raise HyperparamError(_unknown(where, parts, value, names))


def _parts(hint: Any) -> Iterator[Any]:
    """Yield the members of a union, and the checks of an annotation."""
    if typing.get_origin(hint) is Annotated:
        hint, *marks = typing.get_args(hint)
        yield from (mark for mark in marks if isinstance(mark, Check))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _parts(part)
    else:
        yield hint


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not _is_bool(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


KINDS: Mapping[Any, tuple[Callable[[Any], bool], str]] = {
    bool: (_is_bool, "True or False"),
    int: (_is_whole, "a whole number"),
    float: (_is_real, "a number"),
    str: (lambda value: isinstance(value, str), "a text"),
    type(None): (lambda value: value is None, "None"),
    Callable: (callable, "a function"),
}
"""The types of options that a value can be compared with: the test, and its name in a message."""


def _kind(part: Any) -> Any:
    """A part of an annotation as `KINDS` knows it: without the signature of a function."""
    return Callable if typing.get_origin(part) is Callable else part


def _test(part: Any) -> Callable[[Any], bool] | None:
    """The test of one part of an annotation; None for a part that says nothing."""
    if typing.get_origin(part) is Literal:
        return typing.get_args(part).__contains__
    return KINDS[part][0] if part in KINDS else None


def _unknown(where: str, parts: Sequence[Any], value: Any, names: Iterable[str]) -> str:
    """The message for an option of another type, or with a name that does not exist."""
    choices = [one for part in parts if part not in KINDS for one in typing.get_args(part)]
    if choices and isinstance(value, str):
        number = ", or give a number" if float in parts else ""
        shown = ", ".join(map(repr, choices))
        near = suggest(value, choices) if value in SPELLINGS else ""
        choose = f"{near} Choose" if near else "; choose"
        return f"{where} = {value!r} is unknown{choose} one of {shown}{number}"
    kinds = [KINDS[part][1] for part in parts if part in KINDS] + [*map(repr, choices)]
    order = f"; its arguments are, in order, {', '.join(names)}" if bool in parts else ""
    return f"{where} = {show(value)} must be {' or '.join(kinds)}{order}"


def check_dtype(where: str, value: Any) -> None:
    """Raise unless a dtype is a float of at least 16 bits, for arithmetic or a slot."""
    try:
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            raise TypeError  # NumPy would take the dtype of an array
        dtype = np.dtype(value)
    except TypeError:
        hint = suggest(value, FLOATS) if isinstance(value, str) else ""
        raise HyperparamError(
            f"{where} = {show(value)} is not a dtype{hint or f'; choose one of {_floats()}'}"
        ) from None
    if where.endswith(SLOT_DTYPES) and jnp.issubdtype(dtype, jnp.complexfloating):
        return
    if not jnp.issubdtype(dtype, jnp.floating) or jnp.finfo(dtype).bits < 16:
        raise HyperparamError(
            f"{where} = {show(value)} is not a float of at least 16 bits; choose one of "
            f"{_floats()}, or for a smaller state write gradtx.stored(tx, 'int8')"
        )


def _floats() -> str:
    return ", ".join(map(repr, FLOATS))
