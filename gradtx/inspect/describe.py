"""`describe`: the members of an optimizer, and what each of them does to the parameters."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from gradtx.compose.states import checked_state
from gradtx.compose.transformation import GradientTransformation, TransformationLike
from gradtx.definition.description import Description, LeafLine, MemberLine, ValueLine
from gradtx.definition.schedule import Schedule
from gradtx.definition.show import show, show_array
from gradtx.definition.types import Params, State
from gradtx.engine.selector import Leaves, leaves_of
from gradtx.engine.walk import walk
from gradtx.inspect.members import MemberNode, Members, Owner, call_text, member_tree
from gradtx.inspect.metrics import shown_hyperparams
from gradtx.inspect.patterns import group_paths
from gradtx.inspect.summary import split_path
from gradtx.inspect.trainers import ActiveRule, Trainer, active_rules, trainers
from gradtx.training.hyperparams import leaves_by_address, short_names
from gradtx.tree.casts import is_inexact
from gradtx.tree.options import eval_shape
from gradtx.tree.paths import path_text


def describe(tx: TransformationLike, params: Params, state: Any = None) -> Description:
    """Describe an optimizer: its members as a tree, and what trains each parameter.

    The description shows the arrays and bytes of every member; for every parameter its optimizer,
    whether it decays or is frozen, and its bytes of state; the learning rates now, and every other
    hyperparameter that moves. Parameters of repeated blocks share a line. It prints as text, and
    shows as HTML in a notebook. Only shapes are computed, and nothing is allocated.

    When: before a training, to see that masks, groups and schedules are as you meant them; in a
    bug report. When not: for a check in code of who trains which leaf, `coverage` is a dict; for
    the memory slot by slot, take `summary`.

    Args:
      tx: the optimizer; an Optax transformation is one member, of which only the bytes are known.
      params: the parameters, or `jax.ShapeDtypeStruct`s of their shapes.
      state: its state, for the values of now; None: those of the first update.

    Returns:
      A `Description`: `members`, `leaves`, `values`, `count` and `bytes` as data.

    Raises:
      SelectionError: a mask or a partition does not fit the parameters.
      StateError: the state belongs to another definition.

    >>> import gradtx, jax.numpy as jnp
    >>> block = {"bias": jnp.zeros(4), "kernel": jnp.zeros((4, 4))}
    >>> params = {"blocks": [block] * 3, "embed": jnp.zeros((9, 4))}
    >>> rate = gradtx.linear_schedule(0.1, 0.0, 10)
    >>> tx = gradtx.chain(gradtx.adamw(rate, mask=r"kernel$"), gradtx.freeze(r"^embed"))
    >>> tx.describe(params)
    member                                                        arrays  parameters  state bytes
    chain                                                              7          96          480
    ├─ adamw(learning_rate=linear_schedule(...), mask='kernel$')       6          60          480
    └─ freeze(mask='^embed')                                           1          36            0
    <BLANKLINE>
    learning_rate = 0.1 at step 0, from linear_schedule(init_value=0.1, end_value=0.0, transiti…
    <BLANKLINE>
    parameters       array         trained by      state bytes
    blocks/*/bias    f32[4] × 3    adamw                    96
    blocks/*/kernel  f32[4,4] × 3  adamw, decayed          384
    embed            f32[9,4]      frozen                    0
    (shared)                                                 4
    total            7 arrays                              484

    See also: `coverage`, `summary`, `hyperparams`.
    """
    if not isinstance(tx, GradientTransformation):
        tx = GradientTransformation.coerce(tx, "describe: tx")
    state = None if state is None or tx.is_plain else checked_state(tx.name, state)
    leaves, root = leaves_of(params), member_tree(tx)
    members = Members(root)
    rules = active_rules(tx, members, leaves)
    shapes, sizes = _state_sizes(tx, members, params)
    trained = trainers(rules, leaves)
    return Description(
        tuple(_member_lines(root, rules, leaves, sizes)),
        tuple(_leaf_lines(leaves, trained, shapes)),
        tuple(_value_lines(tx, state)),
        0 if state is None else state.count,
        sum(map(_nbytes, jax.tree.leaves(shapes))),
    )


def _nbytes(array: Any) -> int:
    return array.size * array.dtype.itemsize


def _tree_nbytes(tree: Any) -> int:
    return sum(map(_nbytes, jax.tree.leaves(tree)))


def _state_sizes(
    tx: GradientTransformation, members: Members, params: Params
) -> tuple[Any, Counter[Owner]]:
    """The shapes of a state, and the bytes that each member keeps in it."""
    sizes: Counter[Owner] = Counter()

    def init(params: Params) -> Any:
        state = tx.init(params)
        if not isinstance(state, State):
            sizes[(), None] += _tree_nbytes(state)
            return state
        for node in walk(tx, state.slots, state.count):
            around = (*node.parents, node)
            _, owner = members.owner(
                [one for each in around for one in each.bound.origin],
                node.path,
                [one for each in around for one in each.bound.selectors],
            )
            inside = node.bound.rule.children(node.slots, node.count)
            sizes[owner] += _tree_nbytes(node.slots) - sum(
                _tree_nbytes(one.slots) for one in inside
            )
        return state

    return eval_shape(init, params), sizes


def _member_lines(
    root: MemberNode, rules: Sequence[ActiveRule], leaves: Leaves, sizes: Counter[Owner]
) -> Iterator[MemberLine]:
    """A line for each member, and for each group of an optimizer that has several."""
    counts = np.array([_size(value) for value in leaves.values], np.int64)
    is_float = np.array([is_inexact(value) for value in leaves.values], bool)
    for node in root.walk():
        depth = node.depth
        inside = [one for one in rules if _is_in(one.owner[0], node.address)]
        size = sum(one for owner, one in sizes.items() if _is_in(owner[0], node.address))
        yield MemberLine(
            depth, node.label, call_text(node.tx), *_acts_on(inside, is_float, counts), size
        )
        groups = dict.fromkeys(one.owner for one in inside if one.node is node and one.owner[1])
        for owner in groups:
            own = [one for one in inside if one.owner == owner]
            numbers = _acts_on(own, is_float, counts)
            yield MemberLine(depth + 1, "", str(owner[1]), *numbers, sizes[owner])


def _is_in(address: Sequence[str], around: Sequence[str]) -> bool:
    return tuple(address[: len(around)]) == tuple(around)


def _acts_on(
    rules: Sequence[ActiveRule], is_float: np.ndarray, counts: np.ndarray
) -> tuple[int, int]:
    """The number of arrays that some rules act on, and of their entries."""
    active = is_float & np.any([one.active for one in rules] or [False & is_float], axis=0)
    return int(active.sum()), int(counts[active].sum())


def _size(value: Any) -> int:
    return 0 if value is None else math.prod(np.shape(value))


def _leaf_lines(
    leaves: Leaves, trained: Sequence[Trainer | None], shapes: Any
) -> Iterator[LeafLine]:
    """The parameters, similar ones in one line, in the order of their first array."""
    each = zip(leaves.paths, leaves.values, trained, strict=True)
    known = [(path, _array_text(value), one) for path, value, one in each if one is not None]
    sizes = _leaf_sizes(shapes, [path for path, _, _ in known])
    keys = [(array, one.text) for _, array, one in known]
    for group in group_paths([path for path, _, _ in known], keys):
        _, array, one = known[group.indices[0]]
        size = sum(sizes[known[index][0]] for index in group.indices)
        flags = one.is_decayed, one.is_frozen
        yield LeafLine(group.path, array, len(group.indices), one.text, *flags, size)


def _array_text(value: Any) -> str:
    return show_array(value) if hasattr(value, "dtype") else type(value).__name__


def _leaf_sizes(shapes: Any, paths: Sequence[str]) -> Counter[str]:
    """The bytes of a state that belong to each parameter."""
    known = {tuple(path.split("/")) for path in paths}
    sizes: Counter[str] = Counter()
    for keys, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
        _, _, rest = split_path(tuple(path_text(keys).split("/")), known)
        sizes[rest] += _nbytes(leaf)
    return sizes


def _value_lines(tx: GradientTransformation, state: State | None) -> Iterator[ValueLine]:
    """The learning rates, and what moves."""
    if tx.is_plain:
        return
    values = shown_hyperparams(tx, state)
    everything = leaves_by_address(tx, Schedule)
    for name, address in short_names(values).items():
        one = everything.get(address)
        yield ValueLine(name, values[address], show(one) if isinstance(one, Schedule) else "")
