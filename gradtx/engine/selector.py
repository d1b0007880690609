"""Choosing leaves: by regular expression on paths, by predicate, or by a tree of answers."""

import difflib
import enum
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import numpy as np

from gradtx.definition.errors import SelectionError, StructureError
from gradtx.definition.show import show
from gradtx.definition.types import PyTree
from gradtx.tree.casts import is_inexact
from gradtx.tree.paths import (
    Treedef,
    flatten,
    is_none,
    leaf_paths,
    match_leaves,
    repeated,
    tree_paths,
)
from gradtx.tree.variables import without_variables


class Node(Protocol):
    """A dict, a list or a tuple, as a type checker sees a tree of answers."""

    def __iter__(self) -> Iterator[Any]: ...


class Module(Protocol):
    """A dataclass, as modules of equinox and flax are."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Answers = Node | Module | Callable[..., Any]
"""A tree of answers, or a function of the tree that gives one."""
Where = str | bool | np.bool_ | Answers
"""A regex on `a/b/c` paths, a predicate `(path, array) -> bool`, a pytree of bools, or a function
of the tree that gives one.
"""


class Leaves(NamedTuple):
    """A flattened tree, as selectors see it; None counts as a leaf."""

    treedef: Treedef
    paths: tuple[str, ...]
    values: Sequence[Any]

    @property
    def tree(self) -> Any:
        """The tree again."""
        return jax.tree.unflatten(self.treedef, self.values)

    def match(self, tree: PyTree, what: str) -> Sequence[Any]:
        """The leaves of another tree in this order; an error names the first difference."""
        error = functools.partial(_trees_differ, what, self, tree)
        return match_leaves(self.treedef, lambda: self.paths, tree, "the gradients", what, error)

    def narrow(self, tree: PyTree, chosen: Sequence[bool]) -> Any:
        """A tree like this one with None at what was not chosen; anything else as it is."""
        if all(chosen):
            return tree
        values, treedef = flatten(tree)
        if treedef != self.treedef:
            return tree
        kept = [value if one else None for value, one in zip(values, chosen, strict=True)]
        return jax.tree.unflatten(treedef, kept)


def _trees_differ(what: str, leaves: Leaves, tree: PyTree, difference: str) -> StructureError:
    grads, cure = leaves.tree, ": take the gradients of these parameters"
    if what != "the parameters":
        cure = ""
    elif type(grads) is tuple and len(grads) == 2 and flatten(grads[1])[1] == flatten(tree)[1]:
        cure = "; the gradients are a pair, write value, grads = jax.value_and_grad(loss)(params)"
    return StructureError(f"the gradients and {what} differ in structure: {difference}{cure}")


def leaves_of(tree: PyTree) -> Leaves:
    """Flatten a tree; an error where paths do not distinguish its leaves."""
    values, treedef = flatten(tree)
    paths = leaf_paths(treedef, tree)
    if (twice := repeated(paths)) is not None:
        raise StructureError(
            f"two leaves have the same path {twice!r}; rename a key, so that every leaf has a path "
            f"of its own"
        )
    return Leaves(treedef, paths, values)


def select_all(selectors: "Sequence[Selector]", leaves: Leaves) -> Sequence[bool]:
    """For every leaf whether all selectors choose it."""
    if not selectors:
        return [True] * len(leaves.values)
    return [all(answers) for answers in zip(*(one(leaves) for one in selectors), strict=True)]


def active_leaves(chosen: Sequence[bool], values: Sequence[Any]) -> list[bool]:
    """The chosen leaves that are arrays of floats: None, integers and keys are left alone."""
    return [one and is_inexact(value) for one, value in zip(chosen, values, strict=True)]


class Selector(NamedTuple):
    """A choice of leaves: those where `where` gives `answer`."""

    where: Any
    answer: Any
    owner: str
    groups: tuple[Any, ...] = ()
    cure: str = ""
    """What to do where a pattern matches nothing, in place of the nearest paths."""

    def __call__(self, leaves: Leaves) -> Sequence[bool]:
        if self.groups:
            return [
                label == self.answer
                for label in labels(self.where, leaves, self.groups, self.owner)
            ]
        return [choice == self.answer for choice in mask(self.where, leaves, self.owner, self.cure)]


def mask(where: Where, leaves: Leaves, owner: str, cure: str = "") -> Sequence[bool]:
    """For every leaf whether `where` chooses it."""
    if is_matcher(where):
        chosen = _matches(where, leaves)
        if leaves.paths and not any(chosen):
            raise SelectionError(
                f"{owner}: {show(where)} matches none of the {len(leaves.paths)} leaves; "
                f"{cure or nearest(where, leaves.paths)}"
            )
        return chosen
    answers = _answers(where, leaves, owner)
    for answer, path, value in zip(answers, leaves.paths, leaves.values, strict=True):
        if value is not None:
            _check_bool(answer, path, owner)
    return [bool(answer) for answer in answers]


def _check_bool(answer: Any, path: str, owner: str) -> None:
    if getattr(answer, "shape", ()):
        raise SelectionError(
            f"{owner}: the answer at {path!r} is an array of shape {tuple(answer.shape)}, and a "
            f"mask chooses whole leaves: give one bool"
        )
    if not isinstance(answer, bool | np.bool_ | np.ndarray | jax.Array):
        is_compiled = isinstance(answer, re.Pattern)
        cure = _cure(answer) if is_compiled else "give a regex, a predicate or bools"
        raise SelectionError(
            f"{owner}: the answer at {path!r} is {show(answer)}, which is not a bool; {cure}"
        )


def labels(where: Any, leaves: Leaves, groups: Sequence[Any], owner: str) -> Sequence[Any]:
    """For every leaf its group, by rules tried in order or by a tree of labels; None for None
    leaves.
    """
    if not is_rules(where, groups, leaves):
        return _checked_labels(_answers(where, leaves, owner), leaves, groups, owner)
    if all(isinstance(pattern, str) for pattern, _ in where):
        found = _labels_by_text(tuple(map(tuple, where)), leaves.paths, owner)
    else:
        found = _first_match(
            where, [_matches(pattern, leaves) for pattern, _ in where], leaves.paths, owner
        )
    return _checked_labels(found, leaves, groups, owner)


def claimed(rules: Sequence[Any], leaves: Leaves, owner: str) -> list[Any]:
    """For every leaf what the first rule says that matches it; None where none does."""
    return _first_match(
        rules, [_matches(pattern, leaves) for pattern, _ in rules], leaves.paths, owner
    )


@functools.lru_cache(maxsize=256)
def _labels_by_text(
    rules: tuple[tuple[str, str], ...], paths: tuple[str, ...], owner: str
) -> list[str | None]:
    return _first_match(
        rules, [matches_by_text(pattern, paths) for pattern, _ in rules], paths, owner
    )


def _first_match(
    rules: Sequence[Any], matches: Sequence[Sequence[bool]], paths: tuple[str, ...], owner: str
) -> list[str | None]:
    winners = [
        next((number for number, hits in enumerate(matches) if hits[index]), None)
        for index in range(len(paths))
    ]
    for number, (pattern, label) in enumerate(rules):
        rule = f"{owner}: rule {number + 1}, ({show(pattern)}, {label!r}),"
        if paths and not any(matches[number]):
            raise SelectionError(
                f"{rule} matches none of the {len(paths)} leaves; {nearest(pattern, paths)}"
            )
        if paths and number not in winners and number < len(rules) - 1:
            raise SelectionError(
                f"{rule} claims nothing: earlier rules claim every leaf that it matches; the "
                f"first match wins, so move it up"
            )
    return [None if winner is None else rules[winner][1] for winner in winners]


def _checked_labels(
    found: Sequence[Any], leaves: Leaves, groups: Sequence[Any], owner: str
) -> Sequence[Any]:
    for label, path, value in zip(found, leaves.paths, leaves.values, strict=True):
        if label is None and value is not None:
            raise SelectionError(
                f"{owner}: no rule claims {path!r}; rules are tried in order and the first match "
                f"wins, so end with ('.*', group)"
            )
        if label is not None and label not in groups:
            raise SelectionError(
                f"{owner}: {path!r} is labelled {label!r}, which is not one of the groups "
                f"{', '.join(map(repr, groups))}"
            )
    return found


def is_rules(where: Any, groups: Sequence[Any], leaves: Leaves) -> bool:
    """Whether `where` is a list of (pattern, group) rules rather than a tree of labels.

    A list of pairs of group names is a tree of labels where the parameters are a list as long.
    """
    if (
        not isinstance(where, list | tuple)
        or not where
        or not all(isinstance(rule, list | tuple) and len(rule) == 2 for rule in where)
    ):
        return False
    like_params = (
        isinstance(leaves.tree, list | tuple)
        and len(leaves.tree) == len(where)
        and all(pattern in groups for pattern, _ in where)
    )
    return not like_params and all(
        is_matcher(pattern) and isinstance(label, str | int | enum.Enum) for pattern, label in where
    )


def is_matcher(where: Any) -> bool:
    """A regex or a predicate `(path, array)`: something that looks at one leaf at a time."""
    return isinstance(where, str) or (is_function(where) and _positional(where) == 2)


def is_function(where: Any) -> bool:
    """Whether `where` is to be called; a tree of answers that is itself callable, such as a module
    of bools, is not.
    """
    return callable(where) and jax.tree_util.all_leaves([where])


@functools.lru_cache(maxsize=1024)
def _positional(function: Callable[..., Any]) -> int:
    """How many arguments a function must be given by position."""
    parameters = inspect.signature(function).parameters.values()
    return sum(
        parameter.kind <= parameter.POSITIONAL_OR_KEYWORD and parameter.default is parameter.empty
        for parameter in parameters
    )


def _matches(where: Any, leaves: Leaves) -> Sequence[bool]:
    if isinstance(where, str):
        return matches_by_text(where, leaves.paths)
    return [
        value is not None and bool(where(path, value))
        for path, value in zip(leaves.paths, leaves.values, strict=True)
    ]


@functools.lru_cache(maxsize=1024)
def matches_by_text(pattern: str, paths: tuple[str, ...]) -> tuple[bool, ...]:
    """For every path whether a regular expression is found in it."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SelectionError(f"{pattern!r} is not a regular expression: {error}") from None
    return tuple(expression.search(path) is not None for path in paths)


def _answers(where: Any, leaves: Leaves, owner: str) -> list[Any]:
    """A tree of answers, or a function of the tree that gives one, spread over the leaves it
    covers.
    """
    if not leaves.values:
        # Optax's tree_map_params puts one node without leaves in the place of the parameters.
        return []
    answers = where(leaves.tree) if is_function(where) else where
    if isinstance(answers, PerLeaf):
        return list(answers)
    result = _spread_over(answers, leaves)
    if result is None:
        # nnx.Optimizer hands over plain arrays, where `nnx.state` has them in variables.
        plain = leaves_of(without_variables(leaves.tree))
        result = _spread_over(without_variables(answers), plain)
    if result is None:
        raise SelectionError(
            f"{owner}: the tree {show(answers)} does not fit the parameters: "
            f"{_misfit(answers, leaves.paths)}; {_cure(answers)}"
        )
    return result


def spread(answers: Any, leaves: Leaves, is_answer: Callable[[Any], bool] = is_none) -> list[Any]:
    """For every leaf the answer of a tree that may stop above it; None at None leaves.

    No tree is built: a container that looks at its arrays could not hold the answers.
    """
    values, treedef = jax.tree.flatten(answers, is_leaf=is_answer)
    each = zip(values, treedef.flatten_up_to(leaves.tree), strict=True)
    return [None if leaf is None else one for one, below in each for leaf in flatten(below)[0]]


class PerLeaf(tuple[Any, ...]):
    """The answers of a function of the tree, one for every leaf, in order."""

    __slots__ = ()


def _spread_over(answers: Any, leaves: Leaves) -> list[Any] | None:
    """The answer of every leaf; None where the answers do not fit the tree."""
    try:
        return spread(answers, leaves)
    except (ValueError, TypeError, KeyError):
        return None


def _misfit(answers: Any, paths: Sequence[str]) -> str:
    """Why a tree of answers is not a prefix of the parameters."""
    given = tree_paths(answers)
    strange = next(
        (path for path in given if not any(f"{leaf}/".startswith(f"{path}/") for leaf in paths)),
        None,
    )
    lacking = next(
        (leaf for leaf in paths if not any(f"{leaf}/".startswith(f"{path}/") for path in given)),
        None,
    )
    return (
        f"they have nothing at {strange!r}"
        if strange
        else f"it says nothing of {lacking!r}"
        if lacking
        else "its containers are of other types"
    )


def _cure(answers: Any) -> str:
    """How to write answers that do not fit, by what their author may have meant."""
    each = "give an answer for every leaf, or for a branch above it"
    if isinstance(answers, re.Pattern):
        return f"give the text of the compiled pattern, {answers.pattern!r}"
    if isinstance(answers, list | tuple) and answers:
        if all(isinstance(one, str) for one in answers):
            return f"give one regular expression, {'|'.join(answers)!r}"
        if all(isinstance(one, tuple) and isinstance(one[0], re.Pattern) for one in answers):
            return f"give the texts of compiled patterns, {answers[0][0].pattern!r}"
    if isinstance(answers, Mapping) and all(isinstance(one, str) for one in answers.values()):
        return f"{each}; patterns are a list of pairs, {show(list(answers.items()))}"
    return each


def nearest(pattern: Any, paths: Sequence[str]) -> str:
    """The paths closest to a pattern that matched nothing."""
    plain = re.sub(r"[\\^$.*+?()\[\]{}|]", "", pattern) if isinstance(pattern, str) else ""
    ends = {path.rsplit("/", 1)[-1]: path for path in reversed(paths)}
    close = (
        _near_folders(plain, paths)
        or difflib.get_close_matches(plain, paths, n=3, cutoff=0.4)
        or [ends[end] for end in difflib.get_close_matches(plain, ends, n=3, cutoff=0.4)]
    )
    return (
        f"nearest: {', '.join(map(repr, close))}"
        if close
        else f"the paths are {', '.join(map(repr, paths[:3]))}{', ...' if len(paths) > 3 else ''}"
    )


def _near_folders(plain: str, paths: Sequence[str]) -> list[str]:
    """The first paths in the folders that a pattern may have meant: `^encoder/`, `encoder_0/w`."""
    if "/" in plain.rstrip("/") and not plain.endswith("/"):
        return []
    names = [path.split("/") for path in paths]
    above = {"/".join(parts[:end]): None for parts in names for end in range(1, len(parts))}
    near = difflib.get_close_matches(plain.rstrip("/"), above, n=3, cutoff=0.7)
    return [path for folder in near for path in paths if path.startswith(f"{folder}/")][:3]
