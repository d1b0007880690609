"""Random trees, and keys for the leaves of a tree."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.tree.casts import as_array
from gradtx.tree.keys import as_key
from gradtx.tree.known_shardings import known_sharding
from gradtx.tree.pairs import at
from gradtx.tree.paths import path_text


def split_key_like(rng_key: jax.Array, target_tree: Any) -> Any:
    """Split a random key into a pytree of keys, one for each leaf.

    Args:
      rng_key: the key, old style (`jax.random.PRNGKey`) or new (`jax.random.key`).
      target_tree: a tree; its leaves do not matter.

    Returns: a tree of the same structure, with keys in the place of leaves.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.tree.random import split_key_like
    >>> keys = split_key_like(jax.random.key(0), {"a": jnp.ones(3), "b": jnp.ones(2)})
    >>> bool(keys["b"] == jax.random.split(jax.random.key(0), 2)[1])
    True
    """
    treedef = jax.tree.structure(target_tree)
    keys = jax.random.split(as_key(rng_key), treedef.num_leaves)
    return jax.tree.unflatten(treedef, list(keys))


def random_like(
    rng_key: jax.Array,
    target_tree: Any,
    sampler: Callable[..., Any] = jax.random.normal,
    dtype: DTypeLike | None = None,
) -> Any:
    """A pytree of random arrays, shaped like another.

    Every leaf has a key of its own, split from one. A leaf on a mesh with explicit axes is sampled
    with its sharding, where the sampler has an argument `out_sharding`.

    When: probes of Hutchinson's estimator, noise, random starts. When not: the numbers must not
    depend on the order of the leaves; fold a hash of the path into the key.

    Args:
      rng_key: the key, old style or new.
      target_tree: arrays, or their shapes (`jax.ShapeDtypeStruct`); None stays None.
      sampler: `sampler(key, shape, dtype)`, a function of `jax.random` for instance.
      dtype: dtype of all samples; None: each has the dtype of its leaf.

    Returns: a tree of the same structure.

    Raises:
      ValueError: the sampler has no such dtype; a note names the leaf.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.tree.random import random_like
    >>> tree = {"w": jnp.ones((2, 2)), "b": jnp.ones(3, jnp.bfloat16)}
    >>> signs = random_like(jax.random.key(0), tree, jax.random.rademacher, jnp.float32)
    >>> jnp.abs(signs["w"]).tolist(), signs["b"].shape
    ([[1.0, 1.0], [1.0, 1.0]], (3,))
    """
    takes_sharding = _takes_sharding(sampler)

    def sample(path: Any, leaf: Any, key: jax.Array) -> Any:
        leaf = leaf if hasattr(leaf, "dtype") else as_array(leaf)
        sharding = known_sharding(leaf) if takes_sharding else None
        options = {} if sharding is None else {"out_sharding": sharding}
        kind = jax.dtypes.canonicalize_dtype(leaf.dtype if dtype is None else dtype)
        try:
            return sampler(key, leaf.shape, kind, **options)
        except (TypeError, ValueError) as error:
            error.add_note(f"random_like: the sampler was called for the leaf{at(path_text(path))}")
            raise

    keys = split_key_like(rng_key, target_tree)
    return jax.tree_util.tree_map_with_path(sample, target_tree, keys)


def _takes_sharding(sampler: Callable[..., Any]) -> bool:
    try:
        return "out_sharding" in inspect.signature(sampler).parameters
    except (TypeError, ValueError):
        return False  # a function of C has no signature


def unwrap_random_key_data(input_tree: Any) -> Any:
    """The integers of all random keys in a pytree, for comparisons of numbers.

    Args:
      input_tree: arrays and keys of `jax.random.key`.

    Returns: a tree of the same structure; leaves that are not such keys do not change.

    >>> import jax
    >>> from gradtx.tree.random import unwrap_random_key_data
    >>> unwrap_random_key_data({"key": jax.random.key(7)})["key"].tolist()
    [0, 7]
    """
    return jax.tree.map(_key_data, input_tree)


def _key_data(leaf: Any) -> Any:
    kind = getattr(leaf, "dtype", None)
    is_key = kind is not None and jnp.issubdtype(kind, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf
