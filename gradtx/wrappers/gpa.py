r"""Generalized Primal Averaging (GPA): gradients between an iterate and its moving average.

z ← (1 − η λ) z + u                  u: what the inner method adds, for the gradient at y
x ← μ_x x + (1 − μ_x) z
y ← μ_y x + (1 − μ_y) z              y: the parameters in training, x: the parameters to evaluate

The state holds z alone. With d = u − η λ z the rule needs no x:

y⁺ − y = (1 − μ_x) (z − y) + (1 − μ_x μ_y) d           for a constant μ_y
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.types import DTypeLike, Fraction, Hyperparam, NonNegative
from gradtx.transforms.iterates import (
    Iterate,
    Mixing,
    average_of_iterates,
    init_iterate,
    mixing_factors,
    move_iterate,
)
from gradtx.wrappers.guard import Steps


class Place(NamedTuple):
    """The place of the parameters between x and z."""

    mu_y: jax.Array
    """μ_y of the last update, which mixed y."""


def _init_tree_slots(*, mu_y) -> Place:
    # The product is a new array: the state may be donated, the hyperparameter may not.
    return Place(1.0 * jnp.asarray(mu_y))


def _conclude(
    measures, tree_slots: Place, step, *, inner_steps, mu_y, learning_rate, weight_decay, mu_x=None
) -> tuple[dict[str, jax.Array], Place]:
    mu_x = 0.9 ** (1 / inner_steps) if mu_x is None else mu_x
    factors = mixing_factors(1 - mu_x, mu_y, tree_slots.mu_y)
    return {**factors, "shrink": learning_rate * weight_decay}, Place(mu_y)


def _gpa(grad, slots: Iterate, param, step, *, push, pull, shrink):
    return move_iterate(grad - shrink * slots.z, slots, param, step, push=push, pull=pull)


def _evaluate(param, slots: Iterate, *, mu_y):
    return average_of_iterates(param, slots, mu_y)


@definition
def gpa(
    inner: TransformationLike,
    inner_steps: Steps = 32,
    mu_x: Fraction | None = None,
    mu_y: Mixing = 0.7,
    weight_decay: NonNegative = 0.0,
    learning_rate: Hyperparam = 1.0,
    state_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""Generalized Primal Averaging (GPA): Nesterov's outer step of DiLoCo at every step.

    It averages the iterates of any method by an exponential moving average (EMA), and takes
    gradients near the average. For every array, all of one shape, with the parameters y: z ← (1 − η
    λ) z + u, x ← μ_x x + (1 − μ_x) z, y ← μ_y x + (1 − μ_y) z, where u is the update of the inner
    transformation for the gradient at y. It is Schedule-Free with an exponential average in the
    place of a uniform one.

    The caller holds y. For evaluation, x = z + (y − z)/μ_y is `eval_params(tx, state, params)`.

    When: in place of DiLoCo on one worker, or around a tuned method, whose learning rate schedule
    stays. When not: the last steps before an evaluation matter, at a rate that does not decay: x is
    1/(1 − μ_x) steps behind; or batch norm statistics, which belong to y, cannot be computed again
    at x.

    Args:
      inner: gives u, learning rate included; any method, momentum and its own weight decay at y
        included.
      inner_steps: H ≥ 1, the inner steps of the DiLoCo that it replaces: μ_x = 0.9^(1/H). H = 1
        gives 0.9, 4 gives 0.974, 8 0.9869, 16 0.9934, 32 0.9967, 64 0.9984, 128 0.9992.
      mu_x: μ_x in [0, 1]; the average reaches back about 1/(1 − μ_x) steps; None: by `inner_steps`.
      mu_y: μ_y in (0, 1]: the point of gradients between z (0) and the average x (1); 0.7.
      weight_decay: λ ≥ 0, at z and in addition to that of `inner`; give `inner` none where this is
        set.
      learning_rate: η of that decay, the one of `inner`; 1: λ is the whole decay of a step.
      state_dtype: dtype of z; None: the parameter's, float32 at least.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (z), and that of `inner`; one number for the whole tree.

    >>> import gradtx, jax.numpy as jnp
    >>> y = jnp.array(8.0)
    >>> tx = gradtx.gpa(gradtx.sgd(1.0), mu_x=0.5, mu_y=0.5)
    >>> state = tx.init(y)
    >>> for _ in range(2):  # z = 7, then 6; x = 8/2 + 7/2, then 7.5/2 + 6/2
    ...     updates, state = tx.update(jnp.array(1.0), state, y)
    ...     y = gradtx.apply_updates(y, updates)
    >>> float(gradtx.eval_params(tx, state, y)), float(y)  # y = (x + z) / 2
    (6.75, 6.375)

    See also: `schedule_free`, `params_ema`, `lookahead`.

    Defazio et al. 2025, arXiv 2512.17131; the table of μ_x is from the authors' code.
    """
    average = leafwise(
        init_iterate,
        _gpa,
        conclude=_conclude,
        init_tree_slots=_init_tree_slots,
        evaluate=_evaluate,
        needs_params=True,
        mu_y=mu_y,  # a tree slot has this name too, so it is not taken by itself
    )
    return chain(inner, average)
