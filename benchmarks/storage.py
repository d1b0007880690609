"""AdamW with its state in fewer bits: bytes, the time of a CPU step, counts for TPU v5e and H100.

Times: jitted, donated steps of one leaf of 64 Mi float32 and of GPT-2 small against Optax's AdamW
in float32, and against torch's fused AdamW in a process of its own where `--torch PYTHON` names an
interpreter that has it. gradtx's step is `update_params`. Compilers: where they are installed (see
benchmarks/README.md); otherwise a line replaces those rows."""

import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

import gradtx
from benchmarks.harness import Row, arguments, balanced, compared, finish, made, seconds
from benchmarks.step import Side, torch_side
from benchmarks.steps import LEARNING_RATE
from benchmarks.trees import TREES, Tree, filled, parameter_count

CODECS: dict[str, dict[str, Any]] = {
    "bf16": {"default": "bf16"},
    "packed16": {"default": "packed16"},
    "int8": {"default": "int8"},
    "int4 mu, int8 nu": {"mu": "int4", "nu": "int8"},
}
BYTES = {"bf16": 4.0, "packed16": 4.0, "int8": 2.13, "int4 mu, int8 nu": 1.65}
"""State bytes per parameter of the matrices, at most."""
TIMES = {("packed16", "optax"): 0.70, ("packed16", "torch"): 1.05, ("int8", "optax"): 3.0}
"""The step in units of the peer's in float32, at most."""
CYCLES, TEMPORARY, TEMPORARY_CPU = 0.75, 2.0, 10.0
"""Of float32's estimate on a TPU; temporary bytes in per cent of the parameters'."""


def adamw(codec: str | None, **options: Any) -> Any:
    """AdamW, its state in float32 or in a codec."""
    tx = gradtx.adamw(LEARNING_RATE)
    return tx if codec is None else gradtx.stored(tx, **{**CODECS[codec], **options})


def step_of(tx: Any) -> Any:
    """One donated step; the kernels of the update write the new parameters."""
    return jax.jit(functools.partial(_step, tx), donate_argnums=(0, 1))


def _step(tx: Any, params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
    return gradtx.update_params(tx, grads, state, params)


def matrices() -> Tree:
    """GPT-2 small without embeddings: the matrices, biases and norms of its blocks."""
    return {name: block for name, block in TREES["gpt2_small"]().items() if name.startswith("h_")}


def state_bytes(tx: Any, tree: Tree) -> int:
    return sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(jax.eval_shape(tx.init, tree).slots)
    )


def byte_rows() -> Iterator[Row]:
    whole = TREES["gpt2_small"]()
    matrix = {"matrix": whole["h_0"]["mlp"]["c_fc"]["kernel"]}
    for codec, bar in BYTES.items():
        for name, tree, limit in (
            ("a matrix", matrix, bar),
            ("blocks", matrices(), None),
            ("all of GPT-2 small", whole, None),
        ):
            measured = state_bytes(adamw(codec), tree) / parameter_count(tree)
            yield Row(
                f"{codec}: state, {name}", {"gradtx": measured}, bar=limit, unit="B per parameter"
            )


class Stored(Side):
    """A training with state in a codec, in the same buffers from step to step."""

    def __init__(self, tree: Tree, codec: str):
        tx = adamw(codec)
        self.step, self.steps = step_of(tx), 1
        self.params, self.grads = filled(tree, 1.0), filled(tree, 0.5)
        self.state = tx.init(self.params)

    def timed(self) -> float:
        return seconds(self.run)


def time_rows(
    tree_name: str, runs: int, others: Mapping[str, Callable[[], float]]
) -> Iterator[Row]:
    tree = TREES[tree_name]()
    mine = {
        codec: lambda codec=codec: Stored(tree, codec).timed
        for codec in ("bf16", "packed16", "int8")
    }
    peers: dict[str, Callable[[], Callable[[], float]]] = {
        "optax": lambda: Side("optax", tree, "adamw", 1).timed,
        "float32": lambda: Side("gradtx", tree, "adamw", 1).timed,
        **made(others),
    }
    times = balanced({**mine, **peers}, runs)
    for codec in mine:
        for peer in peers:
            bar = TIMES.get((codec, peer.partition(" ")[0]))
            yield compared(
                f"{tree_name}: {codec}, against {peer}",
                {"gradtx": times[codec], peer: times[peer]},
                peer=peer,
                bar=bar,
            )


def memory_rows(tree_name: str) -> Iterator[Row]:
    tree = TREES[tree_name]()
    for codec in CODECS:
        tx = adamw(codec)
        compiled = step_of(tx).lower(tree, jax.eval_shape(tx.init, tree), tree).compile()
        share = 100 * compiled.memory_analysis().temp_size_in_bytes / (4 * parameter_count(tree))
        yield Row(
            f"{tree_name}: {codec}, temporary on the CPU",
            {"gradtx": share},
            bar=TEMPORARY_CPU,
            unit="%",
        )


def compiler_rows() -> Iterator[Row]:
    from benchmarks.compilers import CHIPS, compile_for, counts

    tree = TREES["gpt2_small"]()
    total, leaves = 4 * parameter_count(tree), len(jax.tree.leaves(tree))
    for platform, chip in CHIPS.items():
        programs = {}
        for codec in (None, *CODECS):
            tx = adamw(codec) if codec in (None, "bf16", "packed16") else adamw(codec, fused=True)
            programs[codec] = counts(
                platform,
                compile_for(platform, step_of(tx), tree, jax.eval_shape(tx.init, tree), tree),
            )
        for codec in CODECS:
            one, plain = programs[codec], programs[None]
            name = f"{chip}, gpt2_small: {codec}"
            if platform == "tpu" and codec in ("bf16", "packed16"):
                cycles = {"gradtx": one.cycles / 1e6, "float32": plain.cycles / 1e6}
                yield Row(
                    f"{name}, cycles", cycles, ratio=one.cycles / plain.cycles, bar=CYCLES, unit="M"
                )
            limit = TEMPORARY if "int8" in codec else None
            yield Row(
                f"{name}, temporary", {"gradtx": 100 * one.temp_bytes / total}, bar=limit, unit="%"
            )
            kernels = {"gradtx": one.kernels / leaves, "float32": plain.kernels / leaves}
            one_each = (
                {"ratio": one.kernels / plain.kernels, "bar": 1.0}
                if platform == "cuda" and "int8" in codec
                else {}
            )
            yield Row(f"{name}, kernels per leaf", kernels, unit="", **one_each)
            yield Row(f"{name}, copies", {"gradtx": one.copies, "float32": plain.copies}, unit="")


def has_compilers() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("libtpu", "jax_plugins"))


def main() -> int:
    options = arguments(__doc__, torch=sys.executable, compilers="yes", times="yes")
    rows = list(byte_rows())
    if options.times == "yes":
        for tree_name in ("one_leaf", "gpt2_small"):
            with torch_side(options.torch, TREES[tree_name]()) as others:
                rows += time_rows(tree_name, options.runs, others)
            rows += memory_rows(tree_name)
    if options.compilers == "yes" and has_compilers():
        rows += compiler_rows()
    else:
        print("the compilers for TPU and GPU are missing or not selected: no rows for them")
    return finish("storage", rows, options)


if __name__ == "__main__":
    sys.exit(main())
