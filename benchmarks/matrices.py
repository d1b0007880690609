"""Matrix optimizers: Muon on the CPU, for one TPU and for many; SOAP's and Shampoo's refreshes.

`--sections cpu,trace` selects sections. A day has one record; rows of other sections stay in it:

- `cpu`: a jitted, donated step of Muon in float32, 5 iterations, on the hidden matrices of GPT-2
  small (48) and of 4 blocks of width 384, against Optax's and, with `--torch PYTHON`, torch's,
  which iterates in bfloat16.
- `tpu`: the same for one TPU v5e, 16 matrices of width 512: XLA's estimate of cycles, and flops.
- `sharded`: the same with rows over 4 devices: collectives, and flops of a device; then 64 matrices
  over 4, 16 and 256.
- `trace`: tracing and lowering it, cold, on all of GPT-2 small.
- `refresh`: SOAP and Shampoo, refreshed every 10 steps, 4 blocks of width 384: the mean step
  against pytorch_optimizer's; the worst of 20 steps over their median.
"""

import datetime
import functools
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx
from benchmarks.harness import (
    ROOT,
    RUNS,
    Row,
    arguments,
    commit,
    compared,
    interleave,
    print_table,
    quartiles,
    record_path,
    seconds,
    write_table,
)
from benchmarks.step import ask
from benchmarks.steps import LIBRARIES, jitted_step, update_and_apply
from benchmarks.trace import check_cold, forget
from benchmarks.trees import TREES, Tree, array

LEARNING_RATE, ITERATIONS, EVERY, STEPS = 1e-3, 5, 10, 20
CPU_BARS = {"optax": 0.45, "torch": 1.0}
"""The upper limit of Muon's step, in units of the peer's."""
CYCLES, FLOPS, ALL_TO_ALLS, TRACE, WORST, SOAP = 0.80, 24.0, 3.0, 0.25, 1.5, 1.0
"""Upper limits, in units of: Optax's estimate; 10⁹ per device; one group of one shape; Optax's
time; the median step; pytorch_optimizer's step."""


def muon(library: str, **options: Any) -> Any:
    factory = gradtx.muon if library == "gradtx" else optax.contrib.muon
    return factory(LEARNING_RATE, ns_steps=ITERATIONS, **options)


REFRESHED: dict[str, Callable[[], Any]] = {
    "soap": lambda: gradtx.soap(LEARNING_RATE, weight_decay=0.0, refresh_every=EVERY),
    "shampoo": lambda: gradtx.shampoo(LEARNING_RATE, refresh_every=EVERY),
}

REFRESH_RUNS = {"soap": 5, "shampoo": 3}
"""Runs of 20 steps."""


def hidden(width: int, blocks: int) -> Tree:
    """The four matrices of every block of a transformer, inputs × outputs."""
    shapes = {
        "qkv": (width, 3 * width),
        "out": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
    }
    return {
        f"block_{number}": {name: {"kernel": array(*shape)} for name, shape in shapes.items()}
        for number in range(blocks)
    }


def drawn(tree: Tree, deviation: float) -> Tree:
    """Normal numbers: a matrix of equal entries has one singular value, and would be no work for
    SOAP.
    """
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(deviation * rng.standard_normal(leaf.shape), leaf.dtype), tree
    )


class Training:
    """A training in the same buffers from step to step, with the seconds of each step."""

    def __init__(self, library: str, tx: Any, tree: Tree):
        self.params, self.grads = drawn(tree, 0.02), drawn(tree, 1e-3)
        self.state = tx.init(self.params)
        self.step = (
            jitted_step(LIBRARIES[library], tx).lower(self.params, self.state, self.grads).compile()
        )
        self.times: list[float] = []

    def run(self) -> tuple[Any, Any]:
        self.params, self.state = self.step(self.params, self.state, self.grads)
        return self.params, self.state

    def timed(self) -> float:
        self.times.append(seconds(self.run))
        return self.times[-1]


@contextmanager
def torch_side(python: str, method: str, tree: Tree) -> Iterator[dict[str, Callable[[], float]]]:
    """Torch's step as one more side; without it a line explains, where the interpreter does
    not have it.
    """
    shapes = ("x".join(map(str, leaf.shape)) for leaf in jax.tree.leaves(tree))
    command = [python, str(Path(__file__).with_name("matrix_torch_worker.py")), method, *shapes]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        reply = worker.stdout.readline().strip()
        if reply in ("absent", ""):
            print(f"torch or pytorch_optimizer cannot be imported: their {method} is left out")
            yield {}
        else:
            yield {reply: functools.partial(ask, worker)}
        worker.stdin.close()


def cpu_rows(options: Namespace) -> Iterator[Row]:
    trees = (
        {"1 block of width 64": hidden(64, 1)}
        if options.quick
        else {"GPT-2 small": hidden(768, 12), "4 blocks of 384": hidden(384, 4)}
    )
    for name, tree in trees.items():
        with torch_side(options.torch, "muon", tree) as others:
            sides = {library: Training(library, muon(library), tree).timed for library in LIBRARIES}
            times = interleave({**sides, **others}, options.runs)
            for peer in ("optax", *others):
                bar = CPU_BARS[peer.partition(" ")[0]]
                yield compared(
                    f"{name}: muon, against {peer}",
                    {side: times[side] for side in ("gradtx", peer)},
                    peer=peer,
                    bar=bar,
                )


def compiled_for_one(library: str, tree: Tree) -> Any:
    from benchmarks.compilers import compile_for

    tx = muon(library)
    return compile_for(
        "tpu", jitted_step(LIBRARIES[library], tx), tree, jax.eval_shape(tx.init, tree), tree
    )


def tpu_rows(options: Namespace) -> Iterator[Row]:
    from benchmarks.compilers import counts, loops

    programs = {
        library: compiled_for_one(library, hidden(64, 1) if options.quick else hidden(512, 4))
        for library in LIBRARIES
    }
    cycles = {library: counts("tpu", one).cycles / 1e6 for library, one in programs.items()}
    yield Row("one v5e: cycles", cycles, cycles["gradtx"] / cycles["optax"], CYCLES, "M")
    yield Row(
        "one v5e: flops", (flops := gigaflops(programs)), flops["gradtx"] / flops["optax"], unit="G"
    )
    yield Row(
        "one v5e: loops, which would be counted once",
        {side: loops(one) for side, one in programs.items()},
        bar=0,
        unit="",
    )
    yield Row(
        "one v5e: temporary",
        {side: counts("tpu", one).temp_bytes / 2**20 for side, one in programs.items()},
        unit="MiB",
    )


def gigaflops(programs: Mapping[str, Any]) -> dict[str, float]:
    """By XLA's count of one device's program."""
    return {side: one.cost_analysis()["flops"] / 1e9 for side, one in programs.items()}


def compiled_for_many(library: str, tree: Tree, topology: str) -> Any:
    """The step for all devices of a topology, every matrix, also in the state, cut along its first
    axis, before and after.
    """
    from benchmarks.compilers import on_mesh, tpu_mesh
    from gradtx.sharding import owners

    mesh = tpu_mesh(topology)
    params = on_mesh(tree, mesh)
    tx = muon(library, **({"shard": owners(params, "x")} if library == "gradtx" else {}))
    state = on_mesh(jax.eval_shape(tx.init, tree), mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, (params, state))
    step = jax.jit(
        functools.partial(update_and_apply, LIBRARIES[library], tx),
        donate_argnums=(0, 1),
        out_shardings=shardings,
    )
    return step.trace(params, state, params).lower(lowering_platforms=("tpu",)).compile()


def sharded_rows(options: Namespace) -> Iterator[Row]:
    from benchmarks.compilers import collectives, counts, loops

    tree = hidden(64, 1) if options.quick else hidden(512, 4)
    programs = {library: compiled_for_many(library, tree, "v5e:2x2") for library in LIBRARIES}
    sent = {library: collectives(one) for library, one in programs.items()}
    groups = len({leaf.shape for leaf in jax.tree.leaves(tree)})
    yield Row(
        "rows over 4: all-gathers",
        {side: one.pop("all-gather", 0) for side, one in sent.items()},
        bar=0,
        unit="",
    )
    shares = {side: one.pop("all-to-all", 0) / groups for side, one in sent.items()}
    yield Row(
        f"rows over 4: all-to-alls for each of {groups} shapes", shares, bar=ALL_TO_ALLS, unit=""
    )
    yield Row(
        "rows over 4: other collectives",
        {side: sum(one.values()) for side, one in sent.items()},
        unit="",
    )
    yield Row("rows over 4: flops of a device", gigaflops(programs), bar=FLOPS, unit="G")
    yield Row(
        "rows over 4: loops, which would be counted once",
        {side: loops(one) for side, one in programs.items()},
        bar=0,
        unit="",
    )
    yield Row(
        "rows over 4: temporary",
        {side: counts("tpu", one).temp_bytes / 2**20 for side, one in programs.items()},
        unit="MiB",
    )
    yield from scaling_rows(options)


def scaling_rows(options: Namespace) -> Iterator[Row]:
    """The flops of a device, for one device and for many."""
    large = hidden(64, 1) if options.quick else hidden(512, 16)
    whole = gigaflops({"gradtx": compiled_for_one("gradtx", large)})["gradtx"]
    yield Row(f"{len(jax.tree.leaves(large))} matrices on one: flops", {"gradtx": whole}, unit="G")
    many = {} if options.quick else {16: "v5e:4x4", 256: "v5e:16x16"}
    for devices, topology in {4: "v5e:2x2", **many}.items():
        one = gigaflops({"gradtx": compiled_for_many("gradtx", large, topology)})
        yield Row(
            f"{len(jax.tree.leaves(large))} matrices over {devices}: flops of a device",
            one,
            one["gradtx"] / whole,
            unit="G",
        )


def trace_and_lower(library: str, tree: Tree) -> float:
    """The seconds from a jitted function, never called, to its StableHLO."""
    state = jax.eval_shape(muon(library).init, tree)
    forget()
    step = jitted_step(LIBRARIES[library], muon(library))
    start = time.perf_counter()
    step.trace(tree, state, tree).lower()
    return time.perf_counter() - start


def trace_rows(options: Namespace) -> Iterator[Row]:
    check_cold()
    tree = TREES["gpt2_small"]()
    if options.quick:
        tree = {name: tree[name] for name in ("wte", "wpe", "h_0", "ln_f")}
    sides = {library: functools.partial(trace_and_lower, library, tree) for library in LIBRARIES}
    name = f"muon, {len(jax.tree.leaves(tree))} leaves: trace + lower"
    yield compared(name, interleave(sides, options.runs), bar=TRACE)


class Steps:
    """The seconds of single steps, 20 to a run."""

    def __init__(self, step: Callable[[], float]):
        self.step = step
        self.runs: list[list[float]] = []

    def mean(self) -> float:
        self.runs.append([self.step() for _ in range(STEPS)])
        return statistics.fmean(self.runs[-1])

    def worst(self, warmup: int) -> tuple[float, dict[str, float]]:
        """The worst of 20 steps over their median: of each step's median over the runs, so that
        what the machine did does not count; and quartiles over the runs, in which it does."""
        runs = self.runs[warmup:]
        usual = [statistics.median(times) for times in zip(*runs, strict=True)]
        return max(usual) / statistics.median(usual), quartiles(
            [max(times) / statistics.median(times) for times in runs]
        )


def refresh_rows(options: Namespace) -> Iterator[Row]:
    warmup, tree = 1, hidden(32, 1) if options.quick else hidden(384, 4)
    for method, build in REFRESHED.items():
        with torch_side(options.torch, method, tree) as others:
            mine = Training("gradtx", build(), tree)
            first = mine.timed()
            sides = {side: Steps(step) for side, step in {"gradtx": mine.timed, **others}.items()}
            times = interleave(
                {side: steps.mean for side, steps in sides.items()},
                min(options.runs, REFRESH_RUNS[method]),
                warmup,
            )
            for peer in others:
                bar = SOAP if method == "soap" else None
                yield compared(f"{method}: mean step, against {peer}", times, peer=peer, bar=bar)
            worst = {side: steps.worst(warmup) for side, steps in sides.items()}
            bar = WORST if method == "soap" else None
            yield Row(
                f"{method}: worst of {STEPS} steps, of their median",
                {side: one[0] for side, one in worst.items()},
                bar=bar,
                unit="",
            )
            yield Row(
                f"{method}: the same in single runs",
                {side: one[1] for side, one in worst.items()},
                unit="",
            )
            usual = statistics.median(mine.times)
            yield Row(f"{method}: first step, of the median step", {"gradtx": first}, first / usual)


SECTIONS = {
    "cpu": cpu_rows,
    "tpu": tpu_rows,
    "sharded": sharded_rows,
    "trace": trace_rows,
    "refresh": refresh_rows,
}
COUNTED = ("tpu", "sharded")
"""Sections whose values are counts, which one run is enough for; they need the compiler for TPU."""


def main() -> int:
    options = arguments(__doc__, torch=sys.executable, sections=",".join(SECTIONS), quick=False)
    if options.quick:
        options.runs, options.dry = min(options.runs, 2), True
    rows: dict[str, list[Row]] = {}
    for name in options.sections.split(","):
        if name in COUNTED and importlib.util.find_spec("libtpu") is None:
            print(f"{name}: the compiler for TPU is not there, and the section is left out")
            continue
        rows[name] = list(SECTIONS[name](options))
        print_table(name, rows[name])
    whole = {
        name: section for name, section in rows.items() if name in COUNTED or options.runs >= RUNS
    }
    if options.dry or not whole:
        print(f"no record: --dry, --quick, or fewer than {RUNS} runs")
    else:
        print(f"record: {record(whole).relative_to(ROOT)}")
    return int(any(row.verdict == "MISSED" for section in rows.values() for row in section))


def record(rows: Mapping[str, Sequence[Row]]) -> Path:
    """The record of today, with the sections anew that were run; every row says when and at which
    commit it was made.
    """
    path = record_path("matrices")
    before = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    stamp = {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
    }
    new = [
        {"section": name, **row._asdict(), "verdict": row.verdict, **stamp}
        for name, section in rows.items()
        for row in section
    ]
    others = [row for row in before if row["section"] not in rows]
    return write_table(
        "matrices", sorted(others + new, key=lambda row: list(SECTIONS).index(row["section"]))
    )


if __name__ == "__main__":
    sys.exit(main())
