"""The single writer: a task that owns a deterministic state machine, and journals, applies and answers its commands.

A batch is taken from the queue, journalled in one transaction, and only then applied. Answered commands are therefore
durable, and commands that could not be journalled have changed nothing. Commands that the machine refuses are
journalled too: a replay refuses them again, and their order among the others is on record.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Generic

import trio

from ...placement.types.errors import HostlerError
from ..errors import InternalError, Stopped, StorageFailed, UnreadableCommand
from ..journal.journal import Entry, Journal, Record, Recovery
from ..machine.replicated import BatchMachine, Command, GuardedMachine, Machine, Replayed, Result, finished
from ..tasks import background
from ..tracing import span
from .command_queue import BATCH_LIMIT, QUEUE_BYTES, QUEUE_LIMIT, CommandQueue, Pending
from .idempotent_answers import Answers

SLICE: Final = 64
"""Commands applied at a time; between slices readers get their turn."""
ANSWERS_KEPT: Final = 100_000
SNAPSHOT_EVERY: Final = 500_000
"""Commands: as many as are carried out again in some six seconds. While one begins, commands are late by some 50 ms."""
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
        journal: Journal | None = None,
        *,
        queue_limit: int = QUEUE_LIMIT,
        queue_bytes: int = QUEUE_BYTES,
        batch_limit: int = BATCH_LIMIT,
        answers_kept: int = ANSWERS_KEPT,
        snapshot_every: int = SNAPSHOT_EVERY,
        replayed: Replayed[Command, Result] | None = None,
    ) -> None:
        self.machine, self.journal, self._replayed = machine, journal, replayed
        self.sequence = 0
        """Number of the last command that was applied."""
        self.observers: list[Callable[[int, Command, Result | HostlerError], None]] = []
        """Called with sequence number, command and outcome of each command, immediately after it was applied."""
        self.batch_observers: list[Callable[[int, float, float], None]] = []
        """Called with the number of commands of each batch, and the seconds that journalling and applying it took."""
        self.writable = False
        """False before ``run``, while the disk fails, and once the writer stops."""
        self.recovered = Recovery()
        """What ``recover`` found."""
        self._snapshot_every = snapshot_every
        self._answers: Answers[Result] = Answers(answers_kept, machine.encode_result, machine.decode_result)
        self._guard = machine if isinstance(machine, GuardedMachine) else None
        self._queue: CommandQueue[Command, Result] = CommandQueue(queue_limit, queue_bytes, batch_limit)
        self._wake = trio.Event()
        self._stopping = False
        self.broken: StorageFailed | None = None
        """The error of the disk, while it fails."""
        self._snapshot_at = 0
        self._snapshotting = False
        self._snapshot_wanted: list[trio.MemorySendChannel[int | StorageFailed]] = []

    @property
    def queued(self) -> int:
        """Commands that wait."""
        return len(self._queue)

    @property
    def queued_bytes(self) -> int:
        """Length of all commands that wait or are being carried out."""
        return self._queue.bytes

    # recovery

    async def recover(self) -> Recovery:
        """Bring the machine to the end of the journal. Damage is reported in the result."""
        if self.journal is None:
            return Recovery()
        self.recovered = found = await self.journal.recover(self._load, self._replay, self._save)
        self.sequence, self._snapshot_at = found.last, found.snapshot
        for text in found.damage:
            log.error("recovery: %s", text)
        return found

    def _load(self, folder: Path) -> None:
        self.machine.load(folder)
        self._answers.load(folder)

    def _save(self, folder: Path) -> None:
        self.machine.save(folder)
        self._answers.save(folder)

    def _replay(self, records: Sequence[Record]) -> None:
        told_after = float("inf") if self._replayed is None else self._replayed.after
        commands = [self._decoded(record) for record in records]
        wanted = [each.key is not None or each.sequence > told_after for each in records]
        for record, command, outcome in zip(records, commands, finished(self._outcomes(commands, wanted)), strict=True):
            if record.key is not None:
                self._keep(record.key, record.fingerprint, command, outcome)
            if self._replayed is not None and record.sequence > told_after:
                self._replayed.observer(record.sequence, command, outcome)

    def _keep(self, key: str, fingerprint: bytes, command: Command, outcome: Result | HostlerError) -> None:
        """Keep an answer for those who repeat the command."""
        needs = None if self._guard is None else self._guard.needs(command)
        self._answers.put(key, fingerprint, outcome, needs)

    def _decoded(self, record: Record) -> Command:
        try:
            return self.machine.decode(record.body)
        except Exception as error:
            text = f"command {record.sequence} of the journal is whole, but this Hostler cannot read it: {error}"
            raise UnreadableCommand(text, field="data", hint="use the Hostler that wrote it, or upgrade") from error

    # submitting

    async def submit(
        self, command: Command, *, key: str | None = None, fingerprint: bytes = b"", deadline: float | None = None
    ) -> Result:
        """Submit a command; returns its result, or raises the machine's refusal.

        ``key`` makes repetition safe: the same key gets the first answer, also after a recovery, or KeyReused if its
        ``fingerprint`` differs. ``deadline`` (trio's clock) limits the wait. Overloaded if the queue is full, Stopped,
        StorageFailed and DeadlineExceeded if nothing was done, or as they say. If the caller is cancelled, a command
        that was journalled is still applied, any other is withdrawn.
        """
        event = trio.Event()
        pending = self.enqueue(command, lambda _: event.set(), key=key, fingerprint=fingerprint, deadline=deadline)
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
        result: Result = pending.result  # type: ignore[assignment]  # no error, so there is a result
        return result

    def enqueue(
        self,
        command: Command,
        done: Callable[[Pending[Command, Result]], None],
        *,
        key: str | None = None,
        fingerprint: bytes = b"",
        deadline: float | None = None,
    ) -> Pending[Command, Result]:
        """``submit`` without waiting: ``done`` is called with the pending command once it has its outcome, immediately
        if the answer is stored. Raises what ``submit`` raises before a command is queued."""
        if key is not None:
            known = self._answers.get(key, fingerprint)
            if known is not None:
                if self._guard is not None:
                    self._guard.check_needs(command, self._answers.needs(key))
                told: Pending[Command, Result] = Pending(command, b"", done, key, fingerprint, deadline)
                self._queue.tell(told, *known)
                return told
        if self._stopping:
            raise Stopped("the service is stopping", hint="ask again when it is back")
        if self.broken is not None:
            raise StorageFailed(f"no writes now: {self.broken.args[0]}", field="data", hint="reads are served")
        self._queue.require_place()
        pending = Pending(command, self.machine.encode(command), done, key, fingerprint, deadline)
        self._queue.add(pending)
        if not self._wake.is_set():
            self._wake.set()
        return pending

    def cancel(self, pending: Pending[Command, Result]) -> bool:
        """Take a command back if it has not been taken from the queue yet. Its ``done`` is then never called."""
        return self._queue.cancel(pending)

    # the task

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until ``stop``, which completes queued commands first. If the task ends in any other way, queued
        commands are answered with Stopped."""
        self.writable = True
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                while self._queue or not self._stopping:
                    if self.broken is not None:
                        await self._repair()
                    elif self._snapshot_is_due():
                        await self._begin_snapshot(nursery)
                    elif self._queue:
                        await self._serve_batch()
                    else:
                        self._wake = trio.Event()
                        await self._wake.wait()
        finally:
            self.writable, self._stopping = False, True
            self._queue.refuse_all(lambda: Stopped("the service stopped before the command's turn"))
            _tell(self._snapshot_wanted, StorageFailed("the service stopped before the snapshot"))

    def stop(self) -> None:
        """Accept no more commands, and end ``run`` once queued ones are answered."""
        self._stopping, self.writable = True, False
        self._wake.set()

    async def _serve_batch(self) -> None:
        batch = self._queue.take()
        if not batch:
            return
        began = time.perf_counter()
        if self.journal is not None:
            entries = [Entry(pending.key, pending.fingerprint, pending.body) for pending in batch]
            try:
                with trio.CancelScope(shield=True), span("hostler.journal", commands=len(batch)):
                    if len(batch) > SLICE:
                        await _others_turn()  # taking up a thousand commands was a step of its own
                    await self.journal.append(entries)
            except StorageFailed as error:
                self._break(error, batch)
                return
        durable = time.perf_counter()
        with trio.CancelScope(shield=True), span("hostler.apply", commands=len(batch)):
            await self._apply(batch)
        for observer in self.batch_observers:
            observer(len(batch), durable - began, time.perf_counter() - durable)
        await _others_turn()

    async def _apply(self, batch: Sequence[Pending[Command, Result]]) -> None:
        for start in range(0, len(batch), SLICE):
            if start:
                await _others_turn()
            part = batch[start : start + SLICE]
            steps = self._outcomes([pending.command for pending in part])
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    outcomes = end.value
                    break
                await _others_turn()
            for pending, outcome in zip(part, outcomes, strict=True):
                if pending.key is not None:
                    self._keep(pending.key, pending.fingerprint, pending.command, outcome)
                for observer in self.observers:
                    observer(self.sequence + 1, pending.command, outcome)
                self.sequence += 1
                if isinstance(outcome, HostlerError):
                    # Its traceback would keep the frames, and hence all commands, of the batch alive.
                    outcome.__traceback__ = outcome.__context__ = outcome.__cause__ = None
                    self._queue.finish(pending, None, outcome)
                else:
                    self._queue.finish(pending, outcome, None)

    def _outcomes(
        self, commands: Sequence[Command], wanted: Sequence[bool] | None = None
    ) -> Generator[None, None, Sequence[Result | HostlerError]]:
        if isinstance(self.machine, BatchMachine):
            return (yield from self.machine.carry_out(commands, wanted))
        return [self._outcome(command) for command in commands]

    def _outcome(self, command: Command) -> Result | HostlerError:
        try:
            return self.machine.apply(command)
        except HostlerError as error:
            return error
        except Exception:
            log.exception("a command failed unexpectedly; it counts as refused, here and in each replay")
            return InternalError("the command failed unexpectedly; see the log of the service")

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

    async def _repair(self) -> None:
        assert self.journal is not None
        try:
            with trio.CancelScope(shield=True):
                await self.journal.repair()
        except StorageFailed as error:
            self.broken = error
            await trio.sleep(REPAIR_SECONDS)
            return
        log.warning("the journal can be written again")
        self.broken, self.writable = None, not self._stopping

    # snapshots

    async def snapshot(self) -> int:
        """Take a snapshot now; returns its sequence number once it is complete. StorageFailed if that fails."""
        if self.journal is None:
            raise StorageFailed("snapshots need a journal, and there is none", field="data", hint="give a folder")
        if self._stopping:
            raise Stopped("the service is stopping")
        if self.broken is not None:
            raise StorageFailed(f"no writes now: {self.broken.args[0]}", field="data")
        send, receive = trio.open_memory_channel[int | StorageFailed](1)
        self._snapshot_wanted.append(send)
        self._wake.set()
        outcome = await receive.receive()
        if isinstance(outcome, StorageFailed):
            raise outcome
        return outcome

    def _snapshot_is_due(self) -> bool:
        if self.journal is None or self._snapshotting:
            return False
        return bool(self._snapshot_wanted) or self.sequence - self._snapshot_at >= self._snapshot_every

    async def _begin_snapshot(self, nursery: trio.Nursery) -> None:
        """Start a snapshot of the current state; it is written while the writer continues."""
        assert self.journal is not None
        wanted, self._snapshot_wanted = self._snapshot_wanted, []
        self._snapshotting, self._snapshot_at = True, self.sequence
        try:
            with trio.CancelScope(shield=True):
                await self.journal.rotate()
        except StorageFailed as error:
            self._snapshotting = False
            self._break(error, ())
            _tell(wanted, error)
            return
        await nursery.start(self._snapshot, wanted)

    async def _snapshot(
        self,
        wanted: Sequence[trio.MemorySendChannel[int | StorageFailed]],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        assert self.journal is not None
        sequence = self.sequence
        try:
            await self.journal.snapshot(sequence, self._save, task_status=task_status)
        except StorageFailed as error:
            log.error("no snapshot now, the journal stays as it is: %s", error)
            _tell(wanted, error)
        else:
            _tell(wanted, sequence)
        finally:
            self._snapshotting = False
            self._wake.set()


async def _others_turn() -> None:
    """Yield to readers. Requests that arrive during a step are served in the scheduler round after it, which the writer
    skips."""
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


def _tell(wanted: Sequence[trio.MemorySendChannel[int | StorageFailed]], outcome: int | StorageFailed) -> None:
    for channel in wanted:
        channel.send_nowait(outcome)


@asynccontextmanager
async def open_writer(
    machine: Machine[Command, Result],
    journal: Journal | None = None,
    replayed: Replayed[Command, Result] | None = None,
    **limits: int,
) -> AsyncIterator[Writer[Command, Result]]:
    """A writer that has recovered and runs; at the end it carries out what waits, and closes the journal."""
    writer: Writer[Command, Result] = Writer(machine, journal, replayed=replayed, **limits)
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
