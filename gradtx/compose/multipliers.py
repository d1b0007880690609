"""Multipliers of `multiply_by_path` as data: they print, compare, and go to JSON."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Concatenate, NamedTuple, ParamSpec, cast

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.call_checks import check_number
from gradtx.definition.definition import Definition, Factory
from gradtx.definition.errors import HyperparamError, SelectionError
from gradtx.definition.pytree import register
from gradtx.definition.schedule import Schedule
from gradtx.definition.signature import builder_of
from gradtx.definition.types import Fraction, Interval, Numeric
from gradtx.engine.factor_rule import Factor

P = ParamSpec("P")
NONNEGATIVE = Interval(0.0, high_open=True, any_shape=True)
Multiple = Annotated[Numeric, NONNEGATIVE]
"""A finite number >= 0, an array of them, or a schedule."""


class Multiplier(Definition):
    """A function of the groups of a match, as data: `layer_decay(0.75, layers=12)`."""

    __slots__ = ()
    plural = "multipliers"

    def __call__(self, *groups: str) -> Any:
        """Return the factor of a path, by the groups of the expression that matched it."""
        return self.call(groups)

    @classmethod
    def coerce(cls, value: Any, where: str) -> Any:
        """A factor: a number, an array or a schedule as it is; a function of the groups as data."""
        if isinstance(value, Schedule):
            return value
        if callable(value) and not isinstance(value, jax.Array | Definition):
            return group_function(value)
        check_number(where, value, [NONNEGATIVE], ())
        return value


register(Multiplier)


class Along(NamedTuple):
    """Factors along one axis of an array."""

    values: Any
    axis: int


def multiplier(
    function: Callable[Concatenate[tuple[str, ...], P], Any],
) -> Callable[P, Multiplier]:
    """Turn `function(groups, *parameters)` into a builder of multipliers."""
    factory = Factory(function, Multiplier, skip=1)
    return builder_of(factory, function)


@multiplier
def group_function(groups: tuple[str, ...], function: Callable[..., Any]) -> Any:
    """Wrap a Python function of the groups of a match; the function is static."""
    return function(*groups)


GROUP_FUNCTION: Factory = cast(Any, group_function).factory


@multiplier
def layer_decay(groups: tuple[str, ...], decay: Fraction, layers: int) -> Any:
    r"""Layer-wise learning rate decay as a factor of `multiply_by_path`: qⁿ⁻ⁱ.

    i is the number in the first group of the pattern, 0 to n − 1. The factor of the layer below the
    head is q, and that of layer 0 is qⁿ. It does the same as the function `lambda i: decay **
    (layers - int(i))`; but it is data, so that it prints, compares, and goes to JSON.

    When: paths have numbers, and you choose what embeddings and head get. When not: numbers,
    embeddings and head are to be found in the paths; take `layerwise_decay`.

    Args:
      decay: q in [0, 1]; 0.65 to 0.95.
      layers: n, the number of layers. Static; 12 for a base, 24 for a large transformer.

    Raises:
      HyperparamError: a number out of its range.
      SelectionError: at `init`, a pattern whose first group is not a number below `layers`.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"blocks": [jnp.ones(1)] * 3, "head": jnp.ones(1)}
    >>> tx = gradtx.multiply_by_path({r"blocks/(\d+)": gradtx.layer_decay(0.5, layers=3)})
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> [float(one[0]) for one in (*updates["blocks"], updates["head"])]
    [0.125, 0.25, 0.5, 1.0]

    See also: `multiply_by_path`, `layerwise_decay`.
    """
    number = groups[0] if groups else None
    if number is None or not number.isdigit() or not int(number) < layers:
        shown = "has no group" if number is None else f"has {number!r} in its first group"
        raise SelectionError(
            f"layer_decay: the match {shown}, and it must be the number of a layer, 0 to "
            f"{layers - 1}: write a pattern like 'blocks/(\\d+)', and the number of layers"
        )
    return Factor(decay, power=layers - int(number))


@multiplier
def along(groups: tuple[str, ...], values: Sequence[Multiple] | Multiple, axis: int = 0) -> Along:
    r"""Factors along one axis of an array, for a stack of layers: uᵢ ← fᵢ uᵢ.

    A scanned model keeps its layers in one array, of which one axis counts them. `along(values)`
    multiplies each layer by its own factor, as the same factors do with one array per layer.

    When: layers are stacked, by `scan` or `vmap`. When not: every layer has a path of its own; take
    a number for each.

    Args:
      values: one factor per layer, finite and ≥ 0: a sequence of numbers or a vector.
      axis: the axis that counts layers. Static; 0, and 1 in MaxText.

    Raises:
      HyperparamError: a factor that is negative or not finite.
      StructureError: at `init`, an array without that axis, or with another number of layers.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"layers": jnp.ones((3, 2))}
    >>> tx = gradtx.multiply_by_path({r"^layers": gradtx.along([0.25, 0.5, 1.0])})
    >>> tx.update(params, tx.init(params))[0]["layers"].tolist()
    [[0.25, 0.25], [0.5, 0.5], [1.0, 1.0]]

    See also: `multiply_by_path`, `stacked`.
    """
    return Along(_vector(values), axis)


def _vector(values: Any) -> Any:
    """Numbers as one vector, a NumPy array where all are known."""
    if not isinstance(values, tuple):
        return values
    if any(callable(one) for one in values):
        raise HyperparamError(
            "along: a factor is a schedule: give numbers, and multiply the rate by the schedule"
        )
    is_traced = any(isinstance(one, jax.Array) for one in values)
    return jnp.stack(values) if is_traced else np.asarray(values, np.float64)
