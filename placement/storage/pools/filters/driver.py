"""DriverFilter: the pool's own filter_function is true of the request. Source: Cinder 29."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..filter_properties import FilterProperties
from ..function_rows import filter_column, filter_mask
from ..functions import FILTER, filter_passes
from ..pool_classes import ClassWish
from .base import CAPACITIES, Mask, PoolFilter, Rows

if TYPE_CHECKING:
    from ..pools import Pools


class DriverFilter(PoolFilter):
    """Passes a pool without a filter_function, or with one whose value is true; one that has no value refuses."""

    name: ClassVar[str] = "DriverFilter"
    reads: ClassVar[str] = CAPACITIES

    def passes(self, pools: Pools, filter_properties: FilterProperties, rows: Rows) -> Mask:
        return filter_mask(pools, filter_properties, rows, strict=self.options.compat == "strict")

    def following(self, pools: Pools, rows: Rows) -> Rows:
        return pools.variables.texts(FILTER).living(rows)

    def steady(self, pools: Pools) -> bool:
        return filter_column(pools, strict=self.options.compat == "strict").steady

    def _class_wishes(self, pools: Pools, filter_properties: FilterProperties) -> Sequence[ClassWish] | None:
        if not self.steady(pools):
            return None
        strict = self.options.compat == "strict"
        return (ClassWish(("filter_function", strict), partial(_passing, pools, strict=strict), True, bool),)

    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        return filter_passes(pools, filter_properties, row, strict=self.options.compat == "strict")[0]

    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        return filter_passes(pools, filter_properties, row, strict=self.options.compat == "strict")[1]


def _passing(pools: Pools, rows: Rows, *, strict: bool) -> list[bool]:
    passing: list[bool] = (filter_column(pools, strict=strict).values[rows] != 0).tolist()
    return passing
