"""`from_torch_state`: the next step is that of torch, from a recorded `state_dict`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.support.places import ROOT

RECORD = dict(np.load(ROOT / "tests" / "traces" / "torch_states.npz"))
DEFINITIONS = {
    "adam": gradtx.adam(0.01),
    "adamw": gradtx.adamw(0.01, weight_decay=0.1),
    "sgd": gradtx.sgd(0.1, momentum=0.9),
}
PATHS = {f"{n}.weight": f"layer{n}/kernel" for n in (0, 1)} | {
    f"{n}.bias": f"layer{n}/bias" for n in (0, 1)
}
AXES = {r"\.weight$": (1, 0)}


def tree(name: str, part: str) -> dict[str, Any]:
    """Parameters or gradients of torch in the form of a JAX model: kernels of (inputs, outputs)."""
    return {
        f"layer{n}": {
            "kernel": jnp.asarray(RECORD[f"{name}|{part}|{n}.weight"].T),
            "bias": jnp.asarray(RECORD[f"{name}|{part}|{n}.bias"]),
        }
        for n in (0, 1)
    }


def state_dict(name: str, keys: str = "numbers") -> dict[str, Any]:
    names, state = RECORD[f"{name}|names"].tolist(), dict[Any, Any]()
    for key, value in RECORD.items():
        if key.startswith(f"{name}|state|"):
            _, _, index, field = key.split("|")
            state.setdefault(int(index), {})[field] = value
    if keys == "names":
        return {"state": {names[index]: fields for index, fields in state.items()}}
    return {"state": state, "param_groups": [{"params": [0, 1, 2, 3], "param_names": names}]}


@pytest.mark.parametrize("keys", ["names", "numbers"])
@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_the_next_step_is_that_of_torch(name: str, keys: str) -> None:
    tx, params = DEFINITIONS[name], tree(name, "params")
    state = gradtx.from_torch_state(tx, state_dict(name, keys), params, paths=PATHS, axes=AXES)
    assert int(state.count) == (0 if name == "sgd" else 3)
    updates, _ = tx.update(tree(name, "grads"), state, params)
    after = gradtx.apply_updates(params, updates)
    for one, other in zip(
        jax.tree.leaves(after), jax.tree.leaves(tree(name, "after")), strict=True
    ):
        # Both in float32; without the moments the updates differ by more than a tenth.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_around_a_clip_the_slots_are_the_same() -> None:
    params = tree("adamw", "params")
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), DEFINITIONS["adamw"])
    state = gradtx.from_torch_state(tx, state_dict("adamw"), params, paths=PATHS, axes=AXES)
    np.testing.assert_array_equal(state.mu["layer0"]["kernel"], RECORD["adamw|state|0|exp_avg"].T)


def without(name: str, key: Any) -> dict[str, Any]:
    saved = state_dict(name)
    return saved | {"state": {k: one for k, one in saved["state"].items() if k != key}}


def other_step() -> dict[str, Any]:
    saved = state_dict("adam")
    saved["state"][2] = saved["state"][2] | {"step": 9}
    return saved


MISTAKES: dict[str, tuple[Callable[[], dict[str, Any]], dict[str, Any], str]] = {
    "no names": (
        lambda: state_dict("adam") | {"param_groups": []},
        {},
        "from_torch_state: the state_dict numbers its parameters to 3, and names= has 0: pass "
        "names=[name for name, _ in model.named_parameters()]",
    ),
    "no path": (
        lambda: state_dict("adam"),
        {"paths": PATHS | {"0.weight": "layer0/kernle"}},
        "from_torch_state: the parameters have nothing at 'layer0/kernle' for '0.weight'; did you "
        "mean 'layer0/kernel'?; pass paths={'0.weight': ...}",
    ),
    "nothing for a parameter": (
        lambda: without("adam", 1),
        {},
        "from_torch_state: the state_dict has nothing for the parameter 'layer0/bias'; it has "
        "0.weight, 1.weight, 1.bias: pass paths= by torch's names",
    ),
    "another optimizer": (
        lambda: state_dict("sgd"),
        {},
        "from_torch_state: no field of torch's state holds the slot 'mu' of 'layer0/bias'; "
        "'0.bias' has momentum_buffer: write the definition that was trained",
    ),
    "steps that differ": (
        other_step,
        {},
        "from_torch_state: '0.weight' has made 3 steps, and '1.weight' 9: pass count= with the "
        "number of the whole",
    ),
    "no axes": (
        lambda: state_dict("adam"),
        {"axes": None},
        "entry 'slots/scale_by_adam/mu/layer0/kernel' has shape (5, 3), expected (3, 5): this "
        "state was made for other parameters",
    ),
}


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_mistakes(name: str) -> None:
    saved, options, text = MISTAKES[name]
    options = {"paths": PATHS, "axes": AXES} | options
    with pytest.raises(gradtx.StateError) as caught:
        gradtx.from_torch_state(gradtx.adam(0.01), saved(), tree("adam", "params"), **options)
    assert str(caught.value) == text
