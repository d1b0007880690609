"""Blends of the parameters and their average: θ + b (e − θ), with a share b per path or role."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import Schedule
from gradtx.definition.show import show
from gradtx.definition.types import Fraction, Params
from gradtx.engine.roles import leaf_roles
from gradtx.engine.selector import Leaves, claimed, leaves_of
from gradtx.tree.casts import float_copy
from gradtx.tree.maps import make_leaves, map_leaves

Blend = Fraction | Mapping[str, Fraction]
"""A share for all arrays, or shares by regular expression."""
By = Literal["path", "role"]
"""The text that the expressions of a blend are searched in."""


class Groups(NamedTuple):
    """The arrays that share one number of a blend."""

    owner: str
    """The name of the builder, for messages."""
    patterns: tuple[str, ...] | None
    """None: one number for all arrays."""
    by: By

    def indices(self, leaves: Leaves) -> Sequence[int | None]:
        """For every leaf the number of the first expression that matches; None: none does."""
        if self.patterns is None:
            return [0] * len(leaves.values)
        rules = [(pattern, index) for index, pattern in enumerate(self.patterns)]
        return claimed(rules, self._texts(leaves), f"{self.owner}: blend")

    def _texts(self, leaves: Leaves) -> Leaves:
        """The leaves with the texts that the expressions are searched in as their paths."""
        if self.by == "path":
            return leaves
        names = ("" if role is None else role.name for role in leaf_roles(leaves))
        return leaves._replace(paths=tuple(names))

    def narrow(self, params: Params) -> Params:
        """The parameters with None in the place of those that no expression matches."""
        if self.patterns is None:
            return params
        leaves = leaves_of(params)
        return leaves.narrow(params, [one is not None for one in self.indices(leaves)])


def blend_groups(owner: str, blend: Blend, by: By) -> tuple[Groups, Any]:
    """The groups of a blend, and its numbers as one array."""
    if not isinstance(blend, Mapping):
        return Groups(owner, None, by), blend
    for pattern, share in blend.items():
        if not isinstance(pattern, str):
            raise HyperparamError(
                f"{owner}: blend has the key {show(pattern)}, which is not a text: give regular "
                f"expressions, {{'kernel$': 0.65, ...}}"
            )
        if isinstance(share, Schedule):
            raise HyperparamError(
                f"{owner}: blend[{pattern!r}] is a schedule, and must be a number: a schedule may "
                f"be the blend of all arrays, blend={share!r}"
            )
    if not blend:
        raise HyperparamError(
            f"{owner}: blend is empty, so no array has an average: give {{pattern: number}}"
        )
    return Groups(owner, tuple(blend), by), _stack(list(blend.values()))


def _stack(numbers: Sequence[Any]) -> Any:
    """Some numbers as one array; a constant where all of them are known."""
    if any(isinstance(one, jax.Array) for one in numbers):
        # In a batch of definitions one number may be an array, and the others not.
        return jnp.stack(jnp.broadcast_arrays(*numbers))
    return np.stack(np.broadcast_arrays(*numbers))


def init_average(params: Params, groups: Groups) -> Any:
    """Copies of the parameters that have an average, in float32 at least; None for the others."""
    return make_leaves(float_copy, groups.narrow(params))


def blend_average(params: Params, average: Any, groups: Groups, blend: jax.Array) -> Params:
    """θ + b (e − θ) for every array that has an average; the others as they are."""
    if groups.patterns is None:
        return _blend(params, average, blend)
    leaves, shares = leaves_of(params), jnp.asarray(blend)
    indices, values = groups.indices(leaves), list(leaves.values)
    for number in range(len(groups.patterns)):
        chosen = [one == number for one in indices]
        blended = _blend(leaves.narrow(params, chosen), average, shares[number])
        each = zip(leaves.match(blended, "the blend"), chosen, values, strict=True)
        values = [new if one else old for new, one, old in each]
    return leaves._replace(values=values).tree


def _blend(params: Params, average: Any, share: jax.Array) -> Params:
    return map_leaves(_between, params, average, share=share)


def _between(param: jax.Array, average: jax.Array, *, share: jax.Array) -> jax.Array:
    # A share of 1 selects the average exactly, and of 0 the parameter.
    moved = jnp.where(share == 1, average, param + share * (average - param))
    return jnp.where(share == 0, param, moved)
