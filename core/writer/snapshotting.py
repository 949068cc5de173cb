"""Takes a writer's snapshots: when one is due or asked for, and what those who wait for it are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from ..errors import StorageFailed
from ..failures import Failures
from ..journal.protocol import CommandJournal
from ..journal.snapshots import Write

SNAPSHOT_RETRY_SECONDS: Final = 60.0
"""Between a snapshot that failed and the next one that is taken without being asked for."""
_Wanted = Sequence[trio.MemorySendChannel[int | StorageFailed]]


class SnapshotCounts:
    """What became of the snapshots of this process."""

    def __init__(self) -> None:
        self.completed = self.failed = 0
        self.sequence = 0
        """Of the newest complete one, also of those before this process; 0 if there is none."""
        self.at = time.monotonic()
        """When that was complete; the start of the process, if none was in it."""

    def taken(self, sequence: int) -> None:
        """A snapshot is complete."""
        self.completed += 1
        self.sequence, self.at = max(self.sequence, sequence), time.monotonic()


class Snapshotter:
    """One at a time, each written by a child while the writer goes on. ``save`` writes the state as it is."""

    def __init__(
        self, journal: CommandJournal, save: Write, failures: Failures, counts: SnapshotCounts, *, every: int
    ) -> None:
        self._journal, self._save, self._failures, self._counts, self._every = journal, save, failures, counts, every
        self._wanted: list[trio.MemorySendChannel[int | StorageFailed]] = []
        self._under_way = False
        self._not_before = -float("inf")
        """On trio's clock: when a snapshot may be tried again by itself after one that failed."""

    async def ask(self, wake: Callable[[], None]) -> int:
        """Have one taken now; its sequence number once it is complete. StorageFailed."""
        send, receive = trio.open_memory_channel[int | StorageFailed](1)
        self._wanted.append(send)
        wake()
        outcome = await receive.receive()
        if isinstance(outcome, StorageFailed):
            raise outcome
        return outcome

    def is_due(self, sequence: int) -> bool:
        """True if one is to begin now. O(1)."""
        if self._under_way:
            return False
        if self._wanted:
            return True
        due = sequence - self._counts.sequence >= self._every or self._journal.snapshot_is_due
        return due and trio.current_time() >= self._not_before

    async def begin(
        self, nursery: trio.Nursery, sequence: Callable[[], int], wake: Callable[[], None]
    ) -> StorageFailed | None:
        """Start a snapshot of the current state, whose number is ``sequence()``; ``wake`` is called at its end. Returns
        the error for which there is none."""
        wanted, self._wanted = self._wanted, []
        self._under_way = True
        try:
            with trio.CancelScope(shield=True):
                await self._journal.rotate()
        except Exception as error:
            self._under_way = False
            return self._failed(error, wanted)
        await nursery.start(self._take, wanted, sequence(), wake)
        return None

    def refuse_all(self, error: StorageFailed) -> None:
        """Tell those who wait for a snapshot that there will be none."""
        _tell(self._wanted, error)

    async def _take(
        self, wanted: _Wanted, sequence: int, wake: Callable[[], None], *, task_status: trio.TaskStatus[None]
    ) -> None:
        started = _Started(task_status)
        try:
            await self._journal.snapshot(sequence, self._save, task_status=started)
        except Exception as error:
            self._failed(error, wanted)
        else:
            self._counts.taken(sequence)
            self._failures.works("snapshot")
            _tell(wanted, sequence)
            await self._compact()
        finally:
            started.started()
            self._under_way = False
            wake()

    def _failed(self, error: Exception, wanted: _Wanted) -> StorageFailed:
        """Tell those who asked, and return what they are told; the journal stays as it is, and the next attempt comes
        after SNAPSHOT_RETRY_SECONDS."""
        self._not_before = trio.current_time() + SNAPSHOT_RETRY_SECONDS
        self._counts.failed += 1
        self._failures.failed("snapshot", error)
        if not isinstance(error, StorageFailed):
            error = StorageFailed(f"no snapshot: {error or type(error).__name__}", field="data")
        _tell(wanted, error)
        return error

    async def _compact(self) -> None:
        try:
            await self._journal.compact()
        except Exception as error:
            self._failures.failed("deletion of old snapshots and segments", error)
        else:
            self._failures.works("deletion of old snapshots and segments")


class _Started(trio.TaskStatus[None]):
    """A task status whose ``started`` may be called several times."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self._status, self._told = status, False

    def started(self, value: None = None) -> None:
        if not self._told:
            self._told = True
            self._status.started()


def _tell(wanted: _Wanted, outcome: int | StorageFailed) -> None:
    for channel in wanted:
        channel.send_nowait(outcome)
