"""The tasks of `frontier`: Shakespeare's works, Fashion-MNIST, and the King James Bible.

Each has three parts without an example in common: one to train on, one to choose hyperparameters
by (valid), and one for the figures of the report (test)."""

import itertools
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import frontier_model as model
from benchmarks import quality_tasks

texts = quality_tasks.texts
BIBLE = Path("/usr/lib/bible.data")
"""Where Debian's package bible-kjv-text puts its file."""
CONTEXT, WINDOWS, TEXT_STEPS, VALID, TEST = 128, 12, 360, 128, 512
"""0.55 million characters; 16 and 66 thousand characters are held out."""
IMAGES, FASHION_STEPS, HELD_OUT = 256, 500, 5000
PIECES = 200
"""A text is cut into so many pieces; of ten, eight are for training."""


class Task(NamedTuple):
    """The data, the loss and the length of a training."""

    name: str
    title: str
    steps: int
    init: Callable[[np.random.Generator], Any]
    batch: Callable[[np.random.Generator], Any]
    """Draw the next batch."""
    loss: Callable[[Any, Any], jax.Array]
    valid: Sequence[Any]
    """Batches to choose hyperparameters by."""
    test: Sequence[Any]
    """Batches for the figures of the report."""
    tuned: str
    """The task whose tuned hyperparameters it uses: its own, or another task's."""


def shakespeare(archive: Path = quality_tasks.TEXT) -> Task:
    text = quality_tasks.read_shakespeare(archive)
    whole = text.decode(np.concatenate([text.train, text.valid]))
    return _text_task("shakespeare", "Shakespeare", whole, tuned="shakespeare")


def bible(file: Path = BIBLE) -> Task:
    """The held-out task: it uses the hyperparameters that were tuned on Shakespeare."""
    return _text_task("bible", "King James Bible", read_bible(file), tuned="shakespeare")


def read_bible(file: Path) -> str:
    """Decompress the text of Debian's bible-kjv-text: a verse a line.

    Behind 88 bytes are big-endian numbers: the number of windows, the place of each and of the end,
    then the three first bytes that all windows share. With these each window is a stream of Unix's
    `compress`, which gzip reads.
    """
    if not file.exists():
        raise SystemExit(
            f"King James Bible: there is no {file}; install it with "
            "`apt-get install bible-kjv-text`, or name the file: --bible FILE"
        )
    data = file.read_bytes()
    places = struct.unpack_from(f">{struct.unpack_from('>I', data, 88)[0] + 1}I", data, 92)
    head = data[places[0] - 3 : places[0]]
    windows = (head + data[start:end] for start, end in itertools.pairwise(places))
    return b"".join(map(_decompress, windows)).decode("latin-1")


def _decompress(window: bytes) -> bytes:
    return subprocess.run(["gzip", "-dc"], input=window, capture_output=True, check=True).stdout


def _text_task(name: str, title: str, whole: str, tuned: str) -> Task:
    train, valid, test = split_text(whole)
    read = texts.to_numbers(name, train)._replace(name=name)
    symbols = read.encode(train)
    return Task(
        name,
        title,
        TEXT_STEPS,
        model.init_transformer,
        lambda rng: jnp.asarray(_windows(symbols, rng.integers(0, 1 << 62, WINDOWS))),
        model.next_symbol_loss,
        _held_out(read.encode(valid), VALID),
        _held_out(read.encode(test), TEST),
        tuned,
    )


def split_text(whole: str) -> tuple[str, str, str]:
    """Every ninth of ten pieces is for `valid`, every tenth for `test`."""
    ends = [len(whole) * number // PIECES for number in range(PIECES + 1)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(ends)]
    train = (piece for number, piece in enumerate(pieces) if number % 10 < 8)
    return "".join(train), "".join(pieces[8::10]), "".join(pieces[9::10])


def _windows(symbols: np.ndarray, draws: np.ndarray) -> np.ndarray:
    starts = draws % (len(symbols) - CONTEXT)
    return symbols[starts[:, None] + np.arange(CONTEXT + 1)]


def _held_out(symbols: np.ndarray, count: int) -> list[jax.Array]:
    """Windows spread evenly over a text, in batches."""
    windows = texts.held_out(symbols, CONTEXT + 1, count)
    return [jnp.asarray(part) for part in np.split(windows, count // 32)]


def fashion(folder: Path = quality_tasks.FASHION) -> Task:
    """Ten kinds of clothes (Xiao et al. 2017, arXiv 1708.07747)."""
    images, labels = (
        quality_tasks.read_idx(folder / f"train-{kind}-ubyte.gz")
        for kind in ("images-idx3", "labels-idx1")
    )
    images, labels = images.reshape(len(images), -1), labels.astype(np.int32)

    def take(where: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(images[where]), jnp.asarray(labels[where])

    return Task(
        "fashion",
        "Fashion-MNIST",
        FASHION_STEPS,
        model.init_classifier,
        lambda rng: take(rng.integers(2 * HELD_OUT, len(labels), IMAGES)),
        model.image_loss,
        [take(slice(HELD_OUT))],
        [take(slice(HELD_OUT, 2 * HELD_OUT))],
        tuned="fashion",
    )


TASKS: dict[str, Callable[[Path], Task]] = {
    "shakespeare": shakespeare,
    "fashion": fashion,
    "bible": bible,
}
PLACES = {"shakespeare": quality_tasks.TEXT, "fashion": quality_tasks.FASHION, "bible": BIBLE}
