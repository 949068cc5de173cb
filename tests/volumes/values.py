"""Shorthand for the tests of volumes in the service: backends, requests and machines."""

from __future__ import annotations

from typing import Any

import msgspec

from hostler.core import storage_commands as s
from hostler.core.machine.machine import ServiceMachine
from hostler.core.tenancy import commands as c
from hostler.placement.storage.pools.request import VolumeType
from tests.core.orders import LOCAL, NOW, machine, order, uuid_of


def report(
    host: str, *pools: tuple[str, int], at: float | None = None, cluster: str | None = None, **capabilities: Any
) -> s.VolumeBackendReport:
    """A report of thick pools (name, free GiB of 1,000) that all have the same further capabilities."""
    each = [
        {"pool_name": name, "total_capacity_gb": 1_000, "free_capacity_gb": free, **capabilities}
        for name, free in pools
    ]
    return s.VolumeBackendReport(host=host, capabilities={"pools": each}, at=at, cluster_name=cluster)


def reports(*each: s.VolumeBackendReport) -> s.ReportVolumeBackends:
    return s.ReportVolumeBackends(reports=each)


def wish(number: int | None = None, size_gb: int = 10, *, project: str = "", **what: Any) -> s.AskedVolume:
    """A volume; ``volume_type`` and other fields of its spec by name, ``source`` and ``group`` of the request too."""
    around = {name: what.pop(name) for name in ("source", "group", "user_id", "alternates") if name in what}
    raw = msgspec.Raw(msgspec.msgpack.encode({"size_gb": size_gb, **what}))
    uuid = None if number is None else uuid_of(number)
    return s.AskedVolume(spec=raw, volume_id=uuid, project_id=project, **around)


def place(number: int | None = None, size_gb: int = 10, **what: Any) -> s.PlaceVolume:
    return s.PlaceVolume(request=wish(number, size_gb, **what))


def volume_type(name: str, projects: tuple[str, ...] = (), **extra_specs: str) -> c.CreateVolumeType:
    return c.CreateVolumeType(volume_type=VolumeType(name=name, extra_specs=extra_specs), projects=projects)


def storage_machine() -> ServiceMachine:
    """Three hosts, three backends (node-0 has two pools, gold; the others one, silver), types, a backup service."""
    made = machine()
    do(
        made,
        reports(
            report("node-0@lvm", ("a", 900), ("b", 800), tier="gold"),
            report("node-1@lvm", ("a", 700), tier="silver"),
            report("node-2@lvm", ("a", 600), tier="silver"),
        ),
        volume_type("gold", tier="gold"),
        volume_type("silver", tier="silver"),
        s.SetBackupService(host="node-0"),
    )
    return made


def do(made: ServiceMachine, *commands: Any, user: str = LOCAL, now: float = NOW) -> Any:
    """Have commands carried out; the last answer."""
    answer = None
    for command in commands:
        answer = made.apply(order(command, user=user, now=now))
    return answer


def free(made: ServiceMachine, pool: str) -> float:
    """Free GiB of a pool."""
    pools = made.state.storage.pools
    return float(pools.columns["free"][pools.row_of[pool]])


def used(made: ServiceMachine, scope: str) -> dict[str, int]:
    return made.state.usage.of(scope)
