"""The compiled programs of a training step, by any function that compiles: `jax.jit` and others."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from gradtx.definition.errors import GradtxError
from gradtx.definition.show import show
from gradtx.definition.types import Params
from gradtx.tree.options import Options, join

Function = Callable[..., Any]


class Programs(NamedTuple):
    """A step as two programs."""

    of_arrays: Any
    """`(params, state, *batch)`, where each leaf of the parameters is an array."""
    of_options: Any
    """`(options, arrays, state, *batch)`, where a module has constants beside its arrays."""


class ArrayProgram:
    """A program of `equinox.filter_jit`, which donates all of its arguments but the first."""

    def __init__(self, jit: Function, function: Function, donate: bool, options: bool) -> None:
        how = "all-except-first" if donate else "none"
        self._leads = int(options)
        self._program = jit(functools.partial(_batch_first, function, self._leads), donate=how)

    def _args(self, *args: Any) -> tuple[Any, ...]:
        """The options and the batch first, then parameters and state."""
        leads, (params, state, *batch) = args[: self._leads], args[self._leads :]
        return (leads, batch), params, state

    def __call__(self, *args: Any) -> Any:
        return self._program(*self._args(*args))

    def lower(self, *args: Any) -> Any:
        """The lowered program for these arguments."""
        return self._program.lower(*self._args(*args))


def _batch_first(function: Function, leads: int, first: Any, params: Params, state: Any) -> Any:
    options, batch = first
    return function(*options, params, state, *batch)


def compile_step(
    jit: Function | None, function: Function, with_options: Function, donate: bool
) -> Programs:
    """The two programs of a step."""
    if jit is None:
        jit = jax.jit
    if _takes(jit, "donate_argnums"):
        return Programs(
            jit(function, donate_argnums=(0, 1) if donate else ()),
            jit(with_options, static_argnums=0, donate_argnums=(1, 2) if donate else ()),
        )
    return Programs(
        ArrayProgram(jit, function, donate, options=False),
        ArrayProgram(jit, with_options, donate, options=True),
    )


def check_jit(jit: Any) -> None:
    """Raise where `jit` is not a function that compiles others."""
    if jit is None or (callable(jit) and (_takes(jit, "donate_argnums") or _takes(jit, "donate"))):
        return
    raise GradtxError(
        f"make_step: jit = {show(jit)} takes neither donate_argnums= nor donate=: give jax.jit, "
        f"functools.partial(jax.jit, ...), nnx.jit or equinox.filter_jit"
    )


def _takes(jit: Function, name: str) -> bool:
    try:
        return name in inspect.signature(jit).parameters
    except (TypeError, ValueError):
        return False


def call_with_options(
    function: Function, loss: Any, options: Options, arrays: Params, state: Any, *batch: Any
) -> Any:
    """A step whose loss receives the whole module, and whose gradient sees its arrays."""
    joined = functools.partial(call_joined, loss.function, options)
    return function(loss._replace(function=joined), arrays, state, *batch)


def call_joined(function: Function, options: Options, arrays: Params, *batch: Any) -> Any:
    """The loss of the whole module, from its arrays."""
    return function(join(arrays, options), *batch)
