"""A fleet plan made real: an engine on its hosts, where each of them stands, and what happens to them in their hour."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from ...placement.decide.engine import Engine
from ...placement.fleet.fleet import Fleet
from ...placement.gpu.providers import add_gpus, model_trait
from ...placement.load.bulk import add_hosts
from ...placement.policy.policy import Policy
from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.host import Aggregate, Host
from ...placement.types.request import RequestSpec
from .fleet_plan import DOMAINS, FleetPlan, Growth, Hardware, Maintenance, Outage, Place, checked, place_of

_ZONES: Final = uuid.UUID("6e770000-0000-4000-8000-000000000000").int
_RACKS: Final = uuid.UUID("6e780000-0000-4000-8000-000000000000").int
_CELLS: Final = uuid.UUID("6e7b0000-0000-4000-8000-000000000000").int


@dataclass(slots=True)
class Changes:
    """Hosts that have just gone out of service: ``closing`` take no new guests and are to be emptied, ``down`` have
    none any more that runs."""

    closing: list[str] = field(default_factory=list)
    down: list[str] = field(default_factory=list)


def minds_outages(policy: Policy) -> bool:
    """True if a policy leaves hosts alone that are out of service."""
    return "ComputeFilter" in (rule.name for rule in policy.filters)


class Site:
    """A plan made real: an engine on its hosts, where each of them stands, and what happens to them."""

    def __init__(self, plan: FleetPlan, policy: Policy, *, seed: int) -> None:
        self.plan = checked(plan)
        outages = plan.failures or plan.maintenance
        if outages and not minds_outages(policy):
            problem = f"policy {policy.name} has no ComputeFilter: it would use hosts that are out of service"
            raise InvalidValue(
                problem, field="policy", hint="enable ComputeFilter, or leave failures and maintenance out"
            )
        self.fleet = Fleet(seed=seed, capacity=max(64, plan.hosts + 1))
        self.places: list[Place] = []
        self._kinds = {kind.name: kind for kind in plan.hardware}
        self._made = dict.fromkeys(self._kinds, 0)
        self._aggregates: dict[str, Aggregate] = {}
        self._cells: dict[str, int] = {}
        self.closing: Counter[str] = Counter()
        """Hosts that take no new guests -> for how many reasons."""
        self.down: Counter[str] = Counter()
        """Hosts that do not run -> for how many reasons."""
        for zone in dict.fromkeys(zone for kind in plan.hardware for zone in kind.zones):
            self._aggregate(_ZONES, zone, "availability_zone")
        self._know_zones()
        for kind in plan.hardware:
            self.add(kind.name, kind.count)
        self.engine = Engine(self.fleet, _as_asked(policy), seed=seed)
        self._events = self._planned()

    def add(self, hardware: str, count: int) -> None:
        """More hosts of a kind."""
        kind = self._kinds[hardware]
        first = self._made[hardware]
        places = [place_of(kind, number) for number in range(first, first + count)]
        add_hosts(self.fleet, [self._host(kind, place) for place in places])
        if kind.gpus:
            add_gpus(self.fleet, {place.host: kind.gpus for place in places})
        self.places += places
        self._made[hardware] += count

    def _know_zones(self) -> None:
        """Have the fleet know zones in which no host stands yet: a zone that it does not know would not narrow, as in
        Nova, and its guests would be given hosts elsewhere."""
        self.fleet._aggregate_ids(self._aggregates.values())

    def _host(self, kind: Hardware, place: Place) -> Host:
        models = {model_trait(kind.gpu_model)} if kind.gpu_model and kind.gpus else set()
        return Host(
            host=place.host,
            vcpus_total=kind.vcpus,
            cpu_allocation_ratio=kind.cpu_allocation_ratio,
            total_usable_ram_mb=round(kind.memory_gb * 1024),
            ram_allocation_ratio=kind.ram_allocation_ratio,
            total_usable_disk_gb=kind.disk_gb,
            disk_allocation_ratio=kind.disk_allocation_ratio,
            aggregates=(
                self._aggregate(_ZONES, place.zone, "availability_zone"),
                self._aggregate(_RACKS, place.rack, "rack"),
            ),
            traits=frozenset({*kind.traits, *models}),
            cell_uuid=self._cell(place.cell) if place.cell else None,
        )

    def _aggregate(self, base: int, name: str, key: str) -> Aggregate:
        known = self._aggregates.get(f"{key} {name}")
        if known is None:
            made = str(uuid.UUID(int=base + len(self._aggregates) + 1))
            known = self._aggregates[f"{key} {name}"] = Aggregate(uuid=made, name=name, metadata={key: name})
        return known

    def _cell(self, name: str) -> str:
        known = self._cells.setdefault(name, len(self._cells))
        return str(uuid.UUID(int=_CELLS + known + 1))

    # what happens

    def _planned(self) -> list[tuple[float, int, Growth | _Turn]]:
        """What is to happen, the last first."""
        events: list[tuple[float, Growth | _Turn]] = [(growth.at_hours, growth) for growth in self.plan.growth]
        for outage in (*self.plan.failures, *self.plan.maintenance):
            begins, ends = outage.at_hours, outage.at_hours + outage.hours
            hosts: list[str] = []
            if isinstance(outage, Maintenance):
                drained: list[str] = []
                events.append((begins - outage.notice_hours, _Turn(outage, drained, self.closing, 1)))
                events.append((ends, _Turn(outage, drained, self.closing, -1)))
            events.append((begins, _Turn(outage, hosts, self.down, 1)))
            events.append((ends, _Turn(outage, hosts, self.down, -1)))
        numbered = [(hours, number, event) for number, (hours, event) in enumerate(events)]
        return sorted(numbered, key=lambda event: event[:2], reverse=True)

    def hosts_of(self, outage: Outage) -> list[str]:
        """The hosts that there are now which an outage concerns."""
        word = next(word for word in DOMAINS if getattr(outage, word))
        return [place.host for place in self.places if getattr(place, word) == getattr(outage, word)]

    @property
    def next_event_hours(self) -> float:
        """How far into the run the next event is due; infinite if none is."""
        return self._events[-1][0] if self._events else math.inf

    def happen(self, hours: float) -> Changes:
        """Let everything happen that is due ``hours`` into the run. O(what is due)."""
        changes = Changes()
        while self._events and self._events[-1][0] <= hours:
            _, _, event = self._events.pop()
            if isinstance(event, Growth):
                self.add(event.hardware, event.add)
                continue
            if event.by > 0:
                event.hosts.extend(self.hosts_of(event.outage))
                (changes.down if event.counts is self.down else changes.closing).extend(event.hosts)
            for host in event.hosts:
                event.counts[host] += event.by
                self._set(host)
        return changes

    def replace_fleet(self, fleet: Fleet, sequence: int) -> None:
        """Go on with a fleet on which all that has happened so far has happened, and so many decisions."""
        self.fleet = fleet
        self._know_zones()
        self.engine = Engine(fleet, self.engine.policy, seed=self.engine.seed)
        self.engine.sequence = sequence

    def _set(self, host: str) -> None:
        closed, down = self.closing[host] > 0, self.down[host] > 0
        reason = "maintenance" if closed else ""
        self.engine.fleet.set_service(host, disabled=closed, disabled_reason=reason, forced_down=down)


def check_zones(plan: FleetPlan, specs: Iterable[RequestSpec]) -> None:
    """UnknownName for a zone that a guest asks for and no host of the plan stands or will stand in."""
    zones = {zone for kind in plan.hardware for zone in kind.zones}
    for spec in specs:
        if spec.availability_zone and spec.availability_zone not in zones:
            raise UnknownName.among("zone in the trace:", spec.availability_zone, zones, field="trace.zone")


@dataclass(frozen=True, slots=True)
class _Turn:
    """A point at which an outage, or its notice, begins (``by`` 1) or ends (-1) for the ``hosts`` there were."""

    outage: Outage
    hosts: list[str]
    counts: Counter[str]
    by: int


def _as_asked(policy: Policy) -> Policy:
    """The policy with requests taken as the trace has them: a guest of a zone that has no hosts yet waits or is
    refused, where nova-api would not know the zone."""
    return replace(policy, own=msgspec.structs.replace(policy.own, prepare=False))
