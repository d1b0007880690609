"""Types for annotations, by Optax's names: `OptState`, `ScalarOrSchedule`, `TransformInitFn`, ...

An annotation is evaluated when a module is imported: `Optional[gradtx.OptState]` and
`gradtx.Schedule | float` are types.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

from gradtx.definition.types import Params, PyTree, Updates

Scalar = jax.typing.ArrayLike
ArrayTree = jax.typing.ArrayLike | Iterable["ArrayTree"] | Mapping[Any, "ArrayTree"]
"""A tree of arrays and numbers."""
OptState = Any
"""The state of any transformation: a `State` of gradtx, or another library's."""
ScalarOrSchedule = float | jax.Array | Callable[[Any], Any]
"""A number, or a function of the count."""
MaskOrFn = Any
"""A tree of bools, a function from the parameters to one, or None."""


class TransformInitFn(Protocol):
    """An `init`: from the parameters to the first state."""

    def __call__(self, params: Params, /) -> OptState: ...


class TransformUpdateFn(Protocol):
    """An `update`: from gradients and a state to updates and the next state."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None, /
    ) -> tuple[Updates, OptState]: ...


class TransformUpdateExtraArgsFn(Protocol):
    """An `update` that takes further arguments by keyword: `value=`, `grad=`, `value_fn=`."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None, /, **extra_args: Any
    ) -> tuple[Updates, OptState]: ...


class ShouldSkipUpdateFunction(Protocol):
    """Whether `MultiSteps` skips a micro-step, and the reasons as a tree."""

    def __call__(
        self, updates: Updates, gradient_step: Scalar, params: Params | None, /
    ) -> tuple[Scalar, PyTree]: ...


class ConditionFn(Protocol):
    """Whether a step is due, from its number and the extra arguments."""

    def __call__(self, step: Scalar, /, **extra_args: Any) -> Scalar: ...


class MuonDimensionNumbers(NamedTuple):
    """Which axes of an array are a matrix's inputs and outputs; the others count matrices.

    >>> import gradtx, jax.numpy as jnp
    >>> heads = gradtx.contrib.MuonDimensionNumbers(reduction_axis=(0,), output_axis=(1, 2))
    >>> params = {"query": jnp.ones((8, 2, 4))}
    >>> tx = gradtx.contrib.muon(0.1, muon_weight_dimension_numbers={"query": heads})
    >>> tx.update(params, tx.init(params), params)[0]["query"].shape
    (8, 2, 4)
    """

    reduction_axis: int | tuple[int, ...] = 0
    """The axes that a product with the array sums over."""
    output_axis: int | tuple[int, ...] = 1
    """The axes of the product."""


class GaLoreDimensionNumbers(NamedTuple):
    """Which axes of an array are a matrix's inputs and outputs, for `galore`."""

    reduction_axis: int | tuple[int, ...] = 0
    """The axes that a product with the array sums over."""
    output_axis: int | tuple[int, ...] = 1
    """The axes of the product."""
