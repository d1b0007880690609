"""Train a small transformer on real text, kill it half-way, and resume it bit for bit.

    # the sources of Python's standard library; under three minutes on two cores
    python examples/char_lm.py
    python examples/char_lm.py --text book.txt    # any other text
    python examples/char_lm.py --resume           # resume after Ctrl-C, a crash or a power cut

A first process trains until SIGKILL ends it, which no program can handle. A second process
loads the last checkpoint and trains to the end. Both processes run the steps between the checkpoint
and the kill, so their losses can be compared bit by bit."""

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
    """Train in another process and kill it; return its last saved step and its last step."""
    for file in (plan.checkpoint, *plan.folder.glob("*.jsonl")):
        file.unlink(missing_ok=True)
    tx = optimizer(plan)
    size = model.size(start(plan, tx, text)["params"])
    console.print(
        f"{text.name}: {len(text.train) + len(text.valid):,} characters, "
        f"{len(text.alphabet)} symbols; {size:,} parameters\n"
    )
    console.print(f"{tx}\n", markup=False)
    half = plan.steps // 2 // plan.save_every * plan.save_every + plan.save_every // 2
    last = run_until(half, plan, [sys.executable, __file__, *arguments, "--only-train"])
    saved = saved_step(plan, text)
    console.show_cursor(True)
    console.print(
        f"\n\nkilled after step {last}; resuming from the checkpoint of step {saved}\n",
        style="bold red",
    )
    return saved, last


def run_until(step: int, plan: Plan, command: list[str]) -> int:
    """Run a training command until its log has a step, then kill it; return the logged steps."""
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


def compare(plan: Plan, saved: int, last: int, console: Console) -> None:
    """Exit with an error unless both processes measured the same at their common steps."""
    before, after = read_log(plan.log(0))[saved:last], read_log(plan.log(saved))[: last - saved]
    for old, new in zip(before, after, strict=True):
        differences = [name for name in old if old[name] != new[name] and name != "seconds"]
        if differences:
            sys.exit(
                f"step {old['step']} differs in {', '.join(differences)}: "
                f"{old} before the kill, {new} after it"
            )
    if last == saved:
        console.print("the kill came right after a checkpoint: no step ran twice\n")
        return
    console.print(
        f"steps {saved + 1} to {last} ran twice, before and after the kill: "
        "losses, gradient norms and learning rates are equal to the last bit\n"
    )


def report(plan: Plan, text: texts.Text, console: Console) -> dict[str, float]:
    """Print the validation losses and a sample."""
    params, losses = judge(plan, text)
    unigram = text.unigram_entropy()
    bits = losses["valid_ema"] / math.log(2)
    console.print(
        f"validation loss, nats per character: {losses['valid']:.3f} as trained, "
        f"{losses['valid_ema']:.3f} averaged ({bits:.2f} bits)"
    )
    console.print(f"the character frequencies alone give {unigram:.3f}\n")
    opening = "def "
    key = jax.random.key(plan.seed)
    sampled = model.sample(
        params, key, jnp.asarray(text.encode(opening)), HEADS, plan.context, 300, 0.7
    )
    console.rule("a sample", style="dim")
    console.print(opening + text.decode(jax.device_get(sampled)), markup=False, highlight=False)
    console.rule(style="dim")
    return {**losses, "unigram": unigram}


def picture(
    plan: Plan, losses: dict[str, float], killed: tuple[int, int] | None, name: str
) -> Path:
    file = plan.folder.parent / "char_lm.png"
    title = (
        f"A transformer on {name}: {losses['valid_ema']:.2f} nats per character "
        f"after {plan.steps} steps"
    )
    draw(history(plan), plan, unigram=losses["unigram"], killed=killed, title=title, file=file)
    return file


def history(plan: Plan) -> list[dict[str, Any]]:
    """Return every step once, from the last process that ran it."""
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
        help="the training text (the standard library's sources)",
    )
    parser.add_argument("--steps", type=int, help=f"training steps ({FULL.steps})")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first weights and the batches (0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("examples/out"),
        metavar="DIR",
        help="folder for picture and checkpoints (examples/out)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume from the last checkpoint, without a kill"
    )
    parser.add_argument(
        "--only-train",
        action="store_true",
        help="train from the start, without a kill and without results",
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
    options, console = parse(arguments), Console()
    plan = QUICK if options.quick else FULL
    plan = plan._replace(
        steps=options.steps or plan.steps, seed=options.seed, folder=options.out / "char_lm"
    )
    text = texts.load(options.text)
    if len(text.valid) <= plan.context:
        sys.exit(
            f"{text.name} is too short: a tenth of it is {len(text.valid)} characters, "
            f"and more than {plan.context} are needed"
        )
    if options.only_train:
        # Ctrl-C reaches both processes; the parent prints the message.
        with contextlib.suppress(KeyboardInterrupt):
            show(train(plan, text), plan, console)
        return
    plan.folder.mkdir(parents=True, exist_ok=True)
    killed = (
        None
        if options.resume
        else kill(plan, text, sys.argv[1:] if arguments is None else arguments, console)
    )
    show(train(plan, text), plan, console)
    console.print()
    if killed is not None:
        compare(plan, *killed, console)
    losses = report(plan, text, console)
    console.print(f"\npicture: {picture(plan, losses, killed, text.name)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nstopped; --resume continues from the last checkpoint")
