"""One of two outcomes: chosen entry by entry after both were worked out, or only one of them
run.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.definition.types import Updates
from gradtx.tree.maps import map_leaves


def run_if(condition: Any, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """The outcome of one of two functions, which is the only one that runs: for what is expensive
    and seldom wanted.

    Both give arrays of the same shapes and dtypes. Outside of jit, where the condition is a value,
    nothing is compiled for it."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, then, otherwise)
    return then() if condition else otherwise()


def run_in_place_if(
    condition: Any, then: Callable[..., Any], otherwise: Callable[..., Any], *args: Any
) -> Any:
    """`run_if` of two functions of arrays that are to be overwritten, `otherwise` leaving them as
    they are.

    Which branch stands first decides whether XLA copies them: for a GPU the one that runs nothing
    must be last, elsewhere first."""
    if not isinstance(condition, Tracer):
        return then(*args) if condition else otherwise(*args)
    then = jax.jit(then)
    first = functools.partial(jax.lax.cond, condition, then, otherwise)
    last = functools.partial(jax.lax.cond, ~condition, otherwise, then)
    return jax.lax.platform_dependent(*args, cuda=last, rocm=last, default=first)


def keep_if(condition: Any, updates: Updates) -> Any:
    """The updates where a condition holds, else zeros, whatever the updates are: −0, which added to
    any number gives that number.
    """
    return map_leaves(_or_zero, updates, keep=condition)


def _or_zero(update: jax.Array, *, keep: jax.Array) -> jax.Array:
    return jnp.where(keep, update, -jnp.zeros_like(update))
