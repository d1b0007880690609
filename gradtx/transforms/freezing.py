"""Leave parameters as they are."""

from gradtx.core.select import masked
from gradtx.core.selector import Where
from gradtx.core.transformation import GradientTransformation, definition
from gradtx.transforms.scaling import set_to_zero


@definition
def freeze(mask: Where) -> GradientTransformation:
    """Zero updates for the chosen leaves: u ← 0 there, u ← u elsewhere.

    Put it last in a chain. To spare the state as well, give the optimizer itself the other leaves, with
    `masked` or `partition`.

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
