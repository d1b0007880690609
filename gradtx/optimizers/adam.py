r"""Adam: an average of gradients over the root of an average of squared gradients.

    m ← β1 m + (1 − β1) g             m̂ = m / (1 − β1^t)
    r ← β2 r + (1 − β2) g²            r̂ = r / (1 − β2^t)
    u = m̂ / (√(r̂ + ε_root) + ε)
    θ ← θ − η u

With Nesterov (NAdam) m̂ = β1 m / (1 − β1^(t+1)) + (1 − β1) g / (1 − β1^t).
"""

from typing import Unpack

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import Moments, average, corrected_mean, debias, init_moments
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt


def _adam(grad, slots: Moments, param, step, *, b1, b2, eps, eps_root, nesterov: bool):
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, abs_sq(grad), b2)
    mean, mean_square = corrected_mean(mu, grad, b1, step, nesterov), debias(nu, b2, step)
    # √ has no derivative at 0: eps_root is inside, for those who differentiate through the step.
    return mean / (sqrt(mean_square + eps_root) + eps), Moments(mu, nu)


@definition
def scale_by_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """Adam's direction: u = m̂ / (√(r̂ + ε_root) + ε).

    m̂ and r̂ are bias-corrected averages of g and g².

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root; > 0 makes the direction differentiable at g = 0.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      nesterov: use NAdam's m̂.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter; 6 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_adam(eps=0.0)
    >>> u, _ = tx.update(jnp.array([1e-12, -1e6]), tx.init(jnp.zeros(2)))
    >>> [round(x, 5) for x in u.tolist()]  # the first step is the sign of the gradient
    [1.0, -1.0]

    Kingma and Ba 2015, arXiv 1412.6980, Algorithm 1; Nesterov: Dozat 2016, ICLR workshop,
    Incorporating Nesterov momentum into Adam."""
    return momentwise(init_moments, _adam, momentum)


@definition
def adam(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""Adam: momentum and a step size per coordinate, with bias correction.

    For every array, all of one shape: m ← β1 m + (1 − β1) g, r ← β2 r + (1 − β2) g²,
    θ ← θ − η m̂ / (√(r̂ + ε_root) + ε), with m̂ = m/(1 − β1^t) and r̂ = r/(1 − β2^t).

    When: as the default for networks whose conditioning is unknown; a step has size about η at any
    scale of the gradient. When not: for weight decay take `adamw`; for little memory take `lion` or
    `sgd`.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 3e-3.
      b1: β1 in [0, 1), decay of m, which spans about 1/(1 − β1) steps; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.95 (large batches) to 0.999.
      eps: ε ≥ 0, outside the root; steps shrink where √r̂ is smaller; 1e-8.
      eps_root: ε_root ≥ 0, inside the root; about 1e-15 to differentiate through the step.
      mu_dtype: dtype of m; None: the parameter's, at least float32; bfloat16 saves 2 bytes per
        parameter.
      nesterov: use NAdam's m̂.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `weight_decay`, `mask`, `decay_form`, `huber_delta`, `cautious`,
        `peak_learning_rate` and `axis_names`; see `descend`. `weight_decay` is decoupled, as in
        `adamw`; for that of PyTorch's Adam, an L2 penalty, also set `decay_form="l2"`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([0.0, 0.0])
    >>> tx = gradtx.adam(0.1)
    >>> updates, _ = tx.update(jnp.array([1e-3, -1e3]), tx.init(w))
    >>> [round(u, 4) for u in updates.tolist()]  # a first step of 0.1 at any scale of the gradient
    [-0.1, 0.1]

    See also: `adamw`, `rmsprop`, `scale_by_adam`.

    Kingma and Ba 2015, arXiv 1412.6980, Algorithm 1.
    """
    return descend(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, momentum=momentum),
        learning_rate,
        **flags,
    )
