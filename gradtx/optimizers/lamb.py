r"""LAMB: Adam's direction with weight decay, scaled to the norm of its array.

u = m̂ / (√(r̂ + ε_root) + ε) + λ θ       (Adam's direction, and decay)
θ ← θ − η ‖θ‖ / ‖u‖ u                    norms per array
"""

from typing import Unpack

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.transforms.trust import scale_by_trust_ratio


@definition
def lamb(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""LAMB: AdamW with a trust ratio per layer, for large batches.

    Every step is a fraction of the norm of its array.

    For every array, all of one shape, with its own norms: u = m̂ / (√(r̂ + ε_root) + ε) + λ θ, θ ←
    θ − η ‖θ‖ / ‖u‖ u.

    When: for transformers with batches of thousands of sequences, where `adamw` needs a lower
    learning rate. When not: for small batches; LAMB has no advantage there.

    Args:
      learning_rate: η, a fraction of the parameter per step; 1e-3 to 1e-2, after a warmup.
      b1: β1 in [0, 1), decay of the mean gradient; typically 0.9.
      b2: β2 in [0, 1), decay of the mean square; typically 0.999.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root.
      weight_decay: λ ≥ 0, added before the norms are computed; 0.01.
      mask: the leaves that decay (see `masked`); None: all.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.array([30.0, 40.0]), gradtx.lamb(0.1)
    >>> u, _ = tx.update(jnp.array([1.0, -7.0]), tx.init(w), w)  # a tenth of ‖w‖ = 50
    >>> round(jnp.linalg.norm(u).item(), 4)
    5.0

    See also: `lars`, `adamw`, `scale_by_trust_ratio`.

    You et al. 2020, arXiv 1904.00962, Algorithm 2.
    """
    rule = scale_by_adam(b1, b2, eps, eps_root, momentum=momentum)
    return descend(rule, learning_rate, weight_decay, mask, last=scale_by_trust_ratio(), **flags)
