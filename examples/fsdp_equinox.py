"""FSDP with Equinox: the arrays of a module and its state are cut over eight devices.

    python examples/fsdp_equinox.py

`eqx.filter_shard` places the arrays of a module. `tx.init` places each slot beside its parameter.
The script trains with AdamW and with Muon, on one device and on eight, and compares the losses.
"""

import os

# Without accelerators, divide the CPU into eight devices; this must happen before JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

from typing import Any

import equinox as eqx
import jax
from _digits import Run, batches, compare
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx

OPTIMIZERS = {"adamw": gradtx.adamw(3e-3), "muon": gradtx.muon(0.02)}


def loss(model: eqx.Module, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = jax.vmap(model)(x)  # pyright: ignore[reportArgumentType]
    return gradtx.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@eqx.filter_jit(donate="all-except-first")
def train_step(
    tx: gradtx.GradientTransformation, model: eqx.Module, state: Any, x: jax.Array, y: jax.Array
) -> tuple[eqx.Module, Any, jax.Array]:
    value, grads = eqx.filter_value_and_grad(loss)(model, x, y)
    updates, state = tx.update(grads, state, model)
    return gradtx.apply_updates(model, updates), state, value


def cut(mesh: jax.sharding.Mesh, tree: Any) -> Any:
    """The shardings of FSDP: the first axis of a leaf is cut where the devices divide it."""

    def one(leaf: Any) -> NamedSharding:
        divides = eqx.is_array(leaf) and leaf.ndim and leaf.shape[0] % mesh.size == 0
        return NamedSharding(mesh, PartitionSpec("data") if divides else PartitionSpec())

    return jax.tree.map(one, tree)


def train(tx: gradtx.GradientTransformation, devices: int) -> Run:
    """Train on some devices; the batch is cut over them, too."""
    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    model = eqx.nn.MLP(64, 10, width_size=128, depth=2, key=jax.random.key(0))
    model = eqx.filter_shard(model, cut(mesh, model))
    state, losses = tx.init(model), list[float]()
    for batch in batches():
        model, state, value = train_step(tx, model, state, *jax.device_put(batch, cut(mesh, batch)))
        losses.append(float(value))
    return Run(model, state, losses)


def main() -> dict[str, Run]:
    return compare(train, OPTIMIZERS)


if __name__ == "__main__":
    main()
