"""The journal: every command in order, durable before it is answered, under a chain of checksums, with snapshots that
bound recovery.

It stores and numbers byte strings; the writer interprets them. Records that became durable together form a block, and
blocks are stored in segments. Each snapshot starts a new segment; once a snapshot is complete, segments needed only by
older snapshots are deleted.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import struct
import zlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import trio

from ..errors import DataDamaged, DataInUse, StorageFailed
from ..failures import Failures
from ..tasks import Aside, at_once, in_threads_of
from .progress import UnderWay
from .snapshots import SnapshotFolder, Snapshots, Write, export
from .store import Block, SqliteStore, Store

CHUNK: Final = 4096
"""Blocks read at a time, at most."""
ROOM: Final = 1 << 20
"""Bytes that must be free before a journal that was broken is written again."""
FILE_THREADS: Final = 2
"""Threads that delete, rename and sync files at a time."""
SNAPSHOTS_KEPT: Final = 2
"""The newest snapshots; the one before the newest is for the case that the newest turns out damaged."""
_SEQUENCE: Final = struct.Struct("<Q")
_SIZES: Final = struct.Struct("<QQQ")


class Entry(NamedTuple):
    """What is to be journalled of one command."""

    key: str | None
    fingerprint: bytes
    body: bytes


class Record(NamedTuple):
    """One command in the journal: its number, its idempotency key with a fingerprint of the request, its bytes."""

    sequence: int
    key: str | None
    fingerprint: bytes
    body: bytes


pack: Final = msgspec.msgpack.Encoder().encode
"""Entries as the body of a block, which ``unpack`` reads."""
_unpack: Final = msgspec.msgpack.Decoder(list[Entry]).decode


@dataclass(slots=True)
class Recovery:
    """The result of opening the journal. ``damage`` describes, in order, each fault and where the damaged file is now;
    ``last`` is then the last command that was kept."""

    snapshot: int = 0
    replayed: int = 0
    last: int = 0
    damage: list[str] = field(default_factory=list)
    set_apart: list[str] = field(default_factory=list)
    """Commands that this recovery found to kill the process, in words."""
    not_writable: StorageFailed | None = None
    """Why nothing can be appended until ``Journal.repair`` succeeds, such as a full disk; None: it can."""


def first_checksum(first: int) -> int:
    """Where the chain of a segment begins."""
    return zlib.crc32(_SEQUENCE.pack(first))


def next_checksum(before: int, first: int, records: int, body: bytes) -> int:
    """Checksum of a block, which covers it, its numbers and the block before."""
    return zlib.crc32(body, zlib.crc32(_SIZES.pack(first, records, len(body)), before))


def unpack(block: Block) -> list[Record]:
    """The records of a block. DataDamaged if it is malformed or has the wrong number of records."""
    try:
        entries = _unpack(block.body)
    except msgspec.MsgspecError as error:
        raise DataDamaged(f"block {block.first} cannot be read: {error}", field="data") from error
    if len(entries) != block.records:
        raise DataDamaged(f"block {block.first} has {len(entries)} records, not {block.records}", field="data")
    return [Record(sequence, *entry) for sequence, entry in enumerate(entries, block.first)]


def _replayed(blocks: Sequence[Block], replay: Callable[[Sequence[Record]], None], last: int) -> int:
    """Replay the records of blocks after command ``last``; returns their last command. DataDamaged."""
    new = [record for block in blocks for record in unpack(block) if record.sequence > last]
    if not new:
        return last
    replay(new)
    return new[-1].sequence


def locked_folder(path: Path) -> int:
    """The descriptor of a data folder's lock, which is held until that is closed. The folder is created if missing.
    DataInUse if another process has it, StorageFailed if it cannot be used."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageFailed(f"the data folder {path} cannot be used: {error}", field="data") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise DataInUse(f"another process uses the data folder {path}", field="data") from error
    return lock


class Journal:
    """One data folder's journal. First ``recover``, then ``append``; one task at a time.

    ``keep_history`` keeps every segment from the first command, for replays; otherwise segments that no snapshot needs
    are deleted.
    """

    def __init__(
        self,
        store: Store,
        snapshots: Snapshots,
        *,
        keep_history: bool = False,
        lock: int = -1,
        aside: Aside = at_once,
        files: Aside = at_once,
        folder: Path | None = None,
        under_way: UnderWay | None = None,
    ) -> None:
        """``aside`` does what takes long in a recovery, ``files`` the operations on snapshots' files later on."""
        self._store, self._snapshots, self._lock, self._aside, self._files = store, snapshots, lock, aside, files
        self.folder, self.under_way = folder, under_way
        """Where the journal is, and the record of what is being carried out; None in tests without files."""
        self._keep_history = keep_history
        self._segment = 1
        self._checksum = first_checksum(1)
        self.last = 0
        """Sequence number of the last command that is durable."""
        self.loading = 0
        """Sequence number of the snapshot that is being loaded, 0 if none is."""
        self.broken = False
        """True after an error, until ``repair`` has succeeded."""

    @classmethod
    def in_folder(
        cls,
        folder: str | os.PathLike[str],
        *,
        keep_history: bool = False,
        committed: Callable[[float], None] = lambda seconds: None,
        aside: Aside = at_once,
        failures: Failures | None = None,
    ) -> Journal:
        """Open the journal in a folder, which is created if missing and locked until ``close``. DataInUse if another
        process has it, StorageFailed if it cannot be opened, DataDamaged if it has but the begin of a copy.
        ``committed`` and ``failures`` are passed to ``SqliteStore``. ``aside`` runs the long steps of a recovery:
        loading, and replaying a few megabytes at a time."""
        path = Path(folder)
        lock = locked_folder(path)
        files = in_threads_of(trio.CapacityLimiter(FILE_THREADS))
        snapshots = SnapshotFolder(path, files)
        try:
            snapshots.check_whole()
            snapshots.tidy()
        except BaseException:
            os.close(lock)
            raise
        store = SqliteStore(path, committed, failures)
        return cls(
            store,
            snapshots,
            keep_history=keep_history,
            lock=lock,
            aside=aside,
            files=files,
            folder=path,
            under_way=UnderWay(path),
        )

    @property
    def loops(self) -> Sequence[Callable[[], int]]:
        """Numbers that grow while the event loops that the journal needs beside trio's have their turns."""
        return (self._store.beats,) if isinstance(self._store, SqliteStore) else ()

    @property
    def snapshot_is_due(self) -> bool:
        """False: the number of commands alone decides."""
        return False

    # recovery

    async def recover(
        self, load: Callable[[Path], None], replay: Callable[[Sequence[Record]], None], save: Write
    ) -> Recovery:
        """Load the newest intact snapshot with ``load``, pass all later commands to ``replay`` in order, and prepare to
        append.

        Damage is reported in the result; everything before it is kept: the resulting state is saved with ``save``, and
        damaged files are renamed. StorageFailed if the disk fails.
        """
        found = Recovery()
        segments = await self._store.segments()
        found.snapshot = self.last = await self._load_snapshot(load, segments, found)
        end, unusable = 0, list[int]()
        for first, after in itertools.zip_longest(segments, segments[1:]):
            if after is not None and after <= self.last + 1:
                continue  # all of it is in the snapshot
            if first > self.last + 1:
                found.damage.append(f"commands {self.last + 1} to {first - 1} are missing")
            if first > self.last + 1 or unusable:
                unusable.append(first)
                continue
            self._segment, problems = first, len(found.damage)
            end = await self._replay_segment(first, replay, found)
            if len(found.damage) > problems:
                unusable.append(first)
        found.last, found.replayed = self.last, self.last - found.snapshot
        if self.under_way is not None:
            known = self.under_way.found_durable
            if known > self.last:
                found.damage.append(f"commands {self.last + 1} to {known} were acknowledged and are not there")
            self.under_way.durable(self.last)
        await self._settle(found, end, unusable, save)
        return found

    async def _load_snapshot(self, load: Callable[[Path], None], segments: Sequence[int], found: Recovery) -> int:
        """Load the newest intact snapshot; DataDamaged if one should exist but does not."""
        bad: dict[int, str] = {}
        good = 0
        for sequence in reversed(self._snapshots.known()):
            self.loading = sequence
            try:
                folder = await self._aside(partial(self._snapshots.find, sequence))
            except DataDamaged as error:
                bad[sequence] = str(error)
                continue
            await self._aside(partial(load, folder))
            good = sequence
            break
        self.loading = 0
        if not good and (segments[0] > 1 if segments else bad):
            what = "; ".join(bad.values()) or "there is no snapshot"
            lacking = f"commands before {segments[0]} are lost" if segments else "the journal is not there"
            raise DataDamaged(f"{what}, and {lacking}", field="data", hint="put back a copy of the data folder")
        for sequence, text in bad.items():
            found.damage.append(f"{text}; it is now {self._snapshots.set_aside(sequence)}")
        return good

    async def _replay_segment(self, first: int, replay: Callable[[Sequence[Record]], None], found: Recovery) -> int:
        """Replay the intact records of a segment after ``last``; returns the number of the last intact one."""
        end, self._checksum = first - 1, first_checksum(first)
        try:
            async with aclosing(self._blocks(first)) as parts:
                async for blocks in parts:
                    self.last = await self._aside(partial(_replayed, blocks, replay, self.last))
                    end, self._checksum = blocks[-1].first + blocks[-1].records - 1, blocks[-1].checksum
        except DataDamaged as error:
            found.damage.append(f"{error}; kept all commands up to {self.last}")
        return end

    async def records(self, first: int) -> AsyncGenerator[list[Record], None]:
        """The records of a segment in order, as far as they are good; then DataDamaged if there is more, but wrong."""
        async with aclosing(self._blocks(first)) as parts:
            async for blocks in parts:
                yield [record for block in blocks for record in unpack(block)]

    async def _blocks(self, first: int) -> AsyncGenerator[Sequence[Block], None]:
        """The same, as blocks; at least one at a time."""
        after, expected, checksum, chunk = first - 1, first, first_checksum(first), CHUNK
        while True:
            try:
                blocks = await self._store.read(first, after, chunk)
            except DataDamaged:
                if chunk == 1:
                    raise
                chunk //= 2  # up to the damage itself
                continue
            good = 0
            for block in blocks:
                checksum = next_checksum(checksum, block.first, block.records, block.body)
                if block.first != expected or block.records < 1 or block.checksum != checksum:
                    break
                after, expected, good = block.first, expected + block.records, good + 1
            if good:
                yield blocks[:good]
            if good < len(blocks):
                raise DataDamaged(f"record {expected} of segment {first} is not what was written", field="data")
            if not blocks:
                return

    async def _settle(self, found: Recovery, end: int, unusable: Sequence[int], save: Write) -> None:
        """Prepare to append after ``last``: in the last segment, if it is intact and ends there."""
        if not unusable and end == self.last and end > 0:
            try:
                await self._store.resume(self._segment, self.last)
            except StorageFailed as error:  # what can be read is served; ``repair`` tries again
                self.broken, found.not_writable = True, error
            return
        if unusable and self.last not in (0, *self._snapshots.known()):
            await self._snapshots.take(self.last, save)
        for first in unusable:
            found.damage.append(f"segment {first} is now {await self._store.set_aside(first)}")
        await self._begin_segment()

    async def _begin_segment(self) -> None:
        """Make the next command the first of a new segment."""
        first = self.last + 1
        await self._store.begin(first)
        self._segment, self._checksum = first, first_checksum(first)

    # appending

    async def append(self, entries: Sequence[Entry]) -> int:
        """Make commands durable, all or none; returns the sequence number of the first.

        StorageFailed: then nothing is acknowledged, ``broken`` is set, and nothing can be appended before ``repair``.
        If the process dies before this returns, a recovery may still find the commands in the journal.
        """
        if self.broken:
            raise StorageFailed("the journal is not writable", field="data", hint="it is retried automatically")
        first, body = self.last + 1, pack(entries)
        block = Block(first, len(entries), body, next_checksum(self._checksum, first, len(entries), body))
        self.broken = True
        await self._store.append(block)
        self.broken = False
        self.last += block.records
        self._checksum = block.checksum
        if self.under_way is not None:
            self.under_way.durable(self.last)
        return first

    async def sync_record(self) -> None:
        """Sync the record of what is durable to disk: it survives the process anyway, then also the machine."""
        if self.under_way is not None:
            await self._files(self.under_way.sync)

    async def repair(self) -> None:
        """After an error: restore the journal to the acknowledged state and prepare to append. StorageFailed if the
        disk still fails."""
        await self._store.resume(self._segment, self.last, room=ROOM)
        self.broken = False

    # snapshots

    async def rotate(self) -> int:
        """Begin a new segment, to take a snapshot of what is before it; returns the snapshot's sequence number.

        StorageFailed if there can be none. The segment before it then goes on, unless ``broken`` is set: the disk
        refuses that too.
        """
        if self._segment != self.last + 1:
            self.broken = True
            try:
                await self._begin_segment()
            except Exception:
                with suppress(Exception):  # then it is still broken
                    await self.repair()
                raise
            self.broken = False
        return self.last

    async def snapshot(
        self, sequence: int, write: Write, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Have ``write`` save the state as it is at the start of this task, which must be that of ``sequence``.
        StorageFailed leaves all as it was. ``compact`` afterwards."""
        if sequence not in await self._files(self._snapshots.known):
            await self._snapshots.take(sequence, write, task_status=task_status)
        else:
            task_status.started()

    async def compact(self) -> None:
        """Delete the snapshots beyond those kept, and segments that only they need. StorageFailed: something is left,
        and the next call tries again."""
        known = await self._files(self._snapshots.known)
        for sequence in known[:-SNAPSHOTS_KEPT]:
            await self._files(partial(self._snapshots.remove, sequence))
        if self._keep_history or len(known) < SNAPSHOTS_KEPT:
            return
        oldest, segments = known[-SNAPSHOTS_KEPT], await self._store.segments()
        for first, after in itertools.pairwise(segments):
            if after <= oldest + 1:
                await self._store.remove(first)

    async def export(self, sequence: int, folder: Path) -> None:
        """Copy a snapshot, checked and synced, into a new data folder, from which a service can start. StorageFailed,
        DataDamaged, InvalidValue if the folder is there and not empty."""
        await self._files(partial(export, self._snapshots, sequence, folder))

    async def close(self) -> None:
        """Give up the files and the folder."""
        try:
            await self._store.close()
        finally:
            if self.under_way is not None:
                self.under_way.close()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1
