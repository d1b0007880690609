r"""Adadelta: steps in the units of the parameters, from averages of g² and of squared steps.

e ← ρ e + (1 − ρ) g²
u = g √(x + ε) / √(e + ε)
x ← ρ x + (1 − ρ) u²
θ ← θ − η u
"""

from typing import NamedTuple

from gradtx.compose.descend import descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative, Squares
from gradtx.engine.selector import Where
from gradtx.transforms.moments import average, divide_by_root
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import real_zeros


class SquaredSteps(NamedTuple):
    """Averages of squared gradients (e_g) and of squared steps (e_x)."""

    e_g: Squares
    e_x: Squares


def _init(param) -> SquaredSteps:
    return SquaredSteps(real_zeros(param), real_zeros(param))


def _adadelta(grad, slots: SquaredSteps, param, step, *, rho, eps):
    e_g = average(slots.e_g, abs_sq(grad), rho)
    # x starts at 0: without ε in its root the first step would be 0, and so all others.
    delta = divide_by_root(sqrt(slots.e_x + eps) * grad, e_g, eps, True)
    return delta, SquaredSteps(e_g, average(slots.e_x, abs_sq(delta), rho))


@definition
def scale_by_adadelta(rho: Decay = 0.9, eps: NonNegative = 1e-6) -> GradientTransformation:
    """Adadelta's direction: u = g √(x + ε) / √(e + ε).

    e and x are averages of g² and u².

    Args:
      rho: ρ in [0, 1), decay of both averages.
      eps: ε ≥ 0; the first steps have size √(ε / (1 − ρ)), so ε sets the speed of the start.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_adadelta(rho=0.75, eps=1e-4)
    >>> u, _ = tx.update(jnp.array([100.0, -300.0]), tx.init(jnp.zeros(2)))
    >>> [round(x, 5) for x in u.tolist()]
    [0.02, -0.02]

    Zeiler 2012, arXiv 1212.5701, Algorithm 1.
    """
    return leafwise(_init, _adadelta)


@definition
def adadelta(
    learning_rate: Hyperparam | None = None,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Where | None = None,
) -> GradientTransformation:
    r"""Adadelta: adaptive steps without a learning rate.

    For every array, all of one shape: e ← ρ e + (1 − ρ) g², u = g √(x + ε) / √(e + ε), x ← ρ x + (1
    − ρ) u², θ ← θ − η u. Weight decay is an L2 penalty: first g ← g + λ θ.

    When: to reproduce work that used Adadelta. When not: for new work; the start is slow, and
    `adam` needs no more memory.

    Args:
      learning_rate: η, without unit; None: 1, as in the paper.
      rho: ρ in [0, 1), decay of both averages; 0.9 to 0.95.
      eps: ε ≥ 0, 1e-6; larger values start faster.
      weight_decay: λ ≥ 0.
      weight_decay_mask: the leaves that decay (see `masked`); None: all.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (e and x).

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.zeros(2), gradtx.adadelta()
    >>> a, _ = tx.update(jnp.array([1.0, -2.0]), tx.init(w), w)
    >>> b, _ = tx.update(jnp.array([1000.0, -2000.0]), tx.init(w), w)  # in other units of the loss
    >>> bool(jnp.allclose(a, b, rtol=1e-4))
    True

    See also: `rmsprop`, `scale_by_adadelta`.

    Zeiler 2012, arXiv 1212.5701, Algorithm 1.
    """
    rate = 1.0 if learning_rate is None else learning_rate
    rule = scale_by_adadelta(rho, eps)
    return descend(rule, rate, weight_decay, weight_decay_mask, decay_form="l2")
