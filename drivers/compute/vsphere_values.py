"""What is read of a vCenter: the properties of each kind, and the nodes and guests that they mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from ..protocol import Guest, GuestState, Mark, Node, NodeState
from .vsphere_api import Found

MIB: Final = 2**20
GIB: Final = 2**30
KIB_A_GIB: Final = 2**20
POWER: Final[Mapping[str, GuestState]] = {"poweredOn": "on", "poweredOff": "off", "suspended": "paused"}
LOST: Final = ("inaccessible", "invalid", "orphaned")
"""Connection states of virtual machines whose files are gone."""

HOST: Final = (
    "datastore",
    "parent",
    "summary.hardware.numCpuThreads",
    "summary.hardware.memorySize",
    "summary.quickStats.overallMemoryUsage",
    "runtime.connectionState",
    "runtime.inMaintenanceMode",
)
CLUSTER: Final = ("name", "datastore", "resourcePool", "network")
DATASTORE: Final = ("name", "summary.capacity", "summary.freeSpace", "summary.uncommitted", "summary.accessible")
MACHINE: Final = (
    "name",
    "config.changeVersion",
    "config.hardware.memoryMB",
    "config.hardware.numCPU",
    "config.instanceUuid",
    "config.template",
    "runtime.connectionState",
    "runtime.host",
    "runtime.powerState",
)
"""Properties that are read of each kind."""


class Version(NamedTuple):
    """Id and uuid of a machine, and the version of its configuration."""

    key: str
    uuid: str
    change: str


class Known(NamedTuple):
    """What a machine's configuration says: its mark, the user's name for it, the size that was wanted, and the volumes
    that it has. ``pool``: of one that holds a volume, whose disk has ``disk_kib``."""

    mark: Mark | None = None
    name: str = ""
    size: str = ""
    volumes: tuple[str, ...] = ()
    pool: str = ""
    disk_kib: int = 0


class Cluster(NamedTuple):
    """A cluster, or a host outside of clusters, with its hosts and the datastores that guests are made on."""

    found: Found
    hosts: list[Found]
    datastores: list[Found]

    @property
    def usable(self) -> list[Found]:
        """The hosts that run guests, the one with the most free memory first."""
        up = [
            host
            for host in self.hosts
            if host.get("runtime.connectionState") == "connected" and not host.get("runtime.inMaintenanceMode")
        ]
        return sorted(up, key=lambda host: -free_memory(host))

    def host(self, stores: Collection[Any]) -> Found | None:
        """The host that runs guests and reaches these datastores, of several the one with the most free memory."""
        return next((each for each in self.usable if set(stores) <= set(each.get("datastore", ()))), None)

    def host_and_store(self, stores: Collection[Any]) -> tuple[Found, Found] | None:
        """The datastore with the most room, and a host that reaches it and these others."""
        accessible = [each for each in self.datastores if each.get("summary.accessible")]
        for store in sorted(accessible, key=lambda each: -int(each.get("summary.freeSpace", 0))):
            host = self.host({store.ref, *stores})
            if host is not None:
                return host, store
        return None


def version_of(machine: Found) -> Version:
    return Version(machine.ref._moId, machine.get("config.instanceUuid", ""), machine.get("config.changeVersion", ""))


def node_of(host: Any) -> str:
    """The name of a host's cluster; it is read from the server."""
    return "" if host is None else str(host.parent.name)


def guest_of(machine: Found, node: str, known: Known) -> Guest:
    lost = machine.get("runtime.connectionState") in LOST
    return Guest(
        key=machine.ref._moId,
        mark=known.mark,
        name=machine.get("name", "") if known.mark is None else known.name,
        node=node,
        state="error" if lost else POWER.get(machine.get("runtime.powerState"), "error"),
        vcpus=int(machine.get("config.hardware.numCPU", 0)),
        memory_mb=int(machine.get("config.hardware.memoryMB", 0)),
        volumes=known.volumes,
    )


def free_memory(host: Found) -> int:
    """Bytes of a host's memory that are not in use."""
    return (
        int(host.get("summary.hardware.memorySize", 0))
        - int(host.get("summary.quickStats.overallMemoryUsage", 0)) * MIB
    )


def as_node(name: str, cluster: Cluster, used: tuple[int, int]) -> Node:
    usable, stores = cluster.usable, [each for each in cluster.datastores if each.get("summary.accessible")]
    connected = any(host.get("runtime.connectionState") == "connected" for host in cluster.hosts)
    state: NodeState = "up" if usable else "maintenance" if connected else "down"
    total = sum(int(each.get("summary.capacity", 0)) for each in stores)
    free = sum(int(each.get("summary.freeSpace", 0)) for each in stores)
    return Node(
        name,
        sum(int(host.get("summary.hardware.numCpuThreads", 0)) for host in usable),
        sum(int(host.get("summary.hardware.memorySize", 0)) for host in usable) // MIB,
        total // GIB,
        used_vcpus=used[0],
        used_memory_mb=used[1],
        used_disk_gb=-(-(total - free) // GIB),
        state=state,
        hypervisor="VMware vCenter Server",
    )
