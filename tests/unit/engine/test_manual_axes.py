"""Without `axis_names` an update inside `shard_map` never takes a part for the whole array."""

import functools
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

import gradtx
from tests.unit.compose.test_over_axes import (
    PARAMS,
    mapped,
    one_update,
    update_of_parts,
    update_of_types,
)


def refused(text: str) -> Any:
    return pytest.raises(gradtx.GradtxError, match=re.escape(text))


def test_a_norm_of_parts_is_refused() -> None:
    with refused(
        "chain: clip_by_global_norm computes with each device's part of 'b' as if it were the "
        "array, which the axes ('data') of this shard_map cut: wrap it, over_axes(chain(...), "
        "axis_names='data'), or update outside of shard_map; axis_names=() says that each device "
        "has parameters of its own"
    ):
        update_of_types(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1)))


@pytest.mark.parametrize(
    ("tx", "rule"),
    [
        (gradtx.muon(0.1), "muon: scale_by_muon computes with each device's part of"),
        (gradtx.soap(0.1), "soap: scale_by_soap computes with each device's part of"),
        (gradtx.guard(gradtx.sgd(0.1)), "guard: it computes with each device's part of 'b'"),
        (gradtx.add_noise(0.1, 0.5, 3), "add_noise: it uses the same numbers, random ones or by"),
    ],
    ids=["muon", "soap", "guard", "noise"],
)
def test_matrices_verdicts_and_noise_of_parts_are_refused(tx: Any, rule: str) -> None:
    with refused(rule):
        update_of_types(tx)


def test_a_rule_that_looks_at_the_size_of_an_array_is_refused() -> None:
    """A part may be too small to factor, where the array is not: no sum says so."""
    tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=4)
    w = jnp.ones((16, 8))
    with refused("computes with each device's part of the gradient as if it were the array"):
        run = mapped(functools.partial(one_update, tx), (P("data"),), P("data"))
        jax.eval_shape(run, w)


def test_a_rule_of_your_own_that_sums_over_devices_runs() -> None:
    def _halve(grad: Any, slots: None, param: Any, step: Any) -> Any:
        return grad / jax.lax.psum(jnp.sum(grad**2), "data"), slots

    tx, w = gradtx.leafwise(None, _halve), jnp.arange(1.0, 17.0)
    ours = mapped(functools.partial(one_update, tx), (P("data"),), P("data"))(w)
    chex.assert_trees_all_close(ours, w / jnp.sum(w**2), rtol=1e-6)


def test_a_rule_of_your_own_is_refused_by_its_name() -> None:
    def _center(grad: Any, slots: None, param: Any, step: Any) -> Any:
        return grad - jnp.mean(grad), slots

    @gradtx.definition
    def center() -> gradtx.GradientTransformation:
        return gradtx.leafwise(None, _center)

    with refused("center: it computes with each device's part of 'b' as if it were the array"):
        update_of_types(center())


def test_methods_on_every_entry_run_on_parts() -> None:
    tx = gradtx.chain(gradtx.clip(0.5), gradtx.adamw(0.1))
    chex.assert_trees_all_close(update_of_parts(tx), one_update(tx, PARAMS), rtol=1e-5)


def test_a_replicated_model_needs_no_word() -> None:
    tx = gradtx.clip_by_global_norm(1.0)
    ours = mapped(functools.partial(one_update, tx), (P(),), P())(PARAMS)
    chex.assert_trees_all_close(ours, one_update(tx, PARAMS), rtol=1e-6)


def test_without_types_a_warning_says_what_may_be_wrong() -> None:
    with pytest.warns(UserWarning) as record:
        update_of_types(gradtx.clip_by_global_norm(1.0), checked=False)
    assert str(record[0].message) == (
        "clip_by_global_norm: if the axes ('data') of this shard_map or pmap cut the parameters, "
        "it computes with each device's part of 'b' as if it were the array: wrap it, "
        "over_axes(clip_by_global_norm(...), axis_names='data'); axis_names=() says that each "
        "device has parameters of its own, or all of them"
    )


def test_pmap_warns_too() -> None:
    tx = gradtx.normalize()
    with pytest.warns(UserWarning, match=r"normalize: if the axes \('i'\) of this shard_map or"):
        jax.eval_shape(jax.pmap(functools.partial(one_update, tx), axis_name="i"), jnp.ones((8, 3)))
