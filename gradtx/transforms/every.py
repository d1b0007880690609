"""Updates at every k-th step: the sum of the last k, and zeros between."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Period
from gradtx.engine.clock import whole
from gradtx.tree.casts import zeros


class Accumulated(NamedTuple):
    """The sum of the updates since the last one that was applied."""

    grad_acc: jax.Array


def _init(param) -> Accumulated:
    return Accumulated(zeros(param))


def _accumulate(grad, slots: Accumulated, param, step, *, k):
    total, due = slots.grad_acc + grad, step % whole(k) == 0
    return jnp.where(due, total, 0.0), Accumulated(jnp.where(due, 0.0, total))


@definition
def apply_every(k: Period = 1) -> GradientTransformation:
    """Accumulate updates, and apply their sum at every k-th step.

    u = Σ g of the last k steps if t mod k = 0, else 0. Members before it in a chain run at every
    step; members behind it receive k − 1 zeros for each sum.

    When: the sum is to be applied, as behind a learning rate. When not: gradient accumulation for
    Adam or another method with averages, since the zeros would enter these; take `accumulate`.

    Args:
      k: the number of steps in one sum, a whole number ≥ 1. In float32 step numbers are exact up
        to 2²⁴.

    Raises:
      HyperparamError: k is below 1, or not a whole number.

    State: 4 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.apply_every(k=3)
    >>> state, results = tx.init(jnp.zeros(())), []
    >>> for g in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
    ...     u, state = tx.update(jnp.array(g), state)
    ...     results.append(u.item())
    >>> results
    [0.0, 0.0, 6.0, 0.0, 0.0, 15.0]
    """
    return leafwise(_init, _accumulate)
