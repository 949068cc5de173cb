"""The commands that a process was executing when it died: a few numbers in a shared memory mapping of a file, which
outlives the process (not the machine), and the commands that were set apart because they killed it.

Commands are durable before they are executed, so one that kills the process (out of memory, a fault of a kernel) would
kill each start after it as well. A start that finds commands under way at the last death tries them in a child first;
one that kills the child too is set apart: it counts as refused from then on, in each replay."""

from __future__ import annotations

import mmap
import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from ...placement.types.errors import HostlerError
from ..errors import DataDamaged, StorageFailed
from .snapshots import sync

FILE: Final = "under-way"
APART: Final = "set-apart.jsonl"
_LAYOUT: Final = struct.Struct("<8sQQQ")
_NUMBER: Final = struct.Struct("<Q")
_MAGIC: Final = b"HSTRUW01"
_LENGTH: Final = _LAYOUT.size + _NUMBER.size


class CommandSetApart(HostlerError):
    """The command killed the process and was not executed; the log and set-apart.jsonl in the data folder say so."""

    code = "set_apart"


class Apart(msgspec.Struct, frozen=True):
    """A command that was set apart: its number, when that was (seconds since the epoch), and what happened."""

    sequence: int
    time: float
    reason: str


class UnderWay:
    """The commands that are executing. Every change is a few bytes of memory."""

    def __init__(self, folder: Path) -> None:
        """StorageFailed if the file cannot be used."""
        self._path = folder / FILE
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Without a block on a full disk, a write to the mapping would end the process (SIGBUS). Not by
                # fallocate, which some file systems do not have. A file that was in use has its block: a start on a
                # disk that takes nothing must not need it to.
                held = os.pread(handle, _LENGTH, 0)
                if len(held) < _LENGTH or not held.startswith(_MAGIC):
                    os.pwrite(handle, held.ljust(_LENGTH, b"\0"), 0)
                self._map = mmap.mmap(handle, _LENGTH)
            finally:
                os.close(handle)
        except (OSError, ValueError) as error:
            raise StorageFailed(f"cannot use {FILE}: {error}", field="data") from error
        magic, first, last, trial = _LAYOUT.unpack_from(self._map)
        known = magic == _MAGIC and first <= last
        self.found = (first, last) if known and first else None
        """Numbers (first, last) of the commands that were under way when the last process died; None: none was."""
        self.found_trial = trial if known else 0
        """The one of them that was being tried when a start died; 0: none."""
        self.found_durable = _NUMBER.unpack_from(self._map, _LAYOUT.size)[0] if known else 0
        """Number of the last command that is known to have been durable; 0: none is known."""
        self.durable(self.found_durable)
        self._first: int = first if self.found else 0
        self._last: int = last if self.found else 0
        self._put(self.found_trial)

    def _put(self, trial: int) -> None:
        _LAYOUT.pack_into(self._map, 0, _MAGIC, self._first, self._last, trial)

    def begin(self, first: int, last: int) -> None:
        """Record that commands begin to execute. O(1)."""
        self._first, self._last = first, last
        self._put(0)

    def end(self) -> None:
        """Record that they have been executed. O(1)."""
        self._first = self._last = 0
        self._put(0)

    def trying(self, sequence: int) -> None:
        """One of those that were found is tried, or none (0). Those found stay on record until ``begin`` or ``end``."""
        self._put(sequence)

    @property
    def trial(self) -> int:
        """The one that is being tried, also by a child. O(1)."""
        return int(_LAYOUT.unpack_from(self._map)[3])

    def durable(self, sequence: int) -> None:
        """All commands up to this one are in the journal, and may be acknowledged. O(1)."""
        _NUMBER.pack_into(self._map, _LAYOUT.size, sequence)

    def sync(self) -> None:
        """Have the numbers reach the disk; for a thread. Others go on meanwhile: ``mmap.flush`` before Python 3.14
        holds the interpreter's lock until the disk is done, which takes tenths of a second where others write much."""
        with suppress(FileNotFoundError):
            handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fdatasync(handle)
            finally:
                os.close(handle)

    def close(self) -> None:
        """Give the file up. May be called twice."""
        self._map.close()


def read_apart(folder: Path) -> dict[int, Apart]:
    """The commands of a data folder that were set apart, by number. DataDamaged if the list cannot be read."""
    try:
        lines = (folder / APART).read_bytes().splitlines()
        found = [msgspec.json.decode(line, type=Apart) for line in lines if line]
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise DataDamaged(f"{APART} cannot be read: {error}", field="data") from error
    return {each.sequence: each for each in found}


def set_apart(folder: Path, sequence: int, reason: str) -> Apart:
    """Have a command counted as refused from now on. StorageFailed if that cannot be made durable."""
    apart = Apart(sequence, time.time(), reason)
    try:
        handle = os.open(folder / APART, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, msgspec.json.encode(apart) + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        sync(folder)
    except OSError as error:
        raise StorageFailed(f"cannot set command {sequence} apart: {error}", field="data") from error
    return apart
