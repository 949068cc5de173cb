"""IgnoreAttemptedHostsFilter (its entry point is RetryFilter): not where it has failed before. Source: Cinder 29."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..filter_properties import Wanted
from .base import REQUEST, PoolFilter

if TYPE_CHECKING:
    from ..pools import Pools


class IgnoreAttemptedHostsFilter(PoolFilter):
    """Passes a pool that was not tried for this request."""

    name: ClassVar[str] = "IgnoreAttemptedHostsFilter"
    reads: ClassVar[str] = REQUEST

    def applies(self, wanted: Wanted) -> bool:
        return wanted.retry is not None and bool(wanted.retry.tried)

    def pool_passes(self, pools: Pools, wanted: Wanted, row: int) -> bool:
        return wanted.retry is None or pools.fact(row).backend_id not in wanted.retry.tried

    def why(self, pools: Pools, wanted: Wanted, row: int) -> str:
        return "was tried before for this request"
