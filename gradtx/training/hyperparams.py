"""Hyperparameters by name: read them, replace them, keep them in the state."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import (
    GradientTransformation,
    as_transformation,
    definition,
    members_inside,
)
from gradtx.compose.treewise import treewise
from gradtx.definition.definition import Definition, map_items
from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import Schedule, value_at
from gradtx.definition.types import Array, State
from gradtx.engine.program import BoundRule
from gradtx.engine.rules import Child, TreeRule
from gradtx.engine.slots import slots_at
from gradtx.training.eval_params import evaluate_slots, reads_out
from gradtx.tree.maps import choose
from gradtx.tree.paths import key_text

P = ParamSpec("P")
Address = tuple[str, ...]


def hyperparams(tx: GradientTransformation, at: int | Array | State = 0) -> dict[str, Any]:
    """The hyperparameters of a definition, by name, at one moment.

    Names are as short as is unambiguous: `learning_rate`, else `adamw.learning_rate`.

    Args:
      tx: the definition.
      at: a count of updates made so far, or a state; schedules are evaluated there, and what the
        state itself keeps (`tunable`) is read from it.

    >>> import gradtx
    >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10)))
    >>> {name: float(value) for name, value in hyperparams(tx, at=5).items()}
    {'max_norm': 1.0, 'learning_rate': 0.5}
    """
    if isinstance(at, State):
        values = _values_in_state(tx, at)
    else:
        values = {address: value_at(value, at) for address, value in _values(tx, Schedule).items()}
    return {name: values[address] for name, address in short_names(values).items()}


def _values_in_state(tx: GradientTransformation, state: State) -> dict[Address, Any]:
    """Every hyperparameter at its own member's count, by address."""
    places = _members_in_state(tx, state.slots, state.count)
    values = _values(_with_kept(tx, places), Schedule)
    return {
        address: value_at(value, _count_at(address, places, state.count))
        for address, value in values.items()
    }


def moving_values(tx: GradientTransformation, state: State) -> dict[Address, Any]:
    """The hyperparameters that follow a schedule, and those that the state keeps, by address."""
    kept = {
        address
        for place in _members_in_state(tx, state.slots, state.count)
        for address in place.kept
    }
    scheduled = {
        address for address, value in _values(tx, Schedule).items() if isinstance(value, Schedule)
    }
    return {
        address: value
        for address, value in _values_in_state(tx, state).items()
        if address in kept | scheduled
    }


class Place(NamedTuple):
    """A part of a definition with a clock of its own, and the values that a state keeps in place of
    its own.
    """

    address: Address
    count: Any
    kept: Mapping[Address, Any]


def _members_in_state(tx: GradientTransformation, slots: Any, count: Any) -> list[Place]:
    """The members of wrappers, each behind the one that it is inside of."""
    places: list[Place] = []
    _find_places(list(_parts(tx)), tx, slots, count, places)
    return places


def _find_places(
    parts: Sequence["Branch"],
    program: GradientTransformation,
    slots: Any,
    count: Any,
    places: list[Place],
) -> None:
    for item in (item.as_built for item in program.items):
        for children in members_inside(item, slots, count):
            wrapper, where = _place(
                parts, item, children.member, [place.address for place in places]
            )
            if isinstance(item.rule, TreeRule) and item.rule.own_clock and wrapper is not None:
                places.append(Place(wrapper, children.count, {}))
            within = parts
            if where is not None:
                places.append(Place(where, children.count, _kept(item, slots, where)))
                within = [part for part in parts if part.address[: len(where)] == where]
            _find_places(within, children.member, children.slots, children.count, places)


class Branch(NamedTuple):
    """A transformation within a definition: its address, and the members that it was called with by
    their addresses.
    """

    address: Address
    member: GradientTransformation
    below: Mapping[Address, Any]


def _parts(tx: GradientTransformation, address: Address = ()) -> Iterator[Branch]:
    """All transformations of which a definition is made, the definition itself first."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        tx, is_leaf=lambda node: node is not tx and isinstance(node, GradientTransformation)
    )
    below = {
        (*address, *map(key_text, path)): one
        for path, one in found
        if isinstance(one, GradientTransformation)
    }
    yield Branch(address, tx, below)
    for where, one in below.items():
        yield from _parts(one, where)


def _place(
    parts: Sequence[Branch], item: BoundRule, member: Any, taken: Sequence[Address]
) -> tuple[Address | None, Address | None]:
    """The addresses of a wrapper and of its member; None where a builder made the member, so that
    it is no part of the definition's data.

    The same transformation may be a member in several places: the wrapper is the smallest part that
    has the rule, the first of such."""
    having = [
        part for part in parts if any(one.as_built.rule is item.rule for one in part.member.items)
    ]
    for part in sorted(having, key=lambda part: len(part.member.items)):
        for where, one in part.below.items():
            if one is member and where not in taken:
                return part.address, where
    return None, None


def _kept(item: BoundRule, slots: Any, where: Address) -> dict[Address, Any]:
    """What `tunable` keeps, by address in the whole definition."""
    if not (isinstance(item.rule, TreeRule) and item.rule.update is _update_tunable):
        return {}
    inner, names = item.rule.options["inner"], item.rule.options["names"]
    values = slots_at(slots, item.path)["hyperparams"]
    return {where + find(inner, name): values[name] for name in names}


def _with_kept(tx: GradientTransformation, places: Sequence[Place]) -> GradientTransformation:
    """The definition with the values that a state keeps; what is scheduled stays scheduled."""
    for address, value in (
        (address, value) for place in places for address, value in place.kept.items()
    ):
        if not isinstance(_values(tx, Schedule).get(address), Schedule):
            tx = _set(tx, address, value)
    return tx


def _count_at(address: Address, places: Sequence[Place], count: Any) -> Any:
    """The count of the innermost member that an address lies in."""
    return next(
        (
            place.count
            for place in reversed(places)
            if address[: len(place.address)] == place.address
        ),
        count,
    )


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
    >>> jax.vmap(first_step, in_axes=(gradtx.vmap_axes(tx, "learning_rate"), None))(tx, jnp.array(10.0)).tolist()
    [-1.0, -2.0]
    """
    batched = {find(tx, name) for name in names}
    axes = [
        0 if any(address[: len(one)] == one for one in batched) else None
        for address in _values(tx, ())
    ]
    return jax.tree.unflatten(jax.tree.structure(tx), axes)


def find(tx: Definition, name: str) -> Address:
    """Where a hyperparameter is, or a parameter of a schedule; an error lists the names if there is
    none.
    """
    wanted, names = tuple(name.split(".")), short_names(_values(tx, Schedule))
    where = f"{tx.factory.__name__} has the hyperparameters {', '.join(names)}"
    for addresses in (_values(tx, Schedule), _values(tx, ())):
        if wanted in addresses:
            return wanted
        matches = [address for address in addresses if address[-len(wanted) :] == wanted]
        if len(matches) > 1:
            several = " or ".join(".".join(address) for address in matches)
            raise HyperparamError(f"{name!r} is ambiguous: it may be {several}; {where}")
        if matches:
            return matches[0]
    raise HyperparamError(f"{name!r} is no hyperparameter; {where}")


def _values(tx: Definition, stop: Any) -> dict[Address, Any]:
    """Every leaf of a definition by its address; nodes of the type `stop` count as leaves."""
    found, _ = jax.tree_util.tree_flatten_with_path(tx, is_leaf=lambda node: isinstance(node, stop))
    return {tuple(map(key_text, path)): value for path, value in found}


def short_names(addresses: Mapping[Address, Any]) -> dict[str, Address]:
    """For every address its shortest ending that no other address shares."""
    return {_shortest(address, addresses): address for address in addresses}


def _shortest(address: Address, addresses: Mapping[Address, Any]) -> str:
    endings = (address[-length:] for length in range(1, len(address) + 1))
    unique = (
        ending
        for ending in endings
        if sum(other[-len(ending) :] == ending for other in addresses) == 1
    )
    return ".".join(next(unique, address))


def _set(tx: Definition, address: Address, value: Any) -> Any:
    """The definition with the value at one address replaced, checked like a new call."""
    stop = Schedule if address in _values(tx, Schedule) else ()
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
    args, kwargs = value.factory.arguments(arguments)
    return value.factory(*args, **kwargs)


def _init_tunable(
    params: Any, *, inner: GradientTransformation, names: tuple[str, ...]
) -> dict[str, Any]:
    kept = {name: _as_state(value) for name, value in hyperparams_named(inner, names, 0).items()}
    slots = inner.init_slots(params)
    return {**slots, "hyperparams": {**slots.get("hyperparams", {}), **kept}}


def _update_tunable(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    inner: GradientTransformation,
    names: tuple[str, ...],
    extra: Any,
    gate: Any,
) -> Any:
    kept = {name: _as_state(value) for name, value in slots["hyperparams"].items()}
    missing = sorted(set(names) - set(kept))
    if missing:
        raise HyperparamError(
            f"the state keeps the hyperparameters {', '.join(sorted(kept))}, and lacks {', '.join(missing)}"
        )
    mine, children = {name: kept[name] for name in names}, _without(slots, names)
    mine |= {
        name: _as_state(value)
        for name, value in _scheduled(inner, names, children, step - 1).items()
    }
    updates, children = replace(inner, **mine).update_slots(
        updates, children, params, step, extra, gate
    )
    mine = choose(gate, mine, {name: kept[name] for name in names})
    return updates, {**children, "hyperparams": {**children.get("hyperparams", {}), **mine}}


def _scheduled(
    inner: GradientTransformation, names: Sequence[str], slots: Any, count: Any
) -> dict[str, Any]:
    """The values of those hyperparameters that are schedules, each at the count of the member that
    it belongs to.
    """
    schedules = {
        name: value
        for name, value in hyperparams_named(inner, names, None).items()
        if isinstance(value, Schedule)
    }
    places = _members_in_state(inner, slots, count) if schedules else []
    return {
        name: value(_count_at(find(inner, name), places, count))
        for name, value in schedules.items()
    }


def _inside_tunable(
    slots: Any, count: Any, *, inner: GradientTransformation, names: tuple[str, ...]
) -> list[Child]:
    return [Child(inner, _without(slots, names), count)]


def _evaluate_tunable(
    params: Any, slots: Any, count: Any, *, inner: GradientTransformation, names: tuple[str, ...]
) -> Any:
    numbers = {
        name
        for name, value in hyperparams_named(inner, names, None).items()
        if not isinstance(value, Schedule)
    }
    mine = {name: slots["hyperparams"][name] for name in numbers}
    return evaluate_slots(replace(inner, **mine), _without(slots, names), params, count)


def _without(slots: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The slots of the inner transformation: all but what is kept under these names."""
    others = {name: value for name, value in slots["hyperparams"].items() if name not in names}
    return {name: slot for name, slot in slots.items() if name != "hyperparams"} | (
        {"hyperparams": others} if others else {}
    )


def hyperparams_named(
    tx: GradientTransformation, names: Sequence[str], count: Any
) -> dict[str, Any]:
    """The values of some hyperparameters at a count; as they are when it is None."""
    everything = {**_values(tx, ()), **_values(tx, Schedule)}
    found = {name: everything[find(tx, name)] for name in names}
    return (
        found if count is None else {name: value_at(value, count) for name, value in found.items()}
    )


def _as_state(value: Any) -> Array:
    """A value that may live in a state: a strongly typed array, float32 (float64 in x64 mode)
    unless typed before.
    """
    if (
        isinstance(value, jax.Array | np.ndarray)
        and not jnp.issubdtype(value.dtype, jnp.inexact)
        and value.dtype != bool
    ):
        return jnp.asarray(value)  # a random key, or integers that were given as an array
    array = jnp.asarray(value)
    return jnp.array(
        array, dtype=jnp.result_type(float) if array.weak_type else array.dtype, copy=True
    )


@definition
def tunable(inner: GradientTransformation, *names: str) -> GradientTransformation:
    """`inner` with chosen hyperparameters kept in the state.

    When: a framework freezes the definition, or numbers are to be saved with the state. When not:
    you may pass the definition to `jit` as an argument; take `replace`.

    `state.hyperparams["learning_rate"]` is then read at every update and may be changed between
    updates, inside jit as well. Its dtype is float32 (an array keeps its own), whatever the dtype
    of the parameters. A hyperparameter that is a schedule goes on following it; the state shows its
    value at the last update.

    Args:
      inner: the transformation.
      *names: names as `hyperparams` gives them; none at all: every hyperparameter.

    Raises:
      HyperparamError: a name that is unknown or ambiguous.

    State: 4 bytes per name, and that of `inner`.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([1.0])
    >>> tx = tunable(gradtx.sgd(0.1), "learning_rate")
    >>> state = tx.init(w)
    >>> state.hyperparams["learning_rate"] = jnp.array(0.5)
    >>> tx.update(w, state)[0].tolist()
    [-0.5]
    """
    chosen = names or tuple(short_names(_values(inner, Schedule)))
    for name in chosen:
        find(inner, name)
    _members, _options = {"inner": inner}, {"names": chosen}
    evaluate = _evaluate_tunable if reads_out(inner) else None
    functions = {"children": _inside_tunable, "evaluate": evaluate, "own_clock": inner.own_clock}
    return treewise(_init_tunable, _update_tunable, inner=inner, names=chosen, **functions)


def inject_hyperparams(
    inner_factory: Callable[P, GradientTransformation],
    static_args: str | Sequence[str] = (),
    hyperparam_dtype: Any = None,
) -> Callable[P, GradientTransformation]:
    """Optax's spelling of `tunable`: `inject_hyperparams(adam)(learning_rate=0.1)`.

    Args:
      inner_factory: makes the transformation; all its numeric hyperparameters go into the state.
      static_args: names that stay in the definition.
      hyperparam_dtype: dtype of the values in the state; None: float32.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = inject_hyperparams(gradtx.sgd)(0.1)
    >>> tx
    tunable(inner=sgd(learning_rate=0.1), 'learning_rate')
    """

    def make(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
        inner = as_transformation(inner_factory(*args, **kwargs))
        static = {static_args} if isinstance(static_args, str) else set(static_args)
        for name in static:
            find(inner, name)
        values = hyperparams_named(
            inner,
            [name for name in short_names(_values(inner, Schedule)) if name not in static],
            None,
        )
        if hyperparam_dtype is not None:
            typed = {
                name: jnp.asarray(value, hyperparam_dtype)
                for name, value in values.items()
                if not isinstance(value, Schedule)
            }
            inner = replace(inner, **typed)
        return tunable(inner, *values) if values else inner

    return make
