"""The devices that a collective of a compiled program joins, in each of XLA's spellings."""

import re

import numpy as np

LISTS = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})\}")
IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")


def replica_groups(line: str) -> list[list[int]]:
    """The groups of devices of one collective; an error where its spelling is unknown."""
    if (lists := LISTS.search(line)) is not None:
        return [list(map(int, one.split(","))) for one in re.findall(r"\{([\d,]+)\}", lists[1])]
    if (iota := IOTA.search(line)) is not None:
        shape, axes = (tuple(map(int, iota[place].split(","))) for place in (1, 2))
        order = tuple(map(int, iota[3].split(","))) if iota[3] else tuple(range(len(axes)))
        return np.arange(np.prod(axes)).reshape(axes).transpose(order).reshape(shape).tolist()
    if (mesh := MESH.search(line)) is not None:
        axes = [one.split("=") for one in mesh[1].split(",")]
        sizes, names = [int(size) for _, size in axes], [name for name, _ in axes]
        joined = [names.index(one.strip()) for one in mesh[2].split(",")]
        devices = np.arange(np.prod(sizes)).reshape(sizes)
        size = int(np.prod([sizes[axis] for axis in joined]))
        others = [axis for axis in range(len(sizes)) if axis not in joined]
        return devices.transpose(*others, *joined).reshape(-1, size).tolist()
    raise AssertionError(f"no replica groups are known in {line}")


def collectives_across(text: str, boundary: int) -> str:
    """The lines of collectives that join devices below a number with others."""
    return "\n".join(
        line
        for line in text.splitlines()
        if "replica_groups=" in line
        and any(min(group) < boundary <= max(group) for group in replica_groups(line))
    )
