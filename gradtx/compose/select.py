"""Selecting parameters by path: `masked` and `partition`."""

from collections.abc import Mapping
from typing import Any

from gradtx.compose.binding import Branch
from gradtx.compose.transformation import (
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.definition.errors import SelectionError
from gradtx.definition.spelling import label_text
from gradtx.engine.selector import Selector, Where
from gradtx.tree.paths import repeated


@definition
def masked(inner: TransformationLike, mask: Where) -> list[Branch]:
    r"""`inner` on some leaves; the others pass through unchanged, and keep no slots.

    When: one transformation is for some leaves only. When not: every leaf is to get one of several;
    take `partition`. To stop leaves from moving, take `freeze`.

    Args:
      inner: the transformation.
      mask: which leaves it is for. A regular expression, searched for in paths like
        `encoder/0/kernel`; a predicate `(path, array) -> bool`; a pytree of bools (a prefix of the
        parameters suffices); or a function of the parameters that returns one.

    Raises:
      SelectionError: at `init` and `update`, when an expression or predicate chooses no leaf, or a
        tree of bools does not fit. A tree of bools is taken at its word, all False included.

    State: that of `inner`, for the chosen leaves.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"dense": {"bias": jnp.ones(1), "kernel": jnp.ones(1)}}
    >>> tx = gradtx.masked(gradtx.scale(-1.0), r"kernel$")
    >>> updates, _ = tx.update(params, tx.init(params))
    >>> updates["dense"]["bias"].item(), updates["dense"]["kernel"].item()
    (1.0, -1.0)
    """
    member = as_transformation(inner)
    return [Branch(None, member, Selector(mask, True, f"masked({member.name})"))]


@definition
def partition(transforms: Mapping[Any, TransformationLike], param_labels: Any) -> list[Branch]:
    r"""Different transformations for different leaves.

    When: groups of parameters need other methods or other numbers. When not: to leave out a few
    leaves; take `masked`.

    Args:
      transforms: group -> transformation; a group is a text, a bool, an int or an Enum. State and
        hyperparameters name it by its text.
      param_labels: rules `[(pattern, group), ...]`, tried in order, the first match wins; a pattern
        is a regular expression on paths or a predicate `(path, array) -> bool`. Or, as in Optax, a
        pytree of group names (a prefix of the parameters suffices), or a function of the parameters
        that returns one.

    Raises:
      SelectionError: a rule matches no leaf, or only leaves that earlier rules claim (the last rule
        may: it takes the leaves that others left); a leaf that no rule claims; a group that does
        not exist.

    State: that of every group, for its leaves.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"dense": {"bias": jnp.ones(1), "kernel": jnp.ones(1)}}
    >>> groups = {"plain": gradtx.sgd(1.0), "rest": gradtx.lion(1.0)}
    >>> tx = gradtx.partition(groups, [(r"bias$", "plain"), (r".*", "rest")])
    >>> print(gradtx.coverage(tx, params))
    dense/bias    plain: sgd
    dense/kernel  rest: lion, decayed
    """
    groups = tuple(transforms)
    if not groups:
        raise SelectionError(
            "partition: transforms is empty, so no leaf has a group: give {name: transformation}"
        )
    names = [label_text(group) for group in groups]
    if (twice := repeated(tuple(names))) is not None:
        raise SelectionError(
            f"partition: two groups have the name {twice!r} in the state: give them other labels"
        )
    return [
        Branch(name, as_transformation(one), Selector(param_labels, group, "partition", groups))
        for name, (group, one) in zip(names, transforms.items(), strict=True)
    ]
