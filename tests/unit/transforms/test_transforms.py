"""Corner cases by name: bundles, masks, complex numbers, measures, plain pairs, targets, and the
first steps of the methods.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError, StructureError
from tests.support.peer import optax
from tests.support.torch_rows import torch_trace
from tests.support.trees import follow, start

W = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[3.0, 4.0]])}


def steps(tx: Any, gradients: Any, params: Any = None) -> list[Any]:
    state, found = tx.init(gradients[0] if params is None else params), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        found.append(updates)
    return found


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
    assert steps(gradtx.zero_nans(), [complex_nan])[0].tolist() == [0j, 2j]


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
    ours, theirs = steps(gradtx.apply_every(2), gradients), steps(optax.apply_every(2), gradients)
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
    assert gradtx.coverage(tx, W) == {"a": "set_to_zero", "b": "adam"}


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
    updates, _ = tx.update(grads, tx.init(grads))
    assert (
        updates["w"].dtype == jnp.bfloat16
        and updates["w"].tolist() == [2.0, 2.0]
        and updates["n"] == 3
        and updates["none"] is None
    )
    tx.update(grads, tx.init(grads), grads)
    assert seen == [(jnp.float32, None), (jnp.float32, jnp.float32)]


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

    tx = gradtx.flatten(gradtx.treewise(None, check, name="check"))
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
        alone = steps(gradtx.adam(0.1), [part(gradient["z"]) for gradient in gradients])
        for ours, expected in zip(steps(tx, gradients), alone, strict=True):
            np.testing.assert_allclose(part(ours["z"]), expected, rtol=1e-6)
    for ours, expected in zip(steps(tx, gradients), steps(theirs, gradients), strict=True):
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


# measures


def test_measures_are_optax_numbers_and_stand_in_the_state_by_name() -> None:
    def measures(library: Any) -> Any:
        norm = library.tree.norm if library is optax else library.global_norm
        smooth = {
            "smooth": library.measure_with_ema(norm, 0.9),
            "raw": library.measure_with_ema(norm, 0.9, debias=False),
        }
        return library.chain(
            library.trace(0.5),
            library.monitor({"norm": norm, "first": first, **smooth}),
            library.scale(-0.1),
        )

    ours, theirs = measures(gradtx), measures(optax)
    state, other = ours.init(W), theirs.init(W)
    assert {name: value.shape for name, value in state.slots["monitor"].items()} == {
        "norm": (),
        "first": (2,),
        "smooth": (),
        "raw": (),
    }
    for n in range(4):
        gradient = jax.tree.map(lambda leaf, n=n: leaf * (n - 1.5), W)
        (_, state), (_, other) = ours.update(gradient, state), theirs.update(gradient, other)
        for name, value in state.slots["monitor"].items():
            np.testing.assert_allclose(value, other[1].measurements[name], rtol=2e-6)


def first(updates: Any) -> Any:
    return updates["a"]


def test_averages_of_measures_by_hand() -> None:
    """Norms 5, 10, 0 with β = 0.5, corrected: 5, (0.25·5 + 0.5·10)/0.75, (0.125·5 +
    0.25·10)/0.875.
    """
    tx = gradtx.measure_with_ema(gradtx.global_norm, 0.5, accumulator_dtype=jnp.float16)
    state, found = tx.init(jnp.zeros(2)), []
    for size in (1.0, 2.0, 0.0):
        _, state = tx.update(size * jnp.array([3.0, -4.0]), state)
        found.append(state.slots["ema"].item())
    assert state.slots["ema"].dtype == jnp.float16 and found == pytest.approx(
        [5.0, 6.25 / 0.75, 3.125 / 0.875], rel=1e-3
    )


def test_a_measure_is_kept_in_float32_at_least_and_may_be_a_tree() -> None:
    params = {"a": jnp.array([1.0, 2.0], jnp.bfloat16)}
    tx = gradtx.snapshot("all", lambda updates: {"it": updates["a"], "entries": jnp.asarray(2)})
    state = tx.update(params, tx.init(params))[1]
    kept = state.slots["all"]
    assert (
        kept["it"].dtype == jnp.float32
        and kept["it"].tolist() == [1.0, 2.0]
        and kept["entries"].dtype == jnp.int32
    )


def test_what_is_no_measure_is_refused_by_name() -> None:
    for wrong, shown in ((3, "3"), (gradtx.trace(0.9), r"trace\(decay=0.9\)")):
        with pytest.raises(
            GradtxError,
            match=rf"monitor: norm is {shown}, which is no measure; give a function of the "
            r"updates, or measure_with",
        ):
            gradtx.monitor({"norm": wrong})


# targets


def test_incremental_update_keeps_the_dtype_of_the_old_and_rounds_once() -> None:
    old = {"w": jnp.array([1.0, 3.0], jnp.bfloat16), "n": jnp.asarray(1), "none": None}
    new = {"w": jnp.array([1.01171875, -1.0]), "n": jnp.asarray(2), "none": None}
    mixed = gradtx.incremental_update(new, old, 0.25)
    assert mixed["w"].dtype == jnp.bfloat16 and mixed["n"] == 2 and mixed["none"] is None
    expected = (
        0.25 * np.asarray(new["w"], np.float64) + 0.75 * np.asarray(old["w"], np.float64)
    ).astype(jnp.bfloat16)
    np.testing.assert_array_equal(mixed["w"], expected)
    ours, theirs = (
        library.incremental_update(W, jax.tree.map(jnp.ones_like, W), 0.3)
        for library in (gradtx, optax)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), ours, theirs)


def test_periodic_update_takes_the_new_when_it_is_due() -> None:
    old = {"w": jnp.zeros(1, jnp.bfloat16), "n": 1, "none": None}
    new = {"w": jnp.ones(1), "n": 2, "none": None}
    advance: Callable[..., Any] = jax.jit(gradtx.periodic_update)
    for count, due in enumerate([True, False, False, True, False]):
        found = advance(new, old, count, 3)
        assert found["w"].dtype == jnp.bfloat16 and found["none"] is None
        assert (float(found["w"][0]), int(found["n"])) == ((1.0, 2) if due else (0.0, 1))
        like = optax.periodic_update(W, jax.tree.map(jnp.zeros_like, W), count, 3)
        jax.tree.map(
            np.testing.assert_array_equal,
            gradtx.periodic_update(W, jax.tree.map(jnp.zeros_like, W), count, 3),
            like,
        )


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (
            {"a": W["a"]},
            "incremental_update: the new and the old tensors differ in structure: 'b' is "
            "only in the old",
        ),
        (
            {**W, "b": jnp.ones(3)},
            r"incremental_update: 'b' has shape \(3,\) in the new tensors, \(1, 2\) in the old",
        ),
        ({**W, "b": None}, "'b' has shape None in the new tensors"),
    ],
)
def test_targets_of_another_structure_are_told_apart(new: Any, text: str) -> None:
    with pytest.raises(StructureError, match=text):
        gradtx.incremental_update(new, W, 0.5)


# methods


def test_adopt_moves_nothing_at_its_first_step_whatever_the_bound() -> None:
    for tx in (
        gradtx.adopt(0.1),
        gradtx.adopt(0.1, use_clipping=False),
        gradtx.adopt(0.1, nesterov=True, clip_value_fn=5.0),
    ):
        assert steps(tx, [jnp.array([3.0, -1e9, 0.0])])[0].tolist() == [0.0, 0.0, 0.0]


def test_adopt_takes_a_number_a_schedule_or_a_function_as_its_bound() -> None:
    gradients = [jnp.array([1.0])] + [jnp.array([100.0])] * 3
    bounds = {
        "number": 2.0,
        "schedule": gradtx.linear_schedule(0.0, 3.0, 3),
        "function": lambda count: 2.0 * count,
    }
    expected = {"number": [2.0, 2.0, 2.0], "schedule": [1.0, 2.0, 3.0], "function": [2.0, 4.0, 6.0]}
    for kind, bound in bounds.items():
        tx = gradtx.scale_by_adopt(b1=0.0, b2=0.0, clip_value_fn=bound)
        capped = [
            min(want, 100.0 / last)
            for want, last in zip(expected[kind], [1.0, 100.0, 100.0], strict=True)
        ]
        assert [u.item() for u in steps(tx, gradients)[1:]] == pytest.approx(capped)
    assert gradtx.from_config(gradtx.to_config(gradtx.adopt(0.1))) == gradtx.adopt(0.1)


def test_adopt_refuses_complex_arrays_only_where_it_clips() -> None:
    with pytest.raises(StructureError, match="scale_by_adopt is not defined for complex numbers"):
        gradtx.adopt(0.1).init(Z)
    free = steps(gradtx.adopt(0.1, b1=0.0, use_clipping=False), [Z["z"], Z["z"]])[1]
    np.testing.assert_allclose(free, -0.1 * Z["z"] / jnp.abs(Z["z"]), rtol=1e-5)


def test_acprop_survives_a_gradient_that_never_changes() -> None:
    updates = steps(
        gradtx.acprop(0.1, weight_decay=0.0), [jnp.array([0.0, 1e-20, 1.0])] * 30, jnp.zeros(3)
    )
    assert all(bool(jnp.all(jnp.isfinite(u))) for u in updates)


def test_mars_corrects_matrices_alone_and_starts_without_a_change() -> None:
    params = {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 2))}
    gradients = [
        jax.tree.map(lambda leaf, n=n: leaf + 0.1 * (n + 1) ** 2, params) for n in range(3)
    ]
    tx = gradtx.scale_by_mars(0.9, 0.95, gamma=0.5, vector_b1=0.9, vector_b2=0.95)
    ours, plain = steps(tx, gradients), steps(gradtx.scale_by_adam(0.9, 0.95), gradients)
    for n, (found, adam) in enumerate(zip(ours, plain, strict=True)):
        np.testing.assert_allclose(found["bias"], adam["bias"], rtol=1e-6)
        assert np.allclose(found["kernel"], adam["kernel"], rtol=1e-5) == (n == 0)
    slots = tx.init(params).slots
    assert slots["matrices"]["mars_correction"].grad == {
        "bias": None,
        "kernel": pytest.approx(np.zeros((2, 2))),
    }
    assert slots["vectors"].mu["kernel"] is None


def test_mars_beside_pytorch_optimizer() -> None:
    """Its trace: a change from 0 at first, a learning rate of 3e-3 for vectors, and ε/√(1 − β2^t)
    in place of ε, which costs 1e-6 here.
    """
    parts = {
        name: gradtx.mars(eta, weight_decay=0.1, from_zero=True)
        for name, eta in (("matrix", 0.01), ("vector", 3e-3))
    }
    tx = gradtx.partition(
        parts,
        functools.partial(jax.tree.map, lambda param: "matrix" if param.ndim > 1 else "vector"),
    )
    with jax.enable_x64(True):
        updates = follow(tx, jnp.float64)
    params = start()
    for found, recorded in zip(updates, torch_trace("mars"), strict=True):
        params = [w + u for w, u in zip(params, found, strict=True)]
        for w, theirs in zip(params, recorded, strict=True):
            np.testing.assert_allclose(w, theirs, rtol=1e-6, atol=1e-6)


def test_mars_correction_bounds_every_array_and_keeps_nan_where_it_is() -> None:
    u = steps(
        gradtx.mars_correction(),
        [
            {
                "a": jnp.array([30.0, 40.0]),
                "b": jnp.array([0.3, 0.4]),
                "c": jnp.array([jnp.nan, 5.0]),
            }
        ],
    )[0]
    np.testing.assert_allclose(u["a"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(u["b"], [0.3, 0.4], rtol=1e-6)
    assert np.isnan(u["c"][0]) and u["c"][1] == 0.0


def test_mistakes_say_what_to_do() -> None:
    with pytest.raises(
        HyperparamError, match=r"apply_every: k = 0 is outside its range \(0, inf\]"
    ):
        gradtx.apply_every(0)
    with pytest.raises(HyperparamError, match=r"ademamix: b3 = 1.0 is outside its range \[0, 1\)"):
        gradtx.ademamix(0.1, b3=1.0)
