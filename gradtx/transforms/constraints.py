"""Keep updates and parameters where they may be: no nan, no parameter below zero."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition


class FoundNan(NamedTuple):
    """Whether the last gradient of an array held a nan."""

    found_nan: jax.Array


def _init_found(param: jax.Array) -> FoundNan:
    return FoundNan(jnp.zeros((), bool))


def _zero_nans(grad: jax.Array, slots: FoundNan, param: None, step: jax.Array) -> Any:
    bad = jnp.isnan(grad)
    return jnp.where(bad, 0.0, grad), FoundNan(jnp.any(bad))


@definition
def zero_nans() -> GradientTransformation:
    """Replace nan by zero, and remember where it was: u ← 0 where g is nan, else u ← g.

    inf stays. Put it first in a chain, so that no average takes the nan in.

    When: a gradient is now and then undefined for good reason, such as a division by a distance of
    0. When not: a nan says that training has gone wrong; this hides it, but for `found_nan`.

    State: 1 byte per array: `found_nan`, whether its last gradient held a nan.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.zero_nans()
    >>> g = {"a": jnp.array([1.0, jnp.nan]), "b": jnp.array(jnp.inf)}
    >>> updates, state = tx.update(g, tx.init(g))
    >>> updates["a"].tolist(), updates["b"].item()
    ([1.0, 0.0], inf)
    >>> {path: found.item() for path, found in state.slots["zero_nans"].found_nan.items()}
    {'a': True, 'b': False}
    """
    return leafwise(_init_found, _zero_nans)


def _stop_at_zero(grad: jax.Array, slots: None, param: jax.Array, step: jax.Array) -> Any:
    return jnp.where(param + grad < 0, -param, grad), slots


@definition
def keep_params_nonnegative() -> GradientTransformation:
    """Stop every parameter at zero: u ← max(u, −θ), so that θ + u ≥ 0.

    u and θ have one shape. Put it last in a chain; a parameter that is negative already is brought
    to zero, or beyond it by a positive step. A nan stays nan.

    When: rates, variances, counts, mixing weights. When not: a value of exactly 0 is as bad as a
    negative one; learn its logarithm.

    Raises:
      MissingParamsError: `update` is called without parameters.
      StructureError: a complex leaf, for which there is no order.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([1.0, 1.0])
    >>> tx = gradtx.keep_params_nonnegative()
    >>> updates, _ = tx.update(jnp.array([-0.5, -3.0]), tx.init(w), w)
    >>> updates.tolist(), gradtx.apply_updates(w, updates).tolist()
    ([-0.5, -1.0], [0.5, 0.0])
    """
    return leafwise(None, _stop_at_zero, needs_params=True, real_only=True)
