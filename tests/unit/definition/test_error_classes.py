"""Every class of error that gradtx raises is public, so that it can be caught."""

import ast
import builtins
from collections.abc import Iterator

import pytest

import gradtx
from gradtx.definition import errors
from tests.support.places import ROOT

CLASSES = {
    name: one
    for name, one in vars(errors).items()
    if one.__class__ is type and issubclass(one, Exception) and not issubclass(one, Warning)
}

BUILTIN = {
    # Python's own protocols: unknown arguments of a call, unknown attributes and keys, files.
    *("TypeError", "AttributeError", "OSError", "KeyError", "NotImplementedError"),
    # engine/matrix_layout.py and matrix_rules.py: caught there, and raised again with a name.
    "ValueError",
}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "gradtx").rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_class_is_at_the_root(name: str) -> None:
    assert getattr(gradtx, name) is CLASSES[name] and name in dir(gradtx)
    assert issubclass(CLASSES[name], gradtx.GradtxError)
    assert issubclass(CLASSES[name], ValueError)


def test_no_other_file_defines_an_error_class() -> None:
    for file, tree in trees():
        bases = [
            (one.name, ast.unparse(base))
            for one in ast.walk(tree)
            if isinstance(one, ast.ClassDef)
            for base in one.bases
        ]
        found = [name for name, base in bases if base.endswith(("Error", "Exception", "Warning"))]
        assert not found or file == "gradtx/tree/errors.py", (file, found)


def test_every_class_that_is_raised_is_public() -> None:
    raised = set[str]()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = ast.unparse(node.exc.func)
                raised |= {name} if name in CLASSES or hasattr(builtins, name) else set()
                # Else a function that makes the error: its own body names the class.
                assert not name.endswith(("Error", "Exception")) or name in {*CLASSES, *BUILTIN}
    assert {"StateError", "ConfigError", "TypeError"} <= raised <= {*CLASSES, *BUILTIN}


def test_one_handler_catches_one_kind() -> None:
    with pytest.raises(gradtx.StateError):
        gradtx.adam(0.1).update({}, gradtx.sgd(0.1, 0.9).init({}))
    with pytest.raises(gradtx.SelectionError):
        gradtx.masked(gradtx.adam(0.1), "x").init({"w": 1.0})
