"""Layer-wise decay by the names of layers."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

W = jnp.ones(2)


def factors(params: Any, **kwargs: Any) -> dict[str, float]:
    tx = gradtx.layerwise_decay(gradtx.sgd(1.0), 0.5, **kwargs)
    updates, _ = tx.update(params, tx.init(params), params)
    flat, _ = jax.tree_util.tree_flatten_with_path(updates)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): -float(v[0]) for p, v in flat}


@pytest.mark.parametrize(
    "names",
    [
        ("patch_embed", "blocks/0", "blocks/1", "norm"),
        ("wte", "h.0", "h.1", "ln_f"),
        ("embed_tokens", "layer_1", "layer_2", "lm_head"),
        ("cls_token", "encoderblock_0", "encoderblock_1", "head"),
        ("embeddings/word", "encoder/layer/0/w", "encoder/layer/1/w", "classifier"),
    ],
)
def test_names_of_layers(names: tuple[str, ...]) -> None:
    """Embeddings are layer 0, head and final norm the last, as in BEiT."""
    found = factors(dict.fromkeys(names, W))
    assert [found[name] for name in names] == [0.125, 0.25, 0.5, 1.0]


def test_the_number_of_layers_may_be_given_and_the_pattern() -> None:
    params = {"stage/a1": W, "stage/a2": W, "out": W}
    found = factors(params, pattern=r"a(\d)", layers=3)
    assert found == {"stage/a1": 0.125, "stage/a2": 0.25, "out": 1.0}


def test_a_stack_is_as_its_layers_apart() -> None:
    grads = np.arange(6.0, dtype="f").reshape(3, 2)
    tx = gradtx.layerwise_decay(gradtx.adamw(0.1), 0.5, stacked=r"^layers")
    apart = gradtx.layerwise_decay(gradtx.adamw(0.1), 0.5)
    stack, list_ = {"layers": jnp.asarray(grads)}, {"layers": list(map(jnp.asarray, grads))}
    together, _ = tx.update(stack, tx.init(stack), stack)
    single, _ = apart.update(list_, apart.init(list_), list_)
    np.testing.assert_allclose(together["layers"], jnp.stack(single["layers"]), rtol=1e-6)


def test_the_state_has_the_paths_of_the_optimizer() -> None:
    params = {"layers": [W, W]}
    tx = gradtx.layerwise_decay(gradtx.adamw(0.1), 0.5)
    ours, theirs = tx.init(params), gradtx.adamw(0.1).init(params)
    paths = [path.split("/")[-3:] for path in gradtx.flatten_state(ours.slots)]
    assert paths == [path.split("/")[-3:] for path in gradtx.flatten_state(theirs.slots)]


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        (
            {"pattern": r"stage"},
            gradtx.SelectionError,
            "pattern = 'stage' has no group: write the number of the layer as one, 'blocks/(\\d+)'",
        ),
        ({"pattern": r"(lay)ers"}, gradtx.SelectionError, "is 'lay' at 'layers/0', and must be"),
        ({"pattern": r"stage(\d)"}, gradtx.SelectionError, "no path has the number of a layer"),
        ({"layers": 1}, gradtx.SelectionError, "layers = 1, and the parameters have 2"),
        (
            {"stacked": r"out", "axis": 3},
            gradtx.StructureError,
            "axis = 3 is not an axis of 'out', f32[2]: give the axis that counts layers",
        ),
    ],
)
def test_errors(kwargs: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        factors({"layers": [W, W], "out": W}, **kwargs)
