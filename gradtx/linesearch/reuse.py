"""The loss and its gradient from a state, where the line search of the last step stored them."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StateError
from gradtx.definition.types import Array, Params, PyTree, State, Updates
from gradtx.linesearch.line import cast_like, cond
from gradtx.tree.casts import is_inexact
from gradtx.tree.paths import flatten
from gradtx.tree.variables import with_variables, without_variables
from gradtx.tree.vectors import value_and_grad


def value_and_grad_from_state(
    value_fn: Callable[..., Any],
) -> Callable[..., tuple[Array, Updates]]:
    """`jax.value_and_grad(value_fn)`, with the results of the last line search where they fit.

    Call the result as `value_and_grad(params, *args, state=state, **kwargs)`. It computes value and
    gradient itself at the first step, where the last loss was not finite, and where the state holds
    the gradient of some parameters only (a line search under a mask). Of complex parameters the
    gradient is the conjugate of the steepest ascent, as in `jax.grad`.

    When: every step descends the same function, and the line search is last in its chain, so that
    it evaluated the loss at the new parameters. When not: the loss depends on a batch; then the
    state holds the loss of the batch before.

    Args:
      value_fn: `value_fn(params, *args, **kwargs)` -> scalar.

    Raises:
      StateError: the state holds no value and gradient, or several.

    >>> import gradtx, jax.numpy as jnp
    >>> loss = lambda w: jnp.sum((w - 3.0) ** 2)
    >>> tx, w = gradtx.lbfgs(), jnp.zeros(2)
    >>> state, value_and_grad = tx.init(w), gradtx.value_and_grad_from_state(loss)
    >>> for _ in range(3):
    ...     value, grad = value_and_grad(w, state=state)
    ...     updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=loss)
    ...     w = gradtx.apply_updates(w, updates)
    >>> jnp.allclose(w, 3.0).item()
    True
    """
    return functools.partial(_value_and_grad, value_fn)


def _value_and_grad(
    value_fn: Callable[..., Any], params: Params, *args: object, state: PyTree, **kwargs: object
) -> tuple[Array, Updates]:
    value, grad = _from_state(without_variables(state))
    grad = with_variables(grad, params)
    compute = functools.partial(value_and_grad, value_fn, params, *args, **kwargs)
    arrays, treedef = flatten(params)
    pairs = zip(arrays, treedef.flatten_up_to(grad), strict=True)
    if any(is_inexact(array) and one is None for array, one in pairs):
        return compute()
    # The state may hold other dtypes than the loss has; both branches must agree.
    results = cast_like((value, grad), jax.eval_shape(compute))
    return cond(jnp.isfinite(value), lambda: results, compute)


def _from_state(state: PyTree) -> tuple[Array, Updates]:
    """The value and the gradient in a state, wherever its line search is."""
    holders = list(_holders(state.slots if isinstance(state, State) else state, ()))
    if len(holders) > 1:
        places = ", ".join(repr("/".join(path)) for path, _ in holders)
        raise StateError(
            f"the state holds a value and a gradient in {len(holders)} places: {places}; "
            "keep one line search"
        )
    if not holders or holders[0][1].grad is None:
        raise StateError(
            "the state holds no value and gradient: put scale_by_zoom_linesearch(...), or "
            "scale_by_backtracking_linesearch(..., store_grad=True), into the chain, "
            "or call jax.value_and_grad"
        )
    return holders[0][1].value, holders[0][1].grad


def _holders(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The parts of a state that have fields `value` and `grad`, each with its path."""
    fields = getattr(node, "_fields", None)
    if {"value", "grad"} <= set(fields or ()):
        yield path, node
    elif isinstance(node, Mapping | tuple | list):
        names = node.keys() if isinstance(node, Mapping) else fields or range(len(node))
        children = node.values() if isinstance(node, Mapping) else node
        for name, child in zip(names, children, strict=True):
            yield from _holders(child, (*path, str(name)))
