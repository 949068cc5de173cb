"""Capacity of one pool under thin and thick provisioning, in GiB.

    reserved        = floor(total * reserved_percentage / 100)
    base            = total - reserved
    thin:   total_available = base * max_over_subscription_ratio,  virtual_free = total_available - provisioned
    thick:  total_available = base,                                virtual_free = min(free, base - provisioned)

All that leaves here is rounded to two decimals. Source: Cinder 29, calculate_capacity_factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

UNBOUNDED: Final = ("infinite", "unknown")
"""What a backend reports in place of a number; both are treated alike."""
INITIAL_AUTO_RATIO: Final = 20.0
"""The ratio ``auto`` of a pool that has nothing provisioned yet."""


@dataclass(frozen=True, slots=True)
class CapacityFactors:
    """Capacities in GiB, ``free_percent`` in percent. ``max_over_subscription_ratio`` is None for thick."""

    total_capacity: float
    free_capacity: float
    reserved_capacity: int
    total_reserved_available_capacity: float
    max_over_subscription_ratio: float | None
    total_available_capacity: float
    provisioned_capacity: float
    calculated_free_capacity: float
    virtual_free_capacity: float
    free_percent: float
    provisioned_ratio: float
    provisioned_type: str


def capacity_factors(
    *,
    total_capacity: float,
    free_capacity: float,
    provisioned_capacity: float,
    thin_provisioning_support: bool,
    max_over_subscription_ratio: float,
    reserved_percentage: float,
    thin: bool,
) -> CapacityFactors:
    """The figures of one pool for a thin or a thick request. Capacities in GiB, all finite. O(1)."""
    total = float(total_capacity)
    reserved = math.floor(total * (float(reserved_percentage) / 100))
    base = total - reserved
    as_thin = bool(thin and thin_provisioning_support)
    available = base * max_over_subscription_ratio if as_thin else base
    calculated = available - provisioned_capacity
    virtual = calculated if as_thin or free_capacity >= calculated else free_capacity
    return CapacityFactors(
        total_capacity=total,
        free_capacity=free_capacity,
        reserved_capacity=reserved,
        total_reserved_available_capacity=round(base, 2),
        max_over_subscription_ratio=max_over_subscription_ratio if as_thin else None,
        total_available_capacity=round(available, 2),
        provisioned_capacity=provisioned_capacity,
        calculated_free_capacity=round(calculated, 2),
        virtual_free_capacity=round(virtual, 2),
        free_percent=round(virtual / available * 100, 2) if available else 0.0,
        provisioned_ratio=round(provisioned_capacity / available, 2) if available else 0.0,
        provisioned_type="thin" if as_thin else "thick",
    )


def over_subscription_ratio(capability: Mapping[str, Any], default: str | float) -> float:
    """A pool's ratio from its report: its own value, else ``default``; ``auto`` follows what is provisioned.

    1.0 if thin provisioning is not supported or a capacity is not a number. ValueError or TypeError for a value that
    is neither ``auto`` nor a number. O(1). Source: Cinder 29, calculate_max_over_subscription_ratio.
    """
    total, free = capability.get("total_capacity_gb", 0), capability.get("free_capacity_gb", 0)
    if not capability.get("thin_provisioning_support", False) or total in UNBOUNDED or free in UNBOUNDED:
        return 1.0
    value = capability.get("max_over_subscription_ratio") or default
    if value != "auto":
        return float(value)
    provisioned = capability.get("provisioned_capacity_gb", capability.get("allocated_capacity_gb", 0))
    if provisioned == 0:
        return INITIAL_AUTO_RATIO
    ratio: float = 1 + float(provisioned) / (total - free + 1)
    return ratio
