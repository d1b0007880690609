"""Private helpers of Optax that its tests use as tools, written for gradtx.

A test of an optimizer enters x64 mode with `utils.x64_precision`, say. That is not a public name,
in Optax or here, and not the subject of the test. The tests of a helper itself do not get it from
here.
"""

import contextlib
from collections.abc import Iterator, Sequence

import jax

PRNGKey = jax.Array
Shape = Sequence[int]


class Annotation:
    """Equal to the annotation of any argument of gradtx that takes a schedule in place of a number.

    Tests ask whether `learning_rate` is annotated as one, and skip themselves if it is not.
    """

    NAMES = ("ArrayHyperparam", "Hyperparam", "NonNegative", "Positive", "ScalarOrSchedule")

    def __eq__(self, other: object) -> bool:
        return str(other) in self.NAMES

    __hash__ = None  # pyright: ignore[reportAssignmentType]


ScalarOrSchedule = Annotation()


@contextlib.contextmanager
def x64_precision(enabled: bool) -> Iterator[None]:
    """64-bit types within, or 32-bit ones."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", enabled)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
