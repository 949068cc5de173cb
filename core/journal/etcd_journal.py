"""The journal of a cluster: blocks in etcd, which one member appends to and the others follow, and snapshots in a
folder of each member's own.

Every write is one transaction that holds only if the writer's leader key is the one it was elected with, and the end of
the journal is where the writer knows it: a member that has lost its lease writes nothing, however long it has slept.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import trio

from ...placement.types.errors import InvalidValue
from ..errors import DataDamaged, LeadershipLost, StorageFailed, UnreadableCommand
from ..etcd.client import Etcd
from ..etcd.errors import EtcdDenied, EtcdError, EtcdFull, EtcdRefused, EtcdUnavailable
from ..etcd.telling import OnceInAWhile
from ..etcd.values import Answer, KeyValue, Request, created_at, delete, end_of, get, modified_at, put
from ..tasks import Aside, at_once, background, in_threads_of
from .compression import compressed, restored
from .etcd_keys import FORMAT, BlockValue, ClusterKey, Head, Keys, decode, encode
from .journal import (
    FILE_THREADS,
    SNAPSHOTS_KEPT,
    Entry,
    Record,
    Recovery,
    first_checksum,
    locked_folder,
    next_checksum,
    pack,
    unpack,
)
from .leadership import Leadership
from .progress import UnderWay
from .read_ahead import FIRST_BLOCKS, next_read
from .snapshots import SnapshotFolder, Write, export, sync
from .store import Block

PART: Final = 1 << 20
"""Bytes of a block in one request: etcd takes 1.5 MiB, in base64 of the gateway and as they are."""
SNAPSHOT_BYTES: Final = 256 << 20
"""Of blocks behind a member's newest snapshot, at which it takes the next one."""
RETRY_SECONDS: Final = 0.5
WRITE_SECONDS: Final = 1.0
"""For the first attempt to write; each one after it has twice as long, as far as the lease lasts."""
UNWRITTEN_SECONDS: Final = 6.0
"""For which a leader goes on although etcd answers nothing that it writes, and renews its lease."""
CLUSTER_FILE: Final = "cluster"
_T = TypeVar("_T")

log = logging.getLogger("hostler.journal")


class Tail(NamedTuple):
    """What one read of the journal's end has found: the end as it was then, the next blocks, the keys that are watched
    by name, and the revision of all that."""

    head: Head
    head_modified: int
    blocks: list[Block]
    control: dict[str, KeyValue]
    revision: int


class EtcdJournal:
    """One member's view of the journal. ``leadership`` set: this member appends."""

    def __init__(
        self, etcd: Etcd, prefix: str, folder: Path, *, lock: int = -1, aside: Aside = at_once, files: Aside = at_once
    ) -> None:
        self.etcd, self.keys = etcd, Keys(prefix)
        self.folder: Path | None = folder
        self._folder, self._lock, self._aside, self._files = folder, lock, aside, files
        self.snapshots = SnapshotFolder(folder, files)
        self.under_way: UnderWay | None = UnderWay(folder)
        self.last = self.loading = 0
        self.broken = False
        self.leadership: Leadership | None = None
        self.cluster = ClusterKey("")
        self.compress = False
        """True: blocks that are appended are compressed. A leader begins with False."""
        self.committed: Callable[[float], None] = lambda seconds: None
        """Called with the seconds of each append."""
        self.fetch: Callable[[int], Awaitable[int]] | None = None
        """Fetches a snapshot of at least this command from another member; returns its number."""
        self.snapshot_bytes = SNAPSHOT_BYTES
        self._bytes = self._snapshot_at = 0
        """Bytes of blocks behind the newest snapshot, and its number."""
        self._checksum: int | None = None
        """Of the last block; None: not known yet, because a snapshot was loaded."""
        self._head, self._head_modified = Head(0, 0, first_checksum(1), 0), 0
        self._read_blocks = FIRST_BLOCKS
        self.trouble: EtcdError | None = None
        """Why etcd did not do what this member asked it for last, beside the journal's own reads and writes."""
        self._warnings = OnceInAWhile(log)

    @classmethod
    def in_folder(
        cls, folder: str | os.PathLike[str], etcd: Etcd, prefix: str, *, aside: Aside = at_once
    ) -> EtcdJournal:
        """The journal below a prefix, with this member's snapshots in a folder, which is created if missing and locked
        until ``close``. DataInUse, StorageFailed; InvalidValue for a folder that holds a journal of its own."""
        path = Path(folder)
        lock = locked_folder(path)
        if next(path.glob("journal-*.sqlite"), None) is not None:
            os.close(lock)
            hint = "start from a copy that `hostler backup` makes: it holds a snapshot only"
            raise InvalidValue(f"{path} holds a journal of its own, in SQLite", field="data.folder", hint=hint)
        files = in_threads_of(trio.CapacityLimiter(FILE_THREADS))
        journal = cls(etcd, prefix, path, lock=lock, aside=aside, files=files)
        journal.snapshots.tidy()
        return journal

    @property
    def newest_snapshot(self) -> int:
        """Number of the newest snapshot here."""
        return self._snapshot_at

    @property
    def snapshot_is_due(self) -> bool:
        return self._bytes >= self.snapshot_bytes

    # recovery

    async def recover(
        self, load: Callable[[Path], None], replay: Callable[[Sequence[Record]], None], save: Write
    ) -> Recovery:
        """Load the newest snapshot here, or another member's where blocks behind it are gone, and replay all that is in
        etcd. Waits for an etcd that is not there. DataDamaged, and InvalidValue where the folder or etcd belongs to
        another cluster."""
        found = Recovery()
        await self._join()
        head = await self._patiently(self._read_head)
        found.snapshot = self.last = self._snapshot_at = await self._load_newest(load, head, found)
        while True:
            tail = await self._patiently(self.tail)
            if not tail.blocks:
                if self.last < tail.head.last:
                    raise DataDamaged(f"block {self.last + 1} is missing in etcd", field="data.etcd.prefix")
                break
            records = [record for block in tail.blocks for record in unpack(block)]
            await self._aside(partial(replay, records))
            self.took(tail.blocks)
            del tail, records  # before the next ones come
        found.last, found.replayed = self.last, self.last - found.snapshot
        assert self.under_way is not None
        if self.under_way.found_durable > self.last:
            raise DataDamaged(
                f"commands up to {self.under_way.found_durable} were known here, and etcd ends at {self.last}",
                field="data.etcd.prefix",
                hint="was etcd restored from an old copy? remove this member's data folder to accept the loss",
            )
        self.under_way.durable(self.last)
        return found

    async def _join(self) -> None:
        """Create the cluster, or check that this folder is one of its members'."""
        keys = self.keys
        known = self.snapshots.known()
        newest = known[-1] if known else 0
        new = ClusterKey(secrets.token_hex(8), FORMAT, secrets.token_urlsafe(32))
        head = Head(newest, 0, first_checksum(newest + 1), 0, newest + 1)
        file = self._folder / CLUSTER_FILE
        mine = file.read_text(encoding="utf-8").strip() if file.exists() else ""

        async def create() -> ClusterKey:
            then = [get(keys.cluster)]
            if not mine:
                then = [put(keys.cluster, encode(new)), put(keys.head, encode(head)), get(keys.cluster)]
            answer = await self.etcd.transaction([created_at(keys.cluster, 0)], then, [get(keys.cluster)])
            for item in answer.found[-1]:
                return decode(item.value, ClusterKey, keys.cluster)
            problem = f"the data folder belongs to cluster {mine}, and etcd knows of none below {keys.prefix}"
            raise InvalidValue(problem, field="data.etcd.prefix", hint="name its prefix, or restore etcd")

        self.cluster = cluster = await self._patiently(create)
        if cluster.format > FORMAT:
            text = f"the keys in etcd have format {cluster.format}, this Hostler reads up to {FORMAT}"
            raise UnreadableCommand(text, field="data.etcd.prefix", hint="upgrade this member")
        stranger = mine != cluster.name if mine else bool(known) and cluster.name != new.name
        if stranger:
            problem = f"the data folder belongs to {mine or 'no cluster'}, and {keys.prefix} is cluster {cluster.name}"
            raise InvalidValue(problem, field="data.folder", hint="begin with an empty folder: all is fetched")
        if not mine:
            await self._files(partial(_write_whole, file, cluster.name + "\n"))

    async def _load_newest(self, load: Callable[[Path], None], head: Head, found: Recovery) -> int:
        """Load the newest intact snapshot behind which all blocks are there; its number. One of another member is
        fetched where there is none here."""
        for sequence in reversed(self.snapshots.known()):
            if sequence > head.last:
                problem = f"snapshot {sequence} is newer than the journal in etcd, which ends at {head.last}"
                raise DataDamaged(problem, field="data.etcd.prefix", hint="was etcd restored from an old copy?")
            if not await self._patiently(partial(self.continues, sequence)):
                break
            try:
                folder = await self._aside(partial(self.snapshots.find, sequence))
            except DataDamaged as error:
                found.damage.append(f"{error}; it is now {self.snapshots.set_aside(sequence)}")
                continue
            try:
                return await self._load(load, sequence, folder)
            except DataDamaged as error:  # a part of it may be loaded: this process begins with nothing else
                problem = f"{error}; it is now {self.snapshots.set_aside(sequence)}"
                raise DataDamaged(
                    problem, field="data.folder", hint="start again: the next start does without"
                ) from error
        if await self._patiently(partial(self.continues, 0)):
            return 0
        if self.fetch is None:
            problem = "the blocks behind this member's snapshots are gone"
            raise DataDamaged(problem, field="data.folder", hint="a snapshot of another member is needed")
        fetched = await self.fetch(await self._patiently(self._oldest))
        return await self._load(load, fetched, await self._aside(partial(self.snapshots.find, fetched)))

    async def _load(self, load: Callable[[Path], None], sequence: int, folder: Path) -> int:
        self.loading = sequence
        try:
            await self._aside(partial(load, folder))
        finally:
            self.loading = 0
        return sequence

    async def continues(self, sequence: int) -> bool:
        """True if the block behind a command is there, or that command is the last one. EtcdError."""
        answer = await self.etcd.transaction((), [get(self.keys.head), get(self.keys.block(sequence + 1))])
        head = decode(answer.found[0][0].value, Head, self.keys.head)
        return bool(answer.found[1]) or head.last == sequence

    async def _read_head(self) -> Head:
        item = await self.etcd.read(self.keys.head)
        if item is None:
            raise DataDamaged(f"there is no journal below {self.keys.prefix} any more", field="data.etcd.prefix")
        return decode(item.value, Head, item.key)

    async def _oldest(self) -> int:
        """Number of the command behind which all blocks are there."""
        blocks = self.keys.blocks
        answer = await self.etcd.transaction((), [get(self.keys.head), get(blocks, end_of(blocks), limit=1)])
        if answer.found[1]:
            return int(answer.found[1][0].key.removeprefix(blocks)) - 1
        return decode(answer.found[0][0].value, Head, self.keys.head).last

    async def _patiently(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Have something done, as soon as etcd is there, has room, and takes this member for a user."""
        while True:
            try:
                done = await work()
                self.trouble = None
                return done
            except (EtcdUnavailable, EtcdFull, EtcdDenied) as error:
                self.trouble = error
                self._warnings.warning("this member waits for etcd: %s", error, about=error.code)
            await trio.sleep(RETRY_SECONDS)

    # following

    async def tail(self) -> Tail:
        """The end of the journal now, and the next blocks. DataDamaged where they do not continue what is known here;
        EtcdError."""
        keys = self.keys
        wanted = [
            get(keys.control, end_of(keys.control)),
            get(keys.block(self.last + 1), end_of(keys.blocks), limit=self._read_blocks),
        ]
        try:
            answer = await self.etcd.transaction((), wanted)
        except (EtcdUnavailable, EtcdRefused) as error:
            if self._read_blocks == 1:
                raise
            self._read_blocks //= 2  # large blocks: the answer may have been too long, or too late
            raise EtcdUnavailable(f"the journal could not be read: {error}") from error
        control = {item.key: item for item in answer.found[0]}
        if keys.head not in control:
            raise DataDamaged(f"there is no journal below {keys.prefix} any more", field="data.etcd.prefix")
        head = decode(control[keys.head].value, Head, keys.head)
        blocks = [await self._block(item) for item in answer.found[1]]
        self._check(blocks)
        self._read_blocks = next_read(self._read_blocks, blocks)
        return Tail(head, control[keys.head].modified, blocks, control, answer.revision)

    async def _block(self, item: KeyValue) -> Block:
        value = decode(item.value, BlockValue, item.key)
        first, body = int(item.key.removeprefix(self.keys.blocks)), value.body
        if value.parts:
            parts = []
            for number in range(value.parts):
                part = await self.etcd.read(self.keys.part(first, value.term, number))
                if part is None:
                    raise DataDamaged(f"a part of block {first} is missing in etcd", field="data.etcd.prefix")
                parts.append(part.value)
            body = b"".join([*parts, body])
        if value.length:
            body = await restored(body, value.length, item.key)
        if next_checksum(value.before, first, value.records, body) != value.checksum:
            raise DataDamaged(f"block {first} in etcd is not what was written", field="data.etcd.prefix")
        if self._checksum is None and first == self.last + 1:
            self._checksum = value.before
        return Block(first, value.records, body, value.checksum)

    def _check(self, blocks: Sequence[Block]) -> None:
        """DataDamaged unless blocks are those behind what is known here, each behind the one before."""
        last, checksum = self.last, self._checksum
        for block in blocks:
            if block.first != last + 1:
                raise DataDamaged(f"commands {last + 1} to {block.first - 1} are gone from etcd", field="data.folder")
            if checksum is not None and block.checksum != next_checksum(
                checksum, block.first, block.records, block.body
            ):
                raise DataDamaged(f"block {block.first} does not follow what this member has", field="data.folder")
            last, checksum = last + block.records, block.checksum

    def took(self, blocks: Sequence[Block]) -> None:
        """Blocks that ``tail`` has found were carried out."""
        for block in blocks:
            self.last += block.records
            self._checksum = block.checksum
            self._bytes += len(block.body)
        if self.under_way is not None:
            self.under_way.durable(self.last)

    # leading

    def lead(self, leadership: Leadership, tail: Tail) -> None:
        """Append from now on, behind the end that ``tail`` has found, which must have been carried out here."""
        assert tail.head.last == self.last, "a leader has carried out all that there is"
        self.leadership = leadership
        self._head, self._head_modified = tail.head, tail.head_modified
        self._checksum = tail.head.checksum
        self.broken = self.compress = False

    def stop_leading(self) -> None:
        """Append no more."""
        self.leadership = None
        self.broken = False

    async def append(self, entries: Sequence[Entry]) -> int:
        lead = self._leading()
        first, body = self.last + 1, pack(entries)
        assert self._checksum is not None
        checksum, began = next_checksum(self._checksum, first, len(entries), body), time.perf_counter()
        head = Head(first + len(entries) - 1, first, checksum, lead.term, self._head.begun)
        self.broken = True
        short = await compressed(body) if self.compress else None
        pieces = list(_pieces(body if short is None else short))
        for number, piece in enumerate(pieces[:-1]):
            await self._write([put(self.keys.part(first, lead.term, number), piece)], None)
        length = 0 if short is None else len(body)
        value = BlockValue(len(entries), checksum, self._checksum, pieces[-1], len(pieces) - 1, lead.term, length)
        await self._write([put(self.keys.block(first), encode(value)), put(self.keys.head, encode(head))], head)
        self.broken = False
        self.took([Block(first, len(entries), body, checksum)])
        self.committed(time.perf_counter() - began)
        return first

    async def repair(self) -> None:
        """Write the end of the journal again as it is: then no transaction that failed can still be carried out."""
        await self._write([put(self.keys.head, encode(self._head))], self._head)
        self.broken = False

    def _leading(self) -> Leadership:
        if self.leadership is None or self.leadership.left <= 0:
            raise LeadershipLost("this member does not lead any more, and the command was not written")
        return self.leadership

    async def _write(self, then: Sequence[Request], head: Head | None) -> None:
        """Write while this member leads and the end is where it knows it; ``head``: the end afterwards, if it is moved.
        Sent again until the outcome is known, or the lease may have ended. StorageFailed: nothing was written."""
        lead, keys, uncertain = self._leading(), self.keys, False
        holds = [created_at(keys.leader, lead.term), modified_at(keys.head, self._head_modified)]
        began, patience = trio.current_time(), WRITE_SECONDS
        while True:
            if lead.left <= 0:
                lead.lose("etcd could not be reached before the lease's end")
                raise LeadershipLost("etcd could not be reached in time: the command may have been carried out")
            if trio.current_time() - began > UNWRITTEN_SECONDS:
                lead.give_up("etcd renewed its lease, and answered nothing that it wrote")
                raise LeadershipLost("etcd did not answer in time: the command may have been carried out")
            try:
                answer = await self._written_once(lead, holds, then, patience)
            except EtcdUnavailable as error:
                self._warnings.warning("a block is sent again, as etcd has not answered: %s", error)
                uncertain, patience = True, 2 * patience
                await trio.sleep(min(0.02, max(lead.left, 0)))
                continue
            except EtcdError as error:
                if uncertain:
                    lead.lose(f"the outcome of a write is not known: {error}")
                    raise LeadershipLost("the command may have been carried out") from error
                text = f"the journal cannot be written: {error.args[0]}"
                raise StorageFailed(text, field="data.etcd", hint=error.hint) from error
            if answer.succeeded:
                modified = answer.revision
                break
            leader, end = answer.found
            if head is not None and end and end[0].value == encode(head) and end[0].modified != self._head_modified:
                modified = end[0].modified  # the answer to an earlier attempt was lost
                break
            deposed = not leader or leader[0].created != lead.term
            lead.lose("another member was elected" if deposed else "the end of the journal has moved")
            raise LeadershipLost("another member leads now, and the command was not written")
        if head is not None:
            self._head, self._head_modified = head, modified

    async def _written_once(
        self, lead: Leadership, holds: Sequence[Request], then: Sequence[Request], patience: float
    ) -> Answer:
        """One attempt to write. EtcdUnavailable after so many seconds, or once the lease, which may be renewed
        meanwhile, has ended."""
        found = [get(self.keys.leader), get(self.keys.head)]
        if patience <= WRITE_SECONDS:
            return await self.etcd.transaction(holds, then, found, within=min(lead.left, patience), repeat=False)
        async with background() as nursery:

            async def end_with_lease() -> None:
                await lead.over()
                nursery.cancel_scope.cancel()

            nursery.start_soon(end_with_lease)
            try:
                return await self.etcd.transaction(holds, then, found, within=patience, repeat=False, attempt=patience)
            finally:
                nursery.cancel_scope.cancel()
        raise EtcdUnavailable("the lease has ended")

    async def drop(self, sequence: int) -> None:
        """Delete the blocks up to a command, behind which every member has a snapshot. EtcdError, LeadershipLost."""
        keys, lead = self.keys, self._leading()
        gone = [
            delete(keys.blocks, keys.block(sequence + 1)),
            delete(keys.parts, keys.parts_behind(sequence + 1)),
        ]
        await self.etcd.transaction([created_at(keys.leader, lead.term)], gone)

    # snapshots

    async def rotate(self) -> int:
        return self.last

    async def snapshot(
        self, sequence: int, write: Write, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        taken = self._bytes
        if sequence not in await self._files(self.snapshots.known):
            await self.snapshots.take(sequence, write, task_status=task_status)
        else:
            task_status.started()
        self._bytes, self._snapshot_at = max(self._bytes - taken, 0), sequence

    async def compact(self) -> None:
        known = await self._files(self.snapshots.known)
        for sequence in known[:-SNAPSHOTS_KEPT]:
            await self._files(partial(self.snapshots.remove, sequence))

    async def export(self, sequence: int, folder: Path) -> None:
        await self._files(partial(export, self.snapshots, sequence, folder))

    async def sync_record(self) -> None:
        if self.under_way is not None:
            await self._files(self.under_way.sync)

    async def close(self) -> None:
        await self.etcd.close()
        if self.under_way is not None:
            self.under_way.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, whenever the machine stops. StorageFailed."""
    new = path.with_suffix(".tmp")
    try:
        new.write_text(text, encoding="utf-8")
        sync(new)
        new.rename(path)
        sync(path.parent)
    except OSError as error:
        raise StorageFailed(f"{path} cannot be written: {error}", field="data.folder") from error


def _pieces(body: bytes) -> Iterator[bytes]:
    """Consecutive parts of a block, at least one."""
    yield body[:PART]
    for start in range(PART, len(body), PART):
        yield body[start : start + PART]
