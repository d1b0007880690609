"""Many scalars as a few vectors: what a rule measures of every array of a large tree.

XLA compiles a program of n arguments in a time that grows as n²: ten thousand scalars take half a
minute. Outside of jit they are therefore stacked, some at a time, before a program receives them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

MANY, WIDTH = 256, 64
"""The number of scalars from which they are stacked, and how many are in one vector."""


@jax.tree_util.register_pytree_node_class
class Scalars(Sequence[jax.Array]):
    """A sequence of scalars that holds them as vectors."""

    def __init__(self, vectors: Sequence[jax.Array]) -> None:
        self.vectors = tuple(vectors)

    def __len__(self) -> int:
        return sum(vector.shape[0] for vector in self.vectors)

    def __iter__(self) -> Iterator[jax.Array]:
        return (vector[place] for vector in self.vectors for place in range(vector.shape[0]))

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def tree_flatten(self) -> tuple[tuple[jax.Array, ...], None]:
        """The vectors are the arrays of this pytree."""
        return self.vectors, None

    @classmethod
    def tree_unflatten(cls, aux: None, vectors: Sequence[jax.Array]) -> "Scalars":
        """Put other vectors into the places of the old."""
        return cls(vectors)


def stack_scalars(scalars: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """Many scalars of one dtype as `Scalars`; others, and those of a program, as they are."""
    if len(scalars) < MANY or any(isinstance(one, Tracer) for one in scalars):
        return scalars
    dtypes = {getattr(one, "dtype", None) for one in scalars}
    if len(dtypes) > 1 or None in dtypes:
        return scalars
    return Scalars(
        [_stack(*scalars[start : start + WIDTH]) for start in range(0, len(scalars), WIDTH)]
    )


@jax.jit
def _stack(*scalars: jax.Array) -> jax.Array:
    return jnp.stack(scalars)
