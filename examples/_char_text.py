"""Text as numbers: a file, or the sources of Python's standard library."""

import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

SYMBOLS = 128
OTHER = "\N{REPLACEMENT CHARACTER}"
"""The symbol of all rare characters."""
EVERY = 3
"""Every third file of the library is read, about 1.6 MB."""


class Text(NamedTuple):
    """Nine tenths for training, the last tenth for validation."""

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
        """The validation loss of the symbol frequencies alone, in nats per character."""
        counts = np.bincount(self.train, minlength=len(self.alphabet)) + 1.0
        return float(-np.mean(np.log(counts / counts.sum())[self.valid]))


def load(path: Path | None) -> Text:
    """Load the text of a file, or of the standard library."""
    if path is None:
        files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[::EVERY]
        name = f"the standard library of Python {sys.version.split()[0]}, {len(files)} files"
    else:
        files, name = [path], path.name
    return to_numbers(
        name, "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    )


def to_numbers(name: str, text: str) -> Text:
    """Convert a text to numbers, in two parts."""
    split = len(text) * 9 // 10
    common = [
        character for character, _ in Counter(text[:split]).most_common() if character != OTHER
    ]
    alphabet = OTHER + "".join(sorted(common[: SYMBOLS - 1]))
    whole = Text(name, alphabet, np.empty(0), np.empty(0))
    return whole._replace(train=whole.encode(text[:split]), valid=whole.encode(text[split:]))


def windows(symbols: np.ndarray, length: int, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """Draw windows of a text; a resumed run gets the same ones, as they follow from the seed."""
    starts = np.random.default_rng(seed).integers(0, len(symbols) - length + 1, count)
    return symbols[starts[:, None] + np.arange(length)]


def held_out(symbols: np.ndarray, length: int, count: int) -> np.ndarray:
    """Return windows spread evenly over a text."""
    starts = np.linspace(0, len(symbols) - length, count).astype(int)
    return symbols[starts[:, None] + np.arange(length)]
