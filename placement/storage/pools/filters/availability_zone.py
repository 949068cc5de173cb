"""AvailabilityZoneFilter: the pool's service is in a zone that was asked for. Source: Cinder 29."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar

from ..filter_properties import Wanted
from .base import PoolFilter, Rows, Verdicts, by_value

if TYPE_CHECKING:
    from ..pools import Pools


class AvailabilityZoneFilter(PoolFilter):
    """``availability_zones`` if there are any, else ``availability_zone`` if there is one, else everywhere."""

    name: ClassVar[str] = "AvailabilityZoneFilter"

    def applies(self, wanted: Wanted) -> bool:
        return bool(zones(wanted))

    def key(self, wanted: Wanted) -> Hashable:
        return zones(wanted)

    def passes(self, pools: Pools, wanted: Wanted, rows: Rows) -> Verdicts:
        asked = zones(wanted)
        return by_value(pools, rows, lambda row: pools.fact(row).availability_zone, asked.__contains__)

    def pool_passes(self, pools: Pools, wanted: Wanted, row: int) -> bool:
        return pools.fact(row).availability_zone in zones(wanted)

    def why(self, pools: Pools, wanted: Wanted, row: int) -> str:
        return f"availability zone {pools.fact(row).availability_zone}, not {' or '.join(zones(wanted))}"


def zones(wanted: Wanted) -> tuple[str, ...]:
    """The zones that will do; empty if all will."""
    spec = wanted.spec
    if spec.availability_zones:
        return tuple(spec.availability_zones)
    return (spec.availability_zone,) if spec.availability_zone else ()
