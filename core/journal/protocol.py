"""What the writer needs of a journal. There are two: ``journal.Journal`` on SQLite files, and
``etcd_journal.EtcdJournal`` on an etcd cluster, which several members follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import trio

from .journal import Entry, Record, Recovery
from .progress import UnderWay
from .snapshots import Write


class CommandJournal(Protocol):
    """Commands in order, in blocks that become durable together, with snapshots. First ``recover``, then ``append``;
    one task at a time."""

    folder: Path | None
    under_way: UnderWay | None
    last: int
    """Sequence number of the last command that is durable and known here."""
    loading: int
    """Sequence number of the snapshot that is being loaded, 0 if none is."""
    broken: bool
    """True after an error, until ``repair`` has succeeded."""

    @property
    def snapshot_is_due(self) -> bool:
        """True where the journal itself wants a snapshot: what is behind the last one takes too much room."""

    async def recover(
        self, load: Callable[[Path], None], replay: Callable[[Sequence[Record]], None], save: Write
    ) -> Recovery:
        """Load the newest intact snapshot with ``load``, and pass all later commands to ``replay`` in order."""

    async def append(self, entries: Sequence[Entry]) -> int:
        """Make commands durable, all or none; returns the sequence number of the first. StorageFailed: nothing is
        acknowledged, and ``repair`` comes before the next append. LeadershipLost: another member may write now."""

    async def repair(self) -> None:
        """After an error: prepare to append again. StorageFailed if that is not possible yet, LeadershipLost."""

    async def rotate(self) -> int:
        """Prepare to take a snapshot of what there is; returns its sequence number. StorageFailed."""

    async def snapshot(
        self, sequence: int, write: Write, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Have ``write`` save the state as it is at the start of this task, which must be that of ``sequence``.
        StorageFailed."""

    async def compact(self) -> None:
        """Delete what no snapshot that is kept needs. StorageFailed."""

    async def export(self, sequence: int, folder: Path) -> None:
        """Copy a snapshot into a new data folder. StorageFailed, DataDamaged, InvalidValue."""

    async def sync_record(self) -> None:
        """Sync the record of what is durable to disk."""

    async def close(self) -> None:
        """Give up everything. May be called twice."""
