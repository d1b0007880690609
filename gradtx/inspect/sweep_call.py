"""The call of `train` in the program of a sweep: a static part, and arrays."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import GradtxError
from gradtx.inspect.sweep_groups import Template
from gradtx.tree.paths import path_text

ARRAY = jax.Array
"""The mark of an array among static arguments."""


class Call(NamedTuple):
    """The static part of the call; it is hashable and chooses the program."""

    train: Callable[..., Any]
    treedef: Any
    """The structure of the arguments behind the key."""
    static: tuple[Any, ...]
    """For every leaf of them a number, a text or another static value; `ARRAY` for an array."""
    key_impl: Any
    """The implementation of typed keys; None: keys are raw numbers, or there are none."""

    def arguments(self, key: Any, arrays: Sequence[Any]) -> list[Any]:
        """The arguments of `train` behind the definition."""
        if key is not None and self.key_impl is not None:
            key = jax.random.wrap_key_data(key, impl=self.key_impl)
        rest = iter(arrays)
        leaves = [next(rest) if leaf is ARRAY else leaf for leaf in self.static]
        return [*(() if key is None else (key,)), *jax.tree.unflatten(self.treedef, leaves)]


def split_call(
    train: Callable[..., Any], keys: Any, args: Sequence[Any]
) -> tuple[Call, np.ndarray | None, list[Any]]:
    """The static part of a call, the numbers of its random keys, and its arrays.

    Numbers and texts among the arguments are static: a number of steps is one.
    """
    leaves, treedef = jax.tree.flatten(tuple(args))
    is_array = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    static = tuple(ARRAY if one else leaf for leaf, one in zip(leaves, is_array, strict=True))
    arrays = [leaf for leaf, one in zip(leaves, is_array, strict=True) if one]
    impl = numbers = None
    if keys is not None:
        if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
            impl, keys = jax.random.key_impl(keys), jax.random.key_data(keys)
        numbers = np.asarray(keys)
    return Call(_hashable(train), treedef, static, impl), numbers, arrays


def _hashable(train: Callable[..., Any]) -> Callable[..., Any]:
    try:
        hash(train)
    except TypeError:  # a module that holds arrays; a partial hashes by its identity
        return functools.partial(train)
    return train


def train_one(call: Call, template: Template, batch: Any, shared: Any, arrays: Any) -> Any:
    """One training, with its own values and key, and the arrays of all trainings."""
    _, values, key = batch
    output = call.train(template.definition(values, shared), *call.arguments(key, arrays))
    if not jax.tree.leaves(output):
        raise GradtxError(
            f"sweep: train returned {output!r}, without an array; return the final loss, or a tree "
            "of arrays such as {'loss': losses, 'accuracy': accuracy}"
        )
    return jax.tree_util.tree_map_with_path(_result, output)


def _result(path: Any, leaf: Any) -> Any:
    is_number = isinstance(leaf, bool | int | float | complex | np.ndarray | np.generic | jax.Array)
    if not is_number or jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.extended):
        where = f" at {path_text(path)!r}" if path else ""
        kind = "random key" if is_number else type(leaf).__name__
        raise GradtxError(f"sweep: train returned a {kind}{where}; return numbers and arrays")
    return jnp.asarray(leaf)
