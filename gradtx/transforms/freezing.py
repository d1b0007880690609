"""Frozen parameters: zero updates for some leaves."""

from gradtx.compose.binding import Branch
from gradtx.compose.transformation import (
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.engine.selector import Selector, Where
from gradtx.transforms.scaling import set_to_zero


@definition
def freeze(mask: Where) -> list[Branch]:
    """Freeze parameters: zero updates for the leaves of a mask, u ← u elsewhere.

    Put it last in a chain. The members before it then store nothing for frozen leaves; a norm over
    the tree, such as that of `clip_by_global_norm`, still counts their gradients.

    Args:
      mask: which leaves to freeze (see `masked`).

    Raises:
      SelectionError: as `masked` does.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"head": jnp.ones(1), "trunk": jnp.ones(1)}
    >>> tx = gradtx.freeze("trunk")
    >>> {path: u.item() for path, u in tx.update(params, tx.init(params))[0].items()}
    {'head': 1.0, 'trunk': 0.0}
    >>> list(gradtx.flatten_state(gradtx.chain(gradtx.adam(1.0), tx).init(params)))
    ['count', 'slots/adam/scale_by_adam/mu/head', 'slots/adam/scale_by_adam/nu/head']
    """
    return [Branch(None, set_to_zero(), Selector(mask, True, "freeze"))]


@definition
def selective_transform(optimizer: TransformationLike, *, freeze_mask: Where) -> list[Branch]:
    """Fine-tune some parameters with `optimizer`, and freeze the leaves of a mask.

    Frozen leaves have zero updates and no slots.

    When: some parameters are not to change. When not: they need another optimizer; take
    `partition`.

    Args:
      optimizer: the transformation for the leaves that train.
      freeze_mask: which leaves are frozen (see `masked`).

    Raises:
      SelectionError: as `masked` does.

    State: that of `optimizer`, for the leaves that train.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"head": jnp.ones(1), "trunk": jnp.ones(1)}
    >>> tx = gradtx.selective_transform(gradtx.sgd(1.0, momentum=0.9), freeze_mask="trunk")
    >>> {path: u.item() for path, u in tx.update(params, tx.init(params))[0].items()}
    {'head': -1.0, 'trunk': 0.0}
    >>> tx.init(params).slots["trace"].trace["trunk"] is None
    True
    """
    member = as_transformation(optimizer)
    where = f"selective_transform({member.name})"
    return [
        Branch(None, member, Selector(freeze_mask, False, where)),
        Branch(None, set_to_zero(), Selector(freeze_mask, True, where)),
    ]
