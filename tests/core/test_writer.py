"""The writer: commands in order, durable before they are answered, each once, or refused with a clear error."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler.core.errors import DeadlineExceeded, KeyReused, Overloaded, StateUnknown, Stopped
from hostler.core.journal.journal import Journal
from hostler.core.tasks import in_thread
from hostler.core.writer.batch import SLICE
from hostler.core.writer.writer import Writer, open_writer
from hostler.placement.types.errors import CapacityExceeded

from ..patience import HANG_SECONDS
from .ledgers import BatchLedger, Ledger, Pay


async def test_a_command_gets_its_answer() -> None:
    async with open_writer(Ledger()) as writer:
        assert await writer.submit(Pay("a", 5)) == 5
        assert await writer.submit(Pay("a", 2)) == 7


async def test_what_the_machine_refuses_is_raised_to_the_caller_and_changes_nothing() -> None:
    ledger = Ledger()
    async with open_writer(ledger) as writer:
        with pytest.raises(CapacityExceeded, match="a has 0"):
            await writer.submit(Pay("a", -1))
        assert ledger.accounts == {}
        assert await writer.submit(Pay("a", 1)) == 1


async def test_a_fault_of_the_machine_is_no_outcome_and_ends_the_writer_as_nobody_knows_the_state() -> None:
    writer: Writer[Pay, int] = Writer(Ledger())
    answers = [writer.enqueue(Pay(account, 1), lambda _: None) for account in ("a", "broken", "a")]
    with pytest.raises(BaseExceptionGroup) as errors:
        await writer.run()
    assert errors.group_contains(StateUnknown)
    assert not writer.writable
    with pytest.raises(Stopped):
        await writer.submit(Pay("a", 1))
    assert [each.result for each in answers] == [None] * 3


async def test_commands_are_applied_in_the_order_in_which_they_were_submitted() -> None:
    ledger = Ledger()
    async with open_writer(ledger) as writer, trio.open_nursery() as nursery:
        for number in range(500):
            writer.enqueue(Pay("a", number), lambda _: None)
        nursery.start_soon(writer.submit, Pay("b", 1))
    assert [pay.amount for pay in ledger.applied] == [*range(500), 1]


async def test_a_machine_that_takes_batches_is_given_batches() -> None:
    machine = BatchLedger()
    async with open_writer(machine) as writer:
        for _ in range(300):
            writer.enqueue(Pay("a", 1), lambda _: None)
        assert await writer.submit(Pay("a", 1)) == 301
    assert machine.batches[0] == SLICE


async def test_a_repeated_key_gets_the_first_answer_and_the_command_is_not_carried_out_again() -> None:
    ledger = Ledger()
    async with open_writer(ledger) as writer:
        assert await writer.submit(Pay("a", 5), key="k") == 5
        assert await writer.submit(Pay("a", 5), key="k") == 5
        with pytest.raises(CapacityExceeded):
            await writer.submit(Pay("a", -9), key="n")
        await writer.submit(Pay("a", 9))
        with pytest.raises(CapacityExceeded):
            await writer.submit(Pay("a", -9), key="n")
        assert ledger.accounts == {"a": 14}


async def test_a_key_that_is_repeated_before_the_first_answer_gets_the_same_answer() -> None:
    answers = []

    async def ask(writer: Writer[Pay, int]) -> None:
        answers.append(await writer.submit(Pay("a", 5), key="k"))

    async with open_writer(Ledger()) as writer, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, writer)
    assert answers == [5, 5, 5]


async def test_a_key_that_comes_with_another_command_is_refused() -> None:
    async with open_writer(Ledger()) as writer:
        await writer.submit(Pay("a", 5), key="k", fingerprint=b"1")
        with pytest.raises(KeyReused):
            await writer.submit(Pay("a", 6), key="k", fingerprint=b"2")


async def test_only_so_many_answers_are_kept() -> None:
    async with open_writer(Ledger(), answers_kept=2) as writer:
        for key in "abc":
            await writer.submit(Pay("a", 1), key=key)
        assert await writer.submit(Pay("a", 1), key="c") == 3
        assert await writer.submit(Pay("a", 1), key="a") == 4


async def test_a_full_queue_is_an_error_and_not_a_wait() -> None:
    writer: Writer[Pay, int] = Writer(Ledger(), queue_limit=2)
    for _ in range(2):
        writer.enqueue(Pay("a", 1), lambda _: None)
    with pytest.raises(Overloaded):
        await writer.submit(Pay("a", 1))


async def test_the_bytes_that_wait_are_bounded_too_and_free_again_once_they_wait_no_more() -> None:
    writer: Writer[Pay, int] = Writer(Ledger(), queue_bytes=1_000)
    long = Pay("a" * 600, 1)
    for _ in range(2):
        first = writer.enqueue(long, lambda _: None)
        with pytest.raises(Overloaded, match="bytes together"):
            writer.enqueue(long, lambda _: None)
        assert writer.cancel(first)
    repeated = [writer.enqueue(Pay("b", 1), lambda _: None, key="k") for _ in range(2)]
    writer.enqueue(long, lambda _: None)
    with pytest.raises(Overloaded):
        await writer.submit(long)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        await wait_all_tasks_blocked()
        assert [pending.result for pending in repeated] == [1, 1]
        assert await writer.submit(long) == 2
        writer.stop()
    assert writer.queued_bytes == 0


async def test_a_command_longer_than_all_that_may_wait_has_its_turn_alone() -> None:
    async with open_writer(Ledger(), queue_bytes=10) as writer:
        assert await writer.submit(Pay("a" * 600, 1)) == 1


async def test_a_deadline_that_passes_before_the_commands_turn_leaves_nothing_done(autojump_clock: MockClock) -> None:
    ledger = Ledger()
    writer: Writer[Pay, int] = Writer(ledger)
    with pytest.raises(DeadlineExceeded, match="nothing was done"):
        await writer.submit(Pay("a", 1), deadline=trio.current_time() + 1)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        writer.stop()
    assert ledger.accounts == {}


async def test_a_caller_that_is_cancelled_takes_its_waiting_command_back() -> None:
    writer: Writer[Pay, int] = Writer(Ledger())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.submit, Pay("a", 1))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        assert await writer.submit(Pay("a", 2)) == 2
        writer.stop()


async def test_who_repeats_a_cancelled_callers_key_is_served() -> None:
    writer: Writer[Pay, int] = Writer(Ledger())
    first = writer.enqueue(Pay("a", 1), lambda _: None, key="k")
    answers = []

    async def repeat() -> None:
        answers.append(await writer.submit(Pay("a", 1), key="k"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(repeat)
        await wait_all_tasks_blocked()
        assert writer.cancel(first)
        await nursery.start(writer.run)
        await wait_all_tasks_blocked()
        writer.stop()
    assert answers == [1]


async def test_stopping_carries_out_what_waits_and_refuses_what_comes() -> None:
    answers = []
    writer: Writer[Pay, int] = Writer(Ledger())
    for _ in range(3):
        writer.enqueue(Pay("a", 1), lambda pending: answers.append(pending.result))
    writer.stop()
    with pytest.raises(Stopped):
        await writer.submit(Pay("a", 1))
    await writer.run()
    assert answers == [1, 2, 3]


async def test_whoever_waits_when_the_writer_is_cancelled_is_told() -> None:
    writer: Writer[Pay, int] = Writer(Ledger(), batch_limit=1)
    errors = []
    with trio.CancelScope() as scope:
        scope.cancel()
        for _ in range(2):
            writer.enqueue(Pay("a", 1), lambda pending: errors.append(pending.error))
        await writer.run()
    assert errors[0] is None
    assert isinstance(errors[1], Stopped)


async def test_observers_see_every_command_with_its_number_and_outcome() -> None:
    seen = []
    async with open_writer(Ledger()) as writer:
        writer.observers.append(lambda *what: seen.append(what))
        await writer.submit(Pay("a", 5))
        with pytest.raises(CapacityExceeded):
            await writer.submit(Pay("a", -9))
    assert [(number, pay.amount) for number, pay, _ in seen] == [(1, 5), (2, -9)]
    assert seen[0][2] == 5
    assert isinstance(seen[1][2], CapacityExceeded)


# with a journal


async def test_after_a_restart_the_state_and_the_first_answers_are_there(tmp_path: Path) -> None:
    async with open_writer(Ledger(), Journal.in_folder(tmp_path)) as writer:
        await writer.submit(Pay("a", 5), key="five")
        with pytest.raises(CapacityExceeded):
            await writer.submit(Pay("a", -9), key="nine")
        await writer.submit(Pay("a", 20))
    again = Ledger()
    async with open_writer(again, Journal.in_folder(tmp_path)) as writer:
        assert writer.sequence == 3
        assert again.accounts == {"a": 25}
        assert again.applied == [Pay("a", 5), Pay("a", -9), Pay("a", 20)]
        assert await writer.submit(Pay("a", 5), key="five") == 5
        with pytest.raises(CapacityExceeded, match="a has 5") as error:
            await writer.submit(Pay("a", -9), key="nine")
        assert error.value.field == "amount"
        assert await writer.submit(Pay("a", 1)) == 26


async def until_there(path: Path) -> None:
    with trio.fail_after(HANG_SECONDS):
        while not await trio.Path(path).exists():  # noqa: ASYNC110  # no event tells of files
            await trio.sleep(0.005)


async def test_snapshots_hold_the_state_and_the_answers_and_bound_what_is_replayed(tmp_path: Path) -> None:
    async with open_writer(Ledger(), Journal.in_folder(tmp_path), snapshot_every=10) as writer:
        for number in range(95):
            await writer.submit(Pay("a", 1), key=f"k{number}")
            if number % 10 == 9:
                await until_there(tmp_path / f"snapshot-{number + 1:016d}")
    again = Ledger()
    journal = Journal.in_folder(tmp_path)
    writer = Writer(again, journal)
    found = await writer.recover()
    await journal.close()
    assert (found.last, found.damage) == (95, [])
    assert (found.snapshot, found.replayed) == (90, 5)
    assert again.accounts == {"a": 95}
    assert again.applied == [Pay("a", 1)] * 95
    names = os.listdir(tmp_path)
    assert len([name for name in names if name.startswith("snapshot-")]) == 2
    assert len([name for name in names if name.endswith(".sqlite")]) <= 4
    pending = writer.enqueue(Pay("a", 1), lambda _: None, key="k3")
    assert pending.result == 4


async def test_replay_gives_batches_to_a_machine_that_takes_them(tmp_path: Path) -> None:
    async with open_writer(Ledger(), Journal.in_folder(tmp_path)) as writer:
        for _ in range(300):
            writer.enqueue(Pay("a", 1), lambda _: None)
    again = BatchLedger()
    async with open_writer(again, Journal.in_folder(tmp_path)):
        assert again.batches == [300]
        assert again.accounts == {"a": 300}


class SlowLedger(Ledger):
    """One that loads, and carries out the first command, only when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = [threading.Event(), threading.Event()]

    def load(self, path: Path) -> None:
        assert self.go_on[0].wait(HANG_SECONDS)
        super().load(path)

    def apply(self, command: Pay) -> int:
        assert self.go_on[1].wait(HANG_SECONDS)
        return super().apply(command)


async def test_a_recovery_that_is_done_aside_holds_up_nobody_and_can_be_watched(tmp_path: Path) -> None:
    async with open_writer(Ledger(), Journal.in_folder(tmp_path)) as writer:
        await writer.submit(Pay("a", 1))
        assert await writer.snapshot() == 1
        await writer.submit(Pay("a", 2))
    again, journal = SlowLedger(), Journal.in_folder(tmp_path, aside=in_thread)

    async def watch() -> None:
        for event, shown in zip(again.go_on, [(1, 0), (0, 1)], strict=True):
            with trio.fail_after(HANG_SECONDS):
                while (journal.loading, journal.last) != shown:  # noqa: ASYNC110  # no event tells of it
                    await trio.sleep(0.01)
            event.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        async with open_writer(again, journal):
            assert again.accounts == {"a": 3}
