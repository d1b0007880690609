r"""ADOPT: divide the gradient by the root mean square of those before it, then take momentum.

    t = 1:  v = g²,  u = 0
    t > 1:  c = g / max(√v, ε), clipped to [−k, k],  k = (t − 1)^¼
            m ← β1 m + (1 − β1) c,   u = m
            v ← β2 v + (1 − β2) g²
    θ ← θ − η u

With Nesterov u = β1 m + (1 − β1) c. The gradient and the average that divides it are independent,
so ADOPT converges for every β2.
"""

from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.schedule import schedule
from gradtx.definition.types import Array, Decay, DTypeLike, Hyperparam, Limit, NonNegative
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import Moments, average, init_moments, plain_mean, where_moment
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt


@schedule
def fourth_root(count: Array) -> Array:
    """The paper's clipping bound k = (t − 1)^¼.

    t − 1 is the number of updates so far.
    """
    return sqrt(sqrt(jnp.asarray(count, jnp.result_type(float))))


BOUND = fourth_root()
"""The default of k."""


def _adopt(
    grad,
    slots: Moments,
    param,
    step,
    *,
    b1,
    b2,
    eps,
    clip_value_fn,
    use_clipping: bool,
    nesterov: bool,
):
    first, square = step == 1, abs_sq(grad)
    # At the first step v is 0, and with ε = 0 the quotient is not finite: 1 is safe to divide by.
    scaled = grad / jnp.maximum(sqrt(jnp.where(first, 1.0, slots.nu)), eps)
    if use_clipping:
        scaled = jnp.clip(scaled, -clip_value_fn, clip_value_fn)
    mu = where_moment(first, slots.mu, average(slots.mu, scaled, b1))
    direction = plain_mean(mu, scaled, b1, nesterov)
    # v takes this gradient in after the division: that makes the two independent.
    nu = jnp.where(first, square, average(slots.nu, square, b2))
    return jnp.where(first, 0 * grad, direction), Moments(mu, nu)


@definition
def scale_by_adopt(
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Limit = BOUND,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """ADOPT's direction: u = m, the average of g / max(√v, ε).

    v is an average of g² up to the step before.

    Args:
      b1: β1 in [0, 1), decay of the average of scaled gradients.
      b2: β2 in [0, 1), decay of v.
      eps: ε ≥ 0, the least divisor; at 0, a gradient that was always zero divides by zero.
      mu_dtype: dtype of the average; None: the parameter's, at least float32.
      nesterov: look ahead by one more step of the average.
      use_clipping: clip scaled gradients to [−k, k].
      clip_value_fn: k: a number, a schedule or a function of the number of updates so far; the
        paper's is count^¼.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.
      StructureError: a leaf is complex and `use_clipping` is True; complex numbers have no order.

    State: 8 bytes per parameter; 6 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_adopt()
    >>> state, directions = tx.init(jnp.zeros(1)), []
    >>> for g in (2.0, 1.0, 8.0):  # nothing; (1 − β1) 1/2; 8/2 clipped to 2^¼ = 1.19
    ...     u, state = tx.update(jnp.array([g]), state)
    ...     directions.append(round(u.item(), 3))
    >>> directions
    [0.0, 0.05, 0.164]

    Taniguchi et al. 2024, arXiv 2411.02853.
    """
    return momentwise(init_moments, _adopt, momentum, real_only=use_clipping)


@definition
def adopt(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Limit = BOUND,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""ADOPT: Adam that converges for every β2.

    The average that divides a gradient does not contain that gradient.

    For every array, all of one shape: c = g / max(√v, ε) clipped to [−k, k], m ← β1 m + (1 − β1) c,
    θ ← θ − η m, and only then v ← β2 v + (1 − β2) g². The first step sets v = g² and does not move
    the parameters.

    When: in place of Adam, with the same learning rate, where training is unstable or β2 is hard to
    choose. When not: for very few steps; the first one does not move the parameters.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 3e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of v; typically 0.9999.
      eps: ε ≥ 0, the least divisor; 1e-6.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      nesterov: look ahead by one more step of m.
      use_clipping: clip c to [−k, k]; without clipping, one small first gradient causes a huge
        second step.
      clip_value_fn: k: a number, a schedule or a function of the number of updates so far; the
        paper's is count^¼.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `weight_decay`, `mask`, `decay_form`, `huber_delta`, `cautious`,
        `peak_learning_rate` and `axis_names`; see `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      StructureError: a leaf is complex and `use_clipping` is True; complex numbers have no order.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 8 bytes per parameter (m and v).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.adopt(0.1, b1=0.0)
    >>> _, state = tx.update(jnp.array([1e-3, 1e3]), tx.init(jnp.zeros(2)))
    >>> updates, _ = tx.update(jnp.array([1e-3, 1e3]), state)
    >>> [round(u, 4) for u in updates.tolist()]  # a step of 0.1 at any scale of the gradient
    [-0.1, -0.1]

    See also: `adam`, `scale_by_adopt`.

    Taniguchi et al. 2024, arXiv 2411.02853.
    """
    rule = scale_by_adopt(
        b1,
        b2,
        eps,
        mu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        clip_value_fn=clip_value_fn,
        momentum=momentum,
    )
    return descend(rule, learning_rate, **flags)
