"""Run the trainings of a sweep: one vmapped program, in chunks that fit, on all devices."""

import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gradtx.definition.errors import GradtxError, StructureError
from gradtx.inspect.sweep_call import Call, train_one
from gradtx.inspect.sweep_groups import Group, Template
from gradtx.inspect.sweep_progress import Progress
from gradtx.tree.manual_axes import whole_arrays

Device = Any
"""A `jax.Device`, which has no type that checkers know."""
AXIS = "trainings"
"""The axis of the mesh that chunks are spread along."""
SHARE = 0.8
"""The part of the free memory that a chunk may take: the estimate knows no fragmentation."""


class Job(NamedTuple):
    """What all trainings share, and where they run."""

    call: Call
    keys: np.ndarray | None
    """The numbers of the random keys, one row for each seed."""
    arrays: list[Any]
    devices: tuple[Device, ...]
    """Chunks are spread over these; none: JAX places them."""


class Results:
    """The arrays of all trainings, in the memory of the host."""

    def __init__(self, total: int, check: Callable[[Any], object]):
        self.total = total
        self.check = check
        self.shapes: Any = None
        self.arrays: list[np.ndarray] = []

    def expect(self, shapes: Any) -> None:
        """Check the shapes that a program returns, with its leading axis of trainings."""
        leaves, treedef = jax.tree.flatten(shapes)
        facts = treedef, [(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        if self.shapes is None:
            self.shapes = facts
            self.check(
                jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*fact) for fact in facts[1]])
            )
            self.arrays = [np.empty((self.total, *shape), dtype) for shape, dtype in facts[1]]
        if facts != self.shapes:
            raise StructureError(
                "sweep: train returns other arrays where an option changes; return the same shapes "
                "and dtypes for every definition, or sweep that option in calls of its own"
            )

    def put(self, places: np.ndarray, output: Any) -> None:
        for array, part in zip(self.arrays, jax.tree.leaves(output), strict=True):
            array[places] = part[: len(places)]

    def tree(self, shape: Sequence[int]) -> Any:
        """The results with the axes of the sweep in front."""
        arrays = [array.reshape(*shape, *array.shape[1:]) for array in self.arrays]
        return jax.tree.unflatten(self.shapes[0], arrays)


def run_group(
    group: Group, job: Job, chunk: int | None, results: Results, progress: Progress
) -> None:
    """Run the trainings of one group in chunks; where memory ends, smaller chunks follow."""
    total, done, program = len(group.places), 0, None
    devices = job.devices[:total]
    step = max(len(devices), 1)
    size = _round_up(min(chunk or total, total), step)
    common = _place((group.shared, job.arrays), devices, PartitionSpec())
    while done < total:
        rows = np.arange(done, min(done + size, total), dtype=np.int32)
        batch = _place(_batch(group, job, rows, size), devices, PartitionSpec(AXIS))
        try:
            if program is None:
                program = _compile(group, job, devices, (batch, *common), results)
                smaller = size if chunk else _fit(program, size, step, devices)
                if smaller < size:
                    size, program = _balance(smaller, total, step), None
                    continue
            output = jax.device_get(program(batch, *common))
        except jax.errors.JaxRuntimeError as error:
            size, program = _half(size, step, error), None
            continue
        results.put(group.places[rows], output)
        progress.advance(len(rows))
        done += len(rows)


def _batch(group: Group, job: Job, rows: np.ndarray, size: int) -> Any:
    """The arguments of some trainings of a group; the last one is repeated up to `size`, so that
    every chunk has one program.
    """
    rows = np.pad(rows, (0, size - len(rows)), mode="edge")
    keys = None if job.keys is None else job.keys[group.places[rows] % len(job.keys)]
    return rows, [leaf[rows] for leaf in group.batched], keys


def _place(tree: Any, devices: Sequence[Device], spec: PartitionSpec) -> Any:
    return jax.device_put(tree, NamedSharding(_mesh(devices), spec)) if devices else tree


def _compile(
    group: Group, job: Job, devices: Sequence[Device], inputs: tuple[Any, ...], results: Results
) -> Any:
    """The program of a chunk; a later sweep over other numbers takes it from JAX's cache."""
    mesh = _mesh(devices) if len(devices) > 1 else None
    (rows, batched, keys), *common = inputs
    avals = [*map(_aval, batched, group.template.weak)]
    traced = _train_batch.trace((rows, avals, keys), *common, job.call, group.template, mesh)
    results.expect(traced.out_info)
    return traced.lower().compile()


def _aval(array: Any, is_weak: bool) -> jax.ShapeDtypeStruct:
    """The type of an array, for tracing; one of Python numbers leaves other dtypes unchanged."""
    sharding = getattr(array, "sharding", None)
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding, weak_type=is_weak)


def _mesh(devices: Sequence[Device]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,))


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _train_batch(
    batch: Any, shared: Any, arrays: Any, call: Call, template: Template, mesh: Mesh | None
) -> Any:
    """The trainings of a chunk; the leaves of `batch` have a first axis of trainings."""
    many = jax.vmap(functools.partial(_train_whole, call, template), in_axes=(0, None, None))
    if mesh is not None:
        # Not left to XLA's own partitioning: a training never waits for another device.
        spread, copied = PartitionSpec(AXIS), PartitionSpec()
        many = jax.shard_map(
            many,
            mesh=mesh,
            in_specs=(spread, copied, copied),
            out_specs=spread,
            check_vma=False,  # a scan in `train` may begin with constants
        )
    return many(batch, shared, arrays)


def _train_whole(call: Call, template: Template, *args: Any) -> Any:
    """One training; a device has all of its arrays, and the update does not ask for their cut."""
    with whole_arrays(()):
        return train_one(call, template, *args)


def _fit(program: Any, size: int, step: int, devices: Sequence[Device]) -> int:
    """The size of a chunk that fits into the free memory of a device; at least `step`."""
    free, needed = free_memory(devices[0] if devices else jax.devices()[0]), _needed(program)
    if free is None or needed is None or needed <= SHARE * free:
        return size
    return max(step, int(size * SHARE * free / needed) // step * step)


def _needed(program: Any) -> int | None:
    """The bytes that a compiled program adds on a device: temporary arrays and results."""
    memory = program.memory_analysis()
    if memory is None:
        return None
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def free_memory(device: Device) -> int | None:
    """The free bytes of a device, of a CPU all bytes of the machine; None where unknown."""
    stats = device.memory_stats()
    if stats is not None and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return pages // len(jax.local_devices(backend="cpu"))
    return None


def _half(size: int, step: int, error: Exception) -> int:
    """Half of a chunk for which the memory did not suffice; any other error is raised again."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    if size <= step:
        raise GradtxError(
            "sweep: one training alone does not fit into memory; use a smaller batch or model, "
            "jax.checkpoint, or return less than every step's parameters"
        ) from error
    return _round_up(size // 2, step)


def _balance(size: int, total: int, step: int) -> int:
    """Chunks of about one size: as many as with `size`, and no small one at the end."""
    chunks = math.ceil(total / size)
    return _round_up(math.ceil(total / chunks), step)


def _round_up(number: int, step: int) -> int:
    return math.ceil(number / step) * step
