"""Which digests are made, and how they are compared."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from hostler.core.cluster import digests as digests_module
from hostler.core.cluster.digests import COMPARABLE, Digests
from hostler.core.engine_commands import AddHosts
from hostler.core.failures import Failures
from hostler.core.journal.etcd_keys import DigestValue
from hostler.core.machine.machine import ServiceMachine
from hostler.core.writer.writer import Writer

from ..core.orders import hosts, order
from .slow_children import told_after


def made_every(commands: int) -> Digests:
    machine = ServiceMachine()
    return Digests(machine, Writer(machine), Failures(), commands)


def test_the_level_of_a_block_is_the_highest_power_of_two_in_the_multiples_that_it_passes() -> None:
    digests = made_every(5)
    for first in range(1, 120):
        for last in range(first, 120):
            passed = [each // 5 for each in range(first, last + 1) if each % 5 == 0]
            powers = [(each & -each).bit_length() - 1 for each in passed]
            assert digests.level(first, last) == max(powers, default=None)


def test_digests_of_other_versions_are_not_compared() -> None:
    digests = made_every(1)
    digests._made[7] = "mine"
    digests.note(DigestValue(7, "theirs", "0.0.1"))
    assert digests.difference() is None
    digests.note(DigestValue(7, "theirs", COMPARABLE))
    assert digests.difference() == 7
    assert digests.difference() is None, "once"
    digests.note(DigestValue(7, "theirs", COMPARABLE))
    assert digests.compared == 1


def test_a_digest_that_is_made_after_the_leader_has_made_later_ones_is_compared() -> None:
    digests = made_every(1)
    for sequence in (3, 4, 5):
        digests.note(DigestValue(sequence, f"d{sequence}", COMPARABLE))
    digests._made |= {3: "d3", 4: "another"}
    assert digests.difference() == 4
    assert digests.compared == 2


async def test_a_digest_at_rest_is_made_once_an_older_one_is(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests_module, "in_child", told_after(lambda: 60.0))
    machine = ServiceMachine()
    writer = Writer(machine)
    digests = Digests(machine, writer, Failures(), 10)
    async with trio.open_nursery() as nursery:
        writer.sequence = 10
        await nursery.start(digests.make, 0)
        writer.sequence = 12  # the last command
        digests.note(DigestValue(12, "theirs", COMPARABLE))
        asked = []
        for _ in range(200):  # as a follower does
            if digests.is_wanted():
                asked.append(trio.current_time())
                await nursery.start(digests.make, 0)
            await trio.sleep(1)
    assert len(asked) == 1
    assert digests.difference() == 12


async def test_no_digest_is_made_in_the_middle_of_a_command(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests_module, "in_child", told_after(lambda: 0.1))
    machine = ServiceMachine()
    writer = Writer(machine)
    digests = Digests(machine, writer, Failures(), 10)
    writer.sequence, digests.needed = 7, True
    published: list[tuple[float, int]] = []

    async def publish(digest: DigestValue) -> bool:
        published.append((trio.current_time(), digest.sequence))
        return True

    steps = machine.carry_out([order(AddHosts(hosts=hosts(3))), order(AddHosts(hosts=()))])
    next(steps)
    assert machine.carrying_out
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(digests.lead, publish)
        await trio.sleep(600)
        assert not published
        steps.close()
        assert not machine.carrying_out
        await trio.sleep(600)
        nursery.cancel_scope.cancel()
    ((at, sequence),) = published
    assert at >= began + 600
    assert sequence == 7
