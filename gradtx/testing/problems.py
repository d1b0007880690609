"""Small trees with every kind of leaf, and gradients for them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import GradientTransformation
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import is_inexact
from gradtx.tree.paths import is_none


def parameters(dtype: Any = jnp.float32, seed: int = 0) -> dict[str, Any]:
    """Nested containers with matrices, vectors, a scalar, an empty array, an integer and None.

    Two leaves are alike, so that kernels are shared; one key sorts before its neighbour under
    another name."""
    shapes = {
        "dense": {"kernel": (3, 4), "bias": (4,)},
        "layers": [{"w": (2, 2)}, {"w": (2, 2)}],
        "scalar": (),
        "empty": (0, 3),
    }
    generator = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda shape: _normal(generator, shape, dtype),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    return {**params, "step": jnp.asarray(3, jnp.int32), "absent": None}


def gradients(params: Any, seed: int = 1, scale: float = 1.0) -> Any:
    """Normal random gradients like `params`; zeros for integers, None for None."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: _gradient(generator, leaf, scale), params, is_leaf=is_none)


def extras(tx: GradientTransformation, params: Any, grads: Any) -> dict[str, Any]:
    """The extra arguments that a definition needs, by name: a loss, the gradients, a function that
    has both there, logits of two heads.
    """
    around = functools.partial(bowl, params, grads)
    known: dict[str, Any] = {
        "value": jnp.asarray(1.5),
        "grad": grads,
        "value_fn": around,
        "obj_fn": quadratic,
        "grad_fn": slope,
    }
    known["max_logits"] = jnp.asarray([80.0, 120.0])
    return {name: known[name] for name in sorted(tx.needs - {"params"})}


def bowl(center: Any, grads: Any, params: Any) -> jax.Array:
    """A parabola that is 1.5 at some parameters, with gradients of choice there: 1.5 + ⟨g, x⟩ + 2
    ‖x‖² at a distance x.
    """
    leaves = zip(
        *(jax.tree.leaves(tree, is_leaf=is_none) for tree in (params, center, grads)), strict=True
    )
    parts = [_rise(*leaf) for leaf in leaves if is_inexact(leaf[0])]
    return sum(parts, start=jnp.full((), 1.5))


def _rise(param: jax.Array, center: jax.Array, grad: jax.Array) -> jax.Array:
    here, there, g = (
        leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in (param, center, grad)
    )
    return jnp.sum((g.conj() * (here - there)).real) + 2 * jnp.sum(abs_sq(here - there))


def quadratic(params: Any) -> jax.Array:
    """Half the squared norm of the parameters, a loss that every tree has."""
    arrays = [leaf for leaf in jax.tree.leaves(params) if is_inexact(leaf)]
    return sum(
        (0.5 * jnp.sum(jnp.abs(leaf.astype(jnp.float32)) ** 2) for leaf in arrays),
        start=jnp.zeros(()),
    )


def slope(params: Any, step: Any = 0) -> Any:
    """The gradient of `quadratic`."""
    return jax.tree.map(lambda leaf: leaf if is_inexact(leaf) else jnp.zeros_like(leaf), params)


def _gradient(generator: np.random.Generator, leaf: Any, scale: float) -> Any:
    if leaf is None:
        return None
    return (
        _normal(generator, leaf.shape, leaf.dtype, scale)
        if is_inexact(leaf)
        else jnp.asarray(np.zeros(leaf.shape, leaf.dtype))
    )


def _normal(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: Any, scale: float = 1.0
) -> jax.Array:
    """Made by NumPy, so that nothing is compiled."""
    values = scale * generator.normal(size=shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        values = values + 1j * scale * generator.normal(size=shape)
    return jnp.asarray(np.asarray(values).astype(dtype))
