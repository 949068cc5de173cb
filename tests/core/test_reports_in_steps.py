"""Reports of many hosts are taken in some at a time, with the outcome and the state that they have at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from hostler.core import engine_commands as p
from hostler.core import storage_commands as s
from hostler.core.cluster.state_digest import state_digest
from hostler.core.machine import host_reports, storage_backends
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import REPORTS_BY_UUID, Order
from hostler.core.machine.report_columns import columns_of
from hostler.core.tenancy import commands as c
from hostler.placement.load import bulk, reports, reports_in_steps
from hostler.placement.storage.pools.request import VolumeRequest, VolumeSpec
from hostler.placement.types.host import Host, Service
from hostler.placement.types.host_report import HostReport
from tests.core.orders import LOCAL, NOW, hosts, machine, order, place, uuid_of
from tests.seeds import seeds
from tests.volumes.values import do, storage_machine
from tests.volumes.values import place as place_volume
from tests.volumes.values import report as of_backend
from tests.volumes.values import reports as reports_of

from .test_several_in_steps import look, outcome_of

HOSTS, MANY = 7, 30


@contextmanager
def reports_a_step(few: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for where in (reports, reports_in_steps, host_reports):
            patch.setattr(where, "FEW", few)
        for where in (reports, reports_in_steps):
            patch.setattr(where, "LOOKED_AT", few)
        patch.setattr(host_reports, "READ", few)
        yield


def world() -> ServiceMachine:
    made = machine(HOSTS)
    for number in range(20):
        made.apply(order(place(number, vcpus=1 + number % 3, memory_mb=512)))
    made.apply(order(p.Hold(request=place(30).request, expires_in=1e6)))
    return made


def report(chance: random.Random, now: float, known: dict[str, str]) -> HostReport:
    """What a host may say of itself, and sometimes may not. ``known``: uuids by node."""
    number = chance.randrange(HOSTS + 2)
    (host,) = hosts(1, vcpus_total=chance.choice([16, 16, 32]), cpu_allocation_ratio=chance.choice([4.0, 16.0]))
    figures = {name: getattr(host, name) for name in ("vcpus_total", "total_usable_ram_mb", "total_usable_disk_gb")}
    there: dict[str, dict[str, str]] = {uuid_of(each): {} for each in chance.sample(range(40), chance.randrange(6))}
    if chance.random() < 0.2:
        figures["uuid"] = chance.choice([*known.values(), uuid_of(900), uuid_of(901), "no uuid"])
    elif chance.random() < 0.5:
        figures["uuid"] = known.get(f"node-{number}", "")
    figures["cpu_allocation_ratio"] = chance.choice([4.0, 16.0] + [-1.0] * (chance.random() < 0.02))
    return HostReport(
        host=Host(host=f"node-{number}", instances=there, **figures),
        at=now - chance.choice([0, 0, 0, 50]),
        includes=chance.choice([None, frozenset(uuid_of(each) for each in range(chance.randrange(40)))]),
        service=Service(disabled=chance.random() < 0.5),
    )


@pytest.mark.parametrize("seed", seeds(5, "reports in steps"))
def test_reports_end_as_at_once(seed: int) -> None:
    chance, meanwhile = random.Random(seed), random.Random(seed)
    made, at_once = world(), world()
    refused = paused = 0
    for turn in range(14):
        now = NOW + 20.0 * turn

        def pause() -> None:
            nonlocal paused
            paused += 1
            if meanwhile.random() < 0.3:
                look(made, meanwhile)

        fleet = made.state.fleet
        known = {fleet.name(row): fleet.uuid(row) for row in range(HOSTS)}
        given = [report(chance, now, known) for _ in range(chance.randint(1, 14))]
        command: Any = columns_of(given)
        command = p.ReportHosts(each=command.each, same=command.same, claim_timeout=60.0)
        with reports_a_step(2):
            found = outcome_of(made, command, pause, now=now)
        with reports_a_step(1_000):
            assert found == outcome_of(at_once, command, now=now)
        assert state_digest(made.state) == state_digest(at_once.state)
        refused += isinstance(found, tuple)
    made.state.fleet.check()
    assert paused
    assert refused < 14
    assert made.state.usage.of("project:") == at_once.state.usage.of("project:")


def test_a_claim_that_the_report_of_a_renamed_host_lets_expire_is_given_back() -> None:
    made = machine(3)
    decided = made.apply(order(place(1, vcpus=2, memory_mb=512)))
    (before,) = hosts(1)
    figures = {name: getattr(before, name) for name in ("vcpus_total", "total_usable_ram_mb", "total_usable_disk_gb")}
    uuid = made.state.fleet.uuid(made.state.fleet._names.find(decided.host))
    for name, now in ((decided.host, NOW + 1), ("renamed", NOW + 1_000)):
        given = columns_of([HostReport(host=Host(host=name, uuid=uuid, **figures), at=now)])
        command = p.ReportHosts(each=given.each, same=given.same, claim_timeout=60.0)
        expired = made.apply(order(command, now=now)).expired
    assert expired == (uuid_of(1),)
    assert len(made.state.requests) == 0
    assert not made.state.usage.of("project:")


@pytest.mark.parametrize("rules", [REPORTS_BY_UUID - 1, REPORTS_BY_UUID])
def test_who_adopts_guests_is_charged_as_the_rules_of_its_time_say(rules: int) -> None:
    """Before, all usage was summed up again, without claims that the report of a renamed host had let expire."""
    made = ServiceMachine()

    def do_so(command: Any, now: float = NOW) -> Any:
        return made.apply(Order(now, LOCAL, command, rules))

    do_so(p.AddHosts(hosts=hosts(3)))
    decided = do_so(place(1, project="other", vcpus=2, memory_mb=512))
    do_so(place(2, project="mine", vcpus=1, memory_mb=512))
    (before,) = hosts(1)
    figures = {name: getattr(before, name) for name in ("vcpus_total", "total_usable_ram_mb", "total_usable_disk_gb")}
    uuid = made.state.fleet.uuid(made.state.fleet._names.find(decided.host))
    for name, now in ((decided.host, NOW + 1), ("renamed", NOW + 1_000)):
        there: dict[str, dict[str, str]] = {uuid_of(2): {}}
        given = columns_of([HostReport(host=Host(host=name, uuid=uuid, instances=there, **figures), at=now)])
        do_so(p.ReportHosts(each=given.each, same=given.same, claim_timeout=60.0), now)
    assert made.state.usage.of("project:other") == (
        {"instances": 1, "VCPU": 2, "MEMORY_MB": 512} if rules < REPORTS_BY_UUID else {}
    )
    do_so(c.CreateDomain(id="d"), NOW + 1_000)
    do_so(c.CreateProject(id="mine", domain="d", adopt=True), NOW + 1_000)
    assert not made.state.usage.of("project:other")
    assert made.state.usage.of("domain:d") == made.state.usage.of("project:mine") != {}


def test_a_malformed_uuid_is_refused_where_reports_have_left_out_claims_too() -> None:
    made = machine(3)
    made.apply(order(place(1, vcpus=2, memory_mb=512)))
    given = columns_of([HostReport(host=each, at=NOW + 1) for each in hosts(3)])
    made.apply(order(p.ReportHosts(each=given.each, same=given.same, claim_timeout=60.0), now=NOW + 1))
    assert made.state.fleet._consumers.missing
    (host,) = hosts(1)
    malformed = columns_of([HostReport(host=replace(host, host="new", nodename="", uuid="no uuid"), at=NOW + 2)])
    command = p.ReportHosts(each=malformed.each, same=malformed.same, claim_timeout=60.0)
    assert outcome_of(made, command, now=NOW + 2)[0] == "InvalidValue"


@pytest.mark.parametrize("name", ["new", "node"])
def test_a_malformed_uuid_of_a_guest_is_refused_among_those_of_many_hosts(name: str) -> None:
    made = machine(5)
    before = state_digest(made.state)
    there: list[dict[str, dict[str, str]]] = [{uuid_of(500 + number): {}} for number in range(5)]
    there[3] = {"no uuid": {}}
    given = [
        HostReport(
            host=Host(host=f"{name}-{number}", vcpus_total=16, total_usable_ram_mb=4_096, instances=guests), at=NOW
        )
        for number, guests in enumerate(there)
    ]
    command: Any = columns_of(given)
    with reports_a_step(2):
        command = p.ReportHosts(each=command.each, same=command.same, claim_timeout=60.0)
        assert outcome_of(made, command)[0] == "InvalidValue"
    assert state_digest(made.state) == before


def pools_of(made: ServiceMachine) -> Any:
    pools = made.state.storage.pools
    return pools.services, pools.reports, pools.row_of, pools.columns["free"].tolist(), made.state.volumes


@pytest.mark.parametrize("seed", seeds(3, "backends in steps"))
def test_reports_of_backends_end_as_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    made, at_once = storage_machine(), storage_machine()
    for one in (made, at_once):
        do(one, *(place_volume(number, 10) for number in range(6)), s.PlaceVolumeGroup(volumes=(), project_id=""))
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1
        made.state.storage.what_if().place(VolumeRequest(spec=VolumeSpec(size_gb=1), now=NOW))

    for turn in range(20):
        now = NOW + turn
        each = [
            of_backend(
                f"node-{chance.randrange(5)}@lvm" if chance.random() < 0.98 else "",
                *((name, chance.randrange(500)) for name in chance.sample("abc", chance.randint(0, 3))),
                at=now - chance.choice([0, 0, 20]),
                cluster=chance.choice([None] * 20 + ["many@lvm"]),
            )
            for _ in range(chance.randint(1, 6))
        ]
        outcomes = []
        for few, of in ((0, made), (10**6, at_once)):
            monkeypatch.setattr(storage_backends, "POOLS", few)
            outcomes.append(outcome_of(of, reports_of(*each), pause if of is made else int, now=now))
        assert outcomes[0] == outcomes[1]
        assert pools_of(made) == pools_of(at_once)
    assert pauses


def first_report(chance: random.Random, turn: int, now: float) -> HostReport:
    """A report, mostly of a host that is new, with guests that are, too."""
    number = chance.randrange(60)
    name = f"new-{number}" if chance.random() < 0.9 else f"node-{chance.randrange(HOSTS)}"
    few = chance.random() < 0.1
    there: dict[str, dict[str, str]] = {
        uuid_of(chance.randrange(6 if few else 10**9)): {} for _ in range(chance.randrange(4))
    }
    figures: dict[str, Any] = {"vcpus_total": 16, "total_usable_ram_mb": 4_096, "stats": {"turn": f"{turn}"}}
    if chance.random() < 0.02:
        figures["nodename"] = f"new-{chance.randrange(60)}"
    if chance.random() < 0.03:
        figures["uuid"] = uuid_of(10_000 + chance.randrange(20))
    includes = frozenset(uuid_of(each) for each in range(chance.randrange(6))) if chance.random() < 0.1 else None
    return HostReport(host=Host(host=name, instances=there, **figures), at=now, includes=includes)


@pytest.mark.parametrize("seed", seeds(6, "first reports in steps"))
def test_reports_of_new_hosts_and_guests_end_as_at_once(seed: int) -> None:
    chance = random.Random(seed)
    made, at_once = world(), world()
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1
        made.state.fleet.check()

    for turn in range(10):
        now = NOW + 20.0 * turn
        command: Any = columns_of([first_report(chance, turn, now) for _ in range(chance.randint(1, 20))])
        with reports_a_step(2):
            found = outcome_of(made, command, pause, now=now)
        with reports_a_step(1_000):
            assert found == outcome_of(at_once, command, now=now)
        assert state_digest(made.state) == state_digest(at_once.state)
    made.state.fleet.check()
    assert pauses


class Guests:
    """Guests of a cloud that come, go and change their hosts, and reports of these that mostly say so."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.where = chance, {uuid_of(number): "node-0" for number in range(600, 620)}

    def live(self) -> None:
        chance = self.chance
        for uuid in chance.sample(sorted(self.where), min(len(self.where), 4)):
            self.where[uuid] = f"node-{chance.randrange(MANY)}"
        for uuid in chance.sample(sorted(self.where), min(len(self.where), 2)):
            del self.where[uuid]
        for number in chance.sample(range(600, 660), 3):
            self.where.setdefault(uuid_of(number), f"node-{chance.randrange(MANY)}")

    def report(self, name: str, claims: list[str], now: float) -> HostReport:
        chance = self.chance
        named = [uuid for uuid, node in self.where.items() if node == name]
        named += [uuid for uuid in claims if chance.random() < 0.7]
        if self.where and chance.random() < 0.1:
            named.append(chance.choice(sorted(self.where)))
        there: dict[str, dict[str, str]] = {uuid: {} for uuid in named}
        includes = frozenset(uuid.upper() for uuid in there) if chance.random() < 0.2 else None
        (host,) = hosts(1, vcpus_total=64)
        figures = {name: getattr(host, name) for name in ("vcpus_total", "total_usable_ram_mb", "total_usable_disk_gb")}
        return HostReport(
            host=Host(host=name, instances=there, **figures),
            at=now - chance.choice([0.0, 0.0, 0.0, 50.0]),
            includes=includes,
        )


def lives_on(made: ServiceMachine, chance: random.Random, turn: int, now: float) -> None:
    """Guests are placed, and moved in two phases."""
    found: list[Any] = [place(700 + 3 * turn + each, vcpus=1, memory_mb=512) for each in range(3)]
    guests = [uuid_of(700 + each) for each in range(3 * turn)]
    for uuid in chance.sample(guests, min(len(guests), 3)):
        ends: list[Any] = [p.BeginMove(uuid=uuid), p.ConfirmMove(uuid=uuid), p.RevertMove(uuid=uuid)]
        found.append(chance.choice([*ends, p.Release(uuids=(uuid,))]))
    for command in found:
        outcome_of(made, command, now=now)


def claims_on(made: ServiceMachine, name: str) -> list[str]:
    fleet = made.state.fleet
    found = [fleet._kernel.consumers.get(uuid_of(700 + each)) for each in range(60)]
    given = [fleet.consumer(uuid_of(700 + each)) for each, consumer in enumerate(found) if consumer >= 0]
    return [each.uuid for each in given if each.provider == name]


@pytest.mark.parametrize("together", [11, bulk.CHUNK])
@pytest.mark.parametrize("seed", seeds(3, "guests that change hosts"))
def test_reports_of_guests_that_come_and_go_end_as_at_once(
    seed: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    for where in (reports, reports_in_steps):
        monkeypatch.setattr(where, "CHUNK", together)
    made, at_once = machine(MANY), machine(MANY)
    cloud, pauses, most = Guests(chance), 0, 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1
        if pauses % 10 == 0:
            made.state.fleet.check()

    for turn in range(15):
        now = NOW + 20.0 * turn
        choice = chance.random()
        for each in (made, at_once):
            lives_on(each, random.Random(choice), turn, now)
        cloud.live()
        names = chance.sample(range(MANY), chance.randint(8, MANY))
        given = [cloud.report(f"node-{number}", claims_on(made, f"node-{number}"), now) for number in names]
        command: Any = columns_of(given)
        command = p.ReportHosts(each=command.each, same=command.same, claim_timeout=60.0)
        before = pauses
        with reports_a_step(2):
            found = outcome_of(made, command, pause, now=now)
        most = max(most, pauses - before)
        with reports_a_step(1_000):
            assert found == outcome_of(at_once, command, now=now)
        assert state_digest(made.state) == state_digest(at_once.state)
    made.state.fleet.check()
    assert most > MANY
