"""Train a small transformer on real text, kill it half-way, and see it go on as if nothing had
been.

    # the sources of Python's standard library; under three minutes on two cores
    python examples/char_lm.py
    python examples/char_lm.py --text book.txt    # any other text
    python examples/char_lm.py --resume           # go on after Ctrl-C, a crash or a power cut

A first process trains until it is killed with SIGKILL, which no program can answer. A second one
loads the last checkpoint and trains to the end. The steps between the checkpoint and the kill are
done by both, so their losses can be compared bit by bit."""

import argparse
import contextlib
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

try:
    import _char_model as model
    import _char_text as texts
    from _char_train import (
        HEADS,
        Plan,
        first_step,
        judge,
        optimizer,
        read_log,
        saved_step,
        start,
        train,
    )
    from _char_view import draw, show
    from rich.console import Console
except ImportError as error:
    missing = (error.name or str(error)).split(".", maxsplit=1)[0]
    sys.exit(
        f"examples/char_lm.py needs {missing}: install it with pip install 'gradtx[examples]'."
    )

FULL = Plan(steps=400, seed=0, folder=Path())
QUICK = FULL._replace(steps=120, batch=4, context=16, width=16, depth=1, checked=4)


def kill(plan: Plan, text: texts.Text, arguments: list[str], console: Console) -> tuple[int, int]:
    """Say what is trained, begin in another process, and kill that; the steps that it had saved,
    and had done.
    """
    for file in (plan.checkpoint, *plan.folder.glob("*.jsonl")):
        file.unlink(missing_ok=True)
    tx = optimizer(plan)
    size = model.size(start(plan, tx, text)["params"])
    console.print(
        f"{text.name}: {len(text.train) + len(text.valid):,} characters, {len(text.alphabet)} symbols; {size:,} parameters\n"
    )
    console.print(f"{tx}\n", markup=False)
    half = plan.steps // 2 // plan.save_every * plan.save_every + plan.save_every // 2
    done = run_until(half, plan, [sys.executable, __file__, *arguments, "--only-train"])
    saved = saved_step(plan, text)
    console.show_cursor(True)
    console.print(
        f"\n\nkilled after step {done}; going on from the checkpoint of step {saved}\n",
        style="bold red",
    )
    return saved, done


def run_until(step: int, plan: Plan, command: list[str]) -> int:
    """Run a command that trains until it has logged a step, then kill it; the steps that it has
    logged.
    """
    child = subprocess.Popen(command)
    try:
        while len(read_log(plan.log(0))) < step:
            if child.poll() is not None:
                sys.exit(f"the training ended by itself, with status {child.returncode}")
            time.sleep(0.02)
    finally:
        child.kill()  # SIGKILL: no handler runs, nothing is flushed
        child.wait()
    return len(read_log(plan.log(0)))


def compare(plan: Plan, saved: int, done: int, console: Console) -> None:
    """Whether both processes measured the same at the steps that both did."""
    before, after = read_log(plan.log(0))[saved:done], read_log(plan.log(saved))[: done - saved]
    for one, other in zip(before, after, strict=True):
        differ = [name for name in one if one[name] != other[name] and name != "seconds"]
        if differ:
            sys.exit(
                f"step {one['step']} differs in {', '.join(differ)}: {one} before the kill, {other} after it"
            )
    if done == saved:
        console.print("it was killed right after a checkpoint: no step was done twice\n")
        return
    what = "losses, gradient norms and learning rates are equal to the last bit"
    console.print(
        f"steps {saved + 1} to {done} were done twice, before the kill and after it: {what}\n"
    )


def report(plan: Plan, text: texts.Text, console: Console) -> dict[str, float]:
    """How good it became, and what it writes."""
    params, found = judge(plan, text)
    unigram = text.unigram_entropy()
    bits = found["valid_ema"] / math.log(2)
    console.print(
        f"validation loss, nats per character: {found['valid']:.3f} as trained, {found['valid_ema']:.3f} averaged ({bits:.2f} bits)"
    )
    console.print(f"who knows how common each character is, and nothing else, has {unigram:.3f}\n")
    opening = "def "
    key = jax.random.key(plan.seed)
    drawn = model.sample(
        params, key, jnp.asarray(text.encode(opening)), HEADS, plan.context, 300, 0.7
    )
    console.rule("a sample", style="dim")
    console.print(opening + text.decode(jax.device_get(drawn)), markup=False, highlight=False)
    console.rule(style="dim")
    return {**found, "unigram": unigram}


def picture(plan: Plan, found: dict[str, float], killed: tuple[int, int] | None, name: str) -> Path:
    file = plan.folder.parent / "char_lm.png"
    title = f"A transformer on {name}: {found['valid_ema']:.2f} nats per character after {plan.steps} steps"
    draw(history(plan), plan, unigram=found["unigram"], killed=killed, title=title, file=file)
    return file


def history(plan: Plan) -> list[dict[str, Any]]:
    """Every step once, as the last process that did it tells."""
    rows = {
        row["step"]: row
        for file in sorted(plan.folder.glob("*.jsonl"), key=first_step)
        for row in read_log(file)
    }
    return [rows[step] for step in sorted(rows)]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None
    )
    parser.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="what to learn; the standard library's sources if not given",
    )
    parser.add_argument("--steps", type=int, help=f"how long to train ({FULL.steps})")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first weights and the batches (0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("examples/out"),
        metavar="DIR",
        help="for picture and checkpoints (examples/out)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint, kill nothing"
    )
    parser.add_argument(
        "--only-train",
        action="store_true",
        help="train from the start, kill nothing, show no results",
    )
    parser.add_argument("--quick", action="store_true", help="a tiny network, for a test")
    parsed = parser.parse_args(arguments)
    quick = QUICK if parsed.quick else FULL
    if parsed.steps is not None and parsed.steps < 4 * quick.save_every:
        parser.error(f"--steps {parsed.steps}: at least {4 * quick.save_every} steps are needed")
    if parsed.text is not None and not parsed.text.is_file():
        parser.error(f"--text {parsed.text}: there is no such file")
    return parsed


def main(arguments: list[str] | None = None) -> None:
    chosen, console = parse(arguments), Console()
    plan = QUICK if chosen.quick else FULL
    plan = plan._replace(
        steps=chosen.steps or plan.steps, seed=chosen.seed, folder=chosen.out / "char_lm"
    )
    text = texts.load(chosen.text)
    if len(text.valid) <= plan.context:
        sys.exit(
            f"{text.name} is too short: a tenth of it is {len(text.valid)} characters, and more than {plan.context} are needed"
        )
    if chosen.only_train:
        with contextlib.suppress(
            KeyboardInterrupt
        ):  # Ctrl-C reaches both processes; the other one speaks
            show(train(plan, text), plan, console)
        return
    plan.folder.mkdir(parents=True, exist_ok=True)
    killed = (
        None
        if chosen.resume
        else kill(plan, text, sys.argv[1:] if arguments is None else arguments, console)
    )
    show(train(plan, text), plan, console)
    console.print()
    if killed is not None:
        compare(plan, *killed, console)
    found = report(plan, text, console)
    console.print(f"\npicture: {picture(plan, found, killed, text.name)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nstopped; --resume goes on from the last checkpoint")
