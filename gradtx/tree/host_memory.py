"""Arrays in the memory of the host: fetched to the device, returned, and in which order.

A type says in which memory an array lies. XLA copies between the two while it computes. For a TPU
it starts all copies as soon as it can, so that all arrays are on the device at once. A data
dependence is the only order that it obeys, and `run_once` makes one.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Space = jax.memory.Space

PINNED_HOST = "pinned_host"
"""The memory of the host that a program reaches; the type of an array tells it from the device."""

T = TypeVar("T")


def is_on_host(array: Any) -> bool:
    """Whether an array lies in pinned memory of the host, as far as its type says."""
    # A type of another kind, a random key for example, is always on the device.
    return getattr(jax.typeof(array), "memory_space", Space.Device) == Space.Host


def put_on_host(array: Any) -> Any:
    """The array in pinned memory of the host, cut over devices as it is."""
    return jax.device_put(array, Space.Host)


def fetch(tree: Any) -> Any:
    """The arrays of a tree on the device; those that lie there already are returned as they are."""
    return jax.tree.map(_fetch, tree)


def _fetch(array: Any) -> Any:
    return jax.device_put(array, Space.Device) if is_on_host(array) else array


def put_back(tree: Any, old: Any) -> Any:
    """The arrays of a tree, each in the memory of the array that it replaces."""
    return jax.tree.map(_put_back, tree, old)


def _put_back(array: Any, old: Any) -> Any:
    return put_on_host(array) if is_on_host(old) else array


def host_bytes(tree: Any) -> int:
    """The bytes of the arrays of a tree that are in host memory, as if they were not cut."""
    arrays = (leaf for leaf in jax.tree.leaves(tree) if is_on_host(leaf))
    return sum(array.size * array.dtype.itemsize for array in arrays)


def run_once(body: Callable[[T], T], after: jax.Array, carry: T) -> tuple[jax.Array, T]:
    """Run `body(carry)` after `after` is known; return its successor, and the new carry.

    `after` comes from `hidden_one`, or from another `run_once`. The results have the types of the
    carry, and XLA writes them in its place. No copy starts before `after` is known, and all have
    ended before its successor is.
    """
    # A loop of one turn: XLA moves nothing across its borders, since it cannot know the turns.
    return jax.lax.while_loop(
        lambda state: state[0] < after,
        lambda state: (state[0] + 1, body(state[1])),
        (jnp.zeros_like(after), carry),
    )


@jax.custom_batching.custom_vmap
def hidden_one(step: jax.Array) -> jax.Array:
    """The number 1 as an int32, which XLA cannot know."""
    return (step | 1) & 1  # XLA does not simplify it


@hidden_one.def_vmap
def _known_one(size: int, is_batched: Any, step: jax.Array) -> tuple[jax.Array, bool]:
    """Under `vmap` 1 itself: a loop whose turns differ would select among arrays of the host."""
    return jnp.ones((), jnp.int32), False
