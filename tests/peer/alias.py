"""`import optax` as an import of gradtx: modules whose attributes are gradtx's public names.

A public module, `optax.losses`, has the names of gradtx's module of that name and no others. A
private one, `optax._src.transform` or `optax.losses._ranking`, has the public names of gradtx, from
the namespace that holds the module first. No name leads to a private part of gradtx.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import gradtx
from tests.peer import tools

NAMESPACES = (
    "losses",
    "tree",
    "tree_utils",
    "transforms",
    "schedules",
    "projections",
    "contrib",
    "assignment",
    "second_order",
    "perturbations",
    "microbatching",
    "experimental.aggregating",
    "linalg",
)


class Alias(ModuleType):
    """A module of Optax's, by name, with gradtx's objects inside."""

    def __init__(self, name: str, folder: Path, subjects: Collection[str]) -> None:
        super().__init__(name)
        self.folder = folder
        self.tools = [tools] if name.startswith("optax._src") and name not in subjects else []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if is_module(self.folder.joinpath(*self.__name__.split(".")[1:], name)):
            return importlib.import_module(f"{self.__name__}.{name}")
        for place in [*self.tools, *places(self.__name__)]:
            if hasattr(place, name) and not name.startswith("_"):
                return getattr(place, name)
        raise AttributeError(f"gradtx has no public name for {self.__name__}.{name}")


def places(module: str) -> list[ModuleType]:
    """The modules of gradtx that may hold the names of one of Optax's, in order."""
    parts = module.split(".")[1:]
    if not any(part.startswith("_") for part in parts):
        return [namespace(".".join(parts))] if parts else [gradtx]
    first = [namespace(parts[0])] if parts[0] in NAMESPACES else []
    return [*first, gradtx, *map(namespace, NAMESPACES), gradtx.authoring]


def namespace(name: str) -> ModuleType:
    """A namespace of gradtx's; an empty module where it does not exist."""
    try:
        return importlib.import_module(f"gradtx.{name}")
    except ModuleNotFoundError:
        return ModuleType(name)


def is_module(path: Path) -> bool:
    """Whether Optax has a module or a package at this place."""
    return path.is_dir() or path.with_suffix(".py").is_file()


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module of Optax's: an `Alias`, or a test file that others import."""

    def __init__(self, folder: Path, subjects: Collection[str]) -> None:
        self.folder, self.subjects = folder, subjects

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.split(".", maxsplit=1)[0] != "optax":
            return None
        file = self.folder.joinpath(*fullname.split(".")[1:]).with_suffix(".py")
        if file.stem.endswith(("_test", "test_utils")):
            return importlib.util.spec_from_file_location(fullname, file)
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Alias(spec.name, self.folder, self.subjects)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: the names are looked up when they are used."""


def install(folder: Path, subjects: Collection[str]) -> None:
    """Let gradtx answer to the name optax in this process.

    `folder` holds the test files; `subjects` are the modules whose tests run.
    """
    if "optax" in sys.modules:
        raise RuntimeError("optax is imported already: install the alias in a fresh process")
    sys.meta_path.insert(0, Finder(folder, subjects))
