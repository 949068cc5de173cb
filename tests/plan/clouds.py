"""Small clouds as plain values, the engines on them, and a slow checker that states every rule a second time and
replays plans on them move by move."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hostler import (
    Aggregate,
    Engine,
    Flavor,
    Fleet,
    Host,
    Image,
    NumaCell,
    NumaTopology,
    PciPool,
    PciRequest,
    Plan,
    Policy,
    Request,
    RequestSpec,
    add_hosts,
)

GPU = {"vendor_id": "10de", "product_id": "2330"}


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


@dataclass
class Machine:
    """A host: vCPUs that may be allocated, MiB, GiB, its zone, traits, NUMA cells and free devices."""

    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    zone: str = ""
    traits: frozenset[str] = frozenset()
    cells: int = 0
    devices: int = 0
    disabled: bool = False


@dataclass
class Guest:
    """An instance: its size, its host, what it was asked with, and its group."""

    uuid: str
    host: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    zone: str | None = None
    trait: str | None = None
    group: str | None = None
    numa: bool = False
    devices: int = 0


@dataclass
class Cloud:
    """``groups``: uuid -> (policy, members per host)."""

    machines: list[Machine]
    guests: list[Guest] = field(default_factory=list)
    groups: dict[str, tuple[str, int]] = field(default_factory=dict)


def spec_of(guest: Guest) -> RequestSpec:
    extra = {} if guest.trait is None else {f"trait:{guest.trait}": "required"}
    if guest.numa:
        extra["hw:numa_nodes"] = "1"
    flavor = Flavor(
        name=f"f-{guest.vcpus}-{guest.memory_mb}-{guest.disk_gb}-{guest.trait}-{guest.numa}",
        vcpus=guest.vcpus,
        memory_mb=guest.memory_mb,
        root_gb=guest.disk_gb,
        extra_specs=extra,
    )
    asked = (PciRequest(count=guest.devices, spec=(GPU,), request_id=guest.uuid),) if guest.devices else ()
    return RequestSpec(
        flavor=flavor,
        image=Image(),
        availability_zone=guest.zone,
        pci_requests=asked,
        prepare=True if guest.numa else None,
    )


def engine_of(cloud: Cloud) -> tuple[Engine, dict[str, RequestSpec]]:
    """An engine with the guests on their hosts, and what they were asked with."""
    fleet, zones = Fleet(), sorted({machine.zone for machine in cloud.machines if machine.zone})
    aggregates = {
        zone: Aggregate(uuid=uuid_of(900_000 + number), name=zone, metadata={"availability_zone": zone})
        for number, zone in enumerate(zones)
    }
    add_hosts(fleet, [_host(machine, aggregates) for machine in cloud.machines])
    for uuid, (policy, most) in cloud.groups.items():
        fleet.add_server_group(uuid, policy, max_server_per_host=most)
    filters = [
        *("ComputeFilter", "ComputeCapabilitiesFilter", "ImagePropertiesFilter", "NUMATopologyFilter"),
        *("ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter", "PciPassthroughFilter"),
    ]
    engine = Engine(fleet, Policy.from_mapping({"filter_scheduler": {"enabled_filters": filters}}))
    asked = {guest.uuid: spec_of(guest) for guest in cloud.guests}
    for guest in cloud.guests:
        spec = asked[guest.uuid]
        forced = RequestSpec(**{**{n: getattr(spec, n) for n in spec.__slots__}, "force_hosts": (guest.host,)})
        request = Request(spec=forced, instance_uuids=(guest.uuid,), server_group=guest.group)
        assert engine.place(request).host == guest.host
        engine.spawned(guest.uuid)
    fleet = engine.fleet
    for machine in cloud.machines:
        if machine.disabled:
            fleet.set_service(machine.name, disabled=True)
    fleet.check()
    return engine, asked


def _host(machine: Machine, aggregates: dict[str, Aggregate]) -> Host:
    share = machine.vcpus // max(machine.cells, 1)
    cells = tuple(
        NumaCell(
            id=cell,
            cpuset=frozenset(range(cell * share, (cell + 1) * share)),
            memory=machine.memory_mb // machine.cells,
        )
        for cell in range(machine.cells)
    )
    return Host(
        host=machine.name,
        vcpus_total=machine.vcpus,
        cpu_allocation_ratio=1.0,
        total_usable_ram_mb=machine.memory_mb,
        total_usable_disk_gb=machine.disk_gb,
        traits=machine.traits,
        numa_topology=NumaTopology(cells=cells) if cells else None,
        pci_pools=(PciPool(count=machine.devices, tags=GPU),) if machine.devices else (),
        aggregates=(aggregates[machine.zone],) if machine.zone else (),
    )


# rules, stated again


class Ledger:
    """Who is where. ``extra``: guests that hold a second host while they move."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.machines = {machine.name: machine for machine in cloud.machines}
        self.guests = {guest.uuid: guest for guest in cloud.guests}
        self.at = {guest.uuid: [guest.host] for guest in cloud.guests}

    def on(self, host: str) -> list[Guest]:
        return [self.guests[uuid] for uuid, hosts in self.at.items() if host in hosts]

    def broken(self) -> str | None:
        """The first rule that the state breaks."""
        for name in self.machines:
            found = self._broken_on(name)
            if found:
                return f"{name}: {found}"
        for uuid, (policy, most) in self.cloud.groups.items():
            held = Counter(host for g, hosts in self.at.items() if self.guests[g].group == uuid for host in hosts)
            if policy == "anti-affinity" and any(count > most for count in held.values()):
                return f"group {uuid} has {held}"
            if policy == "affinity" and len(held) > 1:
                return f"group {uuid} is on {sorted(held)}"
        return None

    def _broken_on(self, name: str) -> str | None:
        machine, guests = self.machines[name], self.on(name)
        if sum(guest.vcpus for guest in guests) > machine.vcpus:
            return "vCPUs"
        if sum(guest.memory_mb for guest in guests) > machine.memory_mb:
            return "memory"
        if sum(guest.disk_gb for guest in guests) > machine.disk_gb:
            return "disk"
        if sum(guest.devices for guest in guests) > machine.devices:
            return "devices"
        if any(guest.zone not in (None, machine.zone) for guest in guests):
            return "zone"
        if any(guest.trait is not None and guest.trait not in machine.traits for guest in guests):
            return "trait"
        numa = [guest for guest in guests if guest.numa]
        if numa and not self._in_cells(machine, numa):
            return "NUMA cells"
        return None

    @staticmethod
    def _in_cells(machine: Machine, guests: Sequence[Guest]) -> bool:
        """Whether guests of one cell each can be dealt out to the cells at all."""
        if not machine.cells:
            return False
        share = machine.vcpus // machine.cells, machine.memory_mb // machine.cells

        def deal(left: Sequence[Guest], cells: list[tuple[int, int]]) -> bool:
            if not left:
                return True
            first, rest = left[0], left[1:]
            for index in range(len(cells)):
                vcpus, memory_mb = cells[index]
                if vcpus >= first.vcpus and memory_mb >= first.memory_mb:
                    after = [*cells]
                    after[index] = (vcpus - first.vcpus, memory_mb - first.memory_mb)
                    if deal(rest, after):
                        return True
            return False

        return deal(sorted(guests, key=lambda guest: -guest.memory_mb), [share] * machine.cells)

    def replay(self, plan: Plan, per_host: int) -> None:
        """Carry a plan out, with both ends of all moves of a wave held; every state keeps every rule."""
        for wave in plan.waves:
            busy = Counter[str]()
            for move in wave.moves:
                assert self.at[move.instance] == [move.source], "it is where the plan says"
                assert move.source != move.target
                assert not self.machines[move.target].disabled
                self.at[move.instance].append(move.target)
                busy.update((move.source, move.target))
                assert self.broken() is None, (self.broken(), move)
            assert not per_host or max(busy.values()) <= per_host
            for move in wave.moves:
                self.at[move.instance].remove(move.source)
                assert self.broken() is None
            for name in wave.empty:
                assert not self.on(name)


# random clouds


def random_cloud(seed: int, *, machines: int = 6, load: float = 0.45, plain: bool = False) -> Cloud:
    """A cloud of hosts and guests that keeps every rule; ``plain``: capacity is the only one."""
    rng = random.Random(seed)
    sizes = [(8, 16_384, 400), (16, 32_768, 400), (16, 65_536, 800)]
    made = []
    for number in range(machines):
        vcpus, memory_mb, disk_gb = rng.choice(sizes)
        extras = (
            {}
            if plain
            else {
                "zone": rng.choice(["", "east", "west"]),
                "traits": frozenset(rng.sample(["CUSTOM_FAST", "CUSTOM_SAFE"], rng.randrange(3))),
                "cells": rng.choice([0, 2]),
                "devices": rng.choice([0, 0, 2]),
                "disabled": rng.random() < 0.1,
            }
        )
        made.append(Machine(f"n{number}", vcpus, memory_mb, disk_gb, **extras))  # type: ignore[arg-type]  # of several types
    groups = (
        {}
        if plain
        else {
            uuid_of(800_001): ("anti-affinity", 1),
            uuid_of(800_002): ("anti-affinity", 2),
            uuid_of(800_003): ("affinity", 1),
        }
    )
    cloud = Cloud(made, groups=groups)
    ledger = Ledger(cloud)
    total = sum(machine.memory_mb for machine in made)
    used, number, misses = 0, 0, 0
    while used < load * total and misses < 200:
        guest = _random_guest(rng, uuid_of(number + 1), rng.choice(made), list(groups), plain=plain)
        ledger.guests[guest.uuid], ledger.at[guest.uuid] = guest, [guest.host]
        if ledger.broken():
            del ledger.guests[guest.uuid], ledger.at[guest.uuid]
            misses += 1
            continue
        cloud.guests.append(guest)
        used, number = used + guest.memory_mb, number + 1
    return cloud


def _random_guest(rng: random.Random, uuid: str, machine: Machine, groups: list[str], *, plain: bool) -> Guest:
    vcpus = rng.choice([1, 1, 2, 4])
    guest = Guest(uuid, machine.name, vcpus, vcpus * rng.choice([1_024, 2_048, 4_096]), rng.choice([0, 10, 40]))
    if plain:
        return guest
    guest.zone = rng.choice([None, None, machine.zone or None])
    guest.trait = rng.choice([None, None, None, *machine.traits])
    guest.group = rng.choice([None, None, None, *groups])
    guest.numa = machine.cells > 0 and rng.random() < 0.2
    guest.devices = 1 if machine.devices and rng.random() < 0.3 else 0
    return guest
