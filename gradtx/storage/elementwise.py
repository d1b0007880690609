"""Elementwise rules: those that treat every entry alike, so that they may run on any tile."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

OPERATIONS = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type
    broadcast_in_dim cbrt ceil clamp convert_element_type copy cos cosh div eq erf erfc erf_inv
    exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg
    nextafter not or pow reduce_precision rem round rsqrt select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan
    tanh xor
"""
ELEMENTWISE = frozenset(OPERATIONS.split())
"""Operations that treat every entry alike. Any other operation only prevents tiles."""
CALLS = frozenset(
    ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "core_call", "remat")
)


def is_elementwise(
    function: Callable[..., Any], rules: Sequence[Any], shared: Any, row: Any
) -> bool:
    """Whether rules consist of such operations alone, without their storage."""
    pairs = zip(rules, row.slots, strict=True)
    slots = [None if stored is None else _decoded(rule, stored, row) for rule, stored in pairs]
    bare = tuple(_without_storage(rule) for rule in rules)
    closed = jax.make_jaxpr(functools.partial(function, bare))(
        shared, row._replace(slots=tuple(slots))
    )
    return _is_elementwise(closed.jaxpr, row.grad.shape)


def _decoded(rule: Any, stored: Any, row: Any) -> Any:
    """The shapes of the slots of a rule."""
    if rule.storage is None:
        return stored
    return jax.eval_shape(functools.partial(rule.storage.decode, shape=row.grad.shape), stored)


@functools.lru_cache(maxsize=1024)
def _without_storage(rule: Any) -> Any:
    return dataclasses.replace(rule, storage=None)


def _is_elementwise(jaxpr: Any, shape: tuple[int, ...]) -> bool:
    return all(_treats_alike(equation, shape) for equation in jaxpr.eqns)


def _treats_alike(equation: Any, shape: tuple[int, ...]) -> bool:
    atoms = (*equation.invars, *equation.outvars)
    shapes = [jnp.shape(atom.aval) if hasattr(atom, "aval") else () for atom in atoms]
    if all(one == () for one in shapes):
        return True  # an operation on scalars is the same for every tile
    if any(one not in ((), shape) for one in shapes):
        return False
    if equation.primitive.name in CALLS:
        values = equation.params.values()
        jaxprs = [one for one in values if hasattr(one, "jaxpr") or hasattr(one, "eqns")]
        # A closed program holds the program itself in `jaxpr`.
        return bool(jaxprs) and _is_elementwise(getattr(jaxprs[0], "jaxpr", jaxprs[0]), shape)
    return equation.primitive.name in ELEMENTWISE
