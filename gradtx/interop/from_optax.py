"""States of Optax and their checkpoints, as the state of the same definition in gradtx."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import TransformationLike, as_transformation
from gradtx.definition.errors import StateError
from gradtx.definition.state import OPTAX_NAMES, slot_entries
from gradtx.definition.types import Params, State
from gradtx.engine.walk import walk
from gradtx.interop.checkpoint_leaves import named_leaves, restored_leaf

COUNTS = ("count", "gradient_step", "step_count", "t")
"""Fields of Optax that count updates."""
FIELDS: dict[str, dict[str, str]] = {
    "scale_by_adan": {"mu": "m", "delta": "v", "nu": "n", "previous": "g"},
    "scale_by_factored_rms": {"nu": "v"},
    "accumulate": {"total": "acc_grads", "applied": "gradient_step"},
}
"""By member: the field of Optax for a slot, where both have names of their own."""
OURS: dict[str, tuple[str, ...]] = {
    "accumulate": ("weight",),
    "apply_if_finite": ("applied",),
}
"""By member: the slots that follow from other numbers of Optax's state."""
OPTIONAL = "hyperparams"
"""The member whose slots may be more than Optax's: each number that it lacks is that of `init`."""


class Record(NamedTuple):
    """A node of Optax's state with named fields: a NamedTuple, or a dict in a file."""

    path: str
    fields: Mapping[str, Any]


def from_optax_state(
    tx: TransformationLike, optax_state: Any, params: Params, *, count: int | None = None
) -> State:
    """Convert a state of Optax, or a checkpoint of one, to a state of gradtx.

    `tx` is the same definition: where Optax's is `optax.chain(optax.clip(1.0), optax.adamw(1e-3))`,
    it is `gradtx.chain(gradtx.clip(1.0), gradtx.adamw(1e-3))`. The next update is then the one that
    Optax would make. Each slot is looked for among the fields of Optax's state by name (`mu`, `nu`,
    `trace`), with arrays of the same paths and shapes, in the order of both.

    When: a training that began with Optax goes on with gradtx. When not: a gradtx state in a
    library that expects Optax's; use `to_optax`. Methods whose state has another form here (`sm3`,
    `rprop`, L-BFGS) are refused, and so is a definition within `stored`.

    Args:
      tx: the definition.
      optax_state: Optax's state, or what a file has of it: NamedTuples as dicts and tuples as
        lists (Orbax), or as dicts with the keys "0", "1", ... (`flax.serialization`).
      params: the parameters, for structure, shapes and dtypes.
      count: the number of updates so far. None: as Optax counts them, or 0 where it does not, as in
        `sgd` without a schedule.

    Raises:
      StateError: Optax's state lacks a slot, has one that `tx` does not store, or holds different
        counts.

    >>> import gradtx, jax.numpy as jnp, optax
    >>> from gradtx.interop.from_optax import from_optax_state
    >>> params = grads = {"w": jnp.ones(2)}
    >>> peer = optax.adamw(1e-3)
    >>> _, state = peer.update(grads, peer.init(params), params)
    >>> new = gradtx.from_optax_state(gradtx.adamw(1e-3), state, params)
    >>> int(new.count), new.mu["w"].round(3).tolist()
    (1, [0.10000000149011612, 0.10000000149011612])

    Source: the fields of Optax's states, as `jax.tree_util.tree_flatten_with_path` shows them.

    See also: `to_optax`, `restore_state`, `from_torch_state`.
    """
    definition = as_transformation(tx)
    like = definition.init(params)
    records = list(_records(optax_state, ""))
    count = _count(records) if count is None else count
    values, used = _slots(like, records)
    _check_unused(records, used, params)
    values |= _own_values(like, records, definition, values, count)
    return filled_state(like, values, count)


def filled_state(like: State, values: Mapping[str, Any], count: int) -> State:
    """The state `like` with other arrays, by path, and another count.

    Raises:
      StateError: an array has another shape or dtype.
    """
    expected = named_leaves(like)
    values = {**values, "count": count}
    leaves = [
        restored_leaf(path, leaf, _typed(values[path], leaf)) if path in values else leaf
        for path, leaf in expected.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _typed(value: Any, leaf: Any) -> Any:
    """An array as it is; a number in the dtype of its slot."""
    array = np.asarray(value)
    return array.astype(leaf.dtype) if array.shape == () else array


def _records(node: Any, path: str) -> Iterator[Record]:
    """Every node with named fields, outer ones first."""
    children = _children(node)
    if isinstance(node, Mapping) or hasattr(node, "_fields"):
        yield Record(path, children)
    for name, child in children.items():
        yield from _records(child, f"{path}/{name}" if path else name)


def _children(node: Any) -> dict[str, Any]:
    """The named entries of a node; positions have numbers, in their order."""
    if hasattr(node, "_fields"):
        return dict(zip(node._fields, node, strict=True))
    if isinstance(node, Mapping):
        names = [str(name) for name in node]
        entries = zip(names, node.values(), strict=True)
        in_order = all(name.isdigit() for name in names)
        return dict(sorted(entries, key=lambda one: int(one[0])) if in_order else entries)
    if isinstance(node, tuple | list):
        return {str(n): child for n, child in enumerate(node)}
    return {}


def _count(records: Iterable[Record]) -> int:
    """The number of updates, as every counter of Optax's has it."""
    counts = {
        f"{record.path}/{name}".strip("/"): int(value)
        for record in records
        for name, value in record.fields.items()
        if name in COUNTS and np.ndim(value) == 0 and "grad_acc" not in record.fields
    }
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{path} = {number}" for path, number in counts.items())
        raise StateError(
            f"from_optax_state: the counts of Optax's state differ ({shown}): pass count= with the "
            f"number of updates of the whole"
        )
    return next(iter(counts.values()), 0)


def _slots(like: State, records: list[Record]) -> tuple[dict[str, Any], set[int]]:
    """The arrays of the slots by path, and the trees of Optax that they come from."""
    members: dict[tuple[str, ...], dict[str, Any]] = {}
    for path, value in slot_entries(like):
        members.setdefault(path[:-1], {})[path[-1]] = value
    values, used = dict[str, Any](), set[int]()
    for path, slots in members.items():
        name = path[-1] if path else ""
        own = OURS.get(name, ())
        wanted = {slot: one for slot, one in slots.items() if slot not in own and _shapes(one)}
        fields = next(
            (one for record in records if (one := _match(name, wanted, record, used))), {}
        )
        if not fields and name != OPTIONAL:
            raise StateError(_missing("/".join(path), wanted, records))
        for slot, tree in fields.items():
            used.add(id(tree))
            prefix = "/".join(("slots", *path, slot))
            arrays = named_leaves(tree)
            for leaf in named_leaves(slots[slot]):
                values["/".join(filter(None, (prefix, leaf)))] = arrays[leaf]
    return values, used


def _match(
    name: str, wanted: Mapping[str, Any], record: Record, used: set[int]
) -> dict[str, Any] | None:
    """The trees of a record by slot, where it has one of the same form for every slot."""
    fields: dict[str, Any] = {}
    for slot, like in wanted.items():
        own = FIELDS.get(name, {}).get(slot, slot)
        names = [own, *(theirs for theirs, ours in OPTAX_NAMES.items() if ours == slot)]
        tree = next((record.fields[one] for one in names if one in record.fields), None)
        if tree is not None and id(tree) not in used and _has_form(tree, like):
            fields[slot] = tree
        elif name != OPTIONAL:
            return None
    return fields


def _has_form(tree: Any, like: Any) -> bool:
    """Whether a tree has the arrays of a slot, and at most placeholders beside them."""
    theirs, ours = _shapes(tree), _shapes(like)
    others = [shape for path, shape in theirs.items() if path not in ours]
    return ours.items() <= theirs.items() and all(shape == (1,) for shape in others)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {path: np.shape(leaf) for path, leaf in named_leaves(tree).items()}


def _missing(member: str, wanted: Mapping[str, Any], records: list[Record]) -> str:
    shown = "; ".join(
        f"{record.path or 'the root'}: {', '.join(record.fields)}"
        for record in records
        if record.fields and any(hasattr(leaf, "shape") for leaf in record.fields.values())
    )
    return (
        f"from_optax_state: nothing in Optax's state fits the slots of {member} "
        f"({', '.join(wanted)}) by name and shape; it has {shown or 'no arrays'}: write the "
        f"definition that was trained, or restore its slots by hand with restore_state"
    )


def _check_unused(records: list[Record], used: set[int], params: Params) -> None:
    """Raise where no slot receives a tree of Optax's that has the form of the parameters."""
    shapes = set(_shapes(params).items())
    for record in records:
        for name, tree in record.fields.items():
            if id(tree) not in used and shapes and shapes <= set(_shapes(tree).items()):
                raise StateError(
                    f"from_optax_state: {f'{record.path}/{name}'.strip('/')} of Optax's state has "
                    f"no slot in this definition: write the definition that was trained"
                )


def _own_values(
    like: State, records: list[Record], tx: Any, values: Mapping[str, Any], count: int
) -> dict[str, Any]:
    """The slots that Optax has in another form: clocks, and the sum of micro-steps for its mean."""
    own: dict[str, Any] = {
        "/".join(("slots", *path)): count
        for path, _ in slot_entries(like)
        if path[-2:] == ("apply_if_finite", "applied")
    }
    sums = [path for path in values if path.endswith("accumulate/micro_step")]
    rules = [node.bound.rule for node in walk(tx, like.slots, like.count)]
    options = [getattr(rule, "options", {}) for rule in rules if rule.name == "accumulate"]
    for path, option in zip(sums, options, strict=True):
        prefix, steps = path.removesuffix("micro_step"), int(values[path])
        own[f"{prefix}weight"] = steps
        if option.get("use_grad_mean", True):
            own |= _times(values, f"{prefix}total", steps)
    return own


def _times(values: Mapping[str, Any], prefix: str, number: int) -> dict[str, Any]:
    """The arrays below a path, each times a number."""
    return {
        path: jnp.asarray(one) * number
        for path, one in values.items()
        if f"{path}/".startswith(f"{prefix}/")
    }
