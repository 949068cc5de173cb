"""``hostler volume-type`` and ``hostler volume-backend``: what cloud admins keep for volumes. Back ends that carry out
guests are ``hostler backend``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter

from ..storage_commands import VolumeBackendReport
from .catalog import For, Pairs
from .remote import LOCAL, Remote, pair
from .volumes import read_json

volume_type = cyclopts.App(name="volume-type", help="Volume types: requirements of volumes that members name.")
volume_backend = cyclopts.App(name="volume-backend", help="Volume backends, their pools and reports; backup services.")

Zone = Annotated[str | None, Parameter(help="its availability zone")]


@volume_type.command(name="list")
def list_types(*, project: str | None = None, remote: Remote = LOCAL) -> int:
    """Volume types that you may see, or that a PROJECT may use."""

    def row(line: Any) -> list[Any]:
        specs = [f"{key}={value}" for key, value in line.volume_type.extra_specs.items()]
        qos = [f"{key}={value}" for key, value in (line.qos_specs or {}).items()]
        return [line.name, specs, qos, line.projects or "all"]

    return remote.listed(remote.ask("volume_types", {"project": project}), ["name", "extra specs", "QoS", "for"], row)


@volume_type.command(name="show")
def show_type(name: str, *, remote: Remote = LOCAL) -> int:
    """One volume type."""
    remote.show(remote.ask("volume_type", {"name": name}))
    return 0


@volume_type.command(name="create")
def create_type(
    name: str,
    *,
    extra_spec: Pairs = None,
    qos: Pairs = None,
    type_id: Annotated[str | None, Parameter(name="--id")] = None,
    projects: For = None,
    remote: Remote = LOCAL,
) -> int:
    """Store a volume type, for all projects, or for some and their descendants."""
    kept = {"name": name, "id": type_id, "extra_specs": dict(map(pair, extra_spec or ()))}
    values = {"volume_type": kept, "qos_specs": dict(map(pair, qos)) if qos else None, "projects": projects or []}
    return remote.do("create_volume_type", values, f"volume type {name} created")


@volume_type.command(name="delete")
def delete_type(name: str, *, remote: Remote = LOCAL) -> int:
    """Delete a volume type that no volume has."""
    return remote.do("delete_volume_type", {"name": name}, f"volume type {name} deleted")


@volume_backend.command(name="list")
def list_backends(*, remote: Remote = LOCAL) -> int:
    """Volume services, whether they may be used, and their pools and volumes."""
    head = ["host", "cluster", "zone", "up", "disabled", "frozen", "pools", "volumes"]
    return remote.listed(
        remote.ask("volume_backends"),
        head,
        lambda b: [
            *(b.host, b.cluster_name, b.availability_zone, b.up, b.disabled, b.frozen, b.pools, b.volumes),
        ],
    )


@volume_backend.command(name="pools")
def list_pools(
    *,
    name: Annotated[str | None, Parameter(help="one pool")] = None,
    volume_type: Annotated[str | None, Parameter(name="--type", help="pools that pass for this type")] = None,
    capability: Annotated[list[str] | None, Parameter(help="NAME=VALUE that it reports", negative="")] = None,
    detail: Annotated[bool, Parameter(help="JSON, with all that pools report", negative="")] = False,
    remote: Remote = LOCAL,
) -> int:
    """Pools that can be chosen, with their capacities."""
    filters = dict(map(pair, capability or ()))
    values = {"name": name, "volume_type": volume_type, "filters": filters, "detail": detail}
    found = remote.ask("volume_pools", values)
    if detail:
        remote.show(found)
        return 0
    head = ["pool", "zone", "total GiB", "free GiB", "allocated", "provisioned", "ratio", "thin", "volumes", "problem"]

    def row(line: Any) -> list[Any]:
        amounts = [line.total_gb, line.free_gb, line.allocated_gb, line.provisioned_gb]
        thin = [line.over_subscription_ratio, line.thin]
        return [line.name, line.availability_zone, *amounts, *thin, line.volumes, line.problem]

    return remote.listed(found, head, row)


@volume_backend.command(name="report")
def report_backends(file: Path, *, remote: Remote = LOCAL) -> int:
    """Take in reports from FILE: JSON, one or a list of objects with ``host``, ``capabilities`` (what a driver's
    get_volume_stats gives), and ``at``, ``cluster_name``, ``availability_zone``."""
    read = read_json(file)
    try:
        reports = msgspec.convert(read if isinstance(read, list) else [read], list[VolumeBackendReport])
    except msgspec.ValidationError as error:
        from ...placement.types.from_builtins import from_msgspec

        raise from_msgspec(error, str(file)) from None
    taken = remote.ask("report_volume_backends", {"reports": reports})
    remote.show(taken) if remote.as_json else print(f"{taken} of {len(reports)} reports taken in")
    return 0


@volume_backend.command(name="enable")
def enable_backend(host: str, *, remote: Remote = LOCAL) -> int:
    """Let volumes go to the backend of service HOST again."""
    return remote.do("set_volume_backend", {"host": host, "disabled": False}, f"volume backend {host} is enabled")


@volume_backend.command(name="disable")
def disable_backend(host: str, *, remote: Remote = LOCAL) -> int:
    """Let no volumes go to the backend of service HOST; those that are there stay."""
    return remote.do("set_volume_backend", {"host": host, "disabled": True}, f"volume backend {host} is disabled")


@volume_backend.command(name="set")
def set_backend(
    host: str,
    *,
    up: Annotated[bool | None, Parameter(help="whether the service is up", negative="--down")] = None,
    frozen: Annotated[bool | None, Parameter(help="whether it is frozen", negative="--thawed")] = None,
    zone: Zone = None,
    remote: Remote = LOCAL,
) -> int:
    """Change what is known of service HOST."""
    values = {"host": host, "up": up, "frozen": frozen, "availability_zone": zone}
    return remote.do("set_volume_backend", values, f"volume backend {host} is changed")


@volume_backend.command(name="remove")
def remove_backend(
    host: str,
    *,
    force: Annotated[bool, Parameter(help="also with volumes on it", negative="")] = False,
    remote: Remote = LOCAL,
) -> int:
    """Forget service HOST, and its backend with the last one."""
    return remote.do("remove_volume_backend", {"host": host, "force": force}, f"volume backend {host} is removed")


@volume_backend.command(name="backup-services")
def list_backup_services(*, remote: Remote = LOCAL) -> int:
    """Backup services."""
    return remote.table(remote.ask("backup_services"))


@volume_backend.command(name="set-backup-service")
def set_backup_service(
    host: str,
    *,
    up: Annotated[bool | None, Parameter(help="whether it is up", negative="--down")] = None,
    disabled: Annotated[bool | None, Parameter(help="whether it may be used", negative="--enabled")] = None,
    zone: Zone = None,
    remote: Remote = LOCAL,
) -> int:
    """Add backup service HOST, or change what is known of it."""
    values = {"host": host, "up": up, "disabled": disabled, "availability_zone": zone}
    return remote.do("set_backup_service", values, f"backup service {host} is kept")


@volume_backend.command(name="remove-backup-service")
def remove_backup_service(host: str, *, remote: Remote = LOCAL) -> int:
    """Forget backup service HOST; its backups stay."""
    return remote.do("remove_backup_service", {"host": host}, f"backup service {host} is removed")
