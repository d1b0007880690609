"""The diagonal of the Hessian, from products of the Hessian with random signs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import StructureError
from gradtx.definition.show import show_array
from gradtx.definition.types import Hyperparam
from gradtx.tree.casts import as_array, is_inexact
from gradtx.tree.keys import leaf_key, path_hash
from gradtx.tree.paths import flatten, leaf_paths


def _estimate(
    updates: Any, slots: None, params: Any, step: Any, *, key: Any, obj_fn: Callable[..., Any]
) -> Any:
    values, treedef = flatten(params)
    places = [index for index, value in enumerate(values) if is_inexact(value)]
    arrays, paths = [as_array(values[index]) for index in places], leaf_paths(treedef)
    for index, array in zip(places, arrays, strict=True):
        if jnp.iscomplexobj(array):
            raise StructureError(
                f"hutchinson_estimator_diag_hessian is not defined for complex numbers, and {paths[index]!r} is {show_array(array)}: "
                "leave that leaf out with masked(...)"
            )
    loss = functools.partial(_loss, obj_fn, treedef, values, places)
    signs = [
        _signs(leaf_key(key, step, path_hash(paths[index])), array)
        for index, array in zip(places, arrays, strict=True)
    ]
    products = jax.jvp(jax.grad(loss), (arrays,), (signs,))[1] if arrays else []
    found, shape = flatten(updates)
    for index, sign, product in zip(places, signs, products, strict=True):
        found[index] = (sign * product).astype(jnp.result_type(found[index]))
    return jax.tree.unflatten(shape, found), slots


def _loss(
    obj_fn: Callable[..., Any],
    treedef: Any,
    values: Sequence[Any],
    places: Sequence[int],
    arrays: Sequence[Any],
) -> Any:
    """The loss as a function of the float arrays alone."""
    filled = list(values)
    for index, array in zip(places, arrays, strict=True):
        filled[index] = array
    return obj_fn(jax.tree.unflatten(treedef, filled))


def _signs(key: jax.Array, like: jax.Array) -> jax.Array:
    """Rademacher numbers, drawn alike in every precision."""
    return jnp.where(jax.random.bits(key, like.shape, jnp.uint8) & 1, 1, -1).astype(like.dtype)


@definition
def hutchinson_estimator_diag_hessian(
    random_seed: Hyperparam | None = None,
) -> GradientTransformation:
    r"""An estimate of the diagonal of the Hessian in the place of the updates: u = z ⊙ H z, z of
    random signs.

    z, u and θ have one shape, array by array; H is the Hessian of all arrays together. The mean
    over z is the diagonal; where H is diagonal, u is exactly it. The price is about two gradients.

    When: in `sophia`, as its `hessian_diagonal_fn`. When not: by itself at every step as if it were
    exact: the variance of an entry is the sum of the squares of its row beside the diagonal.

    `update(..., params, obj_fn=loss)` must be called with the loss as a function of the parameters.

    Args:
      random_seed: a number, or a random key; None: 0. Every array draws its own signs at every
        step, from the seed, the number of the step and the array's path.

    Raises:
      MissingParamsError: `update` is called without parameters.
      MissingExtraError: `update` is called without `obj_fn=`.
      StructureError: a complex leaf.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, w = gradtx.hutchinson_estimator_diag_hessian(), jnp.array([1.0, 2.0])
    >>> u, _ = tx.update(w, tx.init(w), w, obj_fn=lambda w: 3 * w[0] ** 2 + w[1] ** 3)  # the Hessian is diag(6, 6 w[1])
    >>> u.tolist()
    [6.0, 12.0]

    See also: `sophia`.

    Hutchinson 1990, Communications in Statistics 19, for the trace; Bekas, Kokiopoulou and Saad
    2007, Applied Numerical Mathematics 57, for the diagonal.
    """
    key = 0 if random_seed is None else random_seed
    return treewise(None, _estimate, key=key, extra=("obj_fn",), needs_params=True)
