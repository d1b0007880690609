r"""Grams: Adam gives the size of a step, the gradient of this step gives the sign.

u = sign(g) |m̂ / (√(r̂ + ε_root) + ε)|       m̂, r̂ as in Adam
θ ← θ − η (u + λ θ)
"""

from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import Moments, average, debias, init_moments
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt


def _grams(grad, slots: Moments, param, step, *, b1, b2, eps, eps_root):
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, abs_sq(grad), b2)
    size = jnp.abs(debias(mu, b1, step)) / (sqrt(debias(nu, b2, step) + eps_root) + eps)
    return jnp.sign(grad) * size, Moments(mu, nu)


@definition
def scale_by_grams(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """Grams' direction: u = sign(g) |u_Adam|.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter; 6 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_grams()
    >>> _, state = tx.update(jnp.array([5.0]), tx.init(jnp.zeros(1)))
    >>> tx.update(jnp.array([-1.0]), state)[0].item() < 0  # the momentum still points up
    True

    Cao, Li and Song 2024, arXiv 2412.17107, Algorithm 1.
    """
    return momentwise(init_moments, _grams, momentum)


@definition
def grams(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Grams: Adam's step size with the sign of the current gradient.

    No coordinate steps against the gradient of this step.

    For every array, all of one shape: θ ← θ − η (sign(g) |u| + λ θ), with Adam's u.

    When: for fine-tuning and pretraining where momentum overshoots. Adam with `cautious=True` does
    not move where momentum and gradient disagree; Grams follows the gradient there. When not: for
    small noisy batches; the sign of one gradient says little.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 1e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.95 to 0.999.
      eps: ε ≥ 0, outside the root; 1e-8.
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
    >>> def second(tx):  # the gradient turns round
    ...     _, state = tx.update(jnp.array([1.0]), tx.init(w), w)
    ...     return round(tx.update(jnp.array([-0.5]), state, w)[0].item(), 3)
    >>> second(gradtx.adamw(1.0, weight_decay=0.0)), second(gradtx.grams(1.0))
    (-0.266, 0.266)

    See also: `adamw`, `cautious_mask`.

    Cao, Li and Song 2024, arXiv 2412.17107, Algorithm 1.
    """
    return descend(
        scale_by_grams(b1, b2, eps, eps_root, mu_dtype, momentum=momentum),
        learning_rate,
        weight_decay,
        mask,
        **flags,
    )
