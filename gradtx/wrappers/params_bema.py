r"""BEMA: an average of the parameters with a correction of its lag.

a ← a + (ρ + t)^(−κ) (θ − a)
α = (ρ + t)^(−η)
α (θ − θ_0) + a                  the parameters to evaluate
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import NonNegative, Positive, Precise
from gradtx.tree.casts import float_copy


class Lagging(NamedTuple):
    """The first parameters, and the average of all."""

    first: Precise
    ema: Precise


class Correction(NamedTuple):
    """The correction of the last update."""

    alpha: jax.Array


def _init(param) -> Lagging:
    return Lagging(float_copy(param), float_copy(param))


def _init_tree_slots() -> Correction:
    # Before the first update θ = θ_0, whatever α is.
    return Correction(jnp.asarray(0.0))


def _conclude(
    measures, tree_slots: Correction, step, *, power, ema_power, lag
) -> tuple[dict[str, jax.Array], Correction]:
    return {"share": (lag + step) ** -ema_power}, Correction((lag + step) ** -power)


def _params_bema(grad, slots: Lagging, param, step, *, share):
    return grad, slots._replace(ema=slots.ema + share * (param + grad - slots.ema))


def _evaluate(param, slots: Lagging, *, alpha):
    return slots.ema + alpha * (param - slots.first)


@definition
def params_bema(
    power: NonNegative = 0.2, ema_power: NonNegative = 0.5, lag: Positive = 10.0
) -> GradientTransformation:
    r"""BEMA: a bias-corrected exponential moving average (EMA) of the parameters.

    Updates pass through. For every array, all of one shape, after update t with the parameters θ: a
    ← a + (ρ + t)^(−κ) (θ − a). The parameters to evaluate are α (θ − θ_0) + a with α = (ρ +
    t)^(−η), which makes up for the steps that a is behind: `eval_params(tx, state, params)`. Put it
    last in a chain, so that θ + u are the parameters of the next step.

    When: fine-tuning at a constant rate, where a plain average is too far behind. When not: the
    learning rate decays to 0 anyway; or memory is scarce (`params_ema` needs half).

    Args:
      power: η ≥ 0, of the correction; 0.2.
      ema_power: κ ≥ 0, of the share of new parameters; 0.5.
      lag: ρ > 0, in updates; 10.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (θ_0 and a), and α for the whole tree.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array(8.0)
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.params_bema(power=0.5, ema_power=1.0, lag=3.0))
    >>> updates, state = tx.update(jnp.array(4.0), tx.init(w), w)
    >>> # w = 4, a = 8 + (4 − 8)/4 = 7, α = 1/2
    >>> float(gradtx.eval_params(tx, state, w + updates))
    5.0

    See also: `params_ema`, `tail_ema`.

    Block and Zhang 2025, arXiv 2508.00180, from a summary; not compared with the text of the paper.
    """
    return leafwise(
        _init,
        _params_bema,
        conclude=_conclude,
        init_tree_slots=_init_tree_slots,
        evaluate=_evaluate,
        needs_params=True,
    )
