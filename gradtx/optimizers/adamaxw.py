r"""AdaMaxW: AdaMax with weight decay that does not pass through the preconditioner.

u = m̂ / r                         (AdaMax's direction)
θ ← θ − η (u + λ θ)
"""

from typing import Unpack

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.optimizers.adamax import scale_by_adamax
from gradtx.transforms.momentum_kernel import MomentumKernel


@definition
def adamaxw(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
    mask: Where | None = None,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""AdaMax with decoupled weight decay.

    For every array, all of one shape: θ ← θ − η (u + λ θ), with AdaMax's u.

    When: as `adamax`, with weight decay to regularise. When not: for most networks; they train
    better with `adamw`.

    Args:
      learning_rate: η, parameter units per step; typically 2e-3.
      b1: β1 in [0, 1), decay of the mean gradient; typically 0.9.
      b2: β2 in [0, 1), decay of the largest gradient; typically 0.999.
      eps: ε ≥ 0, added to every |g|; 1e-8.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 1e-4 (here) to
        0.1.
      mask: the leaves that decay, for example `r"kernel$"` (see `masked`); None: all.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([10.0])
    >>> tx = gradtx.adamaxw(0.1, weight_decay=0.5)
    >>> updates, _ = tx.update(jnp.array([0.0]), tx.init(w), w)
    >>> updates.tolist()  # no gradient: only the decay, 0.1 * 0.5 * 10
    [-0.5]

    See also: `adamax`, `adamw`.

    Kingma and Ba 2015, arXiv 1412.6980, Algorithm 2; Loshchilov and Hutter 2019, arXiv 1711.05101,
    for the decay."""
    return descend(
        scale_by_adamax(b1, b2, eps, momentum=momentum), learning_rate, weight_decay, mask, **flags
    )
