"""`summary`: the table of what an optimizer keeps, and what it costs in memory."""

import re
from collections.abc import Iterable, Sequence
from typing import IO, Any, NamedTuple

import jax

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.show import show_array, show_table
from gradtx.definition.types import State
from gradtx.tree.casts import is_inexact
from gradtx.tree.paths import path_text, tree_paths

Path = tuple[str, ...]

HEADER = ("member", "slot", "path", "array", "bytes", "per param")
TEXT_COLUMNS = 4
"""How many columns of the table are text, aligned left; the others are numbers, aligned right."""


class Row(NamedTuple):
    """One line of the table: arrays of one slot that are alike."""

    member: str
    """Who keeps them, `adamw/scale_by_adam`; empty for the step count."""
    slot: str
    """As what: `mu`, `nu`, ..."""
    path: str
    """For which parameters, `layers/*/kernel`; empty for what belongs to no parameter."""
    array: str
    """Shape and dtype of each, `f32[768,3072]`."""
    arrays: int
    """How many there are."""
    bytes: int
    """The bytes of all of them."""


class Summary(NamedTuple):
    """What an optimizer keeps; `print` it for the table."""

    rows: tuple[Row, ...]
    bytes: int
    """The whole state, step count included; of all devices together where it is sharded."""
    parameters: int
    """The float and complex numbers among the parameters."""

    @property
    def bytes_per_parameter(self) -> float:
        return _ratio(self.bytes, self.parameters)

    def __repr__(self) -> str:
        return f"Summary({self.bytes:,} bytes, {self.parameters:,} parameters, {self.bytes_per_parameter:.2f} bytes per parameter)"

    def __str__(self) -> str:
        total = ("total", "", "", "", f"{self.bytes:,}", f"{self.bytes_per_parameter:.2f}")
        if all((row.member, row.slot, row.path) == ("", "count", "") for row in self.rows):
            what = "only its step count" if self.rows else "nothing at all"
            return f"stateless: it keeps {what}, {self.bytes:,} bytes for {self.parameters:,} parameters"
        return show_table(
            [HEADER, *(_cells(row, self.parameters) for row in self.rows), total], TEXT_COLUMNS
        )


def summary(tx: Any, params: Any, *, file: IO[str] | None = None) -> Summary:
    """Print what an optimizer keeps for given parameters, and what that costs in memory.

    One line per slot and kind of array; arrays of one shape whose paths differ in numbers only, as
    in `layers/0/kernel` and `layers/1/kernel`, share a line, `layers/*/kernel`. The last column is
    bytes over the number of all parameters, so that it adds up. Nothing is allocated: only shapes
    are worked out.

    Args:
      tx: the optimizer; an Optax transformation too, whose own state is then shown by its paths.
      params: the parameters, or `jax.ShapeDtypeStruct`s of their shapes.
      file: where to print; None: standard output.

    Returns:
      The same as a record: `rows`, `bytes`, `parameters`, `bytes_per_parameter`.

    Raises:
      GradtxError: `tx` has no `init` and `update`.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"layers": [{"bias": jnp.zeros(2), "kernel": jnp.zeros((2, 2))} for _ in range(3)]}
    >>> found = gradtx.summary(gradtx.adam(1e-3, mu_dtype="bfloat16"), params)
    member         slot   path             array          bytes  per param
    scale_by_adam  mu     layers/*/bias    bf16[2] × 3       12       0.67
    scale_by_adam  mu     layers/*/kernel  bf16[2,2] × 3     24       1.33
    scale_by_adam  nu     layers/*/bias    f32[2] × 3        24       1.33
    scale_by_adam  nu     layers/*/kernel  f32[2,2] × 3      48       2.67
                   count                   i32[]              4       0.22
    total                                                   112       6.22
    >>> found
    Summary(112 bytes, 18 parameters, 6.22 bytes per parameter)
    """
    tx = (
        tx
        if isinstance(tx, GradientTransformation)
        else GradientTransformation.coerce(tx, "summary: tx")
    )
    state = jax.eval_shape(tx.init, params)
    parameters = sum(
        getattr(leaf, "size", 1) for leaf in jax.tree.leaves(params) if is_inexact(leaf)
    )
    known = {tuple(path.split("/")) for path in tree_paths(params)}
    rows = tuple(
        sorted(_rows(state, known), key=lambda row: row.member == "")
    )  # the step count last
    made = Summary(rows, sum(row.bytes for row in rows), parameters)
    print(made, file=file)
    return made


def _rows(state: Any, known: set[Path]) -> Iterable[Row]:
    """The arrays of a state, those alike in one row, in the order in which they first appear."""
    alike: dict[tuple[str, ...], list[tuple[str, Any]]] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        path = tuple(path_text(keys).split("/"))
        member, slot, rest = _split(
            path[1:] if isinstance(state, State) and path[0] == "slots" else path, known
        )
        alike.setdefault((member, slot, _stars(rest), show_array(leaf)), []).append((rest, leaf))
    for (member, slot, pattern, array), found in alike.items():
        path = found[0][0] if len(found) == 1 else _common(pattern, [rest for rest, _ in found])
        yield Row(
            member,
            slot,
            path,
            array,
            len(found),
            sum(leaf.size * leaf.dtype.itemsize for _, leaf in found),
        )


def _split(path: Path, known: set[Path]) -> tuple[str, str, str]:
    """A path in a state as member, slot and path of the parameter: the longest parameter path in
    it, the last of these.
    """
    ends = range(2, len(path) + 1)
    spans = [
        (end - start, start) for end in ends for start in range(1, end) if path[start:end] in known
    ]
    start = max(spans)[1] if spans else len(path)
    return "/".join(path[: start - 1]), path[start - 1], "/".join(path[start:])


def _stars(path: str) -> str:
    return re.sub(r"\d+", "*", path)


def _common(pattern: str, paths: Sequence[str]) -> str:
    """The pattern of several paths, its stars only in the parts where they differ."""
    columns = zip(*(path.split("/") for path in paths), strict=True)
    return "/".join(
        star if len(set(column)) > 1 else column[0]
        for star, column in zip(pattern.split("/"), columns, strict=True)
    )


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
