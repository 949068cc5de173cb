"""GoodnessWeigher: raw = what the pool's goodness_function says of the request, 0 to 100. Source: Cinder 29."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..expression import ExpressionError
from ..functions import goodness
from ..wanted import Wanted
from .base import Draw, PoolWeigher, Rows, Weights

if TYPE_CHECKING:
    from ..pools import Pools


class GoodnessWeigher(PoolWeigher):
    """The better the better. A pool whose function gives no number at all is refused."""

    name: ClassVar[str] = "GoodnessWeigher"

    def raw(self, pools: Pools, wanted: Wanted, rows: Rows, draw: Draw) -> Weights:
        return np.fromiter((self._rated(pools, wanted, row) for row in rows.tolist()), np.float64, len(rows))

    def _rated(self, pools: Pools, wanted: Wanted, row: int) -> float:
        try:
            return goodness(pools, wanted, row, strict=self.options.compat == "strict")
        except ExpressionError:
            return math.nan

    def refusal(self, pools: Pools, wanted: Wanted, row: int) -> str | None:
        try:
            goodness(pools, wanted, row, strict=self.options.compat == "strict")
        except ExpressionError as error:
            return str(error)
        return None
