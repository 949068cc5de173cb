"""Plans on clouds of hosts with pinned CPUs, huge pages, shared GPUs and PCI devices: every state between is held
against rules that are stated again, the engine carries each plan out, and takes it back."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from hostler import (
    Aggregate,
    Balance,
    Consolidate,
    Defragment,
    Destination,
    Drain,
    Engine,
    EvacuateProof,
    Flavor,
    Fleet,
    Host,
    Image,
    MakeRoom,
    NumaCell,
    NumaTopology,
    PciPool,
    PciRequest,
    Plan,
    Policy,
    Request,
    RequestSpec,
    add_gpus,
    add_hosts,
    check_plan,
    gpu_extra_specs,
)
from hostler.placement.fleet.inventories import Inventory
from hostler.placement.types.host import MemoryPages

from .clouds import GPU, uuid_of

THREADS = 16
RATIO = 2
WHOLE = 1_000
"""Thousandths of a GPU."""
FILTERS = [
    *("ComputeFilter", "ComputeCapabilitiesFilter", "ImagePropertiesFilter", "NUMATopologyFilter"),
    *("ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter", "PciPassthroughFilter", "GpuModelFilter"),
]
GROUPS = {
    uuid_of(800_001): ("anti-affinity", 1),
    uuid_of(800_002): ("anti-affinity", 2),
    uuid_of(800_003): ("affinity", 1),
    uuid_of(800_004): ("soft-anti-affinity", 1),
}


@dataclass(frozen=True)
class Box:
    """A host of 16 threads, ``dedicated`` of which are for pinned guests; ``pages`` of 1 GiB."""

    zone: str
    rack: str
    memory_mb: int
    cells: int = 0
    dedicated: int = 0
    pages: int = 0
    gpus: int = 0
    devices: int = 0
    device_cell: int | None = None
    disabled: bool = False


@dataclass(frozen=True)
class Wish:
    """A guest; ``kind`` is what it asks for beside room."""

    kind: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    zone: str | None
    group: str | None
    milli: int = 0
    gpus: int = 0

    def spec(self, uuid: str) -> RequestSpec:
        extra = {
            "pinned": {"hw:cpu_policy": "dedicated"},
            "pinned on two": {"hw:cpu_policy": "dedicated", "hw:numa_nodes": "2"},
            "two cells": {"hw:numa_nodes": "2"},
            "pages": {"hw:mem_page_size": "1GB"},
        }.get(self.kind, dict(gpu_extra_specs(self.milli, self.gpus)) if self.gpus else {})
        flavor = Flavor(name=uuid, vcpus=self.vcpus, memory_mb=self.memory_mb, root_gb=self.disk_gb, extra_specs=extra)
        device = (PciRequest(count=1, spec=(GPU,), request_id=uuid),) if self.kind == "device" else ()
        cells = True if any(key.startswith("hw:") for key in extra) else None
        return RequestSpec(
            flavor=flavor, image=Image(), availability_zone=self.zone, pci_requests=device, prepare=cells
        )


def boxes(rng: random.Random) -> dict[str, Box]:
    made = {}
    for number in range(rng.randint(4, 8)):
        kind = rng.choice(["plain", "cells", "devices", "gpus"])
        memory_mb, zone, rack = rng.choice([32_768, 65_536]), rng.choice("aab"), rng.choice(["r1", "r2", "r3"])
        kinds: dict[str, dict[str, Any]] = {
            "plain": {},
            "cells": {"cells": rng.choice([1, 2]), "dedicated": rng.choice([0, 4, 8]), "pages": rng.choice([0, 8])},
            "devices": {
                "cells": (cells := rng.choice([1, 2])),
                "devices": 3,
                "device_cell": rng.choice([None, cells - 1]),
            },
            "gpus": {"gpus": 2},
        }
        made[f"h{number}"] = Box(zone, rack, memory_mb, disabled=rng.random() < 0.08, **kinds[kind])
    return made


def topology(box: Box) -> NumaTopology | None:
    cells = []
    for number in range(box.cells):
        own = list(range(number * THREADS // box.cells, (number + 1) * THREADS // box.cells))
        shared, memory = own[: len(own) - box.dedicated // box.cells], box.memory_mb // box.cells
        huge = box.pages // box.cells
        pages = [MemoryPages(size_kb=4, total=(memory - huge * 1024) * 256)]
        pages += [MemoryPages(size_kb=1_048_576, total=huge)] if huge else []
        pinned, cores = frozenset(own[len(shared) :]), tuple(frozenset({thread}) for thread in own)
        cells.append(
            NumaCell(
                id=number,
                cpuset=frozenset(shared),
                pcpuset=pinned,
                memory=memory,
                siblings=cores,
                mempages=tuple(pages),
            )
        )
    return NumaTopology(cells=tuple(cells)) if cells else None


def wish(rng: random.Random) -> Wish:
    kind = rng.choice(["", "", "", "pinned", "pinned on two", "two cells", "pages", "gpu", "device"])
    vcpus = rng.choice([1, 1, 2, 4])
    memory_mb = vcpus * rng.choice([1_024, 2_048, 4_096])
    if kind in ("pinned on two", "two cells"):
        vcpus, memory_mb = 2, 4_096
    memory_mb = 2_048 if kind == "pages" else memory_mb
    milli = rng.choice([300, 500, WHOLE]) if kind == "gpu" else 0
    gpus = 0 if not milli else 1 if milli < WHOLE else rng.choice([1, 2])
    zone, group = rng.choice([None, None, "a"]), rng.choice([None] * 6 + list(GROUPS))
    return Wish(kind, vcpus, memory_mb, rng.choice([0, 20]), zone, group, milli, gpus)


@dataclass
class Mixed:
    """A cloud, the engine on it, and who is where."""

    engine: Engine
    boxes: dict[str, Box]
    guests: dict[str, Wish]
    asked: dict[str, RequestSpec]
    at: dict[str, str]


def mixed(seed: int) -> Mixed:
    rng = random.Random(seed)
    found, fleet = boxes(rng), Fleet()
    named = sorted({box.zone for box in found.values()} | {box.rack for box in found.values()})
    groups = {
        name: Aggregate(
            uuid=uuid_of(900_000 + at), name=name, metadata={"rack" if name[0] == "r" else "availability_zone": name}
        )
        for at, name in enumerate(named)
    }
    add_hosts(
        fleet,
        [
            Host(
                host=name,
                vcpus_total=THREADS - box.dedicated,
                cpu_allocation_ratio=float(RATIO),
                total_usable_ram_mb=box.memory_mb,
                total_usable_disk_gb=500,
                numa_topology=topology(box),
                pci_pools=(PciPool(count=3, tags=GPU, numa_node=box.device_cell),) if box.devices else (),
                aggregates=(groups[box.zone], groups[box.rack]),
            )
            for name, box in found.items()
        ],
    )
    add_gpus(fleet, {name: box.gpus for name, box in found.items() if box.gpus})
    for name, box in found.items():
        if box.dedicated:
            own = {each: inventory for each, (inventory, _) in fleet.inventory(name).items()}
            own["PCPU"] = Inventory(total=box.dedicated, max_unit=box.dedicated)
            fleet.set_inventory(name, own)
    for uuid, (policy, most) in GROUPS.items():
        fleet.add_server_group(uuid, policy, max_server_per_host=most)
    rules = {"available_filters": ["nova.scheduler.filters.all_filters", "GpuModelFilter"], "enabled_filters": FILTERS}
    cloud = Mixed(Engine(fleet, Policy.from_mapping({"filter_scheduler": rules}), seed=seed), found, {}, {}, {})
    fill(cloud, rng, rng.choice([0.3, 0.5, 0.7, 0.9]) * sum(box.memory_mb for box in found.values()))
    for name, box in found.items():
        if box.disabled:
            cloud.engine.fleet.set_service(name, disabled=True)
    return cloud


def fill(cloud: Mixed, rng: random.Random, memory_mb: float) -> None:
    number = misses = 0
    while memory_mb > 0 and misses < 40:
        number += 1
        each, uuid = wish(rng), uuid_of(number)
        each = (
            each
            if each.zone in {None, *(box.zone for box in cloud.boxes.values())}
            else dataclasses.replace(each, zone=None)
        )
        spec = each.spec(uuid)
        decision = cloud.engine.place(Request(spec=spec, instance_uuids=(uuid,), server_group=each.group))
        if not decision.placed or decision.host is None:
            misses += 1
            continue
        cloud.engine.spawned(uuid)
        cloud.asked[uuid], cloud.guests[uuid], cloud.at[uuid] = spec, each, decision.host
        memory_mb -= each.memory_mb


# rules, stated again


def dealt(sizes: Sequence[int], rooms: Sequence[int]) -> bool:
    """Whether sizes, the largest first, can be dealt to rooms at all."""
    if not sizes:
        return True
    tried = set[int]()
    for at, room in enumerate(rooms):
        if room >= sizes[0] and room not in tried:
            tried.add(room)
            if dealt(sizes[1:], [*rooms[:at], room - sizes[0], *rooms[at + 1 :]]):
                return True
    return False


def broken_on(box: Box, guests: Sequence[Wish]) -> str | None:
    """The first rule that the guests of a host break."""
    pinned = [guest for guest in guests if guest.kind.startswith("pinned")]
    shared = sum(guest.vcpus for guest in guests) - sum(guest.vcpus for guest in pinned)
    sums = {
        "vCPUs": shared <= (THREADS - box.dedicated) * RATIO,
        "dedicated CPUs": sum(guest.vcpus for guest in pinned) <= box.dedicated,
        "memory": sum(guest.memory_mb for guest in guests) <= box.memory_mb,
        "disk": sum(guest.disk_gb for guest in guests) <= 500,
        "devices": sum(guest.kind == "device" for guest in guests) <= box.devices,
        "pages": sum(guest.memory_mb for guest in guests if guest.kind == "pages") <= box.pages * 1024,
        "zone": all(guest.zone in (None, box.zone) for guest in guests),
        "cells": box.cells >= 2 or not any(guest.kind in ("pinned on two", "two cells") for guest in guests),
        "GPUs": dealt(
            sorted((guest.milli for guest in guests for _ in range(guest.gpus)), reverse=True), [WHOLE] * box.gpus
        ),
    }
    if box.cells and box.dedicated:
        each = box.dedicated // box.cells - sum(guest.kind == "pinned on two" for guest in pinned)
        ones = sorted((guest.vcpus for guest in pinned if guest.kind == "pinned"), reverse=True)
        sums["cells of pinned guests"] = dealt(ones, [each] * box.cells)
    return next((rule for rule, kept in sums.items() if not kept), None)


def broken(cloud: Mixed, at: dict[str, list[str]]) -> str | None:
    """The first rule that a state breaks, with both hosts of guests that move."""
    on = defaultdict[str, list[Wish]](list)
    for uuid, hosts in at.items():
        for host in hosts:
            on[host].append(cloud.guests[uuid])
    for host, guests in on.items():
        if rule := broken_on(cloud.boxes[host], guests):
            return f"{host}: {rule}"
    for group, (policy, most) in GROUPS.items():
        held = Counter(host for uuid, hosts in at.items() if cloud.guests[uuid].group == group for host in hosts)
        if policy == "anti-affinity" and any(count > most for count in held.values()):
            return f"{policy}: {held}"
        if policy == "affinity" and len(held) > 1:
            return f"{policy}: {held}"
    return None


def replayed(cloud: Mixed, plan: Plan, per_host: int) -> None:
    """Every state of a plan keeps every rule."""
    at = {uuid: [host] for uuid, host in cloud.at.items()}
    assert broken(cloud, at) is None
    for wave in plan.waves:
        busy = Counter[str]()
        for move in wave.moves:
            assert at[move.instance] == [move.source]
            assert not cloud.boxes[move.target].disabled
            at[move.instance].append(move.target)
            busy.update((move.source, move.target))
            assert broken(cloud, at) is None, move
        assert not per_host or max(busy.values()) <= per_host
        for move in wave.moves:
            at[move.instance].remove(move.source)
            assert broken(cloud, at) is None, move
        assert not any(host in hosts for host in wave.empty for hosts in at.values())


def carried_out(engine: Engine, cloud: Mixed, plan: Plan) -> None:
    for wave in plan.waves:
        for move in wave.moves:
            to = Destination(host=move.target, node=move.target)
            spec = dataclasses.replace(cloud.asked[move.instance], requested_destination=to)
            decision = engine.begin_move(move.instance, Request(spec=spec), kind=move.kind)
            assert decision.placed, (move, decision.refusal)
        for move in wave.moves:
            engine.confirm(move.instance)
            engine.spawned(move.instance)
    engine.fleet.check()


def goals(cloud: Mixed, rng: random.Random) -> dict[str, Any]:
    names = list(cloud.boxes)

    def request(vcpus: int, memory_mb: int, specs: dict[str, str] | None = None, **more: Any) -> Request:
        flavor = Flavor(name="asked", vcpus=vcpus, memory_mb=memory_mb, extra_specs=specs or {})
        return Request(spec=RequestSpec(flavor=flavor, **more))

    whole, gpu = request(8, 24_576), request(1, 1_024, dict(gpu_extra_specs(WHOLE, 1)))
    devices = request(1, 1_024, pci_requests=(PciRequest(count=2, spec=(GPU,), request_id=uuid_of(5)),))
    return {
        "drain": Drain(hosts=(rng.choice(names),)),
        "batches": Drain(hosts=tuple(rng.sample(names, 2)), batch=1),
        "racks": Drain(hosts=tuple(rng.sample(names, 3)), by="rack"),
        "consolidate": Consolidate(),
        "balance": Balance(threshold=0.0, margin=0.0, most=1.0, resource=rng.choice(["MEMORY_MB", "VCPU"])),
        "room": MakeRoom(request=whole),
        "room for a GPU": MakeRoom(request=gpu),
        "room for pins": MakeRoom(request=request(4, 1_024, {"hw:cpu_policy": "dedicated"}, prepare=True)),
        "room for devices": MakeRoom(request=devices),
        "defragment": Defragment(requests=(whole, gpu)),
        "evacuate-proof": EvacuateProof(),
    }


def planned(seed: int, *, only: Sequence[str] = ()) -> int:
    """The moves of the plans of all goals, or of some, on a cloud, of which each keeps every rule there and back."""
    cloud, rng, moves = mixed(seed), random.Random(seed), 0
    for name, goal in goals(cloud, rng).items():
        if only and name not in only:
            continue
        per_host = rng.choice([0, 1, 4])
        plan = cloud.engine.plan(goal, asked=cloud.asked, per_host=per_host)
        replayed(cloud, plan, per_host)
        assert check_plan(cloud.engine, plan, asked=cloud.asked).valid
        fork, moves = cloud.engine.fork(), moves + len(plan.moves)
        carried_out(fork, cloud, plan)
        back = plan.rollback()
        told = check_plan(fork, back, asked=cloud.asked)
        if told.valid:
            carried_out(fork, cloud, back)
            assert {uuid: fork.fleet.consumer(uuid).provider for uuid in cloud.at} == cloud.at
        else:
            # What was drained is closed, and does not take its guests back.
            assert all("ComputeFilter" in each.reason for each in told.differences), told.differences
    return moves


def test_plans_keep_every_rule_of_pins_pages_gpus_and_devices() -> None:
    assert planned(5, only=("drain", "batches")) > 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(0, 2_000, 50))
def test_plans_on_many_mixed_clouds_keep_every_rule(seed: int) -> None:
    assert sum(planned(each) for each in range(seed, seed + 50))
