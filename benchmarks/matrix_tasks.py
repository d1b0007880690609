"""The methods and the two tasks of `matrix_quality`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import gradtx
from benchmarks import quality_tasks as tasks

ADAM_RATE = 3e-3
SIZES, SIDE, HELD_OUT, WIDTH, WINDOWS = (196, 128, 128, 10), 14, 4096, 64, 32


class Method(NamedTuple):
    """A function from a learning rate to an optimizer, and the grid of learning rates."""

    title: str
    build: Callable[[Any], Any]
    rates: tuple[float, ...]


ADAM_LIKE = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
MUON_LIKE = (3e-3, 8e-3, 2e-2, 5e-2, 1.2e-1)
METHODS = {
    "adamw": Method("AdamW", lambda rate: gradtx.adamw(rate, weight_decay=0.0), ADAM_LIKE),
    "muon": Method("Muon", lambda rate: gradtx.muon(rate, adam_learning_rate=ADAM_RATE), MUON_LIKE),
    "normuon": Method(
        "NorMuon",
        lambda rate: gradtx.normuon(rate, weight_decay=0.0, adam_learning_rate=ADAM_RATE),
        MUON_LIKE,
    ),
    "soap": Method("SOAP", lambda rate: gradtx.soap(rate, weight_decay=0.0), ADAM_LIKE),
    "soap_muon": Method(
        "SOAP-Muon", lambda rate: gradtx.soap(rate, weight_decay=0.0, orthogonal=True), MUON_LIKE
    ),
    "shampoo": Method("Shampoo", lambda rate: gradtx.shampoo(rate, weight_decay=0.0), ADAM_LIKE),
    "psgd": Method("PSGD", lambda rate: gradtx.psgd_kron(rate, weight_decay=0.0), ADAM_LIKE),
}


class Race(NamedTuple):
    """A task, and its target loss."""

    task: tasks.Task
    target: float


def fashion(folder: Path) -> Race:
    """Images at half their width and height; `by_role` recognizes the last layer as a head."""
    whole = tasks.fashion(folder)

    def init(rng: np.random.Generator) -> Any:
        *hidden, head = tasks.network.init(rng, SIZES)["layers"]
        return {"hidden": hidden, "head": head}

    def loss(params: Any, images: Any) -> jax.Array:
        return whole.loss({"layers": [*params["hidden"], params["head"]]}, images)

    train, valid = halved(whole.train), halved(tasks.network.take(whole.valid, slice(HELD_OUT)))
    return Race(whole._replace(steps=600, init=init, loss=loss, train=train, valid=valid), 0.42)


def halved(images: Any) -> Any:
    """Average squares of four pixels."""
    x = np.asarray(images.x).reshape(-1, SIDE, 2, SIDE, 2).mean(axis=(2, 4), dtype=np.float32)
    return images._replace(x=jax.numpy.asarray(x.reshape(-1, SIDE * SIDE).round(), jax.numpy.uint8))


def text(archive: Path) -> Race:
    whole = tasks.text(archive, WIDTH)
    return Race(whole._replace(steps=400, valid=whole.valid[:WINDOWS]), 2.25)


RACES: dict[str, Callable[[Path], Race]] = {"fashion": fashion, "text": text}
