"""Calls whose answer is a text: what `check_hosts` says on each process."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx

CURE = "restore the same checkpoint, by the same definition, on every process"


def _run() -> dict[str, Any]:
    params = {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}
    return {"params": params, "state": gradtx.adamw(1e-3).init(params), "step": 7}


def _said(tree: Any) -> str:
    """The error of `check_hosts`, or "equal"."""
    try:
        gradtx.check_hosts(tree)
    except gradtx.StateError as error:
        return str(error)
    return "equal"


def _whole(array: np.ndarray, differs: bool) -> jax.Array:
    """An array that is whole on every device of every process, where it may differ."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))
    own = array + jax.process_index() * differs
    shards = [jax.device_put(own, device) for device in jax.local_devices()]
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_single_device_arrays(array.shape, sharding, shards)


def same() -> str:
    return _said(_run() | {"whole": _whole(np.ones(3), differs=False), "key": jax.random.key(0)})


def count() -> str:
    run = _run()
    count = jnp.asarray(100 - 10 * jax.process_index(), jnp.int32)
    return _said(run | {"state": run["state"]._replace(count=count)})


def step() -> str:
    return _said(_run() | {"step": 7 + jax.process_index()})


def whole() -> str:
    return _said({"params": {"w": _whole(np.ones(3, np.float32), differs=True)}})


def key() -> str:
    return _said({"key": jax.random.key(jax.process_index())})


def tree() -> str:
    tx = gradtx.adamw(1e-3) if jax.process_index() else gradtx.sgd(1e-3, momentum=0.9)
    return _said(tx.init({"w": jnp.ones((4, 3))}))


def shape() -> str:
    return _said({"w": jnp.ones(3 + jax.process_index())})


QUESTIONS: dict[str, tuple[Callable[[], str], str]] = {
    "count": (
        count,
        "check_hosts: the processes disagree about 'state/count': 100 on process 0, 90 on process "
        f"1: {CURE}",
    ),
    "key": (
        key,
        "check_hosts: the processes disagree about 'key': checksum 6522df69 on process 0, checksum "
        f"dd9eb80c on process 1: {CURE}",
    ),
    "same": (same, "equal"),
    "shape": (
        shape,
        "check_hosts: the processes hold different trees: 'w' is f32[3] on process 0 and f32[4] on "
        f"process 1: {CURE}",
    ),
    "step": (
        step,
        f"check_hosts: the processes disagree about 'step': 7 on process 0, 8 on process 1: {CURE}",
    ),
    "tree": (
        tree,
        "check_hosts: the processes hold different trees: 'slots/trace/trace/w' is f32[4,3] on "
        f"process 0 and absent on process 1: {CURE}",
    ),
    "whole": (
        whole,
        "check_hosts: the processes disagree about 'params/w': checksum dc7c4e94 on process 0, "
        f"checksum 8b68dcb1 on process 1: {CURE}",
    ),
}
"""Questions, and the answer that every process must give."""
