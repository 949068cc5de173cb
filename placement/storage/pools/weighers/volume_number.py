"""VolumeNumberWeigher: raw = volumes that are known to be on the pool. Source: Cinder 29 (what it means to do: with a
real database it crashes there)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..filter_properties import FilterProperties
from .base import Draw, PoolWeigher, Rows, Weights

if TYPE_CHECKING:
    from ..pools import Pools


class VolumeNumberWeigher(PoolWeigher):
    """The fewer volumes the better, unless ``volume_number_multiplier`` is positive."""

    name: ClassVar[str] = "VolumeNumberWeigher"

    @property
    def multiplier(self) -> float:
        return self.options.volume_number_multiplier

    def column(self, pools: Pools, filter_properties: FilterProperties) -> str | None:
        return "volumes"

    def raw(self, pools: Pools, filter_properties: FilterProperties, rows: Rows, draw: Draw) -> Weights:
        return pools.columns["volumes"][rows]
