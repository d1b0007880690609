"""Which optimizer x is scale_by_x and steps down: the same rule, the same state."""

import dataclasses
from typing import Any, cast

import jax

from gradtx.engine.program import BoundRule
from gradtx.testing.problems import parameters
from tests.methods import FIRST, METHODS


def held_by(name: str) -> str:
    """The method whose laws of structure are those of this one: x for scale_by_x, or itself."""
    whole = name.removeprefix("scale_by_")
    return whole if whole in FIRST and name != whole and same_inside(name, whole) else name


def same_inside(part: str, whole: str) -> bool:
    """Whether the whole is the part, then steps down: the same rules, keeping the same."""
    inside, around = METHODS[part].tx.rules, METHODS[whole].tx.rules
    rules = [described(bound) for bound in around]
    return all(described(bound) in rules for bound in inside) and kept(part) == kept(whole)


def described(bound: BoundRule) -> Any:
    """The rule of a member without its name and its numbers."""
    return dataclasses.replace(cast(Any, bound.rule), name="")


def kept(name: str) -> Any:
    """The structure of the state, shapes and dtypes, without the names of members."""
    tx, params = METHODS[name].tx, parameters()
    return jax.tree.leaves(jax.eval_shape(tx.init, params))


PAIRS = {name: held_by(name) for name in FIRST}
"""Whose laws of structure are those of a maker: its own, or those of the optimizer around it."""
MAKERS = [name for name in FIRST if PAIRS[name] == name]
"""The makers whose laws of structure stand for all."""
