r"""Rprop: a step size per coordinate that grows while the gradient keeps its sign, and shrinks when
it turns.

Δ ← η₊ Δ  where g g' > 0,   η₋ Δ  where g g' < 0,   Δ else;   within [Δ_min, Δ_max]
g ← 0     where g g' < 0
θ ← θ − Δ sign(g),   g' ← g
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import NonNegative, Positive, Precise
from gradtx.transforms.scaling import scale
from gradtx.tree.casts import full, zeros


class StepSizes(NamedTuple):
    """A step size per coordinate, and the sign that its gradient had."""

    step_sizes: Precise
    signs: jax.Array


def _init(param: jax.Array, *, learning_rate: Any) -> StepSizes:
    return StepSizes(full(param, learning_rate), zeros(param))


def _update(
    grad: jax.Array,
    slots: StepSizes,
    param: None,
    step: jax.Array,
    *,
    eta_minus: jax.Array,
    eta_plus: jax.Array,
    min_step_size: jax.Array,
    max_step_size: jax.Array,
) -> Any:
    signs = jnp.sign(grad)
    agreement = signs * slots.signs
    growth = jnp.where(agreement > 0, eta_plus, jnp.where(agreement < 0, eta_minus, 1.0))
    sizes = jnp.clip(growth * slots.step_sizes, min_step_size, max_step_size)
    signs = jnp.where(agreement < 0, 0.0, signs)
    return sizes * signs, StepSizes(sizes, signs)


@definition
def scale_by_rprop(
    learning_rate: NonNegative,
    eta_minus: Positive = 0.5,
    eta_plus: Positive = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: NonNegative = 50.0,
) -> GradientTransformation:
    """Rprop's step, upwards: u = Δ sign(g), with step sizes Δ that learn from the signs of the
    gradient; 0 where the sign has turned.

    Args:
      learning_rate: Δ before the first update, ≥ 0; read once, by `init`.
      eta_minus: η₋ > 0, factor of Δ where the sign turns.
      eta_plus: η₊ > 0, factor of Δ where the sign stays.
      min_step_size: Δ_min ≥ 0.
      max_step_size: Δ_max ≥ 0.

    Raises:
      HyperparamError: a number out of its range.
      StructureError: a complex leaf, whose sign does not turn but rotate.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_rprop(1.0)
    >>> state, seen = tx.init(jnp.zeros(1)), []
    >>> for g in (5.0, 0.1, -0.1, -0.1):
    ...     u, state = tx.update(jnp.array([g]), state)
    ...     seen.append(round(u.item(), 3))
    >>> seen
    [1.0, 1.2, 0.0, -0.6]

    Riedmiller and Braun 1993, IEEE International Conference on Neural Networks; without going back,
    as here: Igel and Hüsken 2000, Improving the Rprop learning algorithm, iRprop−.
    """
    return leafwise(
        _init,
        _update,
        learning_rate=learning_rate,
        eta_minus=eta_minus,
        eta_plus=eta_plus,
        min_step_size=min_step_size,
        max_step_size=max_step_size,
        real_only=True,
    )


@definition
def rprop(
    learning_rate: NonNegative,
    eta_minus: Positive = 0.5,
    eta_plus: Positive = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: NonNegative = 50.0,
) -> GradientTransformation:
    r"""A step size per coordinate, from the signs of successive gradients alone.

    For every array, all of one shape: Δ grows by η₊ where g keeps its sign, shrinks by η₋ where it
    turns, and θ ← θ − Δ sign(g); where the sign has turned the coordinate waits for one step.

    When: full batches, where the gradient has no noise. When not: mini-batches, whose signs turn by
    chance; take `adam`.

    Args:
      learning_rate: Δ before the first update, ≥ 0, parameter units; it is forgotten soon.
      eta_minus: η₋, in (0, 1); 0.5.
      eta_plus: η₊ > 1; 1.2.
      min_step_size: Δ_min ≥ 0; 1e-6.
      max_step_size: Δ_max ≥ 0; 50.

    Raises:
      HyperparamError: a number out of its range.
      StructureError: a complex leaf.

    State: 8 bytes per parameter (Δ, and the sign of g).

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w, tx = jnp.array([1.0, 1.0]), gradtx.rprop(0.1)
    >>> state = tx.init(w)
    >>> for _ in range(30):
    ...     updates, state = tx.update(jax.grad(lambda w: w[0] ** 2 + 1e6 * w[1] ** 2)(w), state)
    ...     w = gradtx.apply_updates(w, updates)
    >>> w[0].item() == w[1].item()  # the condition number does not matter
    True

    See also: `sign_sgd`, `scale_by_rprop`.

    Riedmiller and Braun 1993, IEEE International Conference on Neural Networks; Igel and Hüsken
    2000, Improving the Rprop learning algorithm, iRprop−.
    """
    return chain(
        scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size),
        scale(-1.0),
    )
