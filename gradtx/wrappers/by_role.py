"""One transformation for hidden matrices, another for embeddings, heads, norms, biases, vectors.

Further ones may take single roles from the rest.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gradtx.compose.select import partition
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.errors import GradtxError, SelectionError
from gradtx.definition.show import show
from gradtx.definition.types import Params
from gradtx.engine.matrix_layout import names_some, words_of
from gradtx.engine.roles import leaf_roles
from gradtx.engine.selector import Leaves, PerLeaf, Where, claimed, leaves_of
from gradtx.transforms.flags import Dimensions, Routes
from gradtx.tree.names import GROUPS, names_role
from gradtx.tree.roles import MATRIX, Role

SHOWN = 3
"""How many leaves a warning names."""


@dataclasses.dataclass(frozen=True)
class Route:
    """The target of a pattern; a message about its rule shows the group alone."""

    pattern: Where
    group: str

    def __repr__(self) -> str:
        return repr(self.group)


class Assignment(NamedTuple):
    """The group of one leaf, and what decided it."""

    group: str
    role: Role
    words: str | None
    """The axes that `dimensions` name; None: those of the role."""
    is_routed: bool

    @property
    def reason(self) -> str:
        """What the leaf is, and why, for people."""
        if self.is_routed:
            return "sent by routes"
        if self.words is not None:
            return f"{MATRIX} ({self.words}), by dimensions"
        axes = f" ({self.role.words})" if self.role.is_matrix else ""
        return f"{self.role.name}{axes}, {self.role.reason}"


@dataclasses.dataclass(frozen=True)
class Roles:
    """A function of the parameters that labels each with a group."""

    hidden: str
    rest: str
    more: tuple[str, ...]
    """Groups of one role each, which takes its parameters from the rest."""
    routes: Routes | None
    dimensions: Dimensions | None

    def __call__(self, params: Params) -> PerLeaf:
        leaves = leaves_of(params)
        return PerLeaf(None if one is None else one.group for one in self.assign(leaves))

    def assign(self, leaves: Leaves) -> list[Assignment | None]:
        """For every leaf its group, by routes, by `dimensions`, then by its role."""
        words, where = words_of(self.dimensions, leaves, self.hidden), f"{self.hidden}: routes"
        rules = [(pattern, Route(pattern, group)) for pattern, group in self.routes or ()]
        routes = claimed(rules, leaves, where) if rules else [None] * len(words)
        each = zip(leaves.paths, leaves.values, leaf_roles(leaves), words, routes, strict=True)
        return [
            None if role is None else self._assign(path, np.shape(value), role, said, route)
            for path, value, role, said, route in each
        ]

    def reasons(self, leaves: Leaves) -> list[str | None]:
        """For every leaf its role, its axes and the reason, for `coverage`."""
        return [None if one is None else one.reason for one in self.assign(leaves)]

    def doubts(self, leaves: Leaves) -> str | None:
        """The leaves whose roles are guesses, and the lines that settle them."""
        each = zip(leaves.paths, leaves.values, self.assign(leaves), strict=True)
        guesses = [
            (path, np.shape(value), one)
            for path, value, one in each
            if one is not None and self._is_guess(one)
        ]
        return _describe(self.hidden, self.rest, guesses) if guesses else None

    def _is_guess(self, one: Assignment) -> bool:
        is_said = one.is_routed or one.words is not None or not names_some(self.dimensions)
        return not one.role.is_sure and not is_said

    def _assign(
        self,
        path: str,
        shape: Sequence[int],
        role: Role,
        words: str | None,
        route: Route | None,
    ) -> Assignment:
        if route is not None:
            self._check(path, tuple(shape), role, route)
            return Assignment(route.group, role, words, True)
        if not names_some(self.dimensions):
            is_hidden = words is not None
        elif words is not None:
            is_hidden = len(shape) > 1 and not role.is_named
        else:
            is_hidden = role.is_matrix
        group = self.hidden if is_hidden else self._group_of(role)
        return Assignment(group, role, words if is_hidden else None, False)

    def _group_of(self, role: Role) -> str:
        """The group of a parameter that is no hidden matrix."""
        return next((name for name in self.more if GROUPS[name] == role.name), self.rest)

    def _check(self, path: str, shape: tuple[int, ...], role: Role, route: Route) -> None:
        """Raise when a route names no group, or sends a parameter to the wrong one."""
        rule = f"{self.hidden}: the rule ({show(route.pattern)}, {route.group!r}) of routes"
        groups = (self.hidden, self.rest, *self.more)
        if route.group not in groups:
            names = f"{', '.join(map(repr, groups[:-1]))} and {groups[-1]!r}"
            raise SelectionError(f"{rule} names no group; the groups are {names}")
        if route.group != self.hidden:
            return
        if len(shape) < 2:
            raise SelectionError(
                f"{rule} claims {path!r} of shape {shape}, which is not a matrix: send it to "
                f"{self.rest!r} first"
            )
        # A pattern that names the role itself is meant so; any other may match it by accident.
        by_name = not isinstance(route.pattern, str) or names_role(route.pattern)
        if role.is_named and not by_name:
            raise SelectionError(
                f"{rule} claims {path!r}, by its name {role.name}, which {self.hidden} does not "
                f"fit: send it to {self.rest!r} first, or name it in a rule of its own to insist"
            )


def _describe(
    hidden: str, rest: str, guesses: Sequence[tuple[str, tuple[int, ...], Assignment]]
) -> str:
    """Name the leaves whose roles are guesses, and the lines that settle the first."""
    shown = [
        f"{path!r} of shape {shape} goes to {one.group!r}"
        + (f" as ({one.role.words})" if one.role.is_matrix else "")
        for path, shape, one in guesses[:SHOWN]
    ]
    if len(guesses) > SHOWN:
        shown.append(f"and {len(guesses) - SHOWN} more")
    path, shape, one = guesses[0]
    words = one.role.words or " ".join(["batch"] * (len(shape) - 2) + ["in", "out"])
    pattern = f"^{path}$"
    return (
        f"{hidden}: neither names nor shapes decide the axes of some arrays, so these are "
        f"guesses: {', '.join(shown)}; settle each, with "
        f"dimensions=[({pattern!r}, {words!r})] or routes=[({pattern!r}, {rest!r})]"
    )


@definition
def by_role(
    transforms: Mapping[str, TransformationLike],
    routes: Routes | None = None,
    dimensions: Dimensions | None = None,
) -> GradientTransformation:
    r"""One transformation for hidden matrices, another for the rest, others for single roles.

    The path of a leaf, its shape, the class of its container and the parameters around it decide.
    A leaf is a hidden matrix if it has two axes and no other role: embedding, position table, head,
    router, norm, bias, state-space parameter. Stacked layers, experts and attention heads are
    matrices of more axes; convolutions are not, unless `dimensions` names their axes. The layouts
    of Flax, Haiku, Equinox and torch tell inputs from outputs. `print(coverage(tx, params))` shows
    the group of every parameter, its axes and the reason.

    A guess is named at `init`, in a `RoleWarning`, with the line that settles it: an array of more
    axes that nothing explains, which goes to the rest; a `weight` that may be (out, in) or not.

    When: methods that treat a weight as a matrix, as Muon does; a learning rate for heads or
    embeddings of its own. When not: groups by other marks; take `partition`.

    Args:
      transforms: two, by the names of their groups: for hidden matrices, and for the rest. Further
        ones take single roles from the rest, and are named "embedding", "position", "head",
        "router", "norm" (biases too) or "dynamics" (state-space parameters).
      routes: rules `[(pattern, group), ...]` that take precedence over the roles, tried in order;
        the first that matches a path wins.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`. Rules
        take precedence over the axes of a role. A tree with axes by number also decides which
        arrays are matrices: those that it names.

    Raises:
      GradtxError: fewer than two groups, a further one that is no role, routes that are not rules.
      SelectionError: a route that matches nothing, names another group, or sends a vector to the
        first; a route that sends a parameter of another role there, unless the pattern names it.

    State: that of the groups, each for its leaves.

    >>> import gradtx, jax.numpy as jnp
    >>> groups = {"lion": gradtx.lion(1e-3), "adam": gradtx.adam(1e-3)}
    >>> tx = gradtx.by_role(groups, routes=[(r"^last", "adam")])
    >>> w = jnp.zeros((2, 2))
    >>> print(gradtx.coverage(tx, {"embed": w, "layer": {"bias": w[0], "kernel": w}, "last": w}))
    embed         adam           an embedding, by its name
    last          adam           sent by routes
    layer/bias    adam           a norm or bias, by its name
    layer/kernel  lion, decayed  a hidden matrix (in out), in JAX's order
    >>> tx = gradtx.by_role({**groups, "head": gradtx.adam(1e-4)})
    >>> print(gradtx.coverage(tx, {"kernel": w, "lm_head": w}))
    kernel   lion, decayed  a hidden matrix (in out), in JAX's order
    lm_head  head: adam     a head, by its name

    See also: `partition`, `muon`.
    """
    if not isinstance(transforms, Mapping) or len(transforms) < 2:
        raise GradtxError(
            "by_role: give two groups, {name: transformation, ...}, the first for hidden matrices, "
            "the second for the rest"
        )
    hidden, rest, *more = transforms
    if unknown := [name for name in more if name not in GROUPS]:
        raise GradtxError(
            f"by_role: the further group {unknown[0]!r} is no role; the roles are "
            f"{', '.join(map(repr, GROUPS))}"
        )
    is_list = isinstance(routes, list | tuple)
    if routes is not None and not (
        is_list and all(isinstance(rule, list | tuple) and len(rule) == 2 for rule in routes)
    ):
        raise GradtxError(
            f"by_role: routes = {routes!r} are not rules; give [(pattern, group), ...]"
        )
    return partition(transforms, Roles(hidden, rest, tuple(more), routes, dimensions))
