"""`make_step`: one jitted training step from a loss and a transformation."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from gradtx.core.apply import apply_updates
from gradtx.core.transformation import GradientTransformation, TransformationLike, as_transformation


def make_step(loss_fn: Callable[..., Any], tx: TransformationLike, *, has_aux: bool = False, donate: bool = True) -> Callable[..., Any]:
    """A jitted `step(params, state, *batch) -> (params, state, value[, aux])`.

    The transformation is told `value=`, `grad=` and `value_fn=` (the loss on this batch as a function of
    the parameters), so line searches and value-driven methods work as they are.

    Args:
      loss_fn: `loss_fn(params, *batch)` -> scalar, or `(scalar, aux)` with `has_aux`.
      tx: the transformation; its hyperparameters become constants of the step.
      has_aux: whether `loss_fn` returns auxiliary output beside the loss.
      donate: whether `params` and `state` are given up to the step, which then updates them in place;
        do not use the arrays that you passed in afterwards.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.sgd(0.25)
    >>> step = gradtx.make_step(lambda w, x: (w - x) ** 2, tx)
    >>> w = jnp.array(4.0)
    >>> w, state, value = step(w, tx.init(w), 2.0)
    >>> float(w), float(value), int(state.count)
    (3.0, 4.0, 1)
    """
    step = functools.partial(_step, loss_fn, as_transformation(tx), has_aux)
    return jax.jit(step, donate_argnums=(0, 1) if donate else ())


def _step(loss_fn: Callable[..., Any], tx: GradientTransformation, has_aux: bool, params: Any, state: Any, *batch: Any) -> tuple[Any, ...]:
    out, grads = jax.value_and_grad(loss_fn, has_aux=has_aux)(params, *batch)
    value, *aux = out if has_aux else (out,)
    value_fn = functools.partial(_value, loss_fn, has_aux, batch)
    updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
    return apply_updates(params, updates), state, value, *aux


def _value(loss_fn: Callable[..., Any], has_aux: bool, batch: tuple[Any, ...], params: Any) -> Any:
    out = loss_fn(params, *batch)
    return out[0] if has_aux else out
