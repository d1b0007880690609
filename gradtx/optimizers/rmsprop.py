r"""RMSProp: divide by the root of an exponential average of squared gradients.

r ← β r + (1 − β) g²          centered: m ← β m + (1 − β) g, and r − m² in place of r
u = g / √(r + ε)              or, as in textbooks, u = g / (√r + ε)
Δ ← μ Δ − η u,  θ ← θ + Δ     (Δ = −η u without momentum)
"""

import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import descend, scale_by_learning_rate
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Fraction, Hyperparam, NonNegative
from gradtx.transforms.moments import Moments, SecondMoment, average, debias, divide_by_root
from gradtx.transforms.momentum import trace
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import full, zeros


def _rms_init(param, *, initial_scale) -> SecondMoment:
    return SecondMoment(full(param, initial_scale))


def _rms(
    grad, slots: SecondMoment, param, step, *, decay, eps, eps_in_sqrt: bool, bias_correction: bool
):
    nu = average(slots.nu, abs_sq(grad), decay)
    square = debias(nu, decay, step) if bias_correction else nu
    return divide_by_root(grad, square, eps, eps_in_sqrt), SecondMoment(nu)


def _stddev_init(param, *, initial_scale) -> Moments:
    return Moments(zeros(param), full(param, initial_scale))


def _stddev(
    grad, slots: Moments, param, step, *, decay, eps, eps_in_sqrt: bool, bias_correction: bool
):
    mu, nu = average(slots.mu, grad, decay), average(slots.nu, abs_sq(grad), decay)
    mean, square = mu, nu
    if bias_correction:
        mean, square = debias(mu, decay, step), debias(nu, decay, step)
    variance = jnp.maximum(square - abs_sq(mean), 0)  # rounding may take it below 0
    # Squares that overflow: inf − inf would be nan for ever.
    variance = jnp.where(jnp.isinf(square), square, variance)
    return divide_by_root(grad, variance, eps, eps_in_sqrt), Moments(mu, nu)


@definition
def scale_by_rms(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Divide by a running root mean square: r ← β r + (1 − β) g², u = g / √(r + ε).

    Args:
      decay: β in [0, 1).
      eps: ε ≥ 0.
      initial_scale: r before the first update, ≥ 0.
      eps_in_sqrt: False gives u = g / (√r + ε).
      bias_correction: use r / (1 − β^t) in place of r.

    Raises:
      HyperparamError: a number is out of its range.

    State: 4 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_rms(eps=0.0, bias_correction=True)
    >>> u, _ = tx.update(jnp.array([-4.0]), tx.init(jnp.zeros(1)))
    >>> round(u.item(), 5)  # corrected, the first step has size 1
    -1.0

    Tieleman and Hinton 2012, Neural Networks for Machine Learning, lecture 6e.
    """
    return leafwise(_rms_init, _rms)


@definition
def scale_by_stddev(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Divide by a running standard deviation: u = g / √(r − m² + ε).

    m and r are averages of g and g².

    Args:
      decay: β in [0, 1), of both averages.
      eps: ε ≥ 0.
      initial_scale: r before the first update, ≥ 0.
      eps_in_sqrt: False gives u = g / (√(r − m²) + ε).
      bias_correction: divide m and r by 1 − β^t.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_stddev(decay=0.5, eps=0.0)
    >>> u, _ = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
    >>> round(u.item(), 5)  # m = 1 and r = 2: the deviation is 1
    2.0

    Graves 2013, arXiv 1308.0850, equations 38 to 40.
    """
    return leafwise(_stddev_init, _stddev)


@definition
def rmsprop(
    learning_rate: Hyperparam,
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Fraction | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> GradientTransformation:
    r"""RMSProp: divide gradients by their running root mean square.

    RMSProp is AdaGrad that forgets.

    For every array, g, r and θ of one shape: r ← β r + (1 − β) g², θ ← θ − η g / √(r + ε).

    When: for recurrent networks, reinforcement learning and gradients whose scale drifts. When not:
    as a default; `adam` adds momentum and bias correction for 4 more bytes per parameter.

    Textbooks have ε outside the root: `rmsprop(eta, decay=beta, eps=delta, eps_in_sqrt=False)`.

    Args:
      learning_rate: η, parameter units; 1e-4 to 1e-2.
      decay: β in [0, 1); r spans about 1/(1 − β) steps; typically 0.9.
      eps: ε ≥ 0, which keeps the quotient finite; 1e-10 to 1e-3.
      initial_scale: r before the first update, ≥ 0.
      eps_in_sqrt: add ε inside the root.
      centered: subtract the squared mean gradient inside the root, as `scale_by_stddev` does.
      momentum: μ in [0, 1], for a decaying sum of steps after the learning rate; None: no momentum.
      nesterov: look ahead by one more step of momentum.
      bias_correction: divide the averages by 1 − β^t.

    Raises:
      HyperparamError: a number is out of its range.

    State: 4 bytes per parameter (r); 4 more if centered (m), 4 more with momentum (Δ).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.rmsprop(0.1, decay=0.75, eps=0.0)
    >>> updates, _ = tx.update(jnp.array([8.0, 0.5]), tx.init(jnp.zeros(2)))
    >>> [round(u, 5) for u in updates.tolist()]  # both step by 0.1 / √(1 − 0.75)
    [-0.2, -0.2]

    See also: `adagrad`, `adam`, `scale_by_rms`, `scale_by_stddev`.

    Tieleman and Hinton 2012, Neural Networks for Machine Learning, lecture 6e; centered: Graves
    2013, arXiv 1308.0850, equations 38 to 45."""
    scale_by = scale_by_stddev if centered else scale_by_rms
    rule = scale_by(decay, eps, initial_scale, eps_in_sqrt, bias_correction)
    if momentum is None:
        return descend(rule, learning_rate)
    # Momentum after the learning rate is the velocity Δ of the equation, also while η changes.
    return chain(rule, scale_by_learning_rate(learning_rate), trace(momentum, nesterov))
