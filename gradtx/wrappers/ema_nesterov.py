r"""EMA-Nesterov: gradients and steps ahead of the parameters, along their average direction.

y = θ + b m                     the parameters that the caller holds
θ⁺ = y + u                      u: what the base method adds, for the gradient at y
m⁺ = γ m + (1 − γ) (θ⁺ − θ)
y⁺ = θ⁺ + b⁺ m⁺                 b⁺: of the next step

With θ⁺ − θ = u + b m the state holds m alone, and the rule computes no difference of parameters:

m⁺ = (γ + (1 − γ) b) m + (1 − γ) u
y⁺ − y = u + b⁺ m⁺
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.schedule import Schedule
from gradtx.definition.types import DTypeLike, Fraction
from gradtx.schedules.join import shift_schedule
from gradtx.tree.casts import zeros


class AverageStep(NamedTuple):
    """The average step of the parameters."""

    m: jax.Array


class Ahead(NamedTuple):
    """The distance of the caller's parameters from θ, in average steps."""

    b: jax.Array


def _init(param, *, accumulator_dtype: DTypeLike | None) -> AverageStep:
    return AverageStep(zeros(param, accumulator_dtype))


def _init_tree_slots() -> Ahead:
    return Ahead(jnp.asarray(0.0))


def _conclude(
    measures, tree_slots: Ahead, step, *, decay, beta
) -> tuple[dict[str, jax.Array], Ahead]:
    return {"factor": decay + (1 - decay) * tree_slots.b}, Ahead(beta)


def _ema_nesterov(grad, slots: AverageStep, param, step, *, factor, decay, beta):
    m = factor * slots.m + (1 - decay) * grad
    return grad + beta * m, AverageStep(m)


def _evaluate(param, slots: AverageStep, *, b):
    return param - b * slots.m


@definition
def ema_nesterov(
    inner: TransformationLike,
    decay: Fraction = 0.99,
    beta: Fraction = 0.3,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""Nesterov momentum along an exponential moving average (EMA) of the steps.

    Gradients are taken ahead of the parameters, where these are heading. For every array, all of
    one shape: y = θ + b m, θ⁺ = y + u, m⁺ = γ m + (1 − γ) (θ⁺ − θ), where u is the update of the
    inner transformation for the gradient at y, its weight decay included. Nesterov's own direction
    is that of the last step alone, which is mostly noise where gradients are.

    The caller holds the parameters y, where gradients are taken. For evaluation, θ = y − b m is
    `eval_params(tx, state, params)`. While b = 0 both are equal, and training is that of `inner`.

    When: a tuned base method and a long run, to need fewer steps. When not: the first steps and the
    end of a run, because these steps do not predict the next ones: let b be 0 there,

        eta = gradtx.warmup_cosine_decay_schedule(0.0, 3e-4, warmup_steps=300, decay_steps=10_000)
        beta = gradtx.join_schedules([0.0, lambda k: 0.3 * eta(k + 300) / 3e-4, 0.0], [300, 7_000])
        tx = gradtx.ema_nesterov(gradtx.adamw(eta), beta=beta)

    Steps that `inner` skips count as steps of size 0: put `apply_if_finite` or `guard` outside.

    Args:
      inner: gives u, learning rate and weight decay included.
      decay: γ in [0, 1]; m reaches back about 1/(1 − γ) steps; 0.99.
      beta: b in [0, 1], how many average steps to look ahead; 0.3 at the peak of the learning rate,
        and elsewhere in proportion to the rate. The value of a schedule at count k belongs to the
        gradient of update k + 1. With b near 1, m hardly ever forgets a direction.
      accumulator_dtype: dtype of m; None: the parameter's, float32 at least.

    Raises:
      HyperparamError: a number out of its range.

    State: 4 bytes per parameter (m), and that of `inner`; one number for the whole tree, b of y.

    >>> import gradtx, jax.numpy as jnp
    >>> y = jnp.array(8.0)
    >>> tx = gradtx.ema_nesterov(gradtx.sgd(1.0), decay=0.5, beta=0.5)
    >>> state = tx.init(y)
    >>> # θ = 8 − 1, m = −0.5, y = 7 − 0.25
    >>> # θ = 6.75 − 1, m = −0.25 + 0.5 (5.75 − 7) = −0.875, y = 5.75 − 0.4375
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.array(1.0), state, y)
    ...     y = gradtx.apply_updates(y, updates)
    >>> float(y), float(gradtx.eval_params(tx, state, y))
    (5.3125, 5.75)

    See also: `lookahead`, `params_ema`, `nadam`.

    Yau et al. 2026, arXiv 2605.25395. The equations come from two summaries that agree; they were
    not compared with the text of the paper.
    """
    # The update at count t moves the parameters to the point of the next gradient.
    beta = shift_schedule(beta, 1) if isinstance(beta, Schedule) else beta
    lookahead = leafwise(
        _init,
        _ema_nesterov,
        conclude=_conclude,
        init_tree_slots=_init_tree_slots,
        evaluate=_evaluate,
        beta=beta,
    )
    return chain(inner, lookahead)
