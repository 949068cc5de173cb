"""GoodnessWeigher: raw = what the pool's goodness_function says of the request, 0 to 100. Source: Cinder 29."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..expression import ExpressionError
from ..filter_properties import FilterProperties
from ..function_rows import goodness_column, goodness_ratings
from ..functions import GOODNESS, goodness
from ..pool_classes import ClassWish
from .base import Draw, PoolWeigher, Rows, Weights

if TYPE_CHECKING:
    from ..pools import Pools


class GoodnessWeigher(PoolWeigher):
    """The better the better. A pool whose function gives no number at all is refused."""

    name: ClassVar[str] = "GoodnessWeigher"
    refuses: ClassVar[bool] = True

    def raw(self, pools: Pools, filter_properties: FilterProperties, rows: Rows, draw: Draw) -> Weights:
        return goodness_ratings(pools, filter_properties, rows, strict=self.options.compat == "strict")

    def following(self, pools: Pools, rows: Rows) -> Rows:
        """Those of ``rows``, whose capacities changed, that must be rated again. O(rows)."""
        return pools.variables.texts(GOODNESS).living(rows)

    def steady(self, pools: Pools) -> bool:
        """True if the ratings are the same for all requests, whatever is placed, until pools report again."""
        return goodness_column(pools, strict=self.options.compat == "strict").steady

    def class_wish(self, pools: Pools) -> ClassWish:
        """That a pool can be rated, where ``steady``."""
        strict = self.options.compat == "strict"
        return ClassWish(("goodness_function", strict), partial(_rateable, pools, strict=strict), True, bool)

    def steady_column(self, pools: Pools) -> int:
        """The column of the ratings, where ``steady``."""
        strict = self.options.compat == "strict"
        pools.classes.rate(partial(_ratings, pools, strict=strict), strict=strict)
        return pools.columns.rating(strict=strict)

    def refusal(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str | None:
        try:
            goodness(pools, filter_properties, row, strict=self.options.compat == "strict")
        except ExpressionError as error:
            return str(error)
        return None


def _rateable(pools: Pools, rows: Rows, *, strict: bool) -> list[bool]:
    rateable: list[bool] = (~np.isnan(_ratings(pools, rows, strict=strict))).tolist()
    return rateable


def _ratings(pools: Pools, rows: Rows, *, strict: bool) -> Weights:
    return goodness_column(pools, strict=strict).values[rows]
