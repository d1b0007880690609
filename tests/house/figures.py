"""Count the figures of the house, and print them beside those of commit e1de3b9.

Run `python -m tests.house.figures [--root DIR]`. DIR is the root of a checkout; the figures of
another commit need a checkout of it. Two figures are not counted here: the files to touch for one
new optimizer, and the time to trace AdamW, which `benchmarks.trace` measures.
"""

import argparse
import ast
import pathlib
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.house.call_paths import CallPath, adamw_path, guard_path
from tests.house.counting import (
    arguments,
    body_lines,
    callee,
    calls,
    comments,
    descended,
    functions,
    mention_counts,
    mentions,
    module_functions,
    optimizer_files,
    passed_names,
    percentile,
    reached,
    sources,
)

ROOT = pathlib.Path(__file__).parent.parent.parent
ROOMS = ("core", "definition", "engine", "compose", "training")
"""The folders that make an update run: `core` at e1de3b9, four rooms since."""
KINDS = re.compile(r"\b(Leaf|Tree|Matrix|Wrap)Rule\b")


def rule_in_rule(root: pathlib.Path) -> int:
    """Count how often the text `rule.rule` occurs."""
    return sum(len(re.findall(r"rule\.rule\b", source.text)) for source in sources(root))


def kind_checks(root: pathlib.Path) -> int:
    """Count the calls of `isinstance` that name a kind of rule."""
    found = [call for source in sources(root) for call in calls(source.tree)]
    checks = [call for call in found if callee(call) == "isinstance" and len(call.args) > 1]
    return sum(bool(KINDS.search(ast.unparse(call.args[1]))) for call in checks)


def narrowing_asserts(root: pathlib.Path) -> int:
    """Count the `assert` statements outside `gradtx/testing`: each narrows a type only."""
    inside = [source for source in sources(root) if source.address.parts[0] != "testing"]
    nodes = [node for source in inside for node in ast.walk(source.tree)]
    return sum(isinstance(node, ast.Assert) for node in nodes)


def state_recursions(root: pathlib.Path) -> list[str]:
    """List the functions that recurse over the state of wrappers.

    Such a function is called with an argument `x.slots` or `x.state`, by itself or by a function
    of its file that it mentions.
    """
    found: list[str] = []
    for source in sources(root):
        here = {function.name: function for function in functions(source)}
        descends = {name: descended(function) for name, function in here.items()}
        for name, function in here.items():
            if any(name in descends[other] for other in {name, *mentions(function)} & here.keys()):
                found.append(f"{source.address}:{name}")
    return found


def mathematics_share(root: pathlib.Path) -> float:
    """Return the share of code lines in optimizers' files that are mathematics, over all files.

    Mathematics are the bodies of rules, without signatures and docstrings. Rules are the module's
    functions that a call of `leafwise`, `matrixwise`, `treewise` or `wrapwise` receives, and the
    functions of the same file that these mention.
    """
    lines = 0
    for source in optimizer_files(root):
        known = module_functions(source)
        lifted = [call for call in calls(source.tree) if callee(call).endswith("wise")]
        rules = reached(set[str]().union(*map(passed_names, lifted)), known)
        lines += len(set[int]().union(*(body_lines(source, known[name]) for name in rules)))
    return lines / sum(len(source.code) for source in optimizer_files(root))


def hyperparam_mentions(root: pathlib.Path) -> float:
    """Return how often a hyperparameter is written in its optimizer's file (the median).

    A hyperparameter is an argument of a builder which is a keyword-only argument of a rule in the
    same file, too. Code counts, as a name or as a string; `b1=b1` counts once, `"b1": b1` twice.
    """
    return statistics.median(
        number for source in optimizer_files(root) for number in mention_counts(source).values()
    )


def longest_signature(root: pathlib.Path) -> tuple[int, str]:
    """Return the largest number of arguments that a public function writes out, and its name."""
    named = [each for source in sources(root) for each in module_functions(source).values()]
    public = [function for function in named if not function.name.startswith("_")]
    return max((len(arguments(function)), function.name) for function in public)


def short_helpers(root: pathlib.Path) -> tuple[int, float]:
    """Return number and share of private functions used once whose body has two lines at most.

    All private functions at module level count; a use is a mention in the same file.
    """
    short = total = 0
    for source in sources(root):
        uses = Counter(mentions(source.tree))
        for name, function in module_functions(source).items():
            if name.startswith("_") and not name.startswith("__"):
                total += 1
                short += uses[name] == 1 and len(body_lines(source, function)) <= 2
    return short, short / total


def comment_rate(root: pathlib.Path) -> float:
    """Return the comments per 1,000 code lines; directives to tools are no comments."""
    lines = sum(len(source.code) for source in sources(root))
    return 1000 * sum(len(comments(source)) for source in sources(root)) / lines


def long_line_share(root: pathlib.Path) -> float:
    """Return the share of lines of gradtx, blank ones aside, that are longer than 100 columns."""
    lines = [line for source in sources(root) for line in source.text.splitlines() if line.strip()]
    return sum(len(line) > 100 for line in lines) / len(lines)


def bare_any_share(root: pathlib.Path, folders: Sequence[str] = ()) -> float:
    """Return the share of annotated arguments whose annotation is `Any`, in some folders or all."""
    chosen = [
        source for source in sources(root) if not folders or source.address.parts[0] in folders
    ]
    written = [one for source in chosen for each in functions(source) for one in arguments(each)]
    annotations = [ast.unparse(one.annotation) for one in written if one.annotation is not None]
    return annotations.count("Any") / len(annotations)


def engine_any_share(root: pathlib.Path) -> float:
    """Return that share in the folders that make an update run."""
    return bare_any_share(root, ROOMS)


def body_sizes(root: pathlib.Path) -> tuple[float, int, int]:
    """Return median, 90th percentile and maximum of the code lines of function bodies.

    Methods and nested functions count as functions.
    """
    bodies = [
        len(body_lines(source, function))
        for source in sources(root)
        for function in functions(source)
    ]
    return statistics.median(bodies), percentile(bodies, 0.9), max(bodies)


def argument_counts(root: pathlib.Path) -> tuple[int, int]:
    """Return 90th percentile and maximum of the arguments that functions write out."""
    counts = [len(arguments(each)) for source in sources(root) for each in functions(source)]
    return percentile(counts, 0.9), max(counts)


def file_length(root: pathlib.Path) -> float:
    """Return the median of the lines of files."""
    return statistics.median(len(source.text.splitlines()) for source in sources(root))


def plain(value: float) -> str:
    return f"{value:.3g}"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def listed(values: Sequence[float]) -> str:
    return "; ".join(map(plain, values))


def number_of(names: Sequence[str]) -> str:
    return str(len(names))


def with_name(value: tuple[int, str]) -> str:
    return f"{value[0]} ({value[1]})"


def with_share(value: tuple[int, float]) -> str:
    return f"{value[0]} ({percent(value[1])})"


class Row(NamedTuple):
    """One line of the table: a figure, how it is shown, and the bar that it is to reach."""

    label: str
    figure: Callable[[pathlib.Path], Any]
    show: Callable[[Any], str]
    bar: str


ROWS = (
    Row("adamw: frames; files; functions", adamw_path, listed, "<= 7; <= 10; <= 55"),
    Row("guard(chain(clip, adamw))", guard_path, listed, "<= 11; <= 14; <= 95"),
    Row("rule.rule", rule_in_rule, plain, "0"),
    Row("isinstance of a kind of rule", kind_checks, plain, "<= 6"),
    Row("asserts that narrow a type", narrowing_asserts, plain, "0"),
    Row("recursions over a state", state_recursions, number_of, "1"),
    Row("mathematics in optimizers' code", mathematics_share, percent, ">= 30 %"),
    Row("mentions of a hyperparameter", hyperparam_mentions, plain, "<= 5"),
    Row("longest public signature", longest_signature, with_name, "<= 12"),
    Row("short helpers used once", short_helpers, with_share, "<= 15 %"),
    Row("comments per 1,000 code lines", comment_rate, plain, ">= 25"),
    Row("lines over 100 columns", long_line_share, percent, "0"),
    Row("arguments that are a bare Any", bare_any_share, percent, "<= 5 %"),
    Row("the same in the engine rooms", engine_any_share, percent, "<= 5 %"),
    Row("function body: median; p90; max", body_sizes, listed, "4 to 7; < 25; <= 40"),
    Row("arguments: p90; max", argument_counts, listed, "<= 7; <= 12"),
    Row("lines of a file, median", file_length, plain, "about 120"),
)

BASELINE: dict[str, Any] = {
    "adamw_path": CallPath(12, 16, 86),
    "guard_path": CallPath(19, 21, 140),
    "rule_in_rule": 35,
    "kind_checks": 35,
    "narrowing_asserts": 22,
    "state_recursions": [
        "core/eval_params.py:evaluate_slots",
        "core/hyperparams.py:_find_places",
        "core/reports.py:reports",
        "core/reports.py:_scales",
        "core/transformation.py:count_after",
        "storage/compare.py:_slot_errors",
    ],
    "mathematics_share": 0.159,
    "hyperparam_mentions": 8,
    "longest_signature": (24, "muon"),
    "short_helpers": (278, 0.385),
    "comment_rate": 3.06,
    "long_line_share": 0.138,
    "bare_any_share": 0.200,
    "engine_any_share": 0.305,
    "body_sizes": (2, 10, 27),
    "argument_counts": (7, 24),
    "file_length": 116.5,
}
"""What the figures are at commit e1de3b9, by the names of their functions."""


def table(root: pathlib.Path) -> str:
    """Lay out all figures of a root folder in aligned columns."""
    cells = [("figure", "now", "at e1de3b9", "bar")]
    for row in ROWS:
        before = BASELINE[row.figure.__name__]
        cells.append((row.label, row.show(row.figure(root)), row.show(before), row.bar))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(line, widths)] for line in cells]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="a checkout of gradtx")
    root = parser.parse_args().root
    print(table(root))
    print("\nrecursions over a state:", *state_recursions(root), sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
