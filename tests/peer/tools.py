"""Private helpers of Optax that its tests use as tools, written for gradtx.

A test of another subject squares numbers with `numerics.abs_sq`, or enters x64 mode with
`utils.x64_precision`. Neither is a public name, in Optax or here, and neither is the subject. The
tests of those helpers themselves do not get them from here.
"""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

PRNGKey = jax.Array
Shape = Sequence[int]


class Annotation:
    """Equal to the annotation of any argument of gradtx that takes a schedule in place of a number.

    Tests ask whether `learning_rate` is annotated as one, and skip themselves if it is not.
    """

    NAMES = ("ArrayHyperparam", "Decay", "Fraction", "Hyperparam", "Limit", "NonNegative", "Positive")

    def __eq__(self, other: object) -> bool:
        return str(other) in self.NAMES

    __hash__ = None  # pyright: ignore[reportAssignmentType]


ScalarOrSchedule = Annotation()


def abs_sq(x: jax.Array) -> jax.Array:
    """|x|², real."""
    return jnp.real(x * jnp.conj(x))


@contextlib.contextmanager
def x64_precision(enabled: bool) -> Iterator[None]:
    """64-bit types within, or 32-bit ones."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", enabled)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
