r"""NovoGrad: momentum of gradients that one second moment per array normalises.

v ← β2 v + (1 − β2) ‖g‖²,   v = ‖g‖² at t = 1         one number for the array
m ← β1 m + g / (√(v + ε_root) + ε) + λ θ
θ ← θ − η m
"""

from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.transforms.moments import Moments, average
from gradtx.tree.arithmetic import abs_sq, finite, sqrt
from gradtx.tree.casts import real_zeros_along, zeros


def _init(param, *, mu_dtype: DTypeLike | None) -> Moments:
    return Moments(mu=zeros(param, mu_dtype), nu=real_zeros_along(param, ()))


def _novograd(grad, slots: Moments, param, step, *, b1, b2, eps, eps_root, weight_decay):
    square = jnp.sum(abs_sq(finite(grad)))  # an entry that is inf or nan spoils itself alone
    nu = jnp.where(step > 1, average(slots.nu, square, b2), square)  # needs no bias correction
    # The decay joins the momentum, not the step; the sum has no factor 1 − β1, as in the paper.
    mu = b1 * slots.mu + grad / (sqrt(nu + eps_root) + eps) + weight_decay * param
    return mu, Moments(mu, nu)


@definition
def scale_by_novograd(
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """NovoGrad's direction: u = m, m ← β1 m + g / (√(v + ε_root) + ε) + λ θ.

    v is an average of ‖g‖², one number per array.

    Args:
      b1: β1 in [0, 1), momentum of normalised gradients. It is a sum, not an average: steps grow up
        to 1/(1 − β1) times longer.
      b2: β2 in [0, 1), decay of v, which starts at the first ‖g‖².
      eps: ε ≥ 0, outside the root; at 0, an array whose gradient is zero at the first step divides
        by zero.
      eps_root: ε_root ≥ 0, inside the root.
      weight_decay: λ ≥ 0, inside the momentum.
      mu_dtype: dtype of m; None: the parameter's, at least float32.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter, and 4 for every array; 2 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, w = gradtx.scale_by_novograd(), jnp.zeros(2)
    >>> u, _ = tx.update(jnp.array([30.0, -40.0]), tx.init(w), w)  # the first step has length 1
    >>> [round(x, 4) for x in u.tolist()]
    [0.6, -0.8]

    Ginsburg et al. 2019, arXiv 1905.11286, Algorithm 1.
    """
    return leafwise(_init, _novograd, needs_params=True)


@definition
def novograd(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""NovoGrad: SGD with momentum on gradients normalised per layer.

    Weight decay is inside the momentum.

    For every array, g, m and θ of one shape and v a number: v ← β2 v + (1 − β2) ‖g‖², v = ‖g‖² at
    first, m ← β1 m + g / (√(v + ε_root) + ε) + λ θ, θ ← θ − η m.

    When: for large batches and for convolutional and speech networks, in half of Adam's memory and
    with little warmup. When not: where coordinates of one array have very different scales, as in
    embeddings; take `adamw`.

    ‖g‖ skips entries that are inf or nan, so the other entries still train.

    Args:
      learning_rate: η, the length of an array's step without momentum; 1e-3 to 1e-2.
      b1: β1 in [0, 1), momentum; 0.9 to 0.95.
      b2: β2 in [0, 1), decay of v; 0.25 to 0.98.
      eps: ε ≥ 0, outside the root; 1e-6.
      eps_root: ε_root ≥ 0, inside the root.
      weight_decay: λ ≥ 0, per unit of learning rate and of momentum; 1e-4 to 1e-2. With a
        `decay_form` it acts as `descend` describes, not inside the momentum.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (m), and 4 for every array (v).

    >>> import gradtx, jax.numpy as jnp
    >>> w = {"small": jnp.zeros(1), "large": jnp.zeros(1)}
    >>> tx = gradtx.novograd(0.5)
    >>> grads = {"small": jnp.array([0.01]), "large": jnp.array([-100.0])}
    >>> updates, _ = tx.update(grads, tx.init(w), w)
    >>> round(updates["small"].item(), 3), round(updates["large"].item(), 3)
    (-0.5, 0.5)

    See also: `adamw`, `sgd`, `scale_by_novograd`.

    Ginsburg et al. 2019, arXiv 1905.11286, Algorithm 1.
    """
    if flags.get("decay_form"):
        rule = scale_by_novograd(b1, b2, eps, eps_root)
        return descend(rule, learning_rate, weight_decay, **flags)
    return descend(scale_by_novograd(b1, b2, eps, eps_root, weight_decay), learning_rate, **flags)
