"""Rules on matrices: which axes are what, who is routed where, turns, several devices, and what
goes wrong, by path.
"""

from typing import Any, NamedTuple, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
import gradtx.sharding
from gradtx.compose.matrixwise import where_due
from gradtx.definition.errors import SelectionError, StructureError
from gradtx.engine.matrix_layout import layout_of
from tests.methods.muon import Axes


class Seen(NamedTuple):
    """Something like the matrix, a factor of its inputs, one number for each, and its turn."""

    mu: jax.Array
    left: jax.Array
    turn: jax.Array


def init(param: jax.Array) -> Seen:
    *batch, n, _ = param.shape
    return Seen(jnp.zeros(param.shape), jnp.zeros((*batch, n, n)), jnp.zeros(tuple(batch)))


def update(
    grad: jax.Array,
    slots: Seen,
    param: None,
    step: jax.Array,
    *,
    refresh_offset: jax.Array,
    refresh_every: int,
) -> Any:
    due = (step.astype(jnp.int32) + refresh_offset) % refresh_every == 0
    left = where_due(due, lambda g, old: old + g @ g.T, (grad, slots.left), slots.left)
    return grad / jnp.sum(grad, axis=(-2, -1), keepdims=True), Seen(
        grad, left, refresh_offset.astype(jnp.float32)
    )


def watch(every: int = 3, **told: Any) -> gradtx.GradientTransformation:
    return gradtx.matrixwise(init, update, refresh_every=every, **told)


@pytest.mark.parametrize(
    ("words", "shape", "expected"),
    [
        (None, (2, 3, 4), (2, 3, 4)),
        ("out in", (3, 4), (4, 3)),
        ("in in in out", (2, 2, 3, 4), (12, 4)),
        ("batch in batch out", (5, 3, 2, 4), (5, 2, 3, 4)),
        ("in out/3", (4, 12), (3, 4, 4)),
        ("... in out", (2, 5, 3, 4), (2, 5, 3, 4)),
        ("out/2 in", (6, 4), (2, 4, 3)),
    ],
)
def test_words_say_the_matrices(
    words: str | None, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    layout = layout_of(shape, words)
    array = np.arange(np.prod(shape)).reshape(shape)
    assert layout.shape == expected and layout.matrix(array).shape == expected
    np.testing.assert_array_equal(layout.array(layout.matrix(array)), array)


def test_matrices_are_what_their_words_say() -> None:
    """The second head of the last layer, and the third part of a fused kernel, by hand."""
    kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(
        layout_of(kernel.shape, "batch in batch out").matrix(kernel)[1, 1], kernel[1, :, 1, :]
    )
    np.testing.assert_array_equal(
        layout_of(kernel.shape, "in batch in out").matrix(kernel)[1, 7], kernel[1, 1, 3, :]
    )
    fused = np.arange(4 * 12).reshape(4, 12)
    np.testing.assert_array_equal(layout_of(fused.shape, "in out/3").matrix(fused)[2], fused[:, 8:])
    np.testing.assert_array_equal(layout_of((12, 4), "out/3 in").matrix(fused.T)[2], fused[:, 8:])


def test_slots_like_the_matrices_stand_in_the_shape_of_the_parameter() -> None:
    params = {"conv": jnp.ones((2, 2, 3, 4)), "fused": jnp.ones((4, 12)), "plain": jnp.ones((2, 3))}
    tx = watch(dimensions=[("conv", "in in in out"), ("fused", "in out/3")])
    updates, state = tx.update(params, tx.init(params))
    kept = state.slots["update"]
    assert jax.tree.map(jnp.shape, kept.mu) == {
        "conv": (2, 2, 3, 4),
        "fused": (4, 12),
        "plain": (2, 3),
    }
    assert kept.left["conv"].shape == (12, 12) and kept.turn["fused"].shape == (3,)
    np.testing.assert_allclose(updates["fused"], 1 / 16)
    np.testing.assert_allclose(updates["conv"], 1 / 48)


def test_turns_share_the_work() -> None:
    """Two costly matrices never at one step; the small ones at the steps that have less."""
    params = {"a": jnp.ones((8, 8)), "b": jnp.ones((8, 8)), "many": jnp.ones((6, 2, 2))}
    tx = watch(3)
    state, worked = tx.init(params), []
    for _ in range(3):
        before = state.slots["update"].left
        _, state = tx.update(params, state)
        after = state.slots["update"].left
        worked.append(
            jax.tree.map(lambda old, new: np.sum(np.any(old != new, axis=(-2, -1))), before, after)
        )
    assert all(step["a"] + step["b"] <= 1 for step in worked)
    assert (
        sum(step["many"] for step in worked) == 6
        and min(step["a"] + step["b"] + step["many"] for step in worked) >= 1
    )


TREE = {
    "embed": {"embedding": jnp.ones((6, 4))},
    "block_0": {
        "qkv": {"kernel": jnp.ones((4, 12)), "bias": jnp.ones(12)},
        "norm": {"scale": jnp.ones(4)},
        "moe": {"router": jnp.ones((4, 2))},
    },
    "conv": {"kernel": jnp.ones((2, 2, 3, 4))},
    "stacked_norm": jnp.ones((3, 4)),
    "lm_head": {"kernel": jnp.ones((4, 6))},
}


def test_muon_gets_hidden_matrices_and_adam_the_rest() -> None:
    found = gradtx.coverage(gradtx.muon(0.1), TREE)
    assert {path for path, group in found.items() if group == "muon"} == {"block_0/qkv/kernel"}
    with_conv = gradtx.coverage(
        gradtx.muon(
            0.1, dimensions=[("conv", "in in in out")], routes=[("router", "muon"), ("qkv", "adam")]
        ),
        TREE,
    )
    assert {path for path, group in with_conv.items() if group == "muon"} == {
        "conv/kernel",
        "block_0/moe/router",
    }


def test_axes_by_number_are_axes_by_words() -> None:
    """A tree as Optax has it says, too, what is a matrix."""
    params = {"w": jnp.ones((2, 3, 4)), "other": jnp.ones((4, 4))}
    numbered = gradtx.muon(0.1, muon_weight_dimension_numbers={"w": Axes((0, 1), 2), "other": None})
    worded = gradtx.muon(0.1, dimensions=[("w", "in in out")], routes=[("other", "adam")])
    assert (
        gradtx.coverage(numbered, params)
        == gradtx.coverage(worded, params)
        == {"w": "muon", "other": "adam"}
    )
    both = [tx.update(params, tx.init(params), params)[0] for tx in (numbered, worded)]
    chex.assert_trees_all_equal(*both)


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (
            gradtx.scale_by_muon,
            StructureError,
            r"'block_0/norm/scale' has shape \(4,\), which is not a matrix: leave it to another "
            r"rule",
        ),
        (
            lambda: gradtx.muon(0.1, routes=[("norm|qkv", "muon")]),
            SelectionError,
            r"claims 'block_0/norm/scale' of shape \(4,\), which is not a matrix",
        ),
        (
            lambda: gradtx.muon(
                0.1, routes=[("kernel", "muon")], dimensions=[("conv", "in in in out")]
            ),
            SelectionError,
            r"claims 'lm_head/kernel', by its name a head, which muon does not fit",
        ),
        (
            lambda: gradtx.muon(0.1, routes=[("qkv/kernel", "moon")]),
            SelectionError,
            r"'moon'\) of routes names no group; the groups are 'muon' and",
        ),
        (
            lambda: gradtx.muon(0.1, dimensions=[("qkv/kernel", "in batch out")]),
            StructureError,
            r"it says 3 axes, one word for each",
        ),
        (
            lambda: gradtx.muon(0.1, dimensions=[("qkv/kernel", "in out/5")]),
            StructureError,
            r"an axis of 12 cannot be cut into 5 parts",
        ),
        (
            lambda: gradtx.muon(0.1, dimensions=[("qkv/kernel", "in in")]),
            StructureError,
            r"it names no axis out",
        ),
        (
            lambda: gradtx.muon(0.1, dimensions=[("qkv/kernel", "rows out")]),
            StructureError,
            r"its words are batch, in, out",
        ),
        (
            lambda: gradtx.muon(0.1, dimensions=[("block_0/qvk/kernel", "in out")]),
            SelectionError,
            r"matches none of the 8 leaves; nearest: 'block_0/qkv",
        ),
        (
            lambda: gradtx.muon(0.1, cast(Any, "polar")),
            gradtx.GradtxError,
            r"ns_coeffs = 'polar' is unknown",
        ),
        (
            lambda: gradtx.muon(0.1, scaling="rms"),  # pyright: ignore[reportArgumentType]
            gradtx.GradtxError,
            r"scaling = 'rms' is unknown",
        ),
        (
            lambda: gradtx.muon(0.1, scaling=-1.0),
            gradtx.GradtxError,
            r"scaling = -1\.0 is unknown; choose one of .*, or give a number above 0",
        ),
        (
            lambda: gradtx.muon(0.1, routes=[("kernle", "muon")]),
            SelectionError,
            r"routes: rule 1, \('kernle', 'muon'\), matches none",
        ),
        (
            lambda: gradtx.muon(0.1, routes=("qkv", "muon")),  # pyright: ignore[reportArgumentType]
            gradtx.GradtxError,
            r"routes = \('qkv', 'muon'\) are not rules; give \[",
        ),
        (
            lambda: gradtx.by_role([gradtx.sgd(0.1)] * 2),  # pyright: ignore[reportArgumentType]
            gradtx.GradtxError,
            r"by_role: give two groups, \{name: transformation",
        ),
        (
            lambda: gradtx.qk_clip("qkv", head_axis=0),
            gradtx.GradtxError,
            r"head_axis = 0 does not count from the end; give -1",
        ),
        (
            lambda: gradtx.soap(0.1, dimensions=[("block_0", "in out")]),
            StructureError,
            r"which is not a matrix, and dimensions say 'in out' of it",
        ),
        (
            lambda: gradtx.muon(0.1, muon_weight_dimension_numbers=Axes(0, 5)),
            StructureError,
            r"dimensions of '.*': .* names an axis that is not",
        ),
        (
            lambda: gradtx.muon(0.1, muon_weight_dimension_numbers=Axes(-1, 1)),
            StructureError,
            r"names axis 1 twice, as input and as output",
        ),
        (
            lambda: gradtx.muon(0.1, shard=3),  # pyright: ignore[reportArgumentType]
            gradtx.GradtxError,
            r"shard = 3 names no mesh axes",
        ),
        (
            lambda: gradtx.muon(0.1, shard="x"),
            gradtx.GradtxError,
            r"names axes of no mesh that is known here: call within jax.set_mesh",
        ),
    ],
)
def test_what_does_not_fit_is_said_by_path(make: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        tx = make()
        tx.update(TREE, tx.init(TREE), TREE)


@pytest.mark.parametrize(
    "make",
    [
        gradtx.scale_by_muon,
        lambda: gradtx.muon(0.1, dimensions=[("w", "in outt")]),
        gradtx.scale_by_normuon,
    ],
)
def test_what_is_no_matrix_is_told_before_the_first_step(make: Any) -> None:
    with pytest.raises(StructureError, match=r"'w'|'b'"):
        make().init({"b": jnp.ones(3), "w": jnp.ones((3, 4))})


def test_stacked_vectors_and_heads_are_known_by_name() -> None:
    apart = ["policy_head", "rms/weight", "linear/b", "pos", "cls_token"]
    table = gradtx.coverage(
        gradtx.muon(0.1),
        {name: jnp.ones((3, 4)) for name in [*apart, "attention_heads", "output", "heads/w"]},
    )
    assert [name for name, group in table.items() if group == "adam"] == sorted(apart)


def test_nan_stays_in_its_matrix_and_zero_gives_zero() -> None:
    params = {"stack": jnp.ones((3, 4, 4)), "other": jnp.ones((4, 4))}
    grads = {
        "stack": jnp.ones((3, 4, 4)).at[1, 2, 2].set(jnp.nan).at[2].set(0.0),
        "other": jnp.ones((4, 4)),
    }
    for tx in (gradtx.scale_by_muon(), gradtx.scale_by_normuon(), gradtx.scale_by_adamuon()):
        updates, _ = jax.jit(tx.update)(grads, tx.init(params))
        finite = np.isfinite(updates["stack"]).all(axis=(1, 2))
        assert finite.tolist() == [True, False, True] and np.isfinite(updates["other"]).all()
        np.testing.assert_array_equal(updates["stack"][2], 0.0)


def test_scale_by_muon_is_orthogonal_whatever_the_order_of_axes() -> None:
    """Inputs last: the same numbers, transposed; the scale goes by roles."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)
    one = gradtx.scale_by_muon(scaling="spectral")
    other = gradtx.scale_by_muon(scaling="spectral", dimensions=[("w", "out in")])
    left, right = (
        one.update({"w": w}, one.init({"w": w}))[0],
        other.update({"w": w.T}, other.init({"w": w.T}))[0],
    )
    np.testing.assert_allclose(
        left["w"], right["w"].T, atol=1e-5
    )  # products are summed in another order
    sizes = np.linalg.svd(np.asarray(left["w"]), compute_uv=False) / (4 / 8) ** 0.5
    assert np.abs(sizes - 1).max() < 0.15
