"""Hidden matrices to one transformation; embeddings, heads, norms, biases and vectors to another."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradtx.compose.select import partition
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.errors import GradtxError, SelectionError
from gradtx.definition.show import show
from gradtx.engine.matrix_layout import words_of
from gradtx.engine.program import leaves_of
from gradtx.engine.selector import claimed
from gradtx.tree.roles import parameter_role


@dataclasses.dataclass(frozen=True)
class Route:
    """Where a pattern sends; a message about its rule shows the group alone."""

    pattern: Any
    group: str

    def __repr__(self) -> str:
        return repr(self.group)


@dataclasses.dataclass(frozen=True)
class Roles:
    """A function of the parameters that says which of two groups each is in."""

    hidden: str
    rest: str
    routes: Any
    dimensions: Any

    def __call__(self, params: Any) -> Any:
        leaves = leaves_of(params)
        words, where = words_of(self.dimensions, leaves, self.hidden), f"{self.hidden}: routes"
        rules = [(pattern, Route(pattern, group)) for pattern, group in self.routes or ()]
        routed = claimed(rules, leaves, where) if rules else [None] * len(words)
        each = zip(leaves.paths, leaves.values, words, routed, strict=True)
        return leaves._replace(
            values=[None if leaf[1] is None else self._group(*leaf) for leaf in each]
        ).tree

    def _group(self, path: str, value: Any, words: str | None, routed: Any) -> str:
        if routed is not None:
            return self._routed(path, tuple(np.shape(value)), routed.pattern, routed.group)
        if self.dimensions is not None and not isinstance(
            self.dimensions, list | tuple
        ):  # axes by number say, too, what is a matrix
            return self.rest if words is None else self.hidden
        is_matrix = np.ndim(value) == 2 or (np.ndim(value) > 2 and words is not None)
        return self.hidden if is_matrix and parameter_role(path) is None else self.rest

    def _routed(self, path: str, shape: tuple[int, ...], pattern: Any, group: str) -> str:
        rule = f"{self.hidden}: the rule ({show(pattern)}, {group!r}) of routes"
        if group not in (self.hidden, self.rest):
            raise SelectionError(
                f"{rule} names no group; the groups are {self.hidden!r} and {self.rest!r}"
            )
        if group == self.rest:
            return group
        if len(shape) < 2:
            raise SelectionError(
                f"{rule} claims {path!r} of shape {shape}, which is no matrix: send it to {self.rest!r} before"
            )
        kind = parameter_role(path)
        if kind is not None and isinstance(pattern, str) and parameter_role(pattern) is None:
            raise SelectionError(
                f"{rule} claims {path!r}, by its name {kind}, for which {self.hidden} is not made: send it to {self.rest!r} before, "
                f"or, if you mean it, name it in a rule of its own"
            )
        return group


@definition
def by_role(
    transforms: Mapping[str, TransformationLike],
    routes: Sequence[tuple[Any, str]] | None = None,
    dimensions: Any = None,
) -> GradientTransformation:
    r"""Hidden matrices to the first of two transformations; embeddings, heads, norms, biases,
    routers and vectors to the second.

    A leaf is a hidden matrix if it has two axes, or more and `dimensions` say which, and no part of
    its path tells of another role: `embed`, `wte`, `wpe`, `emb`, `pos`, `cls_token`, `head`,
    `lm_head`, `logits`, `classifier`, `scale`, `bias`, `b`, `norm`, `rms`, `ln`, `router`, and the
    like. Stacked vectors of other names, (layers, n), look like matrices: `routes` has to tell.
    `print(coverage(tx, params))` shows who gets what.

    When: methods that treat a weight as a matrix, as Muon does. When not: other groups; take
    `partition`.

    Args:
      transforms: two, by the names of their groups: for hidden matrices, and for the rest.
      routes: rules `[(pattern, group), ...]` that go before, tried in order; the first that matches
        a path wins.
      dimensions: which axes of an array are what, as in `matrixwise`. As a tree with axes by number
        it says, too, what is a matrix: all that has them, and nothing else.

    Raises:
      GradtxError: not two groups, routes that are no rules.
      SelectionError: a route that matches nothing, sends to another group, or sends a vector to the
        first; or what by its name is no hidden matrix, unless the pattern names it.

    State: that of the two, each for its leaves.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.by_role({"lion": gradtx.lion(1e-3), "adam": gradtx.adam(1e-3)}, routes=[(r"^last", "adam")])
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
            "by_role: give two groups, {name: transformation, ...}, the first for hidden matrices, the second for the rest"
        )
    if routes is not None and not _are_pairs(routes):
        raise GradtxError(
            f"by_role: routes = {routes!r} are no rules; give [(pattern, group), ...]"
        )
    hidden, rest = transforms
    return partition(transforms, Roles(hidden, rest, routes, dimensions))


def _are_pairs(routes: Any) -> bool:
    return isinstance(routes, list | tuple) and all(
        isinstance(rule, list | tuple) and len(rule) == 2 for rule in routes
    )
