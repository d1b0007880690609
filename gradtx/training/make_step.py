"""`make_step`: one jitted training step from a loss and a transformation."""

import functools
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.definition.errors import GradtxError
from gradtx.training.apply import Rounding, update_params
from gradtx.training.reports import loss_scale
from gradtx.tree.casts import compute_dtype, zeros
from gradtx.tree.maps import make_leaves, map_leaves
from gradtx.tree.paths import path_text


class Loss(NamedTuple):
    """A loss, and how it is taken over a batch: in how many parts, weighed by what."""

    function: Callable[..., Any]
    has_aux: bool
    microbatches: int
    weigh: Callable[..., Any] | None
    rounding: Rounding


def make_step(
    loss_fn: Callable[..., Any],
    tx: TransformationLike,
    *,
    has_aux: bool = False,
    donate: bool = True,
    microbatches: int = 1,
    weigh: Callable[..., Any] | None = None,
    rounding: Rounding = "nearest",
) -> Callable[..., Any]:
    r"""A jitted `step(params, state, *batch) -> (params, state, value[, aux])`.

    The transformation is told `value=`, `grad=` and `value_fn=` (the loss on this batch as a
    function of the parameters), so line searches and value-driven methods work as they are. Where
    it holds a `dynamic_loss_scale`, the loss is multiplied by that scale before its gradient is
    taken; `value` is the loss itself.

    With k = `microbatches` the gradient is taken part by part: g = Σ w_i g_i / Σ w_i in float32 at
    least, and then one update. It is the step of the whole batch, with the activations of a k-th of
    it in memory. Part i holds the examples i, i + k, i + 2k, ..., so that a batch that is spread
    over devices stays where it is. Arrays without axes are the same for every part; random keys (of
    `jax.random.key`, not `PRNGKey`, whose arrays are like any other) are split. A part whose weight
    is not above 0 adds nothing, be its gradient nan, as that of a mean over no tokens is; where no
    part has one, value and gradient are 0.

    Args:
      loss_fn: `loss_fn(params, *batch)` -> scalar, or `(scalar, aux)` with `has_aux`.
      tx: the transformation; its hyperparameters become constants of the step.
      has_aux: whether `loss_fn` returns auxiliary output beside the loss; with microbatches it gets
        a first axis for the parts.
      donate: whether `params` and `state` are given up to the step, which then updates them in
        place; do not use the arrays that you passed in afterwards.
      microbatches: k ≥ 1, a divisor of every batch axis.
      weigh: `weigh(*part)` -> the weight w of a part, such as its number of tokens, where `loss_fn`
        takes a mean over those; None: all parts weigh the same. Static.
      rounding: how new parameters in bfloat16 and float16 are rounded, "nearest" or "stochastic";
        see `apply_updates`.

    Raises:
      GradtxError: k is no whole number from 1 on; it does not divide a first axis, or there is no
        array with one; loss or weight are no scalars; a loss with auxiliary output without
        `has_aux`, or the reverse.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.sgd(0.25)
    >>> step = gradtx.make_step(lambda w, x: jnp.mean((w - x) ** 2), tx, microbatches=2)
    >>> w = jnp.array(4.0)
    >>> w, state, value = step(w, tx.init(w), jnp.array([1.0, 2.0, 2.0, 3.0]))
    >>> float(w), float(value), int(state.count)
    (3.0, 4.5, 1)

    See also: `accumulate`, where micro-batches arrive one by one.
    """
    if (
        isinstance(microbatches, bool)
        or not isinstance(microbatches, numbers.Integral)
        or microbatches < 1
    ):
        raise GradtxError(
            f"make_step: microbatches = {microbatches!r} is no number of parts; give a whole number from 1 on"
        )
    step = functools.partial(
        _step, Loss(loss_fn, has_aux, microbatches, weigh, rounding), as_transformation(tx)
    )
    return jax.jit(step, donate_argnums=(0, 1) if donate else ())


def _step(
    loss: Loss, tx: GradientTransformation, params: Any, state: Any, *batch: Any
) -> tuple[Any, ...]:
    scale = loss_scale(tx, state)
    one = loss.microbatches == 1
    grads, value, *aux = (
        _gradient(loss, scale, params, batch)
        if one
        else _gradient_by_parts(loss, scale, params, batch)
    )
    value_fn = functools.partial(_value, loss, batch)
    params, state = update_params(
        tx, grads, state, params, loss.rounding, value=value, grad=grads, value_fn=value_fn
    )
    return params, state, value, *aux


def _gradient(loss: Loss, scale: Any, params: Any, batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """The gradient of the scaled loss, the loss itself, and the auxiliary output if there is any."""
    scaled = functools.partial(_scaled, loss, scale)
    (_, (value, aux)), grads = jax.value_and_grad(scaled, has_aux=True)(params, *batch)
    return (grads, value, aux) if loss.has_aux else (grads, value)


def _scaled(loss: Loss, scale: Any, params: Any, *batch: Any) -> tuple[Any, tuple[Any, Any]]:
    value, aux = _checked(loss, loss.function(params, *batch))
    return value if isinstance(scale, float) else value.astype(
        compute_dtype(value.dtype)
    ) * scale, (value, aux)


def _checked(loss: Loss, out: Any) -> tuple[jax.Array, Any]:
    """The loss as a scalar array, and the auxiliary output."""
    parts = len(out) if isinstance(out, tuple | list) else 1
    if parts != 1 + loss.has_aux:
        asked = (
            "(loss, auxiliary output)"
            if loss.has_aux
            else "the loss alone, or give has_aux=True for (loss, auxiliary output)"
        )
        raise GradtxError(
            f"make_step: has_aux is {loss.has_aux}, and loss_fn returned {parts} value{'s'[: parts != 1]}: return {asked}"
        )
    value, aux = out if loss.has_aux else (out, None)
    _check_scalar("loss", value, "take its mean over the batch")
    return jnp.asarray(value), aux


def _check_scalar(what: str, value: Any, advice: str) -> None:
    if jnp.shape(value) != ():
        raise GradtxError(
            f"make_step: the {what} has shape {jnp.shape(value)}, and must be a scalar: {advice}"
        )


def _weight(loss: Loss, part: tuple[Any, ...], dtype: Any) -> jax.Array:
    """How much a part weighs: 0 where that is not above 0."""
    weight = 1.0 if loss.weigh is None else loss.weigh(*part)
    _check_scalar("weight of a part", weight, "give its number of tokens, or of examples")
    return jnp.where(jnp.asarray(weight, dtype) > 0, jnp.asarray(weight, dtype), 0)


def _add(total: jax.Array, one: jax.Array, *, weight: jax.Array) -> jax.Array:
    """A sum and one more: what weighs nothing adds nothing."""
    return jnp.where(weight > 0, total + weight * one, total)


def _gradient_by_parts(
    loss: Loss, scale: Any, params: Any, batch: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The weighted mean of the parts' gradients and losses, taken one part after another."""
    start = make_leaves(zeros, params), jnp.zeros(()), jnp.zeros(())

    def add(sums: Any, part: tuple[Any, ...]) -> tuple[Any, Any]:
        total, of_value, of_weight = sums
        grads, value, *aux = _gradient(loss, scale, params, part)
        weight = _weight(loss, part, of_weight.dtype)
        total, of_value = map_leaves(_add, (total, of_value), (grads, value), weight=weight)
        return (total, of_value, of_weight + weight), aux

    (total, of_value, of_weight), aux = jax.lax.scan(add, start, _parts(loss.microbatches, batch))
    weight = jnp.where(of_weight > 0, of_weight, 1.0)
    return map_leaves(_divide, total, weight=weight), of_value / weight, *aux


def _divide(total: jax.Array, *, weight: jax.Array) -> jax.Array:
    return total / weight


def _parts(count: int, batch: tuple[Any, ...]) -> Any:
    """A batch as parts along a new first axis."""
    found = jax.tree_util.tree_flatten_with_path(batch)[0]
    if not any(jnp.ndim(leaf) or _is_key(leaf) for _, leaf in found):
        raise GradtxError(
            f"make_step: microbatches = {count}, and nothing in the batch has a first axis to be parted along"
        )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _part(count, leaf, path_text(path)), batch
    )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _part(count: int, leaf: Any, path: str) -> Any:
    array = jnp.asarray(leaf)
    if _is_key(array) and array.ndim == 0:
        return jax.random.split(array, count)
    if array.ndim == 0:
        return jnp.broadcast_to(array, (count,))
    if array.shape[0] % count:
        raise GradtxError(
            f"make_step: microbatches = {count} does not divide the first axis of the batch at {path!r}, {array.shape}"
        )
    return jnp.moveaxis(array.reshape(array.shape[0] // count, count, *array.shape[1:]), 1, 0)


def _value(loss: Loss, batch: tuple[Any, ...], params: Any) -> Any:
    """The loss on the whole batch, part by part where gradients are taken so."""
    if loss.microbatches == 1:
        return _checked(loss, loss.function(params, *batch))[0]

    def add(sums: Any, part: tuple[Any, ...]) -> tuple[Any, None]:
        of_value, of_weight = sums
        value, _ = _checked(loss, loss.function(params, *part))
        weight = _weight(loss, part, of_weight.dtype)
        return (map_leaves(_add, of_value, value, weight=weight), of_weight + weight), None

    (of_value, of_weight), _ = jax.lax.scan(
        add, (jnp.zeros(()), jnp.zeros(())), _parts(loss.microbatches, batch)
    )
    return of_value / jnp.where(of_weight > 0, of_weight, 1.0)
