"""`check_hosts`: whether all processes hold the same tree, with the same numbers in it."""

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from gradtx.definition.errors import StateError
from gradtx.definition.show import show_array
from gradtx.definition.types import PyTree
from gradtx.tree.paths import flatten, tree_paths

CURE = "restore the same checkpoint, by the same definition, on every process"


class Copies(NamedTuple):
    """An array, or a part of one, that several devices hold: those of this process."""

    path: str
    data: tuple[np.ndarray, ...]
    """Its copies on this process, none where other processes alone hold it."""

    def row(self) -> tuple[int, int]:
        """The number of different copies, 2 at most, and the checksum of the first one."""
        checksums = [zlib.crc32(np.ascontiguousarray(one).tobytes()) for one in self.data]
        return min(len(set(checksums)), 2), checksums[0] if checksums else 0

    def show(self) -> str:
        """The number of a scalar, or a checksum, of the first copy that differs."""
        count, checksum = self.row()
        if not count:
            return ""
        if count > 1:
            return "different numbers on its devices"
        return str(self.data[0]) if self.data[0].ndim == 0 else f"checksum {checksum:08x}"


def check_hosts(tree: PyTree) -> None:
    """Raise where JAX processes (hosts) disagree about a tree, for example about its step.

    JAX uses an array that lies on one device of each process as one array with equal numbers
    everywhere, and does not compare them. A process that restored another checkpoint then trains
    with another count, so with another learning rate, and nothing warns. This function compares
    the paths, the shapes, and every array, or part of one, that several processes hold.

    When: once, after each process made or restored its state, before the first step. Every process
    must call it. When not: in each step, because it reads the arrays. A part of an array that one
    device alone holds, as under FSDP, is not read. With one process, the function compares the
    copies on its devices.

    Args:
      tree: parameters, a state, or any tree of arrays and Python numbers.

    Raises:
      StateError: two processes, or two devices of one, hold different trees or numbers; the text
        names the first path, and the processes.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"w": jnp.ones(3)}
    >>> run = {"params": params, "state": gradtx.adamw(1e-3).init(params), "step": 0}
    >>> gradtx.check_hosts(run) is None
    True

    See also: `load`, `restore_state`.
    """
    leaves = dict(zip(tree_paths(tree), flatten(tree)[0], strict=True))
    arrays = {path: _array(leaf) for path, leaf in leaves.items() if leaf is not None}
    _compare_trees({path: show_array(array) for path, array in arrays.items()})
    _compare_numbers([one for path, array in arrays.items() for one in _copies(path, array)])


def _array(leaf: Any) -> Any:
    """A leaf as an array of numbers; a random key as its data."""
    if not isinstance(leaf, jax.Array):
        return np.asarray(leaf)
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _copies(path: str, array: Any) -> Iterator[Copies]:
    """The parts of an array that more than one device holds, in an order that all agree on."""
    if not isinstance(array, jax.Array):
        yield Copies(path, (array,))
        return
    devices: dict[str, int] = {}
    for index in array.sharding.devices_indices_map(array.shape).values():
        devices[str(index)] = devices.get(str(index), 0) + 1
    # Each process has its own array there: all of them are copies of one.
    is_local = array.is_fully_addressable and jax.process_count() > 1
    for place in sorted(devices):
        if is_local or devices[place] > 1:
            shards = [one for one in array.addressable_shards if str(one.index) == place]
            yield Copies(path, tuple(np.asarray(one.data) for one in shards))


def _compare_trees(described: dict[str, str]) -> None:
    text = "\n".join(f"{path}: {shown}" for path, shown in described.items())
    if len({*_gather(np.uint32(zlib.crc32(text.encode()))).tolist()}) == 1:
        return
    ours, theirs, number = _first_difference(_gather_texts(text))
    lines = (dict(line.rsplit(": ", 1) for line in one.splitlines()) for one in (ours, theirs))
    first, second = lines
    path = next(path for path in {**first, **second} if first.get(path) != second.get(path))
    raise StateError(
        f"check_hosts: the processes hold different trees: {path!r} is "
        f"{first.get(path, 'absent')} on process 0 and {second.get(path, 'absent')} on process "
        f"{number}: {CURE}"
    )


def _compare_numbers(copies: list[Copies]) -> None:
    rows = _gather(np.asarray([one.row() for one in copies], np.uint32).reshape(-1, 2))
    for position, one in enumerate(copies):
        counts, checksums = rows[:, position, 0], rows[:, position, 1]
        if (counts > 1).any():
            raise StateError(
                f"check_hosts: the devices of process {int(np.argmax(counts > 1))} hold different "
                f"numbers of {one.path!r}, which should be copies: {CURE}"
            )
        if len({*checksums[counts > 0].tolist()}) > 1:
            texts = {n: text for n, text in enumerate(_gather_texts(one.show())) if counts[n]}
            raise StateError(
                f"check_hosts: the processes disagree about {one.path!r}: {_list(texts)}: {CURE}"
            )


def _list(texts: dict[int, str]) -> str:
    """Each text, and the first process that has it."""
    first: dict[str, int] = {}
    for number, text in texts.items():
        first.setdefault(text, number)
    return ", ".join(f"{text} on process {number}" for text, number in first.items())


def _first_difference(texts: list[str]) -> tuple[str, str, int]:
    """The text of process 0, one that differs from it, and the number of its process."""
    number = next(number for number, text in enumerate(texts) if text != texts[0])
    return texts[0], texts[number], number


def _gather(array: Any) -> np.ndarray:
    """The arrays of all processes, along a new first axis."""
    if jax.process_count() == 1:
        return np.asarray(array)[None]
    return np.asarray(multihost_utils.process_allgather(array))


def _gather_texts(text: str) -> list[str]:
    data = np.frombuffer(text.encode(), np.uint8)
    size = int(_gather(np.uint32(data.size)).max())
    rows = _gather(np.pad(data, (0, size - data.size)))
    return [row.tobytes().rstrip(b"\0").decode() for row in rows]
