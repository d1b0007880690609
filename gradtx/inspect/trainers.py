"""The member that trains each parameter, and whether the parameter decays or is frozen."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.leaves import known_number
from gradtx.definition.show import show_dtype
from gradtx.engine.factor_rule import FactorRule
from gradtx.engine.program import BoundRule
from gradtx.engine.roles import Explained
from gradtx.engine.rules import select_kwargs
from gradtx.engine.selector import Leaves, Selector, leaves_of
from gradtx.inspect.factors import factor_texts
from gradtx.inspect.members import MemberNode, Members, Owner
from gradtx.tree.casts import is_inexact
from gradtx.tree.options import eval_shape

FROZEN, DECAYED, UNCHANGED = "frozen", "decayed", "raw gradient"


class Trainer(NamedTuple):
    """The training of one parameter."""

    name: str
    """The optimizers that act on it, "a + b"; empty where none does."""
    group: str
    """Its group in a partition; empty without one."""
    is_decayed: bool
    """Whether a weight decay acts on it."""
    is_frozen: bool
    """Whether its update is zero."""
    reason: str = ""
    """Why roles put it into its group; empty where they do not."""
    factor: str = ""
    """The factor of its updates by path, "× 0.75"; empty where it is 1."""

    @property
    def text(self) -> str:
        """The training in words: "adamw, decayed", "frozen", "head: sgd"."""
        if self.is_frozen:
            words = FROZEN
        else:
            words = f"{self.name or UNCHANGED}{f', {DECAYED}' if self.is_decayed else ''}"
            words = f"{words} {self.factor}".rstrip()
        is_new = self.group and self.group not in (self.name, words)
        return f"{self.group}: {words}" if is_new else words


class ActiveRule(NamedTuple):
    """One rule of a program, wherever it is inside wrappers, and the leaves that it acts on."""

    bound: BoundRule
    node: MemberNode
    owner: Owner
    active: np.ndarray
    """A bool for every leaf."""
    selectors: tuple[Selector, ...]
    seen: Leaves
    """The leaves that the selectors look at."""


def active_rules(tx: GradientTransformation, members: Members, leaves: Leaves) -> list[ActiveRule]:
    """Every rule of a definition, in the order in which they act."""
    return list(_rules(tx, members, leaves, _Around(np.ones(len(leaves.values), bool))))


class _Around(NamedTuple):
    """The rules around a program."""

    active: np.ndarray
    origins: tuple[Any, ...] = ()
    names: tuple[str, ...] = ()
    selectors: tuple[Selector, ...] = ()
    is_reshaped: bool = False
    """Whether the program sees other arrays than the parameters, so that its masks say nothing."""


def _rules(tx: Any, members: Members, leaves: Leaves, around: _Around) -> Iterator[ActiveRule]:
    seen = leaves_of(leaves.narrow(leaves.tree, around.active.tolist()))
    for bound in tx.rules:
        own = around.active
        if not around.is_reshaped:
            own = own & np.asarray(bound.mask(seen), bool)
        origins, names = (*around.origins, *bound.origin), (*around.names, *bound.path)
        selectors = (*around.selectors, *bound.selectors)
        node, owner = members.owner(origins, names, selectors)
        yield ActiveRule(bound, node, owner, own, selectors, seen)
        for name, member in getattr(bound.rule, "members", {}).items():
            is_reshaped = around.is_reshaped or _reshapes(bound, leaves, own)
            inside = _Around(own, origins, (*names, name), selectors, is_reshaped)
            yield from _rules(member, members, leaves, inside)


def _reshapes(bound: BoundRule, leaves: Leaves, active: np.ndarray) -> bool:
    """Whether the member of a wrapper receives a tree of another structure."""
    make = getattr(bound.rule, "member_params", None)
    if make is None:
        return False
    params = leaves.narrow(leaves.tree, active.tolist())
    kwargs = select_kwargs(make, {**bound.hyperparams, **dict(getattr(bound.rule, "options", {}))})
    new = eval_shape(lambda tree: make(tree, **kwargs), params)
    return jax.tree.structure(new) != jax.tree.structure(params)


def trainers(rules: Sequence[ActiveRule], leaves: Leaves) -> list[Trainer | None]:
    """The trainer of every leaf; None where the leaf is None."""
    count, ranks = len(leaves.values), _ranks(rules)
    acts: list[dict[Owner, MemberNode]] = [{} for _ in range(count)]
    for one in rules:
        for index in np.flatnonzero(one.active).tolist():
            acts[index].setdefault(one.owner, one.node)
    decayed, frozen = _flags(rules, count)
    notes = zip(_reasons(rules, count), factor_texts(rules, count), strict=True)
    each = zip(leaves.values, acts, decayed, frozen, notes, strict=True)
    return [
        None
        if value is None
        else _trainer(owners, ranks, bool(is_decayed), bool(is_frozen), *notes)
        if is_inexact(value)
        else Trainer(f"not trained, {_dtype(value)}", "", False, False)
        for value, owners, is_decayed, is_frozen, notes in each
    ]


def _dtype(value: Any) -> str:
    return show_dtype(value.dtype) if hasattr(value, "dtype") else type(value).__name__


def _trainer(acts: dict[Owner, MemberNode], ranks: dict[Owner, int], *rest: Any) -> Trainer:
    """The trainer from the members that act on a leaf."""
    groups = max((node.groups for node in acts.values()), key=len, default=())
    members = {owner: node for owner, node in acts.items() if not node.children}
    best = max((ranks[owner] for owner in members), default=0)
    names = [
        owner[1] or node.tx.name for owner, node in members.items() if best and ranks[owner] == best
    ]
    return Trainer(" + ".join(names), "/".join(groups), *rest)


def _ranks(rules: Sequence[ActiveRule]) -> dict[Owner, int]:
    """How well a member names the training of a leaf; those of the highest rank do.

    3: an optimizer; 2: a member with slots; 1: any other; 0: one that only decays or freezes.
    """
    ranks: dict[Owner, int] = {}
    for one in rules:
        is_factor = isinstance(one.bound.rule, FactorRule)
        is_flag = _decays(one.bound) or one.bound.rule.ignores_input or is_factor
        own = 2 if one.bound.rule.keeps else 0 if is_flag else 1
        own = 3 if one.node.is_optimizer else own
        ranks[one.owner] = max(own, ranks.get(one.owner, 0))
    return ranks


def _flags(rules: Sequence[ActiveRule], count: int) -> tuple[np.ndarray, np.ndarray]:
    """For every leaf whether it decays, and whether it is frozen; rules in their order."""
    decayed, frozen = np.zeros(count, bool), np.zeros(count, bool)
    for one in rules:
        if one.bound.rule.ignores_input:
            decayed, frozen = decayed & ~one.active, frozen | one.active
        elif _decays(one.bound):
            decayed, frozen = decayed | one.active, frozen & ~one.active
        if getattr(one.bound.rule, "is_random", False):
            frozen = frozen & ~one.active
    return decayed, frozen


def _decays(bound: BoundRule) -> bool:
    """Whether a rule has a weight decay that is not known to be zero."""
    values = [one for name, one in bound.hyperparams.items() if name.startswith("weight_decay")]
    return any(not _is_zero(value) for value in values)


def _is_zero(value: Any) -> bool:
    number = known_number(value)
    return isinstance(number, int | float | np.generic) and number == 0


def _reasons(rules: Sequence[ActiveRule], count: int) -> list[str]:
    """For every leaf why roles chose its group."""
    found = [""] * count
    known: dict[int, Sequence[str | None]] = {}
    for one in rules:
        for selector in one.selectors:
            if isinstance(selector.where, Explained):
                key = id(selector.where)
                known.setdefault(key, selector.where.reasons(one.seen))
                for index in np.flatnonzero(one.active).tolist():
                    found[index] = known[key][index] or found[index]
    return found
