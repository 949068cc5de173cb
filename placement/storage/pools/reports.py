"""Capability reports of volume services as values, and what Cinder reads out of them pool by pool.

A report speaks of one backend: ``{..., "pools": [{...}, ...]}``, or of a *legacy* one without pools, which is then one
pool itself. What a pool leaves out its backend says. Source: Cinder 29, scheduler host manager.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ...types.errors import InvalidValue
from ...types.validation import finite, shown
from .backend_names import DEFAULT_POOL, append_pool
from .capacity import UNBOUNDED, over_subscription_ratio

PROTOCOL_FAMILIES: Final = (
    ("iSCSI", "iscsi"),
    ("FC", "fibre_channel", "fc"),
    ("NFS", "nfs"),
    ("NVMe-oF", "NVMeOF", "nvmeof"),
)
"""Names of one storage protocol: a pool that reports one answers to all. Transports (NVMe-TCP, ...) stand alone."""
LONGEST_HOST: Final = 255
"""Characters of a service's or cluster's name (Cinder: a database column)."""
LATEST: Final = 6.2e10
"""Seconds from the epoch that a time may be away: before and after it, about 1,960 years."""
_EPOCH: Final = datetime.datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeService:
    """A cinder-volume service: ``host`` is ``host@backend``; services of one ``cluster_name`` serve the same pools."""

    host: str
    cluster_name: str | None = None
    availability_zone: str = "nova"
    up: bool = True
    disabled: bool = False
    frozen: bool = False

    @property
    def key(self) -> str:
        """Name of its backend: the cluster, or the service itself."""
        return self.cluster_name or self.host


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendReport:
    """What a volume service reports of its backend at ``at`` (seconds since the epoch). ``capabilities`` as the
    driver's ``get_volume_stats`` gives them: capacities in GiB or ``infinite``/``unknown``. They are kept, not copied:
    do not change them afterwards."""

    host: str
    capabilities: Mapping[str, Any]
    at: float
    cluster_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """What one pool last reported, under the names that Cinder's filters read. ``capabilities`` may be of a newer
    report than the rest (``reported``): figures that were reported before the last placement are not taken over.

    ``problem`` says why no figure of it can be used; such a pool is never chosen.
    """

    backend_key: str
    backend_id: str
    host: str
    cluster_name: str | None
    pool_name: str
    availability_zone: str
    capabilities: Mapping[str, Any]
    reported: Mapping[str, Any]
    storage_protocol: Any = None
    total: float | str = 0.0
    free_word: str | None = None
    reserved_percentage: float = 0.0
    ratio: float = 1.0
    problem: str | None = None

    @property
    def thin(self) -> bool:
        """True if it can provision thinly."""
        return bool(self.reported.get("thin_provisioning_support", False))

    @property
    def bounded(self) -> bool:
        """True if both its total and its free capacity are numbers."""
        return self.free_word is None and not isinstance(self.total, str)

    def with_capabilities(self, capabilities: Mapping[str, Any]) -> PoolFacts:
        """The same pool after a report whose figures are not taken over."""
        return replace(self, capabilities=capabilities)


@dataclass(frozen=True, slots=True)
class Capacities:
    """The capacities of one report, GiB."""

    total: float | str = 0.0
    free: float | str = 0.0
    allocated: float = 0.0
    provisioned: float = 0.0
    reserved_percentage: float = 0.0
    ratio: float = 1.0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend of the scheduler's map. ``host`` is the first service that was up when the backend was added;
    ``updated`` the time of its report; ``pools`` maps a pool's name to its row, in order of first report."""

    host: str
    cluster_name: str | None
    updated: float
    pools: Mapping[str, int] = field(default_factory=dict)


def check_report(report: object) -> BackendReport:
    """The report if it is one; InvalidValue otherwise. O(pools)."""
    if not isinstance(report, BackendReport):
        raise InvalidValue(f"report must be a BackendReport, got {shown(report)}", field="report")
    check_host(report.host, "host")
    moment(report.at, "at")
    if report.cluster_name is not None:
        check_host(report.cluster_name, "cluster_name")
    if not isinstance(report.capabilities, Mapping) or not all(isinstance(key, str) for key in report.capabilities):
        raise InvalidValue(f"capabilities must be a mapping, got {shown(report.capabilities)}", field="capabilities")
    pools = report.capabilities.get("pools")
    if pools is None:
        return report
    if not isinstance(pools, list | tuple):
        raise InvalidValue(f"capabilities.pools must be a list, got {shown(pools)}", field="capabilities.pools")
    names = set()
    for pool in pools:
        name = pool.get("pool_name") if isinstance(pool, Mapping) else None
        if not isinstance(name, str) or not name or name in names:
            problem = f"each pool must be a mapping with a pool_name of its own, got {shown(pool)}"
            raise InvalidValue(problem, field="capabilities.pools.pool_name")
        names.add(name)
    return report


def moment(value: object, field: str) -> float:
    """A time in seconds since the epoch, not too far away; InvalidValue otherwise. O(1)."""
    seconds = finite(value, field)
    if not abs(seconds) < LATEST:
        raise InvalidValue(f"{field} must be a time in seconds since the epoch, got {shown(value)}", field=field)
    return seconds


def check_host(name: object, field: str) -> str:
    """``name`` if it can name a service or cluster (no pool in it); InvalidValue otherwise. O(length)."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_HOST or not name.isprintable() or "#" in name:
        raise InvalidValue(f"{field} must be 1 to {LONGEST_HOST} characters without #, got {shown(name)}", field=field)
    return name


def protocol_names(protocol: Any) -> Any:
    """All names of a protocol as a list; what is of no family as it is. O(1)."""
    for family in PROTOCOL_FAMILIES:
        if isinstance(protocol, str) and protocol in family:
            return list(family)
    return protocol


def pool_capabilities(report: BackendReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """(pool name, all that is known of it) for the pools of a report, in its order. O(size)."""
    backend = dict(report.capabilities)
    if not backend:
        return
    stamp = _EPOCH + datetime.timedelta(seconds=report.at)
    if "storage_protocol" in backend:
        backend["storage_protocol"] = protocol_names(backend["storage_protocol"])
    pools = backend.get("pools")
    if pools is None:
        name = backend.get("volume_backend_name")
        yield (
            name if isinstance(name, str) and name else DEFAULT_POOL,
            _filled({**backend, "timestamp": stamp}, backend),
        )
        return
    for pool in pools:
        yield pool["pool_name"], _filled({**pool, "timestamp": stamp}, backend)


def _filled(pool: dict[str, Any], backend: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("volume_backend_name", "vendor_name", "driver_version"):
        if not pool.get(name):
            pool[name] = backend.get(name)
    pool["storage_protocol"] = protocol_names(pool.get("storage_protocol")) or backend.get("storage_protocol")
    for name in ("filter_function", "goodness_function"):
        if name not in pool and name in backend:
            pool[name] = backend[name]
    return pool


def read_capacities(reported: Mapping[str, Any], default_ratio: str) -> Capacities:
    """A pool's capacities from its report; with ``problem`` set, and no capacity used, if one is invalid. O(1)."""
    try:
        total = _amount(reported, "total_capacity_gb", words=True)
        free = _amount(reported, "free_capacity_gb", words=True)
        allocated = _number(reported, "allocated_capacity_gb")
        provisioned = _number(reported, "provisioned_capacity_gb", allocated)
        reserved = _number(reported, "reserved_percentage")
        if not 0 <= reserved <= 100:
            raise ValueError(f"reserved_percentage is {reserved:g}, not within 0 and 100")
        ratio = over_subscription_ratio(reported, default_ratio)
        if not abs(ratio) < 1e12:
            raise ValueError(f"max_over_subscription_ratio is {ratio}")
    except (TypeError, ValueError, ArithmeticError) as error:
        return Capacities(problem=f"its report cannot be used: {str(error) or type(error).__name__:.120}")
    return Capacities(total, free, allocated, provisioned, reserved, ratio)


def _amount(reported: Mapping[str, Any], name: str, *, words: bool) -> float | str:
    value = reported.get(name, 0)
    return value if words and isinstance(value, str) and value in UNBOUNDED else _number(reported, name)


def _number(reported: Mapping[str, Any], name: str, default: float = 0) -> float:
    value = reported.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{name} is {shown(value)}")
    number = float(value)
    if not math.isfinite(number) or abs(number) > 2**52:
        raise ValueError(f"{name} is {shown(value)}")
    return number


def facts_of(
    name: str, backend: Backend, zone: str, capabilities: Mapping[str, Any], default_ratio: str
) -> tuple[PoolFacts, Capacities]:
    """What a pool's report says of it. O(1)."""
    figures = read_capacities(capabilities, default_ratio)
    cluster = append_pool(backend.cluster_name, name) if backend.cluster_name else None
    host = append_pool(backend.host, name)
    return (
        PoolFacts(
            backend_key=backend.cluster_name or backend.host,
            backend_id=cluster or host,
            host=host,
            cluster_name=cluster,
            pool_name=name,
            availability_zone=zone,
            capabilities=capabilities,
            reported=capabilities,
            storage_protocol=capabilities.get("storage_protocol"),
            total=figures.total,
            free_word=figures.free if isinstance(figures.free, str) else None,
            reserved_percentage=figures.reserved_percentage,
            ratio=figures.ratio,
            problem=figures.problem,
        ),
        figures,
    )
