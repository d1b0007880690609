r"""Grams: Adam says how far, the gradient of this step says which way.

u = sign(g) |m̂ / (√(r̂ + ε_root) + ε)|       m̂, r̂ as in Adam
θ ← θ − η (u + λ θ)
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.moments import Moments, average, debias
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_zeros, zeros


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
    eps_root: jax.Array,
) -> Any:
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, abs_sq(grad), b2)
    size = jnp.abs(debias(mu, b1, step)) / (jnp.sqrt(debias(nu, b2, step) + eps_root) + eps)
    return jnp.sign(grad) * size, Moments(mu, nu)


@definition
def scale_by_grams(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Grams' direction: u = sign(g) |u_Adam|.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, beside the root.
      eps_root: ε_root ≥ 0, under the root.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.

    Raises:
      HyperparamError: a number out of its range.

    State: 8 bytes per parameter; 6 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_grams()
    >>> _, state = tx.update(jnp.array([5.0]), tx.init(jnp.zeros(1)))
    >>> tx.update(jnp.array([-1.0]), state)[0].item() < 0  # the momentum still points up
    True

    Cao, Li and Song 2024, arXiv 2412.17107, Algorithm 1.
    """
    return leafwise(_init, _update, b1=b1, b2=b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype)


@definition
def grams(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Adam that never steps against the gradient it was just given.

    For every array, all of one shape: θ ← θ − η (sign(g) |u| + λ θ), with Adam's u.

    When: fine-tuning and pretraining where momentum overshoots; a bolder relative of Adam with
    `cautious=True`, which stands still where the two disagree. When not: small noisy batches, where
    the sign of one gradient says little.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-4 to 1e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.95 to 0.999.
      eps: ε ≥ 0, beside the root; 1e-8.
      eps_root: ε_root ≥ 0, under the root.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 1e-4 to 0.1.
      mask: which leaves decay (see `masked`); None: all.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
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
        scale_by_grams(b1, b2, eps, eps_root, mu_dtype), learning_rate, weight_decay, mask, **flags
    )
