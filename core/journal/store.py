"""Storage of journal records: segments of blocks in SQLite files, written through aiosqlite. Does not interpret the
blocks.

A segment is a file named after its first sequence number. A block is durable when ``append`` has returned (write-ahead
log, synchronous=FULL). Tests put other stores, with faults, behind the same protocol.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import aiosqlite
import msgspec
import trio

from ..errors import DataDamaged, StorageFailed, UnreadableCommand
from ..failures import Failures
from ..tasks import in_threads_of
from . import write_ahead_log as wal
from .asyncio_thread import AsyncioThread
from .snapshots import sync

T = TypeVar("T")

APPLICATION_ID: Final = 0x48535452  # HSTR
FORMAT: Final = 2
_NAME: Final = re.compile(r"journal-(\d{16})\.sqlite")
_SCHEMA: Final = (
    "CREATE TABLE blocks (first INTEGER PRIMARY KEY, records INTEGER NOT NULL, body BLOB NOT NULL, "
    "checksum INTEGER NOT NULL)"
)
_SETTINGS: Final = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0"
_INSERT: Final = "INSERT INTO blocks VALUES (?, ?, ?, ?)"
_READ: Final = (
    "WITH sizes AS (SELECT first, length(body) AS size FROM blocks WHERE first > ? ORDER BY first LIMIT ?), "
    "ends AS (SELECT first, sum(size) OVER (ORDER BY first) - size AS before FROM sizes) "
    "SELECT first, records, body, checksum FROM blocks JOIN ends USING (first) WHERE before < ? ORDER BY first"
)
READ_BYTES: Final = 8 << 20
"""About so much is read at a time."""
PAGE: Final = 4096
CHECKPOINT_PAGES: Final = 1_000
"""Pages in the write-ahead log at which they begin to be copied into the segment's file."""
_DAMAGE: Final = (
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR),
    *(sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH),
)
_WRITING: Final = ("create", "write")
"""What is tried again. Damage is judged by what recovery reads."""


class Block(NamedTuple):
    """Records that were journalled together: the first one's sequence number, how many there are, their bytes, and a
    checksum that covers these and the block before."""

    first: int
    records: int
    body: bytes
    checksum: int


class Store(Protocol):
    """Segments of blocks. Methods raise StorageFailed if the disk fails, DataDamaged if the data is not a journal."""

    async def segments(self) -> list[int]:
        """First sequence numbers of all segments, ascending."""

    async def read(self, first: int, after: int, limit: int) -> list[Block]:
        """Up to ``limit`` blocks of a segment that begin after record ``after``, in order; empty only if there are no
        more."""

    async def begin(self, first: int) -> None:
        """Create a new, empty segment for further appends."""

    async def resume(self, first: int, last: int, *, room: int = 0) -> None:
        """Append to an existing segment after record ``last``; later records are removed. StorageFailed also if the
        disk has less than ``room`` bytes free."""

    async def append(self, block: Block) -> None:
        """Add a block atomically. After an error ``resume`` must be called before another append."""

    async def remove(self, first: int) -> None:
        """Delete a segment."""

    async def set_aside(self, first: int) -> str:
        """Rename a damaged segment so that it is ignored and can be examined; returns its new name."""

    async def close(self) -> None:
        """Give up everything. May be called twice."""


class SqliteStore:
    """Segments as SQLite files in one folder. Each block costs one call to the asyncio thread, where ``committed`` is
    called with the seconds its transaction took, including the sync.

    Checkpoints of the write-ahead log, and closing of finished segments, run in the background: an append waits only
    for its own bytes.
    """

    def __init__(
        self,
        folder: Path,
        committed: Callable[[float], None] = lambda seconds: None,
        failures: Failures | None = None,
    ) -> None:
        """``failures`` counts those of what is done in the background."""
        self._folder, self._committed = folder, committed
        self._failures = failures if failures is not None else Failures()
        self._asyncio = AsyncioThread("hostler-journal")
        self._aside = in_threads_of(trio.CapacityLimiter(1))
        self._closed = False
        self._writing: aiosqlite.Connection | None = None
        self._reading: tuple[int, aiosqlite.Connection] | None = None
        self._current = 0
        self._pages = 0
        """Approximate bytes appended since the last checkpoint of the write-ahead log."""
        self._background: set[asyncio.Task[None]] = set()
        self._cut: dict[int, str] = {}
        """Segments whose write-ahead log breaks off, and how."""

    def path(self, first: int) -> Path:
        """File of a segment."""
        return self._folder / f"journal-{first:016d}.sqlite"

    def beats(self) -> int:
        """Grows while the loop that carries out its work has its turns."""
        return self._asyncio.beats

    async def segments(self) -> list[int]:
        try:
            names = [match for path in self._folder.iterdir() if (match := _NAME.fullmatch(path.name))]
        except OSError as error:
            raise _failed("read", self._folder, error) from error
        return sorted(int(match[1]) for match in names)

    async def read(self, first: int, after: int, limit: int) -> list[Block]:
        return await self._run("read", first, lambda: self._read(first, after, limit))

    async def begin(self, first: int) -> None:
        await self._run("create", first, lambda: self._begin(first))

    async def resume(self, first: int, last: int, *, room: int = 0) -> None:
        if room:
            await self._run("write", first, lambda: self._require(room))
        await self._run("write", first, lambda: self._resume(first, last))

    async def append(self, block: Block) -> None:
        await self._run("write", self._current, lambda: self._append(block))

    async def remove(self, first: int) -> None:
        await self._run("remove", first, self._finish_reading)
        await self._aside(functools.partial(self._unlink, first))

    def _unlink(self, first: int) -> None:
        try:
            for path in reversed(self._files(first)):  # a segment without its write-ahead log would be taken for whole
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _failed("remove", self.path(first), error) from error

    async def set_aside(self, first: int) -> str:
        await self._run("close", first, self._close)
        new = _aside_name(self.path(first))
        try:
            for path in self._files(first):
                if path.exists():
                    path.rename(self._folder / path.name.replace(self.path(first).name, new.name))
        except OSError as error:
            raise _failed("rename", self.path(first), error) from error
        return new.name

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._run("close", self._current, self._close)
        finally:
            self._asyncio.stop()

    def _files(self, first: int) -> list[Path]:
        path = self.path(first)
        return [path, *(path.with_name(f"{path.name}-{what}") for what in ("wal", "shm", "journal"))]

    # over in the asyncio thread

    async def _run(self, verb: str, first: int, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await self._asyncio.run(work)
        except sqlite3.DatabaseError as error:
            if _is_damage(error) and verb not in _WRITING:  # a disk that cannot be read at the moment gives that too
                raise DataDamaged(f"{self.path(first).name} is damaged: {error}", field="data") from error
            raise _failed(verb, self.path(first), error) from error
        except OSError as error:
            raise _failed(verb, self.path(first), error) from error

    async def _opened(self, first: int) -> aiosqlite.Connection:
        where = f"{self.path(first).absolute().as_uri()}?mode=rw"
        try:
            return await aiosqlite.connect(where, uri=True, isolation_level=None)
        except RuntimeError as error:  # each connection has a thread, and there can be no more
            raise OSError(errno.EAGAIN, str(error)) from error

    async def _connect(self, first: int) -> aiosqlite.Connection:
        database = await self._opened(first)
        try:
            await database.executescript(_SETTINGS)
        except BaseException:
            await database.close()
            raise
        return database

    async def _read(self, first: int, after: int, limit: int) -> list[Block]:
        if self._reading is None or self._reading[0] != first:
            await self._finish_reading()
            self._reading = (first, await self._connect_to_read(first))
        found = list(await self._reading[1].execute_fetchall(_READ, (after, limit, READ_BYTES)))
        if not found and first in self._cut:
            raise DataDamaged(self._cut[first], field="data")
        try:
            return msgspec.convert(found, list[Block], strict=True)
        except msgspec.ValidationError as error:
            raise DataDamaged(f"{self.path(first).name} holds a block that cannot be: {error}", field="data") from None

    async def _connect_to_read(self, first: int) -> aiosqlite.Connection:
        """Connect, and find out whether the write-ahead log has more than SQLite takes of it."""
        try:
            return await self._looked_at(first, await self._connect(first))
        except sqlite3.OperationalError as error:
            if _is_damage(error):
                raise
        return await self._connect_alone(first)

    async def _connect_alone(self, first: int) -> aiosqlite.Connection:
        """Connect where nothing can be written: the index of the write-ahead log is kept in memory, and what the log
        lacks at its end is not looked for."""
        database = await self._opened(first)
        try:
            await database.execute("PRAGMA locking_mode=EXCLUSIVE")
            await self._check_format(first, database)
        except BaseException:
            await database.close()
            raise
        return database

    async def _check_format(self, first: int, database: aiosqlite.Connection) -> None:
        ((version,),) = await database.execute_fetchall("PRAGMA user_version")
        if version != FORMAT:
            text = f"{self.path(first).name} has format {version}, this Hostler reads {FORMAT}"
            raise UnreadableCommand(text, field="data", hint="use the Hostler that wrote it, or upgrade")

    async def _looked_at(self, first: int, database: aiosqlite.Connection) -> aiosqlite.Connection:
        """Find out whether the write-ahead log has more than SQLite takes of it."""
        ahead = self._files(first)[1]
        before = wal.look(ahead)
        try:
            await self._check_format(first, database)
            rows = list(await database.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)"))
            taken = max(int(rows[0][1]), 0)
            if first not in self._cut and (before.lost(taken) or not before.whole):
                lost = f"{before.lost(taken)} transactions" if before.whole else "all that it had"
                name = self.path(first).name
                self._cut[first] = f"the write-ahead log of {name} is damaged after frame {taken}, {lost} lost"
                shutil.copyfile(ahead, ahead.with_name(f"damaged-{ahead.name}"))
        except BaseException:
            await database.close()
            raise
        return database

    async def _begin(self, first: int) -> None:
        path = self.path(first)
        new = path.with_suffix(".new")
        try:
            self._clear(first)
            with open(new, "wb", opener=_private) as file:  # noqa: ASYNC230  # in the journal's own thread
                file.write(_empty_segment())
                file.flush()
                os.fsync(file.fileno())
            new.rename(path)
            sync(self._folder)
            await self._take_up(first, await self._connect(first))
        except BaseException:
            for left in (new, *self._files(first)):
                with suppress(OSError):
                    left.unlink(missing_ok=True)
            raise

    def _clear(self, first: int) -> None:
        """Have nothing there of a segment that was not begun, or whose file is lost: SQLite would take it for part of
        the new one. A write-ahead log is set aside, since it may have commands."""
        _, ahead, *others = self._files(first)
        for path in others:
            path.unlink(missing_ok=True)
        if ahead.exists():
            ahead.rename(_aside_name(ahead))

    async def _take_up(self, first: int, database: aiosqlite.Connection) -> None:
        try:
            await self._write_to(first, database)
        except BaseException:
            await database.close()
            raise

    async def _resume(self, first: int, last: int) -> None:
        if self._writing is not None and self._current == first:
            # No append has failed. A new connection would need a thread, and there may be none.
            try:
                await self._cut_behind(last, self._writing)
            except BaseException:
                await self._stop_writing()
                raise
            return
        await self._close()
        database = await self._connect(first)
        try:
            await self._cut_behind(last, database)
        except BaseException:
            await database.close()
            raise
        await self._take_up(first, database)

    async def _cut_behind(self, last: int, database: aiosqlite.Connection) -> None:
        """Remove records after ``last``. Something is written even where there are none: a transaction that reached the
        disk shows that the disk works, and overwrites the frames of one whose end is not known."""
        await database.execute("DELETE FROM blocks WHERE first > ?", (last,))
        await database.execute(f"PRAGMA user_version={FORMAT}")

    async def _require(self, room: int) -> None:
        """OSError unless this many bytes are free: a small transaction can succeed on a disk that is almost full."""
        disk = os.statvfs(self._folder)
        free = disk.f_frsize * (disk.f_bfree if os.geteuid() == 0 else disk.f_bavail)
        if free < room:
            raise OSError(errno.ENOSPC, f"{free} bytes are free on the disk")

    async def _write_to(self, first: int, database: aiosqlite.Connection) -> None:
        old, self._writing, self._current, self._pages = self._writing, database, first, 0
        if old is not None:
            self._start(old.close())

    async def _append(self, block: Block) -> None:
        if self._writing is None:
            raise OSError("no segment is open")
        try:
            began = time.perf_counter()
            await self._writing.execute_insert(_INSERT, block)  # a transaction of its own
            self._committed(time.perf_counter() - began)
        except BaseException:
            await self._stop_writing()
            raise
        self._pages += 2 + len(block.body) // PAGE
        if self._pages > CHECKPOINT_PAGES:
            self._pages = 0
            self._start(self._copy_log(self._current, self._writing))

    async def _copy_log(self, first: int, writing: aiosqlite.Connection) -> None:
        """Checkpoint the write-ahead log while it grows, and then, between two appends, the remainder, so that the log
        restarts."""
        database = await self._connect(first)
        try:
            await database.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
            if writing is self._writing:
                await writing.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            await database.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work in the background. A failure loses nothing: the log keeps frames that were not checkpointed."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        error = task.exception()
        if error is None:
            self._failures.works("write-ahead log")
        else:
            self._failures.failed("write-ahead log", error)

    async def _quiet(self) -> None:
        """Wait until nothing is done in the background."""
        while self._background:
            await asyncio.wait(self._background)

    async def _finish_reading(self) -> None:
        await self._stop_reading()
        await self._quiet()

    async def _close(self) -> None:
        await self._finish_reading()
        await self._stop_writing()

    async def _stop_reading(self) -> None:
        if self._reading is not None:
            (_, database), self._reading = self._reading, None
            await database.close()

    async def _stop_writing(self) -> None:
        if self._writing is not None:
            database, self._writing = self._writing, None
            await database.close()


def _aside_name(path: Path) -> Path:
    """A name for a damaged file, by which it is not read any more."""
    number = 1
    while (new := path.with_name(f"damaged-{number}-{path.name}")).exists():
        number += 1
    return new


def _private(path: str, flags: int) -> int:
    """An opener of files that only the service's user may read; SQLite gives a log the mode of its database."""
    return os.open(path, flags, 0o600)


@functools.cache
def _empty_segment() -> bytes:
    """The file of a segment without blocks. (Writers wait while a segment is begun.)"""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        database.execute(f"PRAGMA user_version={FORMAT}")
        database.execute(_SCHEMA)
        database.commit()
        return database.serialize()


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """True if the data is corrupt (an undecodable string has no error code), False if the disk failed."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return code in _DAMAGE


def _failed(verb: str, path: Path, error: Exception) -> StorageFailed:
    return StorageFailed(
        f"cannot {verb} {path.name}: {error}", field="data", hint="check the disk: space, mount, kernel log"
    )


def about_last(folder: Path) -> int:
    """About the number of the last command in a folder's newest segment, for showing how far a recovery is. What is in
    the write-ahead log only is left out; 0 where there is nothing that can be read."""
    names = sorted(path for path in folder.glob("journal-*.sqlite") if _NAME.fullmatch(path.name))
    if not names:
        return 0
    try:
        # Immutable: no lock is taken, and nothing in the folder is touched before it is recovered.
        with closing(sqlite3.connect(f"{names[-1].absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            query = "SELECT first + records - 1 FROM blocks ORDER BY first DESC LIMIT 1"
            found = database.execute(query).fetchone()
    except (sqlite3.Error, OSError):
        return 0
    return int(found[0]) if found is not None and isinstance(found[0], int) else 0
