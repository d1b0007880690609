"""The protocol of a storage: how the slots of a rule are kept in fewer bits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from gradtx.definition.types import Slots
from gradtx.tree.maps import choose
from gradtx.tree.rounding import Noise, straight_through


class Storage(Protocol):
    """How the slots of rules are kept. Equal storages share kernels."""

    @property
    def is_random(self) -> bool:
        """Whether it rounds stochastically, which depends on step and leaf."""
        ...

    def stored_type(self, kind: type[Any]) -> type[Any]:
        """The NamedTuple that a state holds in the place of a rule's slots."""
        ...

    def leaf_policy(self, leaves: Any) -> Sequence[Any]:
        """For every leaf, what `encode_init` must know of it."""
        ...

    def encode_init(
        self, slots: Slots, like: Any, policy: Any, zeros: frozenset[str] = frozenset()
    ) -> Any:
        """Encode the slots that `init` returned, for a leaf of this policy.

        `zeros` names slots that are zeros.
        """
        ...

    def decode(self, stored: Slots, shape: tuple[int, ...]) -> Any:
        """The slots of a leaf of that shape, as the rule knows them."""
        ...

    def encode(self, new: Any, stored: Slots, noise: Noise | None, number: int) -> Any:
        """Encode new slots in the form of the old; `number` distinguishes the rules of a leaf."""
        ...

    def visible_slots(self, stored: Slots, slots: Slots) -> Any:
        """The encoded slots that the update of the same step must see; None for the others."""
        ...

    def run(
        self, function: Callable[..., Any], rules: Sequence[Any], shared: Any, args: Any
    ) -> Any:
        """Run `function(rules, shared, args)`, the kernel of a leaf, whole or tile by tile."""
        ...

    def encode_init_tree_slots(self, rule: str, skip: frozenset[str], own: Slots) -> Any:
        """Encode the NamedTuple that a rule on trees keeps, but for the fields to skip."""
        ...

    def decode_tree(self, rule: str, skip: frozenset[str], stored: Slots) -> Any:
        """That NamedTuple, as the rule knows it."""
        ...

    def encode_tree(
        self, rule: str, skip: frozenset[str], new: Any, stored: Slots, step: Any
    ) -> Any:
        """Encode its successor in the form of the old."""
        ...


def store_slots(
    storage: Storage, old: Any, decoded: Any, noise: Noise | None, number: int, gate: Any, new: Any
) -> tuple[Any, Any]:
    """Encode new slots, or keep the old where a gate is closed; and the slots an update sees."""
    stored = storage.encode(new, old, noise, number)
    if gate is not None:
        stored = jax.tree.map(lambda one, other: jnp.where(gate, one, other), stored, old)
    visible = storage.visible_slots(stored, decoded)
    each = zip(visible, new, decoded, strict=True)
    return stored, type(visible)(
        *(
            None if one is None else straight_through(one.astype(old.dtype), exact)
            for one, exact, old in each
        )
    )


def own_slots(name: str, slots: Slots) -> tuple[Any, Callable[[Any], Any]]:
    """The slots of a rule on trees without those of its members, and how to replace them.

    None where it keeps no NamedTuple of its own.
    """
    if isinstance(slots, Mapping):
        own = slots.get(name)
        if hasattr(own, "_fields"):
            return own, lambda new: {**slots, name: new}
        return None, lambda new: slots
    return (slots, lambda new: new) if hasattr(slots, "_fields") else (None, lambda new: slots)


def encode_init_tree(storage: Storage | None, name: str, skip: frozenset[str], slots: Slots) -> Any:
    """Encode the first slots of a rule on trees."""
    own, put = own_slots(name, slots)
    if storage is None or own is None:
        return slots
    return put(storage.encode_init_tree_slots(name, skip, own))


def decode_tree(storage: Storage | None, name: str, skip: frozenset[str], slots: Slots) -> Any:
    """Decode the slots of a rule on trees."""
    own, put = own_slots(name, slots)
    return slots if storage is None or own is None else put(storage.decode_tree(name, skip, own))


def encode_tree(
    storage: Storage | None,
    name: str,
    skip: frozenset[str],
    new: Any,
    old: Any,
    step: Any,
    gate: Any,
) -> Any:
    """Encode new slots of a rule on trees; where the gate is closed, keep the old ones."""
    (before, _), (own, put) = own_slots(name, old), own_slots(name, new)
    if storage is None or own is None:
        return new
    return put(choose(gate, storage.encode_tree(name, skip, own, before, step), before))
