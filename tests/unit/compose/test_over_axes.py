"""`over_axes` and `axis_names=`: norms and means of whole arrays inside `shard_map` and `pmap`."""

import functools
import json
import pickle
import re
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

import gradtx

P = PartitionSpec
PARAMS = {"b": jnp.arange(8.0) / 3, "s": jnp.array(0.5), "w": jnp.arange(32.0).reshape(16, 2) / 10}
SPECS = {"b": P("data"), "s": P(), "w": P("data")}
CHECKED = pytest.mark.parametrize("checked", [False, True])
LISTED: dict[str, Callable[..., gradtx.GradientTransformation]] = {
    "adafactor": functools.partial(gradtx.adafactor, 0.1),
    "adaptive_grad_clip": functools.partial(gradtx.adaptive_grad_clip, 0.1),
    "clip_by_block_rms": functools.partial(gradtx.clip_by_block_rms, 0.1),
    "clip_by_global_norm": functools.partial(gradtx.clip_by_global_norm, 1.0),
    "dog": gradtx.dog,
    "guard": functools.partial(gradtx.guard, gradtx.sgd(0.1), max_norm=9.0),
    "lamb": functools.partial(gradtx.lamb, 0.1),
    "lars": functools.partial(gradtx.lars, 0.1),
    "normalize_by_update_norm": gradtx.normalize_by_update_norm,
    "prodigy": gradtx.prodigy,
    "with_metrics": functools.partial(gradtx.with_metrics, gradtx.sgd(0.1)),
}
"""The builders that take `axis_names`, as the issue lists them."""


def mapped(function: Any, specs: Any, out: Any, *, checked: bool = True, axes: Any = None) -> Any:
    """A function inside `shard_map`, jitted."""
    shape, names = axes or ((8,), ("data",))
    mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(shape))
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=checked)
    )


def one_update(tx: gradtx.GradientTransformation, params: Any) -> Any:
    return tx.update(params, tx.init(params), params)[0]


def update_of_parts(tx: gradtx.GradientTransformation, checked: bool = True) -> Any:
    """One update inside `shard_map`, from a state that is made there."""
    return mapped(functools.partial(one_update, tx), (SPECS,), SPECS, checked=checked)(PARAMS)


def update_of_types(tx: gradtx.GradientTransformation, checked: bool = True) -> Any:
    """Trace that update, and compile nothing."""
    run = mapped(functools.partial(one_update, tx), (SPECS,), SPECS, checked=checked)
    return jax.eval_shape(run, PARAMS)


@pytest.mark.parametrize("name", sorted(LISTED))
def test_builders_take_axis_names(name: str) -> None:
    plain, cut = LISTED[name](), LISTED[name](axis_names=SPECS)
    chex.assert_trees_all_close(update_of_parts(cut), one_update(plain, PARAMS), rtol=1e-6)
    assert list(gradtx.flatten_state(cut.init(PARAMS))) == list(
        gradtx.flatten_state(plain.init(PARAMS))
    )


def test_names_alone_do_for_a_norm() -> None:
    """Types say which arrays the axis cuts; a number is equal on all devices."""
    tx = gradtx.guard(gradtx.adamw(0.1), zscore=4.0, axis_names="data")
    expected = one_update(gradtx.guard(gradtx.adamw(0.1), zscore=4.0), PARAMS)
    chex.assert_trees_all_close(update_of_parts(tx), expected, rtol=1e-5)


def test_a_member_of_a_chain_has_axes_of_its_own() -> None:
    cut = gradtx.clip_by_global_norm(1.0, axis_names="data")
    tx = gradtx.chain(cut, gradtx.adamw(0.1))
    plain = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
    chex.assert_trees_all_close(update_of_parts(tx), one_update(plain, PARAMS), rtol=1e-5)


def test_outside_of_shard_map_arrays_are_whole() -> None:
    cut = gradtx.clip_by_global_norm(1.0, axis_names="data")
    plain = gradtx.clip_by_global_norm(1.0)
    chex.assert_trees_all_equal(one_update(cut, PARAMS), one_update(plain, PARAMS))


def test_pmap() -> None:
    tx, plain = gradtx.clip_by_global_norm(1.0, axis_names="i"), gradtx.clip_by_global_norm(1.0)
    params = {"b": jnp.arange(8.0), "w": jnp.arange(32.0).reshape(16, 2)}
    parts = {"b": params["b"].reshape(8, 1), "w": params["w"].reshape(8, 2, 2)}
    ours = jax.pmap(functools.partial(one_update, tx), axis_name="i")(parts)
    ours = jax.tree.map(lambda one, like: one.reshape(like.shape), ours, params)
    chex.assert_trees_all_close(ours, one_update(plain, params), rtol=1e-6)


def test_two_axes_of_a_mesh() -> None:
    """Each axis of an array is cut by its own axis of the mesh, as the spec says."""
    params = {"v": jnp.arange(4.0), "w": jnp.arange(32.0).reshape(8, 4) / 9}
    specs = {"v": P("y"), "w": P("x", "y")}
    tx, plain = gradtx.adafactor(0.1, 2, axis_names=specs), gradtx.adafactor(0.1, 2)
    run = functools.partial(one_update, tx)
    ours = mapped(run, (specs,), specs, axes=((4, 2), ("x", "y")))(params)
    chex.assert_trees_all_close(ours, one_update(plain, params), rtol=1e-5)


def test_a_state_that_was_made_outside() -> None:
    """Its slots are cut by the specs that the caller passes, and stay so in a loop."""
    plain = gradtx.adafactor(0.1, 2)
    tx = gradtx.over_axes(plain, SPECS)
    state = tx.init(PARAMS)
    cut = {"w": P("data")}

    def spec(path: str, leaf: Any) -> Any:
        is_row = leaf.shape and leaf.shape[0] in (8, 16)
        return cut["w"] if is_row else P()

    flat = {path: spec(path, leaf) for path, leaf in gradtx.flatten_state(state).items()}
    specs = jax.tree.unflatten(jax.tree.structure(state), list(flat.values()))

    def loop(params: Any, state: Any) -> Any:
        def body(carry: Any, _: None) -> Any:
            updates, state = tx.update(carry[0], carry[1], carry[0])
            return (gradtx.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(body, (params, state), None, length=2)[0]

    ours, _ = mapped(loop, (SPECS, specs), (SPECS, specs))(PARAMS, state)
    params, other = PARAMS, plain.init(PARAMS)
    for _ in range(2):
        updates, other = plain.update(params, other, params)
        params = gradtx.apply_updates(params, updates)
    chex.assert_trees_all_close(ours, params, rtol=1e-5)


@CHECKED
def test_a_nan_on_one_device_is_skipped_by_all(checked: bool) -> None:
    tx = gradtx.guard(gradtx.sgd(0.1, momentum=0.9), axis_names=SPECS)
    bad = {**PARAMS, "w": PARAMS["w"].at[3, 0].set(jnp.nan)}

    def run(params: Any, bad: Any) -> Any:
        _, state = tx.update(params, tx.init(params), params)
        updates, state = tx.update(bad, state, params)
        return updates, state.slots["trace"].trace, state.slots["guard"].skipped

    results = mapped(run, (SPECS, SPECS), (SPECS, SPECS, P()), checked=checked)(PARAMS, bad)
    updates, momentum, skipped = results
    assert skipped == 1 and not any(jnp.any(one) for one in jax.tree.leaves(updates))
    chex.assert_trees_all_equal(momentum, PARAMS)


@CHECKED
def test_devices_with_parameters_of_their_own(checked: bool) -> None:
    """`axis_names=()`: a norm for each device, and no warning."""
    tx = gradtx.clip_by_global_norm(1.0, axis_names=())
    w = jnp.arange(1.0, 17.0)
    run = functools.partial(one_update, tx)
    ours = mapped(run, (P("data"),), P("data"), checked=checked)(w)
    pairs = w.reshape(8, 2)
    expected = pairs / jnp.linalg.norm(pairs, axis=1, keepdims=True)
    chex.assert_trees_all_close(ours, expected.reshape(16), rtol=1e-6)


def test_random_numbers_are_those_of_the_whole_array() -> None:
    plain = gradtx.add_noise(0.1, 0.5, 3)
    cut = gradtx.over_axes(plain, "data")
    w = jnp.arange(16.0)
    ours = mapped(functools.partial(one_update, cut), (P("data"),), P("data"))(w)
    chex.assert_trees_all_close(ours, one_update(plain, w), rtol=1e-6)


def test_stochastic_rounding_has_the_bits_of_the_whole_array() -> None:
    plain = gradtx.stored(gradtx.trace(0.9), "bf16", min_size=0)
    cut = gradtx.over_axes(plain, "data")

    def momentum(tx: gradtx.GradientTransformation, w: Any) -> Any:
        return jax.tree.leaves(tx.update(w, tx.init(w), w)[1].slots)[0]

    w = jnp.sin(jnp.arange(64.0))
    ours = mapped(functools.partial(momentum, cut), (P("data"),), P("data"))(w)
    chex.assert_trees_all_equal(ours, momentum(plain, w))
    assert ours.dtype == jnp.bfloat16 and jnp.any(ours != w.astype(jnp.bfloat16))


def test_a_clip_sums_numbers_and_gathers_nothing() -> None:
    tx = gradtx.clip_by_global_norm(1.0, axis_names="data")
    run = mapped(functools.partial(one_update, tx), (SPECS,), SPECS)
    text = run.lower(PARAMS).compile().as_text()
    assert "all-gather" not in text and "all-reduce" in text
    sizes = re.findall(r"= (\S+) all-reduce(?:-start)?\(", text)
    assert all(re.fullmatch(r"\(?(f32\[\](, )?)+\)?", one) for one in sizes), sizes


def test_a_definition_prints_compares_and_goes_to_json() -> None:
    rules = [("w", P("data", None)), (".*", P("data"))]
    tx = gradtx.over_axes(gradtx.clip(1.0), rules)
    assert repr(tx) == (
        "over_axes(inner=clip(max_delta=1.0), axis_names=[('w', P('data', None)), ('.*', "
        "P('data',))])"
    )
    config = json.loads(json.dumps(gradtx.to_config(tx)))
    assert gradtx.from_config(config) == tx == pickle.loads(pickle.dumps(tx))
    assert hash(gradtx.from_config(config)) == hash(tx)


def test_reports_of_a_clip_pass_through() -> None:
    clip = gradtx.clip_by_global_norm(1.0, axis_names="data")
    tx = gradtx.with_metrics(gradtx.chain(clip, gradtx.sgd(0.1)))
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert gradtx.metrics(tx, state)["clip_rate"] > 0.99


def refused(text: str) -> Any:
    return pytest.raises(gradtx.GradtxError, match=f"^{re.escape(text)}")


def test_an_axis_of_another_name() -> None:
    with refused(
        "over_axes: axis_names has 'model', and the axes of this shard_map or pmap are 'data': "
        "name one of these"
    ):
        update_of_types(gradtx.clip_by_global_norm(1.0, axis_names="model"))


def test_names_alone_where_the_axis_of_an_array_matters() -> None:
    with refused(
        "over_axes: scale_by_factored_rms depends on which axis of an array is cut, and axis_names "
        "= 'data' names the mesh axes alone: give PartitionSpecs, axis_names=[('kernel$', P('data',"
        " None)), ('.*', P('data'))]"
    ):
        update_of_types(gradtx.adafactor(0.1, 2, axis_names="data"))


def test_a_spec_of_an_array_that_is_whole() -> None:
    with refused(
        "over_axes: axis_names says that 'data' cuts 'b', whose type says that it is equal along "
        "'data': give axis_names the spec that shard_map has in in_specs"
    ):
        tx = gradtx.clip_by_global_norm(1.0, axis_names={**SPECS})
        specs = {**SPECS, "b": P()}
        jax.eval_shape(mapped(functools.partial(one_update, tx), (specs,), specs), PARAMS)


def test_a_spec_of_more_axes_than_the_array() -> None:
    tx = gradtx.clip_by_global_norm(1.0, axis_names={**SPECS, "b": P("data", None)})
    with refused(
        "over_axes: axis_names says P('data', None) for 'b', which has 1 axes: a PartitionSpec "
        "has one entry for each axis"
    ):
        update_of_types(tx)


def test_rules_that_leave_an_array_out() -> None:
    with refused("over_axes: no rule of axis_names claims 's': end with ('.*', names)"):
        update_of_types(gradtx.clip_by_global_norm(1.0, axis_names=[("[bw]", "data")]))


def test_specs_for_another_number_of_arrays() -> None:
    with pytest.raises(gradtx.GradtxError, match="give one PartitionSpec for each leaf"):
        update_of_types(gradtx.clip_by_global_norm(1.0, axis_names=[P("data")]))


def test_gradients_that_nobody_summed() -> None:
    tx = gradtx.clip_by_global_norm(1.0, axis_names="data")

    def run(params: Any, grads: Any) -> Any:
        return tx.update(grads, tx.init(params), params)[0]

    with refused(
        "over_axes: the gradient and the parameter '' differ over other axes: one of them is equal "
        "along ('data',): sum the gradients by jax.lax.psum, or cut both alike"
    ):
        jax.eval_shape(mapped(run, (P(), P("data")), P("data")), jnp.ones(2), jnp.ones(16))


def test_a_loss_that_differs_over_devices() -> None:
    tx = gradtx.over_axes(gradtx.momo(1.0), "data")

    def run(params: Any) -> Any:
        return tx.update(params, tx.init(params), params, value=jnp.sum(params))[0]

    with refused(
        "over_axes: value= differs over ('data',): pass its mean over devices, "
        "jax.lax.pmean(value, 'data')"
    ):
        jax.eval_shape(mapped(run, (P("data"),), P("data")), jnp.ones(16))


def test_a_state_that_is_cut_in_another_way() -> None:
    tx = gradtx.over_axes(gradtx.trace(0.9), SPECS)
    other = gradtx.trace(0.9).init({**PARAMS, "w": jnp.ones((24, 2))})
    specs = jax.tree.map(lambda one: P("data") if one.ndim else P(), other)
    run = mapped(lambda params, state: tx.update(params, state, params)[0], (SPECS, specs), SPECS)
    with refused(
        "over_axes: the slot 'trace/trace/w' has the shape (3, 2) on this device, and (16, 2) for "
        "the whole parameters: make the state by tx.init with the same axis_names"
    ):
        jax.eval_shape(run, PARAMS, other)
