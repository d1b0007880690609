"""`compare_storage`: the memory and the error of each codec, on your parameters and gradients."""

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
from gradtx.definition.types import Params, Slots
from gradtx.engine.leaf_rule import LeafRule
from gradtx.engine.selector import leaves_of
from gradtx.engine.walk import Node, walk
from gradtx.storage.codec import CodecName
from gradtx.storage.stored import stored
from gradtx.tree.arithmetic import global_norm
from gradtx.tree.casts import is_inexact

HEADER = ("codec", "bytes", "per param", "slot error", "update error")


class Stored(NamedTuple):
    """One line of the comparison."""

    codec: CodecName
    bytes: int
    """Of the whole state."""
    slot_error: float
    """The largest ‖decoded − s‖ / ‖s‖ of a slot, in one encoding to the nearest.

    It is nan if a member of a wrapper has other arrays.
    """
    update_error: float
    """‖u − u₃₂‖ / ‖u₃₂‖ of the last step whose update is not 0; nan if there is none.

    Parameters and gradients are those of the run in float32.
    """


class Comparison(NamedTuple):
    """The memory and the error of codecs; `print` it for the table."""

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
    params: Params,
    grads: Sequence[Any] | None = None,
    codecs: Sequence[CodecName] = ("float32", "bf16+8", "f16", "packed16", "int8", "int4"),
    *,
    file: IO[str] | None = None,
    **options: Any,
) -> Comparison:
    r"""Print the memory and the error of the optimizer state under each codec.

    The optimizer makes a few steps in float32 and under each codec, at the same parameters and
    gradients. The table reports two errors: of one encoding of the float32 slots, and of the last
    update. Training depends on the second; it grows with the number of steps, up to a level.

    When: choosing a codec for a model. When not: the final decision, which takes a full training.

    Args:
      tx: the optimizer.
      params: the parameters; arrays, because the optimizer runs.
      grads: gradients of several steps, each a tree like the parameters; None: 5 steps of
        independent normal numbers of size 1e-3, the hardest case, because real gradients are
        similar from step to step.
      codecs: names, for all slots; "float32" for `tx` itself.
      file: where to print; None: standard output.
      **options: for `stored`: `min_size=`, `where=`, `rounding=`, `block=`.

    Returns:
      A record with the same `rows` of codec, bytes, slot_error and update_error.

    Raises:
      GradtxError: an unknown codec, and all errors of `stored`; gradients that are not a list.

    >>> import gradtx, io, jax.numpy as jnp
    >>> params = {"w": jnp.ones((256, 256))}
    >>> codecs = ("float32", "packed16", "int8")
    >>> table = gradtx.compare_storage(gradtx.adamw(1e-3), params, None, codecs, file=io.StringIO())
    >>> [(row.codec, row.bytes, row.update_error < 0.1) for row in table.rows]
    [('float32', 524292, True), ('packed16', 262148, True), ('int8', 139268, True)]

    See also: `stored`, `summary`.
    """
    tx = as_transformation(tx)
    steps = _normal(params) if grads is None else grads
    if not isinstance(steps, Sequence) or not steps:
        raise GradtxError(
            f"compare_storage: grads = {show(grads)} is not a list of trees, one for each step; "
            "pass [grads]"
        )
    exact = _run(tx, params, steps)
    rows = tuple(_row(tx, codec, params, steps, exact, options) for codec in codecs)
    sizes = [jnp.size(leaf) for leaf in jax.tree.leaves(params) if is_inexact(leaf)]
    comparison = Comparison(rows, sum(sizes))
    print(comparison, file=file)
    return comparison


class Run(NamedTuple):
    """The step whose update is compared, its update, and the state after all steps."""

    step: int
    update: Any
    state: Any


def _row(
    tx: GradientTransformation,
    codec: CodecName,
    params: Params,
    steps: Sequence[Any],
    exact: Run,
    options: dict[str, Any],
) -> Stored:
    """Run the optimizer under a codec, and compare it with the run in float32."""
    run, worst = exact, 0.0
    if codec != "float32":
        encoded = stored(tx, codec, **options)
        run = _run(encoded, params, steps, exact.step)
        worst = _worst(_slot_errors(encoded, exact.state.slots, exact.state.count, params))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(run.state))
    error = _relative(run.update, exact.update) if _moves(exact.update) else math.nan
    return Stored(codec, size, worst, error)


def _normal(params: Params, count: int = 5, size: float = 1e-3) -> list[Any]:
    values, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), (count, max(len(values), 1)))
    rows = [[_like(*pair, size) for pair in zip(values, row, strict=False)] for row in keys]
    return [jax.tree.unflatten(treedef, row) for row in rows]


def _like(value: Any, key: Any, size: float) -> Any:
    if not is_inexact(value):
        return value
    return size * jax.random.normal(key, jnp.shape(value), jnp.result_type(value))


def _run(
    tx: GradientTransformation, params: Params, steps: Sequence[Any], last: int | None = None
) -> Run:
    """Run all steps; the update is that of step `last`, None: the last one that is not 0."""
    update, state, step, result = jax.jit(tx.update), tx.init(params), 0, None
    for number, grads in enumerate(steps):
        new, state = update(grads, state, params)
        if result is None or (number <= last if last is not None else _moves(new)):
            step, result = number, new
    return Run(step, result, state)


def _moves(update: Any) -> bool:
    return any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(update) if is_inexact(leaf))


def _relative(one: Any, other: Any) -> float:
    values, others = (
        [leaf for leaf in jax.tree.leaves(tree) if is_inexact(leaf)] for tree in (one, other)
    )
    size = float(global_norm(others))
    errors = [a - b for a, b in zip(values, others, strict=True)]
    return float(global_norm(errors)) / size if size else 0.0


def _worst(errors: Iterator[float]) -> float:
    values = list(errors)
    return math.nan if any(map(math.isnan, values)) else max(values, default=0.0)


def _slot_errors(
    tx: GradientTransformation, slots: Slots, count: Any, params: Params
) -> Iterator[float]:
    """The relative error of every slot, encoded once and decoded, members of wrappers included."""
    for node in walk(tx, slots, count):
        rule = node.bound.rule
        if isinstance(rule, LeafRule):
            yield from _errors_of_arrays(rule, node, params)
        elif rule.keeps:
            yield from _errors_of_tree(rule, node.slots)


def _errors_of_arrays(rule: LeafRule, node: Node, params: Params) -> Iterator[float]:
    if rule.storage is None or rule.form is None:
        return
    leaves = leaves_of(node.narrow(params))
    fields = node.slots if isinstance(node.slots, dict) else node.slots._asdict()
    names = rule.form.kind._fields
    try:
        columns = [leaves.treedef.flatten_up_to(fields[name]) for name in names]
    except ValueError:  # a wrapper passed its member other arrays than the parameters
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


def _errors_of_tree(rule: Any, slots: Slots) -> Iterator[float]:
    """The errors of the slots that a rule on trees keeps for itself."""
    own, read = rule.own_slots(slots), rule.own_slots(rule.encoded_once(slots))
    yield from (_relative(other, exact) for other, exact in zip(read or (), own or (), strict=True))
