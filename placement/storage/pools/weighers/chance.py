"""ChanceWeigher: raw = a random number, of the decision's seed. Source: Cinder 29."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..filter_properties import FilterProperties
from .base import Draw, PoolWeigher, Rows, Weights

if TYPE_CHECKING:
    from ..pools import Pools


class ChanceWeigher(PoolWeigher):
    """Any pool is as good as any other."""

    name: ClassVar[str] = "ChanceWeigher"

    def raw(self, pools: Pools, filter_properties: FilterProperties, rows: Rows, draw: Draw) -> Weights:
        return np.fromiter((draw() for _ in range(len(rows))), np.float64, len(rows))
