"""Norms of trees inside `shard_map` and `pmap`."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

import gradtx
import gradtx.tree

P = PartitionSpec
TREE = {"b": jnp.arange(8.0), "s": jnp.array(0.5), "w": jnp.arange(32.0).reshape(16, 2) / 10}
SPECS = {"b": P("data"), "s": P(), "w": P("data")}
CHECKED = pytest.mark.parametrize("checked", [False, True])


def number(function: Any, checked: bool, out: Any = SPECS["s"]) -> Any:
    """A number of the tree, computed inside `shard_map`."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(function, mesh=mesh, in_specs=(SPECS,), out_specs=out, check_vma=checked)
    return jax.jit(mapped)(TREE)


@CHECKED
@pytest.mark.parametrize("names", ["data", SPECS], ids=["names", "specs"])
def test_the_global_norm_of_parts(checked: bool, names: Any) -> None:
    ours = number(functools.partial(gradtx.global_norm, axis_names=names), checked)
    if checked or names != "data":  # without types, a name alone cuts every array but numbers
        chex.assert_trees_all_close(ours, gradtx.global_norm(TREE), rtol=1e-6)
    chex.assert_trees_all_close(ours, gradtx.global_norm(TREE), rtol=1e-6)


@CHECKED
@pytest.mark.parametrize("order", [None, 1, "inf"])
def test_other_norms_of_parts(checked: bool, order: Any) -> None:
    ours = number(lambda tree: gradtx.tree.norm(tree, order, axis_names=SPECS), checked)
    chex.assert_trees_all_close(ours, gradtx.tree.norm(TREE, order), rtol=1e-6)


def test_one_sum_for_arrays_that_are_cut_alike() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    norm = functools.partial(gradtx.global_norm, axis_names="data")
    mapped = jax.shard_map(norm, mesh=mesh, in_specs=(SPECS,), out_specs=P())
    assert str(jax.make_jaxpr(mapped)(TREE)).count("psum") == 1


def test_a_norm_without_axes_is_refused() -> None:
    text = (
        r"^global_norm: the axes \('data'\) of this shard_map cut the arrays, and each device would"
        r" get a number of its own part: write global_norm\(tree, axis_names='data'\), or "
        r"axis_names=\(\) for that number"
    )
    with pytest.raises(gradtx.GradtxError, match=text):
        number(gradtx.global_norm, checked=True)
    own = number(lambda tree: gradtx.global_norm(tree, axis_names=())[None], True, P("data"))
    assert own.shape == (8,) and own[0] < own[7] < gradtx.global_norm(TREE)


def test_a_norm_without_axes_warns_where_types_do_not_tell() -> None:
    with pytest.warns(UserWarning, match=r"^norm: if the axes \('data'\) of this shard_map or "):
        number(gradtx.tree.norm, checked=False)


def test_bad_axis_names() -> None:
    with pytest.raises(gradtx.GradtxError, match=r"^global_norm: axis_names has 'model', and the"):
        number(functools.partial(gradtx.global_norm, axis_names="model"), checked=True)
    with pytest.raises(gradtx.GradtxError, match="axis_names has 1 specs, and the tree has 3"):
        number(functools.partial(gradtx.global_norm, axis_names=[P("data")]), checked=True)
