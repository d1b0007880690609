"""Scaling of updates: by a number, a schedule or zero; and functions of your own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.types import Array, Hyperparam, Params, Updates
from gradtx.tree.maps import map_leaves


def _scale(grad, slots: None, param, step, *, step_size):
    return step_size * grad, slots


@definition
def scale(step_size: Hyperparam) -> GradientTransformation:
    """Scale updates by a number: u ← c u.

    Args:
      step_size: c, any real number, array or schedule; negative to descend.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale(-0.5)
    >>> tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0].tolist()
    [-2.0]
    """
    return leafwise(None, _scale)


@definition
def scale_by_schedule(step_size_fn: Hyperparam) -> GradientTransformation:
    """Scale updates by a schedule: u ← c(count) u, count = 0 on the first update.

    Args:
      step_size_fn: c, a schedule; `scale` accepts one too, this is Optax's name for it.

    State: 0 bytes per parameter; the count is the root's.

    >>> import gradtx, jax.numpy as jnp
    >>> halving = gradtx.exponential_decay(1.0, transition_steps=1, decay_rate=0.5)
    >>> tx = gradtx.scale_by_schedule(halving)
    >>> state, g = tx.init(jnp.zeros(1)), jnp.array([8.0])
    >>> for _ in range(3): u, state = tx.update(g, state)
    >>> u.tolist()
    [2.0]
    """
    return leafwise(None, _scale, step_size=step_size_fn)


def _identity(grad, slots: None, param, step):
    return grad, slots


@definition
def identity() -> GradientTransformation:
    """Return the updates unchanged: u ← u.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.identity()
    >>> tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0].tolist()
    [4.0]
    """
    return leafwise(None, _identity)


def _zero(grad, slots: None, param, step):
    # A program that reads no array has no devices, where explicit axes would need them.
    return jnp.where(jnp.zeros_like(grad, bool), grad, jnp.zeros_like(grad)), slots


@definition
def set_to_zero() -> GradientTransformation:
    """Replace updates by zeros, nan and inf included: u ← 0.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.set_to_zero()
    >>> tx.update(jnp.array([jnp.nan]), tx.init(jnp.zeros(1)))[0].tolist()
    [0.0]
    """
    return leafwise(None, _zero, ignores_input=True)


def _apply_tree(
    updates, slots: None, params, step, *, f: Callable[[Updates, Params | None], Updates]
):
    return f(updates, params), slots


@definition
def stateless(f: Callable[[Updates, Params | None], Updates]) -> GradientTransformation:
    """Make a transformation from a function of whole trees: u ← f(u, θ).

    Args:
      f: `f(updates, params) -> updates`; `params` is None when the caller passes none. Static: two
        definitions are equal when they hold the same function.

    State: 0 bytes per parameter.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.stateless(lambda updates, params: jax.tree.map(jnp.sign, updates))
    >>> tx.update(jnp.array([-4.0]), tx.init(jnp.zeros(1)))[0].tolist()
    [-1.0]
    """
    return treewise(None, _apply_tree)


def _apply_leaves(updates, slots: None, params, step, *, f: Callable[[Array, Array | None], Array]):
    if params is None:
        params = jax.tree.map(lambda _: None, updates)
    return map_leaves(f, updates, params), slots


@definition
def stateless_with_tree_map(
    f: Callable[[Array, Array | None], Array],
) -> GradientTransformation:
    """Make a transformation from a function of one array: u ← f(u, θ), array by array.

    The function receives float32 at least, and its result is rounded to the dtype of the gradient.
    It does not receive None and integers.

    Args:
      f: `f(update, param) -> update`; `param` is None when the caller passes no parameters. Static:
        two definitions are equal when they hold the same function.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.stateless_with_tree_map(lambda update, param: jnp.sign(update))
    >>> tx.update({"a": jnp.array([-4.0])}, tx.init({"a": jnp.zeros(1)}))[0]["a"].tolist()
    [-1.0]
    """
    return treewise(None, _apply_leaves)
