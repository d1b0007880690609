"""The progress display and the final picture of examples/char_lm.py."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from _char_train import MAX_NORM, Plan
from _style import BLUE, GREEN, INK, OFFSET, ORANGE, PURPLE, STYLE, draw_noisy
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Row = dict[str, Any]


def show(rows: Iterable[Row], plan: Plan, console: Console) -> list[Row]:
    """Show a training: a progress bar, and the metrics below it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bar, history = Progress(*columns, console=console), list[Row]()
    task = bar.add_task("compiling", total=plan.steps)
    latest, start = Row(), time.perf_counter()
    with Live(bar, console=console, refresh_per_second=5) as live:
        for row in rows:
            history.append(row)
            if len(history) == 1:
                start = time.perf_counter()  # the first step compiles
            latest = latest | row
            bar.update(task, completed=row["step"], description="training")
            speed = (
                (len(history) - 1)
                * plan.batch
                * plan.context
                / max(time.perf_counter() - start, 1e-9)
            )
            live.update(Group(bar, _table(latest, plan, speed)))
    return history


def _table(row: Row, plan: Plan, speed: float) -> Table:
    """Arrange the metrics in two columns of names and numbers."""
    saved, parts = row["step"] // plan.save_every * plan.save_every, plan.microbatches
    cells = [
        ("loss", f"{row['loss']:.3f} nats", "validation, as trained", _nats(row.get("valid"))),
        (
            "learning rate",
            f"{row['learning_rate']:.2e}",
            "validation, averaged",
            _nats(row.get("valid_ema")),
        ),
        ("gradient norm", f"{row['guarded_norm']:.3f}", "clip rate", f"{row['clip_rate']:.0%}"),
        (
            "update norm",
            f"{row['update_norm']:.4f}",
            "skipped steps",
            f"{row['skipped_steps']:.0f}",
        ),
        (
            "parameter norm",
            f"{row['param_norm']:.2f}",
            "characters/s",
            f"{speed:,.0f}" if speed else "…",
        ),
        (
            "micro-batches",
            f"{parts} of {plan.batch // parts}",
            "last checkpoint",
            f"step {saved}" if saved else "none yet",
        ),
    ]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for index in range(4):
        table.add_column(
            style="dim" if index % 2 == 0 else "bold",
            justify="left" if index % 2 == 0 else "right",
            min_width=12,
        )
    for line in cells:
        table.add_row(*line)
    return table


def _nats(value: float | None) -> str:
    return "…" if value is None else f"{value:.3f} nats"


def draw(
    rows: Sequence[Row],
    plan: Plan,
    *,
    unigram: float,
    killed: tuple[int, int] | None,
    title: str,
    file: Path,
) -> None:
    """Draw losses, learning rate, gradient norm, and the validation losses of both parameters."""
    with mpl.rc_context(STYLE):
        figure, ((loss, valid), (rate, norm)) = plt.subplots(
            2, 2, figsize=(10, 6.2), sharex=True, layout="constrained"
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
        draw_noisy(loss, [row["loss"] for row in rows], BLUE, "Training loss (nats per character)")
        loss.set(yscale="linear")
        loss.axhline(unigram, color=INK, lw=1, ls="--")
        loss.annotate(
            "entropy of single characters",
            (1, unigram),
            (-2, 5),
            xycoords=("axes fraction", "data"),
            **OFFSET,
            ha="right",
        )
        if killed is not None:
            _draw_killed(loss, *killed)
        _draw_valid(valid, [row for row in rows if "valid" in row])
        _draw_rate(rate, [row["learning_rate"] for row in rows], plan)
        _draw_norm(norm, rows)
        norm.set_xlabel("step")
        figure.savefig(file)
        plt.close(figure)


def _draw_killed(axes: Any, resumed: int, killed: int) -> None:
    axes.axvspan(resumed, killed, color=ORANGE, alpha=0.25, lw=0)
    where: Any = {"xycoords": ("data", "axes fraction"), **OFFSET}
    axes.annotate("done twice: killed,\nthen resumed", (killed, 0.8), (6, 0), color=ORANGE, **where)


def _draw_valid(axes: Any, checks: Sequence[Row]) -> None:
    steps = [row["step"] for row in checks]
    for key, name, color, height in (
        ("valid", "as trained", ORANGE, 0.92),
        ("valid_ema", "averaged", BLUE, 0.82),
    ):
        values = np.array([row[key] for row in checks])
        axes.plot(steps, values, color=color, lw=2, marker="o", ms=3)
        axes.annotate(name, (0.98, height), xycoords="axes fraction", color=color, ha="right")
    axes.set(title="Validation loss on the way (nats per character)")


def _draw_rate(axes: Any, values: Sequence[float], plan: Plan) -> None:
    warmup, stable, decay = plan.phases
    axes.plot(values, color=GREEN, lw=2)
    for left, width, name in (
        (0, warmup, "warmup"),
        (warmup, stable, "stable"),
        (warmup + stable, decay, "decay"),
    ):
        axes.annotate(
            name,
            (left + width / 2, 0.92),
            xycoords=("data", "axes fraction"),
            color=GREEN,
            ha="center",
        )
    for edge in (warmup, warmup + stable):
        axes.axvline(edge, ymax=0.8, color=GREEN, alpha=0.4, lw=1)
    axes.set(title="Learning rate (per step)", xlabel="step", ylim=(0, 1.25 * max(values)))


def _draw_norm(axes: Any, rows: Sequence[Row]) -> None:
    norms = [row["guarded_norm"] for row in rows]
    draw_noisy(axes, norms, PURPLE, "Gradient norm, before clipping")
    axes.axhline(MAX_NORM, color=INK, lw=1, ls="--")
    axes.annotate(
        f"clipped above {MAX_NORM:g}",
        (1, MAX_NORM),
        (-2, 4),
        xycoords=("axes fraction", "data"),
        **OFFSET,
        ha="right",
    )
    skipped = [
        index
        for index in range(1, len(rows))
        if rows[index]["skipped_steps"] > rows[index - 1]["skipped_steps"]
    ]
    axes.plot(skipped, [norms[index] for index in skipped], ls="", marker="o", ms=6, color=ORANGE)
    if skipped:
        axes.annotate(
            f"{len(skipped)} left out by the guard",
            (0.98, 0.9),
            xycoords="axes fraction",
            color=ORANGE,
            ha="right",
        )
    axes.set_yticks([0.2, 0.5, 1, 2, 5, 10], labels=["0.2", "0.5", "1", "2", "5", "10"])
    axes.set_ylim(min(norms) / 1.3, 1.3 * max(norms))
    axes.minorticks_off()
