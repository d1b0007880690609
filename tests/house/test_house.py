"""The rules of the house: layout, imports, sizes, and one row for every method wherever one is
needed.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

import gradtx
from gradtx._lazy import exports
from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.definition import Factory
from tests.methods import METHODS
from tests.support.places import ROOT

PACKAGE = ROOT / "gradtx"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL = [
    path
    for folder in ("gradtx", "tests", "examples", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

LAYERS = [
    ["tree"],
    ["definition"],
    ["projections"],
    ["engine", "schedules", "linalg", "losses", "assignment"],
    ["compose"],
    ["microbatching"],
    ["training"],
    ["storage", "sharding"],
    ["transforms", "linesearch"],
    ["wrappers", "experimental"],
    ["optimizers"],
    ["authoring", "recipes"],
]
DEPTH = {folder: depth for depth, folders in enumerate(LAYERS) for folder in folders}
BESIDE = {"inspect", "interop", "second_order", "perturbations"}
OUTER = {"tree", "definition", "engine", "compose", "training", "sharding"}


def ident(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: pathlib.Path) -> set[str]:
    """The modules that a file imports, function bodies included."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module
    }


def folder_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


@pytest.mark.parametrize("path", SOURCES, ids=ident)
def test_imports_go_down(path: pathlib.Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if path.name == "__init__.py" and "attach(__name__" in path.read_text():
        return  # its names are imported when they are used
    if here in ("__init__", "_lazy", "testing", "tree_utils"):
        return
    folders = {folder_of(module) for module in imported(path) if module.startswith("gradtx.")}
    folders -= {here, "_lazy"}
    allowed = (
        OUTER if here in BESIDE else {folder for folder in DEPTH if DEPTH[folder] < DEPTH[here]}
    )
    assert folders <= allowed, f"{here} may not import {sorted(folders - allowed)}"


@pytest.mark.parametrize("path", SOURCES, ids=ident)
def test_imports_are_few_and_public(path: pathlib.Path) -> None:
    outside = (
        {module.split(".")[0] for module in imported(path)} - sys.stdlib_module_names - {"gradtx"}
    )
    extra = {
        "linalg": {"scipy"},  # for a linear program, where coefficients are computed offline
        "testing": {"chex"},
        "inspect": {"matplotlib", "rich"},
        "interop": {"optax", "torch", "orbax", "etils", "safetensors"},
    }.get(path.relative_to(PACKAGE).parts[0], set())
    assert outside <= {"jax", "numpy"} | extra
    assert not any(module.startswith("jax._src") for module in imported(path))


@pytest.mark.parametrize("path", ALL, ids=ident)
def test_sizes(path: pathlib.Path) -> None:
    text = path.read_text()
    is_list = path == PACKAGE / "__init__.py"  # a line for every public name, and no code
    assert len(text.splitlines()) <= (600 if is_list else 400)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert code_lines(node) <= 40, f"{node.name} has {code_lines(node)} lines of code"


def code_lines(function: ast.FunctionDef) -> int:
    """The lines of a function without its docstring and its signature."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body and body[-1].end_lineno else 0


def test_no_import_of_chex_or_optax() -> None:
    code = (
        "import sys, gradtx; print([name for name in ('chex', 'optax', 'torch', "
        "'matplotlib', 'scipy.stats') if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert out.stdout.strip() == "[]"


def public() -> dict[str, object]:
    """What `import gradtx` gives, submodules apart."""
    places = exports("gradtx").items()
    return {name: getattr(gradtx, name) for name, (_, inside) in places if inside is not None}


def makers() -> list[str]:
    """The public functions that make transformations."""
    factories = {name: getattr(value, "factory", None) for name, value in public().items()}
    return [
        name
        for name, factory in factories.items()
        if isinstance(factory, Factory) and factory.result is GradientTransformation
    ]


def test_every_public_name_is_imported_explicitly_and_documented() -> None:
    assert len(public()) > 50
    homes = exports("gradtx")
    aliases = {"gradtx.definition.types", "gradtx.definition.annotations"}
    for name, value in public().items():
        assert homes[name][0] in aliases or (value.__doc__ and value.__doc__.strip()), (
            f"{name} has no docstring"
        )


@pytest.mark.parametrize(
    "name", [name for name in makers() if name not in ("leafwise", "matrixwise", "treewise")]
)
def test_every_method_has_a_row_an_example_and_a_size(name: str) -> None:
    assert any(row.split("/")[0] == name for row in METHODS), (
        f"add a row for {name} to a module of tests/methods"
    )
    doc = getattr(gradtx, name).__doc__
    assert ">>> " in doc, f"{name} has no example"


@pytest.mark.parametrize("path", sorted((PACKAGE / "optimizers").glob("[a-z]*.py")), ids=ident)
def test_an_optimizer_is_in_the_file_of_its_name(path: pathlib.Path) -> None:
    maker = getattr(gradtx, path.stem)
    assert maker.__module__ == f"gradtx.optimizers.{path.stem}"
    for heading in ("When:", "When not:", "Args:", "State:", ">>> "):
        assert heading in " ".join(maker.__doc__.split()), f"{path.stem} does not say {heading}"


@pytest.mark.parametrize("path", ALL, ids=ident)
def test_no_loose_ends(path: pathlib.Path) -> None:
    text = path.read_text().replace(pathlib.Path(__file__).read_text(), "")
    words = ["TO" + "DO", "FIX" + "ME", "x" + "fail", "pytest." + "skip"]
    assert not [word for word in words if word in text]
