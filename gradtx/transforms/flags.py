"""Keyword arguments that several optimizers of matrices share, each with its default.

A builder writes `**flags: Unpack[AdamFlags]`. Its signature then shows every flag, and its rule
receives a flag by name.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, TypedDict, TypeVar, cast

from gradtx.compose.descend import StepFlags
from gradtx.compose.over_axes import AxisFlags
from gradtx.definition.types import Decay, Default, DTypeLike, Hyperparam, NonNegative, PyTree
from gradtx.engine.selector import Where
from gradtx.linalg.spectrum import Spectrum

Dimensions = PyTree
"""The axes of a matrix: rules `[(pattern, words), ...]`, or a tree, or a function that returns one;
see `matrixwise`.
"""


class Owners(Protocol):
    """The result of `gradtx.sharding.owners`: mesh axes with the shardings of the parameters."""

    @property
    def axes(self) -> tuple[str, ...]: ...


Shard = str | Sequence[str] | Owners | Literal[False]
"""The mesh axes over which matrices are spread; False: none."""
Routes = Sequence[tuple[Where, str]]
"""Rules `[(pattern, group), ...]` that take precedence over the role of a parameter."""


class MatrixFlags(TypedDict, total=False):
    """How an array is divided into matrices, and over which devices these are spread."""

    dimensions: Dimensions | None
    shard: Shard | None


class NormFlags(AxisFlags, total=False):
    """Whose norms count, where each matrix has one: of which axes, and over which mesh axes."""

    dimensions: Dimensions | None


class PolarFlags(MatrixFlags, total=False):
    """The same, for optimizers that compute an orthogonal factor."""

    compute_dtype: DTypeLike | None
    spectrum: Spectrum | None


class RoleFlags(TypedDict, total=False):
    """The arguments of `by_role`."""

    routes: Routes | None
    dimensions: Dimensions | None


class HiddenFlags(RoleFlags, MatrixFlags, StepFlags, total=False):
    """The flags of an optimizer of hidden matrices."""


class RestFlags(TypedDict, total=False):
    """AdamW's hyperparameters for the parameters that are not hidden matrices."""

    adam_b1: Annotated[Decay, Default(0.9)]
    adam_b2: Annotated[Decay, Default(0.999)]
    adam_weight_decay: Annotated[NonNegative, Default(0.0)]
    adam_learning_rate: NonNegative | None


class AdamFlags(RestFlags, HiddenFlags, total=False):
    """The flags of an optimizer of hidden matrices that gives the rest to AdamW."""


class PolarAdamFlags(RestFlags, PolarFlags, HiddenFlags, total=False):
    """The same, for optimizers that compute an orthogonal factor."""


Flags = TypeVar("Flags")


def select_flags(kind: type[Flags], flags: Mapping[str, Any]) -> Flags:
    """Select the flags of one TypedDict."""
    return cast(Flags, {name: flags[name] for name in kind.__annotations__ if name in flags})


def adam_arguments(learning_rate: Hyperparam, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return AdamW's arguments: the flags named `adam_...`, and those of the step.

    AdamW uses `learning_rate` where `adam_learning_rate` is None.
    """
    adam = {
        name.removeprefix("adam_"): value
        for name, value in flags.items()
        if name.startswith("adam_")
    }
    if adam["learning_rate"] is None:
        adam["learning_rate"] = learning_rate
    return {**adam, **select_flags(StepFlags, flags)}
