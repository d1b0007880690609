"""Text as numbers: a file, or the sources of Python's standard library, which are on every machine."""

import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

SYMBOLS = 128
OTHER = "\N{REPLACEMENT CHARACTER}"
"""Stands for every character that is rare."""
EVERY = 3
"""Of the library's files every third is read, about 1.6 MB."""


class Text(NamedTuple):
    """Nine tenths to learn from, the last tenth to judge by."""

    name: str
    alphabet: str
    """The symbols: the most common characters of the training part, and one for all others."""
    train: np.ndarray
    valid: np.ndarray

    def encode(self, text: str) -> np.ndarray:
        numbers = {character: number for number, character in enumerate(self.alphabet)}
        return np.array([numbers.get(character, 0) for character in text], np.int32)

    def decode(self, symbols: np.ndarray) -> str:
        return "".join(self.alphabet[number] for number in symbols)

    def unigram_entropy(self) -> float:
        """Nats per character of the validation part for who knows how common each symbol is, and
        nothing else.
        """
        counts = np.bincount(self.train, minlength=len(self.alphabet)) + 1.0
        return float(-np.mean(np.log(counts / counts.sum())[self.valid]))


def load(path: Path | None) -> Text:
    """The text of a file, or of the standard library."""
    if path is None:
        files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[::EVERY]
        name = f"the standard library of Python {sys.version.split()[0]}, {len(files)} files"
    else:
        files, name = [path], path.name
    return numbered(
        name, "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    )


def numbered(name: str, text: str) -> Text:
    """A text as numbers, in two parts."""
    split = len(text) * 9 // 10
    common = [
        character for character, _ in Counter(text[:split]).most_common() if character != OTHER
    ]
    alphabet = OTHER + "".join(sorted(common[: SYMBOLS - 1]))
    made = Text(name, alphabet, np.empty(0), np.empty(0))
    return made._replace(train=made.encode(text[:split]), valid=made.encode(text[split:]))


def windows(symbols: np.ndarray, length: int, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """Some windows of a text, which depend on nothing but the arguments: a resumed run sees what an
    uninterrupted one sees.
    """
    starts = np.random.default_rng(seed).integers(0, len(symbols) - length + 1, count)
    return symbols[starts[:, None] + np.arange(length)]


def held_out(symbols: np.ndarray, length: int, count: int) -> np.ndarray:
    """Windows spread evenly over a text."""
    starts = np.linspace(0, len(symbols) - length, count).astype(int)
    return symbols[starts[:, None] + np.arange(length)]
