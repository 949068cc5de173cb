"""The single writer: a task that owns a deterministic state machine, and journals, applies and answers its commands.

A batch is taken from the queue, journalled in one transaction, and only then applied; the next one is being journalled
meanwhile. Answered commands are therefore durable, and commands that could not be journalled have changed nothing.
Commands that the machine refuses are journalled too: a replay refuses them again, and their order among the others is
on record.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Generic

import trio

from ...placement.types.errors import HostlerError, InvalidValue
from ..errors import LeadershipLost, NotLeader, StateUnknown, Stopped, StorageFailed
from ..failures import Failures, name_of
from ..journal.journal import Record, Recovery
from ..journal.protocol import CommandJournal
from ..machine.replicated import Command, GuardedMachine, Machine, Replayed, Result, unpacked
from ..tasks import background
from ..tracing import span
from .batch import Batch, in_turns, others_turn, slices, write
from .command_queue import BATCH_LIMIT, OWN_LANE, OWN_WAIT, QUEUE_BYTES, QUEUE_LIMIT, USUAL_COST, CommandQueue, Pending
from .idempotent_answers import Answers
from .replaying import Replay, decoded, keep_answer, outcomes_of
from .snapshotting import SnapshotCounts, Snapshotter

ANSWERS_KEPT: Final = 100_000
SNAPSHOT_EVERY: Final = 500_000
"""In commands: about six seconds of replay. While a snapshot begins, commands are delayed by about 50 ms."""
REPAIR_SECONDS: Final = 0.5

log = logging.getLogger("hostler.writer")


class Writer(Generic[Command, Result]):
    """Owner of one machine. ``recover`` once, then ``run`` as a task (``open_writer`` does both). Code in the same
    thread may read the machine between any two awaits: its state is durable then.

    Without a journal everything else is the same, and the state is lost when the process ends.
    """

    def __init__(
        self,
        machine: Machine[Command, Result],
        journal: CommandJournal | None = None,
        *,
        queue_limit: int = QUEUE_LIMIT,
        queue_bytes: int = QUEUE_BYTES,
        batch_limit: int = BATCH_LIMIT,
        answers_kept: int = ANSWERS_KEPT,
        snapshot_every: int = SNAPSHOT_EVERY,
        replayed: Replayed[Command, Result] | None = None,
        failures: Failures | None = None,
    ) -> None:
        self.machine, self.journal, self._replayed = machine, journal, replayed
        self.failures = failures if failures is not None else Failures()
        """Of observers, callbacks and snapshots: none of them ends the writer."""
        self.sequence = 0
        """Number of the last command that was applied."""
        self.observers: list[Callable[[int, Command, Result | HostlerError], None]] = []
        """Called with number, command and outcome of each command once it was applied; their errors are counted."""
        self.batch_observers: list[Callable[[int, float, float], None]] = []
        """Called with the number of commands of each batch, and the seconds that journalling and applying it took."""
        self.writable = False
        """False before ``run``, while the disk fails, and once the writer stops."""
        self.recovered = Recovery()
        """What ``recover`` found."""
        self._answers: Answers[Result] = Answers(answers_kept, machine.encode_result, machine.decode_result)
        self._guard = machine if isinstance(machine, GuardedMachine) else None
        self._queue: CommandQueue[Command, Result] = CommandQueue(queue_limit, queue_bytes, batch_limit, self.failures)
        self._wake = trio.Event()
        self._stopping = False
        self.broken: StorageFailed | None = None
        """The error of the disk, while it fails."""
        self.snapshots = SnapshotCounts()
        self._snapshotter = (
            None
            if journal is None
            else Snapshotter(journal, self._save, self.failures, self.snapshots, every=snapshot_every)
        )
        self._paused: Callable[[], HostlerError] | None = None
        """The error for commands while another member of a cluster takes them."""
        self._idle = trio.Event()
        """Set when nothing is left to be done since ``pause``."""
        self._ended = False
        self._handed: tuple[Sequence[Record], trio.Event] | None = None
        self._at_rest: list[Callable[[], None]] = []

    @property
    def queued(self) -> int:
        """Commands that wait."""
        return self._queue.count

    @property
    def queued_bytes(self) -> int:
        """Length of all commands that are queued or executed."""
        return self._queue.bytes

    # recovery

    async def recover(self) -> Recovery:
        """Bring the machine to the end of the journal. Damage is reported in the result."""
        if self.journal is None:
            return Recovery()
        journal, under_way = self.journal, self.journal.under_way
        replay = Replay(self.machine, self._answers, self._replayed, under_way, journal.folder)
        self.recovered = found = await journal.recover(replay.load, replay.replay, self._save)
        if under_way is not None:
            under_way.end()
        found.set_apart += replay.set_apart
        self.sequence, self.broken = found.last, found.not_writable
        self.snapshots.sequence = found.snapshot
        for text in [*found.damage, *([f"no commands are taken: {self.broken}"] if self.broken else [])]:
            log.error("recovery: %s", text)
        return found

    def _save(self, folder: Path) -> None:
        self.machine.save(folder)
        self._answers.save(folder)

    # submitting

    async def submit(
        self,
        command: Command,
        *,
        key: str | None = None,
        fingerprint: bytes = b"",
        deadline: float | None = None,
        lane: str = OWN_LANE,
    ) -> Result:
        """Submit a command; returns its result, or raises the machine's refusal.

        ``key`` makes repetition safe: the same key gets the first answer, also after a recovery, or KeyReused if its
        ``fingerprint`` differs. ``deadline`` (trio's clock) limits the wait. Overloaded if the queue is full, Stopped,
        StorageFailed and DeadlineExceeded if nothing was done, or as they say. If the caller is cancelled, a command
        that was journalled is still applied, any other is withdrawn. ``lane``: as in ``enqueue``.
        """
        event = trio.Event()
        pending = self.enqueue(
            command, lambda _: event.set(), key=key, fingerprint=fingerprint, deadline=deadline, lane=lane
        )
        try:
            with trio.CancelScope(deadline=float("inf") if deadline is None else deadline) as limit:
                await event.wait()
        except trio.Cancelled:
            self.cancel(pending)
            raise
        if limit.cancelled_caught and pending.state != "done":
            self._queue.give_up(pending)
        if pending.error is not None:
            raise pending.error
        result: Result = unpacked(pending.result)
        return result

    def enqueue(
        self,
        command: Command,
        done: Callable[[Pending[Command, Result]], None],
        *,
        key: str | None = None,
        fingerprint: bytes = b"",
        deadline: float | None = None,
        lane: str = OWN_LANE,
        cost: int = USUAL_COST,
        body: bytes | None = None,
    ) -> Pending[Command, Result]:
        """``submit`` without waiting: ``done`` is called with the pending command once it has its outcome, at once if
        the answer is known. Raises what ``submit`` raises before a command is queued.

        ``lane``: whose command it is. Lanes get equal shares of time; ``cost`` is what this one will take, about, in
        microseconds. ``body``: what ``machine.encode`` makes of the command, if the caller has that.
        """
        if key is not None:
            known = self._answers.get(key, fingerprint)
            if known is not None:
                if self._guard is not None:
                    self._guard.check_needs(command, self._answers.needs(key))
                told: Pending[Command, Result] = Pending(command, b"", done, key, fingerprint, deadline)
                self._queue.tell(told, *known)
                return told
        if not self.writable and (refusal := self.refusal()) is not None:
            raise refusal
        if self._queue.count >= self._queue.limit:
            self._queue.require_place(lane)
        if body is None:
            body = self.machine.encode(command)
        pending = Pending(command, body, done, key, fingerprint, deadline, lane, cost)
        self._queue.add(pending)
        if not self._wake.is_set():
            self._wake.set()
        return pending

    def cancel(self, pending: Pending[Command, Result]) -> bool:
        """Take a command back if it has not been taken from the queue yet. Its ``done`` is then never called."""
        return self._queue.cancel(pending)

    def at_rest(self, work: Callable[[], None]) -> None:
        """Have work done between two batches, when the state is that after the last command that was answered. What it
        raises is counted in ``failures``."""
        self._at_rest.append(work)
        self._wake.set()

    # the task

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until ``stop``, which completes queued commands first. If the task ends in any other way, queued
        commands are answered with Stopped."""
        self.writable = self.broken is None and self._paused is None
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                while self._queue.count or not self._stopping:
                    if self._handed is not None:
                        await self._follow()
                    elif self.broken is not None:
                        await self._repair()
                    elif self._snapshotter is not None and self._snapshotter.is_due(self.sequence):
                        await self._begin_snapshot(nursery, self._snapshotter)
                    elif self._at_rest:
                        self._rest()
                    elif self._queue.count:
                        if self.journal is not None and self._queue.own_alone:
                            await self._gather()
                        await self._serve(nursery)
                    else:
                        self._idle.set()
                        self._wake = trio.Event()
                        await self._wake.wait()
        finally:
            self._ended = True
            self._idle.set()
            self.writable, self._stopping = False, True
            self._queue.refuse_all(lambda: Stopped("the service stopped before the command's turn"))
            if self._snapshotter is not None:
                self._snapshotter.refuse_all(StorageFailed("the service stopped before the snapshot"))

    async def _gather(self) -> None:
        """Have commands of the service itself wait for some of users, to be journalled with them."""
        with trio.move_on_after(OWN_WAIT):
            while self._queue.own_alone and not self._stopping and not self._is_due():
                self._wake = trio.Event()
                await self._wake.wait()

    def stop(self) -> None:
        """Accept no more commands, and end ``run`` once queued ones are answered."""
        self._stopping, self.writable = True, False
        self._wake.set()

    def _rest(self) -> None:
        waiting, self._at_rest = self._at_rest, []
        for work in waiting:
            try:
                work()
            except Exception as error:
                self.failures.failed(name_of(work), error)

    def answered(self, key: str, fingerprint: bytes) -> tuple[Result | None, HostlerError | None] | None:
        """The first answer to a key, if it is known. KeyReused if it was another command's."""
        return self._answers.get(key, fingerprint)

    def refusal(self) -> HostlerError | None:
        """Why commands are refused now; None while they are taken."""
        if self._stopping:
            return Stopped("the service is stopping", hint="ask again when it is back")
        if self._paused is not None:
            return self._paused()
        if self.broken is None:
            return None
        return StorageFailed(f"no writes now: {self.broken.args[0]}", field="data", hint="reads are served")

    # while another member of a cluster takes commands
    async def pause(self, refusal: Callable[[], HostlerError], *, finish: bool = False) -> None:
        """Refuse commands from now on, until ``resume``; returns once none is under way. Those that wait are refused
        too, or with ``finish`` carried out first."""
        self._paused, self.writable = refusal, False
        if self._idle.is_set() and not self._ended:
            self._idle = trio.Event()
        if not finish:
            self.broken = None
            self._queue.refuse_all(refusal)
        self._wake.set()
        await self._idle.wait()

    def resume(self) -> None:
        """Take commands again."""
        self._paused = None
        self.writable = self.broken is None and not self._stopping

    async def follow(self, records: Sequence[Record]) -> None:
        """Carry out commands that another member has journalled, in order, with their observers and answers, while this
        one is paused."""
        done = trio.Event()
        self._handed = (records, done)
        self._wake.set()
        await done.wait()

    async def _follow(self) -> None:
        assert self._handed is not None
        (records, done), self._handed = self._handed, None
        batch: list[Pending[Command, Result]] = [
            Pending(decoded(self.machine, each), b"", lambda _: None, each.key, each.fingerprint, None, state="taken")
            for each in records
        ]
        with trio.CancelScope(shield=True):
            await self._apply(batch)
        done.set()

    async def _begin_snapshot(self, nursery: trio.Nursery, snapshotter: Snapshotter) -> None:
        error = await snapshotter.begin(nursery, lambda: self.sequence, lambda: self._wake.set())
        if error is not None and self.journal is not None and self.journal.broken:
            self._break(error, ())

    async def _serve(self, nursery: trio.Nursery) -> None:
        """Serve batches until there is none, or something else is due. While one is applied, the next one is journalled
        already, unless several users have commands: who comes then would wait for it."""
        if not (pendings := self._queue.take()):
            return
        batch: Batch[Command, Result] | None = await write(Batch(pendings, trio.Event()), self.journal)
        while batch is not None and batch.error is None:
            ahead = None
            if self._queue.count and self._queue.next_alone and self.journal is not None and not self._is_due():
                ahead = Batch(pendings, trio.Event()) if (pendings := self._queue.take()) else None
            with trio.CancelScope(shield=True):  # until what was taken up is answered
                if ahead is not None:
                    nursery.start_soon(write, ahead, self.journal)
                    await trio.lowlevel.checkpoint()  # it begins before this one is applied
                await self._apply_batch(batch)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()  # as in others_turn
                if ahead is not None:
                    await ahead.written.wait()
            batch = ahead
        if batch is not None:
            self._refuse_batch(batch)
        await trio.lowlevel.checkpoint_if_cancelled()

    def _is_due(self) -> bool:
        """True if something is to be done before the next batch, while no command is durable that was not applied."""
        if self._snapshotter is not None and self._snapshotter.is_due(self.sequence):
            return True
        cancelled = trio.current_effective_deadline() == -math.inf
        return cancelled or self._handed is not None or bool(self._at_rest) or self._paused is not None

    def _refuse_batch(self, batch: Batch[Command, Result]) -> None:
        """The journal has not taken a batch. Raises errors that are not the journal's own."""
        match batch:
            case Batch(error=StorageFailed() as error, pendings=pendings):
                self._break(error, pendings)
            case Batch(error=LeadershipLost() as error, pendings=pendings):
                self._deposed(error, pendings)
            case Batch(error=Exception() as error):
                raise error

    async def _apply_batch(self, batch: Batch[Command, Result]) -> None:
        """Apply and answer a batch that is durable."""
        durable, count = time.perf_counter(), len(batch.pendings)
        with span("hostler.apply", commands=count):
            await self._apply(batch.pendings)
        for batch_observer in self.batch_observers:
            try:
                batch_observer(count, batch.seconds, time.perf_counter() - durable)
            except Exception as error:
                self.failures.failed(name_of(batch_observer), error)

    async def _apply(self, batch: Sequence[Pending[Command, Result]]) -> None:
        for number, part in enumerate(slices(batch) if len(batch) > 1 else (batch,)):
            if number:
                await others_turn()
            outcomes = await self._outcomes([pending.command for pending in part])
            self._answer(part, outcomes)

    def _answer(self, part: Sequence[Pending[Command, Result]], outcomes: Sequence[Result | HostlerError]) -> None:
        """Tell observers and callers what became of commands, one command after the other."""
        queue = self._queue
        for pending, outcome in zip(part, outcomes, strict=True):
            command = pending.command
            if pending.key is not None:
                keep_answer(self._answers, self._guard, pending.key, pending.fingerprint, command, outcome)
            sequence = self.sequence + 1
            for observer in self.observers:
                try:
                    observer(sequence, command, outcome)
                except Exception as failure:
                    self.failures.failed(name_of(observer), failure)
            self.sequence = sequence
            tell_one = queue.tell if pending.key is None else queue.finish
            if isinstance(outcome, HostlerError):
                # Its traceback would keep the frames, and hence all commands, of the batch alive.
                outcome.__traceback__ = outcome.__context__ = outcome.__cause__ = None
                tell_one(pending, None, outcome)
            else:
                tell_one(pending, outcome, None)

    async def _outcomes(self, commands: Sequence[Command]) -> Sequence[Result | HostlerError]:
        """Execute commands, recorded as under way meanwhile. StateUnknown for an error that is not an outcome."""
        under_way = None if self.journal is None else self.journal.under_way
        if under_way is not None:
            under_way.begin(self.sequence + 1, self.sequence + len(commands))
        try:
            outcomes = await in_turns(outcomes_of(self.machine, commands))
        except Exception as error:
            first, last = self.sequence + 1, self.sequence + len(commands)
            text = f"a command among {first} to {last} failed, and how far it got is unknown: {error!r}"
            log.critical("%s; the process ends, and the next start recovers the state from the journal", text)
            raise StateUnknown(text) from error
        if under_way is not None:
            under_way.end()
        return outcomes

    # trouble with the disk

    def _break(self, error: StorageFailed, batch: Sequence[Pending[Command, Result]]) -> None:
        """Refuse queued and new commands until the journal is repaired; reads continue."""
        log.error("the journal cannot be written, commands are refused: %s", error)
        self.broken, self.writable = error, False
        text = f"the command was not carried out: {error.args[0]}"
        hint = "should the service die before its disk works again, it may yet be found there: repeat it with its key"
        for pending in batch:
            self._queue.finish(pending, None, StorageFailed(text, field="data", hint=hint))
        self._queue.refuse_all(lambda: StorageFailed(text, field="data"))

    def _deposed(self, error: LeadershipLost, batch: Sequence[Pending[Command, Result]]) -> None:
        """Refuse what was being written, and what waits, until this member leads again or is told to follow."""
        self.broken, self.writable = None, False
        text, hint = str(error.args[0]), "ask again with the same idempotency key"
        self._paused = self._paused or (lambda: NotLeader("this member does not lead any more"))
        for pending in batch:
            self._queue.finish(pending, None, LeadershipLost(text, hint=hint))
        self._queue.refuse_all(self._paused)

    async def _repair(self) -> None:
        assert self.journal is not None
        try:
            with trio.CancelScope(shield=True):
                await self.journal.repair()
        except StorageFailed as error:
            self.broken = error
            await trio.sleep(REPAIR_SECONDS)
            return
        except LeadershipLost as error:
            self._deposed(error, ())
            return
        log.warning("the journal can be written again")
        self.broken, self.writable = None, not self._stopping

    # snapshots

    async def snapshot(self) -> int:
        """Take a snapshot now; returns its sequence number once it is complete. StorageFailed if that fails."""
        if self._snapshotter is None:
            raise StorageFailed("snapshots need a journal, and there is none", field="data", hint="give a folder")
        if self._stopping:
            raise Stopped("the service is stopping")
        if self.broken is not None:
            raise StorageFailed(f"no writes now: {self.broken.args[0]}", field="data")
        return await self._snapshotter.ask(self._wake.set)

    async def backup(self, folder: Path) -> int:
        """Copy a snapshot of now into a new folder; returns its sequence number. StorageFailed, DataDamaged,
        InvalidValue for a folder that is not empty, or no absolute path."""
        if not folder.is_absolute() or "\0" in str(folder):
            raise InvalidValue(f"{str(folder)!r} is no absolute path", field="folder")
        sequence = await self.snapshot()
        assert self.journal is not None
        await self.journal.export(sequence, folder)
        return sequence


@asynccontextmanager
async def open_writer(
    machine: Machine[Command, Result],
    journal: CommandJournal | None = None,
    replayed: Replayed[Command, Result] | None = None,
    failures: Failures | None = None,
    /,
    **limits: int,
) -> AsyncIterator[Writer[Command, Result]]:
    """A writer that has recovered and runs; at the end it executes queued commands and closes the journal."""
    writer: Writer[Command, Result] = Writer(machine, journal, replayed=replayed, failures=failures, **limits)
    try:
        await writer.recover()
        async with background() as nursery:
            await nursery.start(writer.run)
            try:
                yield writer
            finally:
                writer.stop()
    finally:
        if journal is not None:
            with trio.CancelScope(shield=True):
                await journal.close()
