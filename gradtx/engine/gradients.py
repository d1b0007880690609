"""The gradients that `update` receives: of the parameters' kind of number, or refused by path.

Integers are left alone where the *parameter* is an integer. An integer gradient of a float
parameter is a gradient like any other, a sum of signs for example, and is computed in floats.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.definition.errors import MissingParamsError, StructureError
from gradtx.definition.show import show_array, show_type
from gradtx.definition.types import Updates
from gradtx.tree.casts import as_array, compute_dtype, is_inexact
from gradtx.tree.paths import flatten, leaf_paths, tree_paths


def fit_gradient(
    path: str, grad: Any, param: Any, what: str = "gradient", same_shape: bool = True
) -> Any:
    """A gradient, or an update, as a number of its parameter's kind; an error names its path."""
    if grad is None:
        _check_absent(path, param, what)
        return None
    if not is_inexact(param):
        _check_left_alone(path, grad, param, what)
        return grad
    if not is_inexact(grad) and not is_integer(grad):
        raise StructureError(
            f"{what} at {path!r} is {_shown(grad)}, its parameter {_shown(param)}: pass an array "
            f"of floats, or None where there is no {what}"
        )
    if same_shape and jnp.shape(grad) != jnp.shape(param):
        raise StructureError(
            f"{what} at {path!r} has shape {jnp.shape(grad)}, its parameter {jnp.shape(param)}: "
            f"pass the parameters that the {what}s were taken with respect to"
        )
    if is_integer(grad):
        return as_array(grad).astype(compute_dtype(jnp.result_type(param)))
    return _of_kind(path, grad, param, what)


def _of_kind(path: str, grad: Any, param: Any, what: str) -> Any:
    """A real gradient of a real parameter, a complex one of a complex parameter."""
    if jnp.iscomplexobj(grad) and not jnp.iscomplexobj(param):
        raise StructureError(
            f"{what} at {path!r} is {_shown(grad)}, its parameter {_shown(param)}: a real "
            f"parameter has a real {what}, pass its real part"
        )
    if jnp.iscomplexobj(param) and not jnp.iscomplexobj(grad):
        return as_array(grad).astype(jnp.result_type(as_array(grad).dtype, jnp.complex64))
    return grad


def is_integer(leaf: Any) -> bool:
    """Whether a leaf is an array of integers or bools, or a number of Python's of that kind."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return isinstance(leaf, int)
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


def floats_alone(grads: Sequence[Any]) -> Sequence[Any]:
    """Integers without parameters as floats, where there is no float among them.

    Then no leaf can belong to a parameter that rules leave alone: nothing would be trained.
    """
    dtype = jnp.result_type(float)
    return [None if one is None else as_array(one).astype(dtype) for one in grads]


def are_integers(grads: Sequence[Any]) -> bool:
    """Whether all gradients that are there are integers."""
    present = [one for one in grads if one is not None]
    return bool(present) and all(map(is_integer, present))


def check_alone(grads: Updates) -> None:
    """Raise for integers beside floats, without parameters: they may be gradients of floats."""
    values, treedef = flatten(grads)
    if are_integers(values):
        return
    for index, grad in enumerate(values):
        if not is_inexact(grad) and is_integer(grad):
            path = leaf_paths(treedef, grads)[index]
            raise MissingParamsError(
                f"gradient at {path!r} is {_shown(grad)}, and only its parameter says whether it "
                f"is a number to train: call update(grads, state, params), or cast it to floats"
            )


def _check_absent(path: str, param: Any, what: str) -> None:
    """Raise where None stands for several parameters: it is the gradient of one at most."""
    if jax.tree_util.all_leaves([param], is_leaf=lambda node: node is None):
        return
    first = next(iter(tree_paths(param)), None)
    if first is not None:
        where = f"{path}/{first}" if path else first
        raise StructureError(
            f"{what} at {path!r} is None, and the parameters have {where!r} there: pass a tree "
            f"like the parameters, with None for each array that has no {what}"
        )


def _check_left_alone(path: str, grad: Any, param: Any, what: str) -> None:
    """Raise for floats beside a parameter that is left alone: they belong to another one."""
    if is_inexact(grad):
        raise StructureError(
            f"{what} at {path!r} is {_shown(grad)}, its parameter {_shown(param)}, which no rule "
            f"changes: pass None there, or the parameters that the {what}s belong to"
        )


def _shown(leaf: Any) -> str:
    """An array by its type, a number of Python's as it is, anything else by its class."""
    if leaf is None:
        return "None"
    if getattr(leaf, "dtype", None) == jax.dtypes.float0:
        return f"float0[{','.join(map(str, leaf.shape))}], the gradient of an integer"
    if hasattr(leaf, "dtype"):
        return show_array(leaf)
    return repr(leaf) if isinstance(leaf, int | float | complex) else show_type(leaf)


def no_gradients(name: str) -> StructureError:
    """The error of None in the place of all gradients."""
    return StructureError(
        f"the gradients of {name} are None: pass a tree like the parameters; an empty tree is {{}}"
    )
