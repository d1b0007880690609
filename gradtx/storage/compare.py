"""`compare_storage`: what each codec costs and what it loses, on parameters and gradients of your
own.
"""

import math
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.definition.errors import GradtxError
from gradtx.definition.show import show, show_table
from gradtx.engine.leaf_rule import LeafRule
from gradtx.engine.selector import leaves_of
from gradtx.engine.walk import Node, walk
from gradtx.storage.stored import stored
from gradtx.tree.arithmetic import global_norm
from gradtx.tree.casts import is_inexact

HEADER = ("codec", "bytes", "per param", "slot error", "update error")


class Stored(NamedTuple):
    """One line of the comparison."""

    codec: str
    bytes: int
    """The whole state."""
    slot_error: float
    """‖decoded − s‖ / ‖s‖ of the slot that suffers most, in one encoding to the nearest; nan if a
    wrapper's member has other arrays.
    """
    update_error: float
    """‖u − u₃₂‖ / ‖u₃₂‖ of the last step that moves anything, from the same parameters and
    gradients as in float32; nan if none does.
    """


class Comparison(NamedTuple):
    """What codecs cost and lose; `print` it for the table."""

    rows: tuple[Stored, ...]
    parameters: int

    def __str__(self) -> str:
        return show_table([HEADER, *map(self._cells, self.rows)], 1)

    def _cells(self, row: Stored) -> tuple[str, ...]:
        per_param = row.bytes / self.parameters if self.parameters else 0.0
        return (
            row.codec,
            f"{row.bytes:,}",
            f"{per_param:.2f}",
            f"{row.slot_error:.1e}",
            f"{row.update_error:.1e}",
        )


def compare_storage(
    tx: TransformationLike,
    params: Any,
    grads: Sequence[Any] | None = None,
    codecs: Sequence[str] = ("float32", "bf16+8", "f16", "packed16", "int8", "int4"),
    *,
    file: IO[str] | None = None,
    **options: Any,
) -> Comparison:
    r"""Print what the state costs and what it loses under each codec.

    The optimizer makes a few steps in float32 and under each codec, at the same parameters and
    gradients. Two errors are told: of one encoding of the float32 slots, and of the last update.
    The second is what training feels; it grows with the number of steps, to a level.

    When: choosing a codec for a model. When not: for the last word, which only a training has.

    Args:
      tx: the optimizer.
      params: the parameters; arrays, since the optimizer is run.
      grads: gradients of several steps, each a tree like the parameters; None: 5 steps of
        independent normal numbers of size 1e-3, the hardest case, as real gradients repeat
        themselves.
      codecs: names, for all slots; "float32" for `tx` itself.
      file: where to print; None: standard output.
      **options: for `stored`: `min_size=`, `where=`, `rounding=`, `block=`.

    Returns:
      The same as a record: `rows` of codec, bytes, slot_error and update_error.

    Raises:
      GradtxError: an unknown codec, and all that `stored` raises; gradients that are no list.

    >>> import gradtx, io, jax.numpy as jnp
    >>> params = {"w": jnp.ones((256, 256))}
    >>> found = gradtx.compare_storage(gradtx.adamw(1e-3), params, codecs=("float32", "packed16", "int8"), file=io.StringIO())
    >>> [(row.codec, row.bytes, row.update_error < 0.1) for row in found.rows]
    [('float32', 524292, True), ('packed16', 262148, True), ('int8', 139268, True)]

    See also: `stored`, `summary`.
    """
    tx = as_transformation(tx)
    steps = _normal(params) if grads is None else grads
    if not isinstance(steps, Sequence) or not steps:
        raise GradtxError(
            f"compare_storage: grads = {show(grads)} is no list of trees, one for each step; pass [grads]"
        )
    step, update, state = _after(tx, params, steps)
    rows = []
    for codec in codecs:
        kept = tx if codec == "float32" else stored(tx, codec, **options)
        other, made = (update, state) if kept is tx else _after(kept, params, steps, step)[1:]
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(made))
        worst = 0.0 if kept is tx else _worst(_slot_errors(kept, state.slots, state.count, params))
        rows.append(
            Stored(codec, size, worst, _relative(other, update) if _moves(update) else math.nan)
        )
    found = Comparison(
        tuple(rows), sum(jnp.size(leaf) for leaf in jax.tree.leaves(params) if is_inexact(leaf))
    )
    print(found, file=file)
    return found


def _normal(params: Any, count: int = 5, size: float = 1e-3) -> list[Any]:
    values, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), (count, max(len(values), 1)))
    return [
        jax.tree.unflatten(
            treedef, [_like(value, key, size) for value, key in zip(values, row, strict=False)]
        )
        for row in keys
    ]


def _like(value: Any, key: Any, size: float) -> Any:
    if not is_inexact(value):
        return value
    return size * jax.random.normal(key, jnp.shape(value), jnp.result_type(value))


def _after(
    tx: GradientTransformation, params: Any, steps: Sequence[Any], at: int | None = None
) -> tuple[int, Any, Any]:
    """The number of a step and its update, and the state after all; None: the last step that moves
    anything.
    """
    update, state, step, chosen = jax.jit(tx.update), tx.init(params), 0, None
    for number, grads in enumerate(steps):
        made, state = update(grads, state, params)
        if chosen is None or (number <= at if at is not None else _moves(made)):
            step, chosen = number, made
    return step, chosen, state


def _moves(update: Any) -> bool:
    return any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(update) if is_inexact(leaf))


def _relative(one: Any, other: Any) -> float:
    values, others = (
        [leaf for leaf in jax.tree.leaves(tree) if is_inexact(leaf)] for tree in (one, other)
    )
    size = float(global_norm(others))
    return (
        float(global_norm([a - b for a, b in zip(values, others, strict=True)])) / size
        if size
        else 0.0
    )


def _worst(errors: Iterator[float]) -> float:
    found = list(errors)
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)


def _slot_errors(
    tx: GradientTransformation, slots: Any, count: Any, params: Any
) -> Iterator[float]:
    """The relative error of every slot, encoded once and decoded, members of wrappers included."""
    for node in walk(tx, slots, count):
        rule = node.bound.rule
        if isinstance(rule, LeafRule):
            yield from _errors_of_arrays(rule, node, params)
        elif rule.keeps:
            yield from _errors_of_tree(rule, node.slots)


def _errors_of_arrays(rule: LeafRule, node: Node, params: Any) -> Iterator[float]:
    if rule.storage is None or rule.form is None:
        return
    leaves = leaves_of(node.narrow(params))
    fields = node.slots if isinstance(node.slots, dict) else node.slots._asdict()
    names = rule.form.kind._fields
    try:
        columns = [leaves.treedef.flatten_up_to(fields[name]) for name in names]
    except ValueError:  # a wrapper has given its member other arrays than the parameters
        yield math.nan
        return
    active, policies, pairs = node.bound.active(leaves), rule.storage.leaf_policy(leaves), []
    for index, value in enumerate(leaves.values):
        if active[index]:
            exact = rule.form.kind(*(column[index] for column in columns))
            stored = rule.storage.encode_init(exact, value, policies[index])
            pairs.append((exact, rule.storage.decode(stored, jnp.shape(value))))
    for place in range(len(names)):
        both = [(exact[place], read[place]) for exact, read in pairs if exact[place] is not None]
        yield _relative([read for _, read in both], [exact for exact, _ in both])


def _errors_of_tree(rule: Any, slots: Any) -> Iterator[float]:
    """The errors of what a rule on trees keeps for itself."""
    own, read = rule.own_slots(slots), rule.own_slots(rule.encoded_once(slots))
    yield from (_relative(other, exact) for other, exact in zip(read or (), own or (), strict=True))
