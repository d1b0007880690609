"""FSDP with Flax NNX: parameters and optimizer state are cut over eight devices.

    python examples/fsdp_nnx.py

`nnx.with_partitioning` names the axis of the mesh that cuts each kernel. NNX places the parameters,
and the state of `nnx.Optimizer` beside them, by these names. The script trains with AdamW and with
Muon, on one device and on eight, and compares the losses.
"""

import os

# Without accelerators, divide the CPU into eight devices; this must happen before JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
from _digits import Run, batches, compare
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx

OPTIMIZERS = {"adamw": gradtx.adamw(3e-3), "muon": gradtx.muon(0.02)}


class Network(nnx.Module):
    """Two layers; the first axis of each kernel is cut over the mesh's axis `data`."""

    def __init__(self, rngs: nnx.Rngs):
        cut = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("data", None))
        self.hidden = nnx.Linear(64, 128, kernel_init=cut, rngs=rngs)
        self.head = nnx.Linear(128, 10, kernel_init=cut, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.hidden(x)))


def loss(model: Network, x: jax.Array, y: jax.Array) -> jax.Array:
    return gradtx.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


@nnx.jit
def train_step(model: Network, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
    value, grads = nnx.value_and_grad(loss)(model, x, y)
    optimizer.update(model, grads)
    return value


def train(tx: gradtx.GradientTransformation, devices: int) -> Run:
    """Train on some devices; the batch is cut over them, too."""
    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    cut = NamedSharding(mesh, PartitionSpec("data"))

    @nnx.jit  # a large model is made where it lies, and is never whole on one device
    def create() -> tuple[Network, nnx.Optimizer]:
        model = Network(nnx.Rngs(0))
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)  # pyright: ignore[reportArgumentType]

    with jax.set_mesh(mesh):
        model, optimizer = create()
        losses = [
            float(train_step(model, optimizer, *jax.device_put(batch, cut))) for batch in batches()
        ]
    return Run(nnx.state(model, nnx.Param), optimizer.opt_state, losses)


def main() -> dict[str, Run]:
    return compare(train, OPTIMIZERS)


if __name__ == "__main__":
    main()
