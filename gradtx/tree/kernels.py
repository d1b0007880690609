"""One compiled kernel per shape: the same function over many arrays, traced once.

A function of one array is jitted once per shape and called for each array. Where a tree has
many arrays alike, calls are bundled: a kernel of about sqrt(n) calls, itself called about sqrt(n)
times, so that tracing, lowering and eager dispatch cost 2 sqrt(n) calls and not n. XLA inlines
the calls, so the compiled program is the same as without.
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer


@functools.lru_cache(maxsize=4096)
def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(shared, row)`, jitted; one per function."""
    return jax.jit(function)


@functools.lru_cache(maxsize=4096)
def bundle(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` over several rows of equal shapes, jitted; one per function."""
    return jax.jit(functools.partial(_each_row, kernel(function)))


def _each_row(function: Callable[..., Any], shared: Any, rows: Sequence[Any]) -> list[Any]:
    return [function(shared, row) for row in rows]


@functools.lru_cache(maxsize=4096)
def bundle_size(count: int) -> int:
    """How many rows to bundle: the size that makes the fewest calls, those inside a bundle
    included.
    """
    return min(
        range(1, count + 1),
        key=lambda size: (size if size > 1 else 0) + count // size + count % size,
    )


def signature(array: Any) -> tuple[Hashable, ...]:
    """What must be equal for two arrays to share a kernel call: shape, dtype and placement."""
    sharding = None if isinstance(array, Tracer) else getattr(array, "sharding", None)
    return array.shape, array.dtype, sharding


def group(kinds: Iterable[Hashable]) -> dict[Any, list[int]]:
    """The positions of each kind, kinds in the order they first appear."""
    groups: dict[Any, list[int]] = {}
    for index, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(index)
    return groups


def call_rows(function: Callable[..., Any], shared: Any, rows: Sequence[Any]) -> list[Any]:
    """`function(shared, row)` for rows of equal shapes; `function` at module level, or a
    partial.
    """
    if len(rows) == 1 and any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(rows)):
        return [function(shared, rows[0])]  # a kernel that nobody shares costs a trace of its own
    size = bundle_size(len(rows))
    whole = len(rows) - len(rows) % size if size > 1 else 0
    bundled = [
        result
        for start in range(0, whole, size)
        for result in bundle(function)(shared, rows[start : start + size])
    ]
    return bundled + [kernel(function)(shared, row) for row in rows[whole:]]


def map_arrays(function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """`function(*row)` for every row of the columns, which hold arrays; `function` at module
    level.
    """
    rows = list(zip(*columns, strict=True))
    results: list[Any] = [None] * len(rows)
    for indices in group(tuple(map(signature, row)) for row in rows).values():
        for index, result in zip(
            indices,
            call_rows(_spread(function), (), [rows[index] for index in indices]),
            strict=True,
        ):
            results[index] = result
    return results


@functools.lru_cache(maxsize=4096)
def _spread(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(_apply_row, function)


def _apply_row(function: Callable[..., Any], shared: Any, row: Sequence[Any]) -> Any:
    return function(*row)


# XLA compiles a program of n arguments in a time that grows as n²: ten thousand scalars take half a
# minute. Outside of jit they are stacked, some at a time, before a program receives them.
MANY, WIDTH = 256, 64
"""The number of scalars from which they are stacked, and how many are in one vector."""


@jax.tree_util.register_pytree_node_class
class Scalars(Sequence[jax.Array]):
    """A sequence of scalars that holds them as vectors."""

    def __init__(self, vectors: Sequence[jax.Array]) -> None:
        self.vectors: tuple[jax.Array, ...] = tuple(vectors)

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
