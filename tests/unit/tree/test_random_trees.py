"""Random trees: the keys and numbers of Optax, in both styles of keys."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx.tree

T: Any = gradtx.tree
TREE = {"b": jnp.ones(2), "a": {"x": jnp.ones((2, 3), jnp.bfloat16)}, "none": None}
KEYS = {"old": jax.random.PRNGKey(3), "new": jax.random.key(3)}


def equal(ours: Any, theirs: Any) -> bool:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    leaves = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in leaves)


@pytest.mark.parametrize("style", KEYS)
def test_keys_are_those_of_optax(style: str) -> None:
    ours, theirs = (f(KEYS[style], TREE) for f in (T.split_key_like, optax.tree.split_key_like))
    assert equal(*map(T.unwrap_random_key_data, (ours, theirs)))
    assert T.split_key_like(KEYS[style], {}) == {}


@pytest.mark.parametrize("style", KEYS)
@pytest.mark.parametrize("sampler", [jax.random.normal, jax.random.uniform, jax.random.laplace])
@pytest.mark.parametrize("dtype", [None, jnp.float32])
def test_numbers_are_those_of_optax(style: str, sampler: Any, dtype: Any) -> None:
    args = KEYS[style], TREE, sampler, dtype
    assert equal(T.random_like(*args), optax.tree.random_like(*args))


def test_a_seed_is_a_key() -> None:
    assert equal(T.random_like(3, TREE), T.random_like(KEYS["new"], TREE))


def test_a_sampler_that_refuses_is_told_with_the_leaf() -> None:
    with pytest.raises(ValueError, match="must be a float or complex dtype") as caught:
        T.random_like(KEYS["new"], {"a": {"n": jnp.arange(3)}})
    assert caught.value.__notes__ == ["random_like: the sampler was called for the leaf at 'a/n'"]


def test_a_leaf_on_an_explicit_mesh_is_sampled_with_its_sharding() -> None:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    like = jax.device_put(jnp.ones((8, 2)), NamedSharding(mesh, PartitionSpec("data")))
    with jax.set_mesh(mesh):
        made = T.random_like(KEYS["new"], {"w": like})["w"]
    assert jax.typeof(made).sharding.spec[0] == "data"
    assert np.array_equal(made, T.random_like(KEYS["new"], {"w": jnp.ones((8, 2))})["w"])
