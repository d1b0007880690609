"""The examples and the README run, and print their documented output."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.blocks import run_blocks
from tests.support.places import ROOT

DIGITS = ROOT / "examples" / "digits.py"
CHAR_LM = ROOT / "examples" / "char_lm.py"
PNG = b"\x89PNG\r\n\x1a\n"

BLOCKED = """
import runpy, sys
sys.modules[{name!r}] = None
sys.path.insert(0, {folder!r})
runpy.run_path({script!r}, run_name="__main__")
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONIOENCODING": "utf-8",
        "COLUMNS": "100",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        env=environment,
        cwd=ROOT,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("demo")
    run = python(str(DIGITS), "--quick", "--out", str(out))
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout, out


def test_demo_learns_the_digits(demo: tuple[str, Path]) -> None:
    match = re.search(r"test accuracy ([\d.]+)% \((\d+) of 270 images\)", demo[0])
    assert match is not None, demo[0]
    assert float(match[1]) > 90
    assert float(match[1]) == pytest.approx(100 * int(match[2]) / 270, abs=0.05)


def test_demo_shows_the_state_and_the_race(demo: tuple[str, Path]) -> None:
    for text in (
        "adamw/scale_by_adam  mu     layers/1/kernel  f32[128,128]",
        "208,980       8.00",
        "18 trainings of 60 steps",
    ):
        assert text in demo[0]
    for method in ("SGD", "Adam"):
        row = re.search(
            rf"│ {method} +│ +([\d.e-]+) │ +([\d.]+) │ +([\d.]+)% │ +\d of 9 │", demo[0]
        )
        assert row is not None, demo[0]
        assert float(row[3]) > 80


@pytest.mark.parametrize("name", ["demo.png", "race.png"])
def test_demo_draws(demo: tuple[str, Path], name: str) -> None:
    image = (demo[1] / name).read_bytes()
    assert image.startswith(PNG)
    assert len(image) > 10_000


@pytest.mark.parametrize(
    ("script", "module", "package"),
    [
        (DIGITS, "matplotlib", "matplotlib"),
        (DIGITS, "sklearn", "scikit-learn"),
        (DIGITS, "rich", "rich"),
        (CHAR_LM, "rich", "rich"),
    ],
)
def test_demo_names_the_missing_package(script: Path, module: str, package: str) -> None:
    run = python("-c", BLOCKED.format(name=module, folder=str(script.parent), script=str(script)))
    assert run.returncode == 1
    assert run.stdout == ""
    assert (
        run.stderr == f"examples/{script.name} needs {package}: install it with pip install "
        "'gradtx[examples]'.\n"
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The output and the folder of a tiny training, killed and resumed."""
    out = tmp_path_factory.mktemp("char_lm")
    run = python(str(CHAR_LM), "--quick", "--out", str(out))
    assert run.returncode == 0, run.stderr + run.stdout
    assert run.stderr == ""
    return run.stdout, out


def test_a_killed_training_resumes_bit_for_bit(killed: tuple[str, Path]) -> None:
    steps = re.search(
        r"killed after step (\d+); resuming from the checkpoint of step (\d+)", killed[0]
    )
    assert steps is not None, killed[0]
    last, saved = map(int, steps.groups())
    assert saved % 40 == 0 and 60 <= last < 120 and saved <= last
    logs = {
        first: [json.loads(line) for line in read_lines(killed[1], first)] for first in (0, saved)
    }
    assert [row["step"] for row in logs[0][:last]] == list(range(1, last + 1))
    assert [row["step"] for row in logs[saved]] == list(range(saved + 1, 121))
    for before, after in zip(logs[0][saved:last], logs[saved], strict=False):
        assert before | {"seconds": 0} == after | {"seconds": 0}
    assert f"steps {saved + 1} to {last} ran twice" in killed[0] or saved == last


def read_lines(out: Path, first: int) -> list[str]:
    """The complete lines of a log."""
    return (
        (out / "char_lm" / f"from-step-{first}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    )


def test_the_language_model_learns_and_draws(killed: tuple[str, Path]) -> None:
    match = re.search(
        r"per character: ([\d.]+) as trained, ([\d.]+) averaged .* frequencies alone give ([\d.]+)",
        killed[0],
        re.DOTALL,
    )
    assert match is not None, killed[0]
    trained, averaged, unigram = map(float, match.groups())
    assert trained < unigram < 4 and averaged < 4
    assert (killed[1] / "char_lm.png").read_bytes().startswith(PNG)


def test_a_training_is_resumed_by_hand_and_not_with_another_text(
    killed: tuple[str, Path], tmp_path: Path
) -> None:
    run = python(str(CHAR_LM), "--quick", "--resume", "--out", str(killed[1]))
    assert run.returncode == 0 and "killed" not in run.stdout and "validation loss" in run.stdout, (
        run.stderr
    )
    text = tmp_path / "text.txt"
    text.write_text("to be, or not to be. " * 20, encoding="utf-8")
    other = python(
        str(CHAR_LM), "--quick", "--resume", "--out", str(killed[1]), "--text", str(text)
    )
    assert other.returncode == 1 and "entry 'params/head/kernel' has shape" in other.stderr
    text.write_text("short", encoding="utf-8")
    short = python(str(CHAR_LM), "--quick", "--out", str(tmp_path), "--text", str(text))
    assert (
        short.returncode == 1
        and short.stderr
        == "text.txt is too short: a tenth of it is 1 characters, and more than 16 are needed\n"
    )


def test_scripts_that_migrate_have_equal_losses() -> None:
    run = python(str(ROOT / "examples" / "migrate_from_optax.py"), "--steps", "60")
    assert run.returncode == 0, run.stderr
    rows = re.findall(r"│ ([\w +-]*?) +│ (optax|gradtx) +│([ \d.│]+)│ +([\de.-]*) +│", run.stdout)
    assert [library for _, library, _, _ in rows] == ["optax", "gradtx"] * 4, run.stdout
    for theirs, ours in zip(rows[::2], rows[1::2], strict=True):
        losses = [[float(cell) for cell in row[2].split("│")] for row in (theirs, ours)]
        assert (
            losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0][-1] < 0.5 * losses[0][0]
        )
        assert float(ours[3]) < 1e-3  # two libraries' roundings, 60 steps on
    short_run = python(str(ROOT / "examples" / "migrate_from_optax.py"), "--steps", "3")
    assert (
        short_run.returncode == 2 and "--steps 3: at least 10 steps are needed" in short_run.stderr
    )


def test_readme_prints_its_outputs() -> None:
    blocks = run_blocks(ROOT / "README.md")
    assert len(blocks) >= 4
    for block in blocks:
        assert block.printed == (block.shown or ""), f"README.md:{block.line}"


def test_readme_pictures_exist() -> None:
    pictures = re.findall(
        r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(PNG)
