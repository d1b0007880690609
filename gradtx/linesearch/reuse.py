"""The loss and its gradient out of a state, where the line search of the last step left them."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StateError
from gradtx.definition.types import State
from gradtx.linesearch.line import either
from gradtx.tree.casts import is_inexact
from gradtx.tree.paths import flatten


def value_and_grad_from_state(value_fn: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """`jax.value_and_grad(value_fn)`, which takes both from the state where the last line search
    found them.

    The result is called `value_and_grad(params, *args, state=state, **kwargs)`. It computes at the
    first step, where the last loss was not finite, and where the state holds the gradient of some
    parameters only (a line search under a mask). Of complex parameters the gradient is the
    conjugate of the steepest ascent, as `jax.grad` has it.

    When: every step descends the same function, and the line search is last in its chain, so that
    the parameters are those which it evaluated last. When not: the loss depends on a batch; then
    the state holds the loss of the batch before.

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
    value_fn: Callable[..., Any], params: Any, *args: Any, state: Any, **kwargs: Any
) -> tuple[Any, Any]:
    kept_value, kept_grad = _kept(state)
    compute = functools.partial(jax.value_and_grad(value_fn), params, *args, **kwargs)
    arrays, treedef = flatten(params)
    grads = treedef.flatten_up_to(kept_grad)
    if any(is_inexact(array) and grad is None for array, grad in zip(arrays, grads, strict=True)):
        return compute()
    like = jax.eval_shape(compute)
    kept = jax.tree.map(lambda one, shape: one.astype(shape.dtype), (kept_value, kept_grad), like)
    return either(jnp.isfinite(kept_value), lambda: kept, compute)


def _kept(state: Any) -> tuple[Any, Any]:
    found = list(_holders(state.slots if isinstance(state, State) else state, ()))
    if len(found) > 1:
        places = ", ".join(repr("/".join(path)) for path, _ in found)
        raise StateError(
            f"the state holds a value and a gradient in {len(found)} places: {places}; which is meant cannot be told"
        )
    if not found or found[0][1].grad is None:
        raise StateError(
            "the state holds no value and gradient: put scale_by_zoom_linesearch(...), or "
            "scale_by_backtracking_linesearch(..., store_grad=True), into the chain, or call jax.value_and_grad"
        )
    return found[0][1].value, found[0][1].grad


def _holders(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The parts of a state that have a value and a gradient by name."""
    if {"value", "grad"} <= set(getattr(node, "_fields", ())):
        yield path, node
    elif isinstance(node, Mapping | tuple | list):
        named = (
            node.items()
            if isinstance(node, Mapping)
            else zip(getattr(node, "_fields", range(len(node))), node, strict=True)
        )
        for name, below in named:
            yield from _holders(below, (*path, str(name)))
