"""The diagonal of the Hessian, from products of the Hessian with random signs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import StructureError
from gradtx.definition.show import show_array
from gradtx.definition.types import ArrayLike, Hyperparam, Params
from gradtx.tree.casts import as_array, is_inexact
from gradtx.tree.keys import leaf_key, path_hash
from gradtx.tree.paths import flatten, leaf_paths


def _hutchinson(updates, slots: None, params, step, *, key, obj_fn: Callable[[Params], ArrayLike]):
    leaves, treedef = flatten(params)
    paths = leaf_paths(treedef, params)
    # Only float arrays have derivatives; integers and None stay in their places.
    places = [place for place, leaf in enumerate(leaves) if is_inexact(leaf)]
    arrays = [as_array(leaves[place]) for place in places]
    for place, array in zip(places, arrays, strict=True):
        _check_real(paths[place], array)

    def loss(arrays):
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        return obj_fn(jax.tree.unflatten(treedef, filled))

    keys = [leaf_key(key, step, path_hash(paths[place])) for place in places]
    signs = [_signs(one, array) for one, array in zip(keys, arrays, strict=True)]
    products = jax.jvp(jax.grad(loss), (arrays,), (signs,))[1] if arrays else []
    estimates, structure = flatten(updates)
    for place, sign, product in zip(places, signs, products, strict=True):
        estimates[place] = (sign * product).astype(jnp.result_type(estimates[place]))
    return jax.tree.unflatten(structure, estimates), slots


def _check_real(path: str, array: jax.Array) -> None:
    """Raise for a complex array, whose Hessian has no real diagonal."""
    if jnp.iscomplexobj(array):
        raise StructureError(
            "hutchinson_estimator_diag_hessian is not defined for complex numbers, and "
            f"{path!r} is {show_array(array)}: leave that leaf out with masked(...)"
        )


def _signs(key: jax.Array, like: jax.Array) -> jax.Array:
    """Random signs from bits, which are the same in every precision of the array."""
    return jnp.where(jax.random.bits(key, like.shape, jnp.uint8) & 1, 1, -1).astype(like.dtype)


@definition
def hutchinson_estimator_diag_hessian(
    random_seed: Hyperparam | None = None,
) -> GradientTransformation:
    r"""Hutchinson's estimator of the Hessian diagonal: u = z ⊙ H z, with random signs z.

    u takes the place of the updates. z, u and θ have one shape, array by array; H is the Hessian of
    all arrays together. The mean over z is the diagonal; where H is diagonal, u is exactly the
    diagonal. The price is about two gradients.

    When: in `sophia`, as its `hessian_diagonal_fn`. When not: as an exact diagonal at every step.
    The variance of an entry is the sum of the squares of its row without the diagonal.

    `update(..., params, obj_fn=loss)` needs the loss as a function of the parameters.

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
    >>> loss = lambda w: 3 * w[0] ** 2 + w[1] ** 3
    >>> u, _ = tx.update(w, tx.init(w), w, obj_fn=loss)
    >>> u.tolist()  # the Hessian is diag(6, 6 w[1])
    [6.0, 12.0]

    See also: `sophia`.

    Hutchinson 1990, Communications in Statistics 19, for the trace; Bekas, Kokiopoulou and Saad
    2007, Applied Numerical Mathematics 57, for the diagonal.
    """
    key = 0 if random_seed is None else random_seed
    return treewise(None, _hutchinson, key=key, extra=("obj_fn",), needs_params=True)
