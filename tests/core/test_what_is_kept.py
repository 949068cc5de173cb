"""What the state machine, its log of events and the stored answers keep is bounded, whatever commands bring."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core.engine_commands import bytes_decoded
from hostler.core.machine.event_log import History
from hostler.core.machine.kept_requests import KeptRequests, SavedRequests
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.report_columns import columns_of
from hostler.core.process import metrics
from hostler.core.tenancy import commands as c
from hostler.core.writer.idempotent_answers import Answers
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host_report import HostReport

from ..seeds import seeds
from .orders import NOW, asked, hosts, machine, order, place, uuid_of


def history_of(made: ServiceMachine, kept: int) -> History:
    return History(made, kept)


def told(made: ServiceMachine, events: History, number: int, command: Any) -> None:
    given = order(command)
    (outcome,) = made.apply_batch([given])
    events.add(number, given, outcome)


def test_a_command_with_many_guests_counts_as_many_events() -> None:
    made = machine(50)
    events = history_of(made, 100)
    told(made, events, 1, place(*range(40)))
    told(made, events, 2, p.Release(uuids=tuple(map(uuid_of, range(40)))))
    assert (events.first, events.last) == (1, 2)
    told(made, events, 3, place(*range(100, 130)))
    assert (events.first, events.last) == (2, 3)
    assert len(events.events(3)[0].hosts) == 30


def test_a_refused_request_counts_by_its_bytes() -> None:
    made = machine(1)
    events = history_of(made, 100)
    long = [f"host-{number:060}" for number in range(1_000)]
    for number in (1, 2, 3):
        told(made, events, number, p.Place(request=asked(number, vcpus=1_000, ignore_hosts=long)))
    assert (events.first, events.last) == (3, 3)


def test_orders_of_users_do_not_stay_once_their_batch_is_over() -> None:
    made = machine(1)
    made.apply(order(c.CreateDomain(id="d")))
    made.apply(order(c.CreateUser(id="root", domain="d")))
    made.apply(order(c.Grant(user="root", role="cloud_admin", scope="cloud")))
    for number in range(20):
        report = columns_of([HostReport(host=hosts(1)[0], at=NOW + number)])
        made.apply_batch([order(report, user="root"), order(p.Release(uuids=(uuid_of(number),)), user="root")])
    assert len(made._needed) <= 2
    assert len(made._concerned) <= 2


def test_answers_that_are_errors_count_too(tmp_path: Path) -> None:
    answers: Answers[Any] = Answers(1_000, msgspec.msgpack.encode, msgspec.msgpack.decode, size=100_000)
    for number in range(300):
        answers.put(f"key {number}", b"f", InvalidValue("x" * 2_000, field="f"))
    assert 20 < len(answers) < 50
    answers.save(tmp_path)
    again: Answers[Any] = Answers(1_000, msgspec.msgpack.encode, msgspec.msgpack.decode, size=100_000)
    again.load(tmp_path)
    again.put("one more", b"f", InvalidValue("x" * 2_000))
    assert len(again) == len(answers)


def test_the_places_of_requests_are_given_back_and_those_that_stay_are_right() -> None:
    chance, kept, there = random.Random(seeds(1, "requests")[0]), KeptRequests(), dict[str, bytes]()
    for number in range(2_000):
        if there and chance.random() < (0.4 if number < 1_000 else 0.6):
            uuid = chance.choice(sorted(there))
            kept.forget((uuid,))
            del there[uuid]
        else:
            uuid, spec = uuid_of(number), b"%d" % chance.randrange(500)
            kept.keep((uuid,), spec)
            there[uuid] = spec
        if number % 100 == 0:
            kept = KeptRequests(msgspec.msgpack.decode(msgspec.msgpack.encode(kept.saved()), type=SavedRequests))
    assert {uuid: bytes(kept.get(uuid) or b"") for uuid in there} == there
    again = KeptRequests()
    for uuid in sorted(there, reverse=True):
        again.keep((uuid,), there[uuid])
    assert again.content() == kept.content()
    assert sum(kept.counts) == len(there)
    assert kept.free == sorted(kept.free, reverse=True)
    kept.forget(list(there))
    assert (kept.specs, kept.counts, kept.free) == ([], [], [])


def test_stages_of_resource_classes_that_come_and_go_are_no_labels_for_good() -> None:
    counts: Counter[str] = Counter({"VCPU": 1})
    for number in range(1_000):
        metrics._count(counts, {f"CUSTOM_{number}": 2, "VCPU": 1})
    assert len(counts) == metrics.STAGES + 1
    assert counts["VCPU"] == 1_001
    assert counts.total() == 3_001


@pytest.mark.parametrize("length", [100, 100_000])
def test_decoded_specs_are_bounded_by_bytes(length: int) -> None:
    made = machine(1)
    specs = made.state.specs
    for number in range(400):
        request = asked(number, scheduler_hints={"build_near_host_ip": [f"{number}" + "x" * length]})
        made.state.spec_of(request)
    assert specs.nbytes <= p.SPECS_BYTES + bytes_decoded(b"x" * (length + 200))
    assert len(specs.both()) < 1 + p.SPECS_BYTES // (8 * length)
