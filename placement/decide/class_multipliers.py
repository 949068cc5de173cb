"""A weigher's multiplier by host class: read once for all requests, as it depends on a host's aggregates alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..fleet.fleet import Fleet
from ..fleet.host_view import ClassView
from ..policy.rule_checks import finite_number
from ..weighers.base import Weigher


class ClassMultipliers:
    """Multipliers of one weigher by number of the host class. InvalidValue for one that is no finite number."""

    def __init__(self, fleet: Fleet, weigher: Weigher) -> None:
        self.fleet, self.weigher = fleet, weigher
        self.configured = finite_number(weigher, "multiplier", weigher.multiplier())
        self._values: list[float] = []
        self._by_aggregates: dict[tuple[int, ...], float] = {}
        self._by_class: tuple[NDArray[np.float64], float, float] | None = None

    def by_class(self) -> tuple[NDArray[np.float64], float, float] | None:
        """(multiplier by class, least, greatest); None where all are the configured one. O(classes that are new)."""
        new = self.fleet._classes.values[len(self._values) :]
        if not new:
            return self._by_class
        values, setting = [], self._setting()
        for host_class in new:
            value = self.configured
            aggregates = host_class.aggregates
            if host_class.is_host and aggregates and (setting is None or not setting.isdisjoint(aggregates)):
                known = self._by_aggregates.get(aggregates)
                if known is None:
                    known = self.weigher.host_multiplier(ClassView(self.fleet, host_class))
                    known = finite_number(self.weigher, "multiplier", known)
                    self._by_aggregates[aggregates] = known
                value = known
            values.append(value)
        self._values += values
        if self._by_class is not None or any(value != self.configured for value in values):
            self._by_class = np.array(self._values), min(self._values), max(self._values)
        return self._by_class

    def _setting(self) -> set[int] | None:
        """The aggregates that may set a multiplier, by id; None where a weigher's own rule decides. O(aggregates)."""
        option = getattr(self.weigher, "option", None)  # a weigher with a ``configured`` of its own needs none
        if option is None or type(self.weigher).host_multiplier is not Weigher.host_multiplier:
            return None
        return {number for number, each in enumerate(self.fleet.aggregates) if option in each.metadata}
