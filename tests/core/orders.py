"""Shorthand for the service's tests: hosts, requests and orders."""

from __future__ import annotations

from typing import Any

import msgspec

from hostler.core.engine_commands import AddHosts, Asked, Place
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import AnyCommand, Order
from hostler.placement.types.host import Host

NOW = 1_700_000_000.0
LOCAL = "@local"


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def hosts(count: int, **figures: Any) -> tuple[Host, ...]:
    """Hosts of 16 CPUs, 64 GiB and 500 GB."""
    values = {"vcpus_total": 16, "total_usable_ram_mb": 65_536, "total_usable_disk_gb": 500, **figures}
    return tuple(Host(host=f"node-{number}", **values) for number in range(count))


def asked(*uuids: int, project: str = "", vcpus: int = 1, memory_mb: int = 1_024, **spec: Any) -> Asked:
    flavor = {"name": "small", "vcpus": vcpus, "memory_mb": memory_mb}
    raw = msgspec.Raw(msgspec.msgpack.encode({"flavor": flavor, **spec}))
    return Asked(spec=raw, instance_uuids=tuple(map(uuid_of, uuids)), project_id=project)


def place(*uuids: int, **what: Any) -> Place:
    return Place(request=asked(*uuids, **what))


def order(command: AnyCommand, *, user: str = LOCAL, now: float = NOW) -> Order:
    return Order(now, user, command)


def machine(count: int = 3) -> ServiceMachine:
    """A machine with so many hosts."""
    made = ServiceMachine()
    made.apply(order(AddHosts(hosts=hosts(count))))
    return made
