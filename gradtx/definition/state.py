"""Reading a state by name: `state.mu`, `state["scale_by_adam/mu/dense/kernel"]`.

A state is dicts of members, down to the slots of a rule: a NamedTuple, or a dict with arrays. The
trees below have the parameters' own names, which these functions do not mistake for slots.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp

from gradtx._lazy import upper
from gradtx.definition.errors import StateError
from gradtx.definition.held import HeldHyperparams, all_typed_like
from gradtx.definition.optax_states import CLASSES
from gradtx.definition.spelling import label_text
from gradtx.definition.state_errors import (
    ambiguous_slot,
    immutable,
    missing_path,
    missing_slot,
)

Path = tuple[str, ...]

OPTAX_NAMES = {
    "mini_step": "micro_step",
    "step_count": "count",
    "step": "count",
    "v_row": "nu_row",
    "v_col": "nu_col",
    "exp_avg": "mu",
    "exp_avg_sq": "nu",
    "barf": "value",
    "lb": "lower_bound",
    "previous_gradient": "previous",
    "numerator_weighted": "numerator",
    "cumulative_gradients": "grad_sum",
    "subgradients": "abs_sum",
    "init_particles": "init_params",
}
"""Names of Optax's fields whose slots have other names here."""

RESERVED = frozenset(("hyperparams", "metrics"))
"""Names under which a wrapper stores a dict of arrays of its own."""


class _Fields(NamedTuple):
    """The two entries of a state."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """int32 scalar: the number of updates so far."""
    slots: Any
    """By member name, then by field name, then with the shapes of the parameters."""


class State(_Fields):
    """Optimizer state: one step counter, and the slots of every member by name.

    `state.mu` reads the one slot of that name, wherever it is stored;
    `state["scale_by_adam/mu/dense/kernel"]` reads by path.

    >>> import gradtx, jax.numpy as jnp
    >>> state = gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1)).init({"w": jnp.ones(2)})
    >>> state.mu["w"].tolist(), state["adam/scale_by_adam/nu/w"].tolist()
    ([0.0, 0.0], [0.0, 0.0])
    >>> gradtx.adam(0.1).init({"w": jnp.ones(2)})
    State(count=0, scale_by_adam/mu={w: f32[2]}, scale_by_adam/nu={w: f32[2]})
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return attribute(self, name)

    def __getitem__(self, key: Any) -> Any:
        return item(self, key)

    def __repr__(self) -> str:
        return upper("gradtx.definition.show_state").show_state(self)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(immutable(name))

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(immutable(str(key).rpartition("/")[2]))

    # NamedTuple declares the method final; this one also replaces slots.
    def _replace(self, /, **values: Any) -> Self:  # pyright: ignore
        """The state with other entries: `count`, `slots`, or a slot by its name."""
        named = {name: one for name, one in values.items() if name not in _Fields._fields}
        whole = {name: one for name, one in values.items() if name in _Fields._fields}
        state = super()._replace(**whole)
        return with_entries(state, named) if named else state


S = TypeVar("S", bound=State)


def attribute(state: State, name: str) -> Any:
    """The one slot of this name, wherever the state stores it.

    Raises:
      AttributeError: no slot has the name, or several have it.
    """
    if name.startswith("_"):  # Python and JAX ask for names that no state has
        raise AttributeError(f"a State has no {name!r}")
    entries = dict(entries_named(state, name))
    if not entries and name in VIEWS:
        return VIEWS[name](state)
    if not entries and (ours := OPTAX_NAMES.get(name)) is not None:
        if ours == "count":
            return state.count
        entries = dict(entries_named(state, ours))
    if len(entries) == 1:
        return _shown(state, *entries.popitem())
    if entries:
        raise AttributeError(ambiguous_slot(name, ["/".join(path) for path in entries]))
    names = sorted({path[-1] for path, _ in slot_entries(state)})
    raise AttributeError(missing_slot(name, names))


def entries_named(state: State, name: str) -> Iterator[tuple[Path, Any]]:
    """Every slot of a name, with its path below `slots`; without one, every member of the name."""
    slots = [(path, value) for path, value in slot_entries(state) if path[-1] == name]
    yield from slots or _innermost(list(members_named(state, name)))


def members_named(state: State, name: str) -> Iterator[tuple[Path, Any]]:
    """Every member of a name, with its path below `slots`."""
    yield from _members_named(state.slots, name, ())


def _members_named(node: Any, name: str, path: Path) -> Iterator[tuple[Path, Any]]:
    for key, child in _children(node).items():
        if _is_state_part(node, child):
            if key == name:
                yield (*path, key), child
            yield from _members_named(child, name, (*path, key))


def _innermost(members: list[tuple[Path, Any]]) -> Iterator[tuple[Path, Any]]:
    """The members that have no other one of the name inside: the slot `trace` of `trace`."""
    paths = [path for path, _ in members]
    for path, value in members:
        if not any(other != path and other[: len(path)] == path for other in paths):
            yield path, value


def slot_entries(state: State) -> Iterator[tuple[Path, Any]]:
    """Every slot of every member, with its path below `slots`."""
    yield from _slots_below(state.slots, ())


def _slots_below(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    for key, child in _children(node).items():
        if _is_state_part(node, child):
            yield from _slots_below(child, (*path, key))
        else:
            yield (*path, key), child


def _children(node: Any) -> Mapping[str, Any]:
    """The named entries of a dict, of a NamedTuple, or by position of the state of a chain."""
    if isinstance(node, Mapping):
        return {str(key): value for key, value in node.items()}
    if hasattr(node, "_fields"):
        # Not getattr, which a state of gradtx inside another library's answers for any name.
        return dict(zip(node._fields, tuple(node), strict=True))
    return {str(i): one for i, one in enumerate(node)} if isinstance(node, tuple) else {}


def _is_state_part(parent: Any, child: Any) -> bool:
    """Whether a child holds slots by name, and is not a tree like the parameters."""
    if isinstance(child, Mapping):
        below_slots = hasattr(parent, "_fields") or _holds_arrays(parent)
        return _leads_to_slots(child) if below_slots else True
    return isinstance(child, tuple)


def _leads_to_slots(node: Any) -> bool:
    """Whether a dict in a slot is a member's: it leads to a NamedTuple of slots."""
    return any(
        hasattr(one, "_fields") or (isinstance(one, Mapping) and _leads_to_slots(one))
        for one in node.values()
    )


def _holds_arrays(node: Any) -> bool:
    """Whether a dict holds arrays itself: the slots of a rule for the whole tree."""
    return isinstance(node, Mapping) and any(hasattr(one, "shape") for one in node.values())


def _shown(state: State, path: Path, value: Any) -> Any:
    """The entry at a path; the slots of a member are a state, which is read by name again."""
    if path[-1] == "hyperparams" and type(value) is dict and _is_own(state, path):
        return HeldHyperparams(value)
    is_member = isinstance(value, Mapping) and not _holds_arrays(value)
    if not is_member or path[-1] in RESERVED or _is_below_slots(state.slots, path):
        return value
    return state._replace(slots=value)


def _is_own(state: State, path: Path) -> bool:
    """Whether a wrapper stores this dict, and not a tree of parameters that has the name."""
    return not _is_below_slots(state.slots, path[:-1])


def _is_below_slots(node: Any, path: Path) -> bool:
    """Whether a path leads through the slots of a rule."""
    for name in path:
        if hasattr(node, "_fields") or _holds_arrays(node):
            return True
        node = _children(node)[name]
    return False


def item(state: State, key: Any) -> Any:
    """The entry at a path, below `slots` or from the root; by position, the state by name.

    Raises:
      StateError: nothing is stored there.
    """
    if isinstance(key, str):
        return _at(state, key)
    return tuple(state)[key] if isinstance(key, slice) else Entry(state, key)


def _at(state: State, key: str) -> Any:
    names = key.split("/")
    if names[0] == "count":
        return state.count
    path = tuple(names[1:] if names[0] == "slots" else names)
    node = state.slots
    for depth, name in enumerate(path):
        children = _children(node)
        if name not in children:
            slots = ["/".join(one) for one, _ in slot_entries(state) if one[-1] == key]
            only = slots[0] if len(slots) == 1 else ""
            where = "/".join(path[:depth])
            raise StateError(missing_path(key, name, where, list(children), only))
        node = children[name]
    return _shown(state, path, node) if path else state


class Entry:
    """`state[0]`: a state has no positions, so every position reads the whole state by name.

    `opt_state[0].mu` of a script written for Optax is then the one `mu` of the state.
    """

    __slots__ = ("_position", "_state")

    def __init__(self, state: State, position: Any):
        self._state, self._position = state, position

    @property
    def state(self) -> State:
        """The state that was asked for a position."""
        return self._state

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._state, name)

    def __getitem__(self, key: Any) -> Any:
        fields = _last_fields(self._state) if self._position == -1 else ()
        if isinstance(key, int) and -len(fields) <= key < len(fields):
            return getattr(self._state, fields[key])
        return self._state[key]

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            f"state[{self._position}]: the members of a gradtx.State have names, not positions; "
            f"read state.slots, or one of {', '.join(path for path in _spellings(self._state))}"
        )

    def __repr__(self) -> str:
        return (
            f"<state[{self._position}]: read by name, "
            f"{', '.join(path for path in _spellings(self._state))}>"
        )


def _last_fields(state: State) -> tuple[str, ...]:
    """The fields of Optax's class for the last member, where that has slots at the root."""
    slots = state.slots if isinstance(state.slots, Mapping) else {}
    last = next(reversed(slots), "")
    known = [fields for member, fields in CLASSES.values() if member == last]
    return tuple(known[0].split()) if last and known else ()


def _spellings(state: State) -> Iterator[str]:
    """How to read each slot by its path."""
    yield "state.count"
    yield from (f"state[{'/'.join(path)!r}]" for path, _ in slot_entries(state))


def with_entries(state: S, values: Mapping[str, Any]) -> S:
    """The state with some of its entries replaced, each by the name that `attribute` reads.

    Raises:
      StateError: no entry has the name, or several have it.
    """
    slots = state.slots
    for name, value in values.items():
        entries = dict(entries_named(state, OPTAX_NAMES.get(name, name)))
        if len(entries) != 1:
            which = "several entries" if entries else "no entry"
            raise StateError(
                f"_replace: this state has {which} of the name {name!r}; "
                f"write state._replace(slots=...)"
            )
        ((path, old),) = entries.items()
        is_held = name == "hyperparams" and isinstance(value, Mapping)
        slots = _put(slots, path, all_typed_like(old, value) if is_held else value)
    return state._replace(slots=slots)


def _put(node: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    below = _put(_children(node)[path[0]], path[1:], value)
    if isinstance(node, Mapping):
        return {key: below if str(key) == path[0] else one for key, one in node.items()}
    if hasattr(node, "_fields"):
        return node._replace(**{path[0]: below})
    return tuple(below if str(i) == path[0] else one for i, one in enumerate(node))


class Groups(dict[str, Any]):
    """The states of the groups of a partition, by label; a group without slots has an empty one."""

    def __init__(self, state: State):
        slots = state.slots if isinstance(state.slots, Mapping) else {}
        super().__init__({name: state._replace(slots=own) for name, own in slots.items()})
        self._state = state

    def __missing__(self, label: Any) -> State:
        name = label_text(label)
        return self[name] if name in self else self._state._replace(slots={})


def _without_wrapper(state: State) -> State:
    """The state of a wrapper's member: all that the wrapper does not store itself."""
    slots = state.slots
    if isinstance(slots, Mapping) and len(slots) == 1:
        (own,) = slots.values()
        members = [one for one in _children(own).values() if _is_member(own, one)]
        if hasattr(own, "_fields") and members:
            return _foreign_state(members[0]) or state._replace(slots=members[0])
    if not isinstance(slots, Mapping):
        return state
    inner = {name: one for name, one in slots.items() if not _is_wrappers(name, one)}
    return state._replace(slots=inner)


def _foreign_state(slots: Mapping[str, Any]) -> Any:
    """The state of another library's pair, where that is the whole member; else None."""
    (only, *others) = slots.values() or (None,)
    is_foreign = hasattr(only, "_fields") and not type(only).__module__.startswith("gradtx.")
    return only if is_foreign and not others else None


def _is_member(parent: Any, child: Any) -> bool:
    return isinstance(child, Mapping) and _is_state_part(parent, child)


def _is_wrappers(name: str, own: Any) -> bool:
    return name in RESERVED or type(own).__module__.startswith("gradtx.wrappers.")


def _mean_gradient(state: State) -> Any:
    """The mean of the gradients that `accumulate` has summed since the last update."""
    own = attribute(state, "accumulate")
    is_due = own.micro_step > 0  # else the sum's arrays hold the last update
    weight = jnp.where(own.weight > 0, own.weight, jnp.ones_like(own.weight))

    def mean(total: Any) -> Any:
        return jnp.where(is_due, total / weight.astype(total.real.dtype), jnp.zeros_like(total))

    return jax.tree.map(mean, own.total)


def _updates_made(state: State) -> Any:
    """The updates that `accumulate` has made, whose clock may differ from that of the state."""
    return attribute(state, "accumulate").applied


VIEWS: dict[str, Callable[[State], Any]] = {
    "acc_grads": _mean_gradient,
    "gradient_step": _updates_made,
    "inner_states": Groups,
    **dict.fromkeys(
        ("inner_state", "inner_opt_state", "base_optimizer_state", "fast_state"), _without_wrapper
    ),
}
"""Optax's fields that hold the state of a member, or a number computed from the slots."""
