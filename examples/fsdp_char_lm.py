"""Train on eight devices, kill the training, and resume it on four.

    python examples/fsdp_char_lm.py            # under three minutes on two cores
    python examples/fsdp_char_lm.py --text book.txt

A transformer of characters, with Muon in int8, ZeRO-1, and checkpoints by Orbax. ZeRO-1: parameters
are whole on each device, the batch and the optimizer's state are cut. A first process trains on
eight devices until SIGKILL ends it. A second one restores the last checkpoint on four devices and
trains to the end. Both run the steps between the checkpoint and the kill, so their losses can be
compared. They are equal up to the order of sums, which moves a few int8 codes by one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

try:
    import _char_text as texts
    from _fsdp_train import (
        Plan,
        bytes_per_device,
        checkpoints,
        mesh_of,
        optimizer,
        read_log,
        start,
        train,
    )
except ImportError as error:
    missing = (error.name or str(error)).split(".", maxsplit=1)[0]
    sys.exit(
        f"examples/fsdp_char_lm.py needs {missing}: install it with "
        "pip install 'gradtx[examples,orbax]'"
    )

BEFORE, AFTER = 8, 4
"""The devices before and after the kill."""
TOLERANCE = 2e-3
"""Between the losses on eight devices and on four, relative: int8 codes that moved by one."""
TINY = {"steps": 24, "save_every": 8, "batch": 8, "context": 16, "width": 32, "depth": 1}


def command(options: argparse.Namespace, devices: int) -> tuple[list[str], dict[str, str]]:
    """The call of a training process, and its environment: the CPU as some devices."""
    call = [sys.executable, __file__, "--out", str(options.out), "--devices", str(devices)]
    call += ["--tiny"] * options.tiny
    call += ["--text", str(options.text)] if options.text else []
    flags = os.environ.get("XLA_FLAGS", "")
    count = f"--xla_force_host_platform_device_count={devices}"
    # XLA's remarks on how it moves the scales of int8, a thousandth of the bytes.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")}
    return call, {**os.environ, **quiet, "XLA_FLAGS": f"{flags} {count}"}


def train_and_kill(options: argparse.Namespace, plan: Plan) -> int:
    """Train on eight devices and kill the process; return its last step."""
    call, environment = command(options, BEFORE)
    child = subprocess.Popen(call, env=environment)
    try:
        while len(read_log(plan.log(BEFORE))) < plan.kill_at:
            if child.poll() is not None:
                sys.exit(f"the training ended by itself, with status {child.returncode}")
            time.sleep(0.02)
    finally:
        child.kill()  # SIGKILL: no handler runs, nothing is flushed
        child.wait()
    return len(read_log(plan.log(BEFORE)))


def compare(plan: Plan, saved: int, last: int) -> None:
    """Exit with an error unless eight devices and four measured the same at common steps."""
    before = {row["step"]: row["loss"] for row in read_log(plan.log(BEFORE))}
    after = {row["step"]: row["loss"] for row in read_log(plan.log(AFTER))}
    common = range(saved + 1, last + 1)
    far = max((abs(before[step] / after[step] - 1) for step in common), default=0.0)
    print(f"steps {saved + 1} to {last} ran on both: losses are equal to {far:.0e}")
    if far > TOLERANCE:
        sys.exit(f"the losses differ by {far:.0e}, and {TOLERANCE:.0e} is allowed")


def run_child(plan: Plan, text: texts.Text, devices: int) -> None:
    """Train in this process, and print each step."""
    first = start(plan, optimizer(plan), text, mesh_of(devices))
    parameters, state = bytes_per_device(first.params), bytes_per_device(first.state)
    print(f"{devices} devices: {parameters:,} bytes of parameters and {state:,} of state on each")
    for row in train(plan, text, devices):
        if row["step"] % plan.save_every == 0 or "valid" in row:
            print(f"step {row['step']:4}  loss {row['loss']:.3f}", flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None
    )
    parser.add_argument("--text", type=Path, help="the training text (the standard library)")
    parser.add_argument("--out", type=Path, default=Path("examples/out"), help="where to save")
    parser.add_argument("--tiny", action="store_true", help="a tiny network, for a test")
    parser.add_argument("--devices", type=int, help="train in this process, without a kill")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    plan = Plan(options.out / "fsdp_char_lm", **(TINY if options.tiny else {}))
    if options.devices:
        run_child(plan, texts.load(options.text), options.devices)
        return
    remove_old(plan)
    last = train_and_kill(options, plan)
    saved = checkpoints(plan).latest_step() or 0
    print(f"killed after step {last}; resuming from the checkpoint of step {saved}", flush=True)
    call, environment = command(options, AFTER)
    subprocess.run(call, env=environment, check=True)
    compare(plan, saved, last)
    print(f"validation loss {read_log(plan.log(AFTER))[-1]['valid']:.3f} nats per character")


def remove_old(plan: Plan) -> None:
    """Remove the logs and the checkpoints of an earlier run."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(plan.folder / "checkpoints", ignore_errors=True)
    for file in plan.folder.glob("*.jsonl"):
        file.unlink()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nstopped")
