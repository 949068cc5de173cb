"""IgnoreAttemptedHostsFilter (its entry point is RetryFilter): not where it has failed before. Source: Cinder 29."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..filter_properties import FilterProperties
from .base import REQUEST, PoolFilter

if TYPE_CHECKING:
    from ..pools import Pools


class IgnoreAttemptedHostsFilter(PoolFilter):
    """Passes a pool that was not tried for this request."""

    name: ClassVar[str] = "IgnoreAttemptedHostsFilter"
    reads: ClassVar[str] = REQUEST

    def applies(self, filter_properties: FilterProperties) -> bool:
        return filter_properties.retry is not None and bool(filter_properties.retry.tried)

    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        return filter_properties.retry is None or pools.fact(row).backend_id not in filter_properties.retry.tried

    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        return "was tried before for this request"
