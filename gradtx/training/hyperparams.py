"""Hyperparameters by name: read them and replace them."""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.definition import Definition, map_items
from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import Schedule, value_at
from gradtx.definition.spelling import suggest
from gradtx.definition.types import Array, Slots, State
from gradtx.engine.walk import walk
from gradtx.tree.paths import key_text
from gradtx.tree.variables import without_variables

Address = tuple[str, ...]
"""The way to a hyperparameter in the data of a definition: argument names and member names."""


def hyperparams(tx: GradientTransformation, at: int | Array | State = 0) -> dict[str, Any]:
    """The hyperparameters of a definition, by name, at one moment.

    Names are as short as is unambiguous: `learning_rate`, else `adamw.learning_rate`.

    Args:
      tx: the definition.
      at: a count of updates made so far, or a state; schedules are evaluated there, and what the
        state itself keeps (`tunable`) is read from it.

    >>> import gradtx
    >>> rate = gradtx.linear_schedule(1.0, 0.0, 10)
    >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(rate))
    >>> {name: float(value) for name, value in hyperparams(tx, at=5).items()}
    {'max_norm': 1.0, 'learning_rate': 0.5}
    """
    at = without_variables(at)
    tx = _definition(tx, "hyperparams: tx")
    if isinstance(at, State):
        values = values_in_state(tx, at)
    else:
        values = {
            address: value_at(value, at)
            for address, value in leaves_by_address(tx, Schedule).items()
        }
    return {name: values[address] for name, address in short_names(values).items()}


def values_in_state(tx: GradientTransformation, state: State) -> dict[Address, Any]:
    """Every hyperparameter at its own member's count, by address."""
    clocks = clocks_in_state(tx, state.slots, state.count)
    values = leaves_by_address(_with_overrides(tx, clocks), Schedule)
    return {
        address: value_at(value, count_at(address, clocks, state.count))
        for address, value in values.items()
    }


def moving_values(tx: GradientTransformation, state: State) -> dict[Address, Any]:
    """The hyperparameters that follow a schedule, and those that the state holds, by address."""
    clocks = clocks_in_state(tx, state.slots, state.count)
    moving = {address for clock in clocks for address in clock.overrides}
    for address, value in leaves_by_address(tx, Schedule).items():
        if isinstance(value, Schedule):
            moving.add(address)
    values = values_in_state(tx, state)
    return {address: value for address, value in values.items() if address in moving}


def _definition(value: Any, where: str) -> Any:
    """A definition; an error where it is a state, or parameters."""
    return value if isinstance(value, Definition) else GradientTransformation.coerce(value, where)


class MemberClock(NamedTuple):
    """A part of a definition with a clock of its own, and the values that the state holds for
    it.
    """

    address: Address
    count: Any
    overrides: Mapping[Address, Any]


def clocks_in_state(tx: GradientTransformation, slots: Slots, count: Any) -> list[MemberClock]:
    """The clocks of all members of wrappers, each behind the one that it is inside of."""
    places, clocks = Places(tx), list[MemberClock]()
    for node in walk(tx, slots, count):
        rule, held = node.bound.rule, node.bound.rule.overrides(node.slots)
        for child in node.bound.rule.children(node.slots, node.count):
            for wrapper, where, part in places.take(node.bound.origin, child.member):
                values = {where + find(part, name): one for name, one in held.items()}
                if rule.own_clock:
                    clocks.append(MemberClock(wrapper, child.count, {}))
                clocks.append(MemberClock(where, child.count, values))
    return clocks


class Places:
    """The addresses of all transformations in the data of a definition.

    One object may be a member in several places: each place is taken once, in their order.
    """

    def __init__(self, tx: GradientTransformation):
        self.known: dict[int, list[Address]] = {}
        for address, member in _parts(tx):
            self.known.setdefault(id(member), []).append(address)
        self.taken: set[Address] = set()

    def take(self, origin: Sequence[Any], member: Any) -> list[tuple[Address, Address, Any]]:
        """The addresses of a wrapper and of its member; of one that a builder made, its parts'."""
        wrapper = self._innermost(origin)
        parts = [member]
        if id(member) not in self.known:
            origins = (bound.origin for bound in member.rules)
            parts = {id(one): one for one in map(self._outermost, origins) if one is not None}
            parts = list(parts.values())
        found = [(*self._free(wrapper, part), part) for part in parts]
        return [(around, where, part) for around, where, part in found if where is not None]

    def _innermost(self, origin: Sequence[Any]) -> list[Address]:
        known = (self.known[id(one)] for one in reversed(origin) if id(one) in self.known)
        return next(known, [()])

    def _outermost(self, origin: Sequence[Any]) -> Any:
        return next((one for one in origin if id(one) in self.known), None)

    def _free(self, wrapper: Sequence[Address], part: Any) -> tuple[Address, Any]:
        """The first place of a part that is inside a place of its wrapper."""
        for around in wrapper:
            for where in self.known[id(part)]:
                if where not in self.taken and where[: len(around)] == around:
                    self.taken.add(where)
                    return around, where
        return (), None


def _parts(
    tx: GradientTransformation, address: Address = ()
) -> Iterator[tuple[Address, GradientTransformation]]:
    """All transformations in the data of a definition, with their addresses."""
    yield address, tx
    found, _ = jax.tree_util.tree_flatten_with_path(
        tx, is_leaf=lambda node: node is not tx and isinstance(node, GradientTransformation)
    )
    for path, member in found:
        if isinstance(member, GradientTransformation):
            yield from _parts(member, (*address, *map(key_text, path)))


def _with_overrides(
    tx: GradientTransformation, clocks: Sequence[MemberClock]
) -> GradientTransformation:
    """The definition with the values that a state holds; schedules stay schedules."""
    for clock in clocks:
        for address, value in clock.overrides.items():
            if not isinstance(leaves_by_address(tx, Schedule).get(address), Schedule):
                tx = _set(tx, address, value)
    return tx


def count_at(address: Address, clocks: Sequence[MemberClock], count: Any) -> Any:
    """The count of the innermost member that an address lies in."""
    inside = (one.count for one in reversed(clocks) if address[: len(one.address)] == one.address)
    return next(inside, count)


def replace(tx: GradientTransformation, **values: Any) -> GradientTransformation:
    """The same definition with other hyperparameters.

    The structure stays the same, so a jitted function that takes the definition as an argument does
    not compile again. A parameter of a schedule is reached through its hyperparameter:
    `replace(tx, **{"learning_rate.peak_value": 1e-3})`. Putting a schedule in a number's place, or
    the reverse, works too, and is another structure.

    Args:
      tx: the definition.
      **values: new values by the names that `hyperparams` gives.

    Raises:
      HyperparamError: a name that is unknown or ambiguous, with those that exist; a number out of
        its range.

    >>> import gradtx
    >>> replace(gradtx.adamw(1e-3), learning_rate=3e-4)
    adamw(learning_rate=0.0003)
    """
    tx = _definition(tx, "replace: tx")
    addresses = {name: find(tx, name) for name in values}
    for name, value in values.items():
        tx = _set(tx, addresses[name], value)
    return tx


def vmap_axes(tx: GradientTransformation, *names: str) -> GradientTransformation:
    """The `in_axes` of `jax.vmap` for a definition in which some hyperparameters are batched.

    Args:
      tx: the definition.
      *names: the batched hyperparameters, by the names that `hyperparams` gives; the others are
        shared.

    Raises:
      HyperparamError: a name that is unknown or ambiguous.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.replace(gradtx.sgd(0.1, momentum=0.9), learning_rate=jnp.array([0.1, 0.2]))
    >>> first_step = lambda tx, g: tx.update(g, tx.init(g))[0]
    >>> axes = gradtx.vmap_axes(tx, "learning_rate"), None
    >>> jax.vmap(first_step, in_axes=axes)(tx, jnp.array(10.0)).tolist()
    [-1.0, -2.0]
    """
    tx = _definition(tx, "vmap_axes: tx")
    batched = {find(tx, name) for name in names}
    axes = [
        0 if any(address[: len(one)] == one for one in batched) else None
        for address in leaves_by_address(tx, ())
    ]
    return jax.tree.unflatten(jax.tree.structure(tx), axes)


def find(tx: Definition, name: str) -> Address:
    """Where a hyperparameter is, or a parameter of a schedule; an error lists the names if there is
    none.
    """
    names = short_names(leaves_by_address(tx, Schedule))
    where = f"{tx.factory.__name__} has the hyperparameters {', '.join(names)}"
    for addresses in (leaves_by_address(tx, Schedule), leaves_by_address(tx, ())):
        matches = [address for address in addresses if name in _endings(address)]
        whole = [address for address in matches if ".".join(address) == name]
        if len(whole) == 1:
            return whole[0]
        if len(matches) > 1:
            several = " or ".join(".".join(address) for address in matches)
            raise HyperparamError(f"{name!r} is ambiguous: it may be {several}; {where}")
        if matches:
            return matches[0]
    near, known = suggest(name, names), f"has {', '.join(names)}"
    raise HyperparamError(
        f"{tx.factory.__name__} has no hyperparameter {name!r}"
        f"{f'{near} It' if near else '; it'} {known}"
    )


def leaves_by_address(tx: Definition, stop: Any) -> dict[Address, Any]:
    """Every leaf of a definition by its address; nodes of the type `stop` count as leaves."""
    found, _ = jax.tree_util.tree_flatten_with_path(tx, is_leaf=lambda node: isinstance(node, stop))
    return {tuple(map(key_text, path)): value for path, value in found}


def short_names(addresses: Mapping[Address, Any]) -> dict[str, Address]:
    """For every address its shortest ending that no other address shares."""
    uses = Counter(ending for address in addresses for ending in _endings(address))
    return {
        next((one for one in _endings(address) if uses[one] == 1), ".".join(address)): address
        for address in addresses
    }


def _endings(address: Address) -> list[str]:
    """The names of an address, shortest first; a member's name may have dots of its own."""
    return [".".join(address[-length:]) for length in range(1, len(address) + 1)]


def _set(tx: Definition, address: Address, value: Any) -> Any:
    """The definition with the value at one address replaced, checked like a new call."""
    stop = Schedule if address in leaves_by_address(tx, Schedule) else ()
    put = functools.partial(_put, address, value)
    return _call_again(
        jax.tree_util.tree_map_with_path(put, tx, is_leaf=lambda node: isinstance(node, stop))
    )


def _put(address: Address, value: Any, path: Any, leaf: Any) -> Any:
    return value if tuple(map(key_text, path)) == address else leaf


def _call_again(value: Any) -> Any:
    """Make the calls of a definition again, innermost first, so that every argument is checked."""
    if not isinstance(value, Definition):
        return value
    dynamic = value.factory.dynamic
    arguments = {
        name: map_items(given, _call_again) if name in dynamic else given
        for name, given in value.arguments.items()
    }
    return value.factory.make(arguments)


def hyperparams_named(
    tx: GradientTransformation, names: Sequence[str], count: Any
) -> dict[str, Any]:
    """The values of some hyperparameters at a count; as they are when it is None."""
    everything = {**leaves_by_address(tx, ()), **leaves_by_address(tx, Schedule)}
    found = {name: everything[find(tx, name)] for name in names}
    return (
        found if count is None else {name: value_at(value, count) for name, value in found.items()}
    )
