"""The attributes of Nova's HostState by name, for rules in which a user names one (extra specs, JSON queries)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..types.host import HostState, Service

_SAME_NAME = frozenset(
    [
        "host",
        "nodename",
        "uuid",
        "cell_uuid",
        "vcpus_total",
        "vcpus_used",
        "cpu_allocation_ratio",
        "total_usable_ram_mb",
        "free_ram_mb",
        "ram_allocation_ratio",
        "total_usable_disk_gb",
        "disk_mb_used",
        "free_disk_mb",
        "disk_allocation_ratio",
        "hypervisor_type",
        "hypervisor_version",
        "host_ip",
        "cpu_info",
        "supported_instances",
        "stats",
        "num_instances",
        "num_io_ops",
        "failed_builds",
    ]
)
_STRUCTURES = frozenset({"metrics", "aggregates", "instances", "service", "numa_topology"})
_ABSENT = frozenset({"limits", "updated", "pci_stats", "allocation_candidates"})
_RENAMED = {"hypervisor_hostname": "nodename"}

NAMES = _SAME_NAME | _STRUCTURES | _ABSENT | _RENAMED.keys()
"""Everything that Nova's HostState has as an attribute, with a counterpart here or not."""

FIELDS = _SAME_NAME | _STRUCTURES | {"pci_pools", "traits"}
"""Every field that a host of the fleet has."""


def field_of(name: str) -> str | None:
    """The field of HostState for Nova's attribute ``name``; None if there is no such attribute or no counterpart."""
    name = _RENAMED.get(name, name)
    return name if name in _SAME_NAME or name in _STRUCTURES else None


def plain(host: HostState, name: str) -> Any:
    """The value of attribute ``name`` if Nova holds it as plain data (number, text, list, dict); else None."""
    name = _RENAMED.get(name, name)
    if name not in _SAME_NAME:
        return None
    value = getattr(host, name)
    return [list(row) for row in value] if name == "supported_instances" else value


def structured(host: HostState, name: str) -> Any:
    """Like ``plain``, and ``metrics``, ``service`` and ``instances`` as mappings."""
    if name == "service":
        return _service(host.service)
    return getattr(host, name) if name in ("metrics", "instances") else plain(host, name)


def _service(service: Service) -> Mapping[str, Any]:
    return {name: getattr(service, name) for name in Service.__dataclass_fields__}
