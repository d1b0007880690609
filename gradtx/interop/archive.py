"""The file of a checkpoint: named arrays in one `.npz`, written atomically, read with suspicion."""

import contextlib
import errno
import json
import os
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import StateError, StructureError

HEADER = "__gradtx__"
"""The entry of a file with its format and dtypes."""
FORMAT = 1
SUFFIX = ".npy"
LONGEST = 2**16 - 1
"""The number of bytes that a zip archive has for a name."""
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Readers of the header of an array, by its version."""


def is_number_dtype(dtype: np.dtype) -> bool:
    """Whether arrays of a dtype hold numbers or dates; NumPy counts those of JAX as 2."""
    return dtype.kind in "biufcmM" or dtype.isbuiltin == 2


def check_name(name: str) -> None:
    """Raise where an entry could not be found again under the path of its leaf."""
    if name == HEADER:
        raise StructureError(
            f"a leaf has the path {HEADER!r}, which save reserves for itself; rename it"
        )
    entry = name + SUFFIX
    try:
        # An archive ends a name at a NUL, and then two leaves share one entry.
        fits = zipfile.ZipInfo(entry).filename == entry and len(entry.encode()) <= LONGEST
    except UnicodeEncodeError:
        fits = False
    if not fits:
        shown = repr(name) if len(name) < 100 else f"{name[:96]!r}..."
        raise StructureError(
            f"a leaf has the path {shown}, which no entry of a file can have (a NUL, half a "
            f"surrogate pair, or more than {LONGEST - len(SUFFIX):,} bytes); rename its key"
        )


def write_file(
    path: str | os.PathLike[str], dtypes: Mapping[str, str], arrays: Iterable[tuple[str, Any]]
) -> None:
    """Write arrays by name: under another name first, then renamed in one step.

    Raises:
      OSError: of the system's class and number; the old file does not change.
    """
    replace_file(path, lambda file: _write(file, dtypes, arrays))


def replace_file(path: str | os.PathLike[str], write: Callable[[IO[bytes]], None]) -> None:
    """Write a file under another name, force it to the disk, and rename it in one step.

    Raises:
      OSError: of the system's class and number; the old file does not change.
    """
    target = Path(path)
    if target.is_dir():
        raise _not_written(path, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise _not_written(path, error) from None
    finally:
        # Where the folder cannot be written, there is no file to delete either.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _not_written(path: str | os.PathLike[str], error: OSError) -> OSError:
    """The system's error as one sentence that names the file and the folder."""
    target = Path(path)
    kept = "the last checkpoint there is whole" if target.is_file() else "nothing is written"
    cure = (
        f"save where the folder {str(target.parent)!r} exists, is writable and has room"
        if not target.is_dir()
        else "give step= to save into this folder, or the name of a file in it"
    )
    text = f"save could not write {os.fspath(path)!r}: {error.strerror or error}; {kept}: {cure}"
    # With a number, `OSError` is made as its own kind, `FileNotFoundError` for example.
    return type(error)(text) if error.errno is None else OSError(error.errno, text)


def _write(
    file: IO[bytes], dtypes: Mapping[str, str], arrays: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Write the header, and then one array at a time: only one is on the host at any moment."""
    header = json.dumps({"format": FORMAT, "dtypes": dict(dtypes)}).encode()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write_array(archive, HEADER, np.frombuffer(header, np.uint8))
        for name, array in arrays:
            _write_array(archive, name, raw_bits(array))


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(name + SUFFIX, "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, array, allow_pickle=False)


def raw_bits(array: np.ndarray) -> np.ndarray:
    """An array that NumPy can write: foreign dtypes as unsigned integers of their size."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def _sync_folder(folder: Path) -> None:
    """Force the rename to the disk, where the system can open folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Read the dtypes and the arrays of a file by name; nothing in it is unpickled.

    Raises:
      OSError: the file cannot be opened.
      StateError: `write_file` did not write it, or it is damaged.
    """
    with Path(path).open("rb") as file:
        try:
            return _read(file)
        # A damaged archive makes zipfile, zlib, json and NumPy raise a dozen classes.
        except Exception as error:
            raise StateError(
                f"{os.fspath(path)!r} is not a complete checkpoint of gradtx.save: "
                f"{_reason(error)}; load an earlier one"
            ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, StateError):
        return str(error)
    return f"its archive is damaged ({type(error).__name__}: {error})"


def _read(file: IO[bytes]) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    if not zipfile.is_zipfile(file):
        raise StateError("it is not a complete zip archive")
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        entries = dict(_entries(archive, size))
        if HEADER not in entries:
            raise StateError(f"it has no entry {HEADER!r}")
        dtypes = _dtypes(_array(archive, HEADER, entries.pop(HEADER)).tobytes())
        if strange := sorted(set(dtypes) ^ set(entries)):
            where = "its header" if strange[0] in dtypes else "the archive"
            raise StateError(f"its entry {strange[0]!r} is only in {where}")
        return dtypes, {
            name: typed_array(name, _array(archive, name, entry), dtypes[name])
            for name, entry in entries.items()
        }


def _entries(archive: zipfile.ZipFile, size: int) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Every entry by the name of its array; sizes are checked before memory is taken for them."""
    seen = set[str]()
    for entry in archive.infolist():
        name = entry.filename.removesuffix(SUFFIX)
        is_plain = entry.compress_type == zipfile.ZIP_STORED
        if name == entry.filename or name in seen or not is_plain:
            raise StateError(f"its entry {entry.filename!r} is none that save writes")
        if entry.file_size != entry.compress_size or entry.file_size > size:
            raise StateError(f"its entry {name!r} has another size than the archive says")
        seen.add(name)
        yield name, entry


def _dtypes(text: bytes) -> dict[str, str]:
    """The dtypes of a header, by name."""
    header = json.loads(text)
    if not isinstance(header, dict) or not {"format", "dtypes"} <= set(header):
        raise StateError("its header is none that save writes")
    if header["format"] != FORMAT:
        raise StateError(f"its format is {header['format']!r}, this version reads {FORMAT}")
    dtypes = header["dtypes"]
    if not isinstance(dtypes, dict) or not all(isinstance(one, str) for one in dtypes.values()):
        raise StateError("its header is none that save writes")
    return dtypes


def _array(archive: zipfile.ZipFile, name: str, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as file:
        _check_header(file, name, entry.file_size)
    # Opened again: after a seek, zipfile no longer compares the checksum.
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _check_header(file: IO[bytes], name: str, size: int) -> None:
    """Raise unless the array of an entry has as many bytes as the entry, and no objects."""
    try:
        shape, _, dtype = HEADERS[np.lib.format.read_magic(file)](file)
    # NumPy's own texts advise `allow_pickle=True`, which would run code out of the file.
    except (ValueError, KeyError, SyntaxError, TypeError):
        raise StateError(f"its entry {name!r} is not an array") from None
    if dtype.hasobject:
        raise StateError(f"its entry {name!r} holds objects, which save never writes")
    if file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize != size:
        raise StateError(f"its entry {name!r} has another size than its shape {shape}")


def typed_array(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """The array in its original dtype."""
    if not dtype or dtype.startswith("key<") or str(array.dtype) == dtype:
        return array
    try:
        original = jnp.dtype(dtype)
    except (TypeError, ValueError):
        raise StateError(f"its entry {name!r} has the unknown dtype {dtype!r}") from None
    if not is_number_dtype(original) or original.itemsize != array.dtype.itemsize:
        raise StateError(f"its entry {name!r} is {array.dtype}, which is no {dtype!r}")
    return array.view(original)
