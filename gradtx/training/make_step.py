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
from gradtx.definition.show import show_array
from gradtx.definition.types import Params, Updates
from gradtx.engine.checks import describe_value
from gradtx.engine.gradients import is_integer
from gradtx.microbatching.accumulators import WEIGHTED_MEAN, stack_of
from gradtx.microbatching.batch import split_axis, take_part
from gradtx.microbatching.loop import Microbatches, accumulate_parts
from gradtx.training.apply import Rounding, update_params
from gradtx.training.layout import Layout, Shardings
from gradtx.training.reports import loss_scale
from gradtx.training.step import Step, check_call
from gradtx.tree.casts import compute_dtype, is_inexact
from gradtx.tree.known_shardings import known_shardings
from gradtx.tree.options import is_data
from gradtx.tree.paths import flatten, path_text
from gradtx.tree.vectors import value_and_grad


class Loss(NamedTuple):
    """A loss function, and the options of its gradient over a batch."""

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
    shardings: Shardings | None = None,
    jit: Callable[..., Any] | None = None,
) -> Step:
    r"""Build a jitted training step from a loss and a transformation.

    The step is `step(params, state, *batch) -> (params, state, value[, aux])`. Parameters are any
    tree: dicts, or a module of equinox, whose functions, texts and Python numbers are constants of
    the step; `tx.init(model)` makes its state. A module of nnx works where all of its variables are
    `Param`s. The transformation
    receives `value=`, `grad=` and `value_fn=` (the loss on this batch as a function of the
    parameters), so line searches and value-driven methods need no change. If it contains a
    `dynamic_loss_scale`, the step multiplies the loss by that scale before it takes the gradient;
    `value` is the loss itself.

    With k = `microbatches` the step accumulates the gradient over k parts of the batch: g = Σ w_i
    g_i / Σ w_i in float32 at least, and then makes one update. It equals the step of the whole
    batch, with the activations of a k-th of it in memory. Part i holds the examples i, i + k, i +
    2k, ..., so that a batch that is spread over devices stays in place. Arrays without axes are the
    same for every part. Random keys of `jax.random.key` are split; the arrays of `PRNGKey` are
    treated like any other. A part whose weight is not above 0 adds nothing, even if its gradient is
    nan, the gradient of a mean over no tokens. Where no part has a weight above 0, value and
    gradient are 0.

    Parameters and state come back cut over devices as they were, with `sharded` (ZeRO-1), FSDP or
    tensor parallelism. The step sees how its arguments are cut, and the transformation knows it:
    other shardings of the parameters are another program.

    Args:
      loss_fn: `loss_fn(params, *batch)` -> scalar, or `(scalar, aux)` with `has_aux`.
      tx: the transformation; its hyperparameters become constants of the step.
      has_aux: whether `loss_fn` returns auxiliary output beside the loss; with microbatches this
        output has a first axis for the parts.
      donate: whether the step may reuse the memory of `params` and `state`, and update them in
        place; False holds both twice while the step runs. The call deletes these arrays. Copy what
        you keep, `jax.tree.map(jnp.copy, params)`, or pass False.
      microbatches: k ≥ 1, a divisor of every batch axis.
      weigh: `weigh(*part)` -> the weight w of a part, for example its number of tokens, where
        `loss_fn` is a mean over tokens; None: all parts weigh the same. Static.
      rounding: the rounding of new parameters in bfloat16 and float16, "nearest" or "stochastic";
        see `apply_updates`.
      shardings: (a tree of shardings like the parameters, one like the state): where the results
        go; one sharding stands for all below it, None for the shardings of the arguments.
      jit: the function that compiles: `jax.jit`, a `functools.partial` of it, `nnx.jit`, or
        `equinox.filter_jit`; None: `jax.jit`.

    Raises:
      StructureError: `shardings` do not fit the parameters or the state.
      GradtxError: k is not a whole number from 1 on; it does not divide a first axis, or no array
        has one; loss or weight are not scalars; `has_aux` does not match the output of `loss_fn`;
        at a call, arguments are swapped or missing, or a leaf is not an array.
      StateError: an earlier call received the parameters or the state, and reused their memory.

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
            f"make_step: microbatches = {microbatches!r} is not a number of parts; give a whole "
            "number from 1 on"
        )
    if not callable(loss_fn):
        swapped = "the arguments are swapped: call make_step(loss_fn, tx)"
        advice = swapped if callable(tx) else "pass loss_fn(params, *batch)"
        raise GradtxError(f"make_step: loss_fn is {loss_fn!r}, which is not a function; {advice}")
    loss = Loss(loss_fn, has_aux, microbatches, weigh, rounding)
    step = functools.partial(_step, as_transformation(tx))
    return Step(step, loss, donate, shardings, jit)


def _step(
    tx: GradientTransformation,
    loss: Loss,
    params: Params,
    state: Any,
    *batch: Any,
    layout: Layout,
) -> tuple[Any, ...]:
    with known_shardings(layout.params):
        params, state, *rest = _plain_step(tx, loss, params, state, *batch)
    return *layout.place(params, state), *rest


def _plain_step(
    tx: GradientTransformation, loss: Loss, params: Params, state: Any, *batch: Any
) -> tuple[Any, ...]:
    check_call(loss.function, params, state, batch)
    gradient = _gradient if loss.microbatches == 1 else _gradient_by_parts
    grads, value, *aux = gradient(loss, loss_scale(tx, state), params, batch)
    grads = _with_zeros(params, grads)
    value_fn = functools.partial(_value, loss, batch)
    params, state = update_params(
        tx, grads, state, params, loss.rounding, value=value, grad=grads, value_fn=value_fn
    )
    return params, state, value, *aux


def _with_zeros(params: Params, grads: Updates) -> Any:
    """The gradients with zeros for integers, whose slots another library's rules may keep."""
    values, treedef = flatten(params)
    each = zip(values, treedef.flatten_up_to(grads), strict=True)
    return jax.tree.unflatten(
        treedef, [jnp.zeros_like(one) if is_integer(one) else grad for one, grad in each]
    )


def _gradient(loss: Loss, scale: Any, params: Params, batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """The gradient of the scaled loss, the loss itself, and the auxiliary output, if any."""
    scaled = functools.partial(_scaled, loss, scale)
    (_, (value, aux)), grads = value_and_grad(scaled, params, *batch, has_aux=True)
    return (grads, value, aux) if loss.has_aux else (grads, value)


def _scaled(loss: Loss, scale: Any, params: Params, *batch: Any) -> tuple[Any, tuple[Any, Any]]:
    value, aux = _checked(loss, loss.function(params, *batch))
    if isinstance(scale, float):
        return value, (value, aux)  # no member scales the loss
    # A scaled loss may exceed float16.
    return value.astype(compute_dtype(value.dtype)) * scale, (value, aux)


def _checked(loss: Loss, out: Any) -> tuple[jax.Array, Any]:
    """The loss as a scalar array, and the auxiliary output."""
    parts = len(out) if isinstance(out, tuple | list) else 1
    if parts != 1 + loss.has_aux:
        advice = "the loss alone, or give has_aux=True for (loss, auxiliary output)"
        advice = "(loss, auxiliary output)" if loss.has_aux else advice
        raise GradtxError(
            f"make_step: has_aux is {loss.has_aux}, and loss_fn returned {parts} "
            f"value{'s'[: parts != 1]}: return {advice}"
        )
    value, aux = out if loss.has_aux else (out, None)
    _check_number("loss", value)
    _check_scalar("loss", value, "take its mean over the batch")
    if not is_inexact(value) or jnp.iscomplexobj(value):
        is_complex = jnp.iscomplexobj(value)
        advice = "return its real part" if is_complex else "return floats, a count has no gradient"
        raise GradtxError(
            f"make_step: the loss is {show_array(jnp.asarray(value))}, and only a real number has "
            f"a gradient: {advice}"
        )
    return jnp.asarray(value), aux


def _check_number(what: str, value: Any) -> None:
    """Raise where a function returned something that is not an array."""
    if not is_data(value):
        raise GradtxError(
            f"make_step: the {what} is {describe_value(value)}, and must be one number: let "
            f"loss_fn(params, *batch) return a scalar, and make_step takes its gradient"
        )


def _check_scalar(what: str, value: Any, advice: str) -> None:
    if jnp.shape(value) != ():
        raise GradtxError(
            f"make_step: the {what} has shape {jnp.shape(value)}, and must be a scalar: {advice}"
        )


def _weight(loss: Loss, part: tuple[Any, ...]) -> jax.Array:
    """The weight of a part, 0 where it is negative or nan."""
    weight = 1.0 if loss.weigh is None else loss.weigh(*part)
    _check_scalar("weight of a part", weight, "give its number of tokens, or of examples")
    weight = jnp.asarray(weight, jnp.result_type(float))
    return jnp.where(weight > 0, weight, 0)


def _gradient_by_parts(
    loss: Loss, scale: Any, params: Params, batch: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The weighted means of gradients and losses, one part after another."""

    def evaluate(part: tuple[Any, ...]) -> tuple[Any, Any]:
        grads, value, *aux = _gradient(loss, scale, params, part)
        return (_weight(loss, part), (grads, value)), aux

    (grads, value), aux = _accumulate(loss.microbatches, batch, evaluate)
    return grads, value, *aux


def _accumulate(count: int, batch: tuple[Any, ...], evaluate: Callable[..., Any]) -> Any:
    """The weighted mean of some results of all parts, and a stack of others."""
    parts = _parts(count, batch)

    def evaluate_part(index: Any) -> Any:
        return evaluate(jax.tree.map(lambda one: one.take(index), parts, is_leaf=_is_part))

    return accumulate_parts(
        evaluate_part, functools.partial(_accumulators, count), Microbatches(count, None)
    )


def _accumulators(count: int, like: Any) -> Any:
    return WEIGHTED_MEAN, jax.tree.map(functools.partial(stack_of, count), like[1])


class Part(NamedTuple):
    """An array of the batch, cut into parts along `axis`; None: it is the same for every part."""

    array: jax.Array
    axis: int | None

    def take(self, index: Any) -> jax.Array:
        return self.array if self.axis is None else take_part(self.array, self.axis, index)


def _is_part(node: Any) -> bool:
    return isinstance(node, Part)


def _parts(count: int, batch: tuple[Any, ...]) -> Any:
    """A batch as parts, each along an axis of its own."""
    if not any(jnp.ndim(leaf) or _is_key(leaf) for leaf in jax.tree.leaves(batch)):
        raise GradtxError(
            f"make_step: microbatches = {count}, and no array of the batch has a first axis to "
            "split"
        )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _part(count, leaf, path_text(path)), batch
    )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _part(count: int, leaf: Any, path: str) -> Part:
    array = jnp.asarray(leaf)
    if _is_key(array) and array.ndim == 0:
        return Part(jax.random.split(array, count), -1)  # a part is one key, without an axis
    if array.ndim == 0:
        return Part(array, None)
    if array.shape[0] % count:
        raise GradtxError(
            f"make_step: microbatches = {count} does not divide the first axis of the batch at "
            f"{path!r}, {array.shape}: take a divisor of {array.shape[0]}"
        )
    return Part(split_axis(array, 0, count), 0)


def _value(loss: Loss, batch: tuple[Any, ...], params: Params) -> Any:
    """The loss on the whole batch, by the same parts as the gradient."""
    if loss.microbatches == 1:
        return _checked(loss, loss.function(params, *batch))[0]

    def evaluate(part: tuple[Any, ...]) -> tuple[Any, Any]:
        value, _ = _checked(loss, loss.function(params, *part))
        return (_weight(loss, part), value), None

    return _accumulate(loss.microbatches, batch, evaluate)[0]
