"""Corner cases by name: bundles, masks, complex numbers, measures, plain pairs, targets, and the
first steps of the methods.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError
from tests.support.following import updates_of
from tests.support.peer import optax

W = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[3.0, 4.0]])}


# constraints and bundles


def test_zero_nans_tells_which_array_and_forgets_it_at_the_next_step() -> None:
    tx = gradtx.chain(gradtx.zero_nans(), gradtx.trace(0.5))
    state = tx.init(W)
    bad = {"a": jnp.array([jnp.nan, jnp.inf]), "b": jnp.ones((1, 2))}
    for gradient, found in ((bad, [True, False]), (W, [False, False])):
        updates, state = tx.update(gradient, state)
        assert [
            flag.item() for flag in jax.tree.leaves(state.slots["zero_nans"].found_nan)
        ] == found
    assert updates["a"].tolist() == [1.0, jnp.inf]
    complex_nan = jnp.array([complex(jnp.nan, 1.0), 2j])
    assert updates_of(gradtx.zero_nans(), [complex_nan])[0].tolist() == [0j, 2j]


def test_parameters_stop_at_zero_exactly() -> None:
    w = jnp.array([0.1, 0.3, 0.0, 1e-30, -1.0], jnp.bfloat16)
    tx = gradtx.keep_params_nonnegative()
    updates, _ = tx.update(
        jnp.array([-0.1001, -0.25, -0.5, -1.0, 0.25], jnp.bfloat16), tx.init(w), w
    )
    moved = gradtx.apply_updates(w, updates)
    assert (
        bool(jnp.all(moved >= 0))
        and moved[0] == moved[2] == moved[3] == moved[4] == 0
        and moved[1] > 0
    )


def test_a_bundle_with_nan_is_spoilt_and_the_next_is_not() -> None:
    gradients = [jnp.array([value]) for value in (1.0, jnp.nan, 2.0, 3.0, 4.0, 5.0)]
    ours, theirs = (
        updates_of(gradtx.apply_every(2), gradients),
        updates_of(optax.apply_every(2), gradients),
    )
    assert np.isnan(ours[1][0]) and [u.item() for u in ours[2:]] == [0.0, 5.0, 0.0, 9.0]
    assert all(np.isnan(u[0]) for u in theirs[2:])  # Optax's sum stays nan for ever


def test_a_bundle_is_due_by_the_clock_of_the_whole() -> None:
    """A state that is saved and loaded, or a member that joins later, is due with the others."""
    tx = gradtx.apply_every(3)
    state = tx.init(jnp.zeros(1))._replace(count=jnp.asarray(4, jnp.int32))
    due = []
    for _ in range(4):
        update, state = tx.update(jnp.ones(1), state)
        due.append(update.item())
    assert due == [0.0, 2.0, 0.0, 0.0]


# selecting and naming


@pytest.mark.parametrize(
    "freeze_mask",
    [r"^a$", {"a": True, "b": False}, lambda path, leaf: leaf.ndim == 1],
    ids=["regex", "tree", "predicate"],
)
def test_selective_transform_freezes_and_keeps_nothing_for_what_is_frozen(freeze_mask: Any) -> None:
    tx = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask=freeze_mask)
    updates, state = tx.update(W, tx.init(W))
    theirs = optax.selective_transform(optax.adam(0.1), freeze_mask={"a": True, "b": False})
    expected, _ = theirs.update(W, theirs.init(W))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5), updates, expected)
    assert state.slots["scale_by_adam"].mu["a"] is None and state.slots["scale_by_adam"].mu[
        "b"
    ].shape == (1, 2)
    assert gradtx.coverage(tx, W) == {"a": "frozen", "b": "adam"}


def test_selective_transform_takes_the_mask_of_a_function_where_optax_freezes_all() -> None:
    by_rank = functools.partial(jax.tree.map, lambda param: param.ndim == 1)
    moved = [
        gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask=by_rank),
        optax.selective_transform(optax.sgd(0.1), freeze_mask=by_rank),
    ]
    assert [bool(jnp.any(tx.update(W, tx.init(W))[0]["b"] != 0)) for tx in moved] == [True, False]


def test_selective_transform_names_itself_when_nothing_matches() -> None:
    with pytest.raises(
        GradtxError, match=r"selective_transform\(sgd\): 'kernel' matches none of the 2 leaves"
    ):
        gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask="kernel").init(W)


def test_named_chain() -> None:
    tx = gradtx.named_chain(("first", gradtx.trace(0.9)), ("then", optax.scale(2.0)))
    assert tx == gradtx.chain(first=gradtx.trace(0.9), then=tx.arguments["named"]["then"])
    assert list(tx.init(W).slots) == ["first", "then"]
    with pytest.raises(
        GradtxError,
        match="named_chain: two members are named 'x'; give every member a name of its own",
    ):
        gradtx.named_chain(("x", gradtx.scale(1.0)), ("x", gradtx.scale(2.0)))
    with pytest.raises(
        GradtxError,
        match=r"named_chain: argument 0 is scale\(step_size=1.0\); give pairs of a name and a "
        r"transformation",
    ):
        gradtx.named_chain(gradtx.scale(1.0))  # pyright: ignore[reportArgumentType]


def test_multi_transform_is_partition() -> None:
    assert gradtx.multi_transform is gradtx.partition


def takes_value(updates: Any, state: Any, params: Any = None, *, value: float) -> Any:
    return jax.tree.map(lambda u: u * value, updates), state


def test_plain_pairs_get_the_extra_arguments_they_take_and_no_other() -> None:
    plain = gradtx.GradientTransformation(gradtx.init_empty_state, takes_value)
    tx = gradtx.with_extra_args_support(plain)
    assert tx.init(W) == gradtx.EmptyState() == ()
    assert tx.update(2.0, tx.init(1.0), value=3.0, other=1)[0] == 6.0
    theirs = gradtx.with_extra_args_support(optax.scale(2.0))
    assert theirs.update(jnp.ones(()), theirs.init(jnp.ones(())), value=3.0)[0] == 2.0
    with pytest.raises(GradtxError, match="has no init and update"):
        gradtx.with_extra_args_support(3)  # pyright: ignore[reportArgumentType]


def test_a_function_of_one_array_is_given_float32_and_no_integers() -> None:
    seen = []

    def note(update: Any, param: Any) -> Any:
        seen.append((update.dtype, None if param is None else param.dtype))
        return update + 1

    tx = gradtx.stateless_with_tree_map(note)
    grads = {"w": jnp.ones(2, jnp.bfloat16), "n": jnp.asarray(3), "none": None}
    updates, _ = tx.update(grads, tx.init(grads), grads)
    assert (
        updates["w"].dtype == jnp.bfloat16
        and updates["w"].tolist() == [2.0, 2.0]
        and updates["n"] == 3
        and updates["none"] is None
    )
    alone = {"w": grads["w"]}  # without parameters an integer is refused
    tx.update(alone, tx.init(alone))
    assert seen == [(jnp.float32, jnp.float32), (jnp.float32, None)]


# layouts


def test_flatten_makes_one_vector_for_each_dtype() -> None:
    params = {
        "a": jnp.ones(3, jnp.bfloat16),
        "b": jnp.ones((2, 2)),
        "c": jnp.ones(()),
        "n": jnp.asarray(1),
        "none": None,
        "z": 1j * jnp.ones(2),
    }
    tx = gradtx.flatten(gradtx.chain(gradtx.snapshot("size", sizes), gradtx.trace(0.5)))
    updates, state = tx.update(params, tx.init(params), params)
    assert {name: array.shape for name, array in state.slots["trace"].trace.items()} == {
        "bfloat16": (3,),
        "float32": (5,),
        "complex64": (2,),
    }
    assert state.slots["snapshot"]["size"].tolist() == [3, 2, 5]
    jax.tree.map(np.testing.assert_array_equal, updates, params)
    assert jax.tree.map(lambda leaf: leaf.dtype, updates) == jax.tree.map(
        lambda leaf: leaf.dtype, params
    )


def sizes(updates: Any) -> Any:
    return jnp.array([updates[name].size for name in sorted(updates)])


def test_flatten_hands_extra_trees_down_as_vectors() -> None:
    def check(updates: Any, slots: Any, params: Any, step: Any, *, extra: Any) -> Any:
        return jax.tree.map(
            lambda u, other: u * other * extra["value"], updates, extra["other"]
        ), slots

    tx = gradtx.flatten(gradtx.treewise(None, check))
    updates, _ = tx.update(W, tx.init(W), value=2.0, other=W)
    jax.tree.map(lambda u, w: np.testing.assert_allclose(u, 2 * w * w), updates, W)


def test_flatten_under_a_mask_leaves_the_others_out() -> None:
    tx = gradtx.masked(gradtx.flatten(gradtx.trace(0.5)), "b")
    updates, state = tx.update(W, tx.init(W), W)
    assert (
        state.slots["trace"].trace["float32"].shape == (2,)
        and updates["a"].tolist() == W["a"].tolist()
    )


Z = {"z": jnp.array([3 - 4j, 0.01j]), "r": jnp.array([0.5, -2.0])}


def test_split_real_and_imaginary_is_the_inner_on_two_real_arrays() -> None:
    """Adam by hand on each part, five steps, beside Optax."""
    tx, theirs = (
        gradtx.split_real_and_imaginary(gradtx.adam(0.1)),
        optax.contrib.split_real_and_imaginary(optax.adam(0.1)),
    )
    gradients = [
        jax.tree.map(
            lambda leaf, n=n: leaf * (1 + n) - (0.5 + 0.25j if jnp.iscomplexobj(leaf) else 0.5) * n,
            Z,
        )
        for n in range(5)
    ]
    for part in (jnp.real, jnp.imag):
        alone = updates_of(gradtx.adam(0.1), [part(gradient["z"]) for gradient in gradients])
        for ours, expected in zip(updates_of(tx, gradients), alone, strict=True):
            np.testing.assert_allclose(part(ours["z"]), expected, rtol=1e-6)
    for ours, expected in zip(
        updates_of(tx, gradients), updates_of(theirs, gradients), strict=True
    ):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5), ours, expected)
        assert ours["z"].dtype == jnp.complex64 and ours["r"].dtype == jnp.float32


def test_the_parts_have_paths_that_masks_see() -> None:
    tx = gradtx.split_real_and_imaginary(gradtx.masked(gradtx.trace(0.5), r"^z/real$"))
    state = tx.init(Z)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(state.slots)[0]
    ]
    assert paths == ["trace/trace/z/real"]
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), Z)
    assert jax.tree.map(jnp.shape, tx.init(shapes)) == jax.tree.map(jnp.shape, state)


def test_mistakes_say_what_to_do() -> None:
    with pytest.raises(
        HyperparamError, match=r"apply_every: k = 0 is outside its range \[1, inf\]"
    ):
        gradtx.apply_every(0)
    with pytest.raises(HyperparamError, match=r"ademamix: b3 = 1.0 is outside its range \[0, 1\)"):
        gradtx.ademamix(0.1, b3=1.0)
