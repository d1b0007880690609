r"""Stochastic gradient descent on gradients with noise that decays.

θ ← θ − ρ (g + σ n),   n normal of variance 1,   σ² = η / (1 + count)^γ
"""

from gradtx.compose.descend import descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam, NonNegative
from gradtx.transforms.noise import add_noise


@definition
def noisy_sgd(
    learning_rate: Hyperparam,
    eta: NonNegative = 0.01,
    gamma: NonNegative = 0.55,
    key: Hyperparam | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformation:
    r"""SGD with decaying Gaussian noise on the gradients.

    For every array, θ, g and n of one shape: θ ← θ − ρ (g + σ n), n normal of variance 1, σ² = η /
    (1 + count)^γ; count = 0, 1, 2, ...

    When: very deep or badly initialized networks, where plain descent makes no progress. When not:
    small batches, whose gradients are noisy enough; take `sgd`.

    Args:
      learning_rate: ρ ≥ 0, parameter units per unit of gradient; 1e-3 to 0.1.
      eta: η ≥ 0, the variance of the noise at the first update, in squared units of the gradient;
        0.01 to 1.
      gamma: γ ≥ 0, how fast the noise decays; typically 0.55.
      key: a random key, or a number to make one from.
      seed: Optax's name for a `key` that is a number; neither: 0, so that every run draws the same
        noise.

    Raises:
      HyperparamError: a negative number; both a key and a seed.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.zeros(10_000)
    >>> tx = gradtx.noisy_sgd(0.1, eta=4.0, key=7)
    >>> updates, _ = tx.update(w + 3.0, tx.init(w))  # mean −0.1 · 3, standard deviation 0.1 · 2
    >>> round(updates.mean().item(), 2), round(updates.std().item(), 2)
    (-0.3, 0.2)

    See also: `add_noise`, `sgd`.

    Neelakantan et al. 2015, arXiv 1511.06807, section 3.
    """
    return descend(add_noise(eta, gamma, key, seed=seed), learning_rate)
