"""Arrays whose types say how they are cut over a mesh: the explicit axes of `jax.make_mesh`.

With explicit axes every operation has to say how its result is cut. Arithmetic on one array says
nothing of that: it runs with automatic axes, and its results are cut as arrays that the caller
names.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec


def run_auto(function: Callable[..., Any], mesh: Any, like: Any, *args: Any) -> Any:
    """Call a function with the explicit axes of a mesh made automatic.

    Its results are cut as the arrays of `like`, a tree like the results or a prefix of it. A result
    whose array is on no mesh, or for which `like` has a number, is whole on every device.
    """
    shardings = jax.tree.map(lambda one: _sharding(mesh, one), like)
    call = jax.sharding.auto_axes(function, axes=mesh.explicit_axes, out_sharding=shardings)
    return call(*args)


def _sharding(mesh: Any, like: Any) -> NamedSharding:
    sharding = jax.typeof(like).sharding
    return NamedSharding(mesh, PartitionSpec()) if sharding.mesh.empty else sharding


def run_auto_if(function: Callable[..., Any], like: Any, *args: Any) -> Any:
    """`function(*args)`, with automatic axes where the first argument has explicit ones."""
    mesh = jax.typeof(args[0]).sharding.mesh
    return run_auto(function, mesh, like, *args) if mesh.explicit_axes else function(*args)


def fit_sharding(shape: tuple[int, ...], like: Any) -> Any:
    """An array's type for a shape, cut as an array of as many axes where the sizes allow it."""
    sharding, sizes = jax.typeof(like).sharding, jax.typeof(like).sharding.mesh.shape
    spec = (*sharding.spec, *(None for _ in like.shape))[: like.ndim]
    if len(shape) != like.ndim:
        spec = (None,) * len(shape)
    fitted = [
        axes if size % parts_of(sizes, axes) == 0 else None
        for size, axes in zip(shape, spec, strict=True)
    ]
    placed = NamedSharding(sharding.mesh, PartitionSpec(*fitted))
    return jax.ShapeDtypeStruct(shape, like.dtype, sharding=placed)


def cut_evenly(shape: tuple[int], like: Any) -> Any:
    """The type of a vector that all devices share, where they divide its length."""
    mesh = jax.typeof(like).sharding.mesh
    axes = mesh.explicit_axes
    spec = PartitionSpec(axes) if shape[0] % parts_of(mesh.shape, axes) == 0 else PartitionSpec()
    return jax.ShapeDtypeStruct(shape, like.dtype, sharding=NamedSharding(mesh, spec))


def sharding_as_returned(mesh: Any, entries: Sequence[Any]) -> NamedSharding:
    """The sharding of an array, written as JAX writes that of a program's result.

    JAX compares specs as they are written. A state that differs from the next one in this alone
    would have the second step compiled again.
    """
    entries = list(entries)
    # With automatic axes XLA decides, which leaves out None at the end.
    while not mesh.explicit_axes and entries and entries[-1] is None:
        entries.pop()
    return NamedSharding(mesh, PartitionSpec(*entries))


def axes_of(entry: Any) -> tuple[str, ...]:
    """The axes of a mesh that an entry of a spec names."""
    if entry is None or entry is PartitionSpec.UNCONSTRAINED:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def parts_of(sizes: Any, entry: Any) -> int:
    """How many parts an axis of an array is cut into, by an entry of its spec."""
    return math.prod(sizes[name] for name in axes_of(entry))
