r"""Optimistic Adam, in units of the learning rate: Adam's direction, plus its change.

u = m̂ / (√(r̂ + ε_root) + ε)       Adam's direction
θ ← θ − η (α u + β (u − u_before))       no change at the first step
"""

from typing import Unpack

from gradtx.compose.chain import chain
from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.optimistic_gradient_descent import scale_by_optimistic_gradient
from gradtx.transforms.momentum_kernel import MomentumKernel


@definition
def optimistic_adam_v2(
    learning_rate: Hyperparam,
    *,
    alpha: Hyperparam = 1.0,
    beta: Hyperparam = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""Optimistic Adam, for games and GANs.

    A step assumes that Adam's direction will change again as it changed since the last step.

    For every array, all of one shape: θ ← θ − η (α u + β (u − u_before)), with Adam's u.

    When: GANs and other min-max problems, with a schedule. When not: a plain minimum; take `adam`.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 1e-2.
      alpha: α, weight of the direction; 1.
      beta: β, weight of its change, the optimism; 1.
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

    State: 12 bytes per parameter (m, r and the direction before).

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.optimistic_adam_v2(0.5, b1=0.0, b2=0.0), jnp.array([1.0])
    >>> _, state = tx.update(g, tx.init(g))
    >>> updates, _ = tx.update(-g, state)  # from 1 to -1: the prediction is -3
    >>> round(updates.item(), 4)
    1.5

    See also: `optimistic_adam`, `optimistic_gradient_descent`.

    Daskalakis et al. 2018, arXiv 1711.00141, Algorithm 1, where α = β = 1.
    """
    rule = chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, momentum=momentum),
        scale_by_optimistic_gradient(alpha, beta),
    )
    return descend(rule, learning_rate, **flags)
