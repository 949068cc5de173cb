"""Moves between late, lost and repeated reports, against a slow model of Nova's resource tracker: no report makes a
host look emptier than what is claimed on it, and once all is quiet nothing is left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hostler import (
    Destination,
    Engine,
    Flavor,
    Fleet,
    Host,
    HostReport,
    Policy,
    Request,
    RequestSpec,
    add_hosts,
    report_hosts,
)
from hostler.placement.types.errors import HostlerError

NAMES = ("a", "b", "c")
MEMORY = 65_536
SIZES = (1_024, 4_096, 20_480)


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def host(name: str, **fields: Any) -> Host:
    sizes = {"vcpus_total": 16, "total_usable_ram_mb": MEMORY, "total_usable_disk_gb": 500, "ram_allocation_ratio": 1.0}
    return Host(**{"host": name, **sizes, **fields})


def asks(memory_mb: int, *numbers: int, **fields: Any) -> Request:
    flavor = Flavor(name=f"m{memory_mb}", vcpus=1, memory_mb=memory_mb)
    return Request(spec=RequestSpec(flavor=flavor, **fields), instance_uuids=tuple(map(uuid, numbers)))


@dataclass
class Tracker:
    """What one compute node counts: sizes by (instance, ``here`` or ``leaving``), as Nova's resource tracker has its
    instances and its tracked migrations."""

    memory: dict[tuple[str, str], int] = field(default_factory=dict)

    def report(self, name: str, at: float) -> HostReport:
        names = frozenset(instance for instance, _ in self.memory)
        free, used = MEMORY - sum(self.memory.values()), len(self.memory)
        there: dict[str, Any] = {instance: {} for instance in names}
        known = host(name, free_ram_mb=free, vcpus_used=used, num_instances=len(names), instances=there)
        return HostReport(host=known, at=at, includes=names)


@dataclass
class Guest:
    """(host, MiB) where it is claimed, and of the source of its move."""

    here: tuple[str, int]
    source: tuple[str, int] | None = None


class Cloud(RuleBasedStateMachine):
    """Commands on a few guests of three hosts. Claims of lost sources are not part of it."""

    @initialize()
    def start(self) -> None:
        fleet = Fleet()
        self.time, self.number = 1_000.0, 0
        add_hosts(fleet, [host(name) for name in NAMES])
        rules = {"weight_classes": ["RAMWeigher"]}
        self.engine = Engine(fleet, Policy.from_mapping({"filter_scheduler": rules}))
        self.engine.advance(self.time)
        self.guests: dict[str, Guest] = {}
        self.trackers = {name: Tracker() for name in NAMES}
        self.under_way: list[HostReport] = []
        self.newest = dict.fromkeys(NAMES, 0.0)
        self.reported: dict[str, frozenset[str]] = dict.fromkeys(NAMES, frozenset())

    def passes(self, seconds: float) -> None:
        self.time += seconds
        self.engine.advance(self.time)

    def one(self, pick: int, *, moving: bool | None = None) -> str | None:
        some = sorted(uuid for uuid, guest in self.guests.items() if moving in (None, guest.source is not None))
        return some[pick % len(some)] if some else None

    @rule(memory=st.sampled_from(SIZES), at=st.sampled_from((None, *NAMES)))
    def claim(self, memory: int, at: str | None) -> None:
        self.passes(1)
        self.number += 1
        to = {} if at is None else {"requested_destination": Destination(host=at)}
        decision = self.engine.place(asks(memory, self.number, **to))
        if decision.placed:
            self.guests[uuid(self.number)] = Guest((decision.host, memory))

    @rule(pick=st.integers(0, 9))
    def build(self, pick: int) -> None:
        """A guest's compute node begins to count it."""
        one = self.one(pick)
        if one is not None:
            guest = self.guests[one]
            self.trackers[guest.here[0]].memory[one, "here"] = guest.here[1]

    @rule(pick=st.integers(0, 9), memory=st.sampled_from((None, *SIZES)), same=st.booleans())
    def begin(self, pick: int, memory: int | None, same: bool) -> None:
        self.passes(1)
        one = self.one(pick, moving=False)
        if one is None:
            return
        guest = self.guests[one]
        source, size = guest.here
        if memory is not None and (one, "here") not in self.trackers[source].memory:
            return  # only a guest that was built is resized
        to = {"requested_destination": Destination(host=source)} if same and memory is not None else {}
        decision = self.engine.begin_move(one, asks(memory or size, **to), kind="resize" if memory else "cold_migrate")
        if not decision.placed:
            return
        guest.source, guest.here = guest.here, (decision.host, memory or size)
        built = self.trackers[source].memory.pop((one, "here"), None)
        if built is not None:
            self.trackers[source].memory[one, "leaving"] = built
            if decision.host == source:
                self.trackers[source].memory[one, "here"] = memory or size
                self.passes(1)

    @rule(pick=st.integers(0, 9))
    def evacuate(self, pick: int) -> None:
        """The compute node is down: its tracker counts on for itself, and its reports may still be under way."""
        self.passes(1)
        one = self.one(pick, moving=False)
        if one is None:
            return
        guest = self.guests[one]
        self.engine.fleet.set_service(guest.here[0], forced_down=True)
        decision = self.engine.begin_move(one, asks(guest.here[1]), kind="evacuate")
        self.engine.fleet.set_service(guest.here[0], forced_down=False)
        if decision.placed:
            source = self.trackers[guest.here[0]]
            built = source.memory.pop((one, "here"), None)
            if built is not None:
                source.memory[one, "leaving"] = built
            guest.source, guest.here = guest.here, (decision.host, guest.here[1])

    @rule(pick=st.integers(0, 9), confirm=st.booleans())
    def end(self, pick: int, confirm: bool) -> None:
        self.passes(1)
        one = self.one(pick, moving=True)
        if one is None:
            return
        guest = self.guests[one]
        assert guest.source is not None
        (self.engine.confirm if confirm else self.engine.revert)(one)
        source, target = self.trackers[guest.source[0]], self.trackers[guest.here[0]]
        leaving = source.memory.pop((one, "leaving"), None)
        if confirm:
            target.memory[one, "here"] = guest.here[1]
        else:
            target.memory.pop((one, "here"), None)
            if leaving is not None:
                source.memory[one, "here"] = leaving
            guest.here = guest.source
        guest.source = None

    @rule(pick=st.integers(0, 9))
    def delete(self, pick: int) -> None:
        self.passes(1)
        one = self.one(pick)
        if one is not None:
            self.engine.release(one)
            del self.guests[one]
            for tracker in self.trackers.values():
                for way in ("here", "leaving"):
                    tracker.memory.pop((one, way), None)

    @rule(name=st.sampled_from(NAMES))
    def compute_report(self, name: str) -> None:
        self.passes(1)
        self.under_way.append(self.trackers[name].report(name, self.time))

    @precondition(lambda self: self.under_way)
    @rule(pick=st.integers(0, 99), again=st.booleans())
    def deliver(self, pick: int, again: bool) -> None:
        report = self.under_way[pick % len(self.under_way)]
        if not again:
            self.under_way.remove(report)
        answer = report_hosts(self.engine.fleet, [report], claim_timeout=1e9)
        name = report.host.host
        assert answer.stale == ((name,) if self.newest[name] > report.at else ())
        self.newest[name] = max(self.newest[name], report.at)
        if self.newest[name] == report.at:
            self.reported[name] = frozenset(report.host.instances)

    @precondition(lambda self: self.under_way)
    @rule(pick=st.integers(0, 99))
    def lose(self, pick: int) -> None:
        del self.under_way[pick % len(self.under_way)]

    @rule(name=st.sampled_from(NAMES))
    def removed_and_back(self, name: str) -> None:
        """A host without guests goes, and comes back with its next report."""
        ends = [end for guest in self.guests.values() for end in (guest.here, guest.source) if end is not None]
        if any(end[0] == name for end in ends):
            with pytest.raises(HostlerError):
                self.engine.fleet.remove_provider(name)
            return
        try:
            self.engine.fleet.remove_provider(name)
        except HostlerError:  # its last report has a guest that is gone here
            assert any(instance not in self.guests for instance in self.reported[name])
            return
        self.reported[name] = frozenset()
        self.newest[name] = 0.0
        self.under_way = [report for report in self.under_way if report.host.host != name]
        self.trackers[name] = Tracker()
        self.passes(1)
        report_hosts(self.engine.fleet, [self.trackers[name].report(name, self.time)])
        self.newest[name] = self.time

    def claimed(self, name: str) -> list[int]:
        ends = [end for guest in self.guests.values() for end in (guest.here, guest.source) if end is not None]
        return [memory for at, memory in ends if at == name]

    @invariant()
    def no_host_looks_emptier_than_its_claims(self) -> None:
        fleet = self.engine.fleet
        for name in NAMES:
            claimed, row = self.claimed(name), fleet.row(name)
            assert fleet.column("free_ram_mb")[row] <= MEMORY - sum(claimed), name
            assert fleet.column("vcpus_used")[row] >= len(claimed), name
            _, used = fleet.inventory(name)["MEMORY_MB"]
            assert used >= sum(claimed), name
        moving = sorted(uuid for uuid, guest in self.guests.items() if guest.source is not None)
        assert [move.instance for move in self.engine.moves()] == moving

    def teardown(self) -> None:
        """Builds end and each host reports: there is no drift, and nothing is held that is not claimed."""
        if not hasattr(self, "engine"):
            return
        for one, guest in self.guests.items():
            self.trackers[guest.here[0]].memory[one, "here"] = guest.here[1]
            if guest.source is not None:
                self.trackers[guest.source[0]].memory[one, "leaving"] = guest.source[1]
        fleet = self.engine.fleet
        self.passes(1)
        report_hosts(fleet, [tracker.report(name, self.time) for name, tracker in self.trackers.items()])
        for name in NAMES:
            taken = sum(self.claimed(name))
            assert fleet.column("free_ram_mb")[fleet.row(name)] == MEMORY - taken
            assert fleet.inventory(name)["MEMORY_MB"][1] == taken
        assert len(fleet.drift()) == 0
        fleet.check()


TestCloud = pytest.mark.kernel_twin(pytest.mark.property(Cloud.TestCase))
TestCloud.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
