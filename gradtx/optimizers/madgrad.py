r"""MADGRAD: dual averaging with the cube root of a sum of squares, and momentum as an average of
points.

l = (η + ε) √t
s ← s + l g                    v ← v + l g²
z = θ0 − s / (∛v + ε)
θ ← μ θ + (1 − μ) z
"""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import add_decayed_weights
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative, Precise, Squares
from gradtx.tree.arithmetic import abs_sq, cbrt, sqrt
from gradtx.tree.casts import float_copy, real_zeros, zeros


class DualAverages(NamedTuple):
    """Weighted sums of gradients (s) and of their squares, and the first parameters."""

    s: Precise
    grad_sum_sq: Squares
    x0: Precise


def _init(param) -> DualAverages:
    return DualAverages(zeros(param), real_zeros(param), float_copy(param))


def _madgrad(grad, slots: DualAverages, param, step, *, learning_rate, momentum, eps):
    weight = (learning_rate + eps) * sqrt(step)
    s, squares = slots.s + weight * grad, slots.grad_sum_sq + weight * abs_sq(grad)
    divisor = cbrt(squares) + eps
    # With ε = 0 a coordinate that never had a gradient has no divisor, and stays at θ0. The inner
    # `where` keeps the division out of derivatives too.
    way = jnp.where(divisor == 0, 0.0, s / jnp.where(divisor == 0, 1.0, divisor))
    return (1 - momentum) * (slots.x0 - way - param), DualAverages(s, squares, slots.x0)


@definition
def scale_by_madgrad(
    learning_rate: Hyperparam, momentum: Decay = 0.9, eps: NonNegative = 1e-6
) -> GradientTransformation:
    """MADGRAD's step, with its learning rate and its minus sign.

    u = (1 − μ) (z − θ), z = θ0 − s / (∛v + ε).

    Args:
      learning_rate: η.
      momentum: μ in [0, 1).
      eps: ε ≥ 0, added to the root and to η.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 12 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.array([1.0]), gradtx.scale_by_madgrad(1.0, momentum=0.75, eps=0.0)
    >>> u, _ = tx.update(jnp.array([8.0]), tx.init(w), w)
    >>> u.round(4).tolist()  # a quarter of −8 / ∛64
    [-0.5]

    Defazio and Jelassi 2021, arXiv 2101.11075, Algorithm 1.
    """
    return leafwise(_init, _madgrad, needs_params=True)


@definition
def madgrad(
    learning_rate: Hyperparam,
    momentum: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    eps: NonNegative = 1e-6,
) -> GradientTransformation:
    r"""MADGRAD: momentumized, adaptive, dual averaged gradient.

    It steps from the first parameters by a weighted sum of all gradients over the cube root of the
    sum of their squares.

    For every array, all of one shape, with l = (η + ε) √t: s ← s + l g, v ← v + l g², z = θ0 − s /
    (∛v + ε), θ ← μ θ + (1 − μ) z. The weights l grow, so that late gradients count more. Weight
    decay is an L2 penalty: g ← g + λ θ.

    When: sparse and dense problems alike where `sgd` generalises better than `adam`. When not:
    fine-tuning and long runs with decay, since every step starts from θ0; little memory, since it
    stores three arrays.

    Args:
      learning_rate: η; tune it anew, since optima of `sgd` and `adam` do not carry over; 1e-4
        to 1e-1.
      momentum: μ in [0, 1); 0.9.
      weight_decay: λ ≥ 0; often 0, less than for `sgd`.
      eps: ε ≥ 0, added to the root and to η, which therefore never is 0; 1e-6.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 12 bytes per parameter (s, v and θ0).

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.array([1.0]), gradtx.madgrad(1.0, momentum=0.0, eps=0.0)
    >>> tx.update(jnp.array([8.0]), tx.init(w), w)[0].round(4).tolist()  # −8 / ∛64
    [-2.0]

    See also: `adagrad`, `scale_by_madgrad`.

    Defazio and Jelassi 2021, arXiv 2101.11075, Algorithm 1; ε added to η as in their code.
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))
