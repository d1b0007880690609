"""The Python blocks of a Markdown page, run in order in one namespace, with what they print."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax

BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\s*^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block that was run: where it is, what it printed, and what the page says that it prints."""

    line: int
    printed: str
    shown: str | None


def run_blocks(page: Path) -> list[Block]:
    """Run every block marked python; a block marked text right below one is what it shows.

    As for a reader at home, ranks are promoted without a word, which the tests otherwise forbid.
    """
    text, namespace, blocks = page.read_text(encoding="utf-8"), dict[str, Any](__name__=page.stem), list[Block]()
    with jax.numpy_rank_promotion("allow"):
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start(1))
            code = compile("\n" * line + match[1], str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, namespace)
            blocks.append(Block(line, printed.getvalue(), match[2]))
    return blocks
