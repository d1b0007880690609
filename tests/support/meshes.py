"""Explicit meshes of four devices, as `jax.make_mesh` makes them; a small tree cut over them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from gradtx.testing.problems import extras, gradients

SHAPES = {"bias": (4,), "kernel": (4, 4), "scalar": (), "wide": (4, 4)}
CUTS = {
    (4,): {"bias": ("x",), "kernel": ("x",), "scalar": (), "wide": (None, "x")},
    (2, 2): {"bias": ("y",), "kernel": ("x", "y"), "scalar": (), "wide": ("y", "x")},
}
"""How every array is cut, by the shape of the mesh. Matrices are square: a factor of another has
eigenvectors of the eigenvalue 0, which are arbitrary.
"""
CODECS = ("packed16", "int8", "bf16", "int4", "f16", "dynamic8", "bf16+8")
PLACES = [(shape, is_set) for shape in CUTS for is_set in (False, True)]
"""Meshes, each within `jax.set_mesh` and outside of it."""

Put = Callable[[Any], Any]


@contextlib.contextmanager
def on_mesh(shape: tuple[int, ...], is_set: bool) -> Iterator[Put]:
    """A function that puts a tree on an explicit mesh."""
    names = ("x", "y")[: len(shape)]
    mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Explicit,) * len(shape))
    cut = {name: NamedSharding(mesh, PartitionSpec(*c)) for name, c in CUTS[shape].items()}
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        yield lambda tree: jax.device_put(tree, cut)


def plain(tree: Any) -> Any:
    """A tree as it is, on one device."""
    return tree


def parameters(dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """Normal random arrays whose axes four devices divide."""
    generator = np.random.default_rng(7)
    return {
        name: jnp.asarray(generator.normal(size=shape).astype(np.float32), dtype)
        for name, shape in SHAPES.items()
    }


def problem(tx: gradtx.GradientTransformation, put: Put) -> tuple[Any, Any, dict[str, Any]]:
    """Parameters, gradients, and the extra arguments that a definition needs."""
    params, grads = put(parameters()), put(gradients(parameters()))
    return params, grads, extras(tx, params, grads)


def types(tree: Any) -> dict[str, Any]:
    """The type of every array, its sharding included, by path."""
    return {path: jax.typeof(leaf) for path, leaf in gradtx.flatten_state(tree).items()}
