r"""Optimistic Adam: Adam's direction, plus its change at a rate of its own.

u = m̂ / (√(r̂ + ε_root) + ε)       Adam's direction
θ ← θ − η u − ω (u − u_before)       no change at the first step

ω is the optimism; where η = 0 nothing moves.
"""

import warnings
from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.optimistic_gradient_descent import Previous, scale_by_optimistic_gradient
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.casts import zeros


def _init(param) -> Previous:
    return Previous(zeros(param))


def _optimistic(grad, slots: Previous, param, step, *, learning_rate, optimism):
    # η multiplies the result: ω u is (ω/η) u here. The inner `where` keeps ω/0 out of derivatives.
    positive = learning_rate > 0
    ratio = jnp.where(positive, optimism / jnp.where(positive, learning_rate, 1), 0)
    return grad + ratio * jnp.where(step > 1, grad - slots.previous, 0), Previous(grad)


@definition
def optimistic_adam(
    learning_rate: Hyperparam,
    optimism: NonNegative | None = None,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""Optimistic Adam, for games and GANs, with a rate of its own for the optimism.

    A step follows Adam's direction, and the change of that direction since the last step.

    For every array, all of one shape: θ ← θ − η u − ω (u − u_before), with Adam's u.

    When: GANs and other min-max problems, where Adam circles. When not: a plain minimum; take
    `adam`. A schedule for η does not change ω; for one schedule of both take `optimistic_adam_v2`.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 1e-2.
      optimism: ω ≥ 0, in the same units; None: η.
      b1: β1 in [0, 1), decay of Adam's m; 0.5 to 0.9.
      b2: β2 in [0, 1), decay of Adam's r; 0.9 to 0.999.
      eps: ε ≥ 0, added to the root; 1e-8.
      eps_root: ε_root ≥ 0, under the root.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      nesterov: NAdam's m̂, as Optax; the paper has Adam's.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `weight_decay`, `mask`, `decay_form`, `huber_delta`, `cautious`,
        `peak_learning_rate` and `axis_names`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    Warns:
      DeprecationWarning: always, as Optax: `optimistic_adam_v2` has one schedule for both rates.

    State: 12 bytes per parameter (m, r and the direction before).

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.optimistic_adam(0.5, optimism=2.0, b1=0.0, b2=0.0), jnp.array([1.0])
    >>> _, state = tx.update(g, tx.init(g))
    >>> updates, _ = tx.update(-g, state)  # the direction turns from 1 to -1
    >>> round(updates.item(), 4)  # 0.5 back, and 2 times 2
    4.5

    See also: `optimistic_adam_v2`, `optimistic_gradient_descent`.

    Daskalakis et al. 2018, arXiv 1711.00141, Algorithm 1, where ω = η.
    """
    warnings.warn(
        "optimistic_adam: a schedule of the learning rate leaves the optimism as it is; "
        "use `optimistic_adam_v2` instead",
        DeprecationWarning,
        stacklevel=2,
    )
    if optimism is None:
        optimistic = scale_by_optimistic_gradient()
    else:
        optimistic = leafwise(_init, _optimistic)
    adam = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, momentum=momentum)
    # One name for both, so that a checkpoint does not depend on `optimism`.
    rule = chain(scale_by_adam=adam, scale_by_optimistic_gradient=optimistic)
    return descend(rule, learning_rate, **flags)
