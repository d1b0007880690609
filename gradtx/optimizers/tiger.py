r"""Tiger: Lion with one average in place of two.

m ← β m + (1 − β) g
θ ← θ − η (sign(m) + λ θ)
"""

from typing import Unpack

from gradtx.compose.chain import chain
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.momentum import ema
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.transforms.signs import scale_by_sign


@definition
def scale_by_tiger(
    b1: Decay = 0.965,
    mu_dtype: DTypeLike | None = None,
    *,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """Tiger's direction: m ← β m + (1 − β) g, u = sign(m).

    Args:
      b1: β in [0, 1), decay of m.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 4 bytes per parameter; 2 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_tiger()
    >>> tx.update(jnp.array([-1e-9, 0.0, 1e9]), tx.init(jnp.zeros(3)))[0].tolist()
    [-1.0, 0.0, 1.0]

    Su 2023, Tiger: A Tight-fisted Optimizer, github.com/bojone/tiger.
    """
    return chain(
        ema(b1, debias=False, accumulator_dtype=mu_dtype, momentum=momentum), scale_by_sign()
    )


@definition
def tiger(
    learning_rate: Hyperparam,
    b1: Decay = 0.965,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 0.01,
    mask: Where | None = None,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Tiger: sign of an average (EMA) of gradients, with decoupled weight decay.

    Tiger is Lion with β1 = β2 = β.

    For every array, all of one shape: m ← β m + (1 − β) g, θ ← θ − η (sign(m) + λ θ).

    When: as `lion`, with one number less to tune; m itself can accumulate gradients. When not: for
    small batches; the sign is then mostly noise.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 1e-3.
      b1: β in [0, 1), decay of m; 0.945 to 0.965.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate.
      mask: the leaves that decay (see `masked`); None: all.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (m).

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.array([1.0, -2.0]), jnp.array([1e-6, 1e6])
    >>> tiger = gradtx.tiger(0.25, b1=0.9)
    >>> lion = gradtx.lion(0.25, b1=0.9, b2=0.9, weight_decay=0.01)
    >>> tiger.update(g, tiger.init(w), w)[0].tolist() == lion.update(g, lion.init(w), w)[0].tolist()
    True

    See also: `lion`, `signum`.

    Su 2023, Tiger: A Tight-fisted Optimizer, github.com/bojone/tiger.
    """
    return descend(
        scale_by_tiger(b1, mu_dtype, momentum=momentum), learning_rate, weight_decay, mask, **flags
    )
