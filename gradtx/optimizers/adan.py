r"""Adan: Adam that also averages how the gradient changes from step to step.

d = g − g_before,   0 at t = 1
m ← β1 m + (1 − β1) g
v ← β2 v + (1 − β2) d
n ← β3 n + (1 − β3) (g + c d)²
u = (m̂ + c v̂) / (√(n̂ + ε_root) + ε)       m̂ = m / (1 − β1^t), v̂ = v / (1 − β2^t), n̂ = n / (1 − β3^t)
θ ← θ − η (u + λ θ)

The paper has c = β2; Optax, and so the default here, c = 1 − β2.
"""

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Fraction, NonNegative, Squares
from gradtx.engine.selector import Where
from gradtx.transforms.moments import average, debias
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_zeros, zeros


class NesterovMoments(NamedTuple):
    """Averages of gradients (mu), of their changes (delta) and of squares (nu), and the gradient
    before.
    """

    mu: jax.Array
    delta: jax.Array
    nu: Squares
    previous: jax.Array


def _init(param: jax.Array) -> NesterovMoments:
    return NesterovMoments(
        mu=zeros(param), delta=zeros(param), nu=real_zeros(param), previous=zeros(param)
    )


def _update(
    grad: jax.Array,
    slots: NesterovMoments,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    b3: jax.Array,
    eps: jax.Array,
    eps_root: jax.Array,
    difference_weight: jax.Array | None = None,
) -> Any:
    weight = 1 - b2 if difference_weight is None else difference_weight
    change = jnp.where(step > 1, grad - slots.previous, 0)
    mu, delta = average(slots.mu, grad, b1), average(slots.delta, change, b2)
    nu = average(slots.nu, abs_sq(grad + weight * change), b3)
    mean = debias(mu, b1, step) + weight * debias(delta, b2, step)
    return mean / (jnp.sqrt(debias(nu, b3, step) + eps_root) + eps), NesterovMoments(
        mu, delta, nu, grad
    )


@definition
def scale_by_adan(
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    *,
    difference_weight: Fraction | None = None,
) -> GradientTransformation:
    """Adan's direction: u = (m̂ + c v̂) / (√(n̂ + ε_root) + ε), with v an average of g − g_before.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of v.
      b3: β3 in [0, 1), decay of n.
      eps: ε ≥ 0, beside the root.
      eps_root: ε_root ≥ 0, under the root.
      difference_weight: c in [0, 1]; None: 1 − β2, as Optax; the paper takes β2.

    Raises:
      HyperparamError: a number out of its range.

    State: 16 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.scale_by_adan(b1=0.0, b2=0.0, b3=0.0), jnp.array([1.0])
    >>> _, state = tx.update(g, tx.init(g))
    >>> u, _ = tx.update(3 * g, state)  # g = 3, d = 2, c = 1: all that is averaged is 5
    >>> round(u.item(), 4)
    1.0

    Xie et al. 2022, arXiv 2208.06677, Algorithm 1, where every β is 1 − β of here.
    """
    hyperparams = {"b1": b1, "b2": b2, "b3": b3, "eps": eps, "eps_root": eps_root}
    chosen = {} if difference_weight is None else {"difference_weight": difference_weight}
    return leafwise(_init, _update, **hyperparams, **chosen)


@definition
def adan(
    learning_rate: NonNegative,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    difference_weight: Fraction | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Adam with Nesterov's momentum written by changes of the gradient, which it averages on their
    own.

    For every array, all of one shape: d = g − g_before, m, v and n averages of g, d and (g + c d)²,
    θ ← θ − η ((m̂ + c v̂) / (√(n̂ + ε_root) + ε) + λ θ).

    When: large batches and vision transformers, with a learning rate 2 to 10 times AdamW's. When
    not: memory-bound; it keeps four arrays.

    The paper's Adan is `adan(eta, eps_root=0.0, difference_weight=0.92, decay_form="proximal")`: c
    = β2, and a step θ ← (θ − η u) / (1 + η λ). Optax, whose numbers are the default, has c = 1 −
    β2, a twelfth of it.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-3 to 1e-2.
      b1: β1 in [0, 1), decay of m; 0.98.
      b2: β2 in [0, 1), decay of v; 0.92.
      b3: β3 in [0, 1), decay of n; 0.99.
      eps: ε ≥ 0, beside the root; 1e-8.
      eps_root: ε_root ≥ 0, under the root; 1e-8.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0.02 in the paper.
      mask: which leaves decay (see `masked`); None: all.
      difference_weight: c in [0, 1]; None: 1 − β2.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 16 bytes per parameter (m, v, n and the gradient before).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([3.0])
    >>> tx = gradtx.adan(0.5, weight_decay=1.0, decay_form="proximal")
    >>> updates, _ = tx.update(jnp.array([0.0]), tx.init(w), w)  # from 3 to 3 / (1 + 0.5)
    >>> updates.tolist()
    [-1.0]

    See also: `nadamw`, `scale_by_adan`.

    Xie et al. 2022, arXiv 2208.06677, Algorithm 1, where every β is 1 − β of here.
    """
    rule = scale_by_adan(b1, b2, b3, eps, eps_root, difference_weight=difference_weight)
    return descend(rule, learning_rate, weight_decay, mask, **flags)
