"""The members of a definition as a tree, and the member that each rule of a program belongs to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from gradtx.compose.binding import LIFTERS
from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.show import show_head
from gradtx.definition.spelling import label_text
from gradtx.engine.selector import Selector
from gradtx.tree.paths import key_text

Address = tuple[str, ...]
"""The way to a member in the data of a definition: argument names and member names."""
Owner = tuple[Address, str | None]
"""A member, and its own group of parameters where it has several, as `muon` does."""


class MemberNode(NamedTuple):
    """A transformation in the data of a definition, with those inside it."""

    address: Address
    tx: GradientTransformation
    children: tuple["MemberNode", ...] = ()
    label: str = ""
    """Its group of parameters, or the name that the user chose for it; empty without one."""
    groups: tuple[str, ...] = ()
    """The groups of parameters around it and its own, outermost first."""
    depth: int = 0
    """The number of transformations around it."""

    @property
    def is_optimizer(self) -> bool:
        """Whether it is a whole optimizer: one of gradtx's, or a builder of the user's own."""
        factory = self.tx.factory
        return ":" in factory.name or factory.module == f"gradtx.optimizers.{factory.__name__}"

    def walk(self) -> Iterator["MemberNode"]:
        """This node and all below it, in their order."""
        yield self
        for child in self.children:
            yield from child.walk()


class Labels(NamedTuple):
    """The names of members that say more than those of their builders."""

    groups: frozenset[str]
    """The keys of a mapping of transformations, as `partition` takes one: groups of parameters."""
    others: frozenset[str]
    """Keywords, as `chain` takes them, and arguments where several are transformations."""


def member_tree(tx: GradientTransformation) -> MemberNode:
    """The tree of all transformations that a definition holds as data."""
    return _with_children(MemberNode((), tx))


def _with_children(node: MemberNode) -> MemberNode:
    tx, labels = node.tx, _labels(node.tx)
    found, _ = jax.tree_util.tree_flatten_with_path(
        tx, is_leaf=lambda one: one is not tx and isinstance(one, GradientTransformation)
    )
    children = [
        _with_children(_child(node, (*node.address, *map(key_text, path)), member, labels))
        for path, member in found
        if isinstance(member, GradientTransformation)
    ]
    return node._replace(children=tuple(children))


def _child(
    node: MemberNode, address: Address, tx: GradientTransformation, labels: Labels
) -> MemberNode:
    name = address[-1]
    groups = (*node.groups, name) if name in labels.groups else node.groups
    label = name if name in labels.groups | labels.others else ""
    return MemberNode(address, tx, (), label, groups, node.depth + 1)


def _labels(tx: GradientTransformation) -> Labels:
    parameters, groups, others = tx.factory.signature.parameters, set[str](), set[str]()
    for name, value in tx.arguments.items():
        if isinstance(value, Mapping):
            names = others if parameters[name].kind is parameters[name].VAR_KEYWORD else groups
            names |= {label_text(key) for key, one in value.items() if _is_member(one)}
    arguments = {name for name, value in tx.arguments.items() if _is_member(value)}
    others |= arguments if len(arguments) > 1 else set()
    return Labels(frozenset(groups), frozenset(others))


def _is_member(value: Any) -> bool:
    return isinstance(value, GradientTransformation)


def call_text(tx: GradientTransformation) -> str:
    """The call of a definition without the transformations inside it."""
    if tx.factory.__name__ in LIFTERS or tx.is_plain:
        return tx.name
    text = show_head(tx, without=GradientTransformation)
    return text.removesuffix("()")


class Members:
    """Finds the member of a definition that a rule of its program belongs to."""

    def __init__(self, root: MemberNode) -> None:
        self.root = root
        self._places: dict[int, list[MemberNode]] = {}
        for node in root.walk():
            self._places.setdefault(id(node.tx), []).append(node)

    def owner(
        self, origins: Sequence[Any], names: Sequence[str], selectors: Sequence[Selector]
    ) -> tuple[MemberNode, Owner]:
        """The innermost member among the definitions that a rule came from, and its own group.

        One object may be a member in several places: the names in the rule's path tell them apart.
        """
        node = self.root
        for origin in origins:
            below = [one for one in self._places.get(id(origin), ()) if _is_below(one, node)]
            named = [one for one in below if one.address[-1] in names]
            node = (named or below or [node])[0]
        labels = [label_text(one.answer) for one in selectors if one.groups]
        own = labels[len(node.groups) :]
        return node, (node.address, own[-1] if own else None)


def _is_below(node: MemberNode, other: MemberNode) -> bool:
    depth = len(other.address)
    return len(node.address) > depth and node.address[:depth] == other.address
