"""A fleet plan made real: an engine on its hosts, where each of them stands, and what happens to them in their hour."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...placement.decide.engine import Engine
from ...placement.fleet.fleet import Fleet
from ...placement.fleet.inventories import Inventory
from ...placement.gpu.providers import add_gpus, model_trait
from ...placement.load.bulk import add_hosts
from ...placement.policy.policy import Policy
from ...placement.request.checks import check_spec
from ...placement.request.preparation import rules_of
from ...placement.request.prepare import complete
from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.host import Aggregate, Host, RunningInstance
from ...placement.types.request import Flavor, RequestSpec
from .fleet_plan import (
    DOMAINS,
    FleetPlan,
    Growth,
    Hardware,
    Maintenance,
    NamedHost,
    Outage,
    Place,
    checked,
    named_place,
    place_of,
)
from .hardware import PCPU
from .standing_state import at_rest
from .topology import topology_of

_ZONES: Final = uuid.UUID("6e770000-0000-4000-8000-000000000000").int
_RACKS: Final = uuid.UUID("6e780000-0000-4000-8000-000000000000").int
_ROWS: Final = uuid.UUID("6e7d0000-0000-4000-8000-000000000000").int
_CELLS: Final = uuid.UUID("6e7b0000-0000-4000-8000-000000000000").int
_USED: Final = uuid.UUID("6e7c0000-0000-4000-8000-000000000000").int
"""Uuids of the guests that named hosts have from the beginning."""


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
        known: set[str] = set()
        if plan.state:
            self.fleet = at_rest(Path(plan.state))
            known = {self.fleet.name(int(row)) for row in np.flatnonzero(self.fleet.is_host[: self.fleet.rows])}
            gone = [host.name for host in plan.named[:1] if host.name not in known]
            if gone:
                raise InvalidValue(f"{plan.state} has changed: there is no host {gone[0]}", field="state")
        else:
            self.fleet = Fleet(seed=seed, capacity=max(64, plan.hosts + 1))
        self.places: list[Place] = []
        self._zones: NDArray[np.str_] = np.empty(0, np.str_)
        self.came_hours: dict[str, float] = {}
        """How far into the run hosts came that were not there from the beginning."""
        self._kinds = {kind.name: kind for kind in plan.hardware}
        self._made = dict.fromkeys(self._kinds, 0)
        self._aggregates: dict[str, Aggregate] = {}
        self._cells: dict[str, int] = {}
        self.used: dict[str, RequestSpec] = {}
        """The guests that take what is used of named hosts from the beginning, and what each would be asked with."""
        self.closing: Counter[str] = Counter()
        """Hosts that take no new guests -> for how many reasons."""
        self.down: Counter[str] = Counter()
        """Hosts that do not run -> for how many reasons."""
        zones = [zone for kind in plan.hardware for zone in kind.zones]
        for zone in dict.fromkeys([*zones, *plan.zones]):
            self._aggregate(_ZONES, zone, "availability_zone")
        self._know_zones()
        self._add_named(known)
        for kind in plan.hardware:
            self.add(kind.name, kind.count)
        for growth in plan.growth:
            # There before the guests that stand at the beginning are placed, which is a step before hour 0.
            if growth.at_hours <= 0:
                self.add(growth.hardware, growth.add)
        self.engine = Engine(self.fleet, _as_asked(policy), seed=seed)
        self._events = self._planned()

    def add(self, hardware: str, count: int) -> None:
        """More hosts of a kind."""
        kind = self._kinds[hardware]
        first = self._made[hardware]
        places = [place_of(kind, number) for number in range(first, first + count)]
        self._place(places, {})
        self._made[hardware] += count

    def _add_named(self, known: set[str]) -> None:
        """The hosts that the plan names. Those of the state are ``known``: they stand in the fleet with their guests,
        and out of service if they are."""
        self.places += [named_place(host) for host in self.plan.named if host.name in known]
        fleet = self.fleet
        up = fleet.column("service_up")
        for place in self.places:
            row = fleet.row(place.host)
            if fleet._host_class(row).disabled:
                self.closing[place.host] += 1
            if up[row] == 0:
                self.down[place.host] += 1
            self._commit(place)
        new = [host for host in self.plan.named if host.name not in known]
        self._place([named_place(host) for host in new], {host.name: host for host in new})

    def _commit(self, place: Place) -> None:
        """Give a host of the state the over-commit of CPUs that its kind has in the plan."""
        ratio = self._kinds[place.hardware].cpu_allocation_ratio
        own = {name: inventory for name, (inventory, _) in self.fleet.inventory(place.host).items()}
        if "VCPU" in own and own["VCPU"].allocation_ratio != ratio:
            self.fleet.set_inventory(place.host, own | {"VCPU": replace(own["VCPU"], allocation_ratio=ratio)})

    def _place(self, places: Sequence[Place], named: Mapping[str, NamedHost]) -> None:
        """New hosts at places. Named ones have guests from the beginning where some of them is used."""
        hosts = [self._host(self._kinds[place.hardware], place, named.get(place.host)) for place in places]
        add_hosts(self.fleet, hosts)
        kinds = {place.host: self._kinds[place.hardware] for place in places}
        gpus = {host: kind.gpus for host, kind in kinds.items() if kind.gpus}
        if gpus:
            add_gpus(self.fleet, gpus)
        for host, kind in kinds.items():
            more = kind.resources | ({PCPU: kind.dedicated_vcpus} if kind.dedicated_vcpus else {})
            if more:
                own = {name: inventory for name, (inventory, _) in self.fleet.inventory(host).items()}
                own |= {name: Inventory(total=total, max_unit=total) for name, total in more.items()}
                self.fleet.set_inventory(host, own)
        self.places += places

    def _know_zones(self) -> None:
        """Have the fleet know zones in which no host stands yet: a zone that it does not know would not narrow, as in
        Nova, and its guests would be given hosts elsewhere."""
        self.fleet._aggregate_ids(self._aggregates.values())

    def _host(self, kind: Hardware, place: Place, named: NamedHost | None = None) -> Host:
        models = {model_trait(kind.gpu_model)} if kind.gpu_model and kind.gpus else set()
        keys = {"row": place.row, "cluster": place.cluster}
        groups = [self._aggregate(_ROWS, name, key) for key, name in keys.items() if name]
        return Host(
            host=place.host,
            vcpus_total=kind.shared_vcpus,
            cpu_allocation_ratio=kind.cpu_allocation_ratio,
            total_usable_ram_mb=round(kind.memory_gb * 1024),
            ram_allocation_ratio=kind.ram_allocation_ratio,
            total_usable_disk_gb=kind.disk_gb,
            disk_allocation_ratio=kind.disk_allocation_ratio,
            aggregates=(
                self._aggregate(_ZONES, place.zone, "availability_zone"),
                self._aggregate(_RACKS, place.rack, "rack"),
                *groups,
            ),
            reserved_vcpus=kind.reserved_vcpus,
            reserved_ram_mb=round(kind.reserved_memory_gb * 1024),
            reserved_disk_gb=kind.reserved_disk_gb,
            numa_topology=topology_of(kind),
            instances=self._guests(named) if named is not None and any(named.used) else {},
            traits=kind.reported_traits | models,
            cell_uuid=self._cell(place.cell) if place.cell else None,
        )

    def _guests(self, host: NamedHost) -> dict[str, RunningInstance]:
        """The guest that takes what is used of a host from the beginning."""
        vcpus, memory_mb, disk_gb = host.used
        name = str(uuid.UUID(int=_USED + len(self.used) + 1))
        flavor = Flavor(name="used from the beginning", vcpus=vcpus, memory_mb=memory_mb, root_gb=disk_gb)
        resources = {"VCPU": vcpus, "MEMORY_MB": memory_mb, "DISK_GB": disk_gb}
        held = RunningInstance(flavor=flavor, resources={name: n for name, n in resources.items() if n})
        self.used[name] = RequestSpec(flavor=flavor, availability_zone=host.zone)
        return {name: held}

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
        later = [growth for growth in self.plan.growth if growth.at_hours > 0]
        events: list[tuple[float, Growth | _Turn]] = [(growth.at_hours, growth) for growth in later]
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

    def zones_of_places(self) -> NDArray[np.str_]:
        """The zone of each of the ``places``, in order. O(places) where some have come, else O(1)."""
        if len(self._zones) != len(self.places):
            self._zones = np.array([place.zone for place in self.places], np.str_)
        return self._zones

    @property
    def hosts_down(self) -> list[str]:
        """Hosts that do not run. O(such hosts)."""
        return [host for host, reasons in self.down.items() if reasons > 0]

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
                there = len(self.places)
                self.add(event.hardware, event.add)
                self.came_hours.update((place.host, hours) for place in self.places[there:])
                continue
            if event.by > 0:
                event.hosts.extend(self.hosts_of(event.outage))
                (changes.down if event.counts is self.down else changes.closing).extend(event.hosts)
            for host in event.hosts:
                event.counts[host] += event.by
                if not event.counts[host]:
                    del event.counts[host]  # what is looked at in each step is the hosts that are out of service
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
    zones = set(plan.zones)
    for spec in specs:
        if spec.availability_zone and spec.availability_zone not in zones:
            raise UnknownName.among("zone in the trace:", spec.availability_zone, zones, field="trace.zone")


def completed(plan: FleetPlan, policy: Policy, specs: Sequence[RequestSpec]) -> tuple[RequestSpec, ...]:
    """The specs as a site's engine is to be asked with them: those that want it completed as nova-api does, before any
    guest comes. Zones that have no hosts yet and names of other clouds' hosts are left as the trace has them.
    InvalidValue or UnknownName for what the policy cannot judge, and as ``check_zones``. O(specs)."""
    check_zones(plan, specs)
    rules, made = rules_of(policy), dict[int, RequestSpec]()
    for spec in specs:
        if spec.prepare and id(spec) not in made:
            check_spec(spec)
            made[id(spec)] = replace(complete(spec, policy, rules), prepare=False)
    check_zones(plan, made.values())
    return tuple(made.get(id(spec), spec) for spec in specs)


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
