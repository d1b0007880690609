"""The batches of `gradtx.find_learning_rate`: forms that are not stacked batches, each answered."""

import re
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import StructureError

X = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
Y = X @ np.ones(8, np.float32)
BATCHES = X.reshape(32, 8, 8), Y.reshape(32, 8)
PAIRS = list(zip(*BATCHES, strict=True))


def loss(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((x @ w - y) ** 2)


def of_pair(w: jax.Array, batch: Any) -> jax.Array:
    return loss(w, *batch)


def of_dict(w: jax.Array, batch: Any) -> jax.Array:
    return loss(w, batch["x"], batch["y"])


def find(batches: Any, loss_fn: Any = loss) -> Any:
    return gradtx.find_learning_rate(loss_fn, jnp.zeros(8), gradtx.sgd(1.0), batches)


@pytest.mark.parametrize(
    ("batches", "loss_fn"),
    [
        (BATCHES, loss),
        ((BATCHES,), of_pair),
        ({"x": BATCHES[0], "y": BATCHES[1]}, of_dict),
        (list(BATCHES), of_pair),
        (BATCHES, jax.jit(loss)),
    ],
)
def test_forms_that_are_right(batches: Any, loss_fn: Any) -> None:
    np.testing.assert_allclose(find(batches, loss_fn).losses, find(BATCHES).losses, rtol=1e-4)


STACK = "stack them along a first axis, jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)"
REPEAT = (
    "to train on one batch again and again, repeat it, jax.tree.map(lambda leaf: "
    "jnp.broadcast_to(leaf, (100, *leaf.shape)), batches)"
)
CASES: dict[str, tuple[Any, Any, str]] = {
    "one batch": (
        (X[:16], Y[:16]),
        loss,
        f"16 batches are too few to see a slope; give 30 or more, about 100, or less smoothing; "
        f"{REPEAT}",
    ),
    "a list of batches": (PAIRS, loss, f"batches is a list of 32 batches; {STACK}"),
    "a list for one argument": (PAIRS, of_pair, f"batches is a list of 32 batches; {STACK}"),
    "a list of dicts": (
        [{"x": x, "y": y} for x, y in PAIRS],
        of_dict,
        f"batches is a list of 32 batches; {STACK}",
    ),
    "a tuple of batches": (tuple(PAIRS), loss, f"batches is a tuple of 32 batches; {STACK}"),
    "few batches in a list": (PAIRS[:3], loss, f"batches is a list of 3 batches; {STACK}"),
    "few batches in a list, one argument": (
        PAIRS[:3],
        of_pair,
        f"8 batches are too few to see a slope; give 30 or more, about 100, or less smoothing; if "
        f"3 batches are in a list, {STACK}",
    ),
    "an iterator": (
        zip(*BATCHES, strict=True),
        loss,
        "batches at '0' is a zip, not an array; take some of its batches, batches = "
        f"list(itertools.islice(batches, 100)), and {STACK}",
    ),
    "a function": (lambda step: BATCHES, loss, "batches at '0' is a function, not an array; take"),
    "a list for two arguments": (
        list(BATCHES),
        loss,
        "loss_fn(w, x, y) cannot be called as loss_fn(params, batches[0]); a list is one argument, "
        "a tuple holds several: write batches=(x, y)",
    ),
    "a tuple for one argument": (
        BATCHES,
        of_pair,
        "loss_fn(w, batch) cannot be called as loss_fn(params, batches[0], batches[1]); a tuple "
        "holds several arguments: for one that is a tuple write batches=((x, y),)",
    ),
    "too many arguments": (
        (*BATCHES, X.reshape(32, 64)),
        loss,
        "as loss_fn(params, batches[0], batches[1], batches[2]); give a tuple with one tree of "
        "arrays for each argument behind the parameters",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_forms_that_are_wrong(name: str) -> None:
    batches, loss_fn, text = CASES[name]
    with pytest.raises(StructureError, match=re.escape(text)):
        find(batches, loss_fn)


EXAMPLES = re.escape("looks like one example; to split examples into batches of 32, write jax.tree")


@pytest.mark.parametrize("labels", [Y, Y[:, None]])
def test_single_examples_are_noticed(labels: Any) -> None:
    """A curve is computed, since a step may be for one example."""
    shown = re.escape("on one entry along the first axis, f32[8], f32[")
    with pytest.warns(UserWarning, match=rf"{shown}1?\], which {EXAMPLES}.*{re.escape(REPEAT)}"):
        curve = find((X, labels), lambda w, x, y: jnp.mean((x @ w - y) ** 2))
    assert curve.losses.shape == (256,)


def test_the_cures_are_right() -> None:
    examples = X, Y
    split = jax.tree.map(lambda leaf: leaf.reshape(-1, 8, *leaf.shape[1:]), examples)
    np.testing.assert_array_equal(find(split).losses, find(BATCHES).losses)
    repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (100, *leaf.shape)), examples)
    assert find(repeated).losses.shape == (100,)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *PAIRS)
    np.testing.assert_array_equal(find(stacked).losses, find(BATCHES).losses)


@pytest.mark.parametrize(
    "extra", [jax.random.split(jax.random.key(0), 32), jax.random.split(jax.random.PRNGKey(0), 32)]
)
def test_keys_and_numbers_of_steps_are_not_examples(extra: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find((*BATCHES, extra), lambda w, x, y, key: loss(w, x, y))
        find((BATCHES[0], extra), lambda w, x, key: loss(w, x, x[:, 0]))
        find((*BATCHES, np.arange(32)), lambda w, x, y, step: loss(w, x, y) * step)


def find_note(error: Exception) -> str:
    return next(note for note in error.__notes__ if note.startswith("find_learning_rate"))


def test_an_error_of_the_loss_says_the_shapes_of_a_step() -> None:
    def per_example(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return loss(w, x, y) / len(y)

    with pytest.raises(TypeError, match="len") as caught:
        find((X, Y), per_example)
    note = find_note(caught.value)
    assert note.startswith(
        "find_learning_rate called loss_fn with one entry along the first axis of batches: f32[8], "
        "f32[]; to split examples into batches of 32, write"
    )
    with pytest.raises(TypeError, match="contracting") as caught:
        gradtx.find_learning_rate(loss, jnp.zeros(5), gradtx.sgd(1.0), BATCHES)
    note = find_note(caught.value)
    assert note.endswith("the first axis of batches: f32[8,8], f32[8]")
