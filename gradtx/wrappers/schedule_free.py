r"""Schedule-Free: descend with a base method, take gradients between its iterate and an average,
evaluate at the average.

z ← z + u                          u: what the base method adds, −η g for SGD, with g taken at y = θ
w = (η_max)^p,  c = w / Σ w        η_max: the largest learning rate so far
x ← (1 − c) x + c z
y ← β x + (1 − β) z                y are the parameters that are trained, x those to evaluate

Only z is kept; x is recovered from y and z.
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.schedule import Schedule
from gradtx.definition.types import (
    DTypeLike,
    Hyperparam,
    Interval,
    NonNegative,
    Numeric,
    Params,
    Precise,
)
from gradtx.schedules.join import shift_schedule
from gradtx.tree.casts import float_copy
from gradtx.tree.maps import map_leaves
from gradtx.wrappers.reading import find_slots

Mixing = Annotated[Numeric, Interval(0.0, 1.0, low_open=True)]
"""A number in (0, 1]: x can be recovered from y only where y holds a part of it."""


class Iterate(NamedTuple):
    """The iterate of the base method."""

    z: Precise


class Weights(NamedTuple):
    """What the average of all iterates goes by."""

    b1: jax.Array
    """β of the last update, with which y was mixed."""
    max_lr: jax.Array
    """The largest learning rate so far."""
    weight_sum: jax.Array
    """The sum of the weights of all iterates."""


def _init(param: jax.Array, *, state_dtype: DTypeLike | None) -> Iterate:
    z = float_copy(param)
    return Iterate(z if state_dtype is None else z.astype(state_dtype))


def _init_shared(*, b1: Any) -> Weights:
    return Weights(1.0 * jnp.asarray(b1), jnp.asarray(0.0), jnp.asarray(0.0))


def _weigh(
    found: None,
    shared: Weights,
    step: jax.Array,
    *,
    b1: jax.Array,
    learning_rate: jax.Array,
    weight_lr_power: jax.Array,
) -> tuple[dict[str, Any], Weights]:
    max_lr = jnp.maximum(shared.max_lr, learning_rate)
    weight = max_lr**weight_lr_power
    weight_sum = shared.weight_sum + weight
    mix = jnp.where(weight_sum > 0, weight / jnp.where(weight_sum > 0, weight_sum, 1.0), 0.0)
    rest = b1 * (1 - mix)  # how much of the old x is in the new y
    return {"push": 1 - rest, "pull": rest / shared.b1 - 1}, Weights(b1, max_lr, weight_sum)


def _update(
    grad: jax.Array,
    slots: Iterate,
    param: jax.Array,
    step: jax.Array,
    *,
    push: jax.Array,
    pull: jax.Array,
) -> Any:
    """y⁺ − y, with x = z + (y − z)/β put in: no difference of large numbers."""
    return push * grad + pull * (param - slots.z), Iterate(slots.z + grad)


@definition
def schedule_free(
    base_optimizer: TransformationLike,
    learning_rate: Hyperparam,
    b1: Mixing = 0.9,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""A method that needs no learning rate schedule: its iterates are averaged while it runs, and
    gradients are taken near the average.

    For every array, all of one shape, with the parameters y: z ← z + u, x ← (1 − c) x + c z, y ← β
    x + (1 − β) z, where u is the update of the base method for the gradient at y, and c = η_max^p /
    Σ η_max^p the weight of this iterate among all.

    When: the length of a run is not known in advance, or schedules are not to be tuned. Evaluate,
    and save, at `schedule_free_eval_params(state, params)`. When not: the base method has momentum
    of its own (β stands in for it); or batch norm statistics, which belong to y, cannot be taken
    again at x.

    Args:
      base_optimizer: gives u, learning rate and warmup included; without momentum.
      learning_rate: η ≥ 0, the same as the base method's, for the weights only. A schedule is read
        one update ahead, as in Optax, so that a warmup from 0 weighs its first iterate.
      b1: β in (0, 1]: where between z (0) and the average x (1) gradients are taken; 0.9 to 0.98.
      weight_lr_power: p ≥ 0; 2; with 0 all iterates weigh the same.
      state_dtype: dtype of z; None: the parameter's, float32 at least.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (z), and that of the base method; three numbers for the whole tree.

    >>> import gradtx, jax.numpy as jnp
    >>> y = jnp.array(8.0)
    >>> tx = gradtx.schedule_free(gradtx.sgd(0.5), learning_rate=0.5)
    >>> state = tx.init(y)
    >>> for _ in range(3):  # a constant gradient of 1: z = 7.5, 7, 6.5, whose mean is 7
    ...     updates, state = tx.update(jnp.array(1.0), state, y)
    ...     y = gradtx.apply_updates(y, updates)
    >>> round(float(gradtx.schedule_free_eval_params(state, y)), 5), round(float(y), 5)  # y = 0.9 · 7 + 0.1 · 6.5
    (7.0, 6.95)

    See also: `schedule_free_sgd`, `schedule_free_adamw`, `params_ema`.

    Defazio et al. 2024, arXiv 2405.15682, equations 1 to 3, weights as in Algorithm 1.
    """
    ahead = (
        shift_schedule(learning_rate, 1) if isinstance(learning_rate, Schedule) else learning_rate
    )
    averaging = leafwise(
        _init,
        _update,
        learning_rate=ahead,
        b1=b1,
        weight_lr_power=weight_lr_power,
        state_dtype=state_dtype,
        conclude=_weigh,
        init_tree_slots=_init_shared,
        evaluate=_average_of,
        needs_params=True,
    )
    return chain(base_optimizer, averaging)


def schedule_free_eval_params(state: Any, params: Params) -> Params:
    """The parameters to evaluate and to save, x = z + (y − z)/β, from those that are trained, y.

    For states whose definition is not at hand; `eval_params(tx, state, params)` does the same for
    every method that has such parameters.

    Args:
      state: the state of `schedule_free`, or of anything that holds it: a chain, a partition, an
        Optax chain.
      params: y, the parameters as trained. Those that Schedule-Free does not train are returned as
        they are.

    Raises:
      StateError: the state holds nothing of `schedule_free`.

    >>> import gradtx, jax.numpy as jnp
    >>> y = {"w": jnp.array([1.0])}
    >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.schedule_free_sgd(0.5))
    >>> updates, state = tx.update({"w": jnp.array([2.0])}, tx.init(y), y)
    >>> schedule_free_eval_params(state, gradtx.apply_updates(y, updates))  # after one step the average is z
    {'w': Array([0.5], dtype=float32)}
    """
    for kept in find_slots(state, "schedule_free", frozenset({*Iterate._fields, *Weights._fields})):
        params = map_leaves(_average, params, kept["z"], b1=kept["b1"])
    return params


def _average(y: jax.Array, z: jax.Array | None, *, b1: jax.Array) -> jax.Array:
    return y if z is None else _average_of(y, Iterate(z), b1=b1)


def _average_of(y: jax.Array, slots: Iterate, *, b1: jax.Array) -> jax.Array:
    return slots.z + (y - slots.z) / b1
