"""What is asked of the scheduler: flavor, image, hints, server group, PCI and NUMA wishes, as plain frozen values that
compare and hash by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, TypedDict, Unpack

from .content import ContentEquality
from .networks import NetworkMetadata
from .uuids import are_plain, plain_uuid

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flavor(ContentEquality):
    """A guest's size. Units: ``memory_mb`` and ``swap`` in MiB, ``root_gb`` and ``ephemeral_gb`` in GiB."""

    name: str
    vcpus: int
    memory_mb: int
    root_gb: int = 0
    ephemeral_gb: int = 0
    swap: int = 0
    extra_specs: Mapping[str, str] = field(default_factory=dict)

    def local_disk_mb(self, *, is_bfv: bool) -> int:
        """MiB of local disk that a guest takes of its host's figures: the root disk unless it boots from a volume, the
        ephemeral disk, and whole GiB of swap (Nova 33 ResourceTracker)."""
        return ((0 if is_bfv else self.root_gb) + self.ephemeral_gb + self.swap // 1024) * 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image(ContentEquality):
    """The fields of an image that filters and prefilters read. ``properties`` uses Nova's canonical or legacy names
    (hw_*, img_*, os_*)."""

    id: str | None = None
    disk_format: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InstanceNumaCell(ContentEquality):
    """One guest NUMA cell as nova-api derives it. ``memory`` in MiB, ``pagesize`` in KiB (or -1 small, -2 large, -3
    any)."""

    id: int
    cpuset: frozenset[int]
    pcpuset: frozenset[int] = frozenset()
    memory: int
    pagesize: int | None = None
    cpu_policy: str | None = None
    cpu_thread_policy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InstanceNumaTopology(ContentEquality):
    """The NUMA cells that a guest requests."""

    cells: tuple[InstanceNumaCell, ...]
    emulator_threads_policy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PciRequest(ContentEquality):
    """``count`` PCI devices, each matching any one of the ``spec`` alternatives (tag -> value).

    ``requester_id``: uuid of the Neutron port that asks for them, None for a flavor's alias.
    """

    count: int
    spec: tuple[Mapping[str, Any], ...]
    alias_name: str | None = None
    request_id: str | None = None
    numa_policy: str | None = None
    requester_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestGroup(ContentEquality):
    """Resources of a port, a device profile or a PCI device that one provider gives. Source: Nova 34 RequestGroup.

    ``resources``: resource class -> amount. ``aggregates``: each item holds uuids of which one must match; the items
    are ANDed. ``requester_id`` becomes the group's suffix: 1 to 64 characters of ``[A-Za-z0-9_-]``, None: the group's
    number. ``use_same_provider`` False: the group is merged into the unsuffixed one.
    """

    resources: Mapping[str, int] = field(default_factory=dict)
    required_traits: frozenset[str] = frozenset()
    forbidden_traits: frozenset[str] = frozenset()
    aggregates: tuple[frozenset[str], ...] = ()
    forbidden_aggregates: frozenset[str] = frozenset()
    in_tree: str | None = None
    use_same_provider: bool = True
    requester_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestLevelParams(ContentEquality):
    """Parameters of the whole Placement query. ``same_subtree``: each item names suffixes of request groups whose
    providers share an ancestor among them. Source: Nova 34 RequestLevelParams."""

    root_required: frozenset[str] = frozenset()
    root_forbidden: frozenset[str] = frozenset()
    same_subtree: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestedNetwork(ContentEquality):
    """A network or port that the guest is attached to, as far as a scheduler reads it.

    ``segment_aggregates``: uuids of the aggregates of the network's segments if it is a routed network, else None.
    ``remote_managed``: the port's VNIC type is remote-managed (a SmartNIC DPU serves it).
    """

    network_id: str | None = None
    port_id: str | None = None
    arq_uuid: str | None = None
    device_profile: str | None = None
    segment_aggregates: frozenset[str] | None = None
    remote_managed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Destination(ContentEquality):
    """Restricts the request to a destination. ``aggregates``: each item is a comma-separated list of uuids (any of
    them), all items must match."""

    host: str | None = None
    node: str | None = None
    cell_uuid: str | None = None
    allow_cross_cell_move: bool = False
    aggregates: tuple[str, ...] = ()
    forbidden_aggregates: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServerGroup(ContentEquality):
    """A server group. ``policy``: affinity, anti-affinity, soft-affinity or soft-anti-affinity. ``members`` are
    instance uuids, ``hosts`` the service hosts that already hold a member."""

    uuid: str
    policy: str
    max_server_per_host: int = 1
    members: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if isinstance(self.uuid, str) and (plain := plain_uuid(self.uuid)) != self.uuid:
            object.__setattr__(self, "uuid", plain)
        members = self.members
        if isinstance(members, frozenset) and all(isinstance(each, str) for each in members) and not are_plain(members):
            object.__setattr__(self, "members", frozenset(map(plain_uuid, members)))


PER_REQUEST: Final = ("requested_destination", "ignore_hosts", "force_hosts", "force_nodes")
"""Fields of a RequestSpec that hold for one request only: Nova 34 does not keep them with an instance, or clears them
before it places it again (``RequestSpec._get_update_primitives``, ``reset_forced_destinations``)."""


def kept_zone(zone: str | None) -> str | None:
    """The zone that is kept of ``ZONE:HOST[:NODE]``, as nova-api does; another one as it is."""
    return zone.partition(":")[0] or None if zone else zone


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestSpec(ContentEquality):
    """The part of a request that many requests share; the engine compiles equal ones once.

    ``scheduler_hints`` maps a hint to its list of values. ``is_bfv``: boots from a volume, so root_gb takes no local
    disk. ``requested_resources``: request groups of ports, device profiles and PCI devices. ``network_metadata``:
    physical networks and tunnels that the guest's NUMA cells must be near to. ``prepare``: whether the spec is first
    completed and checked as nova-api and nova-conductor do before they call a scheduler; None: as the policy says.
    """

    flavor: Flavor
    image: Image | None = None
    availability_zone: str | None = None
    scheduler_hints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignore_hosts: tuple[str, ...] = ()
    force_hosts: tuple[str, ...] = ()
    force_nodes: tuple[str, ...] = ()
    requested_destination: Destination | None = None
    pci_requests: tuple[PciRequest, ...] = ()
    numa_topology: InstanceNumaTopology | None = None
    is_bfv: bool = False
    requested_resources: tuple[RequestGroup, ...] = ()
    request_level_params: RequestLevelParams | None = None
    requested_networks: tuple[RequestedNetwork, ...] = ()
    network_metadata: NetworkMetadata | None = None
    prepare: bool | None = None

    def as_kept(self) -> RequestSpec:
        """What of it is kept with an instance, and asked again when it is moved: all but hosts that were named for one
        request. O(1)."""
        names_hosts = self.requested_destination or self.ignore_hosts or self.force_hosts or self.force_nodes
        if not names_hosts and ":" not in (self.availability_zone or ""):
            return self
        zone = kept_zone(self.availability_zone)
        none: dict[str, Any] = {"requested_destination": None, "ignore_hosts": (), "force_hosts": (), "force_nodes": ()}
        return replace(self, availability_zone=zone, **none)


class RequestChanges(TypedDict, total=False):
    """Fields of a ``Request`` to replace."""

    spec: RequestSpec
    instance_uuids: tuple[str, ...]
    project_id: str
    user_id: str
    server_group: ServerGroup | str | None
    now: float | None
    alternates: int
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request(ContentEquality):
    """A request to place ``len(instance_uuids)`` guests of one spec, all or nothing.

    ``server_group`` is either the uuid of a group of the fleet, or a ServerGroup whose members and hosts the caller
    supplies. ``now`` is the command's time in seconds since the epoch (None: the engine's last known time).
    ``alternates`` is the number of further hosts to return. Empty ``instance_uuids`` get one uuid, generated from the
    engine's seed and sequence number.
    """

    spec: RequestSpec
    instance_uuids: tuple[str, ...] = ()
    project_id: str = ""
    user_id: str = ""
    server_group: ServerGroup | str | None = None
    now: float | None = None
    alternates: int = 0
    request_id: str | None = None

    @property
    def flavor(self) -> Flavor:
        """The flavor of the spec."""
        return self.spec.flavor

    @property
    def image(self) -> Image | None:
        """The image of the spec, or None."""
        return self.spec.image

    @property
    def scheduler_hints(self) -> Mapping[str, tuple[str, ...]]:
        """The scheduler hints of the spec."""
        return self.spec.scheduler_hints

    @property
    def extra_specs(self) -> Mapping[str, str]:
        """The extra specs of the flavor."""
        return self.spec.flavor.extra_specs

    @property
    def image_properties(self) -> Mapping[str, Any]:
        """The properties of the image; empty without an image."""
        return self.spec.image.properties if self.spec.image is not None else _EMPTY

    @property
    def is_rebuild(self) -> bool:
        """True for a rebuild check, which Nova marks with the hint ``_nova_check_type=rebuild``."""
        return tuple(self.spec.scheduler_hints.get("_nova_check_type", ())) == ("rebuild",)

    def with_changes(self, **changes: Unpack[RequestChanges]) -> Request:
        """The same request with some fields replaced."""
        return replace(self, **changes)
