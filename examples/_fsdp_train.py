"""The training of examples/fsdp_char_lm.py: ZeRO-1, Muon, int8 state, on any number of devices."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import _char_model as model
import _char_text as texts
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx

HEADS = 4


class Plan(NamedTuple):
    """The settings of a training."""

    folder: Path
    """The folder of checkpoints and logs."""
    steps: int = 400
    save_every: int = 40
    batch: int = 16
    context: int = 64
    width: int = 96
    depth: int = 4
    checked: int = 64
    """The number of validation windows."""
    seed: int = 0

    @property
    def kill_at(self) -> int:
        """Half-way between the checkpoint in the middle and the next one."""
        return self.steps // 2 + self.save_every // 2

    def log(self, devices: int) -> Path:
        return self.folder / f"{devices}-devices.jsonl"


class Run(NamedTuple):
    """A training that goes on: arrays on a mesh, and the number of steps behind them."""

    params: Any
    state: Any
    step: int


def optimizer(plan: Plan) -> gradtx.GradientTransformation:
    """ZeRO-1 around Muon with its state in int8, and a guard that skips bad batches."""
    warmup, decay = plan.steps // 10, plan.steps * 3 // 10
    rate = gradtx.warmup_stable_decay_schedule(
        0.0, 5e-3, warmup, plan.steps - warmup - decay, decay
    )
    muon = gradtx.stored(gradtx.muon(rate, weight_decay=0.1), "int8")
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), muon)
    return gradtx.sharded(gradtx.guard(gradtx.with_metrics(clipped)), "data")


def loss(params: Any, windows: jax.Array) -> jax.Array:
    return model.loss(HEADS, params, windows)


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])


def whole(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def start(plan: Plan, tx: gradtx.GradientTransformation, text: texts.Text, mesh: Mesh) -> Run:
    """Parameters whole on each device; `sharded` cuts the state over all of them: ZeRO-1."""
    params = model.init(
        np.random.default_rng(plan.seed),
        model.Shape(len(text.alphabet), plan.width, HEADS, plan.depth),
    )
    params = jax.device_put(params, whole(mesh))
    return Run(params, tx.init(params), 0)


def checkpoints(plan: Plan) -> gradtx.Checkpointer:
    return gradtx.Checkpointer(plan.folder / "checkpoints")


def resume(checkpointer: gradtx.Checkpointer, first: Run) -> Run:
    """The last checkpoint, on the devices of a first run; that run where there is none."""
    step = checkpointer.latest_step()
    if step is None:
        return first
    like = {"params": first.params, "state": first.state}
    return Run(**checkpointer.load(like, step=step), step=step)


def train(plan: Plan, text: texts.Text, devices: int) -> Iterator[dict[str, Any]]:
    """Train from the last checkpoint, or from the start; yield and log every step."""
    tx, mesh = optimizer(plan), mesh_of(devices)
    step = gradtx.make_step(loss, tx)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    valid = jnp.asarray(texts.held_out(text.valid, plan.context + 1, plan.checked))
    check = jax.jit(loss)
    with checkpoints(plan) as checkpointer, plan.log(devices).open("w") as log:
        params, state, number = resume(checkpointer, start(plan, tx, text, mesh))
        while number < plan.steps:
            began = time.perf_counter()
            windows = texts.windows(text.train, plan.context + 1, plan.batch, (plan.seed, number))
            batch = jax.device_put(windows, rows)
            params, state, value = step(params, state, batch)
            number += 1
            row = {"step": number, "loss": float(value)}
            if number == plan.steps:
                row["valid"] = float(check(params, jax.device_put(valid, rows)))
            row["seconds"] = time.perf_counter() - began
            if number % plan.save_every == 0:  # it writes while the training goes on
                checkpointer.save({"params": params, "state": state}, step=number)
            print(json.dumps(row), file=log, flush=True)
            yield row


def bytes_per_device(tree: Any) -> int:
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def read_log(file: Path) -> list[dict[str, Any]]:
    """The steps in a log, without a line that the kill cut short."""
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]
