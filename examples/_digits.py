"""Batches of the digits, and the comparison of losses, for examples/fsdp_*.py."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

TOLERANCE = 1e-5
"""Between one device and eight, relative: sums over devices have another order."""


class Run(NamedTuple):
    """The end of a training."""

    params: Any
    state: Any
    losses: list[float]


def batches(steps: int = 20, size: int = 128) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random images of 64 numbers from 0 to 1, with their labels."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        chosen = rng.integers(len(images), size=size)
        yield (images[chosen] / 16).astype(np.float32), labels[chosen].astype(np.int32)


def compare(train: Callable[..., Run], optimizers: Mapping[str, Any]) -> dict[str, Run]:
    """Compare one device with eight; the runs on eight, by the name of the optimizer."""
    runs: dict[str, Run] = {}
    for name, tx in optimizers.items():
        runs[name] = train(tx, devices=8)
        report(name, train(tx, devices=1).losses, runs[name].losses)
    return runs


def report(name: str, one: Sequence[float], eight: Sequence[float]) -> None:
    """Print the losses, and exit with an error where eight devices differ from one."""
    far = max(abs(a - b) / abs(a) for a, b in zip(one, eight, strict=True))
    print(f"{name:6}  loss {eight[0]:.3f} to {eight[-1]:.3f}, eight devices as one to {far:.0e}")
    if far > TOLERANCE:
        raise SystemExit(f"{name}: the losses differ by {far:.0e}, and {TOLERANCE:.0e} is allowed")
