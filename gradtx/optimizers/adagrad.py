r"""AdaGrad: divide by the root of the sum of all squared gradients so far.

r ← r + g²
u = g / √(r + ε)       or, as in textbooks,       u = g / (√r + ε)
θ ← θ − η u
"""

from typing import Any, NamedTuple

import jax

from gradtx.compose.descend import descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import NonNegative, Squares
from gradtx.transforms.moments import divide_by_root
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import full


class SumOfSquares(NamedTuple):
    """r: the sum of squared gradients."""

    sum_of_squares: Squares


def _init(param: jax.Array, *, initial_accumulator_value: Any) -> SumOfSquares:
    return SumOfSquares(full(param, initial_accumulator_value))


def _update(
    grad: jax.Array,
    slots: SumOfSquares,
    param: None,
    step: jax.Array,
    *,
    eps: jax.Array,
    eps_in_sqrt: bool,
) -> Any:
    total = slots.sum_of_squares + abs_sq(grad)
    return divide_by_root(grad, total, eps, eps_in_sqrt), SumOfSquares(total)


@definition
def scale_by_rss(
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> GradientTransformation:
    """Divide by the root of the sum of squares: r ← r + g², u = g / √(r + ε).

    Args:
      initial_accumulator_value: r before the first update, ≥ 0.
      eps: ε ≥ 0.
      eps_in_sqrt: False for u = g / (√r + ε).

    Raises:
      HyperparamError: a number out of its range.

    State: 4 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_rss(initial_accumulator_value=0.0, eps=0.0)
    >>> u, _ = tx.update(jnp.array([-5.0]), tx.init(jnp.zeros(1)))  # the first step has size 1, whatever the gradient
    >>> u.tolist()
    [-1.0]

    Duchi, Hazan and Singer 2011, JMLR 12, Figure 1, diagonal form.
    """
    return leafwise(
        _init,
        _update,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
        eps_in_sqrt=eps_in_sqrt,
    )


@definition
def adagrad(
    learning_rate: NonNegative,
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> GradientTransformation:
    r"""Give every coordinate a step that shrinks with the gradients it has seen.

    For every array, g, r and θ of one shape: r ← r + g², θ ← θ − η g / √(r + ε).

    When: sparse features, where a rare coordinate keeps a large step. When not: long runs of deep
    networks, where r only grows and the steps die out; take `rmsprop` or `adam`.

    The textbook starts at r = 0 with ε outside the root:
    `adagrad(eta, initial_accumulator_value=0.0, eps=delta, eps_in_sqrt=False)`.

    Args:
      learning_rate: η ≥ 0, parameter units; 1e-2 to 1.
      initial_accumulator_value: r before the first update, ≥ 0; the larger, the gentler the first
        steps.
      eps: ε ≥ 0, keeps the division finite; 1e-10 to 1e-6.
      eps_in_sqrt: whether ε is added under the root.

    Raises:
      HyperparamError: a negative number.

    State: 4 bytes per parameter (r).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([1.0, 1.0])
    >>> tx = gradtx.adagrad(0.5, initial_accumulator_value=0.0, eps=0.0)
    >>> updates, _ = tx.update(jnp.array([100.0, 0.01]), tx.init(w))  # equal steps for unequal slopes
    >>> updates.tolist()
    [-0.5, -0.5]

    See also: `rmsprop`, `scale_by_rss`.

    Duchi, Hazan and Singer 2011, JMLR 12, Figure 1, diagonal form.
    """
    return descend(
        scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt), learning_rate
    )
