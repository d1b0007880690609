"""Every public name of Optax exists where users look for it, and costs nothing at import."""

import importlib
import inspect
import operator
import subprocess
import sys

import optax
import optax.contrib
import optax.experimental
import optax.schedules
import optax.transforms
import pytest

import gradtx

NAMESPACES = [
    "assignment",
    "contrib",
    "losses",
    "microbatching",
    "experimental.aggregating",
    "perturbations",
    "projections",
    "schedules",
    "second_order",
    "transforms",
    "tree",
    "tree_utils",
]


def public(module) -> list[str]:
    return [
        name
        for name, value in inspect.getmembers(module)
        if not name.startswith("_") and not inspect.ismodule(value)
        if not callable(value) or value.__module__.startswith("optax")  # nor what it imports
    ]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_namespace_has_the_names_of_optax(namespace):
    ours = importlib.import_module(f"gradtx.{namespace}")
    missing = [
        name for name in public(operator.attrgetter(namespace)(optax)) if not hasattr(ours, name)
    ]
    assert missing == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_root_has_the_names_of_optax():
    names = [name for name in dir(optax) if not name.startswith("_")]
    assert [name for name in names if not hasattr(gradtx, name)] == []


def test_import_loads_nothing():
    code = "import gradtx, sys; print(sorted(m for m in sys.modules if m.startswith('gradtx')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['gradtx', 'gradtx._lazy']"


def test_a_name_loads_its_own_module():
    code = (
        "from gradtx.contrib import muon; import sys; "
        "assert 'gradtx.optimizers.muon' in sys.modules; "
        "assert 'gradtx.optimizers.soap' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("module", "name", "hint"),
    [
        ("gradtx", "adamW", "; did you mean 'adamw'?"),
        ("gradtx.contrib", "muonn", "; did you mean 'muon'?"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(module, name, hint):
    with pytest.raises(AttributeError) as error:
        getattr(sys.modules[module], name)
    assert str(error.value) == f"{module} has no {name!r}{hint}"
