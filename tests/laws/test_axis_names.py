"""Inside `shard_map` every transformation computes the numbers of whole arrays, or refuses.

A method that treats each entry alike runs on parts as it is. Every other one raises without
`axis_names`, and with it computes as on one device.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import gradtx
from gradtx.testing.problems import extras
from tests.methods import METHODS
from tests.support.pairs import MAKERS

SHAPES = {"bias": (8,), "kernel": (16, 16), "scalar": (), "wide": (16, 16)}
SPECS = {
    "bias": PartitionSpec("data"),
    "kernel": PartitionSpec("data", None),
    "scalar": PartitionSpec(),
    "wide": PartitionSpec(None, "data"),
}
REFUSED = "as if it were the array|uses the same numbers|a number of its own part"


def tree(seed: int) -> dict[str, jax.Array]:
    """Normal random arrays whose axes eight devices divide."""
    generator = np.random.default_rng(seed)
    return {name: jnp.asarray(generator.normal(size=shape)) for name, shape in SHAPES.items()}


def two_updates(tx: Any, params: Any, grads: Any, extra: Any) -> Any:
    """The updates of two steps, from a state that is made here."""
    first, state = tx.update(grads[0], tx.init(params), params, **extra)
    return first, tx.update(grads[1], state, params, **extra)[0]


def on_parts(tx: Any, params: Any, grads: Any, extra: Any) -> Any:
    """The same inside `shard_map`, over eight devices."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    extra_specs = {name: SPECS if name == "grad" else PartitionSpec() for name in extra}

    def run(params: Any, grads: Any, extra: Any) -> Any:
        return two_updates(tx, params, grads, extra)

    specs = SPECS, (SPECS, SPECS), extra_specs
    mapped = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=(SPECS, SPECS))
    return jax.jit(mapped)(params, grads, extra)


def without_axis_names(tx: Any, *args: Any) -> Any:
    """The updates of parts as they are; None where gradtx refuses, and says what to write."""
    try:
        return on_parts(tx, *args)
    except gradtx.GradtxError as error:
        assert re.search(REFUSED, str(error)) and "axis_names='data'" in str(error)
        return None


NAMES = [name for name in MAKERS if name != "sharded"]
"""`sharded` cuts whole arrays, and refuses within `shard_map`: tests/unit/sharding/test_zero.py."""


@pytest.mark.parametrize("name", NAMES)
def test_parts_have_the_numbers_of_whole_arrays(name: str) -> None:
    with jax.enable_x64(True):
        tx, params, grads = METHODS[name].tx, tree(0), (tree(1), tree(2))
        if "soap" in name:
            # The first gradient is diagonal in its own eigenbasis: ε hides the rounding beside it.
            tx = gradtx.replace(tx, eps=0.1)
        extra = extras(tx, params, grads[0])
        cut = gradtx.over_axes(tx, SPECS)
        if any(map(callable, extra.values())):
            return check_functions(cut, params, extra)
        args = params, grads, extra
        ours = without_axis_names(tx, *args)
        ours = on_parts(cut, *args) if ours is None else ours
        expected = jax.jit(lambda *arrays: two_updates(tx, *arrays))(*args)
        for one, like in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            size = max(float(jnp.max(jnp.abs(like))), 1e-6)
            # Sums in another order; Newton-Schulz and roots multiply their rounding by a thousand.
            np.testing.assert_allclose(one / size, like / size, rtol=0, atol=1e-10)
    return None


def check_functions(tx: Any, params: Any, extra: Any) -> None:
    """A function of a device's arrays has no meaning for whole ones, and the error says so."""

    def run(params: Any) -> Any:
        return tx.update(params, tx.init(params), params, **extra)[0]

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(run, mesh=mesh, in_specs=(SPECS,), out_specs=SPECS)
    with pytest.raises(gradtx.GradtxError, match="is a function of the arrays of this device"):
        jax.eval_shape(mapped, params)
