"""The sign of updates."""

import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition


def _sign(grad, slots: None, param, step):
    return jnp.sign(grad), slots


@definition
def scale_by_sign() -> GradientTransformation:
    """Replace every entry by its sign: u ← sign(g).

    For complex numbers the sign is g / |g|. The sign of 0 is 0.

    When: the size of the gradient has no meaning, or costs too many bits. When not: on small
    batches without an average before it; the signs are then mostly noise.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_sign()
    >>> tx.update(jnp.array([-1e-9, 0.0, 7.0]), tx.init(jnp.zeros(3)))[0].tolist()
    [-1.0, 0.0, 1.0]

    Bernstein, Wang, Azizzadenesheli and Anandkumar 2018, arXiv 1802.04434, Algorithm 1.
    """
    return leafwise(None, _sign)
