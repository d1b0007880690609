r"""EMA-Nesterov: gradients and steps are taken ahead, in the direction in which the parameters have
been moving.

y = θ + b m                     the parameters that the caller holds
θ⁺ = y + u                      u: what the base method adds, for the gradient at y
m⁺ = γ m + (1 − γ) (θ⁺ − θ)
y⁺ = θ⁺ + b⁺ m⁺                 b⁺: of the next step

With θ⁺ − θ = u + b m only m is kept, and no difference of parameters is ever taken:

m⁺ = (γ + (1 − γ) b) m + (1 − γ) u
y⁺ − y = u + b⁺ m⁺
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.schedule import Schedule
from gradtx.definition.types import DTypeLike, Fraction
from gradtx.schedules.join import shift_schedule
from gradtx.tree.casts import zeros


class Way(NamedTuple):
    """The average way of the parameters in one step."""

    m: jax.Array


class Ahead(NamedTuple):
    """How far ahead of θ the parameters are that the caller holds."""

    b: jax.Array


def _init(param: jax.Array, *, accumulator_dtype: DTypeLike | None) -> Way:
    return Way(zeros(param, accumulator_dtype))


def _init_shared() -> Ahead:
    return Ahead(jnp.asarray(0.0))


def _look(
    found: None, shared: Ahead, step: jax.Array, *, decay: jax.Array, beta: jax.Array
) -> tuple[dict[str, Any], Ahead]:
    return {"keep": decay + (1 - decay) * shared.b}, Ahead(beta)


def _update(
    grad: jax.Array,
    slots: Way,
    param: None,
    step: jax.Array,
    *,
    keep: jax.Array,
    decay: jax.Array,
    beta: jax.Array,
) -> Any:
    m = keep * slots.m + (1 - decay) * grad
    return grad + beta * m, Way(m)


def _behind(param: jax.Array, slots: Way, *, b: jax.Array) -> jax.Array:
    return param - b * slots.m


@definition
def ema_nesterov(
    inner: TransformationLike,
    decay: Fraction = 0.99,
    beta: Fraction = 0.3,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""Nesterov's look ahead along a long average of the steps: gradients are taken where the
    parameters are heading.

    For every array, all of one shape: y = θ + b m, θ⁺ = y + u, m⁺ = γ m + (1 − γ) (θ⁺ − θ), where u
    is the update of the inner transformation for the gradient at y, its weight decay included.
    Nesterov's own direction is that of the last step alone, which is mostly noise where gradients
    are.

    The parameters that the caller holds are y, where gradients are taken; θ = y − b m, for
    evaluation, is `eval_params(tx, state, params)`. While b = 0 both are the same, and training is
    that of `inner`.

    When: a tuned base method and a long run, to get there in fewer steps. When not: the first steps
    and the end of a run, whose steps
    are no guide to the next ones: let b be 0 there,

        eta = gradtx.warmup_cosine_decay_schedule(0.0, 3e-4, warmup_steps=300, decay_steps=10_000)
        beta = gradtx.join_schedules([0.0, lambda k: 0.3 * eta(k + 300) / 3e-4, 0.0], [300, 7_000])
        tx = gradtx.ema_nesterov(gradtx.adamw(eta), beta=beta)

    Steps that are skipped inside `inner` count as steps of size 0: put `apply_if_finite` or `guard`
    outside.

    Args:
      inner: gives u, learning rate and weight decay included.
      decay: γ in [0, 1]; m reaches back about 1/(1 − γ) steps; 0.99.
      beta: b in [0, 1], how many average steps to look ahead; 0.3 at the peak of the learning rate,
        in proportion to it else. A schedule's value for count k is that of the gradient of update k
        + 1. With b near 1 a direction is hardly ever forgotten.
      accumulator_dtype: dtype of m; None: the parameter's, float32 at least.

    Raises:
      HyperparamError: a number out of its range.

    State: 4 bytes per parameter (m), and that of `inner`; one number for the whole tree, b of y.

    >>> import gradtx, jax.numpy as jnp
    >>> y = jnp.array(8.0)
    >>> tx = gradtx.ema_nesterov(gradtx.sgd(1.0), decay=0.5, beta=0.5)
    >>> state = tx.init(y)
    >>> for _ in range(2):  # θ = 8 − 1, m = −0.5, y = 7 − 0.25; θ = 6.75 − 1, m = −0.25 + 0.5 (5.75 − 7) = −0.875, y = 5.75 − 0.4375
    ...     updates, state = tx.update(jnp.array(1.0), state, y)
    ...     y = gradtx.apply_updates(y, updates)
    >>> float(y), float(gradtx.eval_params(tx, state, y))
    (5.3125, 5.75)

    See also: `lookahead`, `params_ema`, `nadam`.

    Yau et al. 2026, arXiv 2605.25395. The equations are those of two summaries that agree; the
    paper's own text was not compared."""
    next_beta = shift_schedule(beta, 1) if isinstance(beta, Schedule) else beta
    looking = leafwise(
        _init,
        _update,
        decay=decay,
        beta=next_beta,
        accumulator_dtype=accumulator_dtype,
        conclude=_look,
        init_tree_slots=_init_shared,
        evaluate=_behind,
    )
    return chain(inner, looking)
