"""Random hosts and guests from a seeded generator, thousands a second. They have few cells and cores, so that many
guests nearly fit."""

from __future__ import annotations

from random import Random
from typing import Any

from hostler.placement.types.host import Host, MemoryPages, NumaCell, NumaTopology, PciPool
from hostler.placement.types.networks import NetworkMetadata
from hostler.placement.types.request import (
    Flavor,
    InstanceNumaCell,
    InstanceNumaTopology,
    PciRequest,
    Request,
    RequestSpec,
)

THREADS = {"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "require"}
RATIOS = [1.0, 1.5, 4.0, 0.3]
PAGE_SIZES = [(), (4,), (4, 2048), (2048, 4), (4, 2048, 1048576), (2048,)]


def random_host(chance: Random, name: str = "h0") -> Host:
    count, threads, legacy = chance.randint(1, 4), chance.choice([1, 2, 2, 4]), chance.random() < 0.4
    ids = chance.choice([range(count), range(0, 8 * count, 8), range(count - 1, -1, -1)])
    near = chance.random() < 0.5
    cells = tuple(
        random_cell(chance, id, 100 * index, threads, legacy=legacy, near=near) for index, id in enumerate(ids)
    )
    return Host(
        host=name,
        vcpus_total=1_000,
        total_usable_ram_mb=1_000_000,
        cpu_allocation_ratio=chance.choice(RATIOS),
        ram_allocation_ratio=chance.choice(RATIOS),
        numa_topology=NumaTopology(cells=cells) if chance.random() < 0.95 else None,
        pci_pools=tuple(random_pool(chance) for _ in range(chance.randint(0, 3))),
    )


def random_cell(chance: Random, id: int, first: int, threads: int, *, legacy: bool, near: bool) -> NumaCell:
    cores = chance.randint(1, 4)
    cpus = range(first, first + cores * threads)
    dedicated = frozenset(cpus) if legacy else frozenset(cpu for cpu in cpus if chance.random() < 0.8)
    memory = chance.choice([1024, 2048, 4096, 4097])
    return NumaCell(
        id=id,
        cpuset=frozenset(cpus) if legacy else frozenset(cpus) - dedicated,
        pcpuset=dedicated,
        memory=memory,
        cpu_usage=chance.choice([0, 0, 1, 4]),
        memory_usage=chance.choice([0, 0, memory // 2]),
        pinned_cpus=frozenset(cpu for cpu in dedicated if chance.random() < 0.15),
        siblings=tuple(frozenset(cpus[core::cores]) for core in range(cores)) if chance.random() < 0.97 else (),
        mempages=tuple(random_pages(chance, size, memory) for size in chance.choice(PAGE_SIZES)),
        socket=chance.choice([None, 0, id // 2]),
        network_metadata=random_networks(chance) if near else None,
    )


def random_pages(chance: Random, size_kb: int, memory: int) -> MemoryPages:
    total = memory * 1024 // size_kb
    return MemoryPages(
        size_kb=size_kb, total=total, used=chance.choice([0, 0, total // 2]), reserved=chance.choice([0, 0, 0, 2])
    )


def random_networks(chance: Random) -> NetworkMetadata | None:
    names = frozenset(name for name in ("physnet0", "physnet1") if chance.random() < 0.4)
    return NetworkMetadata(physnets=names, tunneled=chance.random() < 0.3) if chance.random() < 0.7 else None


def random_pool(chance: Random) -> PciPool:
    tags = {"vendor_id": chance.choice(["8086", "15b3"])}
    return PciPool(count=chance.randint(1, 3), numa_node=chance.choice([None, 0, 1, 2, 8]), tags=tags)


def random_guest(chance: Random) -> InstanceNumaTopology:
    policy = chance.choice([None, "shared", "dedicated", "dedicated", "dedicated", "mixed"])
    dedicates = policy in ("dedicated", "mixed")
    common: dict[str, Any] = {
        "pagesize": chance.choice([None, None, None, -1, -2, -3, 4, 2048]),
        "cpu_policy": policy,
        "cpu_thread_policy": chance.choice([None, "prefer", "require", "isolate"]) if dedicates else None,
    }
    shape, cells, first = random_shape(chance), [], 0
    alike = chance.random() < 0.4
    for id in range(chance.choice([1, 1, 1, 2, 2, 3])):
        shared, pinned, memory = shape if alike else random_shape(chance)
        shared, pinned = shared if policy != "dedicated" else 0, pinned if dedicates else 0
        cpus = range(first, first + shared + pinned)
        own = frozenset(cpus[shared:])
        cells.append(InstanceNumaCell(id=id, cpuset=frozenset(cpus[:shared]), pcpuset=own, memory=memory, **common))
        first += shared + pinned
    emulator = chance.choice([None, None, None, "isolate", "share"]) if dedicates else None
    return InstanceNumaTopology(cells=tuple(cells), emulator_threads_policy=emulator)


def random_shape(chance: Random) -> tuple[int, int, int]:
    """Floating CPUs, pinned CPUs and MiB of a guest cell."""
    return chance.randint(0, 2), chance.randint(0, 4), chance.choice([256, 256, 512, 1023, 1024])


def random_request(chance: Random) -> Request:
    devices = tuple(random_devices(chance) for _ in range(chance.choice([0, 0, 0, 1, 1, 2])))
    return request(
        random_guest(chance) if chance.random() < 0.95 else None,
        THREADS if chance.random() < 0.2 else {},
        pci_requests=devices,
        network_metadata=random_networks(chance),
    )


def random_devices(chance: Random) -> PciRequest:
    return PciRequest(
        count=chance.randint(1, 2),
        spec=({"vendor_id": chance.choice(["8086", "15b3"])},),
        numa_policy=chance.choice([None, "legacy", "required", "preferred", "socket"]),
    )


def request(wanted: InstanceNumaTopology | None, specs: dict[str, str] | None = None, **fields: Any) -> Request:
    flavor = Flavor(name="f", vcpus=1, memory_mb=1, extra_specs=specs or {})
    return Request(spec=RequestSpec(flavor=flavor, numa_topology=wanted, prepare=False, **fields))
