"""Short trainings that run on any number of processes, and the shards of their results."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx

STEPS = 4
BAD_STEP = 1
"""The step whose last row of the batch is nan: it lies on the last process alone."""
SHAPES = {"hidden": {"kernel": (16, 24), "bias": (24,)}, "out": {"kernel": (24, 8)}, "shift": ()}


class Case(NamedTuple):
    """A training: the transformation, and how the arrays lie on the mesh."""

    tx: Callable[[], gradtx.GradientTransformation]
    layout: Literal["fsdp", "replicated", "zero1"] = "fsdp"
    bad: bool = False
    """Whether a row of one batch is nan."""
    exact: bool = False
    """Whether the sums over devices have no rounding, so that their order changes no bit."""
    microbatches: int = 1
    float64: bool = False


def _clipped() -> gradtx.GradientTransformation:
    return gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.adamw(1e-2))


def _scheduled() -> gradtx.GradientTransformation:
    rate = gradtx.warmup_cosine_decay_schedule(0.0, 2e-2, warmup_steps=2, decay_steps=STEPS)
    return gradtx.sgd(rate, momentum=0.9, nesterov=True)


def _guarded() -> gradtx.GradientTransformation:
    return gradtx.guard(gradtx.with_metrics(_clipped()), zscore=6.0)


CASES = {
    "accumulate": Case(lambda: gradtx.accumulate(gradtx.adamw(1e-2), 2), exact=True),
    "clip + adamw": Case(_clipped, exact=True),
    "clip + adamw, data parallel": Case(_clipped, "replicated", exact=True),
    "dynamic_loss_scale": Case(
        lambda: gradtx.dynamic_loss_scale(gradtx.adamw(1e-2)), bad=True, exact=True
    ),
    "ema": Case(lambda: gradtx.chain(gradtx.adamw(1e-2), gradtx.params_ema(0.9)), exact=True),
    "guard": Case(lambda: gradtx.guard(_clipped(), zscore=6.0), bad=True, exact=True),
    "int4": Case(lambda: gradtx.stored(_clipped(), "int4"), exact=True),
    "int8": Case(lambda: gradtx.stored(_clipped(), "int8"), exact=True),
    "int8, zero1": Case(lambda: gradtx.stored(_clipped(), "int8"), "zero1", exact=True),
    "microbatches": Case(_clipped, microbatches=2, exact=True),
    "muon, data parallel": Case(lambda: gradtx.muon(0.02), "replicated", exact=True),
    "network: clip + adamw": Case(_clipped),
    "network: clip + adamw, float64": Case(_clipped, float64=True),
    "network: guard": Case(lambda: gradtx.guard(gradtx.with_metrics(_clipped())), bad=True),
    "network: lbfgs": Case(lambda: gradtx.lbfgs(memory_size=3)),
    "network: muon": Case(lambda: gradtx.muon(0.02)),
    "network: muon, float64": Case(lambda: gradtx.muon(0.02), float64=True),
    "network: muon, zero1": Case(lambda: gradtx.muon(0.02), "zero1"),
    "packed16": Case(lambda: gradtx.stored(_clipped(), "packed16"), exact=True),
    "schedule": Case(_scheduled, exact=True),
    "schedule-free": Case(lambda: gradtx.schedule_free_adamw(1e-2), exact=True),
    "sharded": Case(lambda: gradtx.sharded(_clipped(), "data"), "replicated", exact=True),
    "sharded, int8": Case(
        lambda: gradtx.sharded(gradtx.stored(_clipped(), "int8"), "data"), "replicated", exact=True
    ),
    "zero1": Case(_clipped, "zero1", exact=True),
}


def run(case: Case, devices: int) -> dict[str, np.ndarray]:
    """Train on the first devices of all processes, and return the shards of this process.

    The key of a shard is the path of its array and its place in it, `params/hidden/bias[0:3]`.
    """
    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    with _precision(case.float64):
        params = _place(mesh, case, _parameters(case))
        tx = case.tx()
        step, state = _step(mesh, case, tx, params)
        losses: list[np.ndarray] = []
        for number in range(STEPS):
            params, state, value = step(params, state, *_batch(mesh, case, number))
            # Two programs with collectives at once can wait for each other on a divided CPU.
            losses.append(np.asarray(value))
        return _shards({"params": params, "state": state, "losses": jnp.stack(losses)})


@contextlib.contextmanager
def _precision(float64: bool) -> Iterator[None]:
    with jax.enable_x64(float64):
        yield


def _dtype(case: Case) -> Any:
    return np.float64 if case.float64 else np.float32


def _parameters(case: Case) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: rng.normal(scale=0.3, size=shape).astype(_dtype(case)),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def network(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean squared error of two layers."""
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    return jnp.mean((hidden @ params["out"]["kernel"] + params["shift"] - y) ** 2)


def linear(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """A linear loss: for whole numbers x and y, its gradient has no rounding."""
    z = jnp.tile(x, 2)[:, :24]
    kernels = jnp.einsum("bi,ij,bj", x, params["hidden"]["kernel"], z) + jnp.einsum(
        "bi,ij,bj", z, params["out"]["kernel"], y
    )
    vectors = jnp.sum(z @ params["hidden"]["bias"]) + jnp.sum(y) * params["shift"]
    return (kernels + vectors) / len(x)


def _batch(mesh: Any, case: Case, number: int) -> list[jax.Array]:
    """Each process makes its own rows; JAX joins them to arrays of all processes."""
    rng = np.random.default_rng((1, number))
    draw = (lambda size: rng.integers(-1, 2, size)) if case.exact else rng.normal
    x, y = (draw(size=(32, columns)).astype(_dtype(case)) for columns in (16, 8))
    if case.bad and number == BAD_STEP:
        x[-1, 0] = np.nan
    share = 32 // jax.process_count()
    own = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    cut = NamedSharding(mesh, PartitionSpec("data"))
    return [jax.make_array_from_process_local_data(cut, rows[own]) for rows in (x, y)]


def _cuts(mesh: Any, tree: Any) -> Any:
    """The shardings of FSDP: the first axis is cut where the devices divide it."""

    def cut(leaf: Any) -> NamedSharding:
        divides = leaf.ndim > 0 and leaf.shape[0] % mesh.size == 0
        return NamedSharding(mesh, PartitionSpec("data") if divides else PartitionSpec())

    return jax.tree.map(cut, tree)


def _place(mesh: Any, case: Case, params: Any) -> Any:
    whole = NamedSharding(mesh, PartitionSpec())
    shardings = _cuts(mesh, params)
    if case.layout != "fsdp":
        shardings = jax.tree.map(lambda _: whole, params)
    return jax.tree.map(
        lambda array, sharding: jax.make_array_from_callback(
            array.shape, sharding, lambda index: array[index]
        ),
        params,
        shardings,
    )


def _step(mesh: Any, case: Case, tx: gradtx.GradientTransformation, params: Any) -> Any:
    """The training step, and the first state."""
    loss = linear if case.exact else network
    step = gradtx.make_step(loss, tx, microbatches=case.microbatches, donate=False)
    if case.layout != "zero1":
        return step, tx.init(params)
    places = gradtx.state_shardings(tx, params, _cuts(mesh, params))
    whole = NamedSharding(mesh, PartitionSpec())
    jitted = jax.jit(step, out_shardings=(whole, places, whole), donate_argnums=(0, 1))
    return jitted, jax.jit(tx.init, out_shardings=places)(params)


def _shards(tree: Any) -> dict[str, np.ndarray]:
    """The distinct shards on the devices of this process; copies of one must have equal bits."""
    shards: dict[str, np.ndarray] = {}
    for path, leaf in gradtx.flatten_state(tree).items():
        for shard in leaf.addressable_shards:
            key, data = f"{path}{_place_text(shard.index, leaf.shape)}", _plain(shard.data)
            before = shards.setdefault(key, data)
            assert before.tobytes() == data.tobytes(), f"two devices disagree about {key}"
    return shards


def _place_text(index: Any, shape: tuple[int, ...]) -> str:
    ranges = [one.indices(size)[:2] for one, size in zip(index, shape, strict=True)]
    return "[" + ",".join(f"{start}:{stop}" for start, stop in ranges) + "]"


def _plain(data: Any) -> np.ndarray:
    """A shard as NumPy saves it: floats of 16 bits, which it does not know, are widened exactly."""
    array = np.asarray(data)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def join(shards: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Whole arrays by path, from the shards of all processes."""
    places: dict[str, list[tuple[tuple[slice, ...], np.ndarray]]] = {}
    for key, data in shards.items():
        path, text = key[:-1].rsplit("[", 1)
        ranges = [part.split(":") for part in text.split(",") if part]
        index = tuple(slice(int(start), int(stop)) for start, stop in ranges)
        places.setdefault(path, []).append((index, data))
    return {path: _whole(parts) for path, parts in places.items()}


def _whole(parts: list[tuple[tuple[slice, ...], np.ndarray]]) -> np.ndarray:
    shape = tuple(max(index[axis].stop for index, _ in parts) for axis in range(len(parts[0][0])))
    array = np.empty(shape, parts[0][1].dtype)
    covered = np.zeros(shape, bool)
    for index, data in parts:
        array[index], covered[index] = data, True
    assert covered.all(), "a part of the array lies on no process"
    return array
