"""Per-example gradients: what an aggregator is, and the number of their examples."""

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import GradtxError, HyperparamError, StructureError
from gradtx.definition.types import Params, PyTree, Updates
from gradtx.tree.paths import path_text


class AggregatorUpdateFn(Protocol):
    """The type of the `update` of an aggregator: gradients per example in, one gradient out."""

    def __call__(
        self,
        per_elt_updates: Updates,
        state: PyTree,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[Updates, PyTree]: ...


class PerExample(functools.partial[Any]):
    """The `update` of an aggregator, marked as a function of gradients per example."""


class Pair(NamedTuple):
    """A pair of functions `init` and `update`."""

    init: Callable[[Params], PyTree]
    update: Callable[..., tuple[Any, PyTree]]


class AggregatorType(type):
    """The type of `Aggregator`, of which some definitions are instances as well."""

    def __instancecheck__(cls, instance: object) -> bool:
        return super().__instancecheck__(instance) or takes_examples(instance)


def takes_examples(instance: object) -> bool:
    """Whether a definition takes gradients per example."""
    while isinstance(instance, GradientTransformation):
        if instance.is_plain:
            return isinstance(instance.arguments["update"], PerExample)
        inside = instance.arguments.get("aggregator", instance.expansion)
        if not isinstance(inside, GradientTransformation):
            return any(bound.rule.changes_structure for bound in instance.rules)
        instance = inside
    return False


class Aggregator(Pair, metaclass=AggregatorType):
    """A pair of functions that aggregates gradients per example into one gradient.

    It has the form of a transformation, but its input has axes of examples that its output lacks:
    `jax.vmap(jax.grad(loss), (None, 0))(params, batch)` makes such an input. `isinstance(tx,
    Aggregator)` also holds for a definition that takes such gradients, for example `process` with
    an aggregator of examples.

    Args:
      init: `init(params) -> state`.
      update: `update(per_elt_updates, state, params=None, **extra) -> (updates, state)`.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> from gradtx.experimental.aggregating import Aggregator, process
    >>> median = Aggregator(
    ...     init=lambda params: (),
    ...     update=lambda g, state, params: (jax.tree.map(lambda x: jnp.median(x, 0), g), state),
    ... )
    >>> tx = process(gradtx.identity(), median, gradtx.sgd(1.0))
    >>> w = jnp.zeros(())
    >>> float(tx.update(jnp.array([1.0, 2.0, 60.0]), tx.init(w), w)[0])
    -2.0

    See also: `process`, `average_per_element_updates`.
    """

    __slots__ = ()

    def __new__(
        cls, init: Callable[[Params], PyTree], update: Callable[..., tuple[Any, PyTree]]
    ) -> "Aggregator":
        return super().__new__(cls, init, PerExample(update))


def axes_of(per_elt_axis: int | Sequence[int]) -> tuple[int, ...]:
    """The axes of the examples as a tuple."""
    axes = (per_elt_axis,) if isinstance(per_elt_axis, int) else tuple(per_elt_axis)
    if not axes or not all(isinstance(axis, int) for axis in axes):
        raise HyperparamError(
            f"per_elt_axis = {per_elt_axis!r} is not an axis of the examples; give a whole number, "
            "or a sequence of them"
        )
    return axes


def check_steps(name: str, steps: object) -> None:
    """Raise unless there is at least one step of accumulation."""
    if isinstance(steps, bool) or not isinstance(steps, numbers.Integral) or int(steps) < 1:
        raise HyperparamError(
            f"{name}: accumulation_steps = {steps!r} is not a number of microbatches; give a whole "
            "number from 1 on"
        )


def get_batch_size_from_per_elt_updates(
    per_elt_updates: Updates, per_elt_axis: int | Sequence[int]
) -> int:
    """Return the number of examples in a tree of per-example gradients.

    B = Π_a n_a over the axes a of the examples.

    Args:
      per_elt_updates: gradients per example.
      per_elt_axis: the axis of the examples, or several of them.

    Returns:
      B, a Python number.

    Raises:
      StructureError: an array lacks an axis, or two arrays have different numbers of examples.

    >>> import jax.numpy as jnp
    >>> from gradtx.experimental.aggregating import get_batch_size_from_per_elt_updates
    >>> get_batch_size_from_per_elt_updates({"w": jnp.ones((4, 3, 2))}, (0, 1))
    12
    """
    axes, sizes = axes_of(per_elt_axis), dict[str, int]()
    for path, leaf in jax.tree_util.tree_leaves_with_path(per_elt_updates):
        shape = jnp.shape(leaf)
        if not all(-len(shape) <= axis < len(shape) for axis in axes):
            raise StructureError(
                f"gradients per example need the axes {axes} of the examples: {path_text(path)!r} "
                f"has shape {shape}; compute them with jax.vmap(jax.grad(loss), ...)"
            )
        sizes[path_text(path)] = math.prod(shape[axis] for axis in axes)
    if not sizes:
        raise GradtxError("gradients per example: the tree has no arrays, so no number of examples")
    first, size = next(iter(sizes.items()))
    for path, other in sizes.items():
        if other != size:
            raise StructureError(
                f"gradients per example must have the same batch size: {first!r} has {size} "
                f"examples along the axes {axes}, and {path!r} has {other}"
            )
    return size
