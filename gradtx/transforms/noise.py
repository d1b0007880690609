"""Noise on gradients, less of it at every step."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Hyperparam, NonNegative


def _update(
    grad: jax.Array,
    slots: None,
    param: None,
    step: jax.Array,
    *,
    eta: jax.Array,
    gamma: jax.Array,
    key: jax.Array,
) -> Any:
    kind = (
        jnp.complex64 if jnp.iscomplexobj(grad) else jnp.float32
    )  # drawn alike in every precision
    return grad + jnp.sqrt(eta * step**-gamma) * jax.random.normal(key, grad.shape, kind), slots


@definition
def add_noise(
    eta: NonNegative, gamma: NonNegative, key: Hyperparam | None = None, *, seed: int | None = None
) -> GradientTransformation:
    """Add normal noise that fades: u ← g + σ n, n normal of variance 1, σ² = η / (1 + count)^γ,
    count = 0, 1, 2, ...

    Every array draws its own noise at every step, from the key, the number of the step and the
    array's path; so a run may be repeated, and goes on alike from a saved state. Of a complex
    entry, half of the variance is real and half is imaginary.

    When: very deep or badly started networks, where the noise helps early on. When not: for the
    noise of differential privacy.

    Args:
      eta: η ≥ 0, the variance at the first update; 0.01 to 1.
      gamma: γ ≥ 0, how fast it fades; typically 0.55; 0: not at all.
      key: a random key, or a number to make one from; a leaf of the definition, so a new one does
        not compile again.
      seed: Optax's name for a `key` that is a number; neither: 0, so that every run draws the same.

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
    if key is not None and seed is not None:
        raise HyperparamError(
            f"add_noise: key = {key!r} and seed = {seed!r} say the same; give one of them"
        )
    source = next((given for given in (key, seed) if given is not None), 0)
    return leafwise(None, _update, eta=eta, gamma=gamma, key=source)
