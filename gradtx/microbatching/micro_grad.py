"""`micro_grad`: gradients per example, transformed and accumulated microbatch by microbatch."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.types import ArrayLike, PyTree
from gradtx.microbatching.accumulators import AccumulationType, Accumulator
from gradtx.microbatching.batch import as_tuple, check_size
from gradtx.microbatching.micro_vmap import Mapped, run_mapped
from gradtx.tree.vectors import value_and_grad


class Aux(NamedTuple):
    """What `micro_grad` returns beside the gradient, each with the batch axis in front.

    >>> import gradtx.microbatching, jax.numpy as jnp
    >>> loss = lambda w, x: jnp.sum((w - x) ** 2)
    >>> grad, aux = gradtx.microbatching.micro_grad(loss)(1.0, jnp.arange(3.0))
    >>> float(grad), aux.values.tolist(), aux.metrics
    (0.0, [1.0, 0.0, 1.0], None)
    """

    values: Any
    """The value of the function for every example."""
    metrics: Any
    """What `metrics_fn` returned for the gradient of every example."""
    aux: Any
    """The auxiliary output of the function, with `has_aux`, else None."""


class Gradient(NamedTuple):
    """A function of a batch of one, and what becomes of its gradient."""

    function: Callable[..., Any]
    has_aux: bool
    argnums: int | tuple[int, ...]
    batch_argnums: tuple[int, ...]
    keep_batch_dim: bool
    transform_fn: Callable[[Any], Any]
    metrics_fn: Callable[[Any], Any]


def _identity(grads: Any) -> Any:
    return grads


def _nothing(grads: Any) -> None:
    return None


def micro_grad(
    fun: Callable[..., Any],
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: AccumulationType | Accumulator | PyTree = AccumulationType.SUM,
    transform_fn: Callable[[PyTree], PyTree] = _identity,
    metrics_fn: Callable[[PyTree], PyTree] = _nothing,
    num_real_microbatches: ArrayLike | None = None,
) -> Callable[..., tuple[Any, Aux]]:
    r"""Per-example gradients: compute, transform and accumulate them in microbatches.

    With g_b = ∇f(θ, x_b) for every example b of B, the result for SUM is Σ_b t(g_b), t =
    `transform_fn`. Only m = `microbatch_size` gradients are in memory at once, each of the size of
    θ. The second result holds what is small per example: values, metrics and auxiliary outputs.

    When: clipping per example (differential privacy, outliers), or moments of the gradient noise.
    When not: the gradient of a mean alone; `make_step(..., microbatches=n)` computes it without a
    gradient per example.

    Args:
      fun: `fun(params, batch, ...)` -> a scalar, or `(scalar, aux)` with `has_aux`.
      has_aux: whether `fun` returns auxiliary output too.
      argnums: the positions of the arguments to differentiate by. Integers and random keys among
        them have the gradient None.
      batch_argnums: the positions of the arguments with a batch axis, the first of their axes.
        Keyword arguments have one too.
      keep_batch_dim: whether `fun` sees the examples as batches of one; False: without that axis.
      microbatch_size: m ≥ 1, a divisor of B; None: all B at once.
      accumulator: how to combine the t(g_b): one for all, or a tree that is a prefix of t(g_b).
      transform_fn: t, from one gradient to any tree, for example a clip.
      metrics_fn: what to return of each gradient, scalars for example.
      num_real_microbatches: how many microbatches run, as for `microbatch`.

    Returns:
      A function with the arguments of `fun` that returns the accumulated t(g_b), and an `Aux` of
      values, metrics and auxiliary outputs.

    Raises:
      GradtxError: as for `microbatch`.

    >>> import gradtx.microbatching, jax.numpy as jnp
    >>> from gradtx.microbatching import AccumulationType, micro_grad
    >>> def loss(w, x, y):
    ...     return jnp.mean((x @ w - y) ** 2) / 2
    >>> moments = micro_grad(
    ...     loss,
    ...     batch_argnums=(1, 2),
    ...     microbatch_size=2,
    ...     accumulator=AccumulationType.MEAN,
    ...     transform_fn=lambda g: (g, g**2),
    ...     metrics_fn=jnp.linalg.norm,
    ... )
    >>> x, y = jnp.ones((4, 1)), jnp.array([0.0, 2.0, 4.0, 6.0])
    >>> (mean, square), aux = moments(jnp.zeros(1), x, y)  # gradients 0, -2, -4, -6
    >>> mean.tolist(), square.tolist(), aux.metrics.tolist()
    ([-3.0], [14.0], [0.0, 2.0, 4.0, 6.0])

    See also: `per_example_global_norm_clip`, `microbatch`.

    Per-example gradients in parts: De et al. 2022, arXiv 2204.13650, section 3 and appendix.
    """
    if microbatch_size is not None:
        check_size("micro_grad", microbatch_size)
    numbers = argnums if isinstance(argnums, int) else tuple(argnums)
    gradient = Gradient(
        fun,
        has_aux,
        numbers,
        as_tuple(batch_argnums),
        keep_batch_dim,
        transform_fn,
        metrics_fn,
    )
    # The parts of `Aux` are results per example, whatever happens to the gradients.
    concat = AccumulationType.CONCAT
    mapped = Mapped(
        functools.partial(_one_gradient, gradient),
        None,
        microbatch_size,
        jax.vmap,
        (accumulator, Aux(concat, concat, concat)),
        num_real_microbatches,
    )
    return functools.wraps(fun)(functools.partial(_micro_grad, gradient, mapped))


def _micro_grad(gradient: Gradient, mapped: Mapped, *args: Any, **kwargs: Any) -> tuple[Any, Aux]:
    places = {number % len(args) for number in gradient.batch_argnums}
    axes = tuple(0 if place in places else None for place in range(len(args)))
    return run_mapped("micro_grad", mapped._replace(in_axes=axes), *args, **kwargs)


def _one_gradient(gradient: Gradient, *args: Any, **kwargs: Any) -> tuple[Any, Aux]:
    """The transformed gradient of one example, its value, metrics and auxiliary output."""
    if gradient.keep_batch_dim:
        places = {number % len(args) for number in gradient.batch_argnums}
        args = tuple(
            jax.tree.map(_with_axis, arg) if place in places else arg
            for place, arg in enumerate(args)
        )
    numbers = as_tuple(gradient.argnums)
    of_these = functools.partial(_value, gradient.function, numbers, args, kwargs)
    point = tuple(args[number] for number in numbers)
    value, grads = value_and_grad(of_these, point, has_aux=gradient.has_aux)
    value, aux = value if gradient.has_aux else (value, None)
    grads = grads[0] if isinstance(gradient.argnums, int) else grads
    return gradient.transform_fn(grads), Aux(value, gradient.metrics_fn(grads), aux)


def _with_axis(leaf: Any) -> jax.Array:
    return jnp.asarray(leaf)[None]


def _value(
    function: Callable[..., Any],
    numbers: Sequence[int],
    args: Sequence[Any],
    kwargs: Any,
    point: Sequence[Any],
) -> Any:
    """The function with other values for the arguments at some positions."""
    new = list(args)
    for number, value in zip(numbers, point, strict=True):
        new[number] = value
    return function(*new, **kwargs)
