"""What a weigher of pools is: raw weights of rows, the more the better, and a multiplier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..filter_properties import FilterProperties

if TYPE_CHECKING:
    from ..options import StorageOptions
    from ..pools import Pools

Rows = NDArray[np.int32]
Weights = NDArray[np.float64]
Draw = Callable[[], float]
"""The next number of the decision's seeded chance, in [0, 1)."""


class PoolWeigher(ABC):
    """Base of the weighers. ``column`` names the pool column that holds its raw weights, if one does; ``refuses``: a
    raw weight may be NaN."""

    name: ClassVar[str]
    refuses: ClassVar[bool] = False

    def __init__(self, options: StorageOptions) -> None:
        self.options = options

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def multiplier(self) -> float:
        """What the normalised weight is multiplied by."""
        return 1.0

    def column(self, pools: Pools, filter_properties: FilterProperties) -> str | None:
        """The column that holds the raw weights of all pools as they are; None if there is none."""
        return None

    @abstractmethod
    def raw(self, pools: Pools, filter_properties: FilterProperties, rows: Rows, draw: Draw) -> Weights:
        """Raw weights of rows, in their order; NaN for one that cannot be weighed, which is refused. O(rows)."""

    def refusal(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str | None:
        """Why a row cannot be weighed (Cinder would crash); None if it can."""
        return None
