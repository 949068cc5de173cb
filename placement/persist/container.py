"""A file of named arrays and a small JSON document, written atomically and verified when read.

Layout, little-endian: 64 bytes (magic, format version, position and CRC-32 of the header, length of the file, CRC-32 of
these bytes); each array's bytes in C order, padded with zeros to a multiple of 64; the header in JSON: ``meta``, and
for each array name, dtype, shape, offset and CRC-32, or ``zero`` for an array that is all zero and has no bytes in the
file. Every byte is covered by a checksum or known to be zero. The first 64 bytes have the same layout in every version.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..types.errors import InvalidValue, SnapshotError

VERSION = 1
MAGIC = b"\x89HSTLR\r\n"  # like PNG's: no text file begins with it, and a conversion of line ends is detected
_PREAMBLE = struct.Struct("<8sII3Q20x")
_CHECKSUM = struct.Struct("<I")
_ALIGN = 64
_CHUNK = 1 << 20  # small enough to stay in the CPU cache while it is checked, summed and copied
_DTYPE = re.compile(r"[<>|][biufcSU]\d+|[<>][mM]8(\[\w+\])?")
_REBUILD = "take another snapshot, or rebuild the state from the journal"

Path = str | os.PathLike[str]
Progress = Callable[[int, int], None]


def write(
    path: Path,
    meta: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    *,
    progress: Progress | None = None,
    sync: bool = True,
) -> None:
    """Write ``meta`` (a JSON value) and the arrays to the file at ``path``, replacing an existing one.

    When it returns, the file is complete and synced to disk under its name (unless ``sync`` is False: then it may be
    lost in a system crash); after an error, nothing has changed. A symlink is followed; the mode of an existing file is
    kept. ``progress(done, total)`` is called with bytes, once per MiB. Raises InvalidValue for values that cannot be
    saved, SnapshotError with the system's reason if the file cannot be written. O(bytes): 0.8 s per GB plus the time of
    the disk.
    """
    header: dict[str, Any] = {"meta": _jsonable(meta), "arrays": []}
    columns = {name: _savable(name, array) for name, array in arrays.items()}
    total = sum(column.nbytes for column in columns.values())
    done = 0
    with _replacing(path, sync) as file:
        at = file.seek(_ALIGN)
        for name, column in columns.items():
            entry: dict[str, Any] = {"name": name, "dtype": column.dtype.str, "shape": column.shape}
            header["arrays"].append(entry)
            if _is_zero(column):
                entry["zero"] = True
                done += column.nbytes
                if progress is not None:
                    progress(done, total)
                continue
            checksum = 0
            for chunk in _chunks(column):
                checksum = zlib.crc32(chunk, checksum)
                _put(path, file, chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
            entry["offset"] = at
            entry["crc32"] = checksum
            padding = bytes(-column.nbytes % _ALIGN)
            _put(path, file, padding)
            at += column.nbytes + len(padding)
        text = json.dumps(header, separators=(",", ":")).encode()
        _put(path, file, text)
        file.seek(0)
        preamble = _PREAMBLE.pack(MAGIC, VERSION, zlib.crc32(text), at, len(text), at + len(text))
        _put(path, file, preamble + _CHECKSUM.pack(zlib.crc32(preamble)))


def read(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read ``meta`` and the arrays, each new, writable and C-contiguous, in the order in which they were written.

    Raises SnapshotError with the fault and its position if the file cannot be read, is not a snapshot, is damaged in
    any byte, is too short or too long, or has a newer version. O(bytes): 0.8 s per GB plus the time of the disk.
    """
    with _os_errors("read", path):
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        file = FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    with file, _os_errors("read", path):
        return _Reader(path, file).read()


@dataclass(slots=True)
class _Reader:
    path: Path
    file: FileIO
    at: int = 0

    def read(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        status = os.fstat(self.file.fileno())
        if not stat.S_ISREG(status.st_mode):
            self.fail("is not a regular file", hint="give the path of a snapshot")
        offset, header = self.header(status.st_size)
        self.move(_ALIGN)
        arrays = {}
        for entry in header["arrays"]:
            try:
                name, array = self.allocated(entry, offset)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                self.fail(f"has an invalid array in its header: {error!r:.200}")
            except MemoryError:
                self.fail(f"holds array {entry['name']!r:.200}, for which there is no memory", hint="find more memory")
            if name in arrays:
                self.fail(f"has array {name!r:.200} twice in its header")
            arrays[name] = array
            if not entry.get("zero"):
                self.fill(name, array, entry["crc32"])
        if self.at != offset:
            self.fail(f"has bytes that belong to no array, from byte {self.at} to {offset}")
        return header["meta"], arrays

    def header(self, size: int) -> tuple[int, dict[str, Any]]:
        """The position of the header, and the header, after everything except the arrays has been verified."""
        raw = bytearray(min(size, _ALIGN))
        self.read_into(memoryview(raw), "its first bytes")
        if not raw:
            self.fail("is empty")
        if raw[: len(MAGIC)] != MAGIC[: len(raw)]:
            self.fail("is not a Hostler snapshot", hint="give the path of a snapshot")
        if len(raw) < _ALIGN:
            self.fail(f"is truncated: it ends at byte {size}, within its first {_ALIGN}")
        if _CHECKSUM.unpack_from(raw, _PREAMBLE.size)[0] != zlib.crc32(raw[: _PREAMBLE.size]):
            self.fail(f"is damaged in its first {_ALIGN} bytes")
        _, version, checksum, offset, length, total = _PREAMBLE.unpack_from(raw)
        if version > VERSION:
            self.fail(f"has format version {version}, this Hostler reads up to {VERSION}", hint="upgrade Hostler")
        if size < total:
            self.fail(f"is truncated: it has {size} of {total} bytes")
        if size > total:
            self.fail(f"has {size - total} bytes after its end at byte {total}")
        if version < 1 or offset < _ALIGN or offset + length != total:
            self.fail(f"has an invalid header: version {version}, {length} bytes at byte {offset} of {total}")
        text = bytearray(length)
        self.move(offset)
        self.read_into(memoryview(text), "its header")
        if zlib.crc32(text) != checksum:
            self.fail(f"is damaged in its header, bytes {offset} to {total}")
        with contextlib.suppress(KeyError, TypeError, ValueError, RecursionError):
            header = json.loads(text)
            if isinstance(header["meta"], dict) and isinstance(header["arrays"], list):
                return offset, header
        self.fail(f"has a header that is not Hostler's, bytes {offset} to {total}")

    def allocated(self, entry: dict[str, Any], end: int) -> tuple[str, npt.NDArray[Any]]:
        """The name of an entry, and an array for its bytes or of zeros; ValueError, TypeError or KeyError for an
        invalid entry."""
        name, dtype, shape = entry["name"], entry["dtype"], tuple(entry["shape"])
        if not isinstance(name, str) or not _DTYPE.fullmatch(dtype):
            raise ValueError(f"name {name!r}, dtype {dtype!r}")
        if not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"shape {shape} of {name!r}")
        if entry.get("zero"):
            return name, np.zeros(shape, dtype)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if entry["offset"] != self.at or self.at + size > end or type(entry["crc32"]) is not int:
            raise ValueError(f"{size} bytes of {name!r} at byte {entry['offset']}")
        return name, np.empty(shape, dtype)

    def fill(self, name: str, array: npt.NDArray[Any], expected: int) -> None:
        begin, checksum = self.at, 0
        for chunk in _chunks(array):
            self.read_into(chunk, f"array {name!r:.200}")
            checksum = zlib.crc32(chunk, checksum)
        if checksum != expected:
            self.fail(f"is damaged in array {name!r:.200}, bytes {begin} to {self.at}")
        padding = bytearray(-array.nbytes % _ALIGN)
        self.read_into(memoryview(padding), f"what follows array {name!r:.200}")
        if any(padding):
            self.fail(f"is damaged after array {name!r:.200}, bytes {self.at - len(padding)} to {self.at}")

    def read_into(self, room: memoryview, what: str) -> None:
        while room:
            count = self.file.readinto(room)
            if not count:
                self.fail(f"is truncated: it ends at byte {self.at}, within {what}")
            self.at += count
            room = room[count:]

    def move(self, at: int) -> None:
        self.at = self.file.seek(at)

    def fail(self, text: str, *, hint: str = _REBUILD) -> NoReturn:
        raise SnapshotError(f"{os.fspath(self.path)} {text}", field="path", hint=hint)


def _jsonable(meta: Mapping[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(dict(meta), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(f"meta cannot be written as JSON: {error}", field="meta") from None
    return dict(meta)


def _savable(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array in C order; InvalidValue if it cannot be saved."""
    if not isinstance(name, str):
        raise InvalidValue(f"an array's name must be a str, not {name!r:.200}", field="arrays")
    if not isinstance(array, np.ndarray):
        raise InvalidValue(f"{name!r:.200} is of {type(array).__name__}, not an array", field=name)
    if not _DTYPE.fullmatch(array.dtype.str) or not array.dtype.itemsize:
        raise InvalidValue(f"array {name!r:.200} is of dtype {array.dtype}, which no snapshot holds", field=name)
    return np.asarray(array, order="C")


def _chunks(array: npt.NDArray[Any]) -> Iterator[memoryview]:
    """The array's bytes in order, in pieces, without a copy."""
    raw = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")
    return (raw[at : at + _CHUNK] for at in range(0, len(raw), _CHUNK))


def _is_zero(array: npt.NDArray[Any]) -> bool:
    """Whether every byte is zero (-0.0 is not). Stops at the first piece that is not."""
    for chunk in _chunks(array):
        words = len(chunk) // 8 * 8
        if np.frombuffer(chunk[:words], np.uint64).any() or any(chunk[words:]):
            return False
    return True


def _put(path: Path, file: FileIO, data: bytes | memoryview) -> None:
    left = memoryview(data)
    with _os_errors("write", path):
        while left:
            left = left[file.write(left) :]


@contextlib.contextmanager
def _os_errors(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SnapshotError(f"cannot {doing} {os.fspath(path)}: {error.strerror or error}", field="path") from error
    except ValueError as error:  # a path that the system cannot represent
        raise SnapshotError(f"cannot {doing} {os.fspath(path)!r}: {error}", field="path") from error


@contextlib.contextmanager
def _replacing(path: Path, sync: bool) -> Iterator[FileIO]:
    """A new file that replaces ``path`` (synced if ``sync``) when the block succeeds, and is deleted when it fails."""
    with _os_errors("write", path):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            mode = None
        if mode is not None and not stat.S_ISREG(mode):
            raise SnapshotError(f"cannot write {os.fspath(path)}: it is not a regular file", field="path")
        target = os.path.realpath(path)
        folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        temporary = f".snapshot-{secrets.token_hex(8)}.tmp"
        with _os_errors("write", path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            file = FileIO(os.open(temporary, flags, 0o666, dir_fd=folder), "w")
        try:
            with file:
                if mode is not None:
                    with _os_errors("write", path):
                        os.fchmod(file.fileno(), stat.S_IMODE(mode))
                yield file
                with _os_errors("write", path):
                    if sync:
                        os.fsync(file.fileno())
            with _os_errors("write", path):
                os.replace(temporary, os.path.basename(target), src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        with _os_errors("sync the folder of", path):
            if sync:
                os.fsync(folder)
    finally:
        os.close(folder)
