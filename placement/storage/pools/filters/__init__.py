"""Cinder's nine filters, by their class names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .affinity import DifferentBackendFilter, SameBackendFilter
from .attempted import IgnoreAttemptedHostsFilter
from .availability_zone import AvailabilityZoneFilter
from .base import PoolFilter
from .capabilities import CapabilitiesFilter
from .capacity import CapacityFilter
from .driver import DriverFilter
from .instance_locality import InstanceLocalityFilter
from .json_query import JsonFilter

BUILTIN_FILTERS: Final[Mapping[str, type[PoolFilter]]] = {
    rule.name: rule
    for rule in (
        AvailabilityZoneFilter,
        CapabilitiesFilter,
        CapacityFilter,
        DifferentBackendFilter,
        DriverFilter,
        IgnoreAttemptedHostsFilter,
        InstanceLocalityFilter,
        JsonFilter,
        SameBackendFilter,
    )
}

__all__ = ["BUILTIN_FILTERS", "PoolFilter"]
