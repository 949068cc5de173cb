"""A host as Nova's filters and weighers read it: values for loading, and the protocol of live views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .networks import NetworkMetadata
from .request import Flavor
from .uuids import plain_uuid

DERIVED: Final = -(2**62)
"""In place of an amount that a host does not report: it follows from its totals and guests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The nova-compute service. Times in seconds since the epoch; if both ``last_seen_up`` and ``created_at`` are None,
    heartbeats are not monitored and the service counts as up. ``version`` is its service version, None if unknown."""

    disabled: bool = False
    disabled_reason: str | None = None
    forced_down: bool = False
    last_seen_up: float | None = None
    created_at: float | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """A host aggregate: uuid, name, metadata. Its availability zone is the metadata key ``availability_zone``."""

    uuid: str
    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.uuid, str) and (plain := plain_uuid(self.uuid)) != self.uuid:
            object.__setattr__(self, "uuid", plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPages:
    """Pages of one size on a NUMA cell: ``size_kb`` in KiB, the rest in pages."""

    size_kb: int
    total: int
    used: int = 0
    reserved: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaCell:
    """A host NUMA cell. ``memory`` and ``memory_usage`` in MiB; ``siblings`` are the sets of CPUs of one core.
    ``network_metadata``: networks whose NICs are on the cell, None if the host does not tell."""

    id: int
    cpuset: frozenset[int]
    pcpuset: frozenset[int] = frozenset()
    memory: int = 0
    cpu_usage: int = 0
    memory_usage: int = 0
    pinned_cpus: frozenset[int] = frozenset()
    siblings: tuple[frozenset[int], ...] = ()
    mempages: tuple[MemoryPages, ...] = ()
    socket: int | None = None
    network_metadata: NetworkMetadata | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaTopology:
    """The NUMA cells of a host."""

    cells: tuple[NumaCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PciPool:
    """``count`` free PCI devices with equal tags (vendor_id, product_id, dev_type, ...) on one NUMA node (None: no
    affinity).

    ``card``: name of the SR-IOV card that the devices are functions of; a physical function and the virtual functions
    of its card exclude each other. None: found by vendor, NUMA node, physical network and the tag ``parent_ifname``.
    ``total``: devices there are in all, free or not; None: as many as are free.
    """

    count: int
    numa_node: int | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    card: str | None = None
    total: int | None = None


class HostState(Protocol):
    """The fields of a host that a filter or weigher may read, under the names of Nova's HostState.

    ``vcpus_used``, ``free_ram_mb`` (MiB), ``free_disk_mb`` (MiB), ``num_instances``, ``num_io_ops`` change with every
    claim; so do ``instances``, ``numa_topology`` and ``pci_pools``; all other fields change only with a new report of
    the host. ``instances`` maps an instance uuid to the image properties it was booted with. ``cpu_info`` is a JSON
    text. ``metrics`` maps the name of a metric to its value, as in Nova's HostState.
    """

    @property
    def host(self) -> str:
        """Name of the service host (nova-compute)."""
        ...

    @property
    def nodename(self) -> str:
        """Name of the node."""
        ...

    @property
    def uuid(self) -> str:
        """Uuid of the resource provider and compute node."""
        ...

    @property
    def cell_uuid(self) -> str | None:
        """Uuid of the cell; None if it is not known."""
        ...

    @property
    def vcpus_total(self) -> int:
        """Number of physical CPU threads."""
        ...

    @property
    def vcpus_used(self) -> int:
        """vCPUs that guests use."""
        ...

    @property
    def cpu_allocation_ratio(self) -> float:
        """vCPUs that may be allocated per CPU thread."""
        ...

    @property
    def total_usable_ram_mb(self) -> int:
        """Memory, MiB."""
        ...

    @property
    def free_ram_mb(self) -> int:
        """Free memory without over-commit, MiB; may be negative."""
        ...

    @property
    def ram_allocation_ratio(self) -> float:
        """Memory that may be allocated, as a multiple of the total."""
        ...

    @property
    def total_usable_disk_gb(self) -> int:
        """Local disk, GiB."""
        ...

    @property
    def disk_mb_used(self) -> int:
        """Local disk in use, MiB."""
        ...

    @property
    def free_disk_mb(self) -> int:
        """Free local disk, MiB; may be negative."""
        ...

    @property
    def disk_allocation_ratio(self) -> float:
        """Local disk that may be allocated, as a multiple of the total."""
        ...

    @property
    def hypervisor_type(self) -> str | None:
        """Type of the hypervisor, such as ``QEMU``."""
        ...

    @property
    def hypervisor_version(self) -> int | None:
        """Version of the hypervisor as Nova's integer."""
        ...

    @property
    def host_ip(self) -> str | None:
        """Address of the host."""
        ...

    @property
    def cpu_info(self) -> str | None:
        """CPU model, vendor and features."""
        ...

    @property
    def supported_instances(self) -> tuple[tuple[str, ...], ...]:
        """Triples of architecture, hypervisor type and virtual machine mode."""
        ...

    @property
    def stats(self) -> Mapping[str, str]:
        """Statistics reported by the hypervisor driver, by name."""
        ...

    @property
    def num_instances(self) -> int:
        """Number of instances."""
        ...

    @property
    def num_io_ops(self) -> int:
        """Number of instances in an I/O-heavy task."""
        ...

    @property
    def failed_builds(self) -> int:
        """Builds that failed since the last success."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Monitor metrics, by name."""
        ...

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        """Host aggregates that the host is in."""
        ...

    @property
    def traits(self) -> frozenset[str]:
        """Traits of the resource provider."""
        ...

    @property
    def instances(self) -> Mapping[str, Mapping[str, Any]]:
        """Instances on the host, by uuid."""
        ...

    @property
    def service(self) -> Service:
        """State of the nova-compute service."""
        ...

    @property
    def numa_topology(self) -> NumaTopology | None:
        """NUMA cells; None if the host reports none."""
        ...

    @property
    def pci_pools(self) -> tuple[PciPool, ...]:
        """Pools of free PCI devices."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningInstance:
    """A guest that a host reports, with what it takes there. The figures of the host include it.

    ``flavor`` gives what it takes by Nova 33's resource tracker; ``resources`` (amounts of the host's own provider, by
    resource class) overrides its allocation. ``is_bfv``: boots from a volume, so root_gb takes no local disk.
    ``server_group`` is the uuid of a kept group. ``pci_devices``: the devices it holds, as pools with their number; the
    host's ``pci_pools`` are what is free beside them.
    """

    flavor: Flavor | None = None
    resources: Mapping[str, int] | None = None
    image_properties: Mapping[str, Any] = field(default_factory=dict)
    project_id: str = ""
    user_id: str = ""
    server_group: str | None = None
    is_bfv: bool = False
    pci_devices: tuple[PciPool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A compute host to load. It satisfies HostState, so that rules can be tested without a fleet.

    Memory in MiB, disk in GiB unless the name says _mb. ``free_ram_mb`` / ``free_disk_mb`` / ``vcpus_used`` are what
    the compute node reports; both may be negative. What is free derives, where it is left out (DERIVED), from the
    totals less what is reserved and what ``instances`` take; so do ``vcpus_used`` and ``num_instances`` where they are
    0. ``instances`` maps a uuid to a RunningInstance, or to the image properties of a guest of unknown size. An empty
    ``nodename`` is the host's, an empty ``uuid`` is made from the fleet's seed and the row.
    """

    host: str
    nodename: str = ""
    uuid: str = ""
    cell_uuid: str | None = None
    vcpus_total: int
    vcpus_used: int = 0
    cpu_allocation_ratio: float = 4.0
    total_usable_ram_mb: int
    free_ram_mb: int = DERIVED
    ram_allocation_ratio: float = 1.0
    reserved_ram_mb: int = 0
    total_usable_disk_gb: int = 0
    disk_mb_used: int = 0
    free_disk_mb: int = DERIVED
    disk_allocation_ratio: float = 1.0
    reserved_vcpus: int = 0
    reserved_disk_gb: int = 0
    hypervisor_type: str | None = "QEMU"
    hypervisor_version: int | None = None
    host_ip: str | None = None
    cpu_info: str | None = None
    supported_instances: tuple[tuple[str, ...], ...] = ()
    stats: Mapping[str, str] = field(default_factory=dict)
    num_instances: int = 0
    num_io_ops: int = 0
    failed_builds: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    aggregates: tuple[Aggregate, ...] = ()
    instances: Mapping[str, Any] = field(default_factory=dict)
    service: Service = Service()
    numa_topology: NumaTopology | None = None
    pci_pools: tuple[PciPool, ...] = ()
    traits: frozenset[str] = frozenset()
