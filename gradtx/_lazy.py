"""Packages that import a name when it is first used.

A package lists its public names once, under `if TYPE_CHECKING:`, as imports that a type checker
reads. At run time `attach` reads the same lines from the package's source.
"""

import ast
import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeGuard

Place = tuple[str, str | None]
"""The module of a name, and its name there; None: the module itself."""


def exports(package: str) -> dict[str, Place]:
    """The public names of a package, each with the place that it is imported from.

    >>> exports("gradtx")["adamw"]
    ('gradtx.optimizers.adamw', 'adamw')
    """
    loader: Any = sys.modules[package].__loader__  # of source files: it has `get_source`
    statements = ast.parse(loader.get_source(package)).body
    imports = [node for block in statements if _is_listing(block) for node in block.body]
    return {
        alias.asname: _place(package, node.module, alias.name)
        for node in imports
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
        if alias.asname is not None
    }


def _is_listing(node: ast.stmt) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _place(package: str, module: str, name: str) -> Place:
    """A name in a module; a module of the package is imported as `from package import module`."""
    return (f"{module}.{name}", None) if module == package else (module, name)


class LazyPackage(ModuleType):
    """A package whose public names win over its submodules of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Python sets a submodule on its package at import: `gradtx.definition` is a function too.
        place = self.__dict__.get("_places", {}).get(name)
        if not isinstance(value, ModuleType) or place is None or place[1] is None:
            super().__setattr__(name, value)


def attach(
    package: str, hidden: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package.

    Args:
      package: its `__name__`.
      hidden: the module whose names exist, but are not shown by `dir`.
    """
    module = sys.modules[package]
    places = exports(package)
    shown = sorted(name for name, place in places.items() if place[0] != hidden)
    module.__dict__["_places"] = places
    module.__class__ = LazyPackage

    def load(name: str) -> Any:
        if name not in places:
            raise AttributeError(_missing(package, name, places))
        home, attribute = places[name]
        value = importlib.import_module(home)
        value = value if attribute is None else getattr(value, attribute)
        module.__dict__[name] = value
        return value

    return load, lambda: shown, shown


def _missing(package: str, name: str, places: Mapping[str, Place]) -> str:
    """The message for a name that does not exist."""
    from gradtx.definition.spelling import suggest

    return f"{package} has no {name!r}{'' if name.startswith('_') else suggest(name, places)}"


def upper(module: str) -> ModuleType:
    """A module of a room above the caller's, imported when a method is called that needs it.

    Imports go down, from a room to those below; a method that only hands on its arguments, as
    `tx.describe` does, may name a room above by its text.
    """
    return importlib.import_module(module)
