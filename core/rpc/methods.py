"""All methods by name: their parameters and answers as types. docs/rpc.md is made of this table."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from ...placement.decide.explain.explanation import Explanation
from ...placement.decide.fits import Fit, SharedFit
from ...placement.storage.decision import VolumeDecision
from ...placement.storage.explain import VolumeExplanation
from ...placement.storage.with_guests import JointDecision
from ...placement.types.decision import Decision
from ...placement.types.host_report import Reported
from ...placement.types.moves import PendingMove
from ...placement.types.plans import Plan, PlanCheck
from .. import engine_commands as p
from .. import lifecycle_commands as f
from .. import region_commands as g
from .. import storage_commands as s
from ..backends.values import ConsoleAddress
from ..cluster_status import MemberLine, SnapshotList
from ..machine import catalog_queries as k
from ..machine import group_queries as gq
from ..machine import instance_queries as i
from ..machine import lifecycle_queries as lq
from ..machine import plan_queries as m
from ..machine import provider_queries as v
from ..machine import queries as q
from ..machine import ranking as r
from ..machine import region_queries as rq
from ..machine import tenant_queries as t
from ..machine import volume_backend_queries as vb
from ..machine import volume_queries as vq
from ..machine import volume_ranking as vr
from ..machine import what_if as w
from ..machine.lives import GuestChange, SnapshotChange
from ..machine.region_summary import RegionSummary
from ..reconcile.status import ReconcileStatus, StrangerLine
from ..shadow.status import ShadowStatus
from ..tenancy import commands as c
from ..tenancy.new_token import TOKEN_DAYS, NewToken
from .cluster_methods import Lead, Members, SnapshotFiles, SnapshotPart
from .messages import ErrorStyle, Params


class Hello(Params, frozen=True):
    """Authenticate with a token, and select the style of errors on this connection: ``list`` = [code, message], ``map``
    = {code, message, field, hint, extra}, ``text`` = ``code: message``. Needs no authentication; may be called again.
    Omitted parameters are unchanged; an invalid token changes nothing."""

    token: Annotated[str, msgspec.Meta(max_length=1_000)] | None = None
    errors: ErrorStyle | None = None


class Status(Params, frozen=True):
    """State of the service and identity of the caller. Open to all; unauthenticated peers get ``ready`` only."""


class Batch(Params, frozen=True):
    """Several commands and queries in one message, [method, params] each. They start in order, but queries do not wait
    for preceding commands. Answers are returned together, in order: [error, result] each."""

    calls: Annotated[list[tuple[str, msgspec.Raw]], msgspec.Meta(max_length=10_000)]


class Issue(Params, frozen=True):
    """Create a token for a user (default: the caller) that is valid for ``days`` days."""

    user: str | None = None
    days: Annotated[float, msgspec.Meta(gt=0, le=3_650)] = TOKEN_DAYS


class Watch(Params, frozen=True):
    """Subscribe to events from now on, or ``after`` a command: ``decisions`` (placements), ``refusals``, ``changes``
    (all other commands), ``capacity`` once a second while it changes, and as often the ``summary`` that a parent of
    regions chooses by; both are for readers of the cloud. Readers of a project receive events of its
    guests, readers of the cloud all events. Notifications are [2, "event", [Event]]. A second call replaces the first.
    Returns the sequence number after which events begin."""

    kinds: Annotated[
        list[Literal["decisions", "refusals", "changes", "capacity", "summary"]], msgspec.Meta(max_length=100)
    ]
    project: str | None = None
    after: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Unwatch(Params, frozen=True):
    """End the subscription."""


class TakeSnapshot(Params, frozen=True):
    """Take a snapshot now. For cloud admins."""


class Backup(Params, frozen=True):
    """Copy the state as it is now into a new folder on the service's machine, from which a service can be started;
    answers the sequence number of the last command in it. For the service's own user."""

    folder: Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)]


class ShowShadow(Params, frozen=True):
    """What the shadow policy (``shadow_policy`` of the configuration) would have decided otherwise since the service
    started, with the last ``limit`` differences; for readers of the cloud."""

    limit: Annotated[int, msgspec.Meta(ge=0, le=200)] = 20


class ShowReconcile(Params, frozen=True):
    """How guests are brought to what is desired: by status, and each back end's driver, queue and last problem. For
    readers of the cloud."""


class ListStrangers(Params, frozen=True):
    """Guests on a ``backend`` that this installation did not make, as of its last inventory, in the order of their
    keys, behind the one named ``after``; ``adopt_guest`` makes one a guest of a project. For readers of the cloud."""

    backend: Annotated[str, msgspec.Meta(max_length=255)]
    after: Annotated[str, msgspec.Meta(max_length=255)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1_000


class CheckBackend(Params, frozen=True):
    """Have the driver of a back end check that it answers. For cloud admins."""

    name: Annotated[str, msgspec.Meta(max_length=255)]


class Console(Params, frozen=True):
    """Have the back end of a guest tell how its console is reached now. The answer may hold a secret that the back end
    has made for it, and is kept nowhere. For members of the guest's project."""

    uuid: Annotated[str, msgspec.Meta(max_length=255)]


class ListRegions(Params, frozen=True):
    """The regions that this service is the parent of, and what their summaries say. For readers of the cloud."""


class ShowRegionSummary(Params, frozen=True):
    """What this service tells a parent that it is a region of: how many more guests of each shape class fit, and what
    is free. For readers of the cloud."""


class Welcome(msgspec.Struct, frozen=True):
    """The caller's identity (None until authenticated), and that of the service."""

    user: str | None
    version: str
    protocol: int = 1


class StatusOf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``ready``: commands are taken. ``writable``: the journal can be written. ``sequence``: number of the last
    command; ``queued``: how many wait. ``user``: who you are (None: not authenticated; then all but ``ready`` is left
    out). Of a member of a cluster: its ``role``, leader or follower; the ``leader``'s addresses; the ``term``, a number
    that grows with each election; ``behind_ms``: the age of what it answers from (None: unknown)."""

    ready: bool
    writable: bool = False
    sequence: int = 0
    queued: int = 0
    hosts: int = 0
    user: str | None = None
    version: str = ""
    role: str = ""
    leader: tuple[str, ...] = ()
    term: int = 0
    behind_ms: float | None = None


Kind = Literal["command", "question", "session"]


class Method(NamedTuple):
    """A method: its parameters and the type of its answer. A ``command`` is journalled, and takes options; a
    ``question`` changes nothing; ``session`` is about the connection or the service itself."""

    name: str
    params: type[Any]
    result: Any
    kind: Kind

    @property
    def journalled(self) -> bool:
        """True for commands."""
        return self.kind == "command"

    @property
    def about(self) -> str:
        """What it does."""
        return inspect.cleandoc(self.params.__doc__ or "").replace("\n", " ")


_COMMANDS: Final[dict[type[Any], Any]] = {
    p.Place: Decision,
    p.Hold: Decision,
    p.ConfirmHold: int,
    p.PlaceMany: p.Placed,
    p.PlaceCandidates: Decision,
    p.Move: Decision,
    p.Resize: Decision,
    p.BeginMove: Decision,
    p.ConfirmMove: PendingMove,
    p.RevertMove: PendingMove,
    p.ReportHosts: Reported,
    p.Release: int,
    p.Spawned: None,
    p.AddHosts: int,
    p.RemoveHost: None,
    p.SetService: None,
    p.Heartbeats: None,
    p.Report: None,
    p.AddProvider: str,
    p.SetParent: None,
    p.SetTraits: None,
    p.SetInventory: None,
    p.SetAggregates: None,
    p.UpdateAggregate: None,
    p.RemoveAggregate: None,
    p.AddServerGroup: None,
    p.RemoveServerGroup: None,
    p.SetPolicy: str,
    f.CreateGuest: Decision,
    f.AdoptGuest: Decision,
    f.StartGuest: GuestChange,
    f.StopGuest: GuestChange,
    f.DeleteGuest: GuestChange,
    f.MoveGuest: Decision,
    f.ResizeGuest: Decision,
    f.SnapshotGuest: SnapshotChange,
    f.DeleteGuestSnapshot: SnapshotChange,
    f.AttachVolume: GuestChange,
    f.DetachVolume: GuestChange,
    f.CreateVolume: VolumeDecision,
    f.SetBackend: None,
    c.CreateDomain: None,
    c.SetIdentitySuffixes: None,
    c.DeleteDomain: None,
    c.CreateProject: None,
    c.DeleteProject: None,
    c.CreateUser: None,
    c.DeleteUser: None,
    c.Grant: None,
    c.Revoke: None,
    c.RevokeToken: None,
    c.SetLimits: None,
    c.CreatePool: None,
    c.DeletePool: None,
    c.SetPoolHosts: None,
    c.GrantPool: None,
    c.UngrantPool: None,
    c.CreateFlavor: None,
    c.DeleteFlavor: None,
    c.CreateImage: None,
    c.DeleteImage: None,
    c.CreateVolumeType: None,
    c.DeleteVolumeType: None,
    g.PlaceAcross: g.PlacedAcross,
    s.PlaceVolume: VolumeDecision,
    s.RetryVolume: VolumeDecision,
    s.ManageVolume: VolumeDecision,
    s.DeleteVolumes: int,
    s.ExtendVolume: VolumeDecision,
    s.BeginRetype: VolumeDecision,
    s.BeginVolumeMigration: VolumeDecision,
    s.ConfirmVolumeMove: s.VolumeMoved,
    s.RevertVolumeMove: s.VolumeMoved,
    s.CreateVolumeSnapshot: s.SnapshotPlaced,
    s.DeleteVolumeSnapshots: int,
    s.CreateVolumeBackup: s.BackupPlaced,
    s.DeleteVolumeBackups: int,
    s.PlaceVolumeGroup: s.GroupPlaced,
    s.DeleteVolumeGroup: None,
    s.PlaceTogether: JointDecision,
    s.ReportVolumeBackends: int,
    s.SetVolumeBackend: None,
    s.RemoveVolumeBackend: None,
    s.SetBackupService: None,
    s.RemoveBackupService: None,
}
_QUESTIONS: Final[dict[str, tuple[type[Any], Any]]] = {
    "hosts": (q.Hosts, list[q.HostLine]),
    "host": (q.ShowHost, q.HostDetail),
    "instances": (i.Instances, list[i.InstanceLine]),
    "server_groups": (gq.ServerGroups, list[gq.ServerGroupLine]),
    "instance": (q.Instance, q.InstanceDetail),
    "providers": (v.Providers, list[v.ProviderLine]),
    "provider": (v.ShowProvider, v.ProviderDetail),
    "aggregates": (v.Aggregates, list[v.AggregateLine]),
    "allocations": (v.Allocations, list[v.ConsumerLine]),
    "allocation": (v.ShowAllocation, v.ConsumerLine),
    "region_of": (rq.RegionOf, rq.RegionGuestLine),
    "region_guests": (rq.RegionGuests, list[rq.RegionGuestLine]),
    "explain": (q.Explain, Explanation),
    "fits": (q.Fits, Fit),
    "fits_many": (q.FitsMany, list[SharedFit]),
    "rank": (r.Rank, r.Ranking),
    "rank_volume": (vr.RankVolume, vr.VolumeRanking),
    "what_if": (w.WhatIf, list[w.Tried]),
    "moves": (q.ShowMoves, list[PendingMove]),
    "drift": (q.ShowDrift, list[q.DriftLine]),
    "usage": (t.ShowUsage, t.UsageAndLimits),
    "capacity": (q.Capacity, dict[str, q.CapacityOf]),
    "domains": (t.Domains, list[str]),
    "projects": (t.Projects, list[t.ProjectLine]),
    "users": (t.Users, list[t.UserLine]),
    "tokens": (t.Tokens, list[t.TokenLine]),
    "guests": (lq.Guests, list[lq.GuestLine]),
    "guest": (lq.ShowGuest, lq.GuestLine),
    "guest_snapshots": (lq.GuestSnapshots, list[lq.GuestSnapshotLine]),
    "volume_lives": (lq.VolumeLives, list[lq.VolumeLifeLine]),
    "backends": (lq.ListBackends, list[lq.BackendLine]),
    "flavors": (k.Flavors, list[k.FlavorLine]),
    "flavor": (k.ShowFlavor, k.FlavorLine),
    "images": (k.Images, list[k.ImageLine]),
    "image": (k.ShowImage, k.ImageLine),
    "pools": (t.ListPools, list[t.PoolLine]),
    "policy": (q.ShowPolicy, q.PolicyInForce),
    "plan": (m.PlanMoves, Plan),
    "check_plan": (m.CheckPlan, PlanCheck),
    "volumes": (vq.Volumes, list[vq.VolumeLine]),
    "volume": (vq.ShowVolume, vq.VolumeDetail),
    "volume_snapshots": (vq.VolumeSnapshots, list[vq.SnapshotLine]),
    "volume_backups": (vq.VolumeBackups, list[vq.BackupLine]),
    "volume_groups": (vq.VolumeGroups, list[vq.VolumeGroupLine]),
    "volume_types": (vq.VolumeTypes, list[vq.VolumeTypeLine]),
    "volume_type": (vq.ShowVolumeType, vq.VolumeTypeLine),
    "volume_backends": (vb.VolumeBackends, list[vb.VolumeBackendLine]),
    "volume_pools": (vb.VolumePools, list[vb.VolumePoolLine]),
    "backup_services": (vb.BackupServices, list[vb.BackupServiceLine]),
    "explain_volume": (vq.ExplainVolume, VolumeExplanation),
    "fits_volume": (vq.FitsVolume, Fit),
}
_SESSION: Final[dict[str, tuple[type[Any], Any]]] = {
    "hello": (Hello, Welcome),
    "status": (Status, StatusOf),
    "batch": (Batch, list[tuple[Any, Any]]),
    "create_token": (Issue, NewToken),
    "watch": (Watch, int),
    "unwatch": (Unwatch, None),
    "snapshot": (TakeSnapshot, int),
    "backup": (Backup, int),
    "reconcile_status": (ShowReconcile, ReconcileStatus),
    "shadow_status": (ShowShadow, ShadowStatus),
    "strangers": (ListStrangers, list[StrangerLine]),
    "check_backend": (CheckBackend, None),
    "console": (Console, ConsoleAddress),
    "members": (Members, list[MemberLine]),
    "lead": (Lead, str),
    "snapshot_files": (SnapshotFiles, SnapshotList),
    "snapshot_part": (SnapshotPart, bytes),
    "regions": (ListRegions, list[rq.RegionLine]),
    "region_summary": (ShowRegionSummary, RegionSummary),
}


def _methods() -> dict[str, Method]:
    found = {name: Method(name, params, result, "session") for name, (params, result) in _SESSION.items()}
    for params, result in _COMMANDS.items():
        name = str(params.__struct_config__.tag)
        found[name] = Method(name, params, result, "command")
    found |= {name: Method(name, params, result, "question") for name, (params, result) in _QUESTIONS.items()}
    return found


METHODS: Final = _methods()
