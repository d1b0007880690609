r"""ScheduleFree+: Schedule-Free with Polyak's step length, and an average that moves less and less.

With the loss F and its gradient g at the parameters y, sums over all arrays:

β_t = 1 − (1 − β)^(1 − s) (1 − β_end)^s,  s = min(t/T, 1)
e ← β_p e + (1 − β_p) ‖g‖₁ √(π/2),   ê = e / (1 − β_p^t)
α = η max(0, F + β_t ⟨g, z − x⟩) / ê
z ← z − α² λ y − α d                     d: the direction of the base method for g
w = t^r (η_max)^p,  c = w / Σ w          c = 1 for t ≤ C
x ← (1 − c) x + c z
y ← β_t x + (1 − β_t) z                  y: the parameters in training, x: those to evaluate

The state holds z alone of x, y and z.
"""

import math
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, Limit, NonNegative, Positive
from gradtx.transforms.iterates import (
    Iterate,
    Mixing,
    average_of_iterates,
    init_iterate,
    mixing_factors,
    move_iterate,
    weight_share,
)
from gradtx.transforms.moments import average, debias
from gradtx.tree.arithmetic import dot, finite, sum_scalars

L1_TO_L2 = math.sqrt(math.pi / 2)
"""The ratio of √n times the 2-norm to the 1-norm of n normal numbers."""


class Progress(NamedTuple):
    """The scalars of the whole tree."""

    beta: jax.Array
    """β_t of the last update, which mixed y."""
    norm: jax.Array
    """e, the average of norms before its correction."""
    max_lr: jax.Array
    """The largest learning rate so far."""
    weight_sum: jax.Array
    """The sum of the weights of all iterates."""


class Products(NamedTuple):
    """Of one array: ‖g‖₁ and ⟨g, z − y⟩."""

    size: jax.Array
    gain: jax.Array


def _init_tree_slots(*, beta) -> Progress:
    zeros = (jnp.asarray(0.0) for _ in range(3))
    # The product is a new array: the state may be donated, the hyperparameter may not.
    return Progress(1.0 * jnp.asarray(beta), *zeros)


def _measure(grad, slots: Iterate, param, step, *, input_grad) -> Products:
    size = jnp.sum(jnp.abs(finite(input_grad)))
    return Products(size, dot(input_grad, slots.z - param))


def _mixing(step, beta, beta_end, anneal_steps):
    """β_t, whose distance from 1 goes from 1 − β to 1 − β_end along a line in the logarithm."""
    share = jnp.minimum(step / anneal_steps, 1.0)
    return 1 - (1 - beta) ** (1 - share) * (1 - beta_end) ** share


def _polyak(measures, old: Progress, step, value, beta, norm_decay):
    """Polyak's factor max(0, F + β ⟨g, z − x⟩) / ê, and e."""
    size = L1_TO_L2 * sum_scalars(measures.size)
    norm = average(old.norm, size, norm_decay)
    # y was mixed by the last β: z − x = (z − y) / β.
    gap = jnp.maximum(value + beta / old.beta * sum_scalars(measures.gain), 0.0)
    # A loss that is not finite and sums that overflow make no step, and do not stay in e.
    usable = jnp.isfinite(gap) & jnp.isfinite(norm)
    scale = debias(jnp.where(usable, norm, old.norm), norm_decay, step)
    # Without a gradient there is no step; the inner `where` avoids 0/0.
    factor = jnp.where(scale > 0, gap / jnp.where(scale > 0, scale, 1.0), 0.0)
    # A step whose square overflows has no decay, and no parameter could hold it.
    usable &= jnp.isfinite(factor**2)
    return jnp.where(usable, factor, 0.0), jnp.where(usable, norm, old.norm)


def _conclude(
    measures,
    tree_slots: Progress,
    step,
    *,
    value,
    learning_rate,
    beta,
    beta_end,
    anneal_steps,
    weight_decay,
    norm_decay,
    average_warmup,
    weight_power,
    weight_lr_power,
) -> tuple[dict[str, jax.Array], Progress]:
    beta = _mixing(step, beta, beta_end, anneal_steps)
    factor, norm = _polyak(measures, tree_slots, step, value, beta, norm_decay)
    max_lr = jnp.maximum(tree_slots.max_lr, learning_rate)
    weight = step**weight_power * max_lr**weight_lr_power
    weight_sum = tree_slots.weight_sum + weight
    mix = jnp.where(step <= average_warmup, 1.0, weight_share(weight, weight_sum))
    rate = learning_rate * factor
    stats = {"rate": rate, "shrink": rate**2 * weight_decay}
    stats |= mixing_factors(mix, beta, tree_slots.beta)
    return stats, Progress(beta, norm, max_lr, weight_sum)


def _schedule_free_plus(grad, slots: Iterate, param, step, *, push, pull, rate, shrink):
    move = -(shrink * param + rate * grad)
    return move_iterate(move, slots, param, step, push=push, pull=pull)


def _evaluate(param, slots: Iterate, *, beta):
    return average_of_iterates(param, slots, beta)


@definition
def schedule_free_plus(
    base_optimizer: TransformationLike,
    learning_rate: Hyperparam = 1.0,
    beta: Mixing = 0.9,
    beta_end: Mixing = 0.965,
    anneal_steps: Positive = 10_000.0,
    weight_decay: NonNegative = 0.0,
    norm_decay: Decay = 0.9,
    average_warmup: Limit = 0.0,
    weight_power: NonNegative = 0.0,
    weight_lr_power: NonNegative = 2.0,
    state_dtype: DTypeLike | None = None,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""ScheduleFree+: Schedule-Free with a Polyak step size, without a learning rate to tune.

    For arrays of any shapes, with sums over all of them and the parameters y: α = η max(0, F + β_t
    ⟨g, z − x⟩)/ê, z ← z − α² λ y − α d, x ← (1 − c) x + c z, y ← β_t x + (1 − β_t) z, where F is
    the loss, d the direction of the base method, ê a corrected average of ‖g‖₁ √(π/2), and c the
    weight of this iterate among all.

    `update` needs the loss: `update(grads, state, params, value=loss)`. Evaluate at x:
    `eval_params(tx, state, params)` returns it.

    When: language models, for runs of open length, with a base method that has momentum. When not:
    the loss may be negative, or its lowest value is far above 0: the step length takes 0 for the
    lowest loss; or a tuned schedule is at hand.

    The gradient in the sums is the one that `update` received, before any member of the chain.
    Entries of it that are not finite do not count. A zero gradient, a loss that is not finite and
    sums that overflow make a step of zero.

    Args:
      base_optimizer: gives the direction d, without learning rate and weight decay, such as
        `scale_by_adam(0.9, 0.95)`.
      learning_rate: η, a factor of Polyak's step; 1, or a warmup from 0 to 1.
      beta: β in (0, 1]: the point of gradients between z (0) and the average x (1), at first; 0.9.
      beta_end: β_end in (0, 1], after T updates; 0.965.
      anneal_steps: T > 0, updates; the length of a usual run; infinity: β stays.
      weight_decay: λ ≥ 0, at y, times α²: 20 to 50 in these units.
      norm_decay: β_p in [0, 1), of the average of norms; 0.9.
      average_warmup: C ≥ 0, updates during which x is z; 1 to 2 times the warmup of η.
      weight_power: r ≥ 0, the weights' power of t; 0 or 2.
      weight_lr_power: p ≥ 0, the weights' power of the largest η so far; 2.
      state_dtype: dtype of z; None: the parameter's, float32 at least.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is called without `value=`.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (z), and that of the base method; four numbers for the whole tree.

    >>> import gradtx, jax.numpy as jnp
    >>> y = jnp.array(3.0)
    >>> tx = gradtx.schedule_free_plus(gradtx.scale_by_sign())
    >>> # The loss is 2 |y|, and its slope 2: a step of F / (2 √(π/2)) in the direction of the sign.
    >>> updates, state = tx.update(jnp.array(2.0), tx.init(y), y, value=jnp.array(6.0))
    >>> round(float(gradtx.eval_params(tx, state, y + updates)), 4)  # 3 − 3/√(π/2)
    0.6063

    See also: `schedule_free_plus_adamw`, `schedule_free`, `momo`.

    Defazio 2026, arXiv 2605.19095. The defaults of `norm_decay` and `anneal_steps` are not
    from the paper.
    """
    average_rule = leafwise(
        init_iterate,
        _schedule_free_plus,
        measure=_measure,
        conclude=_conclude,
        init_tree_slots=_init_tree_slots,
        evaluate=_evaluate,
        extra=("value",),
        needs_params=True,
        beta=beta,  # a tree slot has this name too, so it is not taken by itself
    )
    return apply_axis_flags(chain(base_optimizer, average_rule), flags)
