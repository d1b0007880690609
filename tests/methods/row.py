"""What a row of the table says, and the functions that several rows share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import gradtx
from tests.support.peer import optax


class Method(NamedTuple):
    """One row.

    The tolerances are relative to the largest entry of an array's update at that step; one that is
    wider than its default has its reason beside it.
    """

    tx: gradtx.GradientTransformation
    oracle: Callable[..., Any]
    optax: Any = None
    float64: float = 1e-12
    """In x64 against the oracle, and against Optax."""
    float32: float = 1e-5
    """In float32 against the oracle. Arguments are chosen so that no sum cancels: what is measured
    is below two thirds of this, compiled with optimising and without, since other processors round
    otherwise."""
    optax64: float = 1e-12
    """In x64 against Optax, where it computes a part in float32."""
    extra: Callable[..., dict[str, Any]] | None = None
    """`extra(step, params, gradients)`: what `update` and the oracle are told besides, by name;
    params as a list of arrays.
    """
    breaks: tuple[str, ...] = ()
    """The laws that it breaks because that is what it is for; a comment beside it says why."""
    copies: str = ""
    """Why XLA copies arrays of a donated step for a GPU, as it does for no other method."""


def rate(count: Any) -> Any:
    """A schedule that NumPy, gradtx and Optax all understand."""
    return 0.1 / (1.0 + real(count))


def real(count: Any) -> Any:
    """A count that enters arithmetic with floats; strict promotion refuses integers there."""
    return count.astype(float) if isinstance(count, jax.Array) else count


def double(updates: Any, params: Any) -> Any:
    return jax.tree.map(lambda u: 2 * u, updates)


def everywhere(path: str, leaf: Any) -> bool:
    return True


def uphill(update: Any, param: Any) -> Any:
    """A function of one array, and of its parameter where that is given."""
    return update if param is None else update * param


def flat(params: Any) -> Any:
    """A mask as a function of the parameters: the arrays of one axis, if there are any."""
    return jax.tree.map(lambda param: jnp.ndim(param) == 1, params)


def projected(projection: Any, scale: float) -> Any:
    """Optax's projection of the next parameters, as a transformation."""

    def update(updates: Any, params: Any) -> Any:
        points = projection(jax.tree.map(jnp.add, params, updates), scale)
        return jax.tree.map(jnp.subtract, points, params)

    return optax.stateless(update)
