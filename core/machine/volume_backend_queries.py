"""Questions about volume backends, their pools, and backup services, and their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ...placement.storage.pools.backend_names import backend_part
from ...placement.storage.pools.filter_properties import FilterProperties
from ...placement.storage.pools.filters.base import Rows
from ...placement.storage.pools.request import VolumeSpec
from .question import Query
from .state import ServiceState

MANY: Final = 200
"""Pools from which on an answer takes more than about a millisecond."""


class VolumeBackends(Query, frozen=True):
    """Volume services, in the order of their first report. For readers of the cloud."""


class BackupServices(Query, frozen=True):
    """Backup services. For readers of the cloud."""


class VolumePools(Query, frozen=True):
    """Pools in Cinder's candidate order (``get_pools``): the one of this ``name``, those that the policy's filters pass
    for a ``volume_type``, and those whose capabilities have these values (``filters``), each where it is given;
    ``detail``: with what they report. For readers of the cloud."""

    name: str | None = None
    volume_type: str | None = None
    filters: dict[str, Any] = msgspec.field(default_factory=dict)
    detail: bool = False


class VolumeBackendLine(msgspec.Struct, frozen=True, kw_only=True):
    """A volume service. ``reported``: time of the last report of its backend (seconds since the epoch); None before
    the first. ``pools``: those that can be chosen now."""

    host: str
    cluster_name: str | None
    availability_zone: str
    up: bool
    disabled: bool
    frozen: bool
    reported: float | None
    pools: int
    volumes: int


class BackupServiceLine(msgspec.Struct, frozen=True):
    """A backup service."""

    host: str
    availability_zone: str
    up: bool
    disabled: bool


class VolumePoolLine(msgspec.Struct, frozen=True, kw_only=True):
    """A pool. Capacities in GiB, or as its report says (``infinite``, ``unknown``). ``problem``: why its report cannot
    be used. ``capabilities``: what it reports, where that was asked for."""

    name: str
    availability_zone: str
    total_gb: float | str
    free_gb: float | str
    allocated_gb: float
    provisioned_gb: float
    reserved_percentage: float
    over_subscription_ratio: float
    thin: bool
    volumes: int
    problem: str | None = None
    capabilities: dict[str, Any] | None = None


# backends and pools


def backends(state: ServiceState, user: str, query: VolumeBackends) -> list[VolumeBackendLine]:
    pools = state.storage.pools
    there: dict[str, int] = {}
    for each in pools.volumes.values():
        key = backend_part(each.backend_id)
        there[key] = there.get(key, 0) + 1
    lines = []
    for service in pools.services.values():
        report = pools.reports.get(service.key)
        backend = pools.backends.get(service.key)
        lines.append(
            VolumeBackendLine(
                host=service.host,
                cluster_name=service.cluster_name,
                availability_zone=service.availability_zone,
                up=service.up,
                disabled=service.disabled,
                frozen=service.frozen,
                reported=None if report is None else report.at,
                pools=0 if backend is None else len(backend.pools),
                volumes=there.get(service.key, 0),
            )
        )
    return lines


def backup_services(state: ServiceState, user: str, query: BackupServices) -> list[BackupServiceLine]:
    return [
        BackupServiceLine(host, each.availability_zone, each.up, each.disabled)
        for host, each in state.volumes.backup_services.items()
    ]


def pools(state: ServiceState, user: str, query: VolumePools) -> list[VolumePoolLine]:
    """Cinder 29, HostManager.get_pools."""
    known = state.storage.pools
    rows = known.live_rows()
    wanted = [
        row
        for row in rows.tolist()
        if query.name in (None, known.fact(row).backend_id)
        and all(_equal(known.fact(row).capabilities.get(key), value) for key, value in query.filters.items())
    ]
    if query.volume_type is not None:
        passing = set(_passing(state, query.volume_type, rows).tolist())
        wanted = [row for row in wanted if row in passing]
    return [_pool_line(state, row, detail=query.detail) for row in wanted]


def _passing(state: ServiceState, name: str, rows: Rows) -> Rows:
    """Rows that the policy's filters pass for a volume of no size of a type."""
    kept = state.catalog.volume_type(name, "volume_type")
    storage = state.storage
    spec = VolumeSpec(size_gb=0, volume_type=kept, qos_specs=state.catalog.qos_specs(name))
    properties = FilterProperties.of(spec)
    for rule in storage.policy.filters:
        if len(rows) and rule.applies(properties):
            rows = rows[rule.passes(storage.pools, properties, rows)]
    return rows


_TRUE: Final = frozenset({"1", "t", "true", "on", "y", "yes"})


def _equal(capability: Any, value: Any) -> bool:
    """Cinder 29, HostManager._equal_after_convert: what is of different types is compared as text."""
    if capability is None or isinstance(value, type(capability)):
        return bool(value == capability)
    if isinstance(capability, bool):
        return capability == (str(value).strip().lower() in _TRUE)
    return str(value) == str(capability)


def _pool_line(state: ServiceState, row: int, *, detail: bool) -> VolumePoolLine:
    known = state.storage.pools
    facts, columns = known.fact(row), known.columns
    plain = {name: value for name, value in facts.capabilities.items() if name != "timestamp"}
    return VolumePoolLine(
        name=facts.backend_id,
        availability_zone=facts.availability_zone,
        total_gb=facts.total,
        free_gb=facts.free_word or float(columns["free"][row]),
        allocated_gb=float(columns["allocated"][row]),
        provisioned_gb=float(columns["provisioned"][row]),
        reserved_percentage=facts.reserved_percentage,
        over_subscription_ratio=facts.ratio,
        thin=facts.thin,
        volumes=known.volumes.on(facts.host),
        problem=facts.problem,
        capabilities=plain if detail else None,
    )


def takes_long(state: ServiceState, query: Query) -> bool:
    """True for a question that others should not have to wait for."""
    return isinstance(query, (VolumeBackends, VolumePools)) and (
        len(state.fleet.pools) > MANY or len(state.volumes.volumes) > 10 * MANY
    )


QUESTIONS: Final[Mapping[type[Query], Callable[[ServiceState, str, Any], Any]]] = {
    VolumeBackends: backends,
    BackupServices: backup_services,
    VolumePools: pools,
}
