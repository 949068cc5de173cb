"""One pool under the names that Cinder's filters and expressions use: live figures beside what was reported."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from .columns import COLUMN
from .reports import PoolFacts
from .rows import PoolRows

_EPOCH: Final = datetime.datetime(1970, 1, 1)
_Getter = Callable[[PoolRows, PoolFacts, int], Any]


def _reported(name: str, default: Any = None) -> _Getter:
    return lambda pools, facts, row: facts.reported.get(name, default)


def _column(name: str) -> _Getter:
    column = COLUMN[name]
    return lambda pools, facts, row: float(pools.columns.block[column, row])


def _free(pools: PoolRows, facts: PoolFacts, row: int) -> Any:
    return facts.free_word or float(pools.columns.block[COLUMN["free"], row])


def _updated(pools: PoolRows, facts: PoolFacts, row: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(seconds=float(pools.columns.block[COLUMN["updated"], row]))


def _service(pools: PoolRows, facts: PoolFacts, row: int) -> Mapping[str, Any]:
    return {"host": facts.backend_key, "availability_zone": facts.availability_zone, "disabled": False, "frozen": False}


_ATTRIBUTES: Final[Mapping[str, _Getter]] = {
    "host": lambda pools, facts, row: facts.host,
    "cluster_name": lambda pools, facts, row: facts.cluster_name,
    "backend_id": lambda pools, facts, row: facts.backend_id,
    "pool_name": lambda pools, facts, row: facts.pool_name,
    "volume_backend_name": _reported("volume_backend_name"),
    "vendor_name": _reported("vendor_name"),
    "driver_version": _reported("driver_version"),
    "storage_protocol": lambda pools, facts, row: facts.storage_protocol,
    "QoS_support": _reported("QoS_support", False),
    "total_capacity_gb": lambda pools, facts, row: facts.total,
    "free_capacity_gb": _free,
    "allocated_capacity_gb": _column("allocated"),
    "provisioned_capacity_gb": _column("provisioned"),
    "reserved_percentage": lambda pools, facts, row: facts.reserved_percentage,
    "max_over_subscription_ratio": lambda pools, facts, row: facts.ratio,
    "thin_provisioning_support": _reported("thin_provisioning_support", False),
    "thick_provisioning_support": _reported("thick_provisioning_support", False),
    "multiattach": _reported("multiattach", False),
    "filter_function": _reported("filter_function"),
    "goodness_function": _reported("goodness_function", 0),
    "updated": _updated,
    "capabilities": lambda pools, facts, row: facts.capabilities,
    "service": _service,
    "pools": lambda pools, facts, row: {},
}
_NAMES: Final = frozenset(_ATTRIBUTES)
STATS: Final = frozenset(
    {
        "host",
        "volume_backend_name",
        "vendor_name",
        "driver_version",
        "storage_protocol",
        "QoS_support",
        "total_capacity_gb",
        "allocated_capacity_gb",
        "free_capacity_gb",
        "reserved_percentage",
        "updated",
    }
)
"""Names of ``stats`` in a goodness_function."""
FILTER_STATS: Final = STATS | {"cluster_name", "backend_id"}
"""Names of ``stats`` in a filter_function."""
LIVE: Final = frozenset({"allocated_capacity_gb", "free_capacity_gb", "provisioned_capacity_gb", "updated"})
"""Names whose values change as volumes are placed."""

MISSING: Final = object()
"""In place of a value that is not there."""


def attribute_names() -> frozenset[str]:
    """Names of the attributes of a pool. O(1)."""
    return _NAMES


def attribute(pools: PoolRows, row: int, name: str) -> Any:
    """A pool's attribute as Cinder's pool state has it; None for one that it has not. O(1)."""
    getter = _ATTRIBUTES.get(name)
    return None if getter is None else getter(pools, pools.fact(row), row)


class Stats(Mapping[str, Any]):
    """The scope ``stats`` of one pool; ``protocol`` stands for its storage protocol if given."""

    def __init__(self, pools: PoolRows, row: int, names: frozenset[str], protocol: Any = None) -> None:
        self._pools, self._row, self._names, self._protocol = pools, row, names, protocol

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        if name == "storage_protocol" and self._protocol is not None:
            return self._protocol
        return attribute(self._pools, self._row, name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)
