"""A fleet to be, from a TOML file: kinds of hardware with zones, racks, GPUs, over-commit and prices, and what happens
to it: hosts that come, failures and maintenance."""

from __future__ import annotations

import itertools
import tomllib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ..placement.engine import Engine
from ..placement.errors import DuplicateName, InvalidValue, UnknownName
from ..placement.fleet import Fleet
from ..placement.gpu import add_gpus, model_trait
from ..placement.host import Aggregate, Host
from ..placement.load import add_hosts
from ..placement.policy import Policy

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Ratio = Annotated[float, msgspec.Meta(gt=0, le=1000)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_ZONES: Final = uuid.UUID("6e770000-0000-4000-8000-000000000000").int
_RACKS: Final = uuid.UUID("6e780000-0000-4000-8000-000000000000").int


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of host and how many there are, spread evenly over its zones and, within each, over ``racks`` racks.
    ``price_per_hour`` of one host, in whatever currency."""

    name: Text
    count: Count
    vcpus: Positive
    memory_gb: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
    disk_gb: Count = 0
    gpus: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    gpu_model: str = ""
    zones: tuple[Text, ...] = ("zone-1",)
    racks: Positive = 1
    cpu_allocation_ratio: Ratio = 1.0
    ram_allocation_ratio: Ratio = 1.0
    disk_allocation_ratio: Ratio = 1.0
    traits: tuple[str, ...] = ()
    price_per_hour: NotNegative = 0.0


class Growth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``add`` more hosts of a kind, ``at_hours`` into the run."""

    hardware: Text
    add: Positive
    at_hours: NotNegative


class Outage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hosts that take no new guests for a while: one host, a rack or a zone."""

    at_hours: NotNegative
    hours: NotNegative
    host: str = ""
    rack: str = ""
    zone: str = ""


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a fleet file."""

    name: str = "fleet"
    hardware: tuple[Hardware, ...]
    growth: tuple[Growth, ...] = ()
    failures: tuple[Outage, ...] = ()
    maintenance: tuple[Outage, ...] = ()
    burst_price_per_vcpu_hour: NotNegative = 0.0

    def with_counts(self, counts: Mapping[str, int]) -> FleetPlan:
        """The same fleet with other numbers of some kinds of host."""
        kinds = tuple(msgspec.structs.replace(kind, count=counts.get(kind.name, kind.count)) for kind in self.hardware)
        return msgspec.structs.replace(self, hardware=kinds)

    def with_ratio(self, cpu_allocation_ratio: float) -> FleetPlan:
        """The same fleet with another over-commit of CPUs everywhere."""
        kinds = tuple(msgspec.structs.replace(k, cpu_allocation_ratio=cpu_allocation_ratio) for k in self.hardware)
        return msgspec.structs.replace(self, hardware=kinds)

    @property
    def hosts(self) -> int:
        """Hosts that are there from the beginning."""
        return sum(kind.count for kind in self.hardware)


def read_fleet(path: Path) -> FleetPlan:
    """A fleet file. InvalidValue says where it is wrong."""
    try:
        return checked(msgspec.convert(tomllib.loads(path.read_text()), FleetPlan))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidValue(f"{path}: {error}", field="fleet") from None


def checked(plan: FleetPlan) -> FleetPlan:
    """The plan, if names are there once and what happens concerns things that are there."""
    names = [kind.name for kind in plan.hardware]
    if not names:
        raise InvalidValue("a fleet needs a kind of host", field="fleet.hardware")
    for name in names:
        if names.count(name) > 1:
            raise DuplicateName(f"hardware {name} is there twice", field="fleet.hardware")
    for kind in plan.hardware:
        if not kind.zones or len(set(kind.zones)) < len(kind.zones):
            raise InvalidValue(f"hardware {kind.name}: zones must be named, each once", field="fleet.hardware.zones")
    for growth in plan.growth:
        if growth.hardware not in names:
            raise UnknownName.among("hardware", growth.hardware, names, field="fleet.growth.hardware")
    for outage in (*plan.failures, *plan.maintenance):
        if sum(map(bool, (outage.host, outage.rack, outage.zone))) != 1:
            raise InvalidValue("an outage names a host, a rack or a zone", field="fleet.failures")
    return plan


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host stands."""

    host: str
    hardware: str
    zone: str
    rack: str


class Site:
    """A plan made real: an engine on its hosts, where each of them stands, and what happens to them."""

    def __init__(self, plan: FleetPlan, policy: Policy, *, seed: int) -> None:
        self.plan = plan
        self.fleet = Fleet(seed=seed, capacity=max(64, plan.hosts + 1))
        self.places: list[Place] = []
        self._kinds = {kind.name: kind for kind in plan.hardware}
        self._made = dict.fromkeys(self._kinds, 0)
        self._aggregates: dict[str, Aggregate] = {}
        for kind in plan.hardware:
            self.add(kind.name, kind.count)
        self.engine = Engine(self.fleet, policy, seed=seed)
        self._events = self._planned()

    def add(self, hardware: str, count: int) -> None:
        """More hosts of a kind."""
        kind = self._kinds[hardware]
        first = self._made[hardware]
        places = [self._place(kind, number) for number in range(first, first + count)]
        add_hosts(self.fleet, [self._host(kind, place) for place in places])
        if kind.gpus:
            add_gpus(self.fleet, {place.host: kind.gpus for place in places})
        self.places += places
        self._made[hardware] += count

    def _place(self, kind: Hardware, number: int) -> Place:
        zone = kind.zones[number % len(kind.zones)]
        rack = f"{zone}/{kind.name}-r{number // len(kind.zones) % kind.racks + 1}"
        return Place(f"{kind.name}-{number + 1:05}", kind.name, zone, rack)

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
        )

    def _aggregate(self, base: int, name: str, key: str) -> Aggregate:
        known = self._aggregates.get(f"{key} {name}")
        if known is None:
            made = str(uuid.UUID(int=base + len(self._aggregates) + 1))
            known = self._aggregates[f"{key} {name}"] = Aggregate(uuid=made, name=name, metadata={key: name})
        return known

    # what happens

    def _planned(self) -> list[tuple[float, int, Growth | tuple[Outage, bool]]]:
        numbers = itertools.count()
        events: list[tuple[float, int, Growth | tuple[Outage, bool]]] = [
            (growth.at_hours, next(numbers), growth) for growth in self.plan.growth
        ]
        for outage in (*self.plan.failures, *self.plan.maintenance):
            if not self.hosts_of(outage):
                named = outage.host or outage.rack or outage.zone
                known = [each for place in self.places for each in (place.host, place.rack, place.zone)]
                raise UnknownName.among("host, rack or zone", named, set(known), field="fleet.failures")
            events.append((outage.at_hours, next(numbers), (outage, True)))
            events.append((outage.at_hours + outage.hours, next(numbers), (outage, False)))
        return sorted(events, key=lambda event: event[:2], reverse=True)

    def hosts_of(self, outage: Outage) -> list[str]:
        """The hosts that an outage concerns."""
        named = outage.host, outage.rack, outage.zone
        return [
            place.host
            for place in self.places
            if any(wanted == own for wanted, own in zip(named, (place.host, place.rack, place.zone), strict=True))
        ]

    def happen(self, hours: float) -> None:
        """Let everything happen that is due ``hours`` into the run."""
        fleet = self.engine.fleet
        while self._events and self._events[-1][0] <= hours:
            _, _, event = self._events.pop()
            if isinstance(event, Growth):
                self.add(event.hardware, event.add)
                continue
            outage, begins = event
            for host in self.hosts_of(outage):
                fleet.set_service(host, disabled=begins, disabled_reason="planned outage" if begins else "")
