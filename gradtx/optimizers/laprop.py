r"""LaProp: Adam in the other order; it divides first, and averages then.

r ← β2 r + (1 − β2) g²                                  r̂ = r / (1 − β2^t)
m ← β1 m + (1 − β1) g / (√(r̂ + ε_root) + ε)             m̂ = m / (1 − β1^t)
θ ← θ − η (m̂ + λ θ)
"""

from typing import Unpack

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import Moments, average, debias, init_moments
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt


def _laprop(grad, slots: Moments, param, step, *, b1, b2, eps, eps_root):
    nu = average(slots.nu, abs_sq(grad), b2)
    # The average holds divided gradients, which are bounded for every β2, below β1 too.
    mu = average(slots.mu, grad / (sqrt(debias(nu, b2, step) + eps_root) + eps), b1)
    return debias(mu, b1, step), Moments(mu, nu)


@definition
def scale_by_laprop(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-15,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """LaProp's direction: u = m̂, the average of g / (√(r̂ + ε_root) + ε).

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r; it may be below β1.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter; 6 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_laprop(b1=0.5, b2=0.0)
    >>> _, state = tx.update(jnp.array([1e9]), tx.init(jnp.zeros(1)))
    >>> u, _ = tx.update(jnp.array([-1.0]), state)  # an average of signs: (1/4 − 1/2) / (3/4)
    >>> round(u.item(), 4)
    -0.3333

    Ziyin, Wang and Ueda 2020, arXiv 2002.04839, Algorithm 1.
    """
    return momentwise(init_moments, _laprop, momentum)


@definition
def laprop(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-15,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""LaProp: Adam that normalises gradients before it averages them.

    The choice of β2 does not depend on β1.

    For every array, all of one shape: r ← β2 r + (1 − β2) g², m ← β1 m + (1 − β1) g / (√r̂ + ε), θ
    ← θ − η (m̂ + λ θ).

    When: for noisy or shifting gradients, which need a small β2. Adam becomes unstable with β2
    below β1; LaProp does not.
    When not: at the usual β2 = 0.999; LaProp and `adamw` then give similar results.

    The paper has η inside m; with a constant η that is the same.

    Args:
      learning_rate: η, parameter units per step; |m̂| is at most 1/√(1 − β2); 1e-4 to 1e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.9 to 0.999.
      eps: ε ≥ 0, outside the root; 1e-15.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 1e-4 to 0.1.
      mask: the leaves that decay (see `masked`); None: all.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.zeros(1)
    >>> def largest(tx):  # after a spike, with β2 = 0
    ...     _, state = tx.update(jnp.array([1e3]), tx.init(w), w)
    ...     return abs(round(tx.update(jnp.array([1.0]), state, w)[0].item()))
    >>> largest(gradtx.adamw(1.0, b2=0.0, weight_decay=0.0)), largest(gradtx.laprop(1.0, b2=0.0))
    (474, 1)

    See also: `adamw`, `scale_by_laprop`.

    Ziyin, Wang and Ueda 2020, arXiv 2002.04839, Algorithm 1.
    """
    return descend(
        scale_by_laprop(b1, b2, eps, eps_root, mu_dtype, momentum=momentum),
        learning_rate,
        weight_decay,
        mask,
        **flags,
    )
