"""Where to look inside an interval: minima of the parabola and of the cubic through what is known
at its ends.
"""

import jax
import jax.numpy as jnp

from gradtx.linesearch.line import Point

CUBIC_MARGIN, QUADRATIC_MARGIN = 0.2, 0.1
"""How far from both ends a minimum must lie to be trusted, as a fraction of the interval."""


def cubic_minimum(low: Point, high: Point, third: Point) -> jax.Array:
    """The minimum of the cubic with the value and slope of `low` and the values of the two others;
    nan if it has none.

    With φ(low + d) = φ + g d + b d² + a d³ it is at d = (√(b² − 3 a g) − b) / 3a = −g / (√(b² − 3 a
    g) + b): the form that adds numbers of one sign keeps its digits when a is small, as where φ is
    nearly a parabola."""
    g, d1, d2 = low.slope, high.step - low.step, third.step - low.step
    excess1, excess2 = (
        (point.value - low.value - g * d) / d**2 for point, d in ((high, d1), (third, d2))
    )
    a = (excess1 - excess2) / (d1 - d2)
    b = excess1 - a * d1
    root = jnp.sqrt(b * b - 3 * a * g)
    return low.step + jnp.where(b > 0, -g / (root + b), (root - b) / (3 * a))


def quadratic_minimum(low: Point, high: Point) -> jax.Array:
    """The extremum of the parabola with the value and slope of `low` and the value of `high`."""
    d = high.step - low.step
    b = (high.value - low.value - low.slope * d) / d**2
    return low.step - low.slope / (2 * b)


def between(low: Point, high: Point, third: Point) -> jax.Array:
    """A step size inside the interval: of the cubic, else of the parabola, else its middle."""
    left, width = jnp.minimum(low.step, high.step), jnp.abs(high.step - low.step)
    middle, parabola, cubic = (
        (low.step + high.step) / 2,
        quadratic_minimum(low, high),
        cubic_minimum(low, high, third),
    )
    children = _inside(parabola, left, width, QUADRATIC_MARGIN)
    return jnp.where(
        _inside(cubic, left, width, CUBIC_MARGIN), cubic, jnp.where(children, parabola, middle)
    )


def _inside(step: jax.Array, left: jax.Array, width: jax.Array, margin: float) -> jax.Array:
    """False for nan."""
    return (step > left + margin * width) & (step < left + width - margin * width)
