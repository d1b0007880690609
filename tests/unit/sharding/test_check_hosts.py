"""`check_hosts` within one process: copies on several devices. tests/hosts has two processes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx


def on_four(spec: PartitionSpec, *parts: float) -> jax.Array:
    """An array of four devices, each of which holds a pair of one number."""
    mesh = jax.make_mesh((2, 2), ("a", "b"), (AxisType.Auto,) * 2, devices=jax.devices()[:4])
    sharding = NamedSharding(mesh, spec)
    shape = (2 * sharding.num_devices // 4 if spec == PartitionSpec() else 4,)
    devices = sharding.addressable_devices_indices_map(shape)
    shards = [jax.device_put(jnp.full(2, n), one) for n, one in zip(parts, devices, strict=True)]
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def test_copies_are_equal() -> None:
    gradtx.check_hosts({"whole": on_four(PartitionSpec(), 1, 1, 1, 1), "step": 3, "none": None})
    gradtx.check_hosts(on_four(PartitionSpec("a"), 1, 1, 2, 2))


@pytest.mark.parametrize(
    ("spec", "parts"), [(PartitionSpec(), (1, 1, 1, 2)), (PartitionSpec("a"), (1, 1, 2, 3))]
)
def test_a_copy_that_differs_is_named(spec: PartitionSpec, parts: tuple[float, ...]) -> None:
    text = (
        "check_hosts: the devices of process 0 hold different numbers of 'params/w', which should "
        "be copies: restore the same checkpoint, by the same definition, on every process"
    )
    with pytest.raises(gradtx.StateError, match=f"^{re.escape(text)}$"):
        gradtx.check_hosts({"params": {"w": on_four(spec, *parts)}, "step": np.int32(3)})


def test_the_sign_of_zero_and_the_bits_of_nan_count() -> None:
    gradtx.check_hosts({"w": on_four(PartitionSpec(), *[float("nan")] * 4)})
    with pytest.raises(gradtx.StateError, match="'w'"):
        gradtx.check_hosts({"w": on_four(PartitionSpec(), 0.0, -0.0, 0.0, 0.0)})
