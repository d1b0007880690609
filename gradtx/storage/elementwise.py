"""Whether a rule treats every entry of an array alike, so that it may be run on any part of it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

ELEMENTWISE = frozenset(
    {
        *(
            "abs",
            "acos",
            "acosh",
            "add",
            "add_any",
            "and",
            "asin",
            "asinh",
            "atan",
            "atan2",
            "atanh",
            "bitcast_convert_type",
        ),
        *(
            "broadcast_in_dim",
            "cbrt",
            "ceil",
            "clamp",
            "convert_element_type",
            "copy",
            "cos",
            "cosh",
            "div",
            "eq",
            "erf",
            "erfc",
        ),
        *(
            "erf_inv",
            "exp",
            "exp2",
            "expm1",
            "floor",
            "ge",
            "gt",
            "integer_pow",
            "is_finite",
            "le",
            "log",
            "log1p",
            "logistic",
            "lt",
        ),
        *(
            "max",
            "min",
            "mul",
            "ne",
            "neg",
            "nextafter",
            "not",
            "or",
            "pow",
            "reduce_precision",
            "rem",
            "round",
            "rsqrt",
            "select_n",
        ),
        *(
            "shift_left",
            "shift_right_arithmetic",
            "shift_right_logical",
            "sign",
            "sin",
            "sinh",
            "sqrt",
            "square",
            "stop_gradient",
        ),
        *("sub", "tan", "tanh", "xor"),
    }
)
"""Operations that work on every entry by itself. An operation that is not named here stands in the
way of tiles, and of nothing else.
"""
CALLS = frozenset(
    ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "core_call", "remat")
)


def is_elementwise(
    function: Callable[..., Any], rules: Sequence[Any], shared: Any, row: Any
) -> bool:
    """Whether rules, on slots that are not encoded, are made of such operations alone."""
    slots = [
        None if kept is None else _plain(rule, kept, row)
        for rule, kept in zip(rules, row.slots, strict=True)
    ]
    bare = tuple(_without_storage(rule) for rule in rules)
    closed = jax.make_jaxpr(functools.partial(function, bare))(
        shared, row._replace(slots=tuple(slots))
    )
    return _all_alike(closed.jaxpr, row.grad.shape)


def _plain(rule: Any, kept: Any, row: Any) -> Any:
    if rule.storage is None:
        return kept
    return jax.eval_shape(functools.partial(rule.storage.decode, shape=row.grad.shape), kept)


@functools.lru_cache(maxsize=1024)
def _without_storage(rule: Any) -> Any:
    return dataclasses.replace(rule, storage=None)


def _all_alike(jaxpr: Any, shape: tuple[int, ...]) -> bool:
    return all(_is_alike(equation, shape) for equation in jaxpr.eqns)


def _is_alike(equation: Any, shape: tuple[int, ...]) -> bool:
    shapes = [
        jnp.shape(atom.aval) if hasattr(atom, "aval") else ()
        for atom in (*equation.invars, *equation.outvars)
    ]
    if all(one == () for one in shapes):
        return True
    if any(one not in ((), shape) for one in shapes):
        return False
    if equation.primitive.name in CALLS:
        inner = next(
            (
                value
                for value in equation.params.values()
                if hasattr(value, "jaxpr") or hasattr(value, "eqns")
            ),
            None,
        )
        return inner is not None and _all_alike(getattr(inner, "jaxpr", inner), shape)
    return equation.primitive.name in ELEMENTWISE
