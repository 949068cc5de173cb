"""The life of guests and volumes that back ends carry out, as facts: what is desired, what was observed, and where. It
knows no fleet; ``guest_lives`` and ``volume_lives`` change it by commands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from ...placement.storage.pools.backend_names import backend_part
from ...placement.types.errors import UnknownName
from ..backends.errors import FailureClass
from ..lifecycle_commands import MoveKind, NodeReport

Desired = Literal["active", "stopped", "deleted"]
GuestStatus = Literal["placed", "building", "active", "stopped", "clearing", "error"]
"""placed: claimed, no call made. building: calls may have been made, not confirmed. active, stopped: confirmed.
clearing: the build failed, and what may be left is to be removed. error: nothing is done until a user decides."""
SHOWN: Final = (
    *("placed", "building", "active", "stopped", "starting", "stopping", "moving", "resizing", "deleting"),
    *("clearing", "error"),
)
VolumeStatus = Literal["placed", "building", "available", "clearing", "error"]
"""As of guests; available: confirmed."""


class Fault(msgspec.Struct, frozen=True):
    """Why a build failed, or a guest is in error: class and text of the driver's error, when, and on which node.
    ``trouble``: it is of a start or stop, and forgotten with the next one that succeeds."""

    failure: FailureClass
    text: str
    at: float
    node: str
    trouble: bool = False


class GuestMove(msgspec.Struct, kw_only=True, frozen=True):
    """A move of a guest: its target, the consumer that holds its source (empty: none), whether calls may have been
    made (``begun``), and when it is given up, in seconds since the epoch. ``claim``: of an evacuation, the number of
    the guest on its target; of others that of the guest. A resize has the size (``vcpus``, ``memory_mb``) and the
    ``spec`` that the guest is to have; its target may be its source."""

    kind: MoveKind | Literal["resize"]
    host: str
    node: str
    migration: str
    claim: int
    until: float
    begun: bool = False
    vcpus: int = 0
    memory_mb: int = 0
    spec: bytes = b""

    @property
    def size(self) -> tuple[int, int]:
        """CPUs and MiB of memory that a resize is to."""
        return self.vcpus, self.memory_mb


class SnapshotLife(msgspec.Struct, kw_only=True):
    """One snapshot of a guest. ``backend``: where it is. ``claim``, ``until``, ``changed``, ``key`` and ``fault`` as of
    guests."""

    uuid: str
    name: str
    backend: str
    claim: int
    until: float
    changed: float
    desired: Literal["available", "deleted"] = "available"
    status: VolumeStatus = "placed"
    key: str = ""
    fault: Fault | None = None

    @property
    def shown(self) -> str:
        """The status as users see it."""
        return "deleting" if self.desired == "deleted" else self.status

    @property
    def nothing_left(self) -> bool:
        """True for one that was never made, with nothing of it left: what is found of it came late."""
        return self.status == "error" and not self.key

    @property
    def settled(self) -> bool:
        """True if nothing is to be done."""
        return self.desired != "deleted" and self.status in ("available", "error")


class GuestLife(msgspec.Struct, kw_only=True):
    """One guest. ``claim``: number of the present attempt. ``node`` and ``backend`` are empty while it has no place.
    ``until``: when the present attempt is given up, in seconds since the epoch. ``spec``: what it was asked with.
    ``failed_hosts``: hosts on which it could not be built. ``key``: the back end's own id of it.

    ``volumes``: uuids of those that it is to have, the first one for the disk that it boots from; ``attached``: those
    that it was seen to have. ``wanted``: what its own volumes were asked with (``WantedVolumes`` in MessagePack).
    ``failed_pools``: pools in which these could not be made. ``built``: it was confirmed once, so that its volumes hold
    data. ``gone``: the back end has nothing of it, and its volumes are being removed. ``attaching`` and ``detaching``:
    when each volume that it is to get, or to let go, is given up, in seconds since the epoch, by uuid. ``adopting``: it
    is a stranger's that is to be marked; it is neither made nor removed. ``adopted``: when it was (0.0: it was made).
    ``snapshots``: those of its disk, by uuid."""

    uuid: str
    project_id: str
    user_id: str
    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    image: str
    networks: tuple[str, ...]
    user_data: str | None
    spec: bytes
    server_group: str | None
    attempts: int
    build_seconds: float
    backend: str = ""
    host: str = ""
    node: str = ""
    claim: int = 0
    desired: Desired = "active"
    status: GuestStatus = "placed"
    until: float = 0.0
    changed: float = 0.0
    key: str = ""
    elsewhere: bool = False
    failed_hosts: list[str] = []
    fault: Fault | None = None
    volumes: list[str] = []
    attached: list[str] = []
    wanted: bytes = b""
    failed_pools: list[str] = []
    built: bool = False
    gone: bool = False
    move: GuestMove | None = None
    attaching: dict[str, float] = {}
    detaching: dict[str, float] = {}
    adopting: bool = False
    adopted: float = 0.0
    snapshots: dict[str, SnapshotLife] = {}

    @property
    def shown(self) -> str:
        """The status as users see it: what is being done, where something is."""
        if self.desired == "deleted":
            return "deleting"
        if self.move is not None:
            return "resizing" if self.move.kind == "resize" else "moving"
        if self.status == "active" and self.desired == "stopped":
            return "stopping"
        if self.status == "stopped" and self.desired == "active":
            return "starting"
        return self.status

    @property
    def settled(self) -> bool:
        """True if nothing is to be done: what was observed is what is desired, or a user has to decide."""
        if self.desired == "deleted" or self.move is not None:
            return False
        if self.snapshots and not all(each.settled for each in self.snapshots.values()):
            return False
        return self.status == "error" or (self.status == self.desired and self.volumes == self.attached)

    @property
    def size(self) -> tuple[int, int]:
        """CPUs and MiB of memory."""
        return self.vcpus, self.memory_mb

    def consumer_on(self, node: str, size: tuple[int, int] | None = None) -> str | None:
        """Uuid of the consumer that holds what the guest takes on a node, where it was seen to have a size (CPUs and
        MiB; None: not known); None for a node that is not its own. During a move its source is held by a consumer of
        the move, and on one node during a resize the old size."""
        if self.move is None:
            return self.uuid if node == self.node else None
        if self.move.kind == "resize" and node == self.node == self.move.node and size != self.move.size:
            return self.move.migration or None
        if node == self.move.node:
            return self.uuid
        return self.move.migration or None if node == self.node else None


class VolumeLife(msgspec.Struct, kw_only=True):
    """One volume. ``pool``: its pool on the back end. ``guest``: that it was made for or is attached to; empty: none.
    ``keep``: it stays when that guest is deleted. ``claim``, ``until``, ``changed``, ``key`` and ``fault`` as of
    guests."""

    uuid: str
    project_id: str
    name: str
    size_gb: int
    image: str
    backend: str
    pool: str
    claim: int
    build_seconds: float
    until: float
    changed: float
    guest: str = ""
    keep: bool = True
    desired: Literal["available", "deleted"] = "available"
    status: VolumeStatus = "placed"
    key: str = ""
    fault: Fault | None = None

    @property
    def shown(self) -> str:
        """The status as users see it."""
        if self.desired == "deleted":
            return "deleting"
        return "in_use" if self.status == "available" and self.guest else self.status

    @property
    def nothing_left(self) -> bool:
        """True for one that was never made, with nothing of it left: what is found of it came late."""
        return self.status == "error" and not self.key

    @property
    def settled(self) -> bool:
        """True if nothing is to be done."""
        return self.desired != "deleted" and self.status in ("available", "error")


class VolumeChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A volume after a command: its status as shown, its place, and why it is in error."""

    uuid: str
    status: str
    backend: str = ""
    pool: str = ""
    claim: int = 0
    guest: str = ""
    failure: FailureClass | None = None
    reason: str | None = None

    @property
    def sentence(self) -> str:
        """It in words, for events."""
        return f"{self.status} in {self.pool}" + (f": {self.reason}" if self.reason else "")


def volume_change_of(life: VolumeLife) -> VolumeChange:
    """How a volume is now."""
    fault = life.fault if life.status in ("error", "clearing") else None
    return VolumeChange(
        uuid=life.uuid,
        status=life.shown,
        backend=life.backend,
        pool=life.pool,
        claim=life.claim,
        guest=life.guest,
        failure=None if fault is None else fault.failure,
        reason=None if fault is None else fault.text,
    )


class GuestChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A guest after a command: its status as shown, its place, and why it is in error."""

    uuid: str
    status: str
    backend: str = ""
    node: str = ""
    claim: int = 0
    failure: FailureClass | None = None
    reason: str | None = None

    @property
    def sentence(self) -> str:
        """It in words, for events."""
        where = f" on {self.node}" if self.node else ""
        return f"{self.status}{where}" + (f": {self.reason}" if self.reason else "")


def change_of(life: GuestLife) -> GuestChange:
    """How a guest is now."""
    fault = life.fault if life.status in ("error", "clearing", "placed") else None
    return GuestChange(
        uuid=life.uuid,
        status=life.shown,
        backend=life.backend,
        node=life.node,
        claim=life.claim,
        failure=None if fault is None else fault.failure,
        reason=None if fault is None else fault.text,
    )


class SnapshotChange(GuestChange, frozen=True, kw_only=True, omit_defaults=True):
    """A snapshot of a guest after a command: ``uuid`` is the guest's, ``status`` and ``claim`` are the snapshot's."""

    snapshot: str

    @property
    def sentence(self) -> str:
        """It in words, for events."""
        return f"snapshot {self.snapshot} {self.status}" + (f": {self.reason}" if self.reason else "")


def snapshot_change_of(guest: GuestLife, life: SnapshotLife) -> SnapshotChange:
    """How a snapshot of a guest is now."""
    fault = life.fault if life.status in ("error", "clearing") else None
    return SnapshotChange(
        uuid=guest.uuid,
        status=life.shown,
        backend=life.backend,
        claim=life.claim,
        failure=None if fault is None else fault.failure,
        reason=None if fault is None else fault.text,
        snapshot=life.uuid,
    )


class BackendLife(msgspec.Struct):
    """What the state knows of a back end: whether it may be used, its nodes with their host names, and the name under
    which its pools are known (``NAME@KIND``; empty: it has none). ``reported`` and ``pools_reported``: times of the
    newest inventories. ``reports``: the newest report of each node. ``attaches``: its guests can have volumes.
    ``can``: what else it can do with guests."""

    enabled: bool = True
    reason: str = ""
    nodes: list[str] = []
    reported: float = 0.0
    volume_host: str = ""
    pools: list[str] = []
    pools_reported: float = 0.0
    reports: dict[str, NodeReport] = {}
    attaches: bool = True
    can: list[str] = []


@dataclass
class Lives:
    """All guests and volumes that back ends carry out, and the back ends. Part of the service's state."""

    installation: str = ""
    claims: int = 0
    """Number of the newest claim."""
    guests: dict[str, GuestLife] = field(default_factory=dict)
    backends: dict[str, BackendLife] = field(default_factory=dict)
    failed_builds: dict[str, int] = field(default_factory=dict)
    """By node: builds that failed since the last one that succeeded, which BuildFailureWeigher reads."""
    volumes: dict[str, VolumeLife] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._backend_of = {node: name for name, each in self.backends.items() for node in each.nodes}
        self._backend_of_pools = {each.volume_host: name for name, each in self.backends.items() if each.volume_host}
        self._guest_of = {uuid: life.uuid for life in self.guests.values() for uuid in life.snapshots}

    def guest(self, uuid: str) -> GuestLife:
        """The life of a guest. UnknownName if no back end carries it out. O(1)."""
        found = self.guests.get(uuid)
        if found is None:
            raise UnknownName(f"no back end has a guest {uuid[:40]}", field="uuid")
        return found

    def has_volumes(self, life: GuestLife) -> bool:
        """True if every volume of a guest is there. O(volumes of it)."""
        known = (self.volumes.get(uuid) for uuid in life.volumes)
        return all(each is not None and each.status == "available" for each in known)

    def backend_of(self, node: str) -> str | None:
        """The back end of a node; None if it has none. O(1)."""
        return self._backend_of.get(node)

    def volume(self, uuid: str, field: str = "volume") -> VolumeLife:
        """The life of a volume. UnknownName if no back end carries it out. O(1)."""
        found = self.volumes.get(uuid)
        if found is None:
            raise UnknownName(f"no back end has a volume {uuid[:40]}", field=field)
        return found

    def guest_of_snapshot(self, uuid: str) -> GuestLife | None:
        """The guest that has a snapshot; None if there is no such snapshot. O(1)."""
        return self.guests.get(self._guest_of.get(uuid, ""))

    def is_snapshot(self, backend: str, key: str) -> bool:
        """True if a back end knows a snapshot under this name. O(snapshots)."""
        known = (self.guests[guest].snapshots[uuid] for uuid, guest in self._guest_of.items())
        return any(each.key and (each.backend, each.key) == (backend, key) for each in known)

    def add_snapshot(self, guest: GuestLife, snapshot: SnapshotLife) -> None:
        """A guest has one more snapshot."""
        guest.snapshots[snapshot.uuid] = snapshot
        self._guest_of[snapshot.uuid] = guest.uuid

    def drop_snapshot(self, guest: GuestLife, snapshot: SnapshotLife) -> None:
        """A guest no longer has a snapshot."""
        del guest.snapshots[snapshot.uuid]
        del self._guest_of[snapshot.uuid]

    def backend_of_pool(self, backend_id: str) -> str | None:
        """The back end of a pool (``NAME@KIND#POOL``); None if it has none. O(1)."""
        return self._backend_of_pools.get(backend_part(backend_id))

    def of_project(self, project: str) -> Iterator[GuestLife]:
        """The guests of a project. O(guests)."""
        return (life for life in self.guests.values() if life.project_id == project)

    def set_nodes(self, backend: str, nodes: list[str]) -> None:
        """Nodes of a back end, all that it ever had. O(nodes)."""
        self.backends.setdefault(backend, BackendLife()).nodes = nodes
        self._backend_of.update(dict.fromkeys(nodes, backend))

    def set_pools(self, backend: str, host: str, pools: list[str]) -> None:
        """Pools of a back end, and the name under which they are known. O(pools)."""
        known = self.backends.setdefault(backend, BackendLife())
        known.volume_host, known.pools = host, pools
        self._backend_of_pools[host] = backend

    def next_claim(self) -> int:
        """A new number."""
        self.claims += 1
        return self.claims

    def counts(self) -> dict[tuple[str, str], int]:
        """Guests by back end and status as shown. O(guests)."""
        found: dict[tuple[str, str], int] = {}
        for life in self.guests.values():
            key = (life.backend, life.shown)
            found[key] = found.get(key, 0) + 1
        return found
