"""AvailabilityZoneFilter: the pool's service is in a zone that was asked for. Source: Cinder 29."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..filter_properties import FilterProperties
from ..pool_classes import ClassWish
from .base import Mask, PoolFilter, Rows, by_value

if TYPE_CHECKING:
    from ..pools import Pools


class AvailabilityZoneFilter(PoolFilter):
    """``availability_zones`` if there are any, else ``availability_zone`` if there is one, else everywhere."""

    name: ClassVar[str] = "AvailabilityZoneFilter"

    def applies(self, filter_properties: FilterProperties) -> bool:
        return bool(zones(filter_properties))

    def key(self, filter_properties: FilterProperties) -> Hashable:
        return zones(filter_properties)

    def passes(self, pools: Pools, filter_properties: FilterProperties, rows: Rows) -> Mask:
        asked = zones(filter_properties)
        return by_value(pools, rows, lambda row: pools.fact(row).availability_zone, asked.__contains__)

    def _class_wishes(self, pools: Pools, filter_properties: FilterProperties) -> Sequence[ClassWish]:
        asked = zones(filter_properties)
        return (ClassWish(("availability_zone",), partial(_zones_of, pools), asked, asked.__contains__),)

    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        return pools.fact(row).availability_zone in zones(filter_properties)

    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        return f"availability zone {pools.fact(row).availability_zone}, not {' or '.join(zones(filter_properties))}"


def _zones_of(pools: Pools, rows: Rows) -> list[str]:
    return [pools.fact(row).availability_zone for row in rows.tolist()]


def zones(filter_properties: FilterProperties) -> tuple[str, ...]:
    """The accepted zones; empty for all."""
    spec = filter_properties.spec
    if spec.availability_zones:
        return tuple(spec.availability_zones)
    return (spec.availability_zone,) if spec.availability_zone else ()
