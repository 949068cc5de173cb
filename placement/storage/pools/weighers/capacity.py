"""CapacityWeigher (raw = virtual free capacity in GiB) and AllocatedCapacityWeigher (raw = allocated GiB).
Source: Cinder 29.

A pool without bounds is last: its raw weight is -1 under a positive multiplier; else it is beyond the greatest by 100
times the range of the others (10,000 if they are all alike).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from ..filter_properties import FilterProperties
from .base import Draw, PoolWeigher, Rows, Weights

if TYPE_CHECKING:
    from ..pools import Pools

_SPREADS: Final = 100
_OFFSET: Final = 10_000


class CapacityWeigher(PoolWeigher):
    """The more room the better; stacks with a negative ``capacity_weight_multiplier``."""

    name: ClassVar[str] = "CapacityWeigher"

    @property
    def multiplier(self) -> float:
        return self.options.capacity_weight_multiplier

    def column(self, pools: Pools, filter_properties: FilterProperties) -> str | None:
        name = "virtual_thin" if filter_properties.spec.thin else "virtual_thick"
        return name if self.multiplier > 0 or pools.all_bounded else None

    def raw(self, pools: Pools, filter_properties: FilterProperties, rows: Rows, draw: Draw) -> Weights:
        name = "virtual_thin" if filter_properties.spec.thin else "virtual_thick"
        raw = pools.columns[name][rows]
        if self.multiplier > 0:
            return raw
        bounded = pools.columns["bounded"][rows] != 0
        finite = raw[bounded]
        if len(finite) == len(raw):
            return raw
        if not len(finite):
            return np.zeros(len(raw))
        spread = (finite.max() - finite.min()) * _SPREADS
        raw[~bounded] = finite.max() + (spread if spread != 0 else _OFFSET)
        return raw


class AllocatedCapacityWeigher(PoolWeigher):
    """The less is allocated the better, unless ``allocated_capacity_weight_multiplier`` is positive."""

    name: ClassVar[str] = "AllocatedCapacityWeigher"

    @property
    def multiplier(self) -> float:
        return self.options.allocated_capacity_weight_multiplier

    def column(self, pools: Pools, filter_properties: FilterProperties) -> str | None:
        return "allocated"

    def raw(self, pools: Pools, filter_properties: FilterProperties, rows: Rows, draw: Draw) -> Weights:
        return pools.columns["allocated"][rows]
