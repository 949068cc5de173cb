"""``hostler volume``: volumes, their moves, snapshots, backups and groups."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ...placement.storage.decision import VolumeDecision
from ...placement.types.errors import InvalidValue
from ..errors import from_value
from ..storage_commands import AskedVolume, PlaceVolume, SetVolumeBackend
from .guests import read_policy
from .remote import LOCAL, REFUSED, Remote, pair

volume = cyclopts.App(name="volume", help="Volumes: place, move and remove them; snapshots, backups and groups.")
snapshot = cyclopts.App(name="snapshot", help="Snapshots of volumes.")
backup = cyclopts.App(name="backup", help="Backups of volumes.")
group = cyclopts.App(name="group", help="Groups of volumes on one backend.")
migrate = cyclopts.App(name="migrate", help="Have a volume go to another pool. Exit code 3: none.")
retype = cyclopts.App(name="retype", help="Give a volume another type. Exit code 3: its pool does not have it.")
for each in (snapshot, backup, group, migrate, retype):
    volume.command(each)

Uuid = Annotated[str | None, Parameter(help="its uuid, instead of one that is made")]
Key = Annotated[str | None, Parameter(help="makes a repetition safe: the same key gets the first answer")]
Page = Annotated[int, Parameter(help="lines at most", validator=Number(gte=1, lte=10_000))]
After = Annotated[str | None, Parameter(help="go on behind this uuid")]
Expires = Annotated[float | None, Parameter(help="seconds after which it is reverted by itself")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A volume that is asked for."""

    size_gb: Annotated[int, Parameter(help="GiB", validator=Number(gte=0))] = 1
    volume_type: Annotated[str | None, Parameter(name="--type", help="a volume type that the service keeps")] = None
    zone: Annotated[str | None, Parameter(help="availability zone")] = None
    hint: Annotated[list[str], Parameter(help="NAME=VALUE, repeatable: same_host, ...", negative="")] = field(
        default_factory=list
    )
    metadata: Annotated[list[str], Parameter(help="NAME=VALUE, repeatable", negative="")] = field(default_factory=list)
    backend: Annotated[str | None, Parameter(help="the pool or backend that it must go to; for cloud admins")] = None
    project: Annotated[str, Parameter(help="the project it is for")] = ""
    user: Annotated[str, Parameter(help="the user it is for")] = ""
    source: Annotated[str | None, Parameter(help="uuid of the volume or snapshot that it is made of")] = None
    group: Annotated[str | None, Parameter(help="uuid of the volume group that it joins")] = None
    uuid: Uuid = None

    def asked(self) -> AskedVolume:
        """The request as it is sent."""
        hints: dict[str, Any] = {}
        for name, value in map(pair, self.hint):
            hints.setdefault(name, []).append(value)
        hints = {name: values if len(values) > 1 else values[0] for name, values in hints.items()}
        spec = {
            "size_gb": self.size_gb,
            "volume_type": self.volume_type,
            "availability_zone": self.zone,
            "scheduler_hints": hints,
            "metadata": dict(map(pair, self.metadata)),
            "resource_backend": self.backend,
        }
        given = {name: value for name, value in spec.items() if value not in (None, {})}
        return AskedVolume(
            spec=msgspec.Raw(msgspec.msgpack.encode(given)),
            volume_id=self.uuid,
            project_id=self.project,
            user_id=self.user,
            source=self.source,
            group=self.group,
        )


ONE: Wanted = Wanted()


@volume.command(name="create")
def create_volume(
    *,
    ask: Wanted = ONE,
    build: Annotated[bool, Parameter(help="have the pool's back end make it", negative="")] = False,
    image: Annotated[str, Parameter(help="with --build: what it is made from, by a name that the back end knows")] = "",
    name: Annotated[str, Parameter(help="with --build: shown to users")] = "",
    key: Key = None,
    remote: Remote = LOCAL,
) -> int:
    """Choose a pool for a new volume, and charge it. Exit code 3: no pool."""
    if (image or name) and not build:
        raise InvalidValue("--image and --name are for volumes that a back end makes", field="build")
    with remote.client() as client:
        if build:
            values = {"request": ask.asked(), "image": image, "name": name}
            return _decided(remote, client.call("create_volume", values, key=key))
        return _decided(remote, client.call("place_volume", {"request": ask.asked()}, key=key))


@volume.command(name="list")
def list_volumes(
    *,
    project: str | None = None,
    backend: Annotated[str | None, Parameter(help="a pool, or host@backend")] = None,
    volume_type: Annotated[str | None, Parameter(name="--type")] = None,
    group: str | None = None,
    after: After = None,
    limit: Page = 1_000,
    remote: Remote = LOCAL,
) -> int:
    """Volumes that you may see."""
    values = {"project": project, "backend": backend, "volume_type": volume_type, "group": group, "after": after}
    found = remote.ask("volumes", {**values, "limit": limit})

    def row(line: Any) -> list[Any]:
        move = None if line.move is None else f"{line.move} from {line.moved_from or 'here'}"
        return [line.uuid, line.project_id, line.size_gb, line.volume_type, line.backend_id, line.snapshots, move]

    head = ["uuid", "project", "GiB", "type", "pool", "snapshots", "move"]
    return remote.listed(found, head, row, page=limit, by="uuid")


@volume.command(name="lives")
def list_volume_lives(
    *,
    project: str | None = None,
    guest: Annotated[str | None, Parameter(help="of this guest")] = None,
    backend: Annotated[str | None, Parameter(help="of this back end")] = None,
    status: Annotated[str | None, Parameter(help="in this status")] = None,
    after: After = None,
    limit: Page = 1_000,
    remote: Remote = LOCAL,
) -> int:
    """Volumes that back ends carry out, with their status, as far as you may see them."""
    values = {"project": project, "guest": guest, "backend": backend, "status": status, "after": after}
    found = remote.ask("volume_lives", {**values, "limit": limit})
    head = ["uuid", "name", "project", "GiB", "status", "back end", "pool", "guest", "reason"]

    def row(line: Any) -> list[Any]:
        place = [line.status, line.backend, line.pool, line.guest]
        return [line.uuid, line.name, line.project_id, line.size_gb, *place, line.reason]

    return remote.listed(found, head, row, page=limit, by="uuid")


@volume.command(name="show")
def show_volume(uuid: str, *, remote: Remote = LOCAL) -> int:
    """One volume in full."""
    remote.show(remote.ask("volume", {"uuid": uuid}))
    return 0


@volume.command(name="delete")
def delete_volumes(
    uuid: str,
    *more: str,
    cascade: Annotated[bool, Parameter(help="with their snapshots", negative="")] = False,
    remote: Remote = LOCAL,
) -> int:
    """Remove volumes, all or none, and give back what they took."""
    values = {"uuids": (uuid, *more), "cascade": cascade}
    return remote.do("delete_volumes", values, f"{1 + len(more)} deleted")


@volume.command(name="extend")
def extend_volume(
    uuid: str, size_gb: Annotated[int, Parameter(help="its new size in GiB")], *, remote: Remote = LOCAL
) -> int:
    """Let a volume grow to SIZE-GB GiB where it is. Exit code 3: its pool has no room."""
    with remote.client() as client:
        return _decided(remote, client.call("extend_volume", {"uuid": uuid, "new_size_gb": size_gb}))


@volume.command(name="retry")
def retry_volume(uuid: str, *, remote: Remote = LOCAL) -> int:
    """The backend of a new volume failed to make it: place it on another. Exit code 3: no other; it is removed."""
    with remote.client() as client:
        return _decided(remote, client.call("retry_volume", {"uuid": uuid}))


@volume.command(name="manage")
def manage_volume(backend: str, *, ask: Wanted = ONE, remote: Remote = LOCAL) -> int:
    """Take over a volume that is on BACKEND (host@backend#pool) already; nothing is charged."""
    with remote.client() as client:
        return _decided(remote, client.call("manage_volume", {"request": ask.asked(), "backend": backend}))


# moves


@retype.command(name="begin")
def begin_retype(
    uuid: str,
    volume_type: Annotated[str, Parameter(name=("--volume-type", "--type"))],
    *,
    migrate: Annotated[
        bool, Parameter(help="to another pool where its own does not have the type", negative="")
    ] = False,
    expires_in: Expires = None,
    remote: Remote = LOCAL,
) -> int:
    """Give a volume another type, until ``confirm`` or ``revert``; both types count in the quotas."""
    policy = "on-demand" if migrate else "never"
    values = {"uuid": uuid, "volume_type": volume_type, "migration_policy": policy, "expires_in": expires_in}
    with remote.client() as client:
        return _decided(remote, client.call("begin_retype", values))


@migrate.command(name="begin")
def begin_migration(
    uuid: str,
    *,
    target: Annotated[str | None, Parameter(help="a pool, or host@backend; the best one without it")] = None,
    expires_in: Expires = None,
    remote: Remote = LOCAL,
) -> int:
    """Claim room for a volume on another pool and keep the old one until ``confirm`` or ``revert``."""
    with remote.client() as client:
        values = {"uuid": uuid, "target": target, "expires_in": expires_in}
        return _decided(remote, client.call("begin_volume_migration", values))


@retype.command(name="confirm")
@migrate.command(name="confirm")
def confirm_move(uuid: str, *, remote: Remote = LOCAL) -> int:
    """A volume has its new type, or is on its new pool: what it had before is given back."""
    return _ended(remote, "confirm_volume_move", uuid)


@retype.command(name="revert")
@migrate.command(name="revert")
def revert_move(uuid: str, *, remote: Remote = LOCAL) -> int:
    """A volume keeps its type, and is where it was."""
    return _ended(remote, "revert_volume_move", uuid)


def _ended(remote: Remote, method: str, uuid: str) -> int:
    found = remote.ask(method, {"uuid": uuid})
    kind = f", of type {found.volume_type}" if found.volume_type else ""
    remote.show(found) if remote.as_json else print(f"{uuid} is on {found.backend_id}{kind}")
    return 0


# snapshots, backups and groups


@snapshot.command(name="create")
def create_snapshot(volume: str, *, uuid: Uuid = None, key: Key = None, remote: Remote = LOCAL) -> int:
    """Make room for a snapshot where VOLUME is. Exit code 3: there is none."""
    with remote.client() as client:
        found = client.call("create_volume_snapshot", {"uuid": volume, "snapshot_id": uuid}, key=key)
    if remote.as_json:
        remote.show(found)
        return 0 if found.decision.placed else REFUSED
    if found.decision.placed:
        print(f"snapshot {found.snapshot_id}")
    return _decided(remote, found.decision)


@snapshot.command(name="list")
def list_snapshots(
    *,
    volume: str | None = None,
    project: str | None = None,
    after: After = None,
    limit: Page = 1_000,
    remote: Remote = LOCAL,
) -> int:
    """Snapshots that you may see."""
    values = {"volume": volume, "project": project, "after": after, "limit": limit}
    return _copies_listed(remote, "volume_snapshots", values, pool="backend_id")


@snapshot.command(name="delete")
def delete_snapshots(uuid: str, *more: str, remote: Remote = LOCAL) -> int:
    """Remove snapshots, all or none, and give back what they took."""
    return remote.do("delete_volume_snapshots", {"uuids": (uuid, *more)}, f"{1 + len(more)} deleted")


@backup.command(name="create")
def create_backup(
    volume: str,
    *,
    zone: Annotated[str | None, Parameter(help="availability zone; the volume's without it")] = None,
    same_host: Annotated[bool, Parameter(help="by the service on the volume's host", negative="")] = False,
    uuid: Uuid = None,
    key: Key = None,
    remote: Remote = LOCAL,
) -> int:
    """Choose the backup service for a backup of VOLUME."""
    values = {"uuid": volume, "backup_id": uuid, "availability_zone": zone, "same_host": same_host}
    with remote.client() as client:
        found = client.call("create_volume_backup", values, key=key)
    remote.show(found) if remote.as_json else print(f"backup {found.backup_id} by {found.host}, {found.size_gb} GiB")
    return 0


@backup.command(name="list")
def list_backups(
    *,
    volume: str | None = None,
    project: str | None = None,
    after: After = None,
    limit: Page = 1_000,
    remote: Remote = LOCAL,
) -> int:
    """Backups that you may see."""
    values = {"volume": volume, "project": project, "after": after, "limit": limit}
    return _copies_listed(remote, "volume_backups", values, service="host")


@backup.command(name="delete")
def delete_backups(uuid: str, *more: str, remote: Remote = LOCAL) -> int:
    """Remove backups, all or none."""
    return remote.do("delete_volume_backups", {"uuids": (uuid, *more)}, f"{1 + len(more)} deleted")


@group.command(name="create")
def create_group(
    *sizes: Annotated[int, Parameter(help="GiB of each volume")],
    volume_type: Annotated[str | None, Parameter(name="--type", help="type of the volumes")] = None,
    group_type: Annotated[str | None, Parameter(help="a type that the backend must have for the group")] = None,
    zone: str | None = None,
    project: str = "",
    uuid: Uuid = None,
    key: Key = None,
    remote: Remote = LOCAL,
) -> int:
    """Make a group with a volume of each of SIZES on one backend, all or none. Exit code 3: no backend."""
    if not sizes:
        raise InvalidValue("name the size of at least one volume", field="sizes")
    volumes = [Wanted(size_gb=size, volume_type=volume_type, zone=zone, project=project).asked() for size in sizes]
    values = {"volumes": volumes, "project_id": project, "group_id": uuid, "group_type": group_type}
    with remote.client() as client:
        found = client.call("place_volume_group", {**values, "availability_zone": zone}, key=key)
    if remote.as_json:
        remote.show(found)
    elif found.decision.refusal is not None:
        print(found.decision.refusal.sentence)
    else:
        print(f"group {found.group_id} on {found.decision.backend}")
        rows = [[chosen.volume_id, chosen.backend_id, chosen.charged_gb] for chosen in found.decision.selections]
        remote.lines(["volume", "pool", "GiB"], rows)
    return 0 if found.decision.placed else REFUSED


@group.command(name="list")
def list_groups(*, project: str | None = None, after: After = None, limit: Page = 1_000, remote: Remote = LOCAL) -> int:
    """Groups that you may see."""
    found = remote.ask("volume_groups", {"project": project, "after": after, "limit": limit})
    head = ["uuid", "project", "backend", "type", "volumes"]
    return remote.listed(
        found, head, lambda g: [g.uuid, g.project_id, g.backend, g.group_type, len(g.volumes)], page=limit, by="uuid"
    )


@group.command(name="delete")
def delete_group(uuid: str, *, remote: Remote = LOCAL) -> int:
    """Remove a group that has no volumes."""
    return remote.do("delete_volume_group", {"uuid": uuid}, f"{uuid} deleted")


# questions


@volume.command(name="explain")
def explain_volume(*, ask: Wanted = ONE, best: int = 5, refused: int = 20, remote: Remote = LOCAL) -> int:
    """The BEST pools with their scores, up to REFUSED others with reasons, and what would change the answer. Exit code
    3: there are no pools."""
    found = remote.ask("explain_volume", {"request": ask.asked(), "top": best})
    if remote.as_json:
        remote.show(found)
        return 0 if found.considered else REFUSED
    rows = [[each.backend_id, each.weight] for each in found.top]
    if rows:
        remote.lines(["pool", "weight"], rows)
    if found.refused:
        remote.lines(
            ["pool", "refused by", "because"], [[r.backend_id, r.stage, r.reason] for r in found.refused[:refused]]
        )
        if len(found.refused) > refused:
            print(f"and {len(found.refused) - refused} more")
    if not found.considered:
        print("no pools are known")
    for sentence in found.counterfactuals:
        print(sentence)
    return 0 if found.considered else REFUSED


@volume.command(name="what-if")
def try_volume(
    *,
    ask: Wanted = ONE,
    policy: Annotated[Path | None, Parameter(help="a policy file to decide by")] = None,
    without: Annotated[tuple[str, ...], Parameter(help="services that are to count as disabled", negative="")] = (),
    remote: Remote = LOCAL,
) -> int:
    """Where a volume would go; nothing is changed. Exit code 3: no pool."""
    commands: list[Any] = [SetVolumeBackend(host=name, disabled=True) for name in without]
    commands.append(PlaceVolume(request=ask.asked()))
    tried = remote.ask("what_if", {"commands": commands, "policy": read_policy(policy)})
    for each in tried:
        if each.error is not None:
            raise from_value(each.error)
    return _decided(remote, msgspec.convert(tried[-1].result, VolumeDecision))


@volume.command(name="fits")
def count_fits(
    *,
    ask: Wanted = ONE,
    limit: Annotated[int | None, Parameter(help="count no further", validator=Number(gte=0))] = None,
    remote: Remote = LOCAL,
) -> int:
    """How many more volumes of a kind fit, and on which pools."""
    return remote.fitting(remote.ask("fits_volume", {"request": ask.asked(), "limit": limit}), "pool", "volumes")


def _copies_listed(remote: Remote, question: str, values: dict[str, Any], **where: str) -> int:
    """Snapshots or backups, a line each. ``where``: the heading of the place where they are, and its field."""
    ((heading, name),) = where.items()
    head = ["uuid", "volume", "project", "GiB", heading]
    limit = values["limit"]

    def row(copy: Any) -> list[Any]:
        return [copy.uuid, copy.volume, copy.project_id, copy.size_gb, getattr(copy, name)]

    return remote.listed(remote.ask(question, values), head, row, page=limit, by="uuid")


def _decided(remote: Remote, decision: VolumeDecision) -> int:
    if remote.as_json:
        remote.show(decision)
    elif decision.refusal is not None:
        print(decision.refusal.sentence + (f" ({decision.refusal.hint})" if decision.refusal.hint else ""))
    elif decision.selection is not None:
        chosen = decision.selection
        rows = [[chosen.volume_id, chosen.backend_id, chosen.availability_zone, chosen.charged_gb]]
        remote.lines(["volume", "pool", "zone", "GiB charged"], rows)
    return 0 if decision.refusal is None else REFUSED


def read_json(path: Path) -> Any:
    """The values of a file of JSON. InvalidValue if it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidValue(f"{path} cannot be read: {error}", field="file") from None
