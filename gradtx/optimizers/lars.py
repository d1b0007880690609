r"""LARS: momentum on gradients that are scaled by the norm of their array.

d = g + λ θ
u = c ‖θ‖ / (‖d‖ + ε) d           norms per array
Δ ← μ Δ − η u,  θ ← θ + Δ
"""

from typing import Unpack

from gradtx.compose.chain import chain
from gradtx.compose.descend import add_decayed_weights, scale_by_learning_rate
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.select import masked
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Fraction, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.momentum import trace
from gradtx.transforms.trust import scale_by_trust_ratio


@definition
def lars(
    learning_rate: Hyperparam,
    weight_decay: NonNegative = 0.0,
    weight_decay_mask: Where | None = True,
    trust_coefficient: NonNegative = 0.001,
    eps: NonNegative = 0.0,
    trust_ratio_mask: Where | None = True,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""LARS: SGD with momentum and layer-wise adaptive learning rates, for large batches.

    Every array has a learning rate of its own, in proportion to the norm of the array over that of
    its gradient.

    For every array, all of one shape: d = g + λ θ, Δ ← μ Δ − η c ‖θ‖ / (‖d‖ + ε) d, θ ← θ + Δ.

    When: convolutional networks with batches of 4096 and more. When not: small batches; biases and
    norms, which the masks should exclude; attention, for which `lamb` is designed.

    Args:
      learning_rate: η, without unit; 1 to 30 with c = 1e-3, after a warmup.
      weight_decay: λ ≥ 0, in the gradient, so before the norms are taken; 1e-4.
      weight_decay_mask: which leaves decay (see `masked`); True or None: all.
      trust_coefficient: c ≥ 0; 1e-3.
      eps: ε ≥ 0, added to ‖d‖.
      trust_ratio_mask: which leaves are scaled by c ‖θ‖ / (‖d‖ + ε); True or None: all.
      momentum: μ in [0, 1]; 0.9.
      nesterov: look ahead by one more step of momentum.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (Δ).

    >>> import gradtx, jax.numpy as jnp
    >>> w, tx = jnp.array([3.0, 4.0]), gradtx.lars(1.0, trust_coefficient=0.5)
    >>> u, _ = tx.update(jnp.array([1e9, 0.0]), tx.init(w), w)
    >>> u.tolist()  # half of ‖w‖ = 5, whatever the gradient
    [-2.5, 0.0]

    See also: `lamb`, `scale_by_trust_ratio`.

    You, Gitman and Ginsburg 2017, arXiv 1708.03888, Algorithm 1.
    """
    trust = scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps)
    if trust_ratio_mask is not None and trust_ratio_mask is not True:
        trust = masked(trust, trust_ratio_mask)
    return apply_axis_flags(
        chain(
            # The norms below see the decay: it goes first.
            add_decayed_weights(
                weight_decay, None if weight_decay_mask is True else weight_decay_mask
            ),
            trust,
            # Δ holds η, as in the paper: the learning rate comes before the momentum.
            scale_by_learning_rate(learning_rate),
            trace(momentum, nesterov),
        ),
        flags,
    )
