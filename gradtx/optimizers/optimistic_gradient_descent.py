r"""Optimistic gradient descent: the gradient, plus its change since the last step.

θ ← θ − η ((α + β) g − β g_before)       g_before = g at the first step
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.descend import descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam
from gradtx.tree.casts import zeros


class Previous(NamedTuple):
    """The update of the step before."""

    previous: jax.Array


def _init(param) -> Previous:
    return Previous(zeros(param))


def _optimistic(grad, slots: Previous, param, step, *, alpha, beta):
    change = jnp.where(step > 1, grad - slots.previous, 0)  # the first gradient has no predecessor
    return alpha * grad + beta * change, Previous(grad)


@definition
def scale_by_optimistic_gradient(
    alpha: Hyperparam = 1.0, beta: Hyperparam = 1.0
) -> GradientTransformation:
    """Extrapolate updates from the previous one: u ← α u + β (u − u_before).

    Where that is above the largest float, the update is inf; the state stays finite.

    Args:
      alpha: α, weight of the update.
      beta: β, weight of its change; 0 for no optimism, 1 to predict the next update by a straight
        line.

    State: 4 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_optimistic_gradient()
    >>> _, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
    >>> tx.update(jnp.array([4.0]), state)[0].item()  # 1, 4, and so 7
    7.0

    Mokhtari, Ozdaglar and Pattathil 2020, arXiv 1901.08511.
    """
    return leafwise(_init, _optimistic)


@definition
def optimistic_gradient_descent(
    learning_rate: Hyperparam, alpha: Hyperparam = 1.0, beta: Hyperparam = 1.0
) -> GradientTransformation:
    r"""Optimistic gradient descent, for games and GANs.

    Its correction makes games converge where plain descent circles.

    For every array, all of one shape: θ ← θ − η (α g + β (g − g_before)).

    When: min-max problems, GANs among them, where each player runs it on its own loss. When not: a
    plain minimum; take `sgd`.

    Args:
      learning_rate: η, parameter units per unit of gradient; 1e-3 to 1.
      alpha: α, weight of the gradient; 1.
      beta: β, weight of its change; 1.

    Raises:
      HyperparamError: a learning rate that is not finite.

    State: 4 bytes per parameter (the gradient before).

    >>> import gradtx, jax.numpy as jnp
    >>> def distance(tx):  # of min over x, max over y of x y from its solution (0, 0)
    ...     point = jnp.array([1.0, 1.0])
    ...     state = tx.init(point)
    ...     for _ in range(200):
    ...         updates, state = tx.update(jnp.array([1.0, -1.0]) * point[::-1], state)
    ...         point = gradtx.apply_updates(point, updates)
    ...     return round(gradtx.global_norm(point).item(), 2)
    >>> distance(gradtx.sgd(0.2)), distance(gradtx.optimistic_gradient_descent(0.2))
    (71.42, 0.02)

    See also: `optimistic_adam_v2`, `scale_by_optimistic_gradient`.

    Daskalakis et al. 2018, arXiv 1711.00141; Mokhtari, Ozdaglar and Pattathil 2020, arXiv
    1901.08511, for α and β."""
    return descend(scale_by_optimistic_gradient(alpha, beta), learning_rate)
