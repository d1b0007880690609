"""The points of a sweep: lists of values by name, and the definition of each point."""

import dataclasses
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import jax
import numpy as np

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.definition import Definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import Schedule
from gradtx.definition.show import show
from gradtx.definition.spelling import suggest
from gradtx.training.hyperparams import (
    Address,
    find,
    leaves_by_address,
    replace,
    short_names,
)
from gradtx.tree.paths import key_text

Point = Mapping[str, Any]
"""Values by the names of hyperparameters and options."""

ARGUMENTS = ("points", "grid", "seeds", "keys", "chunk", "metric", "mode", "devices", "progress")
"""The arguments of `sweep` itself, one of which a wrong name may mean."""


@dataclasses.dataclass(frozen=True)
class Points:
    """The points of a sweep, in the order of their axes."""

    axes: dict[str, tuple[Any, ...]]
    """Names, each with its values: along an axis of its own, or along the axis `point`."""
    shape: tuple[int, ...]
    is_grid: bool

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(self.axes) if self.is_grid else ("point",)

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __iter__(self) -> Iterator[Point]:
        columns = self.axes.values()
        rows = product(*columns) if self.is_grid else zip(*columns, strict=True)
        return (dict(zip(self.axes, row, strict=True)) for row in rows)


def read_points(
    values: Mapping[str, Any], points: Mapping[str, Any] | Sequence[Point] | None, grid: bool
) -> Points:
    """Read the points from lists by name, or from a list of points; raise where they are wrong."""
    if isinstance(points, Mapping):
        values, points = {**points, **values}, None
    if points is not None and values:
        raise HyperparamError(
            f"sweep: both points= and lists by name, {', '.join(values)}: put every value into "
            "points, or write only lists"
        )
    if points is not None:
        return _listed(points)
    if not values:
        raise HyperparamError(
            "sweep: no hyperparameter varies; name one with its values, learning_rate=[1e-3, 1e-2]"
        )
    axes = {name: _axis(name, value) for name, value in values.items()}
    lengths = {name: len(axis) for name, axis in axes.items()}
    if grid:
        return Points(axes, tuple(lengths.values()), True)
    if len({*lengths.values()}) > 1:
        shown = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise HyperparamError(
            f"sweep: with grid=False the lists are columns of one table, and their lengths differ: "
            f"{shown} values; make them equal, or sweep the product with grid=True"
        )
    return Points(axes, (next(iter(lengths.values())),), False)


def _listed(points: Sequence[Point]) -> Points:
    if not all(isinstance(point, Mapping) for point in points):
        raise HyperparamError(
            "sweep: points is not a list of dicts; write points=[{'learning_rate': 1e-3}, ...]"
        )
    if not points or not points[0]:
        raise HyperparamError("sweep: points is empty; give one dict of values for each training")
    names = list(points[0])
    for number, point in enumerate(points):
        if {*point} != {*names}:
            name = next(iter({*point} ^ {*names}))
            has, lacks = (0, number) if name in names else (number, 0)
            raise HyperparamError(
                f"sweep: points[{lacks}] has no {name!r}, points[{has}] has one; name the same "
                "hyperparameters in every point"
            )
    return Points(
        {name: tuple(point[name] for point in points) for name in names}, (len(points),), False
    )


def _axis(name: str, value: Any) -> tuple[Any, ...]:
    """The values of one name, arrays as Python numbers."""
    if isinstance(value, np.ndarray | jax.Array) and np.ndim(value) == 1:
        value = [_number(one) for one in np.asarray(value)]
    if not isinstance(value, list | tuple | range):
        shape = f"an array of shape {np.shape(value)}" if np.ndim(value) > 1 else "not a list"
        raise HyperparamError(
            f"sweep: {name} = {show(value)} is {shape}; write a list of values, {name}=[...]; "
            f"one value for all trainings belongs to the definition, gradtx.replace(tx, {name}=...)"
        )
    if not value:
        raise HyperparamError(f"sweep: {name} is an empty list; give at least one value")
    return tuple(value)


def _number(value: np.generic) -> Any:
    """A Python number that prints as short as the NumPy number, and rounds to it."""
    return float(str(value)) if isinstance(value, np.floating) else value.item()


def definition_at(tx: GradientTransformation, point: Point) -> GradientTransformation:
    """The definition with the values of one point, every value checked like those of a call."""
    for name, value in point.items():
        address = _option(tx, name)
        tx = replace(tx, **{name: value}) if address is None else _set_option(tx, address, value)
    return tx


def check_names(tx: GradientTransformation, points: Points) -> None:
    """Raise where a name is unknown, or would replace a schedule by numbers."""
    for name, values in points.axes.items():
        if _option(tx, name) is not None:
            continue
        current = {**leaves_by_address(tx, ()), **leaves_by_address(tx, Schedule)}[find(tx, name)]
        if isinstance(current, Schedule) and not all(map(callable, values)):
            inside = ", ".join(
                repr(".".join((name, *address))) for address in leaves_by_address(current, ())
            )
            raise HyperparamError(
                f"sweep: {name} follows {show(current)}, and numbers would replace the schedule by "
                f"constants; name one of its numbers, {inside}, or give schedules"
            )


def _option(tx: Definition, name: str) -> Address | None:
    """The address of an option; None where a hyperparameter has that name."""
    numbers = {**leaves_by_address(tx, ()), **leaves_by_address(tx, Schedule)}
    if any(name in _endings(address) for address in numbers):
        return None
    addresses = [address for address, _ in _options(tx)]
    matches = [address for address in addresses if name in _endings(address)]
    matches = [one for one in matches if ".".join(one) == name] or matches
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = " or ".join(".".join(address) for address in matches)
        raise HyperparamError(f"sweep: {name!r} is ambiguous: it may be {several}")
    raise _unknown(tx, name, [*numbers, *addresses])


def _unknown(tx: Definition, name: str, addresses: Sequence[Address]) -> HyperparamError:
    names = {ending for address in addresses for ending in _endings(address)} | {*ARGUMENTS}
    hint, shown = suggest(name, sorted(names)), short_names(leaves_by_address(tx, Schedule))
    return HyperparamError(
        f"sweep: {tx.factory.__name__} has no hyperparameter or option {name!r}"
        f"{hint + ' Its' if hint else '; its'} hyperparameters are {', '.join(shown)}"
    )


def _endings(address: Address) -> set[str]:
    return {".".join(address[start:]) for start in range(len(address))}


def _options(tx: Definition, address: Address = ()) -> Iterator[tuple[Address, Any]]:
    """The arguments that are not numbers of the pytree: static ones, and numbers that are None."""
    dynamic = tx.factory.dynamic
    for name, value in tx.arguments.items():
        if name not in dynamic or value is None:
            yield (*address, name), value
    for path, member in _members(tx):
        yield from _options(member, (*address, *path))


def _members(tx: Definition) -> list[tuple[Address, Definition]]:
    """The definitions among the arguments of a definition, with the way to each."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        tx, is_leaf=lambda node: node is not tx and isinstance(node, Definition)
    )
    return [
        (tuple(map(key_text, path)), node) for path, node in leaves if isinstance(node, Definition)
    ]


def _set_option(tx: Any, address: Address, value: Any) -> Any:
    """The definition with one option replaced, checked like that of a call."""
    if len(address) == 1:
        return tx.factory.make({**tx.arguments, address[0]: value})
    members = [
        _set_option(member, address[len(path) :], value) if address[: len(path)] == path else member
        for path, member in _members(tx)
    ]
    nodes, treedef = jax.tree.flatten(
        tx, is_leaf=lambda node: node is not tx and isinstance(node, Definition)
    )
    rest = iter(members)
    return jax.tree.unflatten(
        treedef, [next(rest) if isinstance(node, Definition) else node for node in nodes]
    )


def seed_axis(seeds: Any, keys: Any) -> tuple[tuple[int, ...], Any]:
    """The seeds as an axis, and a stack of their random keys; `()` and None without seeds."""
    if seeds is not None and keys is not None:
        raise HyperparamError("sweep: both seeds and keys; give one of them")
    if keys is not None:
        return _check_keys(keys)
    if seeds is None:
        return (), None
    try:
        numbers = tuple(seeds) if isinstance(seeds, list | tuple | range) else range(seeds)
        numbers = tuple(map(operator.index, numbers))
    except TypeError:
        numbers = ()
    if not numbers or isinstance(seeds, bool):
        raise HyperparamError(
            f"sweep: seeds = {show(seeds)} is not a number of seeds; write seeds=3 for the keys of "
            "0, 1 and 2, a list of seeds, or keys=jax.random.split(key, 3)"
        )
    return numbers, jax.numpy.stack([jax.random.key(number) for number in numbers])


def _check_keys(keys: Any) -> tuple[tuple[int, ...], Any]:
    shape, is_array = np.shape(keys), isinstance(keys, jax.Array)
    is_typed = is_array and jax.numpy.issubdtype(keys.dtype, jax.dtypes.prng_key)
    is_raw = is_array and keys.dtype == np.uint32
    if not (is_typed and len(shape) == 1) and not (is_raw and len(shape) == 2):
        raise HyperparamError(
            f"sweep: keys = {show(keys)} is not a list of keys; write keys=jax.random.split(key, 3)"
        )
    return tuple(range(shape[0])), keys
