"""`transfer_table` and `scale_init`: the factors of `transfer`, read and applied at the start."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import GradtxError, StructureError
from gradtx.definition.types import Params
from gradtx.engine.multipliers import LeafFactors, Multipliers
from gradtx.engine.selector import leaves_of
from gradtx.inspect.patterns import group_paths
from gradtx.tree.paths import same_layers

COLUMNS = ("rate", "decay", "eps", "init", "forward")


class TransferTable(dict[str, Mapping[str, float]]):
    """Path -> factors by name; prints as a table with one line for repeated blocks."""

    def __init__(self, rows: Mapping[str, LeafFactors], notes: Sequence[str] = ()) -> None:
        super().__init__({path: {**row.factors} for path, row in rows.items()})
        self.roles: dict[str, str] = {path: row.role for path, row in rows.items()}
        """Path -> the role of the parameter, and what decided it."""
        self.notes: tuple[str, ...] = tuple(notes)
        """What the model itself must multiply."""

    def __str__(self) -> str:
        keys = [(*map(_text, factors.values()), self.roles[path]) for path, factors in self.items()]
        cells: list[tuple[str, ...]] = [("path", *COLUMNS, "role")]
        for group in group_paths(list(self), keys):
            count = len(group.indices)
            path = group.path if count == 1 else f"{group.path} × {count:,}"
            cells.append((path, *keys[group.indices[0]]))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in cells
        ]
        return "\n".join([*lines, *self.notes])


def _text(factor: float) -> str:
    return f"{factor:.4g}"


def transfer_table(tx: GradientTransformation, params: Params) -> TransferTable:
    """Show the factors of muP (`transfer`) for every parameter: rate, weight decay, ε, start.

    A dict from path to factors. `print` shows one line for repeated blocks, and below the table by
    what the model itself must multiply:

    - rate, decay, eps: by what `transfer` multiplies η, λ and ε.
    - init: by what the standard deviation at the start is multiplied over the base model's;
      `scale_init` does it.
    - forward: by what the model must multiply the output of the layer.

    When: before a training, to check roles and numbers.

    Args:
      tx: a definition with a `transfer`, alone or inside.
      params: the parameters, or their shapes.

    Returns:
      The dict, with `roles` (path -> role, and what decided it) and `notes`.

    Raises:
      GradtxError: there is no `transfer` in `tx`.
      StructureError, SelectionError: as `transfer` raises at `init`.

    >>> import gradtx, jax.numpy as jnp
    >>> block = {"bias": jnp.zeros(256), "kernel": jnp.zeros((256, 256))}
    >>> params = {"blocks": [block] * 12, "embed": jnp.zeros((99, 256))}
    >>> tx = gradtx.transfer(gradtx.adamw(1e-2), base=64, width=256)
    >>> print(gradtx.transfer_table(tx, params))
    path                  rate  decay  eps   init  forward  role
    blocks/*/bias × 12    1     1      0.25  1     1        a norm or bias, by its name
    blocks/*/kernel × 12  0.25  4      0.25  0.5   1        a hidden matrix, in JAX's order
    embed                 1     1      0.25  1     1        an embedding, by its name
    the model itself: logits × 0.25, as the embedding is the head; q · k / d_head if heads grow

    See also: `transfer`, `scale_init`, `coverage`.
    """
    leaves = leaves_of(params)
    rows, notes = multipliers_of(tx, "transfer_table").table(leaves)
    known = zip(leaves.paths, rows, strict=True)
    return TransferTable({path: row for path, row in known if row is not None}, notes)


def scale_init(tx: GradientTransformation, params: Params, base: Params) -> Params:
    """Scale fresh parameters to the start that muP (`transfer`) asks for at their width.

    Every array of two axes or more gets the root mean square of the base model's, times the factor
    `init` of `transfer_table`: 1 / √m for hidden matrices, 1 / m for a head. Arrays of zeros and
    vectors stay as they are. So it does not matter how the initializer itself depends on the width.

    Args:
      tx: a definition with a `transfer`, alone or inside.
      params: fresh parameters of this model.
      base: fresh parameters of the base model; a base with fewer blocks will do.

    Returns:
      A tree as `params`.

    Raises:
      GradtxError: there is no `transfer` in `tx`.
      StructureError: an array of `params` that `base` does not have.

    >>> import gradtx, jax.numpy as jnp
    >>> base, params = {"w": 0.5 * jnp.ones((4, 4))}, {"w": jnp.ones((16, 16))}
    >>> tx = gradtx.transfer(gradtx.adamw(1e-2), base=base)
    >>> print(gradtx.scale_init(tx, params, base)["w"][0, 0])
    0.25

    See also: `transfer`, `transfer_table`.
    """
    leaves, small = leaves_of(params), leaves_of(base)
    rows, _ = multipliers_of(tx, "scale_init").table(leaves)
    partners = same_layers(leaves.paths, dict(zip(small.paths, small.values, strict=True)))
    if lacking := [path for path, one in zip(leaves.paths, partners, strict=True) if one is None]:
        raise StructureError(
            f"scale_init: base has nothing at {lacking[0]!r}: give fresh parameters of the same "
            f"model, as narrow as it was when it was tuned"
        )
    each = zip(leaves.values, rows, partners, strict=True)
    return jax.tree.unflatten(leaves.treedef, [_scale(*one) for one in each])


def _scale(param: Any, row: LeafFactors | None, base: Any) -> Any:
    if row is None or jnp.ndim(param) < 2:
        return param
    size, target = (jnp.sqrt(jnp.mean(jnp.square(one.astype(float)))) for one in (param, base))
    factor = jnp.where(size > 0, row.factors["init"] * target / size, 1.0)
    return (param * factor).astype(param.dtype)


def multipliers_of(tx: GradientTransformation, owner: str) -> Multipliers:
    """The first multipliers in a definition."""
    found = next(_multipliers(tx), None)
    if found is None:
        raise GradtxError(
            f"{owner}: there is no transfer in {tx.name}: wrap it, transfer({tx.name}(...), base)"
        )
    return found


def _multipliers(tx: GradientTransformation) -> Iterator[Multipliers]:
    for bound in tx.rules:
        if (one := getattr(bound.rule, "multipliers", None)) is not None:
            yield one
        for member in getattr(bound.rule, "members", {}).values():
            yield from _multipliers(member)
