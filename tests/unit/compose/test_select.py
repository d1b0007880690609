"""Selecting parameters by path: masks, partitions, freezing, coverage."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.support.peer import optax

PARAMS = {
    "embed": {"table": jnp.ones((5, 3))},
    "layers": [{"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)} for _ in range(2)],
    "head": {"kernel": jnp.ones((3, 2)), "scale": jnp.ones(2)},
}
IS_KERNEL = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", PARAMS)


def is_kernel(path: str, leaf: Any) -> bool:
    return path.endswith("kernel")


def kernels_of(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


@pytest.mark.parametrize(
    "where",
    [r"kernel$", is_kernel, IS_KERNEL, kernels_of],
    ids=["regex", "predicate", "tree", "function"],
)
def test_four_ways_to_say_where(where: Any) -> None:
    tx = gradtx.masked(gradtx.adam(0.1), where)
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    expected, _ = (ox := optax.masked(optax.adam(0.1), IS_KERNEL)).update(
        PARAMS, ox.init(PARAMS), PARAMS
    )
    chex.assert_trees_all_close(updates, expected, rtol=2e-5)
    kept = state.slots["scale_by_adam"].mu
    assert kept["head"]["scale"] is None and kept["head"]["kernel"].shape == (3, 2)


def test_a_prefix_of_bools_and_none_leaves() -> None:
    params = {**PARAMS, "none": None}
    tx = gradtx.masked(
        gradtx.scale(0.0), {"embed": True, "layers": False, "head": False, "none": True}
    )
    updates, _ = tx.update(params, tx.init(params))
    assert (
        float(jnp.sum(updates["embed"]["table"])) == 0 and float(updates["head"]["scale"][0]) == 1
    )
    assert (
        gradtx.masked(gradtx.scale(0.0), True).update(PARAMS, gradtx.identity().init(PARAMS))[0][
            "head"
        ]["scale"][0]
        == 0
    )


def test_a_tree_of_false_is_taken_at_its_word() -> None:
    none = jax.tree.map(lambda _: False, PARAMS)
    tx = gradtx.adamw(0.1, mask=none)
    chex.assert_trees_all_close(
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0],
        (plain := gradtx.adam(0.1)).update(PARAMS, plain.init(PARAMS))[0],
    )


def test_masks_within_masks_meet() -> None:
    tx = gradtx.masked(gradtx.masked(gradtx.scale(0.0), r"kernel$"), r"^layers/0")
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    zeroed = {
        path
        for path, leaf in zip(
            gradtx.coverage([(".*", "all")], PARAMS), jax.tree.leaves(updates), strict=True
        )
        if not leaf.any()
    }
    assert zeroed == {"layers/0/kernel"}


def test_partition_by_rules_first_match_wins() -> None:
    rules = [(r"^layers/0", "slow"), (r"(bias|scale)$", "plain"), (r".*", "rest")]
    tx = gradtx.partition(
        {"slow": gradtx.sgd(0.1), "plain": gradtx.sgd(1.0, momentum=0.9), "rest": gradtx.lion(0.5)},
        rules,
    )
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert updates["layers"][0]["bias"][0] == pytest.approx(-0.1)
    assert updates["layers"][1]["bias"][0] == -1.0
    assert updates["embed"]["table"][0, 0] == pytest.approx(-0.5 * 1.001)
    assert sorted(state.slots) == ["plain", "rest"], "sgd without momentum keeps nothing"
    assert gradtx.coverage(tx, PARAMS)["layers/0/bias"] == "slow: sgd"
    assert gradtx.coverage(tx, PARAMS).groups["layers/0/bias"] == "slow"
    assert gradtx.coverage(rules, PARAMS)["layers/0/kernel"] == "slow"


@pytest.mark.parametrize("labels", ["tree", "function", "predicate"])
def test_partition_as_optax_and_by_predicate(labels: str) -> None:
    tree = jax.tree.map(lambda kernel: "k" if kernel else "o", IS_KERNEL)
    given = {
        "tree": tree,
        "function": lambda params: tree,
        "predicate": [(is_kernel, "k"), (".*", "o")],
    }[labels]
    tx = gradtx.partition({"k": gradtx.adam(0.1), "o": gradtx.sgd(0.2)}, given)
    ox = optax.partition({"k": optax.adam(0.1), "o": optax.sgd(0.2)}, tree)
    chex.assert_trees_all_close(
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0],
        ox.update(PARAMS, ox.init(PARAMS), PARAMS)[0],
        rtol=2e-5,
    )


def test_labels_in_a_list_of_pairs_are_not_rules() -> None:
    """Parameters that are a list of (w, b) tuples, labelled alike: Optax's form, though it looks
    like rules.
    """
    params = [(jnp.ones(2), jnp.ones(2)), (jnp.ones(2), jnp.ones(2))]
    tx = gradtx.partition(
        {"a": gradtx.scale(0.0), "b": gradtx.scale(2.0)}, [("a", "b"), ("b", "a")]
    )
    updates, _ = tx.update(params, tx.init(params))
    assert [float(leaf[0]) for leaf in jax.tree.leaves(updates)] == [0.0, 2.0, 2.0, 0.0]


def test_groups_with_tree_wide_rules_see_their_own_leaves() -> None:
    tx = gradtx.partition(
        {"k": gradtx.clip_by_global_norm(1.0), "o": gradtx.stateless(lambda u, p: u)},
        [("kernel$", "k"), (".*", "o")],
    )
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    kernels = [
        leaf
        for leaf, kernel in zip(jax.tree.leaves(updates), jax.tree.leaves(IS_KERNEL), strict=True)
        if kernel
    ]
    assert float(gradtx.global_norm(kernels)) == pytest.approx(1.0, rel=1e-6)
    assert float(updates["head"]["scale"][0]) == 1.0


def test_foreign_members_of_a_partition_see_only_their_leaves() -> None:
    tx = gradtx.partition(
        {"k": optax.adam(0.1), "o": gradtx.sgd(0.2)}, [("kernel$", "k"), (".*", "o")]
    )
    state = tx.init(PARAMS)
    assert len(jax.tree.leaves(state.slots["k"][0].mu)) == 3
    updates, _ = jax.jit(tx.update)(PARAMS, state, PARAMS)
    assert updates["head"]["kernel"][0, 0] == pytest.approx(-0.1, rel=1e-4) and updates["head"][
        "scale"
    ][0] == pytest.approx(-0.2)


def test_extra_arguments_shaped_like_the_gradients_are_masked_with_them() -> None:
    seen = []
    tx = gradtx.masked(
        gradtx.treewise(None, lambda u, s, p, t, *, extra: (seen.append(extra), (u, s))[1]),
        "kernel$",
    )
    tx.update(PARAMS, tx.init(PARAMS), grad=PARAMS, value=1.0)
    assert (
        seen[0]["grad"]["embed"]["table"] is None
        and seen[0]["grad"]["head"]["kernel"] is not None
        and seen[0]["value"] == 1.0
    )


def test_freeze_and_no_state_for_what_is_masked_out() -> None:
    tx = gradtx.chain(gradtx.masked(gradtx.adam(0.1), r"^head"), gradtx.freeze(r"^(embed|layers)"))
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert len(jax.tree.leaves(state.slots)) == 4, "mu and nu of two leaves"
    np.testing.assert_array_equal(updates["embed"]["table"], 0)
    assert float(updates["head"]["scale"][0]) == pytest.approx(-0.1, rel=1e-4)


def test_a_mask_on_an_empty_tree_is_no_error() -> None:
    tx = gradtx.adamw(0.1, mask="kernel$")
    assert tx.update({}, tx.init({}), {})[0] == {}


def test_groups_may_be_called_like_their_patterns() -> None:
    tx = gradtx.partition(
        {"bias": gradtx.scale(0.0), "kernel": gradtx.scale(2.0)},
        [("bias", "bias"), ("kernel", "kernel")],
    )
    params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    assert float(tx.update(params, tx.init(params))[0]["kernel"][0]) == 2.0


@jax.tree_util.register_pytree_node_class
class Module:
    """A model that is a tree and can be called, as in Equinox."""

    def __init__(self, w: Any, b: Any) -> None:
        self.w, self.b = w, b

    def __call__(self, x: Any) -> Any:
        raise AssertionError("a mask must not be called")

    def tree_flatten(self) -> Any:
        return (self.w, self.b), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: Any) -> "Module":
        return cls(*children)


def test_a_mask_may_be_a_callable_tree() -> None:
    model = Module(jnp.ones(2), jnp.ones(2))
    tx = gradtx.masked(gradtx.scale(0.0), Module(True, False))
    updates, _ = tx.update(model, tx.init(model))
    assert float(updates.w[0]) == 0.0 and float(updates.b[0]) == 1.0
