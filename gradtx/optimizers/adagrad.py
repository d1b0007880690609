r"""AdaGrad: divide by the root of the sum of all squared gradients so far.

r ← r + g²
u = g / √(r + ε)       or, as in textbooks,       u = g / (√r + ε)
θ ← θ − η u
"""

from typing import NamedTuple

from gradtx.compose.descend import descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam, NonNegative, Squares
from gradtx.transforms.moments import divide_by_root
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import full


class SumOfSquares(NamedTuple):
    """r: the sum of squared gradients."""

    sum_of_squares: Squares


def _init(param, *, initial_accumulator_value) -> SumOfSquares:
    return SumOfSquares(full(param, initial_accumulator_value))


def _adagrad(grad, slots: SumOfSquares, param, step, *, eps, eps_in_sqrt: bool):
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
      eps_in_sqrt: False gives u = g / (√r + ε).

    Raises:
      HyperparamError: a number is out of its range.

    State: 4 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_rss(initial_accumulator_value=0.0, eps=0.0)
    >>> u, _ = tx.update(jnp.array([-5.0]), tx.init(jnp.zeros(1)))
    >>> u.tolist()  # the first step has size 1 at any scale of the gradient
    [-1.0]

    Duchi, Hazan and Singer 2011, JMLR 12, Figure 1, diagonal form.
    """
    return leafwise(_init, _adagrad)


@definition
def adagrad(
    learning_rate: Hyperparam,
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> GradientTransformation:
    r"""AdaGrad: step sizes from the sum of squared gradients.

    The step of a coordinate shrinks with its gradients so far.

    For every array, g, r and θ of one shape: r ← r + g², θ ← θ − η g / √(r + ε).

    When: for sparse features, where a rare coordinate keeps a large step. When not: for long runs
    of deep networks, where r only grows and the steps vanish; take `rmsprop` or `adam`.

    Textbooks start at r = 0 with ε outside the root:
    `adagrad(eta, initial_accumulator_value=0.0, eps=delta, eps_in_sqrt=False)`.

    Args:
      learning_rate: η, parameter units; 1e-2 to 1.
      initial_accumulator_value: r before the first update, ≥ 0; a larger value makes the first
        steps smaller.
      eps: ε ≥ 0, which keeps the quotient finite; 1e-10 to 1e-6.
      eps_in_sqrt: add ε inside the root.

    Raises:
      HyperparamError: a number is negative.

    State: 4 bytes per parameter (r).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([1.0, 1.0])
    >>> tx = gradtx.adagrad(0.5, initial_accumulator_value=0.0, eps=0.0)
    >>> updates, _ = tx.update(jnp.array([100.0, 0.01]), tx.init(w))
    >>> updates.tolist()  # equal steps for unequal slopes
    [-0.5, -0.5]

    See also: `rmsprop`, `scale_by_rss`.

    Duchi, Hazan and Singer 2011, JMLR 12, Figure 1, diagonal form.
    """
    rule = scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt)
    return descend(rule, learning_rate)
