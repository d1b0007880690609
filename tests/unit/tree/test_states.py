"""Entries of states by name: gradtx's states, Optax's, and trees of other containers."""

import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree_utils
import pytest
from flax import nnx

import gradtx
import gradtx.tree
from gradtx.tree.states import NamedTupleKey
from tests.methods import FIRST, METHODS

T: Any = gradtx.tree
PARAMS = {"w": jnp.ones((4, 4)), "b": jnp.ones(4)}
MASK = {"w": True, "b": False}
NAMES = ("count", "mu", "nu", "value", "grad", "learning_rate")


class Pair(NamedTuple):
    a: Any
    b: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Record:
    a: Any
    b: Any


MIXED = {"x": [Pair(1, {"a": 2}), Pair({"a": 3}, None)], "y": (Record(4, 5),), "a": {"a": 6}}


def texts(found: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in found]


def test_names_are_found_in_every_container() -> None:
    found = T.get_all_with_path(MIXED, "a")
    assert set(texts(found)) == {
        *("['a']", "['a']['a']", "['x'][0]Pair.a", "['x'][0]Pair.b['a']"),
        *("['x'][1]Pair.a", "['x'][1]Pair.a['a']", "['y'][0].a"),
    }
    assert {value for _, value in found if isinstance(value, int)} == {1, 2, 3, 4, 6}
    assert texts(T.get_all_with_path(MIXED, "Pair")) == ["['x'][0]", "['x'][1]"]
    assert T.get_all_with_path({"a": None}, "a")[0][1] is None
    assert T.get_all_with_path(MIXED, "nothing") == T.get_all_with_path(MIXED, 0) == []
    assert T.get({"n": {7: "seven"}}, 7) == "seven"


STATES = {
    "adam": optax.adam(0.1).init(PARAMS),
    "chain": optax.chain(optax.trace(0.9), optax.scale_by_adam()).init(PARAMS),
    "masked": optax.masked(optax.adam(0.1), MASK).init(PARAMS),
    "injected": optax.inject_hyperparams(optax.adamw)(lambda count: 0.1).init(PARAMS),
    "nested": [{"b": {"a": 2, "d": {"a": 3}}, "c": {"a": 4}}, Pair(1, Pair(2, 3)), {"Pair": 1}],
    "gradtx": gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1)).init(PARAMS),
}


@pytest.mark.parametrize("name", STATES)
def test_paths_and_their_order_are_those_of_optax(name: str) -> None:
    for key in (*NAMES, "a", "Pair", "trace", "ScaleByAdamState", "State", "hyperparams", "b"):
        ours = T.get_all_with_path(STATES[name], key)
        theirs = optax.tree_utils.tree_get_all_with_path(STATES[name], key)
        assert texts(ours) == texts(theirs)
        same = jax.tree.map(lambda x, y: x is y, [v for _, v in ours], [v for _, v in theirs])
        assert all(jax.tree.leaves(same))


def test_a_filter_sees_the_class_of_a_named_tuple() -> None:
    def is_pair(path: Any, value: Any) -> bool:
        return path[-1] == NamedTupleKey("Pair", "a")

    found = T.get_all_with_path(MIXED, "a", is_pair)
    assert texts(found) == ["['x'][0]Pair.a", "['x'][1]Pair.a"]
    assert T.get(MIXED["x"][:1], "a", filtering=is_pair) == 1
    assert str(NamedTupleKey("Pair", "b")) == "Pair.b"


def test_get_reads_one_entry() -> None:
    assert T.get(MIXED, "a", filtering=lambda path, value: value == 4) == 4
    assert T.get(MIXED, "z") is None and T.get(MIXED, "z", 3) == 3
    assert T.get({"a": None}, "a", 3) is None
    message = re.escape("get: 2 entries are named 'a': ['p'].a, ['q']['a']; choose one by")
    with pytest.raises(KeyError, match=message):
        T.get({"p": Record(1, 2), "q": {"a": 3}}, "a")


def test_set_replaces_every_entry() -> None:
    changed = T.set(MIXED, a=0)
    assert changed["x"][0] == Pair(0, {"a": 0}) and changed["a"] == 0
    assert changed["y"][0] == Record(0, 5)
    assert T.set({"a": {"b": 1}, "b": 2}, a=3, b=4) == {"a": 3, "b": 4}
    assert T.set(Pair(1, 2), Pair=3) == 3 and T.set({"a": None}, a=4) == {"a": 4}
    filtered = T.set(MIXED, lambda path, value: value == 4, a=0)
    assert filtered["y"][0] == Record(0, 5) and filtered["x"] is MIXED["x"]
    assert T.set({"filtering": 1, "tree": 2}, filtering=3, tree=5) == {"filtering": 3, "tree": 5}


def test_set_names_the_names_that_exist() -> None:
    with pytest.raises(KeyError, match="set: no entry is named 'z'; the tree has 'p', 'a', 'b'"):
        T.set({"p": Pair(1, 2)}, z=1)
    with pytest.raises(KeyError, match="no entry is named 'a' that the filter accepts"):
        T.set(MIXED, lambda path, value: False, a=1)


@pytest.mark.parametrize("name", FIRST)
def test_names_are_unique_in_every_state(name: str) -> None:
    """Several members have a slot of one name only where each has its own parameters."""
    state = jax.eval_shape(METHODS[name].tx.init, PARAMS)
    assert T.get(state, "count").shape == ()
    for key in NAMES:
        found = T.get_all_with_path(state, key)
        parents = [jax.tree_util.keystr(path[:-1]) for path, _ in found]
        assert len(set(parents)) == len(found)
        arrays = [_paths(value) for _, value in found]
        assert sum(map(len, arrays)) == len(set[str]().union(*arrays))


def _paths(tree: Any) -> set[str]:
    return {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def test_a_rate_in_a_state_is_read_and_replaced() -> None:
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.inject_hyperparams(gradtx.sgd)(0.1))
    state = T.set(tx.init(PARAMS), learning_rate=jnp.float32(0.5))
    assert T.get(state, "learning_rate") == 0.5
    updates, _ = tx.update(PARAMS, state)
    assert updates["b"].tolist() == [-0.5] * 4
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(PARAMS))


def test_states_of_nnx() -> None:
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    state = gradtx.adam(0.1).init(nnx.state(model, nnx.Param))
    assert T.get(state, "mu") is not None and T.get(state, "count") == 0


# map_params

CHOICES = {
    "adam": gradtx.adam(0.1),
    "masked": gradtx.masked(gradtx.adam(0.1), MASK),
    "regex": gradtx.masked(gradtx.adam(0.1), "w"),
    "partition": gradtx.partition(
        {"x": gradtx.adam(0.1), "y": gradtx.sgd(0.1, 0.9)}, {"w": "x", "b": "y"}
    ),
    "guarded": gradtx.guard(gradtx.masked(gradtx.adam(0.1), MASK)),
    "averaged": gradtx.chain(gradtx.masked(gradtx.adam(0.1), MASK), gradtx.params_ema(0.9)),
    "optax": optax.adam(0.1),
    "optax chain": optax.chain(optax.trace(0.9), optax.add_decayed_weights(0.1), optax.adam(0.1)),
    "optax masked": optax.masked(optax.adam(0.1), MASK),
    "optax partition": optax.multi_transform(
        {"x": optax.adam(0.1), "y": optax.sgd(0.1, 0.9)}, {"w": "x", "b": "y"}
    ),
    "optax injected": optax.inject_hyperparams(optax.adam)(0.1),
}


@pytest.mark.parametrize("name", CHOICES)
def test_map_params_does_what_optax_does(name: str) -> None:
    tx: Any = CHOICES[name]
    state = tx.init(PARAMS)
    args = (tx, lambda slot: slot + 5, state)
    kwargs = {"transform_non_params": lambda leaf: leaf * 0 - 1}
    ours, theirs = T.map_params(*args, **kwargs), optax.tree_map_params(*args, **kwargs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other)
    assert jax.tree.structure(T.map_params(tx.init, *args[1:])) == jax.tree.structure(state)


@pytest.mark.parametrize("name", CHOICES)
def test_other_trees_leave_out_what_is_masked(name: str) -> None:
    tx: Any = CHOICES[name]
    rest = {"w": jnp.array(7.0), "b": {"deep": jnp.array(9.0)}}
    state = tx.init(PARAMS)

    def scaled(slot: Any, leaf: Any) -> Any:
        return slot * 0 + (leaf["deep"] if isinstance(leaf, dict) else leaf)

    mapped = T.map_params(tx, scaled, state, rest)
    assert jax.tree.structure(mapped) == jax.tree.structure(state)
    before, after = (jax.tree.leaves(tree) for tree in (state, mapped))
    for old, new in zip(before, after, strict=True):
        kind = {(4, 4): 7.0, (4,): 9.0}.get(old.shape)
        assert (new == (old if kind is None else kind)).all()


def test_is_leaf_hands_masked_places_over() -> None:
    tx = CHOICES["masked"]
    names = {"w": "W", "b": "B"}
    mapped: Any = T.map_params(
        tx, lambda slot, name: name, tx.init(PARAMS), names, is_leaf=lambda node: node is None
    )
    assert mapped.mu == mapped.nu == names


def test_errors_of_map_params() -> None:
    adam = gradtx.adam(0.1)
    with pytest.raises(gradtx.StructureError, match="state is another definition's"):
        T.map_params(adam, lambda slot: slot, gradtx.sgd(0.1, 0.9).init(PARAMS))
    with pytest.raises(gradtx.StructureError, match=r"rest\[1\] is not like the parameters"):
        T.map_params(adam, lambda *slots: 0, adam.init(PARAMS), PARAMS, {"w": 1})
    with pytest.raises(TypeError, match="int has no init; give a transformation"):
        T.map_params(3, lambda slot: slot, ())


@pytest.mark.parametrize("name", [name for name in FIRST if name != "flatten"])
def test_every_method_maps(name: str) -> None:
    """`flatten` stores vectors, which no array of the parameters has the shape of."""
    tx = METHODS[name].tx
    state = tx.init(PARAMS)
    mapped = T.map_params(tx, lambda slot: slot, state)
    assert jax.tree.structure(mapped) == jax.tree.structure(state)


def test_a_slot_that_has_the_name_of_its_member() -> None:
    """The member is called `trace`, as its slot is: the slot is the entry."""
    tx, w = gradtx.chain(gradtx.sgd(0.1, momentum=0.9), gradtx.ema(0.5)), jnp.ones(2)
    state = tx.init(w)
    assert (
        gradtx.tree.get(state, "trace").tolist()
        == gradtx.tree.get(state, "ema").tolist()
        == [0.0, 0.0]
    )
    state = gradtx.tree.set(state, trace=2 * w)
    assert state.slots["sgd"]["trace"].trace.tolist() == [2.0, 2.0]
    assert tx.update(w, state)[0].shape == (2,)
