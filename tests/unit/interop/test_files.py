"""Files of checkpoints: any bytes, any names, any leaves."""

import enum
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import StateError, StructureError
from tests.support.bits import assert_same

TREE = {
    "half": jnp.array([1.5, -2.0], jnp.bfloat16),
    "key": jax.random.key(7),
    "step": 3,
    "w": jnp.arange(6.0).reshape(2, 3),
}


def load_or_refuse(file: Path, content: bytes, like: Any = TREE) -> str | None:
    """The refusal of a file with that content; None where it loads as it was saved."""
    file.write_bytes(content)
    try:
        assert_same(like, gradtx.load(file, like))
    except StateError as error:
        return str(error)
    return None


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    gradtx.save(tmp_path / "run.npz", TREE)
    return (tmp_path / "run.npz").read_bytes()


def test_a_flipped_bit_is_refused_by_name_or_changes_nothing(whole: bytes, tmp_path: Path) -> None:
    """A bit of every second byte, and two of every byte of the archive's own records."""
    file, generator = tmp_path / "run.npz", random.Random(0)
    records = whole.index(b"PK\x01\x02")
    flips = [(place, 1 << generator.randrange(8)) for place in range(0, records, 2)]
    bits = [generator.sample(range(8), 2) for _ in whole[records:]]
    flips += [(place, 1 << bit) for place, two in enumerate(bits, records) for bit in two]
    refused = 0
    for place, bit in flips:
        content = bytearray(whole)
        content[place] ^= bit
        text = load_or_refuse(file, bytes(content))
        refused += text is not None
        assert text is None or "pickle" not in text, (place, bit)
        assert text is None or repr(str(file)) in text, (place, bit, text)
    # Dates, versions and attributes of entries change nothing that is loaded.
    assert refused > len(flips) // 2


def test_a_size_beyond_the_file_is_refused_before_memory_is_taken(
    whole: bytes, tmp_path: Path
) -> None:
    """Both sizes in the archive's own record of its first entry, or one of them."""
    record = whole.index(b"PK\x01\x02")
    for places in ((20, 24), (24,)):
        content = bytearray(whole)
        for place in places:
            content[record + place : record + place + 4] = (2**31 - 1).to_bytes(4, "little")
        text = load_or_refuse(tmp_path / "run.npz", bytes(content))
        assert text is not None
        assert "its entry '__gradtx__' has another size than the archive says" in text


def test_a_file_that_is_cut_short_is_refused_by_name(whole: bytes, tmp_path: Path) -> None:
    for length in range(0, len(whole), 3):
        text = load_or_refuse(tmp_path / "run.npz", whole[:length])
        assert text is not None and "run.npz' is not a complete checkpoint of gradtx.save" in text


def archive_of(**entries: Any) -> bytes:
    """An archive of arrays and of raw bytes, by name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in entries.items():
            content = value if isinstance(value, bytes) else array_bytes(value)
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def array_bytes(value: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(value), allow_pickle=True)
    return file.getvalue()


def header_of(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def with_dtypes(dtypes: Any, **entries: Any) -> bytes:
    return archive_of(__gradtx__=header_of({"format": 1, "dtypes": dtypes}), **entries)


class Trap:
    """An object that would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return pytest.fail, ("a checkpoint was unpickled",)


W = np.ones(2, np.float32)
HUGE = array_bytes(W).replace(b"(2,), }    ", b"(2" + b"0" * 4 + b",), }")
VERSION_9 = array_bytes(W).replace(b"NUMPY\x01", b"NUMPY\x09")
NO_HEADER = "its header is none that save writes"

FOREIGN: dict[str, tuple[bytes, str]] = {
    "a text": (b"some text", "it is not a complete zip archive"),
    "one array": (array_bytes(W), "it is not a complete zip archive"),
    "an empty archive": (archive_of(), "it has no entry '__gradtx__'"),
    "no header": (archive_of(w=W), "it has no entry '__gradtx__'"),
    "a list": (archive_of(__gradtx__=header_of([1]), w=W), NO_HEADER),
    "a number": (archive_of(__gradtx__=header_of(1), w=W), NO_HEADER),
    "no dtypes": (archive_of(__gradtx__=header_of({"format": 1}), w=W), NO_HEADER),
    "dtypes in a list": (with_dtypes(["float32"], w=W), NO_HEADER),
    "dtypes that are numbers": (with_dtypes({"w": 32}, w=W), NO_HEADER),
    "dtypes of None": (with_dtypes(None, w=W), NO_HEADER),
    "another format": (
        archive_of(__gradtx__=header_of({"format": "2", "dtypes": {}})),
        "its format is '2', this version reads 1",
    ),
    "no JSON": (archive_of(__gradtx__=np.zeros(3, np.uint8), w=W), "JSONDecodeError"),
    "deep JSON": (
        archive_of(__gradtx__=np.frombuffer(b"[" * 10**5, np.uint8)),
        "its archive is damaged (RecursionError",
    ),
    "an entry too few": (with_dtypes({"w": "float32"}), "its entry 'w' is only in its header"),
    "an entry too many": (
        with_dtypes({"w": "float32"}, w=W, v=W),
        "its entry 'v' is only in the archive",
    ),
    "an unknown dtype": (with_dtypes({"w": "float33"}, w=W), "the unknown dtype 'float33'"),
    "a dtype of objects": (with_dtypes({"w": "O"}, w=W.astype(float)), "which is no 'O'"),
    "a wider dtype": (with_dtypes({"w": "float64"}, w=W), "is float32, which is no 'float64'"),
    "a dtype of records": (with_dtypes({"w": "float32,"}, w=W), "which is no 'float32,'"),
    "a dtype of texts": (with_dtypes({"w": "S4"}, w=W), "which is no 'S4'"),
    "objects": (
        with_dtypes({"w": "object"}, w=np.array([Trap()], object)),
        "its entry 'w' holds objects, which save never writes",
    ),
    "a pickle": (with_dtypes({"w": "float32"}, w=b"\x80\x04N."), "its entry 'w' is not an array"),
    "no bytes": (with_dtypes({"w": "float32"}, w=b""), "its entry 'w' is not an array"),
    "a version to come": (with_dtypes({"w": "float32"}, w=VERSION_9), "'w' is not an array"),
    "fewer bytes than its shape": (
        with_dtypes({"w": "float32"}, w=HUGE),
        "its entry 'w' has another size than its shape (20000,)",
    ),
    "more bytes than its shape": (
        with_dtypes({"w": "float32"}, w=array_bytes(W) + b"more"),
        "its entry 'w' has another size than its shape (2,)",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, reason = FOREIGN[name]
    text = load_or_refuse(tmp_path / "run.npz", content, {"w": W})
    assert text is not None and reason in text and "pickle" not in text, text
    assert f"{str(tmp_path / 'run.npz')!r} is not a complete checkpoint of gradtx.save: " in text
    assert text.endswith("; load an earlier one")


def test_compressed_entries_and_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    """A few bytes may be compressed terabytes, and of two entries only one could be right."""
    np.savez_compressed(tmp_path / "zeros.npz", w=np.zeros(10**6))
    text = load_or_refuse(tmp_path / "run.npz", (tmp_path / "zeros.npz").read_bytes())
    assert text is not None and "its entry 'w.npy' is none that save writes" in text
    file = io.BytesIO()
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w.npy", array_bytes(W))
        archive.writestr("w.npy", array_bytes(2 * W))
    text = load_or_refuse(tmp_path / "run.npz", file.getvalue())
    assert text is not None and "its entry 'w.npy' is none that save writes" in text


NAMES = [
    *("x", "x.npy", "x.npy.npy", ".npy", "", "npy", ".", "..", "../x", "/x", "x/", "//", "a//b"),
    *("A", "a", "ä", "a\u0308", "Φ θ", "\u202ex", "\t", "\n", "a\\b", "C:x", "%s", "{x}", "'", '"'),
    *("__gradtx__.npy", "__gradtx__/x", "file", "count", "slots", "chain", "descend", ".value"),
    *("allow_pickle", "0", "-1", "a.value", "con", "nul", " ", "x ", "n" * 60_000),
]


def test_every_name_comes_back_with_its_own_array(tmp_path: Path) -> None:
    tree: Any = {name: np.full(2, number) for number, name in enumerate(NAMES)}
    gradtx.save(tmp_path / "run.npz", tree)
    assert_same(tree, gradtx.load(tmp_path / "run.npz", tree))
    for one in NAMES[:-1]:
        for other in ("x", "x.npy", "a", "slots/x"):
            if one != other:
                tree = {one: np.zeros(1), other: np.ones(1)}
                gradtx.save(tmp_path / "run.npz", tree)
                assert_same(tree, gradtx.load(tmp_path / "run.npz", tree))


SAME: list[tuple[Any, str]] = [
    ({"a/b": 1, "a": {"b": 2}}, "a/b"),
    ({"": {"x": 1}, "/x": 2}, "/x"),
    ({"a": {"": 1}, "a/": 2}, "a/"),
    ({"a": {"": {"b": 1}}, "a/": {"b": 2}}, "a//b"),
    ({"0": [1], "0/0": 2}, "0/0"),
]


@pytest.mark.parametrize("number", range(len(SAME)))
def test_two_leaves_of_one_path_are_refused_at_save(number: int, tmp_path: Path) -> None:
    tree, path = SAME[number]
    with pytest.raises(StructureError) as caught:
        gradtx.save(tmp_path / "run.npz", tree)
    assert str(caught.value) == (
        f"two leaves have the same path {path!r}; rename a key, so that every path is unique"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a\0b", "\0", "\ud800", "x" * 65_532])
def test_a_name_that_no_entry_can_have_is_refused_at_save(name: str, tmp_path: Path) -> None:
    with pytest.raises(StructureError) as caught:
        gradtx.save(tmp_path / "run.npz", {"layer": {name: np.ones(1)}})
    start, end = "a leaf has the path 'layer/", "than 65,531 bytes); rename its key"
    assert str(caught.value).startswith(start) and str(caught.value).endswith(end)
    assert not list(tmp_path.iterdir())


class Color(enum.IntEnum):
    RED = 1


def donated() -> jax.Array:
    array = jnp.ones(3)
    array.delete()
    return array


NUMBERS = "; a checkpoint holds arrays and Python numbers"
LEAVES: dict[str, tuple[Callable[[], Any], str]] = {
    "a struct": (
        lambda: jax.ShapeDtypeStruct((2,), jnp.float32),
        "the leaf at 'a/0' is a ShapeDtypeStruct, which has no numbers: save the tree of arrays, "
        "and pass the structs to load as `like`",
    ),
    "an object": (object, f"the leaf at 'a/0' is an object{NUMBERS}"),
    "a text": (lambda: "text", f"the leaf at 'a/0' is a str{NUMBERS}"),
    "a dtype": (lambda: np.dtype("f4"), f"the leaf at 'a/0' is a Float32DType{NUMBERS}"),
    "an Enum": (lambda: Color.RED, f"the leaf at 'a/0' is a Color{NUMBERS}"),
    "a large int": (
        lambda: 10**30,
        f"the leaf at 'a/0' is a Python int of more than 64 bits{NUMBERS}",
    ),
    "objects": (
        lambda: np.array([None]),
        f"the leaf at 'a/0' is an ndarray of dtype object{NUMBERS}",
    ),
    "texts": (lambda: np.array(["ab"]), f"the leaf at 'a/0' is an ndarray of dtype <U2{NUMBERS}"),
    "records": (
        lambda: np.zeros(2, "f4,i4"),
        "the leaf at 'a/0' is an ndarray of dtype [('f0', '<f4'), ('f1', '<i4')]" + NUMBERS,
    ),
    "a donated array": (
        donated,
        "the array at 'a/0' cannot be read: Array has been deleted with shape=float32[3]; save an "
        "array before it is donated, and one that is spread over hosts with Orbax",
    ),
}


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_without_numbers_is_refused_by_path(name: str, tmp_path: Path) -> None:
    make, text = LEAVES[name]
    gradtx.save(tmp_path / "run.npz", {"a": [1]})
    before = (tmp_path / "run.npz").read_bytes()
    with pytest.raises(StructureError) as caught:
        gradtx.save(tmp_path / "run.npz", {"a": [make(), np.ones(2)]})
    assert str(caught.value) == text
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("run.npz", before)]


def test_a_traced_leaf_is_refused_by_path(tmp_path: Path) -> None:
    with pytest.raises(StructureError) as caught:
        jax.jit(lambda w: gradtx.save(tmp_path / "run.npz", {"w": w}))(jnp.ones(2))
    text = "the leaf at 'w' is traced: call save outside of jit, grad, vmap and scan"
    assert str(caught.value) == text


def test_byte_order_dates_and_wide_dtypes_come_back(tmp_path: Path) -> None:
    tree = {
        "big-endian": np.arange(3, dtype=">f4"),
        "dates": np.array(["2026-01-02"], "datetime64[s]"),
        "longdouble": np.array([1, 2], np.longdouble),
        "scalar": np.float64(0.1),
        "largest": 2**64 - 1,
    }
    gradtx.save(tmp_path / "run.npz", tree)
    assert_same(tree, gradtx.load(tmp_path / "run.npz", tree))
