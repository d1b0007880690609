r"""MADGRAD: dual averaging with the cube root of a sum of squares, and momentum as an average of
points.

l = (η + ε) √t
s ← s + l g                    v ← v + l g²
z = θ0 − s / (∛v + ε)
θ ← μ θ + (1 − μ) z
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import add_decayed_weights
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, NonNegative, Precise, Squares
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import float_copy, real_zeros, zeros


class DualAverages(NamedTuple):
    """Weighted sums of gradients (s) and of their squares, and the parameters at the start."""

    s: Precise
    grad_sum_sq: Squares
    x0: Precise


def _init(param: jax.Array) -> DualAverages:
    return DualAverages(zeros(param), real_zeros(param), float_copy(param))


def _update(
    grad: jax.Array,
    slots: DualAverages,
    param: jax.Array,
    step: jax.Array,
    *,
    learning_rate: jax.Array,
    momentum: jax.Array,
    eps: jax.Array,
) -> Any:
    weight = (learning_rate + eps) * jnp.sqrt(step)
    s, squares = slots.s + weight * grad, slots.grad_sum_sq + weight * abs_sq(grad)
    divisor = jnp.cbrt(squares) + eps
    moved = jnp.where(divisor == 0, 0.0, s / jnp.where(divisor == 0, 1.0, divisor))
    return (1 - momentum) * (slots.x0 - moved - param), DualAverages(s, squares, slots.x0)


@definition
def scale_by_madgrad(
    learning_rate: NonNegative, momentum: Decay = 0.9, eps: NonNegative = 1e-6
) -> GradientTransformation:
    """MADGRAD's step, downwards and with its learning rate: u = (1 − μ) (z − θ), z = θ0 − s / (∛v +
    ε).

    Args:
      learning_rate: η ≥ 0.
      momentum: μ in [0, 1).
      eps: ε ≥ 0, beside the root, and added to η.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 12 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.array([1.0]), gradtx.scale_by_madgrad(1.0, momentum=0.75, eps=0.0)
    >>> tx.update(jnp.array([8.0]), tx.init(w), w)[0].round(4).tolist()  # a quarter of −8 / ∛64
    [-0.5]

    Defazio and Jelassi 2021, arXiv 2101.11075, Algorithm 1.
    """
    return leafwise(
        _init, _update, learning_rate=learning_rate, momentum=momentum, eps=eps, needs_params=True
    )


@definition
def madgrad(
    learning_rate: NonNegative,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    eps: NonNegative = 1e-6,
) -> GradientTransformation:
    r"""Steps from the start by a weighted sum of all gradients over the cube root of the sum of
    their squares.

    For every array, all of one shape, with l = (η + ε) √t: s ← s + l g, v ← v + l g², z = θ0 − s /
    (∛v + ε), θ ← μ θ + (1 − μ) z. The weights l grow, so that late gradients count more. Weight
    decay is an L2 penalty: g ← g + λ θ.

    When: sparse and dense problems alike where `sgd` generalises better than `adam`. When not:
    fine-tuning and long runs with decay, since every step starts from θ0; memory-bound, as it keeps
    three arrays.

    Args:
      learning_rate: η ≥ 0; it must be tuned anew, optima of `sgd` and `adam` do not carry over;
        1e-4 to 1e-1.
      momentum: μ in [0, 1); 0.9.
      weight_decay: λ ≥ 0; often 0, less than for `sgd`.
      eps: ε ≥ 0, beside the root, and added to η, which therefore never is 0; 1e-6.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 12 bytes per parameter (s, v and θ0).

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.array([1.0]), gradtx.madgrad(1.0, momentum=0.0, eps=0.0)
    >>> tx.update(jnp.array([8.0]), tx.init(w), w)[0].round(4).tolist()  # −8 / ∛64
    [-2.0]

    See also: `adagrad`, `scale_by_madgrad`.

    Defazio and Jelassi 2021, arXiv 2101.11075, Algorithm 1; ε beside η as in their code.
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))
