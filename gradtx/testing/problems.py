"""Test problems: small trees with every kind of leaf, and their gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.types import DTypeLike, Params, Updates
from gradtx.tree.arithmetic import abs_sq, sum_promoted
from gradtx.tree.casts import compute_dtype, is_inexact
from gradtx.tree.paths import is_none, path_text


def parameters(dtype: DTypeLike = jnp.float32, seed: int = 0) -> dict[str, Any]:
    """Nested containers with matrices, vectors, a scalar, an empty array, an integer and None.

    Two leaves are alike, so that they share a kernel. One key sorts before its neighbor under
    another name.
    """
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


def gradients(params: Params, seed: int = 1, scale: float = 1.0) -> Any:
    """Normal random gradients like `params`; zeros for integers, None for None."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: _gradient(generator, leaf, scale), params, is_leaf=is_none)


def extras(tx: GradientTransformation, params: Params, grads: Updates) -> dict[str, Any]:
    """The extra arguments that a definition needs, by name.

    They are a loss, the gradients, a function with both at the parameters, and logits of two heads,
    and a second moment of the inputs of every matrix.
    """
    known: dict[str, Any] = {
        "value": jnp.asarray(1.5),
        "grad": grads,
        "value_fn": functools.partial(bowl, params, grads),
        "obj_fn": quadratic,
        "grad_fn": slope,
        "max_logits": jnp.asarray([80.0, 120.0]),
        "input_moments": _moments(grads),
    }
    return {name: known[name] for name in sorted(tx.needs - {"params"})}


def _moments(grads: Updates) -> dict[str, jax.Array]:
    """A positive definite matrix for every kernel, by path."""
    leaves, _ = jax.tree.flatten_with_path(grads)
    return {
        path_text(path): jnp.broadcast_to(
            jnp.eye(leaf.shape[-2]) + 0.5, (*leaf.shape[:-1], leaf.shape[-2])
        )
        for path, leaf in leaves
        if jnp.ndim(leaf) > 1
    }


def bowl(center: Any, grads: Updates, params: Params) -> jax.Array:
    """A parabola with value 1.5 and gradient g at `center`: 1.5 + ⟨g, x⟩ + 2 ‖x‖² at distance x."""
    leaves = zip(
        *(jax.tree.leaves(tree, is_leaf=is_none) for tree in (params, center, grads)), strict=True
    )
    parts = [_rise(*leaf) for leaf in leaves if is_inexact(leaf[0])]
    return sum_promoted([jnp.full((), 1.5), *parts])


def _rise(param: jax.Array, center: jax.Array, grad: jax.Array) -> jax.Array:
    here, there, g = (leaf.astype(compute_dtype(leaf.dtype)) for leaf in (param, center, grad))
    return jnp.sum((g.conj() * (here - there)).real) + 2 * jnp.sum(abs_sq(here - there))


def quadratic(params: Params) -> jax.Array:
    """Half the squared norm of the parameters, a loss for every tree."""
    arrays = [leaf for leaf in jax.tree.leaves(params) if is_inexact(leaf)]
    return sum(
        (0.5 * jnp.sum(jnp.abs(leaf.astype(jnp.float32)) ** 2) for leaf in arrays),
        start=jnp.zeros((), jnp.float32),
    )


def slope(params: Params, step: Any = 0) -> Any:
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
    generator: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike, scale: float = 1.0
) -> jax.Array:
    # NumPy compiles nothing.
    values = scale * generator.normal(size=shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        values = values + 1j * scale * generator.normal(size=shape)
    return jnp.asarray(np.asarray(values).astype(dtype))
