"""Run test files of Optax's in a process of their own: python -m tests.peer.worker FILE

One JSON object a line says how each case ended. `--library optax` runs the file as it is;
`--library gradtx` lets gradtx answer to the name optax. `--list` prints the cases alone.
"""

import argparse
import ast
import doctest
import importlib
import importlib.util
import json
import re
import sys
import traceback
import unittest
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from absl import flags

from tests.peer import alias

Failure = tuple[type[BaseException], BaseException, TracebackType | None]


class Version(str):
    """A version that compares by its numbers, so that no test takes 0.10 for older than 0.7."""

    def __lt__(self, other: str) -> bool:
        return numbers(self) < numbers(other)


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


class Recorder(unittest.TestResult):
    """Prints the outcome of every case as soon as it ends."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file
        self.failures_of_case: list[dict[str, str]] = []
        self.skipped_case = False

    def startTest(self, test: unittest.TestCase) -> None:
        self.failures_of_case, self.skipped_case = [], False
        super().startTest(test)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self.failures_of_case.append(described(err))

    addFailure = addError

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.skipped_case = True

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        failed = bool(self.failures_of_case)
        outcome = "failed" if failed else "skipped" if self.skipped_case else "passed"
        report(self.file, case_name(test), outcome, *self.failures_of_case[:1])


def described(failure: Failure) -> dict[str, str]:
    """The type and text of an exception, and where it was raised."""
    kind, error, trace = failure
    frames = traceback.extract_tb(trace)
    lines = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
    return {"error": kind.__name__, "text": str(error)[:2000], "where": " ".join(lines[-12:])}


def report(file: str, case: str, outcome: str, failure: Mapping[str, str] = {}) -> None:
    """Print one line: how a case ended, or, without a case, why a file could not be imported."""
    line = {"file": file, "case": case, "outcome": outcome, **failure}
    print(json.dumps(line), file=sys.__stdout__, flush=True)


def case_name(test: Any) -> str:
    """`Class.method`, with the number that absl gives to a method's arguments."""
    if isinstance(test, doctest.DocTestCase):
        return f"docstrings.{test.id()}"
    return f"{type(test).__name__}.{test._testMethodName}"


def main_statements(source: str) -> Iterator[ast.stmt]:
    """The statements that a file runs as a script, without the call that starts the tests."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            yield from (one for one in node.body if ast.unparse(one) != "absltest.main()")


def cases(suite: unittest.TestSuite | unittest.TestCase) -> Iterator[unittest.TestCase]:
    if isinstance(suite, unittest.TestCase):
        yield suite
    else:
        for one in suite:
            yield from cases(one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="paths below the folder of Optax; all of them")
    parser.add_argument("--library", choices=["gradtx", "optax"], default="gradtx")
    parser.add_argument("--list", action="store_true", help="print the cases and run none")
    parser.add_argument("--only", action="append", default=[], help="run the cases of these names")
    options = parser.parse_args()
    flags.FLAGS(["worker"])
    sys.stdout = sys.stderr  # standard output carries the outcomes alone
    jax.__version__ = Version(jax.__version__)
    folder = optax_folder()
    if options.library == "gradtx":
        alias.install(folder, [module_of(file).removesuffix("_test") for file in options.files])
    for file in options.files or test_files(folder):
        try:
            suite = load(folder, file)
        except Exception as error:
            report(file, "", "not imported", described((type(error), error, error.__traceback__)))
            continue
        chosen = [one for one in cases(suite) if not options.only or case_name(one) in options.only]
        if options.list:
            for case in chosen:
                report(file, case_name(case), "listed")
        else:
            unittest.TestSuite(chosen).run(Recorder(file))


def load(folder: Path, file: str) -> unittest.TestSuite:
    """The tests of a file, with the settings of JAX that it makes for itself."""
    module = importlib.import_module(module_of(file))
    for statement in main_statements((folder / file).read_text()):
        exec(compile(ast.Module([statement], []), file, "exec"), vars(module))
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def module_of(file: str) -> str:
    return "optax." + file.removesuffix(".py").replace("/", ".")


def test_files(folder: Path) -> list[str]:
    """The test files of Optax, as paths below its folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*_test.py"))


def optax_folder() -> Path:
    """Where the installed Optax is, without importing it."""
    spec = importlib.util.find_spec("optax")
    if spec is None or spec.origin is None:
        raise SystemExit("Optax is not installed: pip install optax==0.2.8")
    return Path(spec.origin).parent


if __name__ == "__main__":
    main()
