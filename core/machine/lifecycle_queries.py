"""Questions on guests and volumes that back ends carry out, and on the back ends, answered from the state."""

from __future__ import annotations

import msgspec

from ..backends.errors import FailureClass
from ..tenancy.rights import no_instance, project_scope
from ..tenancy.tenants import CLOUD, RANK
from .lives import GuestLife, VolumeLife
from .question import Page, Query
from .state import ServiceState


class Guests(Query, frozen=True):
    """Guests that back ends carry out, in the order of their uuids, behind the one named ``after``: of a ``project``, a
    ``backend``, in a ``status``, each where it is given. Readers of the cloud see all, others those of projects that
    they may read."""

    project: str | None = None
    backend: str | None = None
    status: str | None = None
    after: str | None = None
    limit: Page = 1_000


class ShowGuest(Query, frozen=True):
    """One guest that a back end carries out. For readers of its project."""

    uuid: str


class GuestSnapshots(Query, frozen=True):
    """The snapshots of one guest, in the order of their uuids. For readers of its project."""

    uuid: str


class VolumeLives(Query, frozen=True):
    """Volumes that back ends carry out, in the order of their uuids, behind the one named ``after``: of a ``project``,
    a ``guest``, a ``backend``, in a ``status``, each where it is given. Readers of the cloud see all, others those of
    projects that they may read."""

    project: str | None = None
    guest: str | None = None
    backend: str | None = None
    status: str | None = None
    after: str | None = None
    limit: Page = 1_000


class ListBackends(Query, frozen=True):
    """The back ends, as the state has them. For readers of the cloud."""


class GuestLine(msgspec.Struct, frozen=True, kw_only=True):
    """A guest: ``status`` is placed, building, active, stopped, starting, stopping, moving or resizing (to ``target``),
    clearing (what is left of a failed build is removed), deleting or error. Memory in MiB, disk in GiB. ``volumes``:
    their uuids. ``settled``: nothing is to be done for it. ``failure`` and ``reason``: class and text of the last
    failed build, move, resize or attachment since it last was well. ``changed``: time of the last change of its status,
    in seconds since the epoch."""

    uuid: str
    name: str
    project_id: str
    user_id: str
    status: str
    desired: str
    backend: str
    node: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    image: str
    claim: int
    changed: float
    failed_hosts: list[str]
    failure: FailureClass | None = None
    reason: str | None = None
    volumes: list[str] = []
    target: str | None = None
    settled: bool = True


class GuestSnapshotLine(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the guest ``guest``: ``status`` is placed, building, available, clearing, deleting or error.
    ``key``: the back end's own name of it. ``failure``, ``reason`` and ``changed`` as of guests."""

    uuid: str
    name: str
    guest: str
    status: str
    backend: str
    key: str
    claim: int
    changed: float
    failure: FailureClass | None = None
    reason: str | None = None


class VolumeLifeLine(msgspec.Struct, frozen=True, kw_only=True):
    """A volume: ``status`` is placed, building, available, in_use, clearing, deleting or error. Its size in GiB.
    ``guest``: that it is for; empty: none. ``failure``, ``reason`` and ``changed`` as of guests."""

    uuid: str
    name: str
    project_id: str
    status: str
    backend: str
    pool: str
    size_gb: int
    image: str
    guest: str
    keep: bool
    claim: int
    changed: float
    failure: FailureClass | None = None
    reason: str | None = None


class BackendLine(msgspec.Struct, frozen=True, kw_only=True):
    """A back end: whether it may be used, the reason if not, its nodes, its guests by status, the time of its newest
    inventory, and its pools (``volume_host``: the name under which volumes know them)."""

    name: str
    enabled: bool
    reason: str
    nodes: list[str]
    guests: dict[str, int]
    reported: float
    pools: list[str] = []
    volume_host: str = ""


def guests(state: ServiceState, user: str, query: Guests) -> list[GuestLine]:
    """The answer. NotAllowed for a project that the user may not read. O(guests log guests)."""
    tenants = state.tenants
    if query.project is not None:
        tenants.require(user, "reader", project_scope(query.project))
    readable = _Readable(state, user)
    found = []
    for uuid in sorted(state.lives.guests):
        life = state.lives.guests[uuid]
        if query.after is not None and uuid <= query.after:
            continue
        if query.project not in (None, life.project_id) or query.backend not in (None, life.backend):
            continue
        if query.status not in (None, life.shown):
            continue
        if not readable(life.project_id):
            continue
        found.append(_line(life))
        if len(found) == query.limit:
            break
    return found


def show_guest(state: ServiceState, user: str, query: ShowGuest) -> GuestLine:
    """The answer. NotAllowed alike for guests of others and those that are not there; UnknownName for readers of the
    cloud. O(1)."""
    return _line(_readable_guest(state, user, query.uuid, "reader"))


def guest_snapshots(state: ServiceState, user: str, query: GuestSnapshots) -> list[GuestSnapshotLine]:
    """The answer. Errors as for ``show_guest``. O(snapshots of the guest)."""
    guest = _readable_guest(state, user, query.uuid, "reader")
    found = []
    for uuid, life in sorted(guest.snapshots.items()):
        fault = life.fault
        found.append(
            GuestSnapshotLine(
                uuid=uuid,
                name=life.name,
                guest=guest.uuid,
                status=life.shown,
                backend=life.backend,
                key=life.key,
                claim=life.claim,
                changed=life.changed,
                failure=None if fault is None else fault.failure,
                reason=None if fault is None else fault.text,
            )
        )
    return found


def _readable_guest(state: ServiceState, user: str, uuid: str, role: str) -> GuestLife:
    """A guest for those with a role in its project or the cloud; errors as for ``show_guest``."""
    if state.tenants.role(user, CLOUD) >= RANK[role]:
        return state.lives.guest(uuid)
    life = state.lives.guests.get(uuid)
    if life is None or state.tenants.role(user, project_scope(life.project_id)) < RANK[role]:
        raise no_instance(uuid, "uuid")
    return life


def guest_for(state: ServiceState, user: str, uuid: str) -> GuestLife:
    """A guest for members of its project. NotAllowed alike for guests of others and those that are not there;
    UnknownName for members of the cloud. O(1)."""
    return _readable_guest(state, user, uuid, "member")


def volume_lives(state: ServiceState, user: str, query: VolumeLives) -> list[VolumeLifeLine]:
    """The answer. NotAllowed for a project that the user may not read. O(volumes log volumes)."""
    if query.project is not None:
        state.tenants.require(user, "reader", project_scope(query.project))
    readable = _Readable(state, user)
    found = []
    for uuid in sorted(state.lives.volumes):
        life = state.lives.volumes[uuid]
        wanted = (query.project, query.guest, query.backend, query.status)
        has = (life.project_id, life.guest, life.backend, life.shown)
        if query.after is not None and uuid <= query.after:
            continue
        if any(want not in (None, each) for want, each in zip(wanted, has, strict=True)):
            continue
        if readable(life.project_id):
            found.append(_volume_line(life))
            if len(found) == query.limit:
                break
    return found


class _Readable:
    """Whether a user may read what belongs to a project."""

    def __init__(self, state: ServiceState, user: str) -> None:
        self._tenants, self._user = state.tenants, user
        self._everything = self._tenants.role(user, CLOUD) >= RANK["reader"]
        self._known: dict[str, bool] = {}

    def __call__(self, project: str) -> bool:
        if self._everything:
            return True
        known = self._known.get(project)
        if known is None:
            known = self._tenants.role(self._user, project_scope(project)) >= RANK["reader"]
            self._known[project] = known
        return known


def backends(state: ServiceState, user: str, query: ListBackends) -> list[BackendLine]:
    """The answer. O(guests)."""
    found: dict[str, dict[str, int]] = {}
    for (name, status), count in sorted(state.lives.counts().items()):
        found.setdefault(name, {})[status] = count
    return [
        BackendLine(
            name=name,
            enabled=each.enabled,
            reason=each.reason,
            nodes=list(each.nodes),
            guests=found.get(name, {}),
            reported=max(each.reported, each.pools_reported),
            pools=list(each.pools),
            volume_host=each.volume_host,
        )
        for name, each in sorted(state.lives.backends.items())
    ]


def _line(life: GuestLife) -> GuestLine:
    fault = life.fault
    return GuestLine(
        uuid=life.uuid,
        name=life.name,
        project_id=life.project_id,
        user_id=life.user_id,
        status=life.shown,
        desired=life.desired,
        backend=life.backend,
        node=life.node,
        vcpus=life.vcpus,
        memory_mb=life.memory_mb,
        disk_gb=life.disk_gb,
        image=life.image,
        claim=life.claim,
        changed=life.changed,
        failed_hosts=list(life.failed_hosts),
        failure=None if fault is None else fault.failure,
        reason=None if fault is None else fault.text,
        volumes=list(life.volumes),
        target=None if life.move is None else life.move.node,
        settled=life.settled,
    )


def _volume_line(life: VolumeLife) -> VolumeLifeLine:
    fault = life.fault
    return VolumeLifeLine(
        uuid=life.uuid,
        name=life.name,
        project_id=life.project_id,
        status=life.shown,
        backend=life.backend,
        pool=life.pool,
        size_gb=life.size_gb,
        image=life.image,
        guest=life.guest,
        keep=life.keep,
        claim=life.claim,
        changed=life.changed,
        failure=None if fault is None else fault.failure,
        reason=None if fault is None else fault.text,
    )
