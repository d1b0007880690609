"""The examples of FSDP: eight devices compute as one, and each slot is cut as its parameter."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
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


def test_a_training_that_is_killed_on_eight_devices_goes_on_on_four(tmp_path: Path) -> None:
    command = [sys.executable, "examples/fsdp_char_lm.py", "--tiny", "--out", str(tmp_path)]
    # Of the environment of the tests, the devices are the script's own.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    killed = re.search(
        r"killed after step (\d+); resuming from the checkpoint of step (\d+)", run.stdout
    )
    assert killed is not None, run.stdout
    last, saved = map(int, killed.groups())
    assert saved % 8 == 0 and 12 <= last < 24 and saved <= last
    logs = {devices: [json.loads(line) for line in lines(tmp_path, devices)] for devices in (8, 4)}
    assert [row["step"] for row in logs[4]] == list(range(saved + 1, 25))
    before = [row["loss"] for row in logs[8][saved:last]]
    after = [row["loss"] for row in logs[4][: last - saved]]
    # Sums in another order move an int8 code by one now and then.
    assert after == pytest.approx(before, rel=2e-3)
    assert f"steps {saved + 1} to {last} ran on both" in run.stdout
    assert logs[4][-1]["valid"] < 3.5 < logs[8][0]["loss"]
    sizes = re.findall(
        r"(\d) devices: ([\d,]+) bytes of parameters and ([\d,]+) of state", run.stdout
    )
    state = {int(devices): int(size.replace(",", "")) for devices, _, size in sizes}
    assert state[8] < 0.6 * state[4]


def lines(out: Path, devices: int) -> list[str]:
    """The complete lines of a log: the kill may cut the last one short."""
    log = out / "fsdp_char_lm" / f"{devices}-devices.jsonl"
    return log.read_text(encoding="utf-8").split("\n")[:-1]
