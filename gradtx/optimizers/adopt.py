r"""ADOPT: divide the gradient by the root mean square of those before it, then take momentum.

t = 1:  v = g²,  u = 0
t > 1:  c = g / max(√v, ε), held inside [−k, k],  k = (t − 1)^¼
        m ← β1 m + (1 − β1) c,   u = m
        v ← β2 v + (1 − β2) g²
θ ← θ − η u

With Nesterov u = β1 m + (1 − β1) c. The gradient and the average that divides it are independent,
which lets ADOPT converge for every β2.
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.schedule import schedule
from gradtx.definition.types import Array, Decay, DTypeLike, NonNegative
from gradtx.transforms.moments import Moments, average
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_zeros, zeros


@schedule
def fourth_root(count: Array) -> Array:
    """The bound that ADOPT's paper gives: k = (t − 1)^¼, where t − 1 is the count of updates made
    so far.
    """
    return jnp.sqrt(jnp.sqrt(jnp.asarray(count, jnp.result_type(float))))


BOUND = fourth_root()
"""k unless another is given."""


def _init(param: jax.Array, *, mu_dtype: DTypeLike | None) -> Moments:
    return Moments(mu=zeros(param, mu_dtype), nu=real_zeros(param))


def _update(
    grad: jax.Array,
    slots: Moments,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    clip_value_fn: jax.Array,
    use_clipping: bool,
    nesterov: bool,
) -> Any:
    first, square = step == 1, abs_sq(grad)
    scaled = grad / jnp.maximum(jnp.sqrt(jnp.where(first, 1.0, slots.nu)), eps)
    if use_clipping:
        scaled = jnp.clip(scaled, -clip_value_fn, clip_value_fn)
    mu = jnp.where(first, slots.mu, average(slots.mu, scaled, b1))
    direction = average(mu, scaled, b1) if nesterov else mu
    return jnp.where(first, 0 * grad, direction), Moments(
        mu, jnp.where(first, square, average(slots.nu, square, b2))
    )


@definition
def scale_by_adopt(
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: NonNegative = BOUND,
) -> GradientTransformation:
    """ADOPT's direction: u is an average of g / max(√v, ε), where v is an average of g² up to the
    step before.

    Args:
      b1: β1 in [0, 1), decay of the average of scaled gradients.
      b2: β2 in [0, 1), decay of v.
      eps: ε ≥ 0, the least divisor; with 0 a gradient that was always zero divides by zero.
      mu_dtype: dtype of the average; None: the parameter's, float32 at least.
      nesterov: look ahead by one more step of the average.
      use_clipping: whether scaled gradients are held inside [−k, k].
      clip_value_fn: k, a function of the count of updates made so far, a schedule or a number; the
        paper's is count^¼.

    Raises:
      HyperparamError: a number out of its range.
      StructureError: a complex leaf with clipping, for which there is no order.

    State: 8 bytes per parameter; 6 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_adopt()
    >>> state, directions = tx.init(jnp.zeros(1)), []
    >>> for g in (2.0, 1.0, 8.0):  # nothing; (1 − β1) 1/2; then 8/2 is held at 2^¼ = 1.19
    ...     u, state = tx.update(jnp.array([g]), state)
    ...     directions.append(round(u.item(), 3))
    >>> directions
    [0.0, 0.05, 0.164]

    Taniguchi et al. 2024, arXiv 2411.02853.
    """
    return leafwise(
        _init,
        _update,
        b1=b1,
        b2=b2,
        eps=eps,
        clip_value_fn=clip_value_fn,
        mu_dtype=mu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        real_only=use_clipping,
    )


@definition
def adopt(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: NonNegative = BOUND,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""Adam that converges for every β2: each gradient is divided by an average that does not hold
    it.

    For every array, all of one shape: c = g / max(√v, ε) held inside [−k, k], m ← β1 m + (1 − β1)
    c, θ ← θ − η m, and only then v ← β2 v + (1 − β2) g². The first step sets v = g² and moves
    nothing.

    When: in Adam's place, with its learning rate, where training is unstable or β2 hard to choose.
    When not: a handful of steps, of which the first is spent.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-4 to 3e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of v; typically 0.9999.
      eps: ε ≥ 0, the least divisor; 1e-6.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      nesterov: look ahead by one more step of m.
      use_clipping: whether c is held inside [−k, k]; without it one small first gradient makes a
        huge second step.
      clip_value_fn: k, a function of the count of updates made so far, a schedule or a number; the
        paper's is count^¼.
      **flags: `weight_decay`, `mask`, `decay_form`, `cautious` and `peak_learning_rate`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      StructureError: a complex leaf with clipping, for which there is no order.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 8 bytes per parameter (m and v).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.adopt(0.1, b1=0.0)
    >>> _, state = tx.update(jnp.array([1e-3, 1e3]), tx.init(jnp.zeros(2)))
    >>> updates, _ = tx.update(jnp.array([1e-3, 1e3]), state)  # a step of 0.1, whatever the scale of the gradient
    >>> [round(u, 4) for u in updates.tolist()]
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
    )
    return descend(rule, learning_rate, **flags)
