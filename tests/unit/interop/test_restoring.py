"""A state of another definition or model: restore the entries that fit, list the rest."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.support.bits import assert_same

PARAMS = {"dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}, "head": jnp.ones((4, 2))}
CLIP = gradtx.clip_by_global_norm(1.0)
ADAMW = gradtx.adamw(1e-3)


def numbered(tx: Any, params: Any = PARAMS) -> Any:
    """A state in which every entry has numbers of its own."""
    leaves, structure = jax.tree.flatten(tx.init(params))
    filled = [jnp.full(leaf.shape, n + 1, leaf.dtype) for n, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, filled)


def one_group(tx: Any) -> Any:
    return gradtx.partition({"all": tx}, [(r".*", "all")])


AROUND: dict[str, Callable[[Any], Any]] = {
    "chain(clip, tx)": lambda tx: gradtx.chain(CLIP, tx),
    "chain(clip, name=tx)": lambda tx: gradtx.chain(CLIP, body=tx),
    "chain(tx, scale)": lambda tx: gradtx.chain(tx, gradtx.scale(1.0)),
    "partition of one group": one_group,
    "masked": lambda tx: gradtx.masked(tx, True),
    "a chain of chains": lambda tx: gradtx.chain(gradtx.chain(CLIP, tx), gradtx.scale(1.0)),
}
"""What stores nothing, around a definition."""
NAMES = {"chain(clip, name=tx)": "body", "partition of one group": "all"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "polyak_sgd": {},
    "dpsgd": {"learning_rate": 0.1, "l2_norm_clip": 1.0, "noise_multiplier": 1.0},
    "muon_clip": {"learning_rate": 0.1, "where": r"kernel"},
}


def values(state: Any) -> list[Any]:
    return jax.tree.leaves(state)


@pytest.mark.parametrize("name", sorted(gradtx.list_optimizers()))
def test_a_member_that_stores_nothing_moves_no_slot(name: str) -> None:
    """There and back, for every optimizer and everything that stores nothing."""
    tx = gradtx.create(name, **ARGUMENTS.get(name, {"learning_rate": 0.1}))
    state = numbered(tx)
    for label, around in AROUND.items():
        wrapped = around(tx)
        like = jax.eval_shape(wrapped.init, PARAMS)
        # A name that replaces that of the only rule truly moves its slots.
        new = NAMES.get(label) if list(state.slots) == [name] else None
        rename = {name: new} if new else None
        there = gradtx.restore_state(like, gradtx.flatten_state(state), rename=rename)
        assert jax.tree.structure(there) == jax.tree.structure(like)
        rename = {new: name} if new else None
        again = gradtx.restore_state(state, gradtx.flatten_state(there), rename=rename)
        assert_same(again, state)


def test_the_next_update_is_that_of_the_old_definition() -> None:
    grads = jax.tree.map(jnp.sin, PARAMS)
    _, state = ADAMW.update(grads, ADAMW.init(PARAMS), PARAMS)
    wrapped = gradtx.chain(gradtx.clip(1e9), ADAMW)
    restored = gradtx.restore_state(wrapped.init(PARAMS), gradtx.flatten_state(state))
    expected, _ = ADAMW.update(grads, state, PARAMS)
    assert_same(wrapped.update(grads, restored, PARAMS)[0], expected)


def split(tx: Any) -> Any:
    return gradtx.partition({"heads": tx, "rest": tx}, [(r"head", "heads"), (r".*", "rest")])


def test_one_member_becomes_two_groups_and_two_groups_one() -> None:
    state, groups = numbered(ADAMW), split(ADAMW)
    flat = gradtx.flatten_state(state)
    there = gradtx.restore_state(groups.init(PARAMS), flat)
    back = gradtx.restore_state(state, gradtx.flatten_state(there))
    assert_same(back, state)


def test_two_members_of_one_name_are_told_apart_by_their_neighbours() -> None:
    two = gradtx.chain(gradtx.adam(0.1), gradtx.adam(0.2))
    state = numbered(two)
    outer = gradtx.chain(CLIP, two)
    there = gradtx.restore_state(outer.init(PARAMS), gradtx.flatten_state(state))
    assert_same(values(there), values(state))


def test_one_member_for_two_is_not_guessed() -> None:
    flat = gradtx.flatten_state(numbered(gradtx.adam(0.1)))
    like = gradtx.chain(gradtx.adam(0.1), gradtx.adam(0.2)).init(PARAMS)
    with pytest.raises(gradtx.StateError, match=r"the checkpoint does not fit: there is no"):
        gradtx.restore_state(like, flat)
    match = gradtx.match_state(like, flat)
    assert list(match.restored) == ["count"] and len(match.dropped) == 6


def test_two_states_in_one_tree_do_not_exchange_their_slots() -> None:
    tree = {"generator": numbered(ADAMW), "critic": numbered(gradtx.adam(0.1))}
    like = {
        "generator": gradtx.chain(CLIP, ADAMW).init(PARAMS),
        "critic": gradtx.chain(CLIP, gradtx.adam(0.1)).init(PARAMS),
    }
    restored = gradtx.restore_state(like, gradtx.flatten_state(tree))
    assert_same(values(restored["generator"]), values(tree["generator"]))
    only = gradtx.flatten_state({"generator": tree["generator"], "critic": jnp.zeros(())})
    assert len(gradtx.match_state(like, only).restored) == 7


# A changed model or definition --------------------------------------------------------------------


def test_a_new_layer_is_initialized(caplog: pytest.LogCaptureFixture) -> None:
    flat = gradtx.flatten_state(numbered(ADAMW))
    larger = PARAMS | {"new": jnp.ones(3)}
    like = jax.tree.map(lambda leaf: leaf + 7, ADAMW.init(larger))
    state = gradtx.restore_state(like, flat, missing="init")
    assert_same(state.mu["new"], like.mu["new"])
    assert_same(gradtx.flatten_state(state) | flat, gradtx.flatten_state(state))
    assert caplog.records[-1].name == "gradtx" and caplog.records[-1].levelno == logging.WARNING
    assert "initialized 2:\n  slots/scale_by_adam/mu/new: the checkpoint has no entry for it" in (
        caplog.text
    )


def test_a_removed_layer_is_dropped_and_listed(caplog: pytest.LogCaptureFixture) -> None:
    flat = gradtx.flatten_state(numbered(ADAMW))
    smaller = {"dense": PARAMS["dense"]}
    state = gradtx.restore_state(jax.eval_shape(ADAMW.init, smaller), flat, missing="init")
    assert set(gradtx.flatten_state(state)) < set(flat)
    assert "dropped 2:\n  slots/scale_by_adam/mu/head\n  slots/scale_by_adam/nu/head" in caplog.text


def test_a_changed_shape_is_an_error_or_initialized() -> None:
    flat = gradtx.flatten_state(numbered(ADAMW))
    like = ADAMW.init(PARAMS | {"head": jnp.ones((4, 5))})
    text = r"^entry 'slots/scale_by_adam/mu/head' has shape \(4, 2\), expected \(4, 5\)"
    with pytest.raises(gradtx.StateError, match=text):
        gradtx.restore_state(like, flat)
    match = gradtx.match_state(like, flat)
    reason = "its shape is (4, 5), and (4, 2) in the checkpoint"
    assert match.initialized == {f"slots/scale_by_adam/{s}/head": reason for s in ("mu", "nu")}
    assert_same(gradtx.restore_state(like, flat, missing="init").mu["head"], like.mu["head"])


def test_a_complete_checkpoint_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    state = numbered(ADAMW)
    assert_same(gradtx.restore_state(state, gradtx.flatten_state(state), missing="init"), state)
    assert not caplog.records


def test_structs_have_no_numbers_for_a_missing_entry() -> None:
    like = jax.eval_shape(ADAMW.init, PARAMS | {"new": jnp.ones(3)})
    text = (
        r"^the checkpoint has no entry for 'slots/scale_by_adam/mu/new', and `like` has no numbers "
        r"there: make `like` with tx\.init\(params\), whose arrays missing='init' takes$"
    )
    with pytest.raises(gradtx.StateError, match=text):
        gradtx.restore_state(like, gradtx.flatten_state(numbered(ADAMW)), missing="init")


WRAPPED: Mapping[str, Callable[[Any], Any]] = {
    "accumulate": lambda tx: gradtx.accumulate(tx, 4),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "dynamic_loss_scale": gradtx.dynamic_loss_scale,
    "guard": gradtx.guard,
    "guard inside": lambda tx: gradtx.chain(CLIP, gradtx.guard(tx)),
    "guard of accumulate": lambda tx: gradtx.guard(gradtx.accumulate(tx, 1)),
}


@pytest.mark.parametrize("name", sorted(WRAPPED))
def test_a_wrapper_with_a_clock_goes_on_where_its_member_was(name: str) -> None:
    """With a clock at 0, bias correction would begin again, with moments that are old."""
    grads = jax.tree.map(jnp.sin, PARAMS)
    state = ADAMW.init(PARAMS)
    for _ in range(3):
        expected, state = ADAMW.update(grads, state, PARAMS)
    expected, _ = ADAMW.update(grads, state, PARAMS)
    tx = WRAPPED[name](gradtx.adamw(1e-3))
    new = gradtx.restore_state(tx.init(PARAMS), gradtx.flatten_state(state), missing="init")
    update: Any = None
    for _ in range(4 if name == "accumulate" else 1):
        update, new = tx.update(grads, new, PARAMS)
    if name not in ("dynamic_loss_scale", "guard inside"):  # which change the gradients
        close = jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-5), update, expected)
        assert jax.tree.all(close)
    clocks = [leaf for path, leaf in gradtx.flatten_state(new).items() if path.endswith("applied")]
    assert clocks and all(int(leaf) == 4 for leaf in clocks)


# Renamed paths ------------------------------------------------------------------------------------


def test_rename_a_layer_in_every_slot() -> None:
    state = numbered(ADAMW)
    like = ADAMW.init({"body": {"proj": PARAMS["dense"]}, "head": PARAMS["head"]})
    rename = {"dense": "body/proj"}
    restored = gradtx.restore_state(like, gradtx.flatten_state(state), rename=rename)
    assert_same(restored.mu["body"]["proj"], state.mu["dense"])
    assert_same(restored.nu["head"], state.nu["head"])


RENAMES: dict[str, tuple[list[str], dict[str, str], list[str]]] = {
    "a prefix": (["opt/mu/w"], {"opt": "adam"}, ["adam/mu/w"]),
    "several segments": (["a/b/c"], {"a/b": "x"}, ["x/c"]),
    "to several": (["a/c"], {"a": "x/y"}, ["x/y/c"]),
    "removed": (["outer/a"], {"outer": ""}, ["a"]),
    "exchanged": (["a/w", "b/w"], {"a": "b", "b": "a"}, ["b/w", "a/w"]),
    "the longest first": (["a/b", "a/c"], {"a": "x", "a/b": "y"}, ["y", "x/c"]),
    "whole segments": (["ab/a"], {"a": "x"}, ["ab/x"]),
    "once": (["opt/mu/opt"], {"opt": "adam"}, ["adam/mu/opt"]),
    "two in one path": (["opt/mu/w"], {"w": "v", "opt": "adam"}, ["adam/mu/v"]),
}


@pytest.mark.parametrize("name", sorted(RENAMES))
def test_renames(name: str) -> None:
    old, rename, new = RENAMES[name]
    like = {path: np.zeros(()) for path in new}
    flat = {path: np.full((), n + 1.0) for n, path in enumerate(old)}
    restored = gradtx.restore_state(like, flat, rename=rename)
    assert [float(restored[path]) for path in new] == [n + 1.0 for n in range(len(old))]


FLAT = {"opt/mu/w": np.zeros(2), "opt/nu/w": np.zeros(2)}
MISTAKES: dict[str, tuple[type[Exception], dict[str, Any], str]] = {
    "a rename of nothing": (
        gradtx.StateError,
        {"rename": {"optt": "adam"}},
        "rename: no entry of the checkpoint has 'optt' in its path; did you mean 'opt'?",
    ),
    "a rename like nothing": (
        gradtx.StateError,
        {"rename": {"zzzz": "adam"}},
        "rename: no entry of the checkpoint has 'zzzz' in its path; its first entry is 'opt/mu/w'",
    ),
    "two entries for one path": (
        gradtx.StateError,
        {"rename": {"opt/nu": "opt/mu"}},
        "rename: the entries 'opt/mu/w' and 'opt/nu/w' would both be 'opt/mu/w': name more of "
        "their paths",
    ),
    "an empty key": (
        gradtx.GradtxError,
        {"rename": {"": "adam"}},
        "rename: the key '' is empty: write the old segments of a path",
    ),
    "another word": (
        gradtx.GradtxError,
        {"missing": "ignore"},
        "missing = 'ignore' must be 'error' or 'init'",
    ),
}


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_mistakes(name: str) -> None:
    error, arguments, text = MISTAKES[name]
    with pytest.raises(error) as caught:
        gradtx.restore_state(FLAT, FLAT, **arguments)
    assert str(caught.value) == text


# Files --------------------------------------------------------------------------------------------


def test_load_takes_the_same_words(tmp_path: Path) -> None:
    run = {"params": PARAMS, "state": numbered(ADAMW), "step": 7}
    gradtx.save(tmp_path / "run.npz", run)
    moved = gradtx.chain(CLIP, gradtx.guard(gradtx.adamw(1e-3)))
    like = {"params": PARAMS | {"new": jnp.ones(2)}, "state": moved.init(PARAMS), "step": 0}
    again = gradtx.load(tmp_path / "run.npz", like, missing="init")
    assert again["step"] == 7 and int(again["state"].count) == int(run["state"].count)
    assert_same(again["state"].mu, run["state"].mu)
    renamed = gradtx.load(
        tmp_path / "run.npz", {"weights": PARAMS}, missing="init", rename={"params": "weights"}
    )
    assert_same(renamed["weights"], PARAMS)
