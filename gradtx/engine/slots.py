"""The slots of rules in a state: dicts by member name, then a tree of arrays for every field."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax

from gradtx.definition.errors import GradtxError, StateError
from gradtx.definition.types import Slots
from gradtx.engine.selector import Leaves
from gradtx.engine.slot_form import SlotForm
from gradtx.tree.paths import match_leaves

if TYPE_CHECKING:
    from gradtx.engine.program import BoundRule

Path = tuple[str, ...]


def slots_at(slots: Slots, path: Path) -> Any:
    """The slots of one member; an error says what the state holds where it is not there."""
    for depth, name in enumerate(path):
        if not isinstance(slots, Mapping) or name not in slots:
            is_dict = isinstance(slots, Mapping)
            holds = ", ".join(map(repr, slots)) if is_dict else type(slots).__name__
            where = f"under {'/'.join(path[:depth])!r} " if depth else ""
            raise StateError(
                f"the state has nothing for member {'/'.join(path)!r}; {where}it holds "
                f"{holds or 'nothing'}: it is another definition's"
            )
        slots = slots[name]
    return slots


def put_slots(slots: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """The slots of all members with those of one replaced."""
    if not path:
        return value
    return {**slots, path[0]: put_slots(slots.get(path[0], {}), path[1:], value)}


def check_members(rules: "Iterable[BoundRule]", slots: Slots) -> None:
    """Raise when a state holds members that the program does not have."""
    known = [bound.path for bound in rules if bound.rule.keeps]
    if () in known or not isinstance(slots, Mapping):
        return
    for path in _strange_paths(slots, known):
        raise StateError(
            f"the state holds slots for {'/'.join(path)!r}, which is not a member of this "
            f"definition; its members with slots are "
            f"{', '.join(repr('/'.join(one)) for one in known) or 'none'}: make it with "
            f"tx.init(params)"
        )


def _strange_paths(
    slots: Mapping[str, Any], known: Sequence[Path], prefix: Path = ()
) -> Iterable[Path]:
    """The paths in `slots` that lead to no member."""
    for name, below in slots.items():
        path = (*prefix, name)
        if path in known:
            continue
        if isinstance(below, Mapping) and any(one[: len(path)] == path for one in known):
            yield from _strange_paths(below, known, path)
        else:
            yield path


def attach(slots: Mapping[str, Any], name: str, own: Slots) -> dict[str, Any]:
    """The slots of a member, and under a name of its own what its wrapper keeps."""
    if name in slots:
        raise GradtxError(
            f"{name} directly around another {name}: both would store their slots under one name; "
            f"put the inner one in a chain"
        )
    return {**slots, name: own}


def detach(slots: Mapping[str, Any], name: str) -> tuple[dict[str, Any], Any]:
    """The two parts that `attach` joined: the slots of the member, and those of its wrapper."""
    if name not in slots:
        holds = ", ".join(map(repr, slots)) or "nothing"
        raise StateError(
            f"the state has nothing for {name}; it holds {holds}: it is another definition's"
        )
    return {key: value for key, value in slots.items() if key != name}, slots[name]


def pack(form: SlotForm, rows: Sequence[Any], leaves: Leaves) -> Any:
    """Slots by leaf as one tree per field."""
    columns = (
        [None if row is None else row[number] for row in rows]
        for number in range(len(form.kind._fields))
    )
    return form.store(jax.tree.unflatten(leaves.treedef, column) for column in columns)


def join_tree_slots(slots: Slots, tree_slots: Any) -> Any:
    """The slots of one rule in a state: by array, for the whole tree, or a dict of both."""
    if slots is None or tree_slots is None:
        return tree_slots if slots is None else slots
    return {**_as_dict(slots), **tree_slots._asdict()}


def _as_dict(slots: Slots) -> Mapping[str, Any]:
    return slots._asdict() if hasattr(slots, "_asdict") else slots


def unpack(
    bound: "BoundRule",
    form: SlotForm | None,
    tree_kind: type[Any] | None,
    own: Slots,
    leaves: Leaves,
    active: Sequence[bool],
    what: str = "the gradients",
) -> tuple[list[Any], Any]:
    """The slots of one rule by leaf, and its tree slots; `what` says what the leaves are."""
    tree_slots = None
    if tree_kind is not None:
        fields = (
            own if isinstance(own, Mapping) else own._asdict() if isinstance(own, tree_kind) else {}
        )
        if set(fields) != {*tree_kind._fields, *(form.kind._fields if form else ())}:
            raise _foreign(bound, tree_kind.__name__, own)
        tree_slots = tree_kind(*(fields[name] for name in tree_kind._fields))
        own = None if form is None else form.store(fields[name] for name in form.kind._fields)
    if form is None:
        return [None] * len(leaves.values), tree_slots
    is_ours = (
        set(own) == set(form.kind._fields)
        if type(own) is dict and form.outer
        else type(own) is form.kind
    )
    if not is_ours:
        raise _foreign(bound, form.kind.__name__ if form.outer is None else form.shown, own)
    return _by_leaf(bound, form, own, leaves, active, what), tree_slots


def _foreign(bound: "BoundRule", keeps: str, slots: Slots) -> StateError:
    return StateError(
        f"member {bound.name} keeps {keeps}, its state holds {type(slots).__name__}: this state "
        f"belongs to another definition"
    )


def _by_leaf(
    bound: "BoundRule",
    form: SlotForm,
    own: Slots,
    leaves: Leaves,
    active: Sequence[bool],
    what: str,
) -> list[Any]:
    trees = own.values() if isinstance(own, dict) else own
    columns = [
        match_leaves(
            leaves.treedef,
            lambda: leaves.paths,
            tree,
            what,
            "the state",
            partial(_slots_differ, bound.name, name),
        )
        for name, tree in zip(form.kind._fields, trees, strict=True)
    ]
    rows = list(zip(*columns, strict=True)) if columns else []
    for row, path, is_active in zip(rows, leaves.paths, active, strict=True):
        if is_active and all(slot is None for slot in row):
            raise StateError(
                f"member {bound.name} acts on {path!r}, for which its state holds nothing: this "
                f"state was made with another mask"
            )
    return [form.kind(*row) if one else row for row, one in zip(rows, active, strict=True)]


def _slots_differ(member: str, field: str, difference: str) -> StateError:
    return StateError(
        f"slot {field!r} of member {member} was made for other parameters: {difference}; call "
        f"tx.init(params) with the parameters as they are now"
    )


def tree_slots_of(kind: type[Any] | None, slots: Slots) -> dict[str, Any]:
    """The scalars that a rule keeps for the whole tree, by name."""
    if kind is None:
        return {}
    fields = slots if isinstance(slots, Mapping) else slots._asdict()
    return {name: fields[name] for name in kind._fields if fields[name].ndim == 0}
