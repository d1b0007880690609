"""Trial steps inside an interval: minima of a parabola and of a cubic through its ends."""

import jax
import jax.numpy as jnp

from gradtx.linesearch.line import Point
from gradtx.tree.arithmetic import sqrt

CUBIC_MARGIN, QUADRATIC_MARGIN = 0.2, 0.1
"""The least distance of a minimum from both ends, as a fraction of the interval."""


def cubic_minimum(low: Point, high: Point, third: Point) -> jax.Array:
    """The minimum of the cubic with the value and slope of `low` and the values of the two others;
    nan if it has none.

    With φ(low + d) = φ + g d + b d² + a d³ it is at d = (√(b² − 3 a g) − b) / 3a = −g / (√(b² − 3 a
    g) + b)."""
    g, d1, d2 = low.slope, high.step - low.step, third.step - low.step
    excess1, excess2 = (
        (point.value - low.value - g * d) / d**2 for point, d in ((high, d1), (third, d2))
    )
    a = (excess1 - excess2) / (d1 - d2)
    b = excess1 - a * d1
    root = sqrt(b * b - 3 * a * g)
    # Of two equal forms the one that adds numbers of one sign: it keeps its digits at a small a,
    # where φ is nearly a parabola.
    return low.step + jnp.where(b > 0, -g / (root + b), (root - b) / (3 * a))


def quadratic_minimum(low: Point, high: Point) -> jax.Array:
    """The extremum of the parabola with the value and slope of `low` and the value of `high`."""
    d = high.step - low.step
    b = (high.value - low.value - low.slope * d) / d**2
    return low.step - low.slope / (2 * b)


def interpolate(low: Point, high: Point, third: Point) -> jax.Array:
    """A step size inside the interval: from the cubic, else from the parabola, else its middle."""
    middle = (low.step + high.step) / 2
    parabola, cubic = quadratic_minimum(low, high), cubic_minimum(low, high, third)
    trial = jnp.where(_is_inside(parabola, low, high, QUADRATIC_MARGIN), parabola, middle)
    return jnp.where(_is_inside(cubic, low, high, CUBIC_MARGIN), cubic, trial)


def _is_inside(step: jax.Array, low: Point, high: Point, margin: float) -> jax.Array:
    """Whether a step keeps its distance from both ends; False for nan."""
    left, width = jnp.minimum(low.step, high.step), jnp.abs(high.step - low.step)
    return (step > left + margin * width) & (step < left + width - margin * width)
