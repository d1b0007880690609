r"""NAdamW: NAdam with weight decay that does not pass through the preconditioner.

u = m̂ / (√(r̂ + ε_root) + ε)       (NAdam's direction)
θ ← θ − η (u + λ θ)
"""

from typing import Unpack

from gradtx.compose.descend import StepFlags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.optimizers.nadam import nadam
from gradtx.transforms.momentum_kernel import MomentumKernel


@definition
def nadamw(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 1e-4,
    mask: Where | None = None,
    *,
    nesterov: bool = True,
    momentum_decay: NonNegative | None = None,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""NAdam with decoupled weight decay.

    For every array, all of one shape: θ ← θ − η (u + λ θ), with NAdam's u.

    When: as `adamw`; with a tuned learning rate it is a strong baseline across workloads. When not:
    for small noisy batches.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 3e-3, after a warmup.
      b1: β1 in [0, 1), decay of the mean gradient; typically 0.9.
      b2: β2 in [0, 1), decay of the mean square; 0.95 to 0.999.
      eps: ε ≥ 0, outside the root; 1e-8.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 1e-4 (here) to
        0.1.
      mask: the leaves that decay, for example `r"kernel$"` (see `masked`); None: all.
      nesterov: False gives plain AdamW.
      momentum_decay: ψ ≥ 0, the speed at which the weight of the look-ahead rises from β1/2 to β1;
        None: the weight is always β1.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range, or `momentum_decay` comes with
        `nesterov=False`.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and r); with `momentum_decay` 4 more for every array.

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.array([2.0]), jnp.array([0.5])
    >>> one, other = gradtx.nadamw(0.1), gradtx.adamw(0.1, nesterov=True)
    >>> one.update(g, one.init(w), w)[0] == other.update(g, other.init(w), w)[0]
    Array([ True], dtype=bool)

    See also: `nadam`, `adamw`.

    Dozat 2016, ICLR workshop, Incorporating Nesterov momentum into Adam; Loshchilov and Hutter
    2019, arXiv 1711.05101, for the decay."""
    return nadam(
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        nesterov=nesterov,
        momentum_decay=momentum_decay,
        weight_decay=weight_decay,
        mask=mask,
        momentum=momentum,
        **flags,
    )
