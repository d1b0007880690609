"""Codecs one by one: beside their references, within their bounds, right in the mean, and safe with
what is not finite.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.storage.blockwise import layout
from gradtx.storage.codec import CODECS, Codec, register_codec
from gradtx.storage.dynamic import dynamic_code
from gradtx.tree.rounding import bfloat16_word, float_of, noise, positions, to_bfloat16, to_float16
from tests.oracles import storage as own

SHAPES = {(64, 5): 0, (40, 64): 1, (33, 7): 0, (2, 32, 6): 1, (100,): 0}
"""Shapes, and the axis that 32 entries of a group lie along: one that is whole groups, or else the
longer of the last two, padded.
"""
REFERENCES = {
    "bf16": lambda x, axis, square: own.bf16(x),
    "f16": lambda x, axis, square: own.f16(x, square),
    "bf16+8": lambda x, axis, square: own.corrected(x),
    "int8": lambda x, axis, square: own.blockwise(x, axis, 32, square),
    "int4": lambda x, axis, square: own.blockwise(x, axis, 32, levels=7),
}


KINDS = [
    (name, square)
    for name in REFERENCES
    for square in (False, True)
    if (name, square) != ("int4", True)
]
"""Every codec, of first moments and of squares; int4 is not for these."""


def numbers(shape: tuple[int, ...], square: bool, seed: int = 0) -> np.ndarray:
    """Of eight orders of magnitude, a zero among them."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=shape) * 10.0 ** rng.uniform(-6, 2, size=shape)).astype(np.float32)
    x.reshape(-1)[3] = 0
    return x**2 if square else x


def there_and_back(name: str, x: Any, square: bool = False, random: Any = None) -> np.ndarray:
    codec = CODECS[name]
    kept = codec.encode(jnp.asarray(x), random, square=square, block=32)
    return np.asarray(codec.decode(kept, np.shape(x), square=square, block=32), np.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("name", "square"),
    [
        (name, square)
        for name in REFERENCES
        for square in (False, True)
        if (name, square) != ("int4", True)
    ],
)
def test_a_codec_is_its_reference(name: str, square: bool, shape: tuple[int, ...]) -> None:
    """To rounding: an entry in a thousand may lie so near to the middle of two codes that float32
    takes the other.
    """
    x = numbers(shape, square)
    ours, theirs = there_and_back(name, x, square), REFERENCES[name](x, SHAPES[shape], square)
    assert np.mean(~np.isclose(ours, theirs, rtol=1e-5, atol=0)) <= 1e-3


@pytest.mark.parametrize(
    ("name", "of_entry", "of_root"),
    [("bf16", 2**-8, 2**-8), ("f16", 2**-11, 2**-10), ("bf16+8", 2**-16, 2**-16)],
)
def test_errors_relative_to_the_entry(name: str, of_entry: float, of_root: float) -> None:
    """What the table of `stored` says, to the nearest; float16 is exact to 2⁻²⁵ near 0, or that of
    the root.
    """
    for square, bound in ((False, of_entry), (True, of_root)):
        x = numbers((64, 64), square, 1)
        x = np.where((np.abs(x) < 6e4) & ((np.abs(x) > 1e-4) | (name != "f16")), x, 1)
        error = np.abs(there_and_back(name, x, square) - x.astype(np.float64))
        assert np.all(error <= bound * np.abs(x) * 1.001), np.max(
            error / np.maximum(np.abs(x), 1e-30)
        )
        assert np.max(error / np.maximum(np.abs(x), 1e-30)) >= bound / 4, "the bound says something"


@pytest.mark.parametrize(("name", "levels"), [("int8", 127), ("int4", 7)])
def test_errors_relative_to_the_group(name: str, levels: int) -> None:
    x = np.random.default_rng(2).normal(size=(64, 128)).astype(np.float32)
    largest = np.repeat(np.abs(x).reshape(2, 32, 128).max(1), 32, axis=0)
    error = np.abs(there_and_back(name, x) - x) / (largest * (1 + 2**-7))
    assert error.max() <= 1 / levels and error.max() >= 0.5 / levels
    assert error[np.abs(x) < 0.02 * largest].max() <= 0.3 / levels, "the map is steeper at 0"


def test_small_squares_are_not_lost() -> None:
    """A second moment of 0 beside a first moment that is not would make an update of m/eps."""
    x = np.full((32, 4), 1e-12, np.float32)
    x[0] = 1.0
    x[5] = 0.0
    for name in ("int8", "dynamic8", "f16"):
        made = there_and_back(name, x, square=True)
        assert np.all(made[x > 0] > 0) and np.all(made[5] == 0), name


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", list(CODECS))
def test_what_is_not_finite_stays_so_and_in_its_group(name: str, bad: float) -> None:
    x = np.ones((64, 6), np.float32)
    x[3, 2] = bad
    random = noise(1, 2).sixteen(x.shape, 0)
    for bits in (None, random):
        made = there_and_back(name, x, random=bits)
        assert not np.isfinite(made[3, 2])
        assert np.all(np.isfinite(made[32:] if name != "dynamic8" else made[44:])), "other groups"
        if name in ("bf16", "f16", "packed16", "bf16+8"):
            assert np.isfinite(made).sum() == x.size - 1


@pytest.mark.parametrize("payload", [0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000])
def test_no_nan_becomes_a_number(payload: int) -> None:
    """One of all ones, as CUDA makes them, would carry over into the sign."""
    x = float_of(jnp.asarray([payload], jnp.uint32))
    assert all(
        np.isnan(np.asarray(to_bfloat16(x, bits), np.float32))
        for bits in (None, jnp.asarray([0xFFFF], jnp.uint32))
    )


def test_nearest_bfloat16_is_that_of_jax() -> None:
    x = jnp.asarray(numbers((1000,), False))
    assert np.array_equal(to_bfloat16(x), x.astype(jnp.bfloat16))
    assert np.array_equal(
        float_of(bfloat16_word(x, None)), x.astype(jnp.bfloat16).astype(jnp.float32)
    )


@pytest.mark.parametrize(("name", "square"), [kind for kind in KINDS if kind[0] != "bf16+8"])
def test_stochastic_rounding_is_right_in_the_mean(name: str, square: bool) -> None:
    """A million roundings of one number, beside a larger one that sets the scale: within four
    standard errors of none.

    Codes are right in the mean where they are even: before the map of first moments, and in the
    root of squares."""
    value, other = (0.3711, 4.0) if square else (-0.3711, 1.0)
    x = jnp.full((32, 2**15), value, jnp.float32).at[0].set(other)
    even = evened(
        name, square, there_and_back(name, x, square, noise(3, 5).sixteen(x.shape, 0))[1:]
    )
    exact = evened(name, square, np.float64(np.float32(value)))
    assert 2 <= len(np.unique(even)) <= 3
    assert abs(even.mean() - exact) <= 4 * even.std() / np.sqrt(even.size) + 1e-6 * abs(exact)


def evened(name: str, square: bool, x: Any) -> Any:
    """Numbers as the codec sees them, where its steps are even."""
    if name == "bf16":
        return x
    return np.sqrt(x) if square else x if name == "f16" else companded(x)


def companded(x: Any) -> Any:
    """z of the map of first moments, at a scale of 1."""
    return np.sign(x) * 2 * np.abs(x) / (1 + np.abs(x))


def test_random_bits() -> None:
    """Evenly spread, and other ones at every step, leaf and slot; two slots share a word, of which
    each has a half.
    """
    draws = [
        noise(step, leaf).sixteen((256, 256), number)
        for step, leaf, number in ((1, 7, 0), (1, 7, 1), (2, 7, 0), (1, 8, 0), (1, 7, 2))
    ]
    for draw in draws:
        values = np.asarray(draw)
        assert values.max() < 2**16
        assert abs(values.mean() / 2**16 - 0.5) < 4 * 0.2887 / 256
        counts = np.bincount((values >> 12).reshape(-1), minlength=16)
        assert ((counts - 4096) ** 2 / 4096).sum() < 37.7, (
            "chi squared of 15 degrees, one in a thousand"
        )
    for one in range(5):
        for two in range(one):
            assert (
                abs(
                    np.corrcoef(
                        np.asarray(draws[one]).reshape(-1), np.asarray(draws[two]).reshape(-1)
                    )[0, 1]
                )
                < 4 / 256
            )
    flat = np.asarray(draws[0]).reshape(-1).astype(float)
    assert (
        max(abs(np.corrcoef(flat[:-lag], flat[lag:])[0, 1]) for lag in (1, 2, 256, 1597)) < 4 / 256
    )


def test_random_bits_are_the_same_on_every_sharding() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("x", "y"))
    draw = jax.jit(lambda x: to_bfloat16(x, noise(4, 9).sixteen(x.shape, 0)))
    x = jnp.asarray(numbers((64, 32), False))
    alone = draw(x)
    for spec in (PartitionSpec("x"), PartitionSpec(None, "y"), PartitionSpec("x", "y")):
        assert np.array_equal(alone, draw(jax.device_put(x, NamedSharding(mesh, spec))))


def test_positions_of_a_part_are_those_of_the_whole() -> None:
    whole = positions((6, 8))
    assert np.array_equal(whole, np.arange(48).reshape(6, 8))
    assert np.array_equal(positions((2, 4), (2, 4), (6, 8)), whole[2:4, 4:8])


def test_groups_of_a_long_vector_lie_beside_each_other() -> None:
    found = layout((8192,), 32)
    assert found.view == (2, 32, 128) and found.padding == 0


def test_the_dynamic_code() -> None:
    """Counts and ends as published; every number is its own nearest."""
    signed, unsigned = dynamic_code(True), dynamic_code(False)
    assert (
        len(signed) == len(unsigned) == 256 and signed[127] == 0 and signed[-1] == unsigned[-1] == 1
    )
    np.testing.assert_allclose(
        [signed[0], signed[128], unsigned[1]], [-0.99296875, 5.5e-7, 3.25e-7], rtol=1e-6
    )
    assert np.array_equal(there_and_back("dynamic8", signed), signed)


def test_float16_saturates() -> None:
    assert np.array_equal(
        np.asarray(to_float16(jnp.asarray([1e6, -1e6, 1e-9]))),
        np.asarray([65504, -65504, 0], np.float16),
    )


def test_a_name_is_taken_once() -> None:
    with pytest.raises(
        gradtx.GradtxError,
        match=r"a codec 'bf16' already; the names are bf16, bf16\+8, dynamic8, f16, int4",
    ):
        register_codec(Codec("bf16", CODECS["bf16"].encode, CODECS["bf16"].decode, ""))
