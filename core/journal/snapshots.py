"""Snapshots: folders of files with checksums, created atomically by a forked child, so that the writer does not wait
for the disk.

A snapshot of sequence number N holds the state after commands up to N. It is written as ``snapshot-N.tmp-PID``, synced,
and then renamed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from ...placement.types.errors import InvalidValue
from ..errors import DataDamaged, StorageFailed, check_not_newer
from ..forks import ChildFailed, in_child
from ..tasks import Aside, at_once

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
_NAME: Final = re.compile(r"snapshot-(\d{16})")
_UNFINISHED: Final = re.compile(r"snapshot-\d{16}\.tmp-\d+")
_SEGMENT: Final = re.compile(r"journal-\d{16}\.sqlite")
_NEW_SEGMENT: Final = re.compile(r"journal-\d{16}\.new")
_LOG: Final = re.compile(r"(journal-\d{16}\.sqlite)-(wal|shm|journal)")
_CHUNK: Final = 1 << 20

Write = Callable[[Path], None]
"""Puts files into an empty folder."""


class Snapshots(Protocol):
    """Storage of snapshots. Methods raise StorageFailed or DataDamaged."""

    def known(self) -> list[int]:
        """Sequence numbers of all snapshots, ascending."""

    async def take(
        self, sequence: int, write: Write, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Have ``write`` save a snapshot of the current state into a folder, and keep it on success. The state is
        captured when the task has started."""

    def find(self, sequence: int) -> Path:
        """Folder of a snapshot; DataDamaged if it is not what was written."""

    def remove(self, sequence: int) -> None:
        """Delete a snapshot."""

    def set_aside(self, sequence: int) -> str:
        """Rename a damaged snapshot so that it is ignored; returns its new name."""


class SnapshotFolder:
    """Snapshots as folders in one folder."""

    def __init__(self, folder: Path, aside: Aside = at_once) -> None:
        """``aside`` runs the file operations of ``take``, which may wait for the disk."""
        self._folder, self._aside = folder, aside

    def path(self, sequence: int) -> Path:
        """Folder of a snapshot."""
        return self._folder / f"snapshot-{sequence:016d}"

    def known(self) -> list[int]:
        try:
            matches = [_NAME.fullmatch(path.name) for path in self._folder.iterdir()]
        except OSError as error:
            raise _failed("read", self._folder, error) from error
        return sorted(int(match[1]) for match in matches if match)

    def tidy(self) -> None:
        """Delete what unfinished snapshots and segments, and deleted segments, have left. StorageFailed if the folder
        cannot be read."""
        try:
            names = {path.name: path for path in self._folder.iterdir()}
        except OSError as error:
            raise _failed("read", self._folder, error) from error
        for name, path in names.items():
            log_of = _LOG.fullmatch(name)
            if _UNFINISHED.fullmatch(name):
                shutil.rmtree(path, ignore_errors=True)
            elif _NEW_SEGMENT.fullmatch(name) or (log_of and log_of[2] != "wal" and log_of[1] not in names):
                with suppress(OSError):
                    path.unlink()

    def check_whole(self) -> None:
        """DataDamaged for a folder that has but the begin of a copy: an unfinished snapshot, and no other, where there
        is no segment either. A service always has one. StorageFailed if the folder cannot be read."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError as error:
            raise _failed("read", self._folder, error) from error
        unfinished = [name for name in names if _UNFINISHED.fullmatch(name)]
        if unfinished and not any(_SEGMENT.fullmatch(name) or _NAME.fullmatch(name) for name in names):
            text = f"{self._folder.name} has no more than the begin of a copy ({unfinished[0]})"
            raise DataDamaged(text, field="data", hint="put back a whole copy, or name an empty folder")

    async def take(
        self, sequence: int, write: Write, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        new = self.path(sequence).with_suffix(f".tmp-{os.getpid()}")
        complete = False
        try:
            await in_child(lambda: write_folder(new, sequence, write), task_status=task_status)
            await self._aside(partial(self._rename, new, sequence))
            complete = True
        except ChildFailed as error:
            raise StorageFailed(f"snapshot {sequence} was not written: {error}", field="data") from error
        finally:
            if not complete:
                with trio.CancelScope(shield=True):
                    await self._aside(partial(shutil.rmtree, new, ignore_errors=True))

    def _rename(self, new: Path, sequence: int) -> None:
        try:
            new.rename(self.path(sequence))
            sync(self._folder)
        except OSError as error:
            raise _failed("rename", new, error) from error

    def find(self, sequence: int) -> Path:
        path = self.path(sequence)
        check_folder(path, sequence)
        return path

    def remove(self, sequence: int) -> None:
        try:
            shutil.rmtree(self.path(sequence))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed("remove", self.path(sequence), error) from error

    def set_aside(self, sequence: int) -> str:
        path, number = self.path(sequence), 1
        while (new := path.with_name(f"damaged-{number}-{path.name}")).exists():
            number += 1
        try:
            path.rename(new)
        except OSError as error:
            raise _failed("rename", path, error) from error
        return new.name


def write_folder(folder: Path, sequence: int, write: Write) -> bytes:
    """Make a folder, have it filled, and put a manifest with the checksums of all files into it; all synced. Returns
    nothing, for a child to say."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
    folder.mkdir(mode=0o700)
    write(folder)
    for path in folder.iterdir():
        path.chmod(0o600)
    files = {path.name: _checksum(path, sync_too=True) for path in sorted(folder.iterdir())}
    content = json.dumps({"format": FORMAT, "sequence": sequence, "files": files}, sort_keys=True)
    manifest = folder / MANIFEST
    manifest.write_text(f"{zlib.crc32(content.encode()):08x} {content}\n", encoding="utf-8")
    manifest.chmod(0o600)
    sync(manifest)
    sync(folder)
    return b""


def check_folder(folder: Path, sequence: int) -> None:
    """DataDamaged unless the folder is a snapshot of ``sequence`` in which every byte is as it was written."""
    try:
        line = (folder / MANIFEST).read_bytes()
        checksum, content = line[:8], line[9:-1]
        if line[8:9] != b" " or line[-1:] != b"\n" or checksum != b"%08x" % zlib.crc32(content):
            raise _damaged(folder, f"the checksum of its {MANIFEST} is wrong")
        manifest: dict[str, Any] = json.loads(content)
        check_not_newer(folder.name, manifest["format"], FORMAT)
        if manifest["format"] != FORMAT or manifest["sequence"] != sequence:
            raise _damaged(folder, f"it has format {manifest['format']} and sequence {manifest['sequence']}")
        names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
        if names != sorted(manifest["files"]):
            raise _damaged(folder, "files are missing, or too many")
        for name, expected in manifest["files"].items():
            if _checksum(folder / name, sync_too=False) != expected:
                raise _damaged(folder, f"the checksum or size of {name} is wrong")
    except FileNotFoundError as error:
        raise _damaged(folder, f"{error.filename} is missing") from error
    except OSError as error:
        raise _failed("read", folder, error) from error


def export(snapshots: Snapshots, sequence: int, folder: Path) -> None:
    """Copy a snapshot into a new data folder; see ``Journal.export``. Blocks."""
    source = snapshots.find(sequence)
    new = folder / f"{source.name}.tmp-{os.getpid()}"
    begun = False
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise _not_empty(folder)
        try:
            new.mkdir(mode=0o700)
        except FileExistsError:  # another call for the same folder was faster
            raise _not_empty(folder) from None
        begun = True
        for path in sorted(source.iterdir()):
            shutil.copyfile(path, new / path.name)
            (new / path.name).chmod(0o600)
            sync(new / path.name)
        check_folder(new, sequence)
        sync(new)
        new.rename(folder / source.name)
        sync(folder)
        sync(folder.parent)
    except OSError as error:
        raise _failed("write", folder, error) from error
    finally:
        if begun:
            shutil.rmtree(new, ignore_errors=True)


def _not_empty(folder: Path) -> InvalidValue:
    return InvalidValue(f"{folder} is not empty", field="folder", hint="name a new folder")


def _checksum(path: Path, *, sync_too: bool) -> list[int]:
    """[bytes, CRC-32] of a file."""
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
        if sync_too:
            os.fsync(file.fileno())
    return [size, checksum]


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damaged(folder: Path, what: str) -> DataDamaged:
    return DataDamaged(f"{folder.name} is damaged: {what}", field="data")


def _failed(verb: str, path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"cannot {verb} {path.name}: {error}", field="data", hint="check the disk: space, mount")
