"""`summary`: the memory of an optimizer state, as a table of its slots."""

from collections.abc import Iterable
from typing import IO, Any, NamedTuple

import jax

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.show import show_array, show_table
from gradtx.definition.types import Params, State
from gradtx.inspect.patterns import common_pattern, stars
from gradtx.tree.casts import is_inexact
from gradtx.tree.options import eval_shape
from gradtx.tree.paths import path_text, tree_paths

Path = tuple[str, ...]

HEADER = ("member", "slot", "path", "array", "bytes", "per param")
TEXT_COLUMNS = 4
"""The number of text columns, aligned left; the others are numbers, aligned right."""


class Row(NamedTuple):
    """One line of the table: similar arrays of one slot."""

    member: str
    """The member of these slots, `adamw/scale_by_adam`; empty for the step count."""
    slot: str
    """The name of the slot: `mu`, `nu`, ..."""
    path: str
    """The parameters, `layers/*/kernel`; empty for slots without a parameter."""
    array: str
    """Shape and dtype of each, `f32[768,3072]`."""
    arrays: int
    """The number of arrays."""
    bytes: int
    """The bytes of all of them."""


class Summary(NamedTuple):
    """The memory of an optimizer state; `print` it for the table."""

    rows: tuple[Row, ...]
    bytes: int
    """Of the whole state, step count included; a sharded state counts on all devices together."""
    parameters: int
    """The number of float and complex parameters."""

    @property
    def bytes_per_parameter(self) -> float:
        return _ratio(self.bytes, self.parameters)

    def __repr__(self) -> str:
        sizes = f"{self.bytes:,} bytes, {self.parameters:,} parameters"
        return f"Summary({sizes}, {self.bytes_per_parameter:.2f} bytes per parameter)"

    def __str__(self) -> str:
        total = ("total", "", "", "", f"{self.bytes:,}", f"{self.bytes_per_parameter:.2f}")
        if all((row.member, row.slot, row.path) == ("", "count", "") for row in self.rows):
            slots = "only its step count" if self.rows else "nothing at all"
            sizes = f"{self.bytes:,} bytes for {self.parameters:,} parameters"
            return f"stateless: it keeps {slots}, {sizes}"
        rows = [_cells(row, self.parameters) for row in self.rows]
        return show_table([HEADER, *rows, total], TEXT_COLUMNS)


def summary(tx: Any, params: Params, *, file: IO[str] | None = None) -> Summary:
    """Print a table of the optimizer state: every slot, and its memory in bytes.

    There is one line per slot and kind of array. Arrays of one shape whose paths differ in numbers
    only, `layers/0/kernel` and `layers/1/kernel`, share a line, `layers/*/kernel`. The last column
    is bytes over the number of all parameters, so that it adds up. `summary` computes shapes only,
    and allocates nothing.

    Args:
      tx: the optimizer; also an Optax transformation, whose state appears by its paths.
      params: the parameters, or `jax.ShapeDtypeStruct`s of their shapes.
      file: where to print; None: standard output.

    Returns:
      A record of the same: `rows`, `bytes`, `parameters`, `bytes_per_parameter`.

    Raises:
      GradtxError: `tx` has no `init` and `update`.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"layers": [{"bias": jnp.zeros(2), "kernel": jnp.zeros((2, 2))} for _ in range(3)]}
    >>> table = gradtx.summary(gradtx.adam(1e-3, mu_dtype="bfloat16"), params)
    member         slot   path             array          bytes  per param
    scale_by_adam  mu     layers/*/bias    bf16[2] × 3       12       0.67
    scale_by_adam  mu     layers/*/kernel  bf16[2,2] × 3     24       1.33
    scale_by_adam  nu     layers/*/bias    f32[2] × 3        24       1.33
    scale_by_adam  nu     layers/*/kernel  f32[2,2] × 3      48       2.67
                   count                   i32[]              4       0.22
    total                                                   112       6.22
    >>> table
    Summary(112 bytes, 18 parameters, 6.22 bytes per parameter)
    """
    if not isinstance(tx, GradientTransformation):
        tx = GradientTransformation.coerce(tx, "summary: tx")
    state = eval_shape(tx.init, params)
    leaves = [leaf for leaf in jax.tree.leaves(params) if is_inexact(leaf)]
    known = {tuple(path.split("/")) for path in tree_paths(params)}
    # The step count comes last.
    rows = tuple(sorted(_rows(state, known), key=lambda row: row.member == ""))
    parameters = sum(getattr(leaf, "size", 1) for leaf in leaves)
    table = Summary(rows, sum(row.bytes for row in rows), parameters)
    print(table, file=file)
    return table


def _rows(state: Any, known: set[Path]) -> Iterable[Row]:
    """The arrays of a state, similar ones in one row, in the order of their first array."""
    groups: dict[tuple[str, ...], list[tuple[str, Any]]] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        path = tuple(path_text(keys).split("/"))
        path = path[1:] if isinstance(state, State) and path[0] == "slots" else path
        member, slot, rest = split_path(path, known)
        groups.setdefault((member, slot, stars(rest), show_array(leaf)), []).append((rest, leaf))
    for (member, slot, _, array), group in groups.items():
        path = common_pattern([rest for rest, _ in group])
        size = sum(leaf.size * leaf.dtype.itemsize for _, leaf in group)
        yield Row(member, slot, path, array, len(group), size)


def split_path(path: Path, known: set[Path]) -> tuple[str, str, str]:
    """Split a path of a state into member, slot and parameter.

    The parameter is the longest parameter path in it; among equally long ones, the last.
    """
    ends = range(2, len(path) + 1)
    spans = [
        (end - start, start) for end in ends for start in range(1, end) if path[start:end] in known
    ]
    start = max(spans)[1] if spans else len(path)
    return "/".join(path[: start - 1]), path[start - 1], "/".join(path[start:])


def _ratio(size: int, parameters: int) -> float:
    return size / parameters if parameters else 0.0


def _cells(row: Row, parameters: int) -> tuple[str, ...]:
    array = f"{row.array} × {row.arrays:,}" if row.arrays > 1 else row.array
    return (
        row.member,
        row.slot,
        row.path,
        array,
        f"{row.bytes:,}",
        f"{_ratio(row.bytes, parameters):.2f}",
    )
