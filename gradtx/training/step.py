"""`Step`: a compiled training step, and the errors of a call that does not fit."""

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jax.core import Tracer

from gradtx.definition.errors import TRACED, GradtxError, StructureError
from gradtx.definition.show import show_array, show_type
from gradtx.definition.types import Params, State
from gradtx.engine.clock import NOTE
from gradtx.training.layout import Shardings, check_shardings, layout_of, placements
from gradtx.training.programs import (
    Programs,
    call_joined,
    call_with_options,
    check_jit,
    compile_step,
)
from gradtx.tree.casts import is_inexact
from gradtx.tree.donated import (
    KEEP,
    deleted_array,
    is_deleted,
    is_deletion,
    is_sharing,
    with_copies,
)
from gradtx.tree.options import has_numbers, has_options, is_data, join, split
from gradtx.tree.paths import flatten, leaf_paths, tree_paths
from gradtx.tree.variables import lost_variable

Function = Callable[..., Any]


NUMBERS = "a module holds Python numbers, which a program must not take as arrays"
"""The text of an error that `Step` answers itself."""


class Step:
    """A compiled training step: `step(params, state, *batch) -> (params, state, value[, aux])`.

    `lower`, `trace`, `eval_shape` and `clear_cache` are those of `jax.jit`. There is a program for
    each way in which the parameters are cut over devices.
    """

    def __init__(
        self,
        function: Function,
        loss: Any,
        donate: bool,
        shardings: Shardings | None = None,
        jit: Function | None = None,
    ):
        """Compile `function(loss, params, state, *batch, layout=)`; `loss.function` is the
        user's.
        """
        check_shardings(shardings)
        check_jit(jit)
        self.__name__: str = "step"
        self._loss: Any = loss
        self._function: Function = function
        self._donate: bool = donate
        self._shardings: Shardings | None = shardings
        self._jit: Function | None = jit
        self._programs: dict[Any, Programs] = {}
        self._takes_module: bool = False

    def __call__(self, params: Any, state: Any, *batch: Any, **named: Any) -> Any:
        """Run one step; what it returns replaces `params` and `state`."""
        if named:
            raise _named_batch(named)
        # One look at the count, before XLA writes lines of its own about a deleted array.
        if is_deleted(getattr(state, "count", None)):
            raise _deleted(params, state, batch) from None
        try:
            return self._run(params, state, *batch)
        except Exception as error:
            params, state = self._mended(error, params, state, batch)
        return self._run(params, state, *batch)

    def _run(self, params: Params, state: Any, *batch: Any) -> Any:
        programs = self._programs_of(params, state)
        if self._takes_module:
            return self._run_module(programs, params, state, *batch)
        return programs.of_arrays(params, state, *batch)

    def _programs_of(self, params: Params, state: Any) -> Programs:
        """The programs for parameters that are cut as these are."""
        key = placements(params)
        programs = self._programs.get(key)
        return self._compile(key, params, state) if programs is None else programs

    def _compile(self, key: Any, params: Params, state: Any) -> Programs:
        layout = layout_of(params, state, self._shardings)
        function = functools.partial(self._function, layout=layout)
        with_options = functools.partial(call_with_options, function, self._loss)
        of_arrays = functools.partial(function, self._loss)
        programs = compile_step(self._jit, of_arrays, with_options, self._donate)
        self._programs[key] = programs
        return programs

    def _mended(
        self, error: Exception, params: Params, state: Any, batch: Sequence[Any]
    ) -> tuple[Params, Any]:
        """The arguments of a second try, if there is one; else the error, or a plainer one."""
        if not self._takes_module and _needs_options(error, params):
            self._takes_module = True
            return params, state
        if is_sharing(error):  # nothing is donated yet
            return with_copies((params, state), batch)
        return self._refuse(error, params, state, batch)

    def _run_module(self, programs: Programs, params: Params, state: Any, *batch: Any) -> Any:
        arrays, options = split(params)
        try:
            new, *rest = programs.of_options(options, arrays, state, *batch)
        except Exception as error:
            if not is_sharing(error):
                self._refuse(error, params, state, batch)
            arrays, state = with_copies((arrays, state), batch)
            new, *rest = programs.of_options(options, arrays, state, *batch)
        return join(new, options), *rest

    def _refuse(
        self, error: Exception, params: Params, state: Any, batch: Sequence[Any]
    ) -> NoReturn:
        """Raise the error in gradtx's words where they say more."""
        if is_deletion(error):
            raise _deleted(params, state, batch) from None
        if isinstance(error, TypeError) and (plain := _not_array(state, batch)) is not None:
            raise plain from None
        if isinstance(error, TRACED) and NOTE not in getattr(error, "__notes__", ()):
            error.add_note(
                "make_step: loss_fn is traced, and its arrays have no numbers yet: return the loss "
                "as an array, without float() or .item(), and choose with jnp.where or "
                "jax.lax.cond in the place of if"
            )
        raise error

    def _args(self, params: Params, state: Any, *batch: Any) -> tuple[Any, tuple[Any, ...]]:
        programs = self._programs_of(params, state)
        if not self._takes_module and not has_options(params):
            return programs.of_arrays, (params, state, *batch)
        arrays, options = split(params)
        return programs.of_options, (options, arrays, state, *batch)

    def lower(self, params: Params, state: Any, *batch: Any) -> Any:
        """The lowered program for these arguments, as of `jax.jit`."""
        program, args = self._args(params, state, *batch)
        return program.lower(*args)

    def trace(self, params: Params, state: Any, *batch: Any) -> Any:
        """The traced program for these arguments, as of `jax.jit`."""
        program, args = self._args(params, state, *batch)
        return program.trace(*args)

    def eval_shape(self, params: Params, state: Any, *batch: Any) -> Any:
        """The shapes of the results, of arrays or of shapes, without running the step."""
        program, args = self._args(params, state, *batch)
        new, *rest = program.eval_shape(*args)
        takes_options = program is self._programs_of(params, state).of_options
        return (join(new, args[0]) if takes_options else new), *rest

    def clear_cache(self) -> None:
        """Forget the compiled programs."""
        for program in itertools.chain.from_iterable(self._programs.values()):
            if hasattr(program, "clear_cache"):  # equinox has none
                program.clear_cache()

    def _cache_size(self) -> int:
        """The number of compiled programs, as of `jax.jit`; it is for tests."""
        programs = itertools.chain.from_iterable(self._programs.values())
        return sum(program._cache_size() for program in programs)

    def __repr__(self) -> str:
        return f"<step of {self._loss.function}>"


def _needs_options(error: Exception, params: Params) -> bool:
    is_numbers = error.args == (NUMBERS,)
    return isinstance(error, TypeError) and (is_numbers or has_options(params))


def check_call(loss_fn: Function, params: Params, state: Any, batch: Sequence[Any]) -> None:
    """Raise, while the step is traced, where its arguments are in a wrong order or missing."""
    if isinstance(params, State):
        raise GradtxError(
            "make_step: the step received a State in the place of the parameters: call "
            "step(params, state, *batch), and take its results in the same order, "
            "params, state, value = step(...)"
        )
    if any(isinstance(one, State) for one in batch) and not isinstance(state, State):
        raise GradtxError(
            "make_step: the step received a State in the place of a batch: call "
            "step(params, state, *batch), with the state behind the parameters"
        )
    whole = _without_options(loss_fn)
    _check_signature(whole, batch)
    if whole is loss_fn and has_numbers(params):
        raise TypeError(NUMBERS)
    _check_trainable(params)
    _check_variables(params)


def _without_options(loss_fn: Function) -> Function:
    """The loss as the user wrote it, which takes the whole module."""
    if isinstance(loss_fn, functools.partial) and loss_fn.func is call_joined:
        return loss_fn.args[0]
    return loss_fn


def _check_signature(loss_fn: Function, batch: Sequence[Any]) -> None:
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError):
        return  # a builtin shows none
    try:
        signature.bind(None, *batch)
    except TypeError as error:
        name = getattr(loss_fn, "__name__", "loss_fn")
        raise GradtxError(
            f"make_step: the step calls loss_fn(params, *batch) with a batch of {len(batch)}, and "
            f"{name}({', '.join(signature.parameters)}) does not take them ({error}): call "
            f"step(params, state, *batch) with all that loss_fn takes behind params"
        ) from None


def _check_trainable(params: Params) -> None:
    """Raise where no leaf is a number to train."""
    leaves, treedef = flatten(params)
    if any(map(is_inexact, leaves)) or all(leaf is None for leaf in leaves):
        return
    path, leaf = next(
        (path, leaf)
        for path, leaf in zip(leaf_paths(treedef, params), leaves, strict=True)
        if leaf is not None
    )
    shown = show_array(leaf) if hasattr(leaf, "dtype") else show_type(leaf)
    raise StructureError(
        f"make_step: no parameter is an array of floats, {path!r} is {shown}, so that nothing "
        f"would be trained: cast with jnp.asarray(..., jnp.float32)"
    )


def _check_variables(params: Params) -> None:
    """Raise where a module changes variables in place, which the step would lose."""
    variable = lost_variable(params)
    if variable is None:
        return
    path, kind = variable
    raise StructureError(
        f"make_step: the module has a {kind} at {path!r}, which a call changes in place, and the "
        f"step would lose the change: write graphdef, params, rest = nnx.split(model, nnx.Param, "
        f"...), pass params and rest, call nnx.merge(graphdef, params, rest, copy=True) in "
        f"loss_fn, and return nnx.state(model, nnx.Not(nnx.Param)) as its auxiliary output, "
        f"has_aux=True"
    )


def _named_batch(named: dict[str, Any]) -> GradtxError:
    names = ", ".join(named)
    return GradtxError(
        f"make_step: the step received {names} by name, and takes its batch by position: call "
        f"step(params, state, {names})"
    )


def _deleted(params: Params, state: Any, batch: Sequence[Any]) -> GradtxError:
    error = deleted_array("make_step", parameters=params, state=state, batch=batch)
    # An array that loss_fn closes over is in none of the trees.
    return error or GradtxError(f"make_step: an array that loss_fn uses is deleted; {KEEP}")


def _not_array(state: Any, batch: Sequence[Any]) -> GradtxError | None:
    """The error for the first leaf that a compiled program cannot take."""
    for name, tree in (("state", state), ("batch", batch)):
        for path, leaf in zip(tree_paths(tree), flatten(tree)[0], strict=True):
            if leaf is not None and not is_data(leaf) and not isinstance(leaf, Tracer):
                return GradtxError(
                    f"make_step: the leaf at {path!r} of the {name} is {_shown(leaf)}, and a "
                    f"compiled step takes arrays and numbers: leave it out, or close over it"
                )
    return None


def _shown(leaf: Any) -> str:
    return repr(leaf) if isinstance(leaf, str) else show_type(leaf)
