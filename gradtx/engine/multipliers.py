"""Multipliers of hyperparameters, a number per leaf: a rate, a decay and an ε by path and role.

A rule on arrays receives η, λ and ε as numbers that all its leaves share. `Multipliers` say for
every leaf by which number each of them is multiplied. The numbers are static, so that a kernel has
them as constants, and no slot moves.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from gradtx.definition.errors import GradtxError
from gradtx.engine.rules import Function, Rule

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import LeafRule
    from gradtx.engine.program import BoundRule
    from gradtx.engine.selector import Leaves

R = TypeVar("R", bound="LeafRule")
Factors = tuple[tuple[str, float], ...]
"""The hyperparameters of one leaf that change, by name, and the multiplier of each."""


class LeafFactors(NamedTuple):
    """The factors of one leaf, for people."""

    role: str
    """The role of the parameter, and what decided it."""
    factors: Mapping[str, float]


class Multipliers(Protocol):
    """Multipliers of the hyperparameters of rules, for every leaf."""

    @property
    def owner(self) -> str:
        """The builder that made them, for messages."""
        ...

    def factors(self, bound: "BoundRule", leaves: "Leaves") -> Sequence[Factors]:
        """For every leaf the multipliers of one rule's hyperparameters."""
        ...

    def table(self, leaves: "Leaves") -> tuple[Sequence[LeafFactors | None], Sequence[str]]:
        """The rows and the notes of a table; None for None leaves."""
        ...


def multiply_rule(rule: Rule, multipliers: Multipliers, member: Function) -> Rule:
    """A rule whose hyperparameters are multiplied; `member` does the same to a member."""
    if (inside := getattr(rule, "multipliers", None)) is not None:
        raise GradtxError(
            f"{multipliers.owner}: the hyperparameters of {rule.name} are multiplied by another "
            f"{inside.owner} inside: use one of them"
        )
    return rule.with_multipliers(multipliers, member)


@functools.lru_cache(maxsize=4096)
def at_leaf(rule: R, factors: Factors) -> R:
    """A rule as the kernel of a leaf with these multipliers has it."""
    return dataclasses.replace(rule, multipliers=None, factors=factors)


def multiply(kwargs: dict[str, Any], factors: Factors) -> Mapping[str, Any]:
    """The values of a rule, those of its multiplied hyperparameters times their multipliers."""
    for name, factor in factors:
        if name in kwargs:
            kwargs[name] = kwargs[name] * factor
    return kwargs


def split_by_factors(
    rule: R, factors: Sequence[Factors], cuts: Mapping[int, Any]
) -> list[tuple[R, dict[int, Any]]]:
    """The leaves of a rule that share multipliers, each group with the rule that it has."""
    if not factors:
        return [(rule, dict(cuts))]
    each = dict.fromkeys(factors[n] for n in cuts)
    return [
        (at_leaf(rule, one), {n: cut for n, cut in cuts.items() if factors[n] == one})
        for one in each
    ]
