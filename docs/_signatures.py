"""Signatures with the names of types as the source writes them: `tx: TransformationLike`.

Autodoc would spell every alias out: a hyperparameter has an annotation of 150 characters.
"""

import ast
import functools
import inspect
import re
import textwrap
from typing import Any


def short_signature(value: Any) -> tuple[str, str] | None:
    """The arguments and the result of a function, as text; None: autodoc writes them itself."""
    if not inspect.isroutine(value):
        return None
    text = str(inspect.signature(value)) if hasattr(value, "__signature__") else from_source(value)
    if text is None:
        return None
    arguments, _, result = text.rpartition(" -> ") if " -> " in text else (text, "", "")
    return re.sub(r"\bgradtx\.(\w+\.)+(?=\w)", "", arguments), result


def from_source(value: Any) -> str | None:
    """The signature of a function by its source; None where its source is not a `def`."""
    try:
        tree = parse(inspect.getsource(inspect.unwrap(value)))
    except (OSError, TypeError, SyntaxError):
        return None
    function = tree.body[0] if tree.body else None
    if not isinstance(function, ast.FunctionDef):
        return None
    arguments = ast.unparse(without_self(function.args))
    result = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"({arguments}){result}"


def without_self(arguments: ast.arguments) -> ast.arguments:
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments.args = arguments.args[1:]
    return arguments


@functools.cache
def parse(source: str) -> ast.Module:
    return ast.parse(textwrap.dedent(source))
