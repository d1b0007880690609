"""What the core knows of storage: a rule may have a `Storage`, which keeps its slots in fewer bits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
from jax.extend.core import Literal

from gradtx.engine.gate import evaluate, read
from gradtx.tree.maps import choose
from gradtx.tree.rounding import Noise


class Storage(Protocol):
    """How the slots of rules are kept. Equal storages share kernels."""

    @property
    def is_random(self) -> bool:
        """Whether it rounds stochastically, which depends on step and leaf."""
        ...

    def stored_type(self, kind: type[Any]) -> type[Any]:
        """The NamedTuple that stands in a state in place of a rule's slots."""
        ...

    def leaf_policy(self, leaves: Any) -> Sequence[Any]:
        """For every leaf what `first` is to be told of it."""
        ...

    def first(self, slots: Any, like: Any, chosen: Any) -> Any:
        """What is kept of the slots that `init` made."""
        ...

    def decode(self, kept: Any, shape: tuple[int, ...]) -> Any:
        """The slots, as the rule knows them, of a leaf of that shape."""
        ...

    def encode(self, new: Any, kept: Any, noise: Noise | None, number: int) -> Any:
        """New slots in the form of the old; `number` tells the rules of a leaf apart."""
        ...

    def seen(self, kept: Any, slots: Any) -> Any:
        """Of new slots, as kept, those that the update of the same step is to see; None for what it
        sees as the rule made it.
        """
        ...

    def run(self, function: Callable[..., Any], rules: Sequence[Any], shared: Any, row: Any) -> Any:
        """`function(rules, shared, row)`, the kernel of a leaf, or the same part by part."""
        ...

    def encode_init_tree_slots(self, rule: str, skip: frozenset[str], own: Any) -> Any:
        """What is kept of the NamedTuple that a rule on trees keeps for itself, but for the fields
        to skip.
        """
        ...

    def decode_tree(self, rule: str, skip: frozenset[str], kept: Any) -> Any:
        """That NamedTuple, as the rule knows it."""
        ...

    def encode_tree(self, rule: str, skip: frozenset[str], new: Any, kept: Any, step: Any) -> Any:
        """Its successor in the form of the old."""
        ...


def update_with_storage(
    settle: Callable[[Any], tuple[Any, Any]],
    update: Callable[..., Any],
    grad: Any,
    slots: Any,
    *args: Any,
) -> tuple[Any, Any]:
    """`update(grad, slots, *args)`, its new slots as `settle` keeps them: `settle(new)` gives what
    is kept, and what is seen.

    Operations that no slot depends on come after; where they would use a new slot they see what
    `settle` says."""
    closed, shape = jax.make_jaxpr(lambda *given: tuple(update(*given)), return_shape=True)(
        grad, slots, *args
    )
    first, outs = len(jax.tree.leaves(shape[0])), closed.jaxpr.outvars
    needed = {variable for variable in outs[first:] if not isinstance(variable, Literal)}
    before, after = [], []
    for equation in reversed(closed.jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(atom for atom in equation.invars if not isinstance(atom, Literal))
            before.append(equation)
        else:
            after.append(equation)
    known: dict[Any, Any] = dict(
        zip(
            [*closed.jaxpr.constvars, *closed.jaxpr.invars],
            [*closed.consts, *jax.tree.leaves((grad, slots, *args))],
            strict=True,
        )
    )
    evaluate(before[::-1], known)
    new = [read(known, atom) for atom in outs[first:]]
    kept, seen = settle(jax.tree.unflatten(jax.tree.structure(shape[1]), new))
    made = {variable for equation in before for variable in equation.outvars}
    known |= {
        variable: value
        for variable, value in zip(outs[first:], _aligned(seen, shape[1]), strict=True)
        if value is not None and not isinstance(variable, Literal) and variable in made
    }
    evaluate(after[::-1], known)
    return jax.tree.unflatten(
        jax.tree.structure(shape[0]), [read(known, atom) for atom in outs[:first]]
    ), kept


def _aligned(seen: Any, like: Any) -> list[Any]:
    """What is seen, for every array of the slots."""
    return [value for value, one in zip(seen, like, strict=True) if one is not None]


def own_slots(rule: Any, slots: Any) -> tuple[Any, Callable[[Any], Any]]:
    """What a rule on trees keeps for itself, beside the slots of its members, and how to put
    another in its place; None for nothing.
    """
    if isinstance(slots, Mapping):
        own = slots.get(rule.name)
        return (
            (own, lambda new: {**slots, rule.name: new})
            if hasattr(own, "_fields")
            else (None, lambda new: slots)
        )
    return (slots, lambda new: new) if hasattr(slots, "_fields") else (None, lambda new: slots)


def _of_members(rule: Any) -> frozenset[str]:
    """The fields in which a rule on trees has the slots of its members, under the names that it
    knows them by.
    """
    return frozenset(name for name, one in rule.options.items() if hasattr(one, "init_slots"))


def encode_init_tree(rule: Any, slots: Any) -> Any:
    """The first slots of a rule on trees, as its storage keeps them."""
    own, put = own_slots(rule, slots)
    return (
        slots
        if rule.storage is None or own is None
        else put(rule.storage.encode_init_tree_slots(rule.name, _of_members(rule), own))
    )


def decode_tree(rule: Any, kept: Any) -> Any:
    """The slots of a rule on trees, as it knows them."""
    own, put = own_slots(rule, kept)
    return (
        kept
        if rule.storage is None or own is None
        else put(rule.storage.decode_tree(rule.name, _of_members(rule), own))
    )


def encode_tree(rule: Any, new: Any, kept: Any, step: Any, gate: Any) -> Any:
    """New slots of a rule on trees as its storage keeps them; where `acts` is False, what was kept
    itself.
    """
    old, _ = own_slots(rule, kept)
    own, put = own_slots(rule, new)
    if rule.storage is None or own is None:
        return new
    return put(
        choose(gate, rule.storage.encode_tree(rule.name, _of_members(rule), own, old, step), old)
    )
