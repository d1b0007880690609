"""A rule that multiplies every array by a factor of its own, which its path decides."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.schedule import Schedule
from gradtx.engine.checks import call_rule
from gradtx.engine.clock import Clock
from gradtx.engine.layers import Stack
from gradtx.engine.leaf_rule import Bound, LeafRule
from gradtx.engine.rules import Function
from gradtx.engine.selector import Leaves
from gradtx.tree.casts import real_dtype

if TYPE_CHECKING:
    from gradtx.engine.program import BoundRule


class Factor(NamedTuple):
    """The factor of one array."""

    value: Any
    """A number, an array or a schedule."""
    axis: int | None = None
    """The axis that a vector of factors lies along; None: the factor broadcasts as it is."""
    power: Any = 1
    """The factor is `value ** power`, a number or a vector, also where `value` is a schedule."""

    def at(self, clock: Clock) -> Any:
        """The factor at the count of a clock."""
        value = clock.resolve({"value": self.value})["value"]
        return self.raised(value)

    def raised(self, value: Any) -> Any:
        """A value of the factor to its power."""
        if isinstance(self.power, int):
            return value if self.power == 1 else value**self.power
        # In the dtype of the value, which strict promotion asks for.
        is_array = isinstance(value, jax.Array)
        return value ** (jnp.asarray(self.power, value.dtype) if is_array else self.power)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the factor; a schedule is one number."""
        own = () if isinstance(self.value, Schedule) else np.shape(self.value)
        return np.broadcast_shapes(own, np.shape(self.power))


def _multiply(
    grad: jax.Array, slots: None, param: None, step: jax.Array, *, factor: jax.Array
) -> Any:
    return factor * grad, slots


@dataclass(frozen=True)
class FactorRule(LeafRule):
    """A rule on arrays whose kernel receives the factor of its array."""

    assign: Callable[..., Sequence[Factor]] | None = None
    """`assign(values, leaves, active)`: the factor of every leaf."""
    structure: Any = None
    """The structure of `values`, whose leaves are the hyperparameters."""
    axis: int | None = None
    """The axis that the factors of one kernel lie along."""
    shape: tuple[int, ...] = ()
    """The shape of these factors: arrays of other shapes have kernels of their own."""

    def __hash__(self) -> int:
        return self._hash

    def leaf_factors(
        self, bound: "BoundRule", leaves: Leaves, active: Sequence[bool]
    ) -> Sequence[Factor | None]:
        """The factor of every leaf that the rule changes; None for the others."""
        assert self.assign is not None
        values = jax.tree.unflatten(self.structure, list(bound.hyperparams.values()))
        found = self.assign(values, leaves, active)
        return [one if flag else None for one, flag in zip(found, active, strict=True)]

    def layouts(self, bound: "BoundRule", leaves: Leaves, active: Sequence[bool]) -> Sequence[Any]:
        return self.leaf_factors(bound, leaves, active)

    def offsets(self, layouts: Sequence[Factor | None], clock: Clock) -> Sequence[Any]:
        return [None if one is None else one.at(clock) for one in layouts]

    def at(self, layout: Factor | None) -> LeafRule:
        if layout is None or not layout.shape:
            return self
        return _along(self, layout.axis, layout.shape)

    def bind(self, kwargs: Mapping[str, Any], offsets: Any) -> Bound:
        return functools.partial(_call, self, offsets)

    def with_stack(self, stack: Stack, member: Function) -> LeafRule:
        return self  # a factor multiplies entries, whatever layer they are in


@functools.lru_cache(maxsize=4096)
def _along(rule: FactorRule, axis: int | None, shape: tuple[int, ...]) -> FactorRule:
    """The rule for arrays whose factors have a shape, and lie along an axis."""
    return dataclasses.replace(rule, axis=axis, shape=shape)


def _call(
    rule: FactorRule, factor: Any, grad: jax.Array, slots: None, param: Any, step: Any
) -> tuple[Any, Any]:
    """Multiply one array by its factor, which is in the array's precision."""
    number = jnp.asarray(factor, real_dtype(grad.dtype))
    if number.ndim:  # with all axes of the array, where strict promotion wants them
        after = 0 if rule.axis is None else grad.ndim - rule.axis - 1
        before = grad.ndim - number.ndim - after
        number = number.reshape((1,) * before + number.shape + (1,) * after)
    return call_rule(rule, functools.partial(_multiply, factor=number), grad, slots, param, step)


def factor_rule(name: str, assign: Callable[..., Sequence[Factor]], values: Any) -> Any:
    """The rule, and its hyperparameters by name, for a tree of numbers and schedules."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(
        values, is_leaf=lambda one: isinstance(one, Schedule)
    )
    rule = FactorRule(name, _multiply, assign=assign, structure=structure)
    return rule, {jax.tree_util.keystr(path): value for path, value in leaves}
