r"""MARS: a gradient correction for variance reduction, followed by Adam.

c = g + γ β1/(1 − β1) (g − g_prev)        the correction; g_prev is the gradient of the step before,
                                          g − g_prev = 0 at t = 1
c ← c / max(1, ‖c‖)                       per array
u = Adam's direction of c                 matrices; vectors take Adam's direction of g, with decays
                                          of their own
θ ← θ − η (u + λ θ)

The two parts are independent: `mars_correction` fits in front of any rule. In front of the sign of
an average it makes the paper's MARS-Lion, `chain(mars_correction(), ema(0.95), scale_by_sign())`.
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.select import partition
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, Limit, NonNegative, Params
from gradtx.engine.selector import PerLeaf, Where
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.clipping import shrink
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import norm
from gradtx.tree.casts import zeros
from gradtx.tree.paths import flatten


class Previous(NamedTuple):
    """The gradient of the step before."""

    grad: jax.Array


def _init(param) -> Previous:
    return Previous(zeros(param))


def _mars_correction(grad, slots: Previous, param, step, *, b1, gamma, max_norm, from_zero: bool):
    weight = gamma * b1 / (1 - b1)
    if not from_zero:
        # There is no gradient before the first one.
        weight = jnp.where(step > 1, weight, 0.0)
    # c / (1 + 2w), at most as large as the larger gradient: c itself may overflow.
    share = weight / (1 + 2 * weight)
    corrected = (1 - share) * grad - share * slots.grad
    size = 1 + 2 * weight
    return shrink(size * norm(corrected), max_norm) * size * corrected, Previous(grad)


@definition
def mars_correction(
    b1: Decay = 0.95,
    gamma: NonNegative = 0.025,
    max_norm: Limit = 1.0,
    *,
    from_zero: bool = False,
) -> GradientTransformation:
    """MARS's variance reduction: add a multiple of the gradient's change, then clip every array.

    c = g + γ β1/(1 − β1) (g − g_prev), c ← c min(1, k/‖c‖). g, c and g_prev have one shape. g_prev
    is the gradient of the step before, of another batch: the paper's cheap form.

    Args:
      b1: β1 in [0, 1), decay of the momentum of the next rule.
      gamma: γ ≥ 0; 0 leaves only the bound.
      max_norm: k ≥ 0, the largest norm of an array of c.
      from_zero: whether the first gradient counts as a change from 0, as in PyTorch code; otherwise
        as none, as in the paper.

    Raises:
      HyperparamError: a number out of its range.

    State: 4 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.mars_correction(b1=0.5, gamma=0.5)
    >>> _, state = tx.update(jnp.array([0.1]), tx.init(jnp.zeros(1)))
    >>> c, _ = tx.update(jnp.array([0.3]), state)  # 0.3 + 0.5 (0.3 − 0.1)
    >>> round(c.item(), 4)
    0.4

    Yuan et al. 2024, arXiv 2411.10438, Algorithm 1.
    """
    return leafwise(_init, _mars_correction)


def _by_rank(params: Params) -> PerLeaf:
    """Label the parameters: "matrices" from two axes on, "vectors" below."""
    return PerLeaf(
        None if param is None else "matrices" if jnp.ndim(param) >= 2 else "vectors"
        for param in flatten(params)[0]
    )


@definition
def scale_by_mars(
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    gamma: NonNegative = 0.025,
    eps: NonNegative = 1e-8,
    max_norm: Limit = 1.0,
    *,
    vector_b1: Decay = 0.9,
    vector_b2: Decay = 0.95,
    from_zero: bool = False,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """MARS's direction: Adam's direction of the corrected gradient.

    Arrays of fewer than two axes take Adam's direction of the gradient itself.

    Args:
      b1: β1 in [0, 1), decay of the mean, and in the correction.
      b2: β2 in [0, 1), decay of the mean square.
      gamma: γ ≥ 0, the strength of the correction.
      eps: ε ≥ 0, added to the root.
      max_norm: the largest norm of an array of corrected gradients.
      vector_b1: β1 for arrays of one axis or none.
      vector_b2: β2 for these.
      from_zero: whether the first gradient counts as a change from 0.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number out of its range.

    State: 12 bytes per parameter of a matrix, 8 of a vector.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"bias": jnp.zeros(2), "kernel": jnp.zeros((2, 2))}
    >>> slots = gradtx.scale_by_mars().init(params).slots
    >>> list(slots), slots["matrices"]["mars_correction"].grad["bias"]
    (['matrices', 'vectors'], None)

    Yuan et al. 2024, arXiv 2411.10438, Algorithm 2.
    """
    matrices = chain(
        mars_correction(b1, gamma, max_norm, from_zero=from_zero),
        scale_by_adam(b1, b2, eps, momentum=momentum),
    )
    return partition(
        {
            "matrices": matrices,
            "vectors": scale_by_adam(vector_b1, vector_b2, eps, momentum=momentum),
        },
        _by_rank,
    )


@definition
def mars(
    learning_rate: Hyperparam,
    b1: Decay = 0.95,
    b2: Decay = 0.99,
    gamma: NonNegative = 0.025,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    max_norm: Limit = 1.0,
    vector_b1: Decay = 0.9,
    vector_b2: Decay = 0.95,
    from_zero: bool = False,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""MARS: AdamW with variance-reduced gradients.

    The change of the gradient from step to step reduces its noise. For every matrix, all of
    one shape: c = g + γ β1/(1 − β1) (g − g_prev), c ← c min(1, k/‖c‖), m ← β1 m + (1 − β1) c, r ←
    β2 r + (1 − β2) c², θ ← θ − η (m̂ / (√r̂ + ε) + λ θ), with m̂ = m/(1 − β1^t) and r̂ = r/(1 −
    β2^t). Arrays of fewer than two axes take AdamW's step, c = g, with decays of their own.

    When: pretraining of language models, in AdamW's place. When not: memory is short, because
    g_prev is one more array. Embeddings are matrices here; `partition` can give them to `adamw`.

    Args:
      learning_rate: η, parameter units per step; 1e-3 to 6e-3.
      b1: β1 in [0, 1), decay of m, and in the correction; typically 0.95.
      b2: β2 in [0, 1), decay of r; typically 0.99.
      gamma: γ ≥ 0, the strength of the correction; 0.01 to 0.05; 0: AdamW with a bound on the
        gradient.
      eps: ε ≥ 0, added to the root; 1e-8.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0 (here) to 0.1.
      mask: which leaves decay (see `masked`); None: all.
      max_norm: k ≥ 0, the largest norm of an array of c; 1.
      vector_b1: β1 for arrays of fewer than two axes; 0.9.
      vector_b2: β2 for these; 0.95.
      from_zero: whether the first gradient counts as a change from 0, as in PyTorch code; otherwise
        as none, as in the paper.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 12 bytes per parameter of a matrix (g_prev, m and r), 8 of a vector.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.zeros((1, 2))
    >>> tx = gradtx.mars(0.1)
    >>> # A first step of 0.1 for every gradient.
    >>> updates, _ = tx.update(jnp.array([[0.01, -0.5]]), tx.init(w), w)
    >>> [round(u, 4) for u in updates[0].tolist()]
    [-0.1, 0.1]

    See also: `adamw`, `mars_correction`.

    Yuan et al. 2024, arXiv 2411.10438, Algorithm 2.
    """
    rule = scale_by_mars(
        b1,
        b2,
        gamma,
        eps,
        max_norm,
        vector_b1=vector_b1,
        vector_b2=vector_b2,
        from_zero=from_zero,
        momentum=momentum,
    )
    return descend(rule, learning_rate, weight_decay, mask, **flags)
