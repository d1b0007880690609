"""The purpose of each parameter: a hidden matrix, an embedding, a head, a norm, a router.

The path of a parameter, its shape, the class of its container and the parameters around it decide.
Matrix methods keep away from all but hidden matrices.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from gradtx.tree.axes import (
    WINDOW,
    Order,
    Parameter,
    Parts,
    Shape,
    attention_axes,
    axes_by_bias,
    has_window,
    matrix_axes,
    tree_order,
    window_axes,
)
from gradtx.tree.frameworks import containers
from gradtx.tree.names import (
    CONVOLUTIONS,
    EMBEDDING,
    EXPERTS,
    GATES,
    HEAD,
    MATRICES,
    MIXTURES,
    NAMES,
    NORM,
    POSITION,
    ROUTER,
    has_part,
    is_numbered,
    path_parts,
    role_by_name,
)
from gradtx.tree.paths import Treedef
from gradtx.tree.stacks import stacked_axes, without_axes

MATRIX, VECTOR, CONVOLUTION = "a hidden matrix", "a vector", "a convolution"
UNKNOWN = "an array of unknown axes"
FEW = 16
"""How many times as long as its shorter side a router's matrix is at least."""
BY_NAME, BY_CLASS, BY_SHAPE = "by its name", "by its class", "by its shape"


class Role(NamedTuple):
    """The purpose of one parameter, and its axes as a matrix."""

    name: str
    words: str | None
    """Its axes: `in`, `out` and `batch`; None: the last two are a matrix."""
    reason: str
    is_sure: bool = True
    """False: neither names nor shapes decide between two readings."""
    is_named: bool = False
    """Whether its path names it as something else than a matrix."""

    @property
    def is_matrix(self) -> bool:
        return self.name == MATRIX

    @property
    def is_table(self) -> bool:
        """Whether few of its rows have a gradient at a step, which codes of a block keep badly."""
        return self.name in (EMBEDDING, POSITION, HEAD)


class Around(NamedTuple):
    """What the other parameters of a tree say about each."""

    order: Order
    heads: frozenset[Parts]
    """Those with as many rows or columns as the vocabulary."""
    mixtures: frozenset[Parts]
    """Modules that hold experts, or a router."""
    attentions: frozenset[Parts]
    """Modules that hold queries and keys."""


@functools.lru_cache(maxsize=256)
def roles_of(
    treedef: Treedef, paths: tuple[str, ...], shapes: tuple[Shape | None, ...]
) -> tuple[Role | None, ...]:
    """The role of every leaf of a tree; None where the leaf is None.

    >>> import jax
    >>> tree = {"embed": 0, "mlp": {"weight": 0, "bias": 0}}
    >>> paths = ("embed", "mlp/bias", "mlp/weight")
    >>> roles = roles_of(jax.tree.structure(tree), paths, ((9, 4), (8,), (8, 4)))
    >>> [(role.name, role.words) for role in roles]
    [('an embedding', None), ('a norm or bias', None), ('a hidden matrix', 'out in')]
    """
    inside = containers(treedef)
    known = [n for n, shape in enumerate(shapes) if shape is not None]
    parts, full = [path_parts(paths[n]) for n in known], [shapes[n] or () for n in known]
    stacks = stacked_axes(parts, full)
    single = [
        Parameter(name, without_axes(shape, axes), inside[n])
        for n, name, shape, axes in zip(known, parts, full, stacks, strict=True)
    ]
    order = tree_order(single)
    heads = _heads(single, stacks, order)
    around = Around(order, heads, _mixtures(parts), _attentions(parts))
    found: list[Role | None] = [None] * len(shapes)
    for n, one, shape, axes in zip(known, single, full, stacks, strict=True):
        found[n] = _stacked(_role(one, around), shape, axes)
    return tuple(found)


def _role(one: Parameter, around: Around) -> Role:
    """The role of one parameter, without the axes that count layers."""
    name, reason = _own_role(one)
    axes, is_named = len(one.shape), reason == BY_NAME
    if name == CONVOLUTION:
        return Role(name, window_axes(one), reason)
    if name in (HEAD, ROUTER) and axes == 2:
        return Role(name, matrix_axes(one, around.order).words, reason, is_named=is_named)
    if name is not None:
        return Role(name, None, reason, is_named=is_named)
    if sum(size > 1 for size in one.shape) < 2 and axes != 2:
        return Role(VECTOR, None, BY_SHAPE)
    return _matrix(one, around) if axes == 2 else _array(one, around)


def _own_role(one: Parameter) -> tuple[str | None, str]:
    """The role that the class of the container says, or the path; None: neither does."""
    layer = one.container.layer if one.container.framework == "equinox" else ""
    if layer.startswith("Conv"):
        return (CONVOLUTION if len(one.shape) > 2 and one.name == "weight" else NORM), BY_CLASS
    if layer == "Embedding" or layer.endswith("Norm"):
        return (EMBEDDING if layer == "Embedding" else NORM), BY_CLASS
    name = role_by_name(one.parts)
    has_filters = len(one.shape) > 2 or (len(one.shape) == 2 and min(one.shape) <= WINDOW)
    if name is None and has_filters and has_part(CONVOLUTIONS, one.parts):
        name = CONVOLUTION
    return name, BY_NAME


def _matrix(one: Parameter, around: Around) -> Role:
    """The role of an array of two axes whose name says none."""
    words, reason, is_sure = matrix_axes(one, around.order)
    if one.parts in around.heads:
        return Role(HEAD, words, "by the shape of the embedding")
    if _is_router(one, around.mixtures):
        return Role(ROUTER, words, "by the experts beside it")
    return Role(MATRIX, words, reason, is_sure)


def _array(one: Parameter, around: Around) -> Role:
    """The role of an array of more axes whose name says none."""
    if (words := attention_axes(one, around.attentions)) is not None:
        return Role(MATRIX, words, "heads of attention, by its name")
    if (words := axes_by_bias(one, around.order)) is not None:
        return Role(MATRIX, words, "by the shape of its bias")
    if len(one.shape) == 3 and one.container.framework == "equinox" and one.container.layer:
        # The layer itself stores a matrix, so `vmap` made this one.
        words, reason, _ = matrix_axes(one._replace(shape=one.shape[1:]), around.order)
        return Role(MATRIX, f"batch {words}", f"stacked, {reason}")
    if len(one.shape) == 3 and _is_expert(one, around.mixtures):
        words, reason, is_sure = matrix_axes(one._replace(shape=one.shape[1:]), around.order)
        return Role(MATRIX, f"batch {words}", f"one per expert, {reason}", is_sure)
    if has_window(one):
        return Role(CONVOLUTION, window_axes(one), BY_SHAPE)
    return Role(UNKNOWN, None, "not told by name or shape", is_sure=False)


def _is_expert(one: Parameter, mixtures: frozenset[Parts]) -> bool:
    return has_part(EXPERTS, one.parts) or bool(mixtures & {one.module, one.module[:-1]})


def _is_router(one: Parameter, mixtures: frozenset[Parts]) -> bool:
    """Whether a matrix beside experts chooses among them, by its name or its few columns."""
    *module, name = one.module if MATRICES.fullmatch(one.name) and one.module else one.parts
    if tuple(module) not in mixtures or has_part(EXPERTS, tuple(module)):
        return False
    return bool(GATES.fullmatch(name)) or max(one.shape) >= FEW * min(one.shape)


def _heads(
    parameters: Sequence[Parameter], stacks: Sequence[Sequence[int]], order: Order
) -> frozenset[Parts]:
    """The matrix with as many outputs as the table of tokens has rows, if there is one."""
    plain = [
        (one, *_own_role(one))
        for one, axes in zip(parameters, stacks, strict=True)
        if len(one.shape) == 2 and not axes
    ]
    tables = {one.shape for one, role, _ in plain if role == EMBEDDING}
    tables = {shape for shape in tables if shape[0] > shape[1]}
    # A head that is named is the only one.
    tables = set() if any(role == HEAD for _, role, _ in plain) else tables
    alike = [
        one for one, role, _ in plain if role is None and {one.shape, one.shape[::-1]} & tables
    ]
    # A small vocabulary may equal the width of the layers, which are several and have numbers.
    alone = [one for one in alike if not any(map(is_numbered, one.parts))]
    head = next((found[0] for found in (alike, alone) if len(found) == 1), None)
    if head is None:
        return frozenset()
    outputs = head.shape[matrix_axes(head, order).words.split().index("out")]
    return frozenset([head.parts] if outputs == max(head.shape) else [])


def _mixtures(paths: Sequence[Parts]) -> frozenset[Parts]:
    """The modules that hold experts, or a router."""
    each = [(parts, n, part) for parts in paths for n, part in enumerate(parts)]
    named = {parts[: n + 1] for parts, n, part in each if MIXTURES.fullmatch(part)}
    members = (EXPERTS, NAMES[ROUTER])
    around = {parts[:n] for parts, n, part in each if any(one.fullmatch(part) for one in members)}
    return frozenset(named | around)


def _attentions(paths: Sequence[Parts]) -> frozenset[Parts]:
    """The modules that hold queries, keys and values under their full names."""
    members: dict[Parts, set[str]] = {}
    for parts in paths:
        for n, part in enumerate(parts):
            if part in ("query", "key", "value"):
                members.setdefault(parts[:n], set()).add(part)
    return frozenset(module for module, names in members.items() if len(names) == 3)


def _stacked(role: Role, shape: Shape, axes: Sequence[int]) -> Role:
    """The role of an array that some axes make a stack of parameters."""
    single = len(shape) - len(axes)
    if not axes or not single:
        return role
    words = role.words or " ".join(["batch"] * (single - 2) + ["in", "out"][-single:])
    rest = iter(words.split())
    every = ["batch" if axis in axes else next(rest) for axis in range(len(shape))]
    return role._replace(words=" ".join(every), reason=f"stacked, {role.reason}")
