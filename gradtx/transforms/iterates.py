r"""An iterate and the average of iterates, with gradients between them: Schedule-Free and GPA.

z ← z + u                   u: what a base method adds, for the gradient at y
x ← (1 − c) x + c z         c: the weight of the new iterate in the average
y ← β x + (1 − β) z         y: the parameters in training, x: the parameters to evaluate

The state holds z alone; y and z determine x = z + (y − z)/β.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.types import DTypeLike, Interval, Numeric, Precise
from gradtx.tree.casts import float_copy

Mixing = Annotated[Numeric, Interval(0.0, 1.0, low_open=True)]
"""A number in (0, 1]: at 0, y does not contain x, and x cannot be recovered from y."""


class Iterate(NamedTuple):
    """The iterate of the base method."""

    z: Precise


def init_iterate(param: jax.Array, *, state_dtype: DTypeLike | None) -> Iterate:
    """Start the iterate at the parameter."""
    z = float_copy(param)
    return Iterate(z if state_dtype is None else z.astype(state_dtype))


def weight_share(weight: jax.Array, weight_sum: jax.Array) -> jax.Array:
    """Return c, the share of the newest weight in the sum of all; 0 while that is 0."""
    # The inner `where` avoids 0/0.
    return jnp.where(weight_sum > 0, weight / jnp.where(weight_sum > 0, weight_sum, 1.0), 0.0)


def mixing_factors(mix: jax.Array, beta: jax.Array, last_beta: jax.Array) -> dict[str, jax.Array]:
    """Return the factors `push` and `pull` of `move_iterate`.

    `mix` is c, `beta` is β of this step, and `last_beta` is the one that mixed the present y.
    """
    rest = beta * (1 - mix)  # the share of the old x in the new y
    return {"push": 1 - rest, "pull": rest / last_beta - 1}


def move_iterate(
    grad: jax.Array,
    slots: Iterate,
    param: jax.Array,
    step: jax.Array,
    *,
    push: jax.Array,
    pull: jax.Array,
) -> tuple[jax.Array, Iterate]:
    """Move z by the update of the base method, and y to its new place between x and z."""
    # y⁺ − y with x = z + (y − z)/β inserted, which avoids a difference of large numbers.
    return push * grad + pull * (param - slots.z), Iterate(slots.z + grad)


def average_of_iterates(param: jax.Array, slots: Iterate, beta: jax.Array) -> jax.Array:
    """Recover x from y and z."""
    return slots.z + (param - slots.z) / beta
