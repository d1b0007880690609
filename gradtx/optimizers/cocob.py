r"""COCOB: every coordinate bets on the sign of its gradient with the money it has won.

L ← max(L, |g|)                   largest gradient, from ε
G ← G + |g|
R ← max(R − (θ − θ0) g, 0)        reward
S ← S − g
θ ← θ0 + S / (L max(G + L, α L)) (L + R)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import add_decayed_weights, scale_by_learning_rate
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam, NonNegative, Precise
from gradtx.engine.selector import Where
from gradtx.tree.casts import float_copy, full, zeros


class Slots(NamedTuple):
    """θ0; the sums of −g and of |g|; the largest |g|; and the reward."""

    init_params: Precise
    grad_sum: jax.Array
    abs_sum: Precise
    scale: Precise
    reward: Precise


def _init(param, *, eps) -> Slots:
    return Slots(float_copy(param), zeros(param), zeros(param), full(param, eps), zeros(param))


def _cocob(grad, slots: Slots, param, step, *, alpha):
    scale, abs_sum = jnp.maximum(slots.scale, jnp.abs(grad)), slots.abs_sum + jnp.abs(grad)
    way = param - slots.init_params
    reward = jnp.maximum(slots.reward - way * grad, 0.0)
    grad_sum = slots.grad_sum - grad
    divisor = scale * jnp.maximum(abs_sum + scale, alpha * scale)
    # With ε = 0 a coordinate without a gradient has no bet. 0 · g keeps a nan in its place.
    bet = grad_sum / jnp.where(divisor > 0, divisor, 1.0) * (scale + reward)
    target = jnp.where(divisor > 0, bet, 0 * grad)
    return target - way, Slots(slots.init_params, grad_sum, abs_sum, scale, reward)


@definition
def scale_by_cocob(alpha: NonNegative = 100.0, eps: NonNegative = 1e-8) -> GradientTransformation:
    """COCOB's step, with its minus sign: u = θ0 + S / (L max(G + L, α L)) (L + R) − θ.

    Args:
      alpha: α ≥ 0; the first steps are no longer than 1/α.
      eps: ε ≥ 0, the least of L.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.
      StructureError: a complex leaf, on which no bet is defined.

    State: 20 bytes per parameter (θ0, S, G, L, R).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.zeros(2)
    >>> tx = gradtx.scale_by_cocob()
    >>> u, _ = tx.update(jnp.array([-1e6, 1e-3]), tx.init(w), w)
    >>> [round(x, 5) for x in u.tolist()]  # a first step of 1/α, whatever the gradient
    [0.01, -0.01]

    Orabona and Tommasi 2017, arXiv 1705.07795, Algorithm 2.
    """
    return leafwise(_init, _cocob, needs_params=True, real_only=True)


@definition
def cocob(
    learning_rate: Hyperparam = 1.0,
    alpha: NonNegative = 100.0,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
) -> GradientTransformation:
    r"""COCOB (COntinuous COin Betting): optimization without a learning rate.

    Every coordinate bets on its next gradient with the money that its earlier bets won.

    For every array, all of one shape, and g ← η (g + λ θ): L ← max(L, |g|), G ← G + |g|, R ← max(R
    − (θ − θ0) g, 0), S ← S − g, θ ← θ0 + S / (L max(G + L, α L)) (L + R).

    When: there is no time to tune anything, and enough memory. When not: memory is short; or the
    noise is large and the end of the run matters, since steps do not shrink as a schedule makes
    them shrink.

    Args:
      learning_rate: η, a factor of the gradient. A number changes nothing, because COCOB does
        not depend on the gradient's scale; a schedule gives gradients unequal weight.
      alpha: α ≥ 0; the first steps are no longer than 1/α; 100.
      eps: ε ≥ 0, the least of L; 1e-8.
      weight_decay: λ ≥ 0, an L2 penalty, part of the gradient; 0 to 1e-3.
      mask: which leaves decay (see `masked`); None: all.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.
      StructureError: a complex leaf, on which no bet is defined.

    State: 20 bytes per parameter (θ0, S, G, L, R).

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.cocob()
    >>> w = jnp.array([3.0, -1.0])
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(300):  # half the squared distance to 0, which is unknown
    ...     updates, state = step(w, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> bool(jnp.linalg.norm(w) < 0.01)
    True

    See also: `scale_by_cocob`, `prodigy`.

    Orabona and Tommasi 2017, arXiv 1705.07795, Algorithm 2.
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )
