"""The summary of a region: against one made anew, and against hosts counted one by one."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from hostler.core import engine_commands as p
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.machine.region_summary import SHAPE_CLASSES, RegionSummary, Summarizer, merged
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.tenants import LOCAL
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Aggregate, Host

from .region_processes import uuid_of, wish


def _host(name: str, zone: int, chance: random.Random) -> Host:
    aggregate = Aggregate(uuid=uuid_of(900 + zone), name=f"z{zone}", metadata={"availability_zone": f"z{zone}"})
    vcpus = chance.choice([4, 16, 64])
    return Host(
        host=name,
        vcpus_total=vcpus,
        cpu_allocation_ratio=chance.choice([1.0, 2.0]),
        total_usable_ram_mb=vcpus * 4_096,
        total_usable_disk_gb=1_000,
        aggregates=(aggregate,),
    )


def _commands(seed: int) -> list[Any]:
    chance, made, guests = random.Random(seed), list[Any](), list[int]()
    for number in range(200):
        kind = chance.random()
        if number < 8 or kind < 0.1:
            made.append(p.AddHosts(hosts=(_host(f"h{number}", chance.randrange(3), chance),)))
        elif kind < 0.6:
            guests.append(1_000 + number)
            made.append(p.Place(request=wish(guests[-1], vcpus=chance.choice([1, 2, 8]))))
        elif kind < 0.8 and guests:
            made.append(p.Release(uuids=(uuid_of(guests.pop(chance.randrange(len(guests)))),)))
        elif kind < 0.85:
            made.append(p.SetService(name=f"h{chance.randrange(8)}", disabled=chance.random() < 0.5))
        elif kind < 0.9:
            made.append(p.RemoveHost(name=f"h{chance.randrange(number)}"))
        elif kind < 0.95:
            made.append(c.CreatePool(id=f"pool{number}", exclusive=chance.random() < 0.5, hosts=(f"h{number % 8}",)))
        else:
            renamed = Aggregate(uuid=uuid_of(900), name="z0", metadata={"availability_zone": f"z{chance.randrange(4)}"})
            made.append(p.UpdateAggregate(aggregate=renamed))
    return made


def test_a_summary_that_is_kept_up_to_date_is_that_of_the_hosts_counted_one_by_one() -> None:
    for seed in range(6):
        machine, kept = ServiceMachine(), Summarizer()
        for number, command in enumerate(_commands(seed)):
            try:
                machine.apply(Order(1_000.0, LOCAL, command))
            except HostlerError:
                continue  # a host that was there, or is gone
            if number % 3 == 0:
                summary = kept.summary(machine.state, number)
                assert summary == Summarizer().summary(machine.state, number)
                assert _counted(machine) == {
                    "hosts": sum(area.hosts for area in summary.areas),
                    "fits": [sum(area.fits[i] for area in summary.areas) for i in range(len(SHAPE_CLASSES))],
                }


def _counted(machine: ServiceMachine) -> dict[str, Any]:
    fleet = machine.state.fleet
    hosts, fits = 0, [0] * len(SHAPE_CLASSES)
    for row in range(fleet.rows):
        if not fleet.is_host[row] or not fleet.column("service_up")[row]:
            continue
        hosts += 1
        free = {}
        for name, (inventory, used) in fleet.inventory(fleet.name(row)).items():
            free[name] = int((inventory.total - inventory.reserved) * inventory.allocation_ratio) - used
        for position, (vcpus, memory_mb) in enumerate(SHAPE_CLASSES):
            fits[position] += max(min(free["VCPU"] // vcpus, free["MEMORY_MB"] // memory_mb), 0)
    return {"hosts": hosts, "fits": fits}


def test_a_parent_tells_the_sum_of_its_regions_and_all_fit_in_a_few_kib() -> None:
    machines = []
    for seed in range(3):
        machine = ServiceMachine()
        for command in _commands(seed):
            try:
                machine.apply(Order(1_000.0, LOCAL, command))
            except HostlerError:
                continue
        machines.append(machine)
    summaries = [Summarizer().summary(machine.state, 1) for machine in machines]
    whole = merged(7, summaries)
    assert whole.version == 7
    for part in ("hosts", "free_vcpus", "free_memory_mb", "free_disk_gb"):
        assert sum(getattr(area, part) for area in whole.areas) == sum(
            getattr(area, part) for summary in summaries for area in summary.areas
        )
    data = msgspec.msgpack.encode(whole)
    assert len(data) < 4_096
    assert msgspec.msgpack.decode(data, type=RegionSummary) == whole
