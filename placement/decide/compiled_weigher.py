"""One weigher compiled for the kernel: where its raw values come from, and its multiplier by host class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import SOURCE_CLASS, SOURCE_COLUMN, SOURCE_GROUP, SOURCE_PACKING, SOURCE_ROW
from ..fleet.columns import COLUMN
from ..fleet.derived_column import RowCache
from ..fleet.fleet import Fleet
from ..fleet.host_view import ClassView, FleetView, HostView
from ..policy.rule_checks import column_of, ends_of, fields_of, formula_of, raw_value, raw_values
from ..types.errors import HostlerError, InvalidValue
from ..types.host_classes import STATIC_FIELDS
from ..types.limits import MAX_RAW
from ..types.request import Request
from ..weighers.base import Weigher
from .class_multipliers import ClassMultipliers


class RowValues:
    """A weigher's raw values row by row, and the rows for which it raised."""

    def __init__(self, fleet: Fleet, weigher: Weigher, request: Request) -> None:
        self.weigher, self.request, self.fleet = weigher, request, fleet
        self.errors: dict[int, HostlerError] = {}
        trees, everything = weigher.whole_trees, weigher.whole_fleet
        self.cache = RowCache(fleet, np.float64, self._evaluate, whole_trees=trees, whole_fleet=everything)

    def _evaluate(self, rows: NDArray[np.int32]) -> NDArray[np.float64]:
        for row in rows.tolist() if self.errors else ():
            self.errors.pop(row, None)
        # Most rows of a fleet may be of providers below hosts, which no rule weighs.
        hosts, raw = self.fleet.hosts_among(rows), np.zeros(len(rows), np.float64)
        if hosts.any():
            raw[hosts] = self._read(rows if hosts.all() else rows[hosts])
        return raw if self.weigher.maxval is None else np.minimum(raw, self.weigher.maxval)

    def _read(self, rows: NDArray[np.int32]) -> NDArray[np.float64]:
        weigher, raw = self.weigher, np.zeros(len(rows), np.float64)
        view, column = FleetView(self.fleet, rows), weigher.column(self.request)
        values = weigher.values(view, self.request) if column is None else view.column(column)
        if values is not None:
            return self._vectorised(rows, raw_values(weigher, values, len(rows)))
        for position, row in enumerate(rows.tolist()):
            try:
                raw[position] = raw_value(weigher, "raw value", weigher.raw(HostView(self.fleet, row), self.request))
            except HostlerError as error:
                self.errors[row] = error
        return raw

    def _vectorised(self, rows: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``values`` as they are where they are numbers; the others are errors of the rule."""
        finite = np.abs(values) <= MAX_RAW  # NaN is not
        for position in np.flatnonzero(~finite).tolist():
            try:
                raw_value(self.weigher, "raw value", float(values[position]))
            except InvalidValue as error:
                self.errors[int(rows[position])] = error
        return np.where(finite, values, 0.0)


class CompiledWeigher:
    """One weigher compiled: where its raw value comes from, and its multiplier by host class."""

    def __init__(self, fleet: Fleet, weigher: Weigher, request: Request, multipliers: ClassMultipliers) -> None:
        """``multipliers``: those of the weigher, which all its requests share."""
        self.fleet, self.weigher, self.request = fleet, weigher, request
        self._multipliers = multipliers
        self.rows: RowValues | None = None
        self._values: list[float] = []
        self.arguments: dict[str, Any] = {"multiplier": multipliers.configured} | ends_of(weigher)
        self._find_source()
        self._read_multipliers()

    def _find_source(self) -> None:
        weigher, request = self.weigher, self.request
        factor = weigher.group_factor
        # The kernel does not clamp columns from above.
        column = weigher.column(request) if factor is None and weigher.maxval is None else None
        if column == "last_seen_up":
            # It may be NaN, which is an error of the rule. The kernel would weigh it.
            self._by_row()
            return
        formula = formula_of(weigher, request) if factor is None and column is None else None
        if factor is not None:
            self.arguments.update(source=SOURCE_GROUP, group_factor=factor)
        elif column is not None:
            # These two change only by edits that also invalidate every signature.
            steady = column in ("hypervisor_version", "failed_builds")
            self.arguments.update(source=SOURCE_COLUMN, column=column_of(weigher, column), steady=steady)
        elif formula is not None:
            asked = formula.vcpus, formula.memory_gib
            by_load = weigher.whole_fleet
            self.arguments.update(source=SOURCE_PACKING, formula=formula.number, asked=asked, by_load=by_load)
        elif fields_of(weigher, request) <= STATIC_FIELDS:
            self.arguments.update(source=SOURCE_CLASS, values=np.zeros(64))
        else:
            self._by_row()

    def _by_row(self) -> None:
        self.rows = RowValues(self.fleet, self.weigher, self.request)
        self.arguments.update(source=SOURCE_ROW, values=self.rows.cache.array)

    def _read_multipliers(self) -> None:
        """Multipliers by class, kept only if an aggregate of some class sets one. O(new classes)."""
        found = self.by_class()
        if found is not None:
            array, least, greatest = found
            self.arguments.update(multipliers=array, least_multiplier=least, greatest_multiplier=greatest)

    def by_class(self) -> tuple[NDArray[np.float64], float, float] | None:
        """(multiplier by class, least, greatest), or None where all are the configured one."""
        return self._multipliers.by_class()

    @property
    def grows(self) -> bool:
        """True if something of the term is held per host class."""
        return self.by_class() is not None or self.arguments["source"] == SOURCE_CLASS

    def grow(self) -> None:
        """Take in host classes that are new since the last call."""
        known = len(self._values)
        self._read_multipliers()
        if self.arguments["source"] != SOURCE_CLASS:
            return
        new = self.fleet._classes.values[known:]
        if not new:
            return
        for host_class in new:
            raw = self.weigher.raw(ClassView(self.fleet, host_class), self.request) if host_class.is_host else 0.0
            raw = raw_value(self.weigher, "raw value", raw)
            self._values.append(raw if self.weigher.maxval is None else min(raw, self.weigher.maxval))
        self.arguments["values"] = np.array([*self._values, 0.0])

    def adds_nothing(self) -> bool:
        """True if no host's score can depend on the weigher as things stand; the fleet's static epoch tells when that
        may change."""
        if self.by_class() is None and self._multipliers.configured == 0.0:
            # A rule of rows may still refuse the request by raising.
            return self.rows is None
        column = self.arguments.get("column")
        if column == COLUMN["pci_weight"]:
            return not self.fleet._has_pci
        if column in (COLUMN["hypervisor_version"], COLUMN["failed_builds"]):
            values = self.fleet._store.host[column, : self.fleet.rows][self.fleet.is_host]
            return len(values) == 0 or bool(values.min() == values.max())
        return False
