"""The examples of FSDP: eight devices compute as one, and each slot is cut as its parameter."""

import importlib
import re
from typing import Any

import jax
import pytest

import gradtx
from tests.support.places import ROOT


def placements(tree: Any) -> dict[str, jax.Array]:
    """The arrays of a tree, by path, without the functions of a module."""
    arrays = jax.tree.map(lambda one: one if isinstance(one, jax.Array) else None, tree)
    return gradtx.flatten_state(arrays)


@pytest.mark.parametrize("name", ["equinox", "linen", "nnx"])
def test_eight_devices_are_one_and_the_state_is_cut_as_the_parameters(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    script = importlib.import_module(f"fsdp_{name}")
    with jax.numpy_rank_promotion("allow"):  # as for a user
        runs = script.main()
    lines = re.findall(r"^(\w+) +loss ([\d.]+) to ([\d.]+), eight", capsys.readouterr().out, re.M)
    assert [line[0] for line in lines] == ["adamw", "muon"]
    for _, first, last in lines:
        assert float(last) < 0.8 * float(first)
    for run in runs.values():
        params, slots = placements(run.params), placements(run.state)
        cut = {path for path, one in params.items() if not one.sharding.is_fully_replicated}
        assert len(cut) >= 2
        of_parameters = {
            slot: path for slot in slots for path in params if slot.endswith(f"/{path}")
        }
        assert set(of_parameters.values()) == set(params)
        assert {slot.rsplit("/", 1)[-1] for slot in slots.keys() - of_parameters} <= {"count"}
        for slot, path in of_parameters.items():
            ours, theirs = slots[slot].sharding, params[path].sharding
            assert ours.is_equivalent_to(theirs, params[path].ndim), slot
