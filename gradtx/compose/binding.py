"""Binding: from a definition to the flat list of its rules, each with its path and its masks."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from gradtx.engine.program import BoundRule, without_ignored
from gradtx.engine.rules import Rule
from gradtx.engine.selector import Selector

LIFTERS = frozenset({"leafwise", "matrixwise", "treewise", "wrapwise"})
"""The functions that make rules: such a rule is called like the builder around it."""
SCAFFOLDING = frozenset({"chain", "descend"})
"""The combinators that leave no trace in a path where a builder uses them."""


class Branch(NamedTuple):
    """A member of a combinator: its name, and the leaves that it is for."""

    name: str | None
    """None: it keeps its slots where the combinator does."""
    member: Any
    selector: Selector | None = None


class MapRules(NamedTuple):
    """Another definition with every rule replaced: by one with a storage, for instance."""

    inner: Any
    function: Callable[[Rule], Rule]
    narrow: Callable[[Any], Any] | None = None
    """Replaces the selectors inside, where these see other leaves; None: they stay."""

    def bound(self, bound: BoundRule, outside: int) -> BoundRule:
        """A rule of the inner definition, replaced; `outside` counts the selectors around."""
        bound = bound._replace(rule=self.function(bound.rule))
        if self.narrow is None:
            return bound
        own, inside = bound.selectors[:outside], bound.selectors[outside:]
        return bound._replace(selectors=(*own, *map(self.narrow, inside)))


class Place(NamedTuple):
    """Where in a definition rules are bound."""

    path: tuple[str, ...] = ()
    selectors: tuple[Selector, ...] = ()
    builder: str = ""
    """The builder whose expansion this is; empty within a combinator of the user's."""
    origin: tuple[Any, ...] = ()
    """The definitions around, outermost first."""

    def branch(self, name: str | None, selector: Selector | None) -> "Place":
        """The place of one branch of a combinator."""
        path = self.path if name is None else (*self.path, name)
        masks = self.selectors if selector is None else (*self.selectors, selector)
        return self._replace(
            path=path, selectors=masks, builder=self.builder if name is None else ""
        )


def bind_rules(tx: Any) -> tuple[BoundRule, ...]:
    """The rules that a definition comes down to, in the order in which they act.

    A rule at the root keeps its slots under its own name, unless they are a dict of members.
    """
    found = [
        bound if bound.path or bound.rule.keeps_at_root else bound._replace(path=(tx.name,))
        for bound in _bind(tx, Place())
    ]
    return without_ignored(found)


def _bind(tx: Any, place: Place) -> Iterator[BoundRule]:
    expansion, place = tx.expansion, place._replace(origin=(*place.origin, tx))
    if isinstance(expansion, BoundRule):
        yield expansion._replace(path=place.path, selectors=place.selectors, origin=place.origin)
    elif isinstance(expansion, MapRules):
        for bound in _bind(expansion.inner, place):
            yield expansion.bound(bound, len(place.selectors))
    elif isinstance(expansion, list):
        branches = list(_branches(expansion, place.builder))
        names = unique_names([branch.name for branch in branches])
        for branch, name in zip(branches, names, strict=True):
            yield from _bind(branch.member, place.branch(name, branch.selector))
    else:
        yield from _bind(expansion, place._replace(builder=tx.factory.__name__))


def _branches(expansion: Sequence[Branch], builder: str) -> Iterator[Branch]:
    """The branches of a combinator; inside a builder, those of a chain in place of the chain."""
    for branch in expansion:
        has_own_name = branch.name != branch.member.name
        is_scaffolding = branch.member.factory.__name__ in SCAFFOLDING
        inner = _branches_of(branch.member) if builder and is_scaffolding else None
        if inner is not None and not has_own_name and branch.selector is None:
            yield from _branches(inner, builder)
        else:
            yield branch


def _branches_of(tx: Any) -> Sequence[Branch] | None:
    """The branches of a chain, or of a `descend`; None where that is within `over_axes`."""
    expansion = getattr(tx, "expansion", None)
    return (
        expansion if expansion is None or isinstance(expansion, list) else _branches_of(expansion)
    )


def member_names(members: Sequence[Any]) -> list[str]:
    """A name for every member: its own, numbered from the second of the same name on."""
    return [name or "" for name in unique_names([member.name for member in members])]


def unique_names(names: Sequence[str | None]) -> list[str | None]:
    """The names, numbered from the second of the same name on."""
    found: list[str | None] = []
    for name in names:
        unique, number = name, 1
        while name is not None and unique in found:
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found


def with_last(rules: Sequence[BoundRule], last: BoundRule) -> tuple[BoundRule, ...]:
    """The rules with a further one behind them, or in the last of them where that wraps others."""
    bound = rules[-1] if rules else None
    inside = None if bound is None or bound.selectors else bound.rule.with_last(last)
    if bound is None or inside is None:
        return (*rules, last)
    return (*rules[:-1], bound._replace(rule=inside))
