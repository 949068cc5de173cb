"""Commands on the life cycle of guests and volumes that back ends carry out: those of users, which change what is
desired, and those of the reconciler, which say what happened. A *claim* is the number of one attempt to have a guest on
one node, or a volume in one pool; it is never reused."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from ..placement.storage.with_guests import Locality
from .backends.errors import FailureClass
from .backends.values import NodeState
from .engine_commands import Asked, Command
from .storage_commands import AskedVolume

_NAME: Final = r"^[A-Za-z0-9._-]{1,64}$"
Name = Annotated[str, msgspec.Meta(pattern=_NAME)]
NAME_PATTERNS: Final = {_NAME: "a name has 1 to 64 letters, digits and ._-"}
"""What the pattern means, for errors."""
Claim = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(max_length=255)]
BUILD_SECONDS: Final = 600.0
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
ATTEMPTS: Final = 3
"""Nova 33: [scheduler] max_attempts."""
MOVE_SECONDS: Final = 3_600.0
DETACH_SECONDS: Final = 600.0
MoveKind = Literal["live_migrate", "cold_migrate", "evacuate"]


class Lifecycle(Command, frozen=True):
    """Base of all commands of this module."""


class OnGuest(Lifecycle, frozen=True):
    """Base of commands on one guest that is there."""

    uuid: str


class OnClaim(OnGuest, frozen=True):
    """Base of what the reconciler tells of one claim of a guest; refused if it is not the present one."""

    claim: Claim


class OnVolumeClaim(Lifecycle, frozen=True):
    """Base of what the reconciler tells of one claim of a volume; refused if it is not the present one."""

    volume: str
    claim: Claim


class GuestVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A volume to be made for a guest: ``request`` says what pool it needs (one with a source or group is refused),
    ``image`` what it is made from (a name that the back end of the pool knows; empty: it is blank). ``keep``: it stays
    when the guest is deleted."""

    request: AskedVolume
    name: Text = ""
    image: Text = ""
    keep: bool = False


def guest_volume(
    size_gb: int,
    *,
    volume_type: str | None = None,
    zone: str | None = None,
    image: str = "",
    name: str = "",
    keep: bool = False,
    uuid: str | None = None,
    project_id: str = "",
    user_id: str = "",
) -> GuestVolume:
    """A volume to be made for a guest, of a size in GiB, of a type that the service keeps, in an availability zone."""
    spec = {"size_gb": size_gb, "volume_type": volume_type, "availability_zone": zone}
    given = {key: value for key, value in spec.items() if value is not None}
    raw = msgspec.Raw(msgspec.msgpack.encode(given))
    request = AskedVolume(spec=raw, volume_id=uuid, project_id=project_id, user_id=user_id)
    return GuestVolume(request=request, name=name, image=image, keep=keep)


class CreateGuest(Lifecycle, frozen=True, tag="create_guest"):
    """Place one guest, with its volumes where it has some, and have their back ends build them: the volumes first, then
    the guest with these attached, the first one as the disk that it boots from. ``image`` and ``networks`` are names
    that the back end knows; ``user_data`` is the name of a file in the service's folder of user data. ``stopped``:
    build it without starting it. At most ``attempts`` hosts are tried, each for ``build_seconds``. ``locality``: how
    near the volumes are to be. Answers the decision; the guest's events tell what becomes of it."""

    request: Asked
    name: Text = ""
    image: Text = ""
    networks: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()
    user_data: Name | None = None
    stopped: bool = False
    attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = ATTEMPTS
    build_seconds: Seconds = BUILD_SECONDS
    volumes: Annotated[tuple[GuestVolume, ...], msgspec.Meta(max_length=32)] = ()
    locality: Locality | None = None


class AdoptGuest(Lifecycle, frozen=True, tag="adopt_guest"):
    """Make a guest that others made on a back end (a stranger) one of a project: it is charged there on its ``node``,
    where it counted as use before, within the project's quota, and marked as this installation's; it neither stops nor
    changes. ``key``: the back end's own id of it, which is its uuid here too if it is one. The flavor of the request
    has its size; a guest of another size stays a stranger, and what was charged is in error. It is given up after
    ``seconds``. Answers the decision."""

    backend: Name
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    node: Text
    request: Asked
    name: Text = ""
    seconds: Seconds = BUILD_SECONDS


class StartGuest(OnGuest, frozen=True, tag="start_guest"):
    """Have a guest run. One in error is built again, on another host where that one was given back."""


class StopGuest(OnGuest, frozen=True, tag="stop_guest"):
    """Have a guest stopped; it keeps its resources."""


class DeleteGuest(OnGuest, frozen=True, tag="delete_guest"):
    """Have a guest removed from its back end; its resources are given back once it is gone."""


class MoveGuest(OnGuest, frozen=True, tag="move_guest"):
    """Have a guest go to another node of its back end. Both nodes hold its resources until the back end has moved it,
    or it is known to have stayed. ``live_migrate``: while it runs; ``cold_migrate``: stopped, and started again if it
    ran; ``evacuate``: its node is down, it is built again elsewhere with its volumes. ``target``: the node (left out:
    the best one). It is given up after ``seconds``. Answers the decision."""

    kind: MoveKind = "live_migrate"
    target: str | None = None
    seconds: Seconds = MOVE_SECONDS


class ResizeGuest(OnGuest, frozen=True, tag="resize_guest"):
    """Have a guest get the CPUs and memory of another flavor, which is all that is read of the request: its own disk
    stays as large as it is. Its node holds both sizes until the back end has resized it, or it is known to have kept
    its size; where its node has no room, it moves cold to another one of its back end that has. A guest that runs is
    stopped for it, and started again. ``target``, for cloud admins: the node. It is given up after ``seconds``. Answers
    the decision."""

    request: Asked
    target: str | None = None
    seconds: Seconds = MOVE_SECONDS


class SnapshotGuest(OnGuest, frozen=True, tag="snapshot_guest"):
    """Have an image made of the disk that a guest has of its own, running or stopped; not of its volumes. Guests of the
    project can be made from it: its ``image`` is then ``snapshot:UUID``. ``snapshot``: its uuid, made if left out. It
    is given up after ``seconds``. A guest that has snapshots is not deleted."""

    name: Text = ""
    snapshot: str = ""
    seconds: Seconds = MOVE_SECONDS


class DeleteGuestSnapshot(OnGuest, frozen=True, tag="delete_guest_snapshot"):
    """Have a snapshot of a guest removed from its back end. InUse while there are guests that were made from it."""

    snapshot: str


class AttachVolume(OnGuest, frozen=True, tag="attach_volume"):
    """Attach a volume that a back end carries out to a guest of the same project, running or stopped. A guest that does
    not have it after ``seconds`` goes on without it; its ``reason`` says so."""

    volume: str
    seconds: Seconds = DETACH_SECONDS


class DetachVolume(OnGuest, frozen=True, tag="detach_volume"):
    """Detach a volume from a guest. Not the one that it boots from: the first of those that it was created with, if it
    has no image. A guest that has not let it go after ``seconds`` keeps it; its ``reason`` says so."""

    volume: str
    seconds: Seconds = DETACH_SECONDS


class CreateVolume(Lifecycle, frozen=True, tag="create_volume"):
    """Choose a pool of a back end for a new volume, and have the back end make it, blank or from an ``image`` that it
    knows; a request with a source or group is refused. It is given up after ``build_seconds``. ``delete_volumes``
    removes it."""

    request: AskedVolume
    name: Text = ""
    image: Text = ""
    build_seconds: Seconds = BUILD_SECONDS


class SetBackend(Lifecycle, frozen=True, tag="set_backend"):
    """Enable a back end, or disable it: then no calls are made on it, and nothing is placed on its nodes; its guests
    stay. ``reason``: for operators."""

    name: Name
    enabled: bool
    reason: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


class SetInstallation(Lifecycle, frozen=True, tag="set_installation"):
    """Name this installation, once, before anything is built: back ends that several share tell them apart by it."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z-]{1,64}$")]


class NodeReport(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A node of a back end: totals, and what is used, by guests of others too. ``guests``: uuids of the guests of this
    installation that the use includes."""

    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    used_vcpus: int = 0
    used_memory_mb: int = 0
    used_disk_gb: int = 0
    running: int = 0
    state: NodeState = "up"
    hypervisor: str = "QEMU"
    guests: tuple[str, ...] = ()


class ReportBackend(Lifecycle, frozen=True, tag="report_backend"):
    """All nodes of a back end, as they were ``at`` a time. A node that was there before and is left out is down.
    ``attaches``: guests on them can have volumes. ``can``: what else the back end can do with guests (adopt, console,
    move, resize, snapshot)."""

    name: Name
    at: float
    nodes: tuple[NodeReport, ...]
    attaches: bool = True
    can: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()


class PoolReport(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A pool of a back end in GiB. ``volumes``: uuids of the volumes of this installation that its figures include."""

    name: str
    total_gb: int
    free_gb: int
    provisioned_gb: int
    thin: bool = False
    volumes: tuple[str, ...] = ()


class ReportPools(Lifecycle, frozen=True, tag="report_pools"):
    """All pools of a back end that are up, as they were ``at`` a time. ``kind``: name of its driver; the pools are
    known as ``NAME@KIND#POOL``."""

    name: Name
    kind: Name
    at: float
    pools: tuple[PoolReport, ...]


class BeginBuild(OnClaim, frozen=True, tag="begin_build"):
    """The reconciler is about to make a guest on its back end."""


class ConfirmGuest(OnClaim, frozen=True, tag="confirm_guest"):
    """The back end has the guest, running or stopped, under its own id ``key``. ``outside``: it was started or stopped
    by something else than the reconciler."""

    power: Literal["on", "off"]
    key: str = ""
    outside: bool = False


class FailBuild(OnClaim, frozen=True, tag="fail_build"):
    """The guest cannot be built where it was claimed. What is left of it there is removed next; then it is placed on
    another host if ``elsewhere`` and attempts are left, else it is in error."""

    failure: FailureClass
    text: str = ""
    elsewhere: bool = False


class RefusePower(OnClaim, frozen=True, tag="refuse_power"):
    """The back end does not start the guest (``power`` on) or stop it, and will not: it stays as it is, which is what
    is desired of it from now on."""

    power: Literal["on", "off"]
    failure: FailureClass
    text: str = ""


class NoteTrouble(OnClaim, frozen=True, tag="note_trouble"):
    """What is desired of the guest has failed again and again; the reconciler goes on trying."""

    failure: FailureClass
    text: str = ""


class LoseGuest(OnClaim, frozen=True, tag="lose_guest"):
    """The back end no longer has a guest that it had, although its removal was not wanted."""


class ClearClaim(OnClaim, frozen=True, tag="clear_claim"):
    """The back end has nothing of the guest: after a failed build, or because its removal was wanted."""


class BeginMigration(OnClaim, frozen=True, tag="begin_migration"):
    """The reconciler is about to move a guest on its back end."""


class EndMigration(OnClaim, frozen=True, tag="end_migration"):
    """The back end has the guest on the target of its move, running or stopped (``moved``), or on its source: then
    ``failure`` and ``text`` say why, and ``stayed`` whether it runs there (None: not known)."""

    moved: bool
    power: Literal["on", "off"] = "on"
    stayed: Literal["on", "off"] | None = None
    key: str = ""
    failure: FailureClass = "permanent"
    text: str = ""


class ConfirmAttachment(OnClaim, frozen=True, tag="confirm_attachment"):
    """The guest has a volume attached, or has it no longer."""

    volume: str
    attached: bool


class RefuseAttachment(OnClaim, frozen=True, tag="refuse_attachment"):
    """A volume cannot be attached to the guest, which goes on without it, or not detached from it: it keeps it.
    ``attaching``: it was a call that attaches it which failed; of one that is to be detached by now the guest is
    free."""

    volume: str
    failure: FailureClass
    text: str = ""
    attaching: bool = False


class OnSnapshotClaim(OnGuest, frozen=True):
    """Base of what the reconciler tells of one claim of a snapshot of a guest; refused if it is not the present one."""

    snapshot: str
    claim: Claim


class BeginSnapshot(OnSnapshotClaim, frozen=True, tag="begin_snapshot"):
    """The reconciler is about to make a snapshot on its back end."""


class ConfirmSnapshot(OnSnapshotClaim, frozen=True, tag="confirm_snapshot"):
    """The back end has the snapshot, under its own name ``key``."""

    key: str = ""


class FailSnapshot(OnSnapshotClaim, frozen=True, tag="fail_snapshot"):
    """The snapshot cannot be made. What is left of it is removed next."""

    failure: FailureClass
    text: str = ""


class LoseSnapshot(OnSnapshotClaim, frozen=True, tag="lose_snapshot"):
    """The back end no longer has a snapshot that it had, although its removal was not wanted."""


class NoteSnapshotTrouble(OnSnapshotClaim, frozen=True, tag="note_snapshot_trouble"):
    """The removal of the snapshot has failed again and again; the reconciler goes on trying."""

    failure: FailureClass
    text: str = ""


class ClearSnapshot(OnSnapshotClaim, frozen=True, tag="clear_snapshot"):
    """The back end has nothing of the snapshot: after a failure, or because its removal was wanted."""


class BeginVolume(OnVolumeClaim, frozen=True, tag="begin_volume"):
    """The reconciler is about to make a volume on its back end."""


class ConfirmVolume(OnVolumeClaim, frozen=True, tag="confirm_volume"):
    """The back end has the volume, under its own id ``key``."""

    key: str = ""


class FailVolume(OnVolumeClaim, frozen=True, tag="fail_volume"):
    """The volume cannot be made where it was claimed. What is left of it there is removed next; a guest that it was
    made for is placed again with its volumes if ``elsewhere`` and attempts are left."""

    failure: FailureClass
    text: str = ""
    elsewhere: bool = False


class LoseVolume(OnVolumeClaim, frozen=True, tag="lose_volume"):
    """The back end no longer has a volume that it had, although its removal was not wanted; or it has it in a state of
    error (``text`` says so)."""

    text: str = ""


class NoteVolumeTrouble(OnVolumeClaim, frozen=True, tag="note_volume_trouble"):
    """The removal of the volume has failed again and again; the reconciler goes on trying."""

    failure: FailureClass
    text: str = ""


class ClearVolume(OnVolumeClaim, frozen=True, tag="clear_volume"):
    """The back end has nothing of the volume: after a failure, or because its removal was wanted."""


GuestCommand = (
    StartGuest
    | StopGuest
    | DeleteGuest
    | MoveGuest
    | ResizeGuest
    | SnapshotGuest
    | DeleteGuestSnapshot
    | AttachVolume
    | DetachVolume
)
ProgressCommand = (
    BeginBuild
    | ConfirmGuest
    | FailBuild
    | LoseGuest
    | RefusePower
    | NoteTrouble
    | ClearClaim
    | BeginMigration
    | EndMigration
    | ConfirmAttachment
    | RefuseAttachment
)
VolumeProgressCommand = BeginVolume | ConfirmVolume | FailVolume | LoseVolume | NoteVolumeTrouble | ClearVolume
SnapshotProgressCommand = (
    BeginSnapshot | ConfirmSnapshot | FailSnapshot | LoseSnapshot | NoteSnapshotTrouble | ClearSnapshot
)
BackendCommand = SetBackend | SetInstallation | ReportBackend | ReportPools
LifecycleCommand = (
    CreateGuest
    | AdoptGuest
    | CreateVolume
    | GuestCommand
    | ProgressCommand
    | VolumeProgressCommand
    | SnapshotProgressCommand
    | BackendCommand
)
