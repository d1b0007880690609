"""`describe`: every method and wrapper, beside `summary` and the updates themselves."""

import io
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.definition.description import Description
from gradtx.definition.errors import GradtxError, StateError
from tests.methods import METHODS

BLOCK = {"bias": jnp.ones(4), "kernel": jnp.ones((4, 4))}
PARAMS = {"blocks": [BLOCK] * 3, "embed": jnp.ones((9, 4)), "none": None}
RATE = gradtx.linear_schedule(0.1, 0.0, 10)
ARRAYS = [jnp.array([0.5, -1.0, 2.0]), jnp.linspace(-1.0, 2.0, 9).reshape(3, 3)]


def trained_by(description: Description) -> dict[str, str]:
    return {line.path: line.training for line in description.leaves}


@pytest.mark.parametrize("name", METHODS)
def test_every_leaf_is_in_one_line_and_the_bytes_are_those_of_summary(name: str) -> None:
    tx = METHODS[name].tx
    found = tx.describe(ARRAYS)
    table = gradtx.summary(tx, ARRAYS, file=io.StringIO())
    assert found.arrays == len(ARRAYS) and found.bytes == table.bytes
    members = found.members[0].bytes
    count = 0 if tx.is_plain else 4
    assert members == table.bytes - count, "those of the root and the step count"
    assert min(one.bytes for one in (*found.members, *found.leaves)) >= 0 <= found.shared_bytes
    top = [one.bytes for one in found.members if one.depth == 1]
    assert sum(top) <= members and found.members[0].depth == 0
    assert found.members[0].arrays == sum(one.training != "raw gradient" for one in found.leaves)
    assert str(found) and found._repr_html_().startswith('<div class="gradtx">')
    assert all(line.is_frozen == (line.training == "frozen") for line in found.leaves)


FROZEN = {
    "a mask": gradtx.chain(gradtx.adamw(0.1), gradtx.freeze("bias$")),
    "a mask behind a norm": gradtx.chain(
        gradtx.adamw(0.1), gradtx.clip_by_global_norm(1.0), gradtx.freeze("bias$")
    ),
    "a group": gradtx.partition(
        {"frozen": gradtx.set_to_zero(), "rest": gradtx.lion(0.1)},
        [("bias$", "frozen"), (".*", "rest")],
    ),
    "before": gradtx.chain(gradtx.freeze("bias$"), gradtx.adam(0.1)),
    "decay behind": gradtx.chain(gradtx.freeze("bias$"), gradtx.adamw(0.1, mask=".*")),
    "noise behind": gradtx.chain(gradtx.freeze("bias$"), gradtx.add_noise(0.1, 0.0, 0)),
    "inside": gradtx.guard(gradtx.chain(gradtx.freeze("bias$"), gradtx.scale(-1.0))),
    "stored": gradtx.stored(gradtx.masked(gradtx.set_to_zero(), "bias$"), "bf16"),
    "none": gradtx.adamw(0.1),
}


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_leaves_are_those_whose_update_is_zero(name: str) -> None:
    tx = FROZEN[name]
    updates, _ = tx.update(BLOCK, tx.init(BLOCK), BLOCK)
    for line in tx.describe(BLOCK).leaves:
        assert line.is_frozen == (not np.any(updates[line.path])), line
        assert not (line.is_frozen and line.is_decayed), line


def test_members_are_a_tree_with_their_arrays_and_bytes() -> None:
    tx = gradtx.partition(
        {
            "embed": gradtx.stored(gradtx.adam(1e-3), "bf16"),
            "blocks": gradtx.chain(
                gradtx.clip(1.0), main=gradtx.masked(gradtx.lion(RATE), "kernel")
            ),
        },
        [("^embed", "embed"), (".*", "blocks")],
    )
    found = gradtx.guard(tx).describe(PARAMS)
    lines = [(one.depth, one.label, one.call, one.arrays, one.bytes) for one in found.members]
    assert [one for one in lines if one[0] != 1] == [
        (0, "", "guard", 7, found.bytes - 4),
        (2, "embed", "stored(default='bf16')", 1, 2 * 36 * 4),
        (3, "", "adam(learning_rate=0.001)", 1, 2 * 36 * 4),
        (2, "blocks", "chain", 6, 3 * 16 * 4),
        (3, "", "clip(max_delta=1.0)", 6, 0),
        (3, "main", "masked(mask='kernel')", 3, 3 * 16 * 4),
        (4, "", "lion(learning_rate=linear_schedule(...))", 3, 3 * 16 * 4),
    ]
    assert trained_by(found) == {
        "blocks/*/bias": "blocks: clip",
        "blocks/*/kernel": "blocks: lion, decayed",
        "embed": "embed: adam",
    }


def test_the_groups_of_one_optimizer_have_lines_of_their_own() -> None:
    found = gradtx.with_metrics(gradtx.muon(0.1, weight_decay=0.1)).describe(PARAMS)
    assert [(one.depth, one.call.split("(")[0], one.arrays) for one in found.members] == [
        (0, "with_metrics", 7),
        (1, "muon", 7),
        (2, "muon", 3),
        (2, "adam", 4),
    ]
    assert found.members[2].bytes + found.members[3].bytes == found.members[1].bytes
    assert trained_by(found)["embed"] == "adam"


def test_one_object_in_two_places_of_a_tree() -> None:
    adam = gradtx.adam(0.1)
    found = gradtx.chain(adam, adam).describe(BLOCK)
    assert [one.bytes for one in found.members] == [2 * 160, 160, 160]
    assert trained_by(found)["bias"] == "adam + adam"


def test_rates_now_and_what_moves() -> None:
    tx = gradtx.accumulate(gradtx.adamw(RATE, b1=gradtx.constant_schedule(0.8)), 2)
    state = tx.init(PARAMS)
    for _ in range(6):
        _, state = tx.update(PARAMS, state, PARAMS)
    before, now = tx.describe(PARAMS), tx.describe(PARAMS, state)
    assert [(one.name, round(float(one.value), 4)) for one in before.values] == [
        ("learning_rate", 0.1),
        ("b1", 0.8),
    ]
    assert float(now.values[0].value) == pytest.approx(0.07) and int(now.count) == 3
    assert "learning_rate = 0.07 at step 3, from linear_schedule(init_value=0.1" in str(now)
    assert before.leaves == now.leaves and before.members == now.members
    tuned = gradtx.tunable(gradtx.adam(0.1), "b1")
    state = tuned.init(BLOCK)._replace(hyperparams={"b1": jnp.float32(0.5)})
    values = {one.name: float(one.value) for one in tuned.describe(BLOCK, state).values}
    assert values == pytest.approx({"learning_rate": 0.1, "b1": 0.5})


def test_of_ten_thousand_leaves_a_screen_is_left() -> None:
    shape = jax.ShapeDtypeStruct((4,), "float32")
    letters = "abcdefghij"
    params = {
        f"{a}{b}": {f"{c}{d}": shape for c in letters for d in letters}
        for a in letters
        for b in letters
    }
    before = time.process_time()
    found = gradtx.chain(gradtx.adamw(0.1, mask="aa$"), gradtx.freeze("^b")).describe(params)
    text, html = str(found), found._repr_html_()
    assert time.process_time() - before < 30  # about 3 s on one core; a loop over pairs takes hours
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 120
    assert len(html) < 200_000 and "the first 300 of 10,000 lines" in html
    assert sum(line.arrays for line in found.leaves) == 10_000
    assert "10,000 arrays" in text and "adamw, decayed" in text and "frozen" in text


def test_a_thousand_groups_are_cut_off() -> None:
    groups = {f"g{'x' * n}": gradtx.sgd(0.1) for n in range(40)}
    params = {name: jnp.ones(2) for name in groups}
    text = str(gradtx.partition(groups, dict(zip(groups, groups, strict=True))).describe(params))
    assert "… 17 more" in text and "… 17 more lines" in text and "17 ways" in text


def test_batches_traced_numbers_shapes_alone_and_nothing() -> None:
    batch = gradtx.replace(gradtx.sgd(0.1), learning_rate=jnp.ones(3))
    assert "learning_rate = f32[3]" in str(batch.describe(BLOCK))

    def text(rate: Any) -> Any:
        assert "learning_rate = f32[]" in str(gradtx.adamw(rate).describe(BLOCK))
        return rate

    jax.jit(text)(0.1)
    shapes = jax.eval_shape(lambda: PARAMS)
    assert gradtx.adamw(0.1).describe(shapes) == gradtx.adamw(0.1).describe(PARAMS)
    assert gradtx.adamw(0.1).describe({}).arrays == 0
    assert gradtx.adamw(0.1).describe(jnp.ones(3)).leaves[0].path == ""
    ints = gradtx.adamw(0.1).describe({"n": jnp.asarray(3), "w": jnp.ones(2)})
    assert trained_by(ints)["n"] == "not trained, i32" and ints.members[0].arrays == 1


def test_another_library_and_mistakes() -> None:
    found = gradtx.describe(optax.adamw(0.1), BLOCK)
    assert found.bytes == 164 and len(found.members) == 1 and found.values == ()
    inside = gradtx.chain(gradtx.clip(1.0), optax.adam(0.1)).describe(BLOCK)
    assert [one.bytes for one in inside.members] == [164, 0, 164]
    with pytest.raises(GradtxError, match=r"^describe: tx is 0\.1, which has no init and update"):
        gradtx.describe(0.1, BLOCK)  # pyright: ignore[reportArgumentType]
    with pytest.raises(StateError, match=r"^the state of adamw is a dict"):
        gradtx.adamw(0.1).describe(BLOCK, BLOCK)


def test_html_is_self_contained_and_escaped() -> None:
    tx = gradtx.chain(gradtx.adamw(RATE, mask="kernel|<b>&"), gradtx.freeze("^embed"))
    for html in (tx.describe(PARAMS)._repr_html_(), tx._repr_html_()):
        assert "<b>" not in html and "&lt;b&gt;&amp;" in html
        assert html.count("<details") == html.count("</details>") and "http" not in html
        assert html.count("<div") == html.count("</div>")
    assert (
        "learning_rate" in tx._repr_html_() and "linear_schedule(init_value=0.1" in tx._repr_html_()
    )
    assert "frozen" in tx.describe(PARAMS)._repr_html_()


@pytest.mark.parametrize("name", METHODS)
def test_every_definition_shows_its_numbers_in_a_notebook(name: str) -> None:
    html = METHODS[name].tx._repr_html_()
    assert html.count("<details") == html.count("</details>")
    numbers = {one.split(".")[-1] for one in gradtx.hyperparams(METHODS[name].tx)}
    assert all(one.split("[")[0] in html for one in numbers), numbers


def test_data_are_plain() -> None:
    found = gradtx.adamw(1e-3).describe(BLOCK)
    assert json.loads(json.dumps([one._asdict() for one in found.leaves]))[0] == {
        "path": "bias",
        "array": "f32[4]",
        "arrays": 1,
        "training": "adamw, decayed",
        "is_decayed": True,
        "is_frozen": False,
        "bytes": 32,
    }
