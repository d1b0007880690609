r"""Schedule-Free: an average of the iterates replaces the learning rate schedule.

It descends with a base method, takes gradients between its iterate z and the average x, and
evaluates at x.

z ← z + u                          u: what the base method adds, −η g for SGD, with g taken at y = θ
w = (η_max)^p,  c = w / Σ w        η_max: the largest learning rate so far
x ← (1 − c) x + c z
y ← β x + (1 − β) z                y: the parameters in training, x: the parameters to evaluate

The state holds z alone; y and z determine x.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.schedule import Schedule
from gradtx.definition.types import DTypeLike, Hyperparam, NonNegative, Params
from gradtx.schedules.join import shift_schedule
from gradtx.transforms.iterates import (
    Iterate,
    Mixing,
    average_of_iterates,
    init_iterate,
    mixing_factors,
    move_iterate,
    weight_share,
)
from gradtx.tree.maps import map_leaves
from gradtx.tree.variables import with_variables, without_variables
from gradtx.wrappers.reading import find_slots


class Weights(NamedTuple):
    """The weights of the average of all iterates."""

    b1: jax.Array
    """β of the last update, which mixed y."""
    max_lr: jax.Array
    """The largest learning rate so far."""
    weight_sum: jax.Array
    """The sum of the weights of all iterates."""


def _init_tree_slots(*, b1) -> Weights:
    # The product is a new array: the state may be donated, the hyperparameter may not.
    return Weights(1.0 * jnp.asarray(b1), jnp.asarray(0.0), jnp.asarray(0.0))


def _conclude(
    measures, tree_slots: Weights, step, *, b1, learning_rate, weight_lr_power
) -> tuple[dict[str, jax.Array], Weights]:
    max_lr = jnp.maximum(tree_slots.max_lr, learning_rate)
    weight = max_lr**weight_lr_power
    weight_sum = tree_slots.weight_sum + weight
    # While the learning rate is 0 the average does not move.
    mix = weight_share(weight, weight_sum)
    return mixing_factors(mix, b1, tree_slots.b1), Weights(b1, max_lr, weight_sum)


@definition
def schedule_free(
    base_optimizer: TransformationLike,
    learning_rate: Hyperparam,
    b1: Mixing = 0.9,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""Schedule-Free: training without a learning rate schedule.

    It averages the iterates of a base method while it runs, and takes gradients near the average.
    For every array, all of one shape, with the parameters y: z ← z + u, x ← (1 − c) x + c z, y ← β
    x + (1 − β) z, where u is the update of the base method for the gradient at y, and c = η_max^p /
    Σ η_max^p the weight of this iterate among all.

    When: the length of a run is not known in advance, or schedules are not to be tuned. Evaluate,
    and save, at `schedule_free_eval_params(state, params)`. When not: the base method has momentum
    of its own (β replaces it); or batch norm statistics, which belong to y, cannot be computed
    again at x.

    Args:
      base_optimizer: gives u, learning rate and warmup included; without momentum.
      learning_rate: η, the same as the base method's, for the weights only. A schedule is read
        one update ahead, as in Optax, so that a warmup from 0 gives its first iterate a weight.
      b1: β in (0, 1]: the point of gradients between z (0) and the average x (1); 0.9 to 0.98.
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
    >>> x = gradtx.schedule_free_eval_params(state, y)
    >>> round(float(x), 5), round(float(y), 5)  # y = 0.9 · 7 + 0.1 · 6.5
    (7.0, 6.95)

    See also: `schedule_free_sgd`, `schedule_free_adamw`, `params_ema`.

    Defazio et al. 2024, arXiv 2405.15682, equations 1 to 3, weights as in Algorithm 1.
    """
    if isinstance(learning_rate, Schedule):
        learning_rate = shift_schedule(learning_rate, 1)
    average = leafwise(
        init_iterate,
        move_iterate,
        conclude=_conclude,
        init_tree_slots=_init_tree_slots,
        evaluate=_evaluate,
        needs_params=True,
        learning_rate=learning_rate,
        b1=b1,  # a tree slot has this name too, so the builder's argument is not taken by itself
    )
    return chain(base_optimizer, average)


def schedule_free_eval_params(state: Any, params: Params) -> Params:
    """The parameters to evaluate and to save: x = z + (y − z)/β, y those in training.

    It needs the state alone. `eval_params(tx, state, params)` does the same for every method that
    has such parameters.

    Args:
      state: the state of `schedule_free`, or a state that contains it: of a chain, a partition, or
        an Optax chain.
      params: y, the parameters in training. Parameters that Schedule-Free does not train are
        returned unchanged.

    Raises:
      StateError: the state has no slots of `schedule_free`.

    >>> import gradtx, jax.numpy as jnp
    >>> y = {"w": jnp.array([1.0])}
    >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.schedule_free_sgd(0.5))
    >>> updates, state = tx.update({"w": jnp.array([2.0])}, tx.init(y), y)
    >>> # After one step the average is z.
    >>> schedule_free_eval_params(state, gradtx.apply_updates(y, updates))
    {'w': Array([0.5], dtype=float32)}
    """
    fields = frozenset({*Iterate._fields, *Weights._fields})
    plain_state, plain = without_variables((state, params))
    for slots in find_slots(plain_state, "schedule_free", fields):
        plain = map_leaves(_x_of, plain, slots["z"], b1=slots["b1"])
    return with_variables(plain, params)


def _x_of(y, z, *, b1):
    return y if z is None else average_of_iterates(y, Iterate(z), b1)


def _evaluate(y, slots: Iterate, *, b1):
    return average_of_iterates(y, slots, b1)
