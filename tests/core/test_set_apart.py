"""A command that kills the process kills one start at most: it is tried in a child, and set apart if that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import msgspec
import pytest
import trio

from hostler.core.errors import InternalError, StorageFailed
from hostler.core.journal.journal import Journal
from hostler.core.journal.progress import APART, FILE, CommandSetApart, UnderWay, read_apart
from hostler.core.machine.replicated import Replayed
from hostler.core.writer.writer import Writer, open_writer
from hostler.placement.types.errors import HostlerError

from ..patience import HANG_SECONDS
from .ledgers import Ledger, Pay

ROOT = Path(__file__).parents[2]
LIVE = """
import sys, trio
from hostler.core.journal.journal import Journal
from hostler.core.writer.writer import open_writer
from tests.core.ledgers import Pay
from tests.core.test_set_apart import Killer

async def main():
    async with open_writer(Killer(), Journal.in_folder(sys.argv[1])) as writer:
        await writer.submit(Pay("a", 1))
        await writer.submit(Pay("a", 2))
        for number, account in enumerate(("b", sys.argv[2], "b")):
            writer.enqueue(Pay(account, 5), lambda _: None, key=f"k{number}")
        await trio.sleep(30)

trio.run(main)
"""


class Killer(Ledger):
    """A machine that dies of some commands: of ``killer`` always, of ``once`` unless it has been told not to."""

    def __init__(self, *, merciful: bool = False) -> None:
        super().__init__()
        self.merciful = merciful

    def apply(self, command: Pay) -> int:
        if command.account == "killer" or (command.account == "once" and not self.merciful):
            os.kill(os.getpid(), signal.SIGKILL)
        if command.account == "memory":
            raise MemoryError
        return super().apply(command)


def die(folder: Path, account: str) -> None:
    """A process that dies of its fourth command."""
    ended = subprocess.run(
        [sys.executable, "-c", LIVE, str(folder), account], cwd=ROOT, capture_output=True, timeout=HANG_SECONDS
    )
    assert ended.returncode != 0


@pytest.mark.parametrize("account", ["killer", "memory"])
async def test_a_command_that_killed_the_process_is_set_apart_and_said(account: str, tmp_path: Path) -> None:
    await trio.to_thread.run_sync(die, tmp_path, account)
    told: list[tuple[int, object]] = []
    machine = Killer()
    observer = Replayed[Pay, int](0, lambda sequence, _, outcome: told.append((sequence, outcome)))
    async with open_writer(machine, Journal.in_folder(tmp_path), observer) as writer:
        assert machine.accounts == {"a": 3, "b": 10}
        assert writer.sequence == 5
        assert [text.partition(" is set apart")[0] for text in writer.recovered.set_apart] == ["command 4"]
        with pytest.raises(CommandSetApart, match="killed a child too"):
            await writer.submit(Pay(account, 5), key="k1")
        assert await writer.submit(Pay("b", 5), key="k2") == 10
        assert await writer.submit(Pay("a", 1)) == 4
    assert isinstance(dict(told)[4], CommandSetApart)
    assert list(read_apart(tmp_path)) == [4]
    again = Killer()
    async with open_writer(again, Journal.in_folder(tmp_path)) as writer:
        assert (again.accounts, writer.recovered.set_apart) == ({"a": 4, "b": 10}, [])


async def test_commands_that_were_under_way_when_the_process_was_killed_are_carried_out(tmp_path: Path) -> None:
    await trio.to_thread.run_sync(die, tmp_path, "once")
    machine = Killer(merciful=True)
    async with open_writer(machine, Journal.in_folder(tmp_path)) as writer:
        assert machine.accounts == {"a": 3, "b": 10, "once": 5}
        assert writer.recovered.set_apart == []
        assert not (tmp_path / APART).exists()


async def test_a_start_that_died_of_trying_a_command_sets_it_apart_without_another_trial(tmp_path: Path) -> None:
    await trio.to_thread.run_sync(die, tmp_path, "once")
    under_way = UnderWay(tmp_path)
    assert under_way.found == (3, 5)
    under_way.trying(4)
    under_way.close()
    machine = Killer()
    async with open_writer(machine, Journal.in_folder(tmp_path)) as writer:
        assert machine.accounts == {"a": 3, "b": 10}
        assert len(writer.recovered.set_apart) == 1


async def test_where_there_can_be_no_child_nothing_is_set_apart(tmp_path: Path) -> None:
    await trio.to_thread.run_sync(die, tmp_path, "once")
    with mock.patch.object(os, "fork", side_effect=OSError("no processes")):
        journal = Journal.in_folder(tmp_path)
        with pytest.raises(InternalError, match="cannot be tried"):
            await Writer(Killer(), journal).recover()
        await journal.close()
    assert not (tmp_path / APART).exists()
    machine = Killer(merciful=True)
    async with open_writer(machine, Journal.in_folder(tmp_path)):
        assert machine.accounts == {"a": 3, "b": 10, "once": 5}


async def test_what_was_answered_is_no_longer_under_way(tmp_path: Path) -> None:
    async with open_writer(Ledger(), Journal.in_folder(tmp_path)) as writer:
        seen = []
        writer.observers.append(lambda *_: seen.append(UnderWay(tmp_path).found))
        for _ in range(3):
            await writer.submit(Pay("a", 1))
        assert seen == [None] * 3


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"x" * 32, b"HSTRUW01" + b"\xff" * 24])
def test_a_record_of_what_is_under_way_that_makes_no_sense_counts_as_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    under_way = UnderWay(tmp_path)
    assert under_way.found is None or under_way.found[0] <= under_way.found[1]
    under_way.close()


def test_a_record_that_was_cut_off_keeps_what_it_has(tmp_path: Path) -> None:
    under_way = UnderWay(tmp_path)
    under_way.begin(7, 9)
    under_way.trying(8)
    under_way.close()
    os.truncate(tmp_path / FILE, 32)
    again = UnderWay(tmp_path)
    assert (again.found, again.found_trial, again.found_durable) == ((7, 9), 8, 0)
    again.close()


def test_a_list_of_what_was_set_apart_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    (tmp_path / APART).write_bytes(b"{}\n")
    with pytest.raises(HostlerError, match="cannot be read"):
        read_apart(tmp_path)
    (tmp_path / APART).write_bytes(msgspec.json.encode({"sequence": 7, "time": 1.0, "reason": "x"}) + b"\n")
    assert list(read_apart(tmp_path)) == [7]


def test_the_record_has_its_room_on_the_disk_before_it_is_mapped(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    sparse.mkdir()
    (sparse / FILE).touch()
    os.truncate(sparse / FILE, 40)
    for folder in (tmp_path, sparse):
        UnderWay(folder).close()
        assert (folder / FILE).stat().st_blocks > 0


def test_a_disk_without_room_for_the_record_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    UnderWay(tmp_path).close()
    monkeypatch.setattr(os, "pwrite", mock.Mock(side_effect=OSError(28, "No space left on device")))
    UnderWay(tmp_path).close()  # it has its room
    (tmp_path / FILE).unlink()
    with pytest.raises(StorageFailed, match="No space left"):
        UnderWay(tmp_path)
