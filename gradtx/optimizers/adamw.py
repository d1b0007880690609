r"""AdamW: Adam with weight decay that does not pass through the preconditioner.

u = m̂ / (√(r̂ + ε_root) + ε)       (Adam's direction)
θ ← θ − η (u + λ θ)
"""

from typing import Unpack

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.momentum_kernel import MomentumKernel


@definition
def adamw(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 1e-4,
    mask: Where | None = None,
    *,
    nesterov: bool = False,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Adam with decoupled weight decay.

    For every array, all of one shape: θ ← θ − η (u + λ θ), with Adam's u.

    When: for transformers, and for most networks trained from scratch. When not: for a short
    fine-tuning; weight decay would undo the pretraining (set it to 0).

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 3e-3, after a warmup.
      b1: β1 in [0, 1), decay of the mean gradient; typically 0.9.
      b2: β2 in [0, 1), decay of the mean square; 0.95 to 0.999.
      eps: ε ≥ 0, outside the root; 1e-8.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 1e-4 (the default
        here and in Optax) to 0.1 (language models). For the default of PyTorch's AdamW set 0.01.
      mask: the leaves that decay, for example `r"kernel$"` (see `masked`); None: all.
      nesterov: use NAdam's m̂.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([10.0])
    >>> tx = gradtx.adamw(0.1, weight_decay=0.5)
    >>> updates, _ = tx.update(jnp.array([0.0]), tx.init(w), w)
    >>> updates.tolist()  # no gradient: only the decay, 0.1 * 0.5 * 10
    [-0.5]

    See also: `adam`, `add_decayed_weights`.

    Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2.
    """
    return descend(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, momentum=momentum),
        learning_rate,
        weight_decay,
        mask,
        **flags,
    )
