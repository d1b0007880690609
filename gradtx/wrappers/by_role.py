"""One transformation for hidden matrices, another for embeddings, heads, norms, biases, vectors."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from gradtx.compose.select import partition
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.errors import GradtxError, SelectionError
from gradtx.definition.show import show
from gradtx.definition.types import ArrayLike, Params
from gradtx.engine.matrix_layout import words_of
from gradtx.engine.selector import PerLeaf, Where, claimed, leaves_of
from gradtx.transforms.flags import Dimensions, Routes
from gradtx.tree.roles import parameter_role


@dataclasses.dataclass(frozen=True)
class Route:
    """The target of a pattern; a message about its rule shows the group alone."""

    pattern: Where
    group: str

    def __repr__(self) -> str:
        return repr(self.group)


@dataclasses.dataclass(frozen=True)
class Roles:
    """A function of the parameters that labels each with one of two groups."""

    hidden: str
    rest: str
    routes: Routes | None
    dimensions: Dimensions | None

    def __call__(self, params: Params) -> PerLeaf:
        leaves = leaves_of(params)
        words, where = words_of(self.dimensions, leaves, self.hidden), f"{self.hidden}: routes"
        rules = [(pattern, Route(pattern, group)) for pattern, group in self.routes or ()]
        routes = claimed(rules, leaves, where) if rules else [None] * len(words)
        groups = [
            None if value is None else self._group(path, value, axes, route)
            for path, value, axes, route in zip(
                leaves.paths, leaves.values, words, routes, strict=True
            )
        ]
        return PerLeaf(groups)

    def _group(self, path: str, value: ArrayLike, words: str | None, route: Route | None) -> str:
        if route is not None:
            self._check(path, np.shape(value), route)
            return route.group
        # A tree of axes by number names all matrices; rules only name arrays of more axes.
        if self.dimensions is not None and not isinstance(self.dimensions, list | tuple):
            return self.rest if words is None else self.hidden
        is_matrix = np.ndim(value) == 2 or (np.ndim(value) > 2 and words is not None)
        return self.hidden if is_matrix and parameter_role(path) is None else self.rest

    def _check(self, path: str, shape: tuple[int, ...], route: Route) -> None:
        """Raise when a route names no group, or sends a parameter to the wrong one."""
        rule = f"{self.hidden}: the rule ({show(route.pattern)}, {route.group!r}) of routes"
        if route.group not in (self.hidden, self.rest):
            raise SelectionError(
                f"{rule} names no group; the groups are {self.hidden!r} and {self.rest!r}"
            )
        if route.group == self.rest:
            return
        if len(shape) < 2:
            raise SelectionError(
                f"{rule} claims {path!r} of shape {shape}, which is not a matrix: send it to "
                f"{self.rest!r} first"
            )
        role = parameter_role(path)
        # A pattern that names the role itself is meant so; any other may match it by accident.
        by_name = not isinstance(route.pattern, str) or parameter_role(route.pattern) is not None
        if role is not None and not by_name:
            raise SelectionError(
                f"{rule} claims {path!r}, by its name {role}, which {self.hidden} does not fit: "
                f"send it to {self.rest!r} first, or name it in a rule of its own to insist"
            )


@definition
def by_role(
    transforms: Mapping[str, TransformationLike],
    routes: Routes | None = None,
    dimensions: Dimensions | None = None,
) -> GradientTransformation:
    r"""One transformation for hidden matrices, another for all other parameters.

    A leaf is a hidden matrix if it has two axes, or more axes that `dimensions` names, and if no
    part of its path names another role. The parts that do are `embed`, `wte`, `wpe`, `emb`, `pos`,
    `cls_token`, `head`, `lm_head`, `logits`, `classifier`, `scale`, `bias`, `b`, `norm`, `rms`,
    `ln`, `router`, and the like. Stacked vectors of other names, (layers, n), look like matrices:
    `routes` must send them. `print(coverage(tx, params))` shows the group of every parameter.

    When: methods that treat a weight as a matrix, as Muon does. When not: other groups; take
    `partition`.

    Args:
      transforms: two, by the names of their groups: for hidden matrices, and for the rest.
      routes: rules `[(pattern, group), ...]` that take precedence over the roles, tried in order;
        the first that matches a path wins.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`. A tree
        with axes by number also decides which arrays are matrices: those that it names.

    Raises:
      GradtxError: not two groups, routes that are not rules.
      SelectionError: a route that matches nothing, names another group, or sends a vector to the
        first; a route that sends a parameter of another role there, unless the pattern names it.

    State: that of the two, each for its leaves.

    >>> import gradtx, jax.numpy as jnp
    >>> groups = {"lion": gradtx.lion(1e-3), "adam": gradtx.adam(1e-3)}
    >>> tx = gradtx.by_role(groups, routes=[(r"^last", "adam")])
    >>> w = jnp.zeros((2, 2))
    >>> print(gradtx.coverage(tx, {"embed": w, "layer": {"bias": w[0], "kernel": w}, "last": w}))
    embed         adam
    last          adam
    layer/bias    adam
    layer/kernel  lion

    See also: `partition`, `muon`.
    """
    if not isinstance(transforms, Mapping) or len(transforms) != 2:
        raise GradtxError(
            "by_role: give two groups, {name: transformation, ...}, the first for hidden matrices, "
            "the second for the rest"
        )
    is_list = isinstance(routes, list | tuple)
    if routes is not None and not (
        is_list and all(isinstance(rule, list | tuple) and len(rule) == 2 for rule in routes)
    ):
        raise GradtxError(
            f"by_role: routes = {routes!r} are not rules; give [(pattern, group), ...]"
        )
    hidden, rest = transforms
    return partition(transforms, Roles(hidden, rest, routes, dimensions))
