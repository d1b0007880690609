"""The Python blocks and code cells of a Markdown page, run in order in one namespace, with what
they print.
"""

import contextlib
import io
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\s*^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
CODE_CELL = re.compile(r"^```\{code-cell\}.*$((?:\n:.*)*)", re.MULTILINE)


class Block(NamedTuple):
    """A block that was run: where it is, what it printed, and what the page says that it prints."""

    line: int
    printed: str
    shown: str | None


def run_blocks(page: Path) -> list[Block]:
    """Run every block marked python and every code cell; a block marked text right below one is
    what it shows.

    As for a reader at home, ranks are promoted without a word, which the tests otherwise forbid;
    and the page is a module while it runs, so that pickle finds the classes that it defines.
    """
    text = CODE_CELL.sub(
        lambda cell: "```python" + cell[1].replace("\n:", "\n# :"), page.read_text(encoding="utf-8")
    )
    # A page may be called like a module of Python's, `inspect`, which it must not replace.
    name = f"{page.stem}_page" if page.stem in sys.stdlib_module_names else page.stem
    module, blocks = types.ModuleType(name), list[Block]()
    with jax.numpy_rank_promotion("allow"), importable(module):
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start(1))
            code = compile("\n" * line + match[1], str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, vars(module))
            blocks.append(Block(line, printed.getvalue(), match[2]))
    return blocks


@contextlib.contextmanager
def importable(module: types.ModuleType) -> Iterator[None]:
    """A module under its own name, for as long as it is needed; what it imports stays imported."""
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]
