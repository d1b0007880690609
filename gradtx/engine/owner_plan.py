"""Which device owns which matrix: axes to spread over, and places, from how the leaves are cut.

All of it is static: names of axes, sizes and counts. `owner_moves` moves the arrays.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from gradtx.engine.matrix_layout import Layout
from gradtx.engine.owner_moves import Axes, Span
from gradtx.tree.placement import axes_of


class Frame(NamedTuple):
    """The axes of a mesh that cut each dimension of a leaf: of its batch, and of its matrices."""

    batch: tuple[Axes, ...]
    sides: tuple[Axes, ...]
    """The dimensions of inputs, then those of outputs."""

    @property
    def is_cut(self) -> bool:
        return any(self.batch) or any(self.sides)

    @property
    def spec(self) -> PartitionSpec:
        """The cut of an array whose batch is in front."""
        return PartitionSpec(*(axes or None for axes in (*self.batch, *self.sides)))


class MeshSizes(NamedTuple):
    """The axes of a mesh by name, and how many devices each counts; no device."""

    names: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(self.names, self.counts, strict=True))

    def abstract(self, kind: AxisType = AxisType.Auto) -> AbstractMesh:
        """The mesh for a program whose arguments say the devices."""
        return AbstractMesh(self.counts, self.names, axis_types=(kind,) * len(self.names))


class OwnerPlan(NamedTuple):
    """How the matrices of some leaves go to their owners and back."""

    mesh: MeshSizes
    spread: Axes
    """The axes whose devices share the matrices."""
    span: Span
    leaves_idle: bool
    """Whether some devices own no matrix of these leaves."""


class Group(NamedTuple):
    """Matrices of one shape and one cut: how many one device's part of the batch has."""

    frame: Frame
    matrices: int
    cost: int


def mesh_sizes(mesh: Any) -> MeshSizes:
    return MeshSizes(tuple(mesh.axis_names), tuple(mesh.shape[name] for name in mesh.axis_names))


def axes_of_spec(sharding: NamedSharding, ndim: int) -> list[Axes]:
    """The axes that cut each dimension of an array."""
    spec = (*sharding.spec, *(None,) * ndim)[:ndim]
    return [axes_of(one) for one in spec]


def frame_of(layout: Layout, cuts: Sequence[Axes], sizes: Mapping[str, int]) -> Frame:
    """The frame of a leaf whose dimensions are cut over these axes."""
    split: list[Axes] = []
    place = 0
    for size, axes in zip(layout.whole, cuts, strict=True):
        # One axis of the array may count as several: three matrices side by side.
        parts, product = 0, 1
        while place + parts < len(layout.cut) and (product < size or parts == 0):
            product *= layout.cut[place + parts]
            parts += 1
        devices = math.prod(sizes[axis] for axis in axes)
        fits = layout.cut[place + parts - 1] % devices == 0
        split += [*[()] * (parts - 1), axes if fits else ()]
        place += parts
    if len(split) < len(layout.cut):  # a vector is a matrix of one row
        split = [*[()] * (len(layout.cut) - len(split)), *split]
    ordered = [split[axis] for axis in layout.order]
    count = len(layout.batch)
    return Frame(tuple(ordered[:count]), tuple(ordered[count:]))


def slot_frame(frame: Frame, count: int, cuts: Sequence[Axes]) -> Frame:
    """The frame of a slot that has `count` batch axes, and sides of its own behind them.

    Its moves are those of the matrices: it may be cut over the axes of one of their sides alone.
    """
    return Frame(frame.batch, tuple(axes if axes in frame.sides else () for axes in cuts[count:]))


def spread_axes(frame: Frame, names: Sequence[str], sizes: Mapping[str, int], count: int) -> Axes:
    """The axes over which matrices are spread: no more devices than there are matrices.

    Of the choices that leave each device the fewest matrices, the one of the fewest devices. An
    axis that cuts the batch has its own matrices.
    """
    batch = {axis for axes in frame.batch for axis in axes}
    usable = [name for name in names if name not in batch]
    choices = [
        axes for number in range(len(usable) + 1) for axes in itertools.combinations(usable, number)
    ]
    return min(choices, key=lambda axes: _load(axes, sizes, count))


def _load(axes: Axes, sizes: Mapping[str, int], count: int) -> tuple[int, int]:
    devices = math.prod(sizes[axis] for axis in axes)
    return -(-count // devices), devices


def plan_groups(
    groups: Sequence[Group], mesh: MeshSizes, names: Sequence[str] | None
) -> list[OwnerPlan]:
    """The plan of every group. Costly matrices choose first; others take devices left idle."""
    plans: dict[int, OwnerPlan] = {}
    loads: dict[Axes, list[int]] = {}
    spreads = [_group_axes(groups, one, mesh, names) for one in groups]
    for n in sorted(range(len(groups)), key=lambda n: -groups[n].cost):
        group, axes = groups[n], spreads[n]
        devices = math.prod(mesh.sizes[axis] for axis in axes)
        load = loads.setdefault(axes, [0] * devices)
        each = -(-group.matrices // devices)
        busy = -(-group.matrices // each) if each else 0
        first = min(range(devices - busy + 1), key=lambda s: max(load[s : s + busy], default=0))
        for device in range(first, first + busy):
            load[device] += each * group.cost
        start = min(first * each, each * devices - group.matrices)
        plans[n] = OwnerPlan(
            mesh,
            axes,
            Span(start, group.matrices, each),
            busy < devices,
        )
    return [plans[n] for n in range(len(groups))]


def _group_axes(
    groups: Sequence[Group], group: Group, mesh: MeshSizes, names: Sequence[str] | None
) -> Axes:
    """The axes for one group, chosen for all that are cut over the same axes."""
    usable = _usable(group.frame, names, mesh)
    peers = [one for one in groups if _usable(one.frame, names, mesh) == usable]
    return spread_axes(group.frame, usable, mesh.sizes, sum(one.matrices for one in peers))


def _usable(frame: Frame, names: Sequence[str] | None, mesh: MeshSizes) -> Axes:
    cut = {axis for axes in frame.sides for axis in axes}
    batch = {axis for axes in frame.batch for axis in axes}
    wanted = cut if names is None else cut | set(names)
    return tuple(name for name in mesh.names if name in wanted - batch)
