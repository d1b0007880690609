r"""NAdamW: NAdam with weight decay that does not pass through the preconditioner.

u = m̂ / (√(r̂ + ε_root) + ε)       (NAdam's direction)
θ ← θ − η (u + λ θ)
"""

from typing import Unpack

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, NonNegative
from gradtx.engine.selector import Where
from gradtx.optimizers.nadam import direction


@definition
def nadamw(
    learning_rate: NonNegative,
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
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""NAdam, and a pull of every parameter towards zero at its own rate.

    For every array, all of one shape: θ ← θ − η (u + λ θ), with NAdam's u.

    When: as `adamw`; it is a strong baseline across workloads at a tuned learning rate. When not:
    small noisy batches.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-4 to 3e-3, after a warmup.
      b1: β1 in [0, 1), decay of the mean gradient; typically 0.9.
      b2: β2 in [0, 1), decay of the mean square; 0.95 to 0.999.
      eps: ε ≥ 0, beside the root; 1e-8.
      eps_root: ε_root ≥ 0, under the root.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 1e-4 (here) to
        0.1.
      mask: which leaves decay (see `masked`), such as `r"kernel$"`; None: all.
      nesterov: False for plain AdamW.
      momentum_decay: ψ ≥ 0, how fast the weight of the look ahead rises from β1/2 to β1; None: it
        is β1 throughout.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range; `momentum_decay` with `nesterov=False`.
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
    rule = direction(b1, b2, eps, eps_root, mu_dtype, nesterov, momentum_decay)
    return descend(rule, learning_rate, weight_decay, mask, **flags)
