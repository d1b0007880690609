"""Random definitions and random trees, as strategies of hypothesis."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import gradtx
from gradtx.tree.casts import is_inexact
from tests.methods import METHODS

TX = gradtx.GradientTransformation

PLAIN = sorted(name for name, row in METHODS.items() if not row.breaks)
"""The rows whose laws all hold; the others do on purpose what a law forbids."""

WRAPPERS: dict[str, Callable[[TX], TX]] = {
    "clipped": lambda tx: gradtx.chain(gradtx.clip_by_global_norm(1.0), tx),
    "decayed": lambda tx: gradtx.chain(tx, gradtx.add_decayed_weights(1e-2)),
    "guard": lambda tx: gradtx.guard(tx, max_norm=1e3),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 2),
    "accumulate": lambda tx: gradtx.accumulate(tx, 2),
    "masked": lambda tx: gradtx.masked(tx, r"a|b/0"),
    "partition": lambda tx: gradtx.partition({"first": tx, "rest": gradtx.sgd(0.1)}, label),
    "with_metrics": gradtx.with_metrics,
    "lookahead": lambda tx: gradtx.lookahead(tx, 2, 0.5),
    "params_ema": lambda tx: gradtx.chain(tx, gradtx.params_ema(0.9)),
    "bf16": lambda tx: gradtx.stored(tx, "bf16", min_size=1, rounding="nearest"),
    "packed16": lambda tx: gradtx.stored(tx, "packed16", min_size=1),
    "int8": lambda tx: gradtx.stored(tx, "int8", min_size=1, where=r".*"),
}
"""What a definition may be put into, by name."""

SHAPES = ((), (1,), (3,), (0, 2), (2, 3), (4, 4), (1, 5), (2, 3, 2), (33,))
DTYPES = ("float32", "float32", "bfloat16", "float16")
SCALES = (1.0, 0.0, 1e-40, 1e-30, 1e-8, 1e4, 1e15)
"""The sizes of gradients; at 1e15 no square overflows in float32."""


class Case(NamedTuple):
    """A definition, the parameters that it trains, and how its gradients are drawn."""

    text: str
    """The row and the wrappers, innermost first, to find the case again."""
    tx: TX
    params: Any
    scale: float
    seed: int
    name: str
    wrappers: tuple[str, ...]

    def grads(self, step: int) -> Any:
        """The gradients of a step: normal numbers times the scale, in the parameters' dtypes."""
        generator = np.random.default_rng((self.seed, step))
        return jax.tree.map(lambda leaf: _gradient(generator, leaf, self.scale), self.params)


def label(params: Any) -> Any:
    """Half of the leaves, in two groups."""
    leaves, treedef = jax.tree.flatten(params)
    return treedef.unflatten(["first" if n % 2 == 0 else "rest" for n in range(len(leaves))])


def _gradient(generator: np.random.Generator, leaf: Any, scale: float) -> jax.Array:
    numbers = scale * generator.normal(size=leaf.shape) * is_inexact(leaf)
    # A sum of a few entries must still fit into float16.
    largest = float(jnp.finfo(leaf.dtype).max) / 64 if is_inexact(leaf) else 0.0
    return jnp.asarray(np.clip(numbers, -largest, largest), leaf.dtype)


@st.composite
def arrays(draw: st.DrawFn) -> jax.Array:
    """A parameter: normal numbers, or now and then integers, which no method may change."""
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    if draw(st.integers(0, 9)) == 9:
        return jnp.asarray(generator.integers(0, 9, size=shape), jnp.int32)
    return jnp.asarray(generator.normal(size=shape), dtype)


TREES = st.fixed_dictionaries(
    {"a": arrays(), "b": st.lists(arrays(), min_size=1, max_size=3)},
    optional={"c": st.fixed_dictionaries({"kernel": arrays(), "bias": arrays()}), "d": st.none()},
)
"""Small trees with nested containers; a pattern can choose some of their leaves."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A row of the table of methods in at most two wrappers, on a tree."""
    name = draw(st.sampled_from(PLAIN))
    wrappers = draw(st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=2))
    tx = METHODS[name].tx
    for wrapper in wrappers:
        tx = WRAPPERS[wrapper](tx)
    scale, seed = draw(st.sampled_from(SCALES)), draw(st.integers(0, 99))
    text = " in ".join([name, *wrappers])
    return Case(text, tx, draw(TREES), scale, seed, name, tuple(wrappers))
