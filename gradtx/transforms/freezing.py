"""Leave parameters as they are."""

from gradtx.compose.binding import Branch
from gradtx.compose.select import masked
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.engine.selector import Selector, Where
from gradtx.transforms.scaling import set_to_zero


@definition
def freeze(mask: Where) -> GradientTransformation:
    """Zero updates for the chosen leaves: u ← 0 there, u ← u elsewhere.

    Put it last in a chain. To spare the state as well, give the optimizer itself the other leaves,
    with `masked` or `partition`.

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
    """
    return masked(set_to_zero(), mask)


@definition
def selective_transform(optimizer: TransformationLike, *, freeze_mask: Where) -> list[Branch]:
    """`optimizer` where the mask is False; zero updates, and no slots, where it is True.

    When: some parameters are to stay as they are. When not: they need another optimizer; take
    `partition`.

    Args:
      optimizer: the transformation for the leaves that move.
      freeze_mask: which leaves stay (see `masked`).

    Raises:
      SelectionError: as `masked` does.

    State: that of `optimizer`, for the leaves that move.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"head": jnp.ones(1), "trunk": jnp.ones(1)}
    >>> tx = gradtx.selective_transform(gradtx.sgd(1.0, momentum=0.9), freeze_mask="trunk")
    >>> {path: u.item() for path, u in tx.update(params, tx.init(params))[0].items()}
    {'head': -1.0, 'trunk': 0.0}
    >>> tx.init(params).slots["trace"].trace["trunk"] is None
    True
    """
    member = as_transformation(optimizer)
    chosen = {
        frozen: Selector(freeze_mask, frozen, f"selective_transform({member.name})")
        for frozen in (False, True)
    }
    return [Branch(None, member, chosen[False]), Branch(None, set_to_zero(), chosen[True])]
