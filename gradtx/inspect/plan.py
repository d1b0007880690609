"""`plan`: the memory and the work of an optimizer on a mesh, before a run, from shapes alone."""

from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.definition.types import Params
from gradtx.inspect.chips import Chip, chip_of
from gradtx.inspect.plan_arrays import (
    ArrayRow,
    MeshLike,
    array_rows,
    placed_shapes,
)
from gradtx.inspect.plan_compiled import Compiled, compile_update
from gradtx.inspect.plan_text import plan_text
from gradtx.inspect.plan_work import Work, work_of


class Plan(NamedTuple):
    """The memory and the work of an optimizer on a mesh; `print` it for the tables."""

    tx: GradientTransformation
    mesh: AbstractMesh
    chip: Chip
    rows: tuple[ArrayRow, ...]
    work: Work
    compiled: Compiled | None

    @property
    def device_bytes(self) -> int:
        """The bytes that one device holds: parameters, gradients and state."""
        return sum(row.device_bytes for row in self.rows)

    @property
    def traffic(self) -> float:
        """The bytes that one device moves in an update, to its memory and from it.

        The update reads gradients, parameters and state once, and writes parameters and state; to
        this come the operands and results of matrix products.
        """
        elementwise = sum(
            row.device_bytes * (1 if row.kind == "gradients" else 2) for row in self.rows
        )
        return elementwise + self.work.product_bytes

    @property
    def seconds(self) -> float:
        """The least time of an update at the chip's roofline; no program is faster."""
        return max(self.traffic / self.chip.bandwidth, self.work.product_flop / self.chip.peak)

    @property
    def replicated(self) -> tuple[ArrayRow, ...]:
        """The rows that every device holds whole, largest first."""
        whole = [row for row in self.rows if row.reason]
        return tuple(sorted(whole, key=lambda row: -row.bytes))

    def __str__(self) -> str:
        return plan_text(self)

    def __repr__(self) -> str:
        return f"Plan({self.device_bytes:,} bytes a device, {self.mesh.size} devices)"


def plan(
    tx: TransformationLike,
    params: Params,
    *,
    mesh: MeshLike | None = None,
    shardings: Any = None,
    chip: str = "v5e",
    compiled: bool = False,
) -> Plan:
    r"""Plan the memory and the time of an optimizer on a mesh, from shapes alone.

    For p parameters over D devices, AdamW holds 2 p / D floats of state on a device where every
    array is cut; `plan` says it for any optimizer, array by array, names what every device holds
    whole and why, and counts the work of an update:

        bytes moved = gradients + 2 (parameters + state) + operands of matrix products
        seconds ≥ max(bytes moved / bandwidth, FLOP of matrix products / peak)

    No array is made: 70 billion parameters take seconds on a laptop. When: before a run, to choose
    a mesh, an optimizer, or a storage. When not: for the memory of activations, which `plan` does
    not see; the bound on time has no communication either, see `compiled`.

    Args:
      tx: the optimizer.
      params: the parameters, or `jax.ShapeDtypeStruct`s; their `NamedSharding`s say how the mesh
        cuts them.
      mesh: a mesh of JAX, or the size of each axis, `{"data": 16, "model": 16}`; None: that of the
        parameters, or one device.
      shardings: how the mesh cuts the parameters, a tree of `PartitionSpec`s or `NamedSharding`s
        like the parameters, or a prefix of it; None: as their own say, and whole without one.
      chip: "v4", "v5e", "v5p", "v6e", "a100", "h100" or "h200", for memory, bandwidth and peak.
      compiled: whether XLA's compiler for that chip compiles the update, for its temporaries,
        collectives and cycles; needs `pip install gradtx[accelerators]`, and no device.

    Returns:
      A `Plan`: print it for tables, or read `rows`, `device_bytes`, `replicated`, `work`,
      `traffic`, `seconds` and `compiled`.

    Raises:
      GradtxError: an unknown chip, parameters on several meshes, shardings of another tree, of axes
        that the mesh lacks, or that do not divide an array.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> from jax.sharding import PartitionSpec as P
    >>> shapes = {"w": jax.ShapeDtypeStruct((8192, 4096), jnp.bfloat16)}
    >>> result = gradtx.plan(gradtx.adamw(1e-3), shapes, mesh={"data": 16}, shardings=P("data"))
    >>> result.device_bytes  # 2 bytes for parameters and gradients each, 8 for two moments, a count
    25165828
    >>> 12 * 8192 * 4096 // 16 + 4
    25165828

    See also: `summary`, `state_shardings`.
    """
    tx, device = as_transformation(tx), chip_of(chip)
    grid, shapes = placed_shapes(params, shardings, mesh)
    with jax.sharding.use_abstract_mesh(grid):
        state = jax.eval_shape(tx.init, shapes)
        work = work_of(tx.update, grid.shape, shapes, state, shapes)
    rows = array_rows(shapes, state, grid)
    result = compile_update(tx.update, shapes, state, device) if compiled else None
    return Plan(tx, grid, device, rows, work, result)
