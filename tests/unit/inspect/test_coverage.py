"""`coverage`: what trains each leaf, in words, beside what the optimizer really does."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from tests.methods import FIRST, METHODS

BLOCK = {"bias": jnp.ones(3), "kernel": jnp.ones((3, 3))}
PARAMS = {
    "blocks": [BLOCK] * 4,
    "embed": jnp.ones((5, 3)),
    "none": None,
    "steps": jnp.asarray(3),
}


def test_one_optimizer_with_a_mask_and_frozen_leaves() -> None:
    tx = gradtx.chain(gradtx.adamw(0.1, mask="kernel$"), gradtx.freeze("^embed"))
    table = gradtx.coverage(tx, PARAMS)
    assert table["blocks/1/kernel"] == "adamw, decayed"
    assert table["blocks/1/bias"] == "adamw"
    assert table["embed"] == "frozen"
    assert table["steps"] == "not trained, i32"
    assert "none" not in table and len(table) == 10
    assert str(table).splitlines() == [
        "blocks/*/bias × 4    adamw",
        "blocks/*/kernel × 4  adamw, decayed",
        "embed                frozen",
        "steps                not trained, i32",
    ]


def test_blocks_of_two_kinds_are_told_apart_by_ranges() -> None:
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.freeze(r"blocks/[12]/|embed"))
    assert str(gradtx.coverage(tx, PARAMS)).splitlines() == [
        "blocks/0,3/bias × 2    sgd",
        "blocks/0,3/kernel × 2  sgd",
        "blocks/1,2/bias × 2    frozen",
        "blocks/1,2/kernel × 2  frozen",
        "embed                  frozen",
        "steps                  not trained, i32",
    ]


def test_a_partition_inside_wrappers_names_its_groups() -> None:
    tx = gradtx.partition(
        {"layers": gradtx.adamw(0.1, mask="kernel$"), "frozen": gradtx.set_to_zero()},
        [("^blocks", "layers"), (".*", "frozen")],
    )
    for wrapped in (
        tx,
        gradtx.tunable(gradtx.guard(tx), "learning_rate"),
        gradtx.stored(tx, "int8"),
    ):
        table = gradtx.coverage(wrapped, PARAMS)
        assert table["blocks/0/kernel"] == "layers: adamw, decayed"
        assert table["blocks/0/bias"] == "layers: adamw"
        assert table["embed"] == "frozen" and table.groups["embed"] == "frozen"


def test_groups_within_groups() -> None:
    inner = gradtx.partition(
        {"b": gradtx.sgd(0.1), "k": gradtx.lion(0.1, weight_decay=0.0)},
        [("bias$", "b"), (".*", "k")],
    )
    tx = gradtx.partition(
        {"body": inner, "rest": gradtx.adam(0.1)}, [("^b", "body"), (".*", "rest")]
    )
    table = gradtx.coverage(tx, PARAMS)
    assert table["blocks/0/bias"] == "body/b: sgd" and table["blocks/0/kernel"] == "body/k: lion"
    assert table["embed"] == "rest: adam"


def test_parts_of_an_optimizer_and_leaves_without_one() -> None:
    parts = gradtx.chain(
        gradtx.clip_by_global_norm(1.0),
        gradtx.scale_by_adam(),
        gradtx.add_decayed_weights(0.1, mask="kernel$"),
        gradtx.scale_by_learning_rate(0.1),
    )
    table = gradtx.coverage(parts, PARAMS)
    assert (
        table["blocks/0/kernel"] == "scale_by_adam, decayed" and table["embed"] == "scale_by_adam"
    )
    assert gradtx.coverage(gradtx.masked(gradtx.adam(0.1), "kernel$"), PARAMS)["embed"] == (
        "raw gradient"
    )
    assert gradtx.coverage(optax.adam(0.1), {"w": jnp.ones(2)})["w"] == "chain"  # pyright: ignore[reportArgumentType]


def test_a_decay_of_zero_is_none_and_one_behind_a_freeze_moves_the_leaf() -> None:
    assert gradtx.coverage(gradtx.adamw(0.1, weight_decay=0.0), BLOCK)["kernel"] == "adamw"
    with pytest.warns(UserWarning, match="frozen parameters still move by the decay of adamw"):
        behind = gradtx.chain(gradtx.freeze("kernel"), gradtx.adamw(0.1))
    assert gradtx.coverage(behind, BLOCK)["kernel"] == "adamw, decayed"


def test_a_member_that_sees_one_vector_covers_all_leaves() -> None:
    tx = gradtx.flatten(gradtx.adamw(0.1, mask="^float32$"))  # the path of its one vector
    table = gradtx.coverage(tx, BLOCK)
    assert tx.init(BLOCK).count == 0
    assert table == {"bias": "adamw, decayed", "kernel": "adamw, decayed"}


def test_the_builder_of_a_user_is_an_optimizer() -> None:
    @gradtx.definition
    def mine(learning_rate: float) -> gradtx.GradientTransformation:
        return gradtx.chain(gradtx.trace(0.9), gradtx.scale(-learning_rate))

    table = gradtx.coverage(gradtx.chain(gradtx.clip(1.0), mine(0.1)), BLOCK)
    assert table["bias"] == "mine"


ARRAYS = [jnp.array([0.5, -1.0, 2.0]), jnp.linspace(-1.0, 2.0, 9).reshape(3, 3)]
DECAYING = [
    name
    for name in FIRST
    if any(one.endswith("weight_decay") for one in gradtx.hyperparams(METHODS[name].tx))
]


def _with_decay(tx: gradtx.GradientTransformation, value: float) -> gradtx.GradientTransformation:
    names = [one for one in gradtx.hyperparams(tx) if one.endswith("weight_decay")]
    return gradtx.replace(tx, **dict.fromkeys(names, value))


def _after_six_steps(name: str, decay: float) -> Any:
    """The parameters after six steps: some methods gather, or only prepare, at the first ones."""
    row = METHODS[name]
    tx = _with_decay(row.tx, decay)
    state, update, total = tx.init(ARRAYS), jax.jit(tx.update), ARRAYS
    for step in range(1, 7):
        grads = [0.1 + 0.3 * (-1) ** (step // 2) * one for one in ARRAYS]
        extra = {} if row.extra is None else row.extra(step, ARRAYS, grads)
        new, state = (tx.update if extra else update)(grads, state, ARRAYS, **extra)
        total = jax.tree.map(jnp.add, total, new)
    return total


@pytest.mark.parametrize("name", DECAYING)
def test_decayed_leaves_are_those_that_the_decay_moves(name: str) -> None:
    table = gradtx.coverage(_with_decay(METHODS[name].tx, 0.3), ARRAYS)
    decayed, plain = (_after_six_steps(name, value) for value in (0.3, 0.0))
    for text, one, other in zip(table.values(), decayed, plain, strict=True):
        assert text.endswith("decayed") == bool(jnp.any(one != other)), text


@pytest.mark.parametrize("name", gradtx.list_optimizers())
def test_every_optimizer_trains_every_array_of_floats(name: str) -> None:
    params = PARAMS if name != "muon_clip" else {**PARAMS, "query": jnp.ones((3, 1, 3))}
    parameters = getattr(gradtx, name).factory.signature.parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty]
    numbers = {name: 0.5 for name in needed if name != "flags"}
    table = gradtx.coverage(gradtx.create(name, **numbers), params)
    trained = {path for path, text in table.items() if not text.startswith("not trained")}
    assert set(table) - trained == {"steps"} and len(table) == (10 if params is PARAMS else 11)
    assert not {"frozen", "raw gradient"} & set(table.values())
