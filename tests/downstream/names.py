"""Which names of Optax public repositories use, and which of them gradtx has.

`names.json` holds facts: a repository, the files or the release that were read, and the names.
`python -m tests.downstream.names OWNER/REPOSITORY SOURCE FOLDER` reads the Python files of a folder
and writes the entry of a repository.
"""

import ast
import importlib
import json
import pkgutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

FACTS = Path(__file__).with_name("names.json")
PRIVATE = "_src"
MISSING = object()


class Entry(NamedTuple):
    """What was read of a repository, and the names without the leading `optax.`."""

    source: str
    names: tuple[str, ...]


def read() -> dict[str, Entry]:
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    return {name: Entry(source, tuple(names)) for name, (source, names) in facts.items()}


def write(entries: Mapping[str, Entry]) -> None:
    """One line a repository, sorted."""
    order = sorted(entries, key=str.lower)
    lines = [f"{json.dumps(name)}: {json.dumps(entries[name])}" for name in order]
    FACTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


# What a source file uses


def names_in(text: str) -> set[str]:
    """The names of Optax that a source uses, by whatever name it imports them.

    >>> sorted(names_in('''
    ... import optax as ox
    ... from optax import losses, tree_utils as otu
    ... from optax._src import base
    ... tx: base.Params = ox.contrib.muon(otu.tree_norm)
    ... losses.l2_loss
    ... '''))
    ['_src.base.Params', 'contrib.muon', 'losses.l2_loss', 'tree_utils.tree_norm']
    """
    tree = ast.parse(text)
    aliases = dict(_imported(tree))
    chains = {path for node in ast.walk(tree) if (path := _chain(node, aliases)) is not None}
    used = {path for path in chains | set(aliases.values()) if path}
    longest = {path for path in used if not any(one.startswith(f"{path}.") for one in used)}
    return {path for path in longest if not path.startswith("__")}


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The names that imports bind, each with the path that it stands for below `optax`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                if _is_optax(one.name):
                    whole = one.name.removeprefix("optax").removeprefix(".")
                    yield (one.asname, whole) if one.asname else ("optax", "")
        elif isinstance(node, ast.ImportFrom) and not node.level and _is_optax(node.module):
            below = (node.module or "").removeprefix("optax").removeprefix(".")
            for one in node.names:
                yield one.asname or one.name, f"{below}.{one.name}".strip(".")


def _is_optax(module: str | None) -> bool:
    return (module or "").split(".")[0] == "optax"


def _chain(node: ast.AST, aliases: Mapping[str, str]) -> str | None:
    """The path of an attribute of Optax: `optax.contrib.muon` is `contrib.muon`."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in aliases:
        return None
    return ".".join(filter(None, [aliases[node.id], *parts]))


def names_below(folder: Path) -> set[str]:
    """The names that the Python files of a folder use; a file of another language is ignored."""
    names: set[str] = set()
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        if "optax" in text:
            try:
                names |= names_in(text)
            except SyntaxError:
                print(f"not Python: {path}", file=sys.stderr)
    return names


# Which names exist


def lookup(module: ModuleType, path: str) -> Any:
    """The object at a path, or `MISSING`; submodules are imported, deprecated names count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return _lookup(module, path)


def _lookup(module: ModuleType, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        if isinstance(value, ModuleType) and not hasattr(value, part):
            try:
                importlib.import_module(f"{value.__name__}.{part}")
            except ImportError:
                return MISSING
        value = getattr(value, part, MISSING)
        if value is MISSING:
            return MISSING
    return value


def has(module: ModuleType, path: str) -> bool:
    return lookup(module, path) is not MISSING


def shorten(optax: ModuleType, path: str) -> str | None:
    """The longest beginning of a path that Optax has: attributes of a function are not names."""
    parts = path.split(".")
    known = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return next((one for one in reversed(known) if has(optax, one)), None)


def public_spelling(optax: ModuleType, path: str) -> str | None:
    """The public name of an object below `optax._src`; None if it has none."""
    value = lookup(optax, path)
    if value is MISSING or isinstance(value, ModuleType):
        return None
    own = path.rsplit(".", maxsplit=1)[-1]
    for module in (optax, *_public_modules(optax)):
        # Several names may stand for one object: `Params` and `Updates` are both `ArrayTree`.
        for name in (own, *sorted(vars(module))):
            if vars(module).get(name) is value and not name.startswith("_"):
                return f"{module.__name__}.{name}".removeprefix("optax.")
    return None


def _public_modules(optax: ModuleType) -> list[ModuleType]:
    names = [one.name for one in pkgutil.iter_modules(optax.__path__) if one.ispkg]
    return [importlib.import_module(f"optax.{one}") for one in names if not one.startswith("_")]


class Use(NamedTuple):
    """The names of one repository, sorted into what exists where."""

    present: frozenset[str]
    missing: frozenset[str]
    """Public in Optax, and not in gradtx."""
    private: frozenset[str]
    removed: frozenset[str]
    """Neither public nor private in the installed Optax: of another version, or the script's."""

    @property
    def is_complete(self) -> bool:
        return not self.missing


def use_of(entry: Entry, optax: ModuleType, gradtx: ModuleType) -> Use:
    public = {name for name in entry.names if not name.startswith(PRIVATE)}
    known = {name for name in public if has(optax, name)}
    present = {name for name in known if has(gradtx, name)}
    return Use(
        frozenset(present),
        frozenset(known - present),
        frozenset(entry.names) - frozenset(public),
        frozenset(public - known),
    )


def missing_names(uses: Mapping[str, Use]) -> Counter[str]:
    """The missing names, each with the number of repositories that use it."""
    return Counter(name for use in uses.values() for name in use.missing)


def main() -> None:
    repository, source, folder = sys.argv[1:]
    optax = importlib.import_module("optax")
    found = names_below(Path(folder))
    names = {shorten(optax, name) or name for name in found}
    if names:
        write({**read(), repository: Entry(source, tuple(sorted(names)))})


if __name__ == "__main__":
    main()
