"""CapacityFilter: the pool has room for what is asked. Source: Cinder 29; the rule itself is in capacity.py.

A volume that is there already passes, so does a request for 0 GiB (one that takes over an existing volume). A pool that
is thin takes a thin volume within its over-subscription ratio, which must be at least 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..capacity import capacity_factors
from ..filter_properties import FilterProperties
from .base import CAPACITIES, Mask, PoolFilter, Rows

if TYPE_CHECKING:
    from ..pools import Pools


class CapacityFilter(PoolFilter):
    """Passes a pool that has room."""

    name: ClassVar[str] = "CapacityFilter"
    reads: ClassVar[str] = CAPACITIES

    def applies(self, filter_properties: FilterProperties) -> bool:
        return filter_properties.requested_gb != 0

    def passes(self, pools: Pools, filter_properties: FilterProperties, rows: Rows) -> Mask:
        mask: Mask = pools.columns[self.column(filter_properties)][rows] >= filter_properties.requested_gb
        if filter_properties.exists_on is not None:
            row = pools.row_of.get(filter_properties.exists_on, -1)
            mask |= rows == row
        return mask

    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        return bool(self.passes(pools, filter_properties, np.array([row], np.int32))[0])

    @staticmethod
    def column(filter_properties: FilterProperties) -> str:
        """The column that holds how much fits."""
        return "room_thin" if filter_properties.spec.thin else "room_thick"

    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        facts, columns = pools.fact(row), pools.columns
        if not facts.bounded:
            return f"total capacity {facts.total} with {facts.reserved_percentage:g} % reserved"
        total, ratio = float(columns["total"][row]), float(columns["ratio"][row])
        if total <= 0:
            return f"total capacity {total:g} GiB"
        provisioned = float(columns["provisioned"][row])
        thin = facts.thin and filter_properties.spec.thin
        factors = capacity_factors(
            total_capacity=total,
            free_capacity=float(columns["free"][row]),
            provisioned_capacity=provisioned,
            thin_provisioning_support=facts.thin,
            max_over_subscription_ratio=ratio,
            reserved_percentage=facts.reserved_percentage,
            thin=filter_properties.spec.thin,
        )
        if thin and ratio < 1:
            return f"max_over_subscription_ratio {ratio:g} is below 1"
        if thin and factors.total_available_capacity == 0:
            return f"nothing is available: {facts.reserved_percentage:g} % of {total:g} GiB is reserved"
        free = factors.virtual_free_capacity
        if free >= filter_properties.requested_gb:
            full = (provisioned + filter_properties.requested_gb) / factors.total_available_capacity
            return f"provisioned to {full:.2f} of what is available, above the ratio {ratio:g}"
        return f"free {free:g} GiB < {filter_properties.requested_gb} GiB" + (" (thin)" if thin else "")


def missing_gb(pools: Pools, filter_properties: FilterProperties, rows: Rows) -> float:
    """GiB that the nearest of these refused rows lacks; inf if none of them could ever do. O(rows)."""
    room = pools.columns[CapacityFilter.column(filter_properties)][rows]
    finite = room[np.isfinite(room)]
    return float(filter_properties.requested_gb - finite.max()) if len(finite) else float("inf")
