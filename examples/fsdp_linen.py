"""FSDP with Flax Linen's logical axes: parameters and state are cut over eight devices.

    python examples/fsdp_linen.py

The model names its axes, `embed` and `mlp`, and rules map these names to the mesh. Slots are boxed
as their parameters are, so one call of `nn.logical_to_mesh_sharding` places a whole `TrainState`.
The script trains with AdamW and with Muon, on one device and on eight, and compares the losses.
"""

import os

# Without accelerators, divide the CPU into eight devices; this must happen before JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import flax.linen as nn
import jax
import jax.numpy as jnp
from _digits import Run, batches, compare
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx

OPTIMIZERS = {"adamw": gradtx.adamw(3e-3), "muon": gradtx.muon(0.02)}
RULES = (("batch", "data"), ("embed", "data"), ("mlp", None))
"""The axis of the mesh that cuts each axis of the model; None: it is whole."""


class Network(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("embed", "mlp"))
        x = nn.relu(nn.Dense(128, kernel_init=init, name="hidden")(x))
        return nn.Dense(10, kernel_init=init, name="head")(x)


@jax.jit(donate_argnums=0)
def train_step(train_state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, jax.Array]:
    def loss(params: object) -> jax.Array:
        logits = train_state.apply_fn({"params": params}, x)
        return gradtx.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, grads = jax.value_and_grad(loss)(train_state.params)
    return train_state.apply_gradients(grads=grads), value


def create(tx: gradtx.GradientTransformation, mesh: jax.sharding.Mesh) -> TrainState:
    """The first state, made where it lies: no array is ever whole on one device."""
    network = Network()

    def init() -> TrainState:
        params = network.init(jax.random.key(0), jnp.ones((1, 64)))["params"]
        return TrainState.create(apply_fn=network.apply, params=params, tx=tx)

    logical = nn.get_partition_spec(jax.eval_shape(init))
    shardings = nn.logical_to_mesh_sharding(logical, mesh, RULES)  # pyright: ignore[reportPrivateImportUsage]
    return nn.unbox(jax.jit(init, out_shardings=shardings)())


def train(tx: gradtx.GradientTransformation, devices: int) -> Run:
    """Train on some devices; the batch is cut over them, too."""
    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    cut = NamedSharding(mesh, PartitionSpec("data"))
    train_state, losses = create(tx, mesh), list[float]()
    for batch in batches():
        train_state, value = train_step(train_state, *jax.device_put(batch, cut))
        losses.append(float(value))
    return Run(train_state.params, train_state.opt_state, losses)


def main() -> dict[str, Run]:
    return compare(train, OPTIMIZERS)


if __name__ == "__main__":
    main()
