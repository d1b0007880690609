r"""Rprop: a step size per coordinate, from the signs of successive gradients.

    Δ ← η₊ Δ  where g g' > 0,   η₋ Δ  where g g' < 0,   Δ else;   within [Δ_min, Δ_max]
    g ← 0     where g g' < 0
    θ ← θ − Δ sign(g),   g' ← g

Δ grows while the gradient keeps its sign, and shrinks when the sign turns.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam, Limit, NonNegative, Positive, Precise
from gradtx.transforms.scaling import scale
from gradtx.tree.casts import full, zeros


class StepSizes(NamedTuple):
    """A step size per coordinate, and the last sign of its gradient."""

    step_sizes: Precise
    signs: jax.Array


def _init(param, *, learning_rate) -> StepSizes:
    return StepSizes(full(param, learning_rate), zeros(param))


def _rprop(
    grad, slots: StepSizes, param, step, *, eta_minus, eta_plus, min_step_size, max_step_size
):
    signs = jnp.sign(grad)  # a product of gradients may underflow, one of signs does not
    agreement = signs * slots.signs
    growth = jnp.where(agreement > 0, eta_plus, jnp.where(agreement < 0, eta_minus, 1.0))
    sizes = jnp.clip(growth * slots.step_sizes, min_step_size, max_step_size)
    # iRprop−: where the sign turned, the coordinate waits, and its Δ is not shrunk twice.
    signs = jnp.where(agreement < 0, 0.0, signs)
    return sizes * signs, StepSizes(sizes, signs)


@definition
def scale_by_rprop(
    learning_rate: Hyperparam,
    eta_minus: Positive = 0.5,
    eta_plus: Positive = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: Limit = 50.0,
) -> GradientTransformation:
    """Rprop's step, upwards: u = Δ sign(g), 0 where the sign turned.

    The step sizes Δ follow from the signs of successive gradients.

    Args:
      learning_rate: Δ before the first update, ≥ 0; only `init` reads it.
      eta_minus: η₋ > 0, factor of Δ where the sign turns.
      eta_plus: η₊ > 0, factor of Δ where the sign stays.
      min_step_size: Δ_min ≥ 0.
      max_step_size: Δ_max ≥ 0.

    Raises:
      HyperparamError: a number is out of its range.
      StructureError: a leaf is complex; the sign of a complex number has no two directions.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_rprop(1.0)
    >>> state, directions = tx.init(jnp.zeros(1)), []
    >>> for g in (5.0, 0.1, -0.1, -0.1):
    ...     u, state = tx.update(jnp.array([g]), state)
    ...     directions.append(round(u.item(), 3))
    >>> directions
    [1.0, 1.2, 0.0, -0.6]

    Riedmiller and Braun 1993, IEEE International Conference on Neural Networks; the form here,
    without backtracking: Igel and Hüsken 2000, Improving the Rprop learning algorithm, iRprop−.
    """
    return leafwise(_init, _rprop, real_only=True)


@definition
def rprop(
    learning_rate: Hyperparam,
    eta_minus: Positive = 0.5,
    eta_plus: Positive = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: Limit = 50.0,
) -> GradientTransformation:
    r"""Rprop: step sizes per coordinate from the signs of successive gradients.

    For every array, all of one shape: Δ grows by η₊ where g keeps its sign, shrinks by η₋ where the
    sign turns, and θ ← θ − Δ sign(g). A coordinate whose sign turned waits for one step.

    When: for full batches, where the gradient has no noise. When not: for mini-batches, whose signs
    turn by chance; take `adam`.

    Args:
      learning_rate: Δ before the first update, ≥ 0, parameter units; it has little effect on later
        steps.
      eta_minus: η₋, in (0, 1); 0.5.
      eta_plus: η₊ > 1; 1.2.
      min_step_size: Δ_min ≥ 0; 1e-6.
      max_step_size: Δ_max ≥ 0; 50.

    Raises:
      HyperparamError: a number is out of its range.
      StructureError: a leaf is complex.

    State: 8 bytes per parameter (Δ, and the sign of g).

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w, tx = jnp.array([1.0, 1.0]), gradtx.rprop(0.1)
    >>> state = tx.init(w)
    >>> grad = jax.grad(lambda w: w[0] ** 2 + 1e6 * w[1] ** 2)
    >>> for _ in range(30):
    ...     updates, state = tx.update(grad(w), state)
    ...     w = gradtx.apply_updates(w, updates)
    >>> w[0].item() == w[1].item()  # the condition number does not matter
    True

    See also: `sign_sgd`, `scale_by_rprop`.

    Riedmiller and Braun 1993, IEEE International Conference on Neural Networks; Igel and Hüsken
    2000, Improving the Rprop learning algorithm, iRprop−.
    """
    rule = scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size)
    return chain(rule, scale(-1.0))  # Δ is the whole step: no learning rate multiplies it
