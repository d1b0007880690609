"""Checkpoints that version 0.2 wrote load into the definitions of today.

Each file in `tests/checkpoints_0_2` is `{"params": ..., "state": ...}` after three steps, written
by `gradtx.save` of version 0.2.
"""

import re
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import StateError
from gradtx.interop.migrations import migrate
from tests.support.bits import assert_same
from tests.support.places import ROOT

FOLDER = ROOT / "tests" / "checkpoints_0_2"

CLIP = gradtx.clip_by_global_norm(1.0)
ADAMW, MOMENTUM = gradtx.adamw(1e-2), gradtx.sgd(0.1, momentum=0.9)
CAUTIOUS = gradtx.adamw(1e-2, cautious=True)
GROUPS = {"a": ADAMW, "b": MOMENTUM}


def encoded(tx: gradtx.GradientTransformation, codec: Any, size: int = 1) -> Any:
    """Blocks of 2, which divide no axis of 3: the last one is padded."""
    return gradtx.stored(tx, codec, min_size=size, rounding="nearest", block=2)


DEFINITIONS = {
    "adamw": ADAMW,
    "adamw_cautious": CAUTIOUS,
    "adamw_l2": gradtx.adamw(1e-2, decay_form="l2"),
    "sgd_momentum": MOMENTUM,
    "muon": gradtx.muon(0.02),
    "muon_cautious": gradtx.muon(0.02, cautious=True),
    "guard_chain": gradtx.guard(gradtx.chain(CLIP, ADAMW), zscore=4.0),
    "accumulate": gradtx.accumulate(gradtx.chain(CLIP, CAUTIOUS), every=2),
    "stored": gradtx.stored(ADAMW, "packed16", min_size=1, rounding="nearest"),
    "tunable": gradtx.tunable(ADAMW, "learning_rate"),
    "partition": gradtx.partition(GROUPS, [("kernel", "a"), (".*", "b")]),
    "ema": gradtx.chain(ADAMW, gradtx.params_ema(0.9)),
    "lookahead": gradtx.lookahead(ADAMW, 5, 0.5),
    "sam": gradtx.sam(MOMENTUM, gradtx.chain(gradtx.normalize(), gradtx.sgd(0.1))),
    "master": gradtx.master_weights(ADAMW),
    "schedule_free": gradtx.schedule_free_adamw(1e-2),
    "soap": gradtx.soap(1e-2),
    "mechanize": gradtx.mechanize(gradtx.sgd(1.0)),
    "rmsprop_momentum": gradtx.rmsprop(1e-2, momentum=0.9, centered=True),
    "flatten": gradtx.flatten(ADAMW),
    "metrics": gradtx.with_metrics(gradtx.chain(CLIP, ADAMW)),
    "lbfgs": gradtx.lbfgs(),
    "stored_int8": encoded(ADAMW, "int8"),
    "stored_int4": encoded(ADAMW, "int4"),
    "stored_dynamic8": encoded(ADAMW, "dynamic8"),
    "stored_corrected": encoded(ADAMW, "bf16+8", size=4),
    "stored_cautious": encoded(CAUTIOUS, "int8"),
    "stored_sum": encoded(gradtx.accumulate(gradtx.chain(CLIP, ADAMW), every=2), "int8"),
}

MOVED = {
    "adamw_cautious": {"slots/chain/": "slots/"},
    "muon_cautious": {"adam/chain/": "adam/", "muon/chain/": "muon/"},
    "accumulate": {"adamw/chain/": "adamw/"},
    "schedule_free": {"slots/descend/": "slots/"},
    "stored_cautious": {"slots/chain/": "slots/"},
}
"""Parts of paths that version 0.2 wrote, and what they are now; the other files have none."""

ENCODED = [name for name in DEFINITIONS if name.startswith("stored_")]
SLOT = re.compile(r"(?P<slot>/(mu|nu|total))(?P<path>/.*)/(?P<array>codes|scale|value|correction)$")
"""The end of the path of an array that encodes a slot with others, as version 0.2 wrote it."""


def beside_its_slot(path: str, paths: Collection[str]) -> str:
    """The path of today: `mu_codes/w` for `mu/w/codes`, `mu_value/w` for `mu/w` of bf16+8."""
    array = f"{path}/value" if f"{path}/correction" in paths else path
    return SLOT.sub(r"\g<slot>_\g<array>\g<path>", array)


def params() -> Any:
    keys = jr.split(jr.key(0), 3)
    dense = {"kernel": jr.normal(keys[0], (4, 3)), "bias": jr.normal(keys[1], (3,))}
    return {"dense": dense, "head": {"kernel": jr.normal(keys[2], (3, 2))}}


def tree_like(tx: gradtx.GradientTransformation) -> Any:
    """What `load` needs: the parameters, and the shapes of the state."""
    return {"params": params(), "state": jax.eval_shape(tx.init, params())}


def raw_entries(name: str) -> dict[str, np.ndarray]:
    """The arrays of a file by the path of version 0.2, read by NumPy alone."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {path: file[path] for path in file.files if path != "__gradtx__"}


def moved_by_hand(name: str, like: Any) -> Any:
    """The tree of a file, with every array put at the path of today."""
    entries = {}
    for path, array in raw_entries(name).items():
        for old, new in MOVED.get(name, {}).items():
            path = path.replace(old, new)  # noqa: PLW2901
        entries[beside_its_slot(path, raw_entries(name))] = array
    expected = gradtx.flatten_state(like)
    assert set(entries) == set(expected)
    # The file stores bfloat16 as uint16.
    arrays = [jnp.asarray(entries[path].view(leaf.dtype)) for path, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), arrays)


def total(params: Any) -> jax.Array:
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)), jnp.zeros(()))


def next_update(tx: gradtx.GradientTransformation, tree: Any) -> Any:
    value, grads = jax.value_and_grad(total)(tree["params"])
    extra = {"value": value, "grad": grads, "value_fn": total} if "value_fn" in tx.needs else {}
    return tx.update(grads, tree["state"], tree["params"], **extra)


def test_every_file_has_a_definition() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.npz")) == sorted(DEFINITIONS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_file_of_0_2_loads_and_continues(name: str) -> None:
    tx = DEFINITIONS[name]
    like = tree_like(tx)
    tree = gradtx.load(FOLDER / f"{name}.npz", like)
    expected = moved_by_hand(name, like)
    assert_same(tree, expected)
    assert int(tree["state"].count) > 0
    assert_same(next_update(tx, tree), next_update(tx, expected))


@pytest.mark.parametrize("name", [*MOVED, *ENCODED])
def test_the_paths_of_these_files_have_changed(name: str) -> None:
    expected = gradtx.flatten_state(tree_like(DEFINITIONS[name]))
    assert set(raw_entries(name)) != set(expected)


def test_restore_state_reads_the_paths_of_0_2() -> None:
    w = jnp.ones(2)
    _, state = CAUTIOUS.update(w, CAUTIOUS.init(w), w)
    flat = gradtx.flatten_state(state)
    old = {path.replace("slots/", "slots/chain/"): array for path, array in flat.items()}
    assert set(old) != set(flat)
    assert_same(gradtx.restore_state(state, old), state)


def test_a_random_key_moves_with_its_dtype(tmp_path: Any) -> None:
    new, old = {"slots": {"key": jr.key(3)}}, {"slots": {"chain": {"key": jr.key(3)}}}
    gradtx.save(tmp_path / "run.npz", old)
    assert_same(gradtx.load(tmp_path / "run.npz", new), new)
    rbg = {"slots": {"key": jr.key(3, impl="unsafe_rbg")}}
    gradtx.save(tmp_path / "run.npz", {"slots": {"chain": rbg["slots"]}})
    with pytest.raises(StateError, match=r"is a random key key<urbg>, expected key<rbg>"):
        gradtx.load(tmp_path / "run.npz", {"slots": {"key": jr.key(3, impl="rbg")}})


def test_parameters_may_be_called_chain() -> None:
    """The segment nearest to the root goes, and both entries find their places."""
    old = ["slots/chain/trace/trace/chain/w", "slots/chain/trace/trace/w"]
    new = ["slots/trace/trace/chain/w", "slots/trace/trace/w"]
    assert dict(migrate(dict(zip(old, new, strict=True)), new)) == {path: path for path in new}


def test_arrays_of_a_slot_move_beside_it() -> None:
    """A parameter may have the name of a slot, or of an array of one."""
    moves = {
        "slots/adam/mu/mu/codes": "slots/adam/mu_codes/mu",
        "slots/adam/mu/mu/scale": "slots/adam/mu_scale/mu",
        "slots/adam/mu/codes/codes": "slots/adam/mu_codes/codes",
        "slots/adam/mu/codes/scale": "slots/adam/mu_scale/codes",
        "slots/adam/nu/w": "slots/adam/nu_value/w",
        "slots/adam/nu/w/correction": "slots/adam/nu_correction/w",
        "slots/adam/nu/b": "slots/adam/nu/b",
    }
    found = migrate(dict(moves), list(moves.values()))
    assert found == dict(zip(moves.values(), moves.values(), strict=True))


def test_the_chain_of_a_user_remains() -> None:
    flat = {"slots/chain/adamw/chain_2/descend/mu": 1}
    assert migrate(flat, ["slots/chain/adamw/mu"]) == {"slots/chain/adamw/mu": 1}


@pytest.mark.parametrize(
    ("flat", "expected"),
    [
        pytest.param(["chain/mu", "chain_2/mu"], ["mu"], id="two entries for one path"),
        pytest.param(["chain/mu/descend/w"], ["mu/descend/w", "chain/mu/w"], id="two paths"),
        pytest.param(["chain/mu", "nu"], ["mu"], id="an entry is left over"),
        pytest.param(["chain/mu"], ["mu", "nu"], id="a path is left over"),
        pytest.param(["mu"], ["chain/mu"], id="a segment is never added"),
        pytest.param(["mychain/mu"], ["mu"], id="another name"),
    ],
)
def test_what_does_not_fit_exactly_stays_an_error(flat: list[str], expected: list[str]) -> None:
    entries = dict.fromkeys(flat, 1)
    assert migrate(entries, expected) is entries
    with pytest.raises(StateError, match=r"^the checkpoint does not fit: "):
        gradtx.restore_state(nested(expected), {path: np.ones(2) for path in flat})


def nested(paths: list[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in paths:
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = np.ones(2)
    return tree


@pytest.mark.parametrize(
    ("tx", "new"),
    [
        (gradtx.chain(gradtx.zclip(), ADAMW), "norm_count"),
        (gradtx.reduce_on_plateau(), "value_count"),
    ],
)
def test_counters_that_were_called_count(tx: Any, new: str) -> None:
    flat = gradtx.flatten_state(tx.init({"w": jnp.ones(2)}))
    old = {path.replace(f"/{new}", "/count"): array for path, array in flat.items()}
    assert old.keys() != flat.keys() and "count" in flat
    assert migrate(old, flat.keys()) == flat
