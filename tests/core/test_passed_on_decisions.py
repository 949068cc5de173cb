"""Placements that are decided together have packed outcomes. What is kept, sent and logged of one equals what would be
of its Decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from hostler.core.engine_commands import AddHosts
from hostler.core.journal.journal import Journal
from hostler.core.machine.event_log import History
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.process.audit import LineEncoder, line_of
from hostler.core.process.metrics import Metrics
from hostler.core.writer.writer import open_writer
from hostler.placement.types.decision import Decision, PackedDecision
from hostler.placement.types.steps import finished

from .orders import hosts, machine, order, place

MANY = 8


def outcomes() -> tuple[ServiceMachine, list[Order], list[Any]]:
    made = machine(4)
    orders = [order(place(number, project="p")) for number in range(MANY)]
    return made, orders, list(finished(made.carry_out(orders)))


def test_placements_that_are_decided_together_are_packed() -> None:
    _, orders, found = outcomes()
    assert {type(each) for each in found} == {PackedDecision}
    twin = machine(4)
    assert [each.unpack() for each in found] == twin.apply_batch(orders)
    assert all(type(each) is Decision for each in twin.apply_batch([order(place(50))]))


def test_what_is_kept_of_a_packed_answer_is_the_decision() -> None:
    made, _, found = outcomes()
    for each in found:
        assert made.encode_result(each) == made.encode_result(each.unpack())
        assert made.decode_result(made.encode_result(each)) == each.unpack()


def test_audit_events_and_metrics_say_the_same_of_a_packed_outcome() -> None:
    made, orders, found = outcomes()
    packed, whole = Metrics(), Metrics()
    logs = History(made, 100), History(made, 100)
    lines = LineEncoder(), LineEncoder()
    for number, (given, each) in enumerate(zip(orders, found, strict=True), 1):
        decision = each.unpack()
        assert line_of(number, given, each) == line_of(number, given, decision)
        assert lines[0](number, given, each) == lines[1](number, given, decision)
        assert msgspec.json.encode(line_of(number, given, each)) + b"\n" == lines[0](number, given, each)
        for log, outcome in zip(logs, (each, decision), strict=True):
            log.add(number, given, outcome)
        assert logs[0].events(number) == logs[1].events(number)
        packed._applied(number, given, each)
        whole._applied(number, given, decision)
    assert (packed.commands, packed.placements) == (whole.commands, whole.placements)


async def test_a_repeated_key_has_the_decision_also_after_a_restart(tmp_path: Path) -> None:
    async def ask() -> list[Any]:
        async with open_writer(ServiceMachine(), Journal.in_folder(tmp_path)) as writer:
            if not writer.sequence:
                await writer.submit(order(AddHosts(hosts=hosts(4))))
            pendings = [
                writer.enqueue(order(place(number, project="p")), lambda _: None, key=f"k{number}", fingerprint=b"f")
                for number in range(MANY)
            ]
            return [await writer.submit(each.command, key=each.key, fingerprint=b"f") for each in pendings]

    first = await ask()
    assert {type(each) for each in first} == {Decision}
    assert await ask() == first
