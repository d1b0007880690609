"""Constraints on updates and parameters: no nan, no parameter below zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition


class FoundNan(NamedTuple):
    """Whether the last gradient of an array held a nan."""

    found_nan: jax.Array


def _init(param) -> FoundNan:
    return FoundNan(jnp.zeros((), bool))


def _zero_nans(grad, slots: FoundNan, param, step):
    is_nan = jnp.isnan(grad)
    return jnp.where(is_nan, 0.0, grad), FoundNan(jnp.any(is_nan))


@definition
def zero_nans() -> GradientTransformation:
    """Replace NaN by zero in the updates: u ← 0 where g is nan, else u ← g.

    inf does not change. Put it first in a chain, so that no nan enters an average.

    When: a gradient is now and then undefined for good reason, for example by a division by a
    distance of 0. When not: a nan is a sign of failed training; this transformation hides it, and
    only `found_nan` shows it.

    State: 1 byte per array: `found_nan`, whether its last gradient held a nan.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.zero_nans()
    >>> g = {"a": jnp.array([1.0, jnp.nan]), "b": jnp.array(jnp.inf)}
    >>> updates, state = tx.update(g, tx.init(g))
    >>> updates["a"].tolist(), updates["b"].item()
    ([1.0, 0.0], inf)
    >>> {path: flag.item() for path, flag in state.slots["zero_nans"].found_nan.items()}
    {'a': True, 'b': False}
    """
    return leafwise(_init, _zero_nans)


def _stop_at_zero(grad, slots: None, param, step):
    return jnp.where(param + grad < 0, -param, grad), slots


@definition
def keep_params_nonnegative() -> GradientTransformation:
    """Keep parameters nonnegative: u ← max(u, −θ), so that θ + u ≥ 0.

    u and θ have one shape. Put it last in a chain. A parameter that is already negative moves to
    zero, or beyond it by a positive step. A nan stays nan.

    When: rates, variances, counts, mixing weights. When not: a value of exactly 0 is as bad as a
    negative one; learn its logarithm.

    Raises:
      MissingParamsError: `update` is called without parameters.
      StructureError: a complex leaf, since complex numbers have no order.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([1.0, 1.0])
    >>> tx = gradtx.keep_params_nonnegative()
    >>> updates, _ = tx.update(jnp.array([-0.5, -3.0]), tx.init(w), w)
    >>> updates.tolist(), gradtx.apply_updates(w, updates).tolist()
    ([-0.5, -1.0], [0.5, 0.0])
    """
    return leafwise(None, _stop_at_zero, needs_params=True, real_only=True)
