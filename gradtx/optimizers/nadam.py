r"""NAdam: Adam with Nesterov's look-ahead, which counts the gradient of this step once more.

    m̂ = β1 m / (1 − β1^(t+1)) + (1 − β1) g / (1 − β1^t)
    u = m̂ / (√(r̂ + ε_root) + ε)       m, r̂ as in Adam
    θ ← θ − η u

With `momentum_decay` ψ, as in torch, the weight of the look-ahead rises from about β1/2 to β1:

    μ_t = β1 (1 − ½ 0.96^(t ψ)),   Π_t = μ_1 μ_2 ... μ_t
    m̂ = μ_{t+1} m / (1 − Π_{t+1}) + (1 − μ_t) g / (1 − Π_t)
"""

from typing import NamedTuple, Unpack

import jax

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative, Squares
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.moments import average, debias
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import real_zeros, real_zeros_along, zeros


class RisingMoments(NamedTuple):
    """Averages of gradients (mu) and squares (nu), and the product of the look-ahead's weights."""

    mu: jax.Array
    nu: Squares
    product: jax.Array


def _init(param, *, mu_dtype: DTypeLike | None) -> RisingMoments:
    one = real_zeros_along(param, ()) + 1
    return RisingMoments(mu=zeros(param, mu_dtype), nu=real_zeros(param), product=one)


def _nadam(grad, slots: RisingMoments, param, step, *, b1, b2, eps, eps_root, momentum_decay):
    # As in torch, m is averaged with β1 itself; the schedule is for the weights of m̂ alone.
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, abs_sq(grad), b2)
    weight, later = (b1 * (1 - 0.5 * 0.96 ** (at * momentum_decay)) for at in (step, step + 1))
    product = slots.product * weight
    mean = (later / (1 - product * later)) * mu + ((1 - weight) / (1 - product)) * grad
    return mean / (sqrt(debias(nu, b2, step) + eps_root) + eps), RisingMoments(mu, nu, product)


@definition
def scale_by_nadam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    momentum_decay: NonNegative = 0.004,
) -> GradientTransformation:
    """NAdam's direction with scheduled momentum: μ_t = β1 (1 − ½ 0.96^(t ψ)).

    `scale_by_adam(nesterov=True)` is NAdam with μ = β1 from the start.

    Args:
      b1: β1 in [0, 1), decay of m, and the limit of μ.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      momentum_decay: ψ ≥ 0, the speed at which μ rises; at 0 it stays β1/2.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter, and 4 for every array.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_nadam(momentum_decay=0.0)
    >>> _, state = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
    >>> round(state.slots["scale_by_nadam"].product.item(), 6)
    0.45

    Dozat 2016, ICLR workshop, Incorporating Nesterov momentum into Adam. m is averaged with β1
    itself, as in torch.
    """
    return leafwise(_init, _nadam)


@definition
def nadam(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    momentum_decay: NonNegative | None = None,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""NAdam: Adam with Nesterov momentum.

    For every array, all of one shape: θ ← θ − η m̂ / (√(r̂ + ε_root) + ε), with Adam's m and r̂,
    and m̂ = β1 m / (1 − β1^(t+1)) + (1 − β1) g / (1 − β1^t).

    When: in place of Adam, at the same cost; it reacts to a change of the gradient one step
    earlier. When not: for small noisy batches; more weight on one gradient does not help; take
    `adam`.

    torch's form is `nadam(eta, momentum_decay=0.004)`.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 3e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.95 to 0.999.
      eps: ε ≥ 0, outside the root; 1e-8.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      nesterov: False gives plain Adam.
      momentum_decay: ψ ≥ 0, the speed at which the weight of the look-ahead rises from β1/2 to β1;
        0.004 in torch. None: the weight is always β1.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `weight_decay`, `mask`, `decay_form`, `huber_delta`, `cautious`,
        `peak_learning_rate` and `axis_names`; see `descend`.

    Raises:
      HyperparamError: a number is out of its range, or `momentum_decay` comes with
        `nesterov=False`.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 8 bytes per parameter (m and r); with `momentum_decay` 4 more for every array.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.nadam(1.0), jnp.array([1.0])
    >>> round(tx.update(g, tx.init(g))[0].item(), 4)  # 0.9 * 0.1 / 0.19 + 0.1 / 0.1; Adam's is 1
    -1.4737

    See also: `adam`, `nadamw`, `scale_by_nadam`.

    Dozat 2016, ICLR workshop, Incorporating Nesterov momentum into Adam.
    """
    if momentum is not None and momentum_decay is not None:
        raise HyperparamError(
            f"momentum_decay = {momentum_decay!r} schedules the look-ahead of one average, and "
            f"momentum = {momentum!r} has another: drop one of the two arguments"
        )
    if momentum_decay is None:
        rule = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, momentum=momentum)
    elif nesterov:
        rule = scale_by_nadam(b1, b2, eps, eps_root, mu_dtype, momentum_decay=momentum_decay)
    else:
        raise HyperparamError(
            f"momentum_decay = {momentum_decay!r} schedules Nesterov momentum, and nesterov=False "
            "turns it off: drop one of the two arguments"
        )
    return descend(rule, learning_rate, **flags)
