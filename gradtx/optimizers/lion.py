r"""Lion: the sign of an average of gradients.

    c = β1 m + (1 − β1) g
    m ← β2 m + (1 − β2) g
    θ ← θ − η (sign(c) + λ θ)

`scale_by_lion` has two softer forms in place of the sign: tanh(k c), and c clipped to [−1, 1].
"""

from typing import Literal, Unpack

import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import Momentum, average, init_momentum, mean_of
from gradtx.transforms.momentum_kernel import MomentumKernel

Mode = Literal["hard", "smooth", "refined"]


def _lion(grad, slots: Momentum, param, step, *, b1, b2, smooth_beta, mode: Mode):
    # Of the old m: β1 for the step, β2 for the memory.
    blend = average(mean_of(slots.mu), grad, b1)
    if mode == "hard":
        direction = jnp.sign(blend)
    elif mode == "smooth":
        direction = jnp.tanh(smooth_beta * blend)
    else:
        direction = jnp.clip(blend, -1, 1)
    return direction, Momentum(average(slots.mu, grad, b2))


@definition
def scale_by_lion(
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: DTypeLike | None = None,
    *,
    mode: Mode = "hard",
    smooth_beta: NonNegative = 1.0,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """Lion's direction: u = sign(β1 m + (1 − β1) g), then m ← β2 m + (1 − β2) g.

    Args:
      b1: β1 in [0, 1), weight of the past in the direction.
      b2: β2 in [0, 1), decay of m.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      mode: "hard" for the sign, "smooth" for tanh(k c), "refined" for c clipped to [−1, 1].
      smooth_beta: k ≥ 0, used by "smooth" alone.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      GradtxError: `mode` has another value.
      StructureError: a leaf is complex and `mode` is "refined"; complex numbers have no order.

    State: 4 bytes per parameter; 2 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_lion()
    >>> tx.update(jnp.array([-1e-9, 0.0, 1e9]), tx.init(jnp.zeros(3)))[0].tolist()
    [-1.0, 0.0, 1.0]

    Chen et al. 2023, arXiv 2302.06675, Algorithm 2.
    """
    return momentwise(init_momentum, _lion, momentum, real_only=mode == "refined")


@definition
def lion(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 1e-3,
    mask: Where | None = None,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Lion: sign of momentum, with decoupled weight decay.

    Every coordinate takes a step of the same size.

    For every array, all of one shape: θ ← θ − η (sign(β1 m + (1 − β1) g) + λ θ), m ← β2 m + (1 −
    β2) g.

    When: for large batches and long runs, in half of Adam's memory. The paper takes η 3 to 10 times
    smaller than AdamW's, and λ larger by the same factor. When not: for small batches; the sign is
    then mostly noise.

    Args:
      learning_rate: η, parameter units per step; the sign moves every coordinate by η, the
        decay adds η λ θ; 1e-5 to 3e-4.
      b1: β1 in [0, 1), weight of the past in the direction; typically 0.9.
      b2: β2 in [0, 1), decay of m; typically 0.99.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 1e-3 (here) to 1.
      mask: the leaves that decay (see `masked`); None: all.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (m).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.zeros(2)
    >>> tx = gradtx.lion(0.25)
    >>> updates, _ = tx.update(jnp.array([1e-6, -1e6]), tx.init(w), w)
    >>> updates.tolist()  # the size of the gradient does not matter
    [-0.25, 0.25]

    See also: `adamw`, `scale_by_lion`.

    Chen et al. 2023, arXiv 2302.06675, Algorithm 2.
    """
    return descend(
        scale_by_lion(b1, b2, mu_dtype, momentum=momentum),
        learning_rate,
        weight_decay,
        mask,
        **flags,
    )
