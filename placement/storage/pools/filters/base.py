"""The contract of a pool filter: its result by row, and the reason of a refusal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ..filter_properties import FilterProperties

if TYPE_CHECKING:
    from ..options import StorageOptions
    from ..pool_classes import ClassWish
    from ..pools import Pools

Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]

FACTS: Final = "facts"
"""A filter that reads what pools report, and the spec."""
CAPACITIES: Final = "capacities"
"""A filter that also reads capacities, which change as volumes are placed on the pool."""
REQUEST: Final = "request"
"""A filter that reads more: the request beside its spec, or volumes wherever they are."""
ERRORS: Final = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
"""Exceptions of a filter on malformed values: the pool is refused, the request continues."""


class PoolFilter(ABC):
    """Base of the filters. Define ``pool_passes`` and ``why``; ``passes`` may be overridden by a faster form that
    agrees with ``pool_passes``. ``reads`` determines which changes may alter its result for a pool."""

    name: ClassVar[str]
    reads: ClassVar[str] = FACTS

    def __init__(self, options: StorageOptions) -> None:
        self.options = options

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def applies(self, filter_properties: FilterProperties) -> bool:
        """False if it passes every pool of such a request."""
        return True

    def passes(self, pools: Pools, filter_properties: FilterProperties, rows: Rows) -> Mask:
        """Result by row, bool[rows]. O(rows)."""
        return np.fromiter((self._judged(pools, filter_properties, row) for row in rows.tolist()), np.bool_, len(rows))

    def key(self, filter_properties: FilterProperties) -> Hashable:
        """The part of the request that the result of a filter that reads only facts depends on: equal keys give equal
        results for equal pools. Without an override it is the request itself, so no two requests share a result."""
        return filter_properties

    def _class_wishes(self, pools: Pools, filter_properties: FilterProperties) -> Sequence[ClassWish] | None:
        """What it wants of single things that pools report, all of which a pool must have to pass; None if that does
        not say all, or if it may change without a report."""
        return None

    def following(self, pools: Pools, rows: Rows) -> Rows:
        """Those of ``rows``, whose capacities changed, that must be evaluated again. O(rows)."""
        return rows

    def steady(self, pools: Pools) -> bool:
        """True if it reads no more than pools report now, and nothing of the request, though it may have to."""
        return False

    def _judged(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        try:
            return self.pool_passes(pools, filter_properties, row)
        except ERRORS:
            return False

    @abstractmethod
    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        """Result for one row; raises one of ``ERRORS`` where Cinder would crash, which refuses the pool."""

    def reason(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        """Why it refuses a row, as a sentence with numbers."""
        return self.failure(pools, filter_properties, row) or self.why(pools, filter_properties, row)

    @abstractmethod
    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        """The reason if no exception was raised."""

    def failure(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        """The exception raised for the row, if any."""
        try:
            self.pool_passes(pools, filter_properties, row)
        except ERRORS as error:
            return f"{self.name} cannot judge it: {str(error) or type(error).__name__:.120}"
        return ""


def by_value(pools: Pools, rows: Rows, of: Callable[[int], Any], holds: Callable[[Any], bool]) -> Mask:
    """Mask that depends on one hashable value of each pool, asked once for each value. O(rows)."""
    known: dict[Any, bool] = {}
    mask = np.empty(len(rows), np.bool_)
    for at, row in enumerate(rows.tolist()):
        value = of(row)
        passes = known.get(value)
        if passes is None:
            passes = known[value] = holds(value)
        mask[at] = passes
    return mask
