"""Faults that a type checker finds before anything runs, and right uses that it accepts."""

import json
import pathlib
import subprocess
import sys
from typing import Any, get_args

import pytest

from gradtx.linalg.presets import PRESETS, SPELLINGS, Preset
from gradtx.storage.codec import CODECS, OwnCodec
from gradtx.storage.master_weights import FORMATS, master_weights
from tests.support.places import ROOT

PREAMBLE = """\
import jax.numpy as jnp

import gradtx

tx = gradtx.adamw(1e-3)
params = {"w": jnp.ones(2)}
state = tx.init(params)
loss = lambda params, x: jnp.sum(params["w"] * x)
rate = gradtx.cosine_decay_schedule(1e-3, 1000)
"""

ARGUMENT, CALL, ATTRIBUTE = (
    "reportArgumentType",
    "reportCallIssue",
    "reportAttributeAccessIssue",
)
FAULTS = {
    'gradtx.stored(tx, "int9")': ARGUMENT,
    'gradtx.stored(tx, mu="int9")': ARGUMENT,
    'gradtx.stored("int8", tx)': ARGUMENT,
    'gradtx.stored(tx, "int8", rounding="up")': ARGUMENT,
    'gradtx.master_weights(tx, "int8")': ARGUMENT,
    'gradtx.muon(1e-3, ns_coeffs="jordn")': ARGUMENT,
    'gradtx.partition({"a": tx}, 3)': ARGUMENT,
    'gradtx.partition([tx], [(".*", "a")])': ARGUMENT,
    'gradtx.multi_transform({"a": tx}, 3)': ARGUMENT,
    "gradtx.masked(tx, 3)": ARGUMENT,
    "gradtx.freeze(3)": ARGUMENT,
    'gradtx.adamw("1e-3")': ARGUMENT,
    "gradtx.adamw(1e-3, (0.9, 0.99))": ARGUMENT,
    "gradtx.adamw(1e-3, weight_decay=None)": ARGUMENT,
    "gradtx.adamw(lr=1e-3)": CALL,
    "gradtx.adamw(1e-3, betas=(0.9, 0.99))": CALL,
    "gradtx.sgd(0.1, 0.9, 1e-4)": ARGUMENT,
    "gradtx.sgd(0.1, momentum=[0.9])": ARGUMENT,
    "gradtx.adam(1e-3, mu_dtype=8)": ARGUMENT,
    "gradtx.adam(params, 1e-3)": ARGUMENT,
    "gradtx.Adam(1e-3)": ATTRIBUTE,
    "gradtx.chain([tx, tx])": ARGUMENT,
    "gradtx.chain(gradtx.clip_by_global_norm, tx)": ARGUMENT,
    "gradtx.clip_by_global_norm(None)": ARGUMENT,
    "gradtx.guard(gradtx.adamw)": ARGUMENT,
    "gradtx.accumulate(4, tx)": ARGUMENT,
    'gradtx.accumulate(tx, "4")': ARGUMENT,
    'gradtx.lookahead(tx, "5", 0.5)': ARGUMENT,
    "gradtx.params_ema(tx, 0.9)": ARGUMENT,
    "gradtx.tunable(tx, 3)": ARGUMENT,
    "tx.step()": ATTRIBUTE,
    "tx(params)": CALL,
    "tx.learning_rate": ATTRIBUTE,
    "tx.init()": CALL,
    "tx.update(params, state, params).mu": ATTRIBUTE,
    "gradtx.make_step(tx, loss)": ARGUMENT,
    "gradtx.make_step(loss, gradtx.adamw)": ARGUMENT,
    'gradtx.make_step(loss, tx, donate="yes")': ARGUMENT,
    'gradtx.make_step(loss, tx, rounding="up")': ARGUMENT,
    "gradtx.make_step(loss, tx).step": ATTRIBUTE,
    'gradtx.cosine_decay_schedule("1", 100)': ARGUMENT,
    "gradtx.cosine_decay_schedule(1.0)": CALL,
    "rate.step()": ATTRIBUTE,
    "gradtx.hyperparams(state)": ARGUMENT,
    "gradtx.replace(params, learning_rate=1.0)": ARGUMENT,
    'gradtx.save({"a": 1}, "x.npz")': ARGUMENT,
    'gradtx.save("runs/a", params, step="5")': ARGUMENT,
    'gradtx.load("x.npz")': CALL,
    "state.count.value": ATTRIBUTE,
}
"""A line with one fault, and the rule of pyright that reports it."""

RIGHT = [
    "state.count.shape, state.slots",
    "updates, new = tx.update(params, state, params)",
    "new.count, new.mu",
    "gradtx.apply_updates(params, tx.update(params, state, params)[0])",
    "init, update = tx",
    'gradtx.stored(tx, "int8", nu="bf16")',
    'gradtx.master_weights(tx, "low16")',
    'gradtx.muon(1e-3, ns_coeffs="jordan")',
    "gradtx.muon(1e-3, ns_coeffs=[(3.4445, -4.775, 2.0315)])",
    'gradtx.partition({"a": tx, "b": gradtx.sgd(rate)}, [("w", "a"), (".*", "b")])',
    'gradtx.partition({"a": tx}, {"w": "a"})',
    'gradtx.partition({1: tx, False: tx}, lambda tree: {"w": 1})',
    'gradtx.masked(tx, {"w": True})',
    'gradtx.masked(tx, r"kernel$")',
    "gradtx.masked(tx, lambda path, leaf: leaf.ndim > 1)",
    'gradtx.freeze("encoder")',
    "gradtx.adamw(rate, b1=0.95, weight_decay=jnp.asarray(0.1), mask=lambda tree: tree)",
    "gradtx.sgd(lambda count: 0.1 / (1 + count), momentum=0.9)",
    "gradtx.chain(gradtx.clip_by_global_norm(1.0), tx, gradtx.adam(1e-3, mu_dtype=jnp.bfloat16))",
    "gradtx.guard(gradtx.accumulate(tx, 4))",
    'gradtx.tunable(tx, "learning_rate", "b1")',
    "step = gradtx.make_step(loss, tx, donate=False)",
    "more, state, value = step(params, state, 1.0)",
    "step.lower(params, state, 1.0).compile()",
    'gradtx.save("runs/a", params, step=state.count, keep=2)',
    'gradtx.load("runs/a", params, step=gradtx.latest_step("runs/a"))',
    'gradtx.hyperparams(tx, state)["learning_rate"]',
    "reveal_type(tx.init(params))",
    "reveal_type(tx.update(params, state, params))",
    "reveal_type(gradtx.latest_step('runs/a'))",
]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What pyright says of both files, by file."""
    folder = tmp_path_factory.mktemp("types")
    for name, lines in (("faults", FAULTS), ("right", RIGHT)):
        (folder / f"{name}.py").write_text(PREAMBLE + "\n".join(lines) + "\n")
    config = {"extraPaths": [str(ROOT)], "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    pyright = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    run = subprocess.run(
        [*pyright, "-p", str(folder)], capture_output=True, text=True, check=False, cwd=folder
    )
    found: dict[str, list[dict[str, Any]]] = {"faults": [], "right": []}
    for one in json.loads(run.stdout)["generalDiagnostics"]:
        found[pathlib.Path(one["file"]).stem].append(one)
    return found


def test_every_planted_fault_is_found(reports: dict[str, list[dict[str, Any]]]) -> None:
    first = PREAMBLE.count("\n")
    found: dict[int, set[str]] = {}
    for one in reports["faults"]:
        found.setdefault(one["range"]["start"]["line"] - first, set()).add(one.get("rule", ""))
    missed = {
        line: (rule, found.get(number))
        for number, (line, rule) in enumerate(FAULTS.items())
        if rule not in found.get(number, ())
    }
    assert not missed and len(FAULTS) >= 20


def test_right_uses_have_no_error(reports: dict[str, list[dict[str, Any]]]) -> None:
    errors = [one["message"] for one in reports["right"] if one["severity"] == "error"]
    assert not errors and len(RIGHT) >= 20


def test_a_checker_knows_the_types_of_results(reports: dict[str, list[dict[str, Any]]]) -> None:
    """So an editor completes `count` and `slots` behind `tx.init(params).`."""
    said = [one["message"] for one in reports["right"] if one["severity"] == "information"]
    assert said == [
        'Type of "tx.init(params)" is "State"',
        'Type of "tx.update(params, state, params)" is "tuple[Any, State]"',
        'Type of "gradtx.latest_step(\'runs/a\')" is "int | None"',
    ]


def test_the_names_that_a_checker_knows_are_all() -> None:
    assert set(get_args(OwnCodec)) == {*CODECS, "float32"}
    assert set(get_args(Preset)) == {*PRESETS, *SPELLINGS}
    hint = master_weights.factory._hints["format"]  # pyright: ignore[reportFunctionMemberAccess]
    assert set(get_args(hint)) == set(FORMATS)
