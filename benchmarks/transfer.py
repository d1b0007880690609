"""The best learning rate over widths, with and without `transfer`, on Shakespeare's text.

A transformer of two blocks is trained at widths 32, 64, ..., 512; nine rates a factor of 2 apart
train in one program. Every width is in a CSV file as soon as it is trained, and a later call trains
those that are missing: `--widths 32,64,128,256,512,1024`.
"""

import argparse
import csv
import functools
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks import quality_tasks, transfer_model
from benchmarks.harness import RECORDS, arguments, write_table
from benchmarks.transfer_model import BASE, Shape

sys.path.insert(0, str(quality_tasks.ROOT / "examples"))
import _char_text as texts

RATES = [2.0**power for power in range(-11, -2)]
"""The grid: nine rates, a factor of 2 apart."""
CONTEXT, WINDOWS, STEPS, HELD_OUT, AT_ONCE = 32, 8, 100, 64, 10
WIDTHS = "32,64,128,256,512"
CSV = RECORDS / "transfer.csv"
FIELDS: tuple[str, ...] = (
    "method",
    "transfer",
    "width",
    "steps",
    "rate",
    "train",
    "valid",
    "seconds",
)


class Group(NamedTuple):
    """The runs of one program: all rates of a method at a width."""

    method: str
    transferred: bool
    width: int
    steps: int

    @property
    def key(self) -> tuple[str, ...]:
        return (self.method, str(self.transferred), str(self.width), str(self.steps))


def optimizer(group: Group, rate: Any, base: Any) -> gradtx.GradientTransformation:
    """The optimizer as it was tuned on the base model, with factors or without."""
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, rate, group.steps // 10, group.steps)
    if group.method == "adamw":
        tx = gradtx.adamw(schedule, b2=0.98, weight_decay=0.1, mask=r"kernel$")
        rule = "mup"
    else:  # the scale that fits AdamW's rate at one width, and does not fit it at another
        tx = gradtx.muon(schedule, scaling="match_rms_adamw", weight_decay=0.1, adam_b2=0.98)
        rule = "spectral"
    return gradtx.transfer(tx, base, rule) if group.transferred else tx


def start(group: Group, symbols: int) -> tuple[Any, Any]:
    """The parameters, and those of the base model."""
    base = transfer_model.init(0, Shape(symbols, BASE))
    params = transfer_model.init(0, Shape(symbols, group.width))
    if not group.transferred:
        return params, base
    return gradtx.scale_init(optimizer(group, 1.0, base), params, base), base


def train(group: Group, text: texts.Text) -> tuple[np.ndarray, np.ndarray]:
    """The losses of all rates: the mean of the last tenth of the steps, and on held-out text."""
    params, base = start(group, len(text.alphabet))
    shapes = jax.eval_shape(lambda: base)
    scale = transfer_model.attention_scale(group.width, group.transferred)
    symbols, loss = jnp.asarray(text.train), functools.partial(transfer_model.loss, scale=scale)
    rng = np.random.default_rng(1)
    order = rng.integers(0, len(text.train) - CONTEXT, (group.steps, WINDOWS))

    def one_step(tx: Any, carry: Any, starts: jax.Array) -> Any:
        params, state = carry
        windows = symbols[starts[:, None] + jnp.arange(CONTEXT + 1)[None]]
        value, grads = jax.value_and_grad(loss)(params, windows)
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), value

    def some_steps(rate: jax.Array, carry: Any, starts: jax.Array) -> Any:
        tx = optimizer(group, rate, shapes)
        return jax.lax.scan(functools.partial(one_step, tx), carry, starts)

    def first(rate: jax.Array) -> Any:
        return params, optimizer(group, rate, shapes).init(params)

    rates, losses = jnp.asarray(RATES), []
    run = jax.jit(jax.vmap(some_steps, (0, 0, None)), donate_argnums=1)
    carry = jax.jit(jax.vmap(first))(rates)
    for number in range(0, group.steps, AT_ONCE):
        carry, values = run(rates, carry, jnp.asarray(order[number : number + AT_ONCE]))
        losses.append(np.asarray(values))
        print(f"  {group.key} step {number + AT_ONCE}", flush=True)
    held_out = jnp.asarray(texts.held_out(text.valid, CONTEXT + 1, HELD_OUT))
    valid = jax.jit(jax.vmap(lambda one: loss(one, held_out)))(carry[0])
    last = np.concatenate(losses, axis=1)[:, -max(group.steps // 10, 1) :]
    return last.mean(axis=1), np.asarray(valid)


def finished(path: Path) -> list[dict[str, str]]:
    """The runs in the file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to the file; the first call writes the names of the columns."""
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, FIELDS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def groups(options: argparse.Namespace) -> list[Group]:
    """All programs, narrow ones first."""
    widths, steps = [int(one) for one in options.widths.split(",")], int(options.steps)
    methods = options.methods.split(",")
    return [
        Group(method, transferred, width, steps)
        for width in widths
        for method in methods
        for transferred in (True, False)
        # At the base width both are the same training.
        if transferred or width != BASE
    ]


def train_missing(options: argparse.Namespace, path: Path) -> None:
    text = quality_tasks.read_shakespeare(Path(options.text))
    known = {tuple(row[name] for name in FIELDS[:4]) for row in finished(path)}
    for group in groups(options):
        if group.key in known:
            continue
        began = time.perf_counter()
        train_loss, valid_loss = train(group, text)
        seconds = round(time.perf_counter() - began, 1)
        each = zip(RATES, train_loss, valid_loss, strict=True)
        known_values = dict(zip(FIELDS, (*group.key,), strict=False))
        append(
            path,
            [
                {
                    **known_values,
                    "rate": rate,
                    "train": f"{one:.4f}",
                    "valid": f"{other:.4f}",
                    "seconds": seconds,
                }
                for rate, one, other in each
            ],
        )


def table(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """For every method, with and without: the best rate at each width, and by how much it moves."""
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        for transferred in ("True", "False"):
            best = {width: _best(mine, width, transferred) for width in _widths(mine)}
            best = {width: one for width, one in best.items() if one is not None}
            powers = [int(np.log2(one["rate"])) for one in best.values()]
            moved = max(powers) - min(powers)
            row: dict[str, Any] = {"method": method, "transfer": transferred == "True"}
            row |= {"best": best, "grid_steps_moved": moved}
            if transferred == "True":
                row |= {"bar": 1, "verdict": "OK" if moved <= 1 else "MISSED"}
            else:
                row |= {"bar": 2, "verdict": "OK" if moved >= 2 else "MISSED"}
            found.append(row)
    return found


def _widths(rows: Sequence[Mapping[str, str]]) -> list[int]:
    return sorted({int(row["width"]) for row in rows})


def _best(rows: Sequence[Mapping[str, str]], width: int, transferred: str) -> dict[str, Any] | None:
    """The best rate at a width, by the loss at the end of the training."""
    kind = "True" if width == BASE else transferred
    mine = [row for row in rows if int(row["width"]) == width and row["transfer"] == kind]
    mine = [row for row in mine if np.isfinite(float(row["train"]))]
    if not mine:
        return None
    best = min(mine, key=lambda row: float(row["train"]))
    return {
        "rate": float(best["rate"]),
        "train": float(best["train"]),
        "valid": float(best["valid"]),
    }


def print_lines(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        name = f"{row['method']} {'with' if row['transfer'] else 'without'} transfer"
        best = ", ".join(
            f"{width}: 2^{int(np.log2(one['rate']))} ({one['train']:.3f})"
            for width, one in row["best"].items()
        )
        print(f"{name:<24} moves {row['grid_steps_moved']} (bar {row['bar']}) {row['verdict']}")
        print(f"  best rate by width (loss): {best}")


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(
        __doc__,
        argv,
        widths=WIDTHS,
        methods="adamw,muon",
        steps=STEPS,
        text=str(quality_tasks.TEXT),
        csv=str(CSV),
        draw=False,
        quick=False,
    )
    path = Path(options.csv)
    if options.quick:
        options.widths, options.steps, options.dry = "64,128", "20", True
        path = quality_tasks.ROOT / "benchmarks" / "data" / "transfer_quick.csv"
    if not options.draw:
        train_missing(options, path)
    runs = [row for row in finished(path) if row["steps"] == str(options.steps)]
    rows = table(runs)
    print_lines(rows)
    if not options.dry:
        from benchmarks.transfer_picture import draw

        draw(runs)
        print(f"record: {write_table('transfer', rows).name}")
    return int(any(row["verdict"] == "MISSED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
