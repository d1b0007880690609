"""Gaussian noise on gradients, with a variance that decays."""

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Hyperparam, NonNegative
from gradtx.tree.arithmetic import sqrt


def _add_noise(grad, slots: None, param, step, *, eta, gamma, key):
    # One dtype for all gradients: a run in bfloat16 or x64 draws the same noise.
    dtype = jnp.complex64 if jnp.iscomplexobj(grad) else jnp.float32
    deviation = sqrt(eta * step**-gamma)  # step = 1 + count
    noise = jax.random.normal(key, grad.shape, dtype).astype(grad.dtype)
    return grad + deviation * noise, slots


def choose_key(maker: str, key: Hyperparam | None, seed: int | None) -> Hyperparam:
    """The key of a builder that accepts `key` or `seed`; 0 where it receives neither."""
    if key is not None and seed is not None:
        raise HyperparamError(
            f"{maker}: key = {key!r} and seed = {seed!r} mean the same; pass one of them"
        )
    if key is not None:
        return key
    return 0 if seed is None else seed


@definition
def add_noise(
    eta: NonNegative, gamma: NonNegative, key: Hyperparam | None = None, *, seed: int | None = None
) -> GradientTransformation:
    """Add Gaussian noise with a decaying variance to the gradients.

    u ← g + σ n, n normal of variance 1, σ² = η / (1 + count)^γ, count = 0, 1, 2, ...

    Every array draws its own noise at every step, from the key, the number of the step and the
    array's path. A second run therefore draws the same noise, and so does a run that resumes from a
    saved state. Of a complex entry, half of the variance is real and half is imaginary.

    When: very deep or badly initialized networks, where the noise helps early on. When not: for the
    noise of differential privacy.

    Args:
      eta: η ≥ 0, the variance at the first update; 0.01 to 1.
      gamma: γ ≥ 0, how fast the variance decays; typically 0.55; 0: not at all.
      key: a random key, or a number to make one from; a leaf of the definition, so a new one does
        not recompile.
      seed: Optax's name for a `key` that is a number; neither: 0, so that every run draws the same
        noise.

    Raises:
      HyperparamError: a negative number; both a key and a seed.

    State: 0 bytes per parameter.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.add_noise(eta=4.0, gamma=1.0, key=7)
    >>> g = jnp.zeros(10_000)
    >>> u, state = tx.update(g, tx.init(g))
    >>> v, _ = tx.update(g, state)
    >>> round(u.var().item()), round(v.var().item())  # 4 at first, then 4/2
    (4, 2)

    Neelakantan et al. 2015, arXiv 1511.06807, section 3.
    """
    return leafwise(None, _add_noise, key=choose_key("add_noise", key, seed))
