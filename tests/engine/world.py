"""Hosts, guests and server groups as plain values with plain arithmetic: the state that the oracle decides on.

Nothing here knows columns, kernels or versions. Every rule is written as Nova and Placement state it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hostler.placement.fleet.fleet import Inventory
from hostler.placement.types.errors import InUse
from hostler.placement.types.host import DERIVED, Aggregate, Host, NumaTopology, PciPool, Service
from hostler.placement.types.request import Flavor, ServerGroup

FIGURES = ("vcpus_used", "free_ram_mb", "free_disk_mb", "num_instances", "num_io_ops", "failed_builds")


@dataclass
class Stock:
    """What a host has of one resource class, and how much of it is used."""

    inventory: Inventory
    used: int = 0

    def fits(self, amount: int) -> bool:
        """Placement's rule."""
        has = self.inventory
        return (
            self.used + amount <= (has.total - has.reserved) * has.allocation_ratio
            and has.min_unit <= amount <= has.max_unit
            and amount % has.step_size == 0
        )


FOLLOWING: Final = (
    ("VCPU", "vcpus_total", None, 0, "cpu_allocation_ratio"),
    ("MEMORY_MB", "total_usable_ram_mb", "free_ram_mb", 1, "ram_allocation_ratio"),
    ("DISK_GB", "total_usable_disk_gb", "free_disk_mb", 1024, "disk_allocation_ratio"),
)
"""Of each inventory the host's total, free amount, units of the latter in one of the former, and ratio."""


class Node:
    """A host with Nova's names (HostState), changed in place."""

    def __init__(self, world: World, host: Host) -> None:
        self.world = world
        self.host, self.nodename, self.uuid = host.host, host.nodename, host.uuid
        self.cell_uuid = host.cell_uuid
        self.vcpus_total, self.vcpus_used = host.vcpus_total, host.vcpus_used
        self.total_usable_ram_mb, self.total_usable_disk_gb = host.total_usable_ram_mb, host.total_usable_disk_gb
        self.cpu_allocation_ratio = host.cpu_allocation_ratio
        self.ram_allocation_ratio = host.ram_allocation_ratio
        self.disk_allocation_ratio = host.disk_allocation_ratio
        self.disk_mb_used = host.disk_mb_used
        self.free_ram_mb, self.free_disk_mb = free_figures(host)
        self.hypervisor_type, self.hypervisor_version = host.hypervisor_type, host.hypervisor_version
        self.host_ip, self.cpu_info, self.supported_instances = host.host_ip, host.cpu_info, host.supported_instances
        self.stats, self.metrics = dict(host.stats), dict(host.metrics)
        self.num_instances, self.num_io_ops = host.num_instances, host.num_io_ops
        self.failed_builds = host.failed_builds
        self.aggregate_uuids = [aggregate.uuid for aggregate in host.aggregates]
        self.traits = host.traits
        self.service = host.service
        self.numa_topology: NumaTopology | None = host.numa_topology
        self.pci_pools: tuple[PciPool, ...] = host.pci_pools
        self.stocks = stocks_of(host)

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        return tuple(self.world.aggregates[uuid] for uuid in self.aggregate_uuids)

    @property
    def instances(self) -> Mapping[str, Mapping[str, Any]]:
        """Guests on all nodes of the service host, as Nova tracks them."""
        return {guest.uuid: guest.properties for guest in self.world.guests.values() if guest.node.host == self.host}

    def fits(self, resources: Mapping[str, int]) -> bool:
        """Whether the host's own inventories can give ``resources``."""
        return all(name in self.stocks and self.stocks[name].fits(amount) for name, amount in resources.items())

    def claimed(self) -> dict[str, int]:
        """What guests take at least, while one of them is being built: a report may be older than its claim."""
        guests = [each for each in self.world.guests.values() if each.node is self and each.flavor is not None]
        building = sum(guest.building for guest in guests)
        if not building:
            return {}
        reserved = {name: stock.inventory.reserved for name, stock in self.stocks.items()}
        flavors = [guest.flavor for guest in guests if guest.flavor is not None]
        free_ram = self.total_usable_ram_mb - reserved.get("MEMORY_MB", 0)
        free_disk = self.total_usable_disk_gb - reserved.get("DISK_GB", 0)
        return {
            "free_ram_mb": free_ram - sum(flavor.memory_mb for flavor in flavors),
            "free_disk_mb": 1024 * (free_disk - sum(guest.local_disk_gb for guest in guests)),
            "vcpus_used": sum(flavor.vcpus for flavor in flavors),
            "num_io_ops": building,
            "num_instances": len(guests),
        }

    def follow(self, inventories: Mapping[str, Inventory]) -> None:
        """Totals, free amounts and ratios are those of changed inventories; what stays keeps the host's figures."""
        for name, total, free, units, ratio in FOLLOWING:
            before = self.stocks[name].inventory if name in self.stocks else None
            after = inventories.get(name)
            old, new = ((0, 0) if each is None else (each.total, each.reserved) for each in (before, after))
            if old != new:
                if free is not None:
                    left = units * (new[0] - new[1] - (getattr(self, total) - old[1]))
                    setattr(self, free, getattr(self, free) + left)
                setattr(self, total, new[0])
            if after is not None and (before is None or before.allocation_ratio != after.allocation_ratio):
                setattr(self, ratio, after.allocation_ratio)

    def take(self, guest: Guest, sign: int = 1) -> None:
        """Nova's consume_from_request and Placement's allocation; ``sign`` -1 gives them back."""
        for name, amount in guest.resources.items():
            self.stocks[name].used += sign * amount
        flavor = guest.flavor
        if flavor is not None:
            self.free_ram_mb -= sign * flavor.memory_mb
            self.free_disk_mb -= sign * guest.local_disk_gb * 1024
            self.vcpus_used += sign * flavor.vcpus
            self.num_instances += sign
            self.num_io_ops += sign * guest.building


def free_figures(host: Host) -> tuple[int, int]:
    """Free memory and disk as reported, or by the totals if the host does not report them."""
    ram, disk = host.free_ram_mb, host.free_disk_mb
    if ram == DERIVED:
        ram = host.total_usable_ram_mb - host.reserved_ram_mb
    if disk == DERIVED:
        disk = (host.total_usable_disk_gb - host.reserved_disk_gb) * 1024 - host.disk_mb_used
    return ram, disk


def stocks_of(host: Host) -> dict[str, Stock]:
    """The inventories that a compute node reports; what it reports as taken is used."""
    free_ram_mb, free_disk_mb = free_figures(host)
    rows = {
        "VCPU": (host.vcpus_total, host.reserved_vcpus, host.cpu_allocation_ratio, host.vcpus_used),
        "MEMORY_MB": (
            host.total_usable_ram_mb,
            host.reserved_ram_mb,
            host.ram_allocation_ratio,
            max(host.total_usable_ram_mb - host.reserved_ram_mb - free_ram_mb, 0),
        ),
        "DISK_GB": (
            host.total_usable_disk_gb,
            host.reserved_disk_gb,
            host.disk_allocation_ratio,
            max(host.total_usable_disk_gb - host.reserved_disk_gb - free_disk_mb // 1024, 0),
        ),
    }
    return {
        name: Stock(Inventory(total=total, reserved=reserved, max_unit=total, allocation_ratio=ratio), used)
        for name, (total, reserved, ratio, used) in rows.items()
        if total > 0
    }


@dataclass
class Guest:
    """A consumer. ``flavor`` None: a host reported it, its usage is in the host's figures."""

    uuid: str
    node: Node
    resources: Mapping[str, int] = field(default_factory=dict)
    flavor: Flavor | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    building: bool = False
    project_id: str = ""
    user_id: str = ""
    is_bfv: bool = False

    @property
    def local_disk_gb(self) -> int:
        """Local disk by Nova's resource tracker: no root disk if the guest boots from a volume, and whole GiB of
        swap."""
        assert self.flavor is not None
        root = 0 if self.is_bfv else self.flavor.root_gb
        return root + self.flavor.ephemeral_gb + self.flavor.swap // 1024


class World:
    """All hosts, guests, aggregates and kept server groups. ``order`` says in which order hosts are looked at."""

    def __init__(self, aggregates: Iterable[Aggregate] = ()) -> None:
        self.nodes: dict[str, Node] = {}
        self.guests: dict[str, Guest] = {}
        self.aggregates = {aggregate.uuid: aggregate for aggregate in aggregates}
        self.groups: dict[str, tuple[str, int]] = {}
        self.now: float | None = None

    # hosts

    def add_host(self, host: Host) -> None:
        self.nodes[host.nodename] = Node(self, host)
        for uuid, properties in host.instances.items():
            if uuid not in self.guests:
                self.guests[uuid] = Guest(uuid, self.nodes[host.nodename], properties=dict(properties))

    def remove_host(self, name: str) -> None:
        if any(guest.node.nodename == name for guest in self.guests.values()):
            raise InUse(f"{name} has guests")
        del self.nodes[name]

    def set_service(self, name: str, *, disabled: bool, forced_down: bool) -> None:
        node = self.nodes[name]
        node.service = replace(node.service, disabled=disabled, forced_down=forced_down)

    def heartbeat(self, name: str, at: float) -> None:
        node = self.nodes[name]
        node.service = replace(node.service, last_seen_up=at)

    def report(self, name: str, figures: Mapping[str, int]) -> None:
        node = self.nodes[name]
        known = node.claimed()
        for figure, value in figures.items():
            assert figure in FIGURES
            if figure in known:
                value = min(value, known[figure]) if figure.startswith("free") else max(value, known[figure])
            setattr(node, figure, value)

    def set_inventory(self, name: str, inventories: Mapping[str, Inventory]) -> None:
        stocks = self.nodes[name].stocks
        if any(stock.used and resource not in inventories for resource, stock in stocks.items()):
            raise InUse(f"{name} has usage of a class that is left out")
        used = {resource: stock.used for resource, stock in stocks.items()}
        self.nodes[name].follow(inventories)
        self.nodes[name].stocks = {r: Stock(inventory, used.get(r, 0)) for r, inventory in inventories.items()}

    # guests

    def claim(self, guest: Guest) -> None:
        guest.node.take(guest)
        self.guests[guest.uuid] = guest

    def release(self, uuid: str) -> Guest:
        guest = self.guests.pop(uuid)
        guest.node.take(guest, -1)
        return guest

    def spawned(self, uuid: str) -> None:
        guest = self.guests[uuid]
        if guest.flavor is not None and guest.building:
            guest.node.num_io_ops -= 1
        guest.building = False

    def group(self, uuid: str, also: Iterable[str] = ()) -> ServerGroup:
        """A kept group as a value: its members are the guests placed with it, and the ones being placed."""
        policy, at_most = self.groups[uuid]
        members = [guest for guest in self.guests.values() if guest.group == uuid]
        return ServerGroup(
            uuid=uuid,
            policy=policy,
            max_server_per_host=at_most,
            members=frozenset({guest.uuid for guest in members} | set(also)),
            hosts=frozenset(guest.node.host for guest in members),
        )


__all__ = ["FIGURES", "Guest", "Node", "Service", "Stock", "World"]
