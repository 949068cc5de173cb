"""The life of guests that back ends carry out, as facts: what is desired, what was observed, and where. It knows no
fleet; ``guest_lives`` changes it by commands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from ...placement.types.errors import UnknownName
from ..backends.errors import FailureClass

Desired = Literal["active", "stopped", "deleted"]
GuestStatus = Literal["placed", "building", "active", "stopped", "clearing", "error"]
"""placed: claimed, no call made. building: calls may have been made, not confirmed. active, stopped: confirmed.
clearing: the build failed, and what may be left is to be removed. error: nothing is done until a user decides."""
SHOWN: Final = ("placed", "building", "active", "stopped", "starting", "stopping", "deleting", "clearing", "error")


class Fault(msgspec.Struct, frozen=True):
    """Why a build failed, or a guest is in error: class and text of the driver's error, when, and on which node."""

    failure: FailureClass
    text: str
    at: float
    node: str


class GuestLife(msgspec.Struct, kw_only=True):
    """One guest. ``claim``: number of the present attempt. ``node`` and ``backend`` are empty while it has no place.
    ``until``: when the present attempt is given up, in seconds since the epoch. ``spec``: what it was asked with.
    ``failed_hosts``: hosts on which it could not be built. ``key``: the back end's own id of it."""

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

    @property
    def shown(self) -> str:
        """The status as users see it: what is being done, where something is."""
        if self.desired == "deleted":
            return "deleting"
        if self.status == "active" and self.desired == "stopped":
            return "stopping"
        if self.status == "stopped" and self.desired == "active":
            return "starting"
        return self.status

    @property
    def settled(self) -> bool:
        """True if nothing is to be done: what was observed is what is desired, or a user has to decide."""
        if self.desired == "deleted":
            return False
        return self.status in ("error", self.desired)


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


class BackendLife(msgspec.Struct):
    """What the state knows of a back end: whether it may be used, and its nodes with their host names."""

    enabled: bool = True
    reason: str = ""
    nodes: list[str] = []
    reported: float = 0.0


@dataclass
class Lives:
    """All guests that back ends carry out, and the back ends. Part of the service's state."""

    installation: str = ""
    claims: int = 0
    """Number of the newest claim."""
    guests: dict[str, GuestLife] = field(default_factory=dict)
    backends: dict[str, BackendLife] = field(default_factory=dict)
    failed_builds: dict[str, int] = field(default_factory=dict)
    """By node: builds that failed since the last one that succeeded, which BuildFailureWeigher reads."""

    def __post_init__(self) -> None:
        self._backend_of = {node: name for name, each in self.backends.items() for node in each.nodes}

    def guest(self, uuid: str) -> GuestLife:
        """The life of a guest. UnknownName if no back end carries it out. O(1)."""
        found = self.guests.get(uuid)
        if found is None:
            raise UnknownName(f"no back end has a guest {uuid[:40]}", field="uuid")
        return found

    def backend_of(self, node: str) -> str | None:
        """The back end of a node; None if it has none. O(1)."""
        return self._backend_of.get(node)

    def of_project(self, project: str) -> Iterator[GuestLife]:
        """The guests of a project. O(guests)."""
        return (life for life in self.guests.values() if life.project_id == project)

    def set_nodes(self, backend: str, nodes: list[str]) -> None:
        """Nodes of a back end, all that it ever had. O(nodes)."""
        self.backends.setdefault(backend, BackendLife()).nodes = nodes
        self._backend_of.update(dict.fromkeys(nodes, backend))

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
