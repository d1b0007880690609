"""Read the package's files as text, tokens and syntax trees, for the figures of the house."""

import ast
import functools
import io
import pathlib
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
DIRECTIVE = re.compile(r"#\s*(pyright|noqa|fmt|type):?")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source(NamedTuple):
    """One file of the package: its address below `gradtx/`, its text, and what the text holds."""

    address: pathlib.PurePath
    text: str
    tree: ast.Module
    tokens: Sequence[tokenize.TokenInfo]
    code: frozenset[int]
    """The numbers of the code lines: neither blank, nor comment, nor docstring."""


@functools.cache
def sources(root: pathlib.Path) -> tuple[Source, ...]:
    """Read every Python file of `gradtx/` below a root folder."""
    package = root / "gradtx"
    return tuple(
        read(path.read_text(), path.relative_to(package)) for path in sorted(package.rglob("*.py"))
    )


def read(text: str, address: pathlib.PurePath) -> Source:
    """Parse one file."""
    tree = ast.parse(text)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    return Source(address, text, tree, tokens, code_lines(tree, tokens))


def code_lines(tree: ast.Module, tokens: Sequence[tokenize.TokenInfo]) -> frozenset[int]:
    """Collect the numbers of the lines that hold code.

    A string that is a statement of its own counts as a docstring, behind a field as well.
    """
    docstrings = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, str)
        for line in lines_of(node)
    }
    written = {
        line
        for token in tokens
        if token.type not in LAYOUT
        for line in range(token.start[0], token.end[0] + 1)
    }
    return frozenset(written - docstrings)


def lines_of(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def comments(source: Source) -> list[str]:
    """Collect the comments of a file, without directives to pyright and ruff."""
    found = [token.string for token in source.tokens if token.type == tokenize.COMMENT]
    return [comment for comment in found if not DIRECTIVE.match(comment)]


def functions(source: Source) -> Iterator[Function]:
    """Yield every function of a file, methods and nested functions included."""
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            yield node


def module_functions(source: Source) -> dict[str, ast.FunctionDef]:
    """Collect the functions at module level by name."""
    return {node.name: node for node in source.tree.body if isinstance(node, ast.FunctionDef)}


def body_lines(source: Source, function: Function) -> set[int]:
    """Collect the code lines of a function's body, without its signature and docstring."""
    first, last = function.body[0].lineno, function.end_lineno or function.lineno
    return {line for line in range(first, last + 1) if line in source.code}


def arguments(function: Function) -> list[ast.arg]:
    """List the arguments that a signature writes out: all but `*args` and `**flags`."""
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def is_builder(function: ast.FunctionDef) -> bool:
    """Tell whether `@definition` marks a function."""
    return "definition" in {ast.unparse(decorator) for decorator in function.decorator_list}


def callee(call: ast.Call) -> str:
    """Return the last name of what a call calls: `g` for both `g(x)` and `f.g(x)`."""
    return ast.unparse(call.func).rpartition(".")[2]


def mentions(node: ast.AST) -> list[str]:
    """List the names and attributes that a piece of code mentions, as often as it does."""
    names = [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
    return names + [each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)]


def calls(node: ast.AST) -> list[ast.Call]:
    return [each for each in ast.walk(node) if isinstance(each, ast.Call)]


def passed_names(call: ast.Call) -> set[str]:
    """Collect the names that a call receives as values: `f` of `g(f)`, not of `g(f(x))`."""
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    called = {id(below.func) for value in values for below in calls(value)}
    return {
        name.id
        for value in values
        for name in ast.walk(value)
        if isinstance(name, ast.Name) and id(name) not in called
    }


def reached(names: set[str], known: Mapping[str, ast.AST]) -> set[str]:
    """Follow mentions from some functions of a file to all that these use."""
    found, waiting = set[str](), names & known.keys()
    while waiting:
        found |= waiting
        waiting = {name for one in waiting for name in mentions(known[one])} & known.keys() - found
    return found


def descended(function: ast.AST) -> set[str]:
    """Collect the functions that a function calls with the slots of a member."""
    return {
        callee(call)
        for call in calls(function)
        for value in call.args
        if isinstance(value, ast.Attribute) and value.attr in ("slots", "state")
    }


def optimizer_files(root: pathlib.Path) -> list[Source]:
    files = [source for source in sources(root) if source.address.parts[0] == "optimizers"]
    return [source for source in files if source.address.name != "__init__.py"]


def mention_counts(source: Source) -> dict[str, int]:
    """Count for each hyperparameter of an optimizer's file how often the code writes it."""
    known = module_functions(source).values()
    asked = {one.arg for each in known if not is_builder(each) for one in each.args.kwonlyargs}
    offered = {one.arg for each in known if is_builder(each) for one in arguments(each)}
    written = Counter(
        token.string.strip("\"'")
        for token in source.tokens
        if token.type in (tokenize.NAME, tokenize.STRING) and token.start[0] in source.code
    )
    written.subtract(
        each.arg
        for call in calls(source.tree)
        for each in call.keywords
        if each.arg and isinstance(each.value, ast.Name) and each.value.id == each.arg
    )
    return {name: written[name] for name in sorted(asked & offered)}


def percentile(values: Sequence[int], share: float) -> int:
    """Return the value that a share of all values does not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]
