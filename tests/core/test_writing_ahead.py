"""While a batch is applied the next one is being journalled: what is answered when, and what then becomes of it if the
journal fails, a snapshot is due, or the writer is cancelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from hostler.core.errors import StorageFailed
from hostler.core.journal.journal import Entry, Journal
from hostler.core.writer.command_queue import Pending
from hostler.core.writer.writer import Writer, open_writer

from ..patience import HANG_SECONDS
from .ledgers import BatchLedger, Ledger, Pay

BATCH = 2


class GatedJournal:
    """A journal whose appends from the second block on wait for the test, or fail if it says so."""

    def __init__(self, folder: Path) -> None:
        self.journal, self.begun, self.gate = Journal.in_folder(folder), 0, trio.Event()
        self.fails: BaseException | None = None
        self.at_second: Callable[[], None] = lambda: None
        """Called when the second block begins to be written."""
        self._append, self.journal.append = self.journal.append, self._gated  # type: ignore[method-assign]  # a double

    async def _gated(self, entries: Sequence[Entry]) -> int:
        self.begun += 1
        if self.begun == 2:
            self.at_second()
        if self.begun > 1:
            await self.gate.wait()
            if self.fails:
                error, self.fails, self.journal.broken = self.fails, None, True
                raise error
        return await self._append(entries)


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(HANG_SECONDS):
        while not holds():  # noqa: ASYNC110  # no event tells of it
            await trio.sleep(0.001)


def paid(writer: Writer[Pay, int], count: int, lane: str = "") -> list[Pending[Pay, int]]:
    return [writer.enqueue(Pay("a", 1), lambda _: None, lane=lane) for _ in range(count)]


async def test_a_batch_is_answered_while_the_next_one_is_being_journalled(tmp_path: Path) -> None:
    gated, ledger = GatedJournal(tmp_path), Ledger()
    async with open_writer(ledger, gated.journal, batch_limit=BATCH) as writer:
        answers = paid(writer, 2 * BATCH)
        await until(lambda: gated.begun == 2 and answers[BATCH - 1].state == "done")
        await wait_all_tasks_blocked()
        assert [each.result for each in answers] == [1, 2, None, None]
        assert (writer.sequence, ledger.accounts) == (BATCH, {"a": BATCH})
        gated.gate.set()
        assert await writer.submit(Pay("a", 1)) == 2 * BATCH + 1
        assert [each.result for each in answers] == [1, 2, 3, 4]


async def test_what_the_journal_does_not_take_then_is_refused_and_nothing_else(tmp_path: Path) -> None:
    gated, ledger = GatedJournal(tmp_path), Ledger()
    gated.fails = StorageFailed("the disk is full", field="data")
    async with open_writer(ledger, gated.journal, batch_limit=BATCH) as writer:
        answers = paid(writer, 3 * BATCH)
        await until(lambda: answers[BATCH - 1].state == "done")
        gated.gate.set()
        await until(lambda: answers[-1].state == "done")
        assert [each.result for each in answers] == [1, 2, *[None] * 2 * BATCH]
        assert all(isinstance(each.error, StorageFailed) for each in answers[BATCH:])
        assert ledger.accounts == {"a": BATCH}
        await until(lambda: writer.writable)
        assert await writer.submit(Pay("a", 1)) == BATCH + 1
    again = Ledger()
    async with open_writer(again, Journal.in_folder(tmp_path)) as writer:
        assert (writer.sequence, again.accounts) == (BATCH + 1, {"a": BATCH + 1})


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
async def test_another_error_of_the_journal_ends_the_writer_and_what_is_not_durable_is_not_applied(
    tmp_path: Path, error: type[BaseException]
) -> None:
    gated, ledger = GatedJournal(tmp_path), Ledger()
    gated.fails = error()
    gated.gate.set()
    writer: Writer[Pay, int] = Writer(ledger, gated.journal, batch_limit=BATCH)
    await writer.recover()
    answers = paid(writer, 2 * BATCH)
    with pytest.raises(BaseExceptionGroup) as errors:
        await writer.run()
    await gated.journal.close()
    assert errors.group_contains(error)
    assert [each.result for each in answers] == [1, 2, None, None]
    assert ledger.accounts == {"a": BATCH}


async def test_a_writer_that_is_cancelled_answers_what_the_journal_was_given(tmp_path: Path) -> None:
    gated, ledger = GatedJournal(tmp_path), Ledger()
    with trio.CancelScope() as scope:
        async with open_writer(ledger, gated.journal, batch_limit=BATCH) as writer:
            answers = paid(writer, 5 * BATCH)
            await until(lambda: gated.begun == 2)
            scope.cancel()
            gated.gate.set()
    done = [each.result for each in answers if each.error is None]
    assert done == list(range(1, len(done) + 1))
    assert len(done) >= 2 * BATCH
    again = Ledger()
    async with open_writer(again, Journal.in_folder(tmp_path)) as writer:
        assert writer.sequence == len(done)


async def test_snapshots_are_of_what_was_applied(tmp_path: Path) -> None:
    ledger = BatchLedger()
    async with open_writer(ledger, Journal.in_folder(tmp_path), batch_limit=7, snapshot_every=50) as writer:
        for _ in range(40):
            paid(writer, 25)
            await trio.lowlevel.checkpoint()
        assert await writer.submit(Pay("a", 1)) == 1_001
        assert await writer.snapshot() == 1_001
    again, journal = BatchLedger(), Journal.in_folder(tmp_path)
    recovered = Writer(again, journal)
    found = await recovered.recover()
    await journal.close()
    assert (found.last, found.snapshot, again.accounts) == (1_001, 1_001, {"a": 1_001})


async def test_with_several_users_each_batch_is_applied_before_the_next_is_journalled(tmp_path: Path) -> None:
    gated, answers, seen = GatedJournal(tmp_path), list[Pending[Pay, int]](), list[str]()
    gated.at_second = lambda: seen.extend(each.state for each in answers[:BATCH])
    gated.gate.set()
    async with open_writer(Ledger(), gated.journal, batch_limit=BATCH) as writer:
        answers += paid(writer, BATCH, "x") + paid(writer, BATCH, "y")
    assert seen == ["done"] * BATCH
    assert all(each.result for each in answers)
