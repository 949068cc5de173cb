"""Small fleets of few distinct hosts, and numbers that become commands on them."""

from __future__ import annotations

import uuid
from typing import Any

from hostler.placement.types.host import Aggregate, Host, MemoryPages, NumaCell, NumaTopology, PciPool, Service

NOW = 1_000_000.0


def uuid_of(number: int) -> str:
    return str(uuid.UUID(int=(5 << 64) + number))


def aggregate(number: int, version: int = 0) -> Aggregate:
    metadata = {"availability_zone": f"az{version}"} if version else {}
    return Aggregate(uuid=uuid_of(0xA000 + number), name=f"aggregate-{number}", metadata=metadata)


def topology(cells: int = 2) -> NumaTopology:
    return NumaTopology(
        cells=tuple(
            NumaCell(
                id=cell,
                cpuset=frozenset(range(8 * cell, 8 * cell + 4)),
                pcpuset=frozenset(range(8 * cell + 4, 8 * cell + 8)),
                memory=4096,
                siblings=tuple(frozenset({cpu}) for cpu in range(8 * cell, 8 * cell + 8)),
                mempages=(MemoryPages(size_kb=4, total=1 << 18), MemoryPages(size_kb=2048, total=1024)),
                socket=cell,
            )
            for cell in range(cells)
        )
    )


POOLS = (
    PciPool(count=2, numa_node=0, tags={"vendor_id": "8086", "product_id": "1520", "dev_type": "type-VF"}),
    PciPool(count=1, numa_node=1, tags={"vendor_id": "10de", "product_id": "20b0"}),
)


def host(name: str, number: int = 0, **fields: Any) -> Host:
    """A host; ``number`` says which of the fields that few hosts have this one has."""
    given: dict[str, Any] = {
        "host": name,
        "vcpus_total": 4 + number % 3,
        "total_usable_ram_mb": 8192,
        "total_usable_disk_gb": (0, 100)[number % 2],
        "vcpus_used": number % 2,
        "hypervisor_version": (None, 8002000, 6002000)[number % 3],
        "failed_builds": number % 5 == 4,
    }
    given["failed_builds"] = int(given["failed_builds"])
    if number % 4 == 1:
        given["numa_topology"] = topology()
    if number % 4 == 2:
        given["pci_pools"] = POOLS
    if number % 6 == 3:
        given["instances"] = {uuid_of(0xC000_0000 + number): {"os_distro": "ubuntu"}, uuid_of(0xD000_0000 + number): {}}
    if number % 7 == 5:
        given |= {"stats": {"gpu": "a100"}, "metrics": {"m": 1.5}, "host_ip": f"10.0.0.{number % 3}"}
    if number % 3 == 2:
        given["service"] = Service(last_seen_up=NOW - number % 100)
    if number % 8 == 6:
        given["traits"] = frozenset({"CUSTOM_A"})
    return Host(**(given | fields))
