"""Selecting parameters by path: `masked`, `partition`, and the table of who gets what."""

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradtx.compose.binding import Branch
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.definition.errors import SelectionError
from gradtx.definition.spelling import label_text
from gradtx.definition.types import Params
from gradtx.engine.program import BoundRule
from gradtx.engine.roles import Explained
from gradtx.engine.selector import Answers, Leaves, Selector, Where, labels
from gradtx.tree.paths import flatten, leaf_paths, repeated


@definition
def masked(inner: TransformationLike, mask: Where) -> list[Branch]:
    r"""`inner` on some leaves; the others pass through unchanged, and keep no slots.

    When: one transformation is for some leaves only. When not: every leaf is to get one of several;
    take `partition`. To stop leaves from moving, take `freeze`.

    Args:
      inner: the transformation.
      mask: which leaves it is for. A regular expression, searched for in paths like
        `encoder/0/kernel`; a predicate `(path, array) -> bool`; a pytree of bools (a prefix of the
        parameters suffices); or a function of the parameters that returns one.

    Raises:
      SelectionError: at `init` and `update`, when an expression or predicate chooses no leaf, or a
        tree of bools does not fit. A tree of bools is taken at its word, all False included.

    State: that of `inner`, for the chosen leaves.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"dense": {"bias": jnp.ones(1), "kernel": jnp.ones(1)}}
    >>> tx = gradtx.masked(gradtx.scale(-1.0), r"kernel$")
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> updates["dense"]["bias"].item(), updates["dense"]["kernel"].item()
    (1.0, -1.0)
    """
    member = as_transformation(inner)
    return [Branch(None, member, Selector(mask, True, f"masked({member.name})"))]


@definition
def partition(
    transforms: Mapping[Any, TransformationLike], param_labels: str | enum.Enum | Answers
) -> list[Branch]:
    r"""Different transformations for different leaves.

    When: groups of parameters need other methods or other numbers. When not: to leave out a few
    leaves; take `masked`.

    Args:
      transforms: group -> transformation; a group is a text, a bool, an int or an Enum. State and
        hyperparameters name it by its text.
      param_labels: rules `[(pattern, group), ...]`, tried in order, the first match wins; a pattern
        is a regular expression on paths or a predicate `(path, array) -> bool`. Or, as in Optax, a
        pytree of group names (a prefix of the parameters suffices), or a function of the parameters
        that returns one.

    Raises:
      SelectionError: a rule matches no leaf, or only leaves that earlier rules claim (the last rule
        may: it takes the leaves that others left); a leaf that no rule claims; a group that does
        not exist.

    State: that of every group, for its leaves.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"dense": {"bias": jnp.ones(1), "kernel": jnp.ones(1)}}
    >>> groups = {"plain": gradtx.sgd(1.0), "rest": gradtx.lion(1.0)}
    >>> tx = gradtx.partition(groups, [(r"bias$", "plain"), (r".*", "rest")])
    >>> print(gradtx.coverage(tx, params))
    dense/bias    plain
    dense/kernel  rest
    """
    if not isinstance(transforms, Mapping):
        raise SelectionError(
            "partition: transforms must name each group: write "
            "{'decayed': adamw(...), 'frozen': set_to_zero()}"
        )
    groups = tuple(transforms)
    if not groups:
        raise SelectionError(
            "partition: transforms is empty, so no leaf has a group: give {name: transformation}"
        )
    names = [label_text(group) for group in groups]
    if (twice := repeated(tuple(names))) is not None:
        raise SelectionError(
            f"partition: two groups have the name {twice!r} in the state: give them other labels"
        )
    return [
        Branch(name, as_transformation(one), Selector(param_labels, group, "partition", groups))
        for name, (group, one) in zip(names, transforms.items(), strict=True)
    ]


class Coverage(dict[str, str]):
    """Path -> group; prints as a table, with reasons where roles decide."""

    def __init__(self, groups: Mapping[str, str], reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(groups)
        self.reasons: dict[str, str] = dict(reasons or {})

    def __str__(self) -> str:
        rows = [(path, group, self.reasons.get(path, "")) for path, group in self.items()]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        return "\n".join(
            f"{path:<{widths[0]}}  {group:<{widths[1]}}  {reason}".rstrip()
            for path, group, reason in rows
        )


def coverage(tx: GradientTransformation | Sequence[Any], params: Params) -> Coverage:
    """Which group every leaf falls into: the table path -> group.

    Where roles decide (`by_role`, `muon`), it also prints the role of every leaf, its axes as a
    matrix, and the reason; `reasons` holds them by path.

    Args:
      tx: a definition that is, or contains, partitions or masks; or the list of rules itself.
      params: the parameters, or their shapes.

    Raises:
      SelectionError: as `partition` does, and when `tx` selects nothing anywhere.

    >>> import gradtx
    >>> gradtx.coverage([(r"bias$", "plain"), (r".*", "rest")], {"bias": 0.0, "kernel": 0.0})
    {'bias': 'plain', 'kernel': 'rest'}
    """
    values, treedef = flatten(params)
    leaves = Leaves(treedef, leaf_paths(treedef, params), values)
    if not isinstance(tx, GradientTransformation) and not _is_pairs(tx):
        tx = GradientTransformation.coerce(tx, "coverage: tx")
    if not isinstance(tx, GradientTransformation):
        groups = tuple(dict.fromkeys(group for _, group in tx))
        found = labels(tx, leaves, groups, "coverage")
        return Coverage(
            {
                path: group
                for path, group in zip(leaves.paths, found, strict=True)
                if group is not None
            }
        )
    parts = list(_selecting(tx))
    if not parts:
        raise SelectionError(
            f"coverage: {tx.name} selects nothing: it holds no masked(...) and no partition(...)"
        )
    table: dict[str, list[str]] = {
        path: [] for path, value in zip(leaves.paths, values, strict=True) if value is not None
    }
    reasons: dict[str, str] = {}
    for part, selectors in parts:
        answers = [selector(leaves) for selector in selectors]
        why = _reasons(selectors, leaves)
        for path, *chosen in zip(leaves.paths, *answers, strict=True):
            if all(chosen) and path in table:
                table[path].append(part.name or part.member.name)
                reasons.update({path: why[path]} if path in why else {})
    return Coverage({path: " + ".join(names) or "-" for path, names in table.items()}, reasons)


def _reasons(selectors: Sequence[Selector], leaves: Leaves) -> dict[str, str]:
    """By path, why the innermost selector that can explain itself chooses a leaf."""
    found: dict[str, str] = {}
    for selector in selectors:
        if isinstance(selector.where, Explained):
            each = zip(leaves.paths, selector.where.reasons(leaves), strict=True)
            found.update({path: reason for path, reason in each if reason is not None})
    return found


def _is_pairs(rules: Any) -> bool:
    """Whether a value is a list of rules `(pattern, group)`."""
    is_list = isinstance(rules, list | tuple) and not hasattr(rules, "_fields")
    return is_list and all(isinstance(rule, list | tuple) and len(rule) == 2 for rule in rules)


def _selecting(
    tx: GradientTransformation, outer: tuple[Selector, ...] = ()
) -> Iterator[tuple[Branch, tuple[Selector, ...]]]:
    """The parts of a definition that have a selector, each with those around it."""
    expansion = tx.expansion
    if isinstance(expansion, list):
        for part in expansion:
            selectors = outer if part.selector is None else (*outer, part.selector)
            if part.selector is not None:
                yield part, selectors
            yield from _selecting(part.member, selectors)
        return
    members = getattr(expansion.rule, "members", {}) if isinstance(expansion, BoundRule) else {}
    for member in members.values() if members else (expansion,):
        if isinstance(member, GradientTransformation):
            yield from _selecting(member, outer)
