"""Variables of expressions as columns over all pools: what was reported is converted once, live figures are read from
the pool columns. A request's own variables are one value for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Rows
from .expression.scalar import converted, kept
from .expression.vector import BAD, GREATEST, HARD, NUMBER, TEXT, Floats, Variables, Vector, constant
from .expression.vector import BOOLEAN as TRUTH
from .filter_properties import FilterProperties
from .function_columns import LIVE, FunctionColumn, FunctionTexts
from .functions import FILTER, function_scopes
from .rows import PoolRows
from .view import FILTER_STATS, MISSING, STATS, attribute


class ReportedColumn:
    """One value of each pool, as expressions take it."""

    def __init__(self, pools: PoolRows, read: Callable[[int], Any], *, strict: bool) -> None:
        self._pools, self._read, self._convert = pools, read, kept if strict else converted
        self.layout = pools.layout
        capacity = pools.columns.capacity
        self.numbers = np.zeros(capacity)
        self.kinds = np.full(capacity, BAD, np.uint8)
        self.codes = np.zeros(capacity, np.int32)
        self.words: list[str] = []
        self._code_of: dict[str, int] = {}
        self._changes_seen = len(pools.changed_rows)
        self._fill(pools.live_rows())

    def at(self, rows: Rows) -> Vector:
        """Values of rows. O(rows + what was reported since)."""
        changed_rows = self._pools.changed_rows
        if len(changed_rows) != self._changes_seen:
            changed = np.unique(np.array(changed_rows[self._changes_seen :], np.int32))
            self._changes_seen = len(changed_rows)
            self._fill(changed[self._pools.columns.live[changed] != 0])
        kinds = self.kinds[rows]
        has_text = bool(self.words) and bool((kinds == TEXT).any())
        return Vector(self.numbers[rows], kinds, self.codes[rows] if has_text else None, self.words)

    def _fill(self, rows: Rows) -> None:
        for row in rows.tolist():
            self.numbers[row], self.kinds[row] = self._converted(row)

    def _converted(self, row: int) -> tuple[float, int]:
        try:
            value = self._convert(self._read(row))
        except (TypeError, ValueError, OverflowError):
            return 0.0, BAD
        if isinstance(value, str):
            code = self._code_of.setdefault(value, len(self.words))
            if code == len(self.words):
                self.words.append(value)
            self.codes[row] = code
            return 0.0, TEXT
        if isinstance(value, bool):
            return float(value), TRUTH
        if not isinstance(value, int | float):
            return 0.0, HARD
        return (float(value), NUMBER) if abs(value) < GREATEST else (0.0, HARD)


class PoolVariables:
    """The columns of all variables that were asked for, by how they are read."""

    def __init__(self, pools: PoolRows) -> None:
        self._pools = pools
        self._columns: dict[tuple[str, str, bool], ReportedColumn] = {}
        self._texts: dict[str, FunctionTexts] = {}
        self._functions: dict[tuple[str, bool], FunctionColumn] = {}

    def texts(self, kind: str) -> FunctionTexts:
        """The functions of all pools. O(what was reported since)."""
        found = self._texts.get(kind)
        if found is None or found.layout != self._pools.layout:
            found = self._texts[kind] = FunctionTexts(self._pools, kind)
        found.catch_up()
        return found

    def functions(
        self, kind: str, evaluate: Callable[[Rows], Floats | NDArray[np.bool_]], *, strict: bool
    ) -> FunctionColumn:
        """The functions of one kind as a column, up to date; ``evaluate``: values of rows. O(changes) if it is known,
        else O(pools)."""
        texts = self.texts(kind)
        found = self._functions.get((kind, strict))
        if found is None or found.layout != self._pools.layout:
            found = self._functions[kind, strict] = FunctionColumn(self._pools, texts, evaluate, strict=strict)
        found.catch_up()
        return found

    def column(self, scope: str, name: str, *, strict: bool) -> ReportedColumn:
        """The column of ``capabilities.name`` or of a reported ``stats.name``. O(1) if it is known, else O(pools)."""
        found = self._columns.get((scope, name, strict))
        if found is None or found.layout != self._pools.layout:
            found = ReportedColumn(self._pools, self._reader(scope, name), strict=strict)
            self._columns[scope, name, strict] = found
        return found

    def _reader(self, scope: str, name: str) -> Callable[[int], Any]:
        pools = self._pools
        if scope == "stats":
            return lambda row: attribute(pools, row, name)
        return lambda row: pools.fact(row).capabilities.get(name)

    def of(
        self, filter_properties: FilterProperties, rows: Rows, kind: str, *, strict: bool, protocol: Any = MISSING
    ) -> Variables:
        """What variables mean to a request on rows; ``protocol`` stands for the pools' storage protocol, if it is one
        of several names."""
        names = FILTER_STATS if kind == FILTER else STATS
        request = function_scopes(filter_properties, kind)

        def look_up(scope: str, name: str) -> Vector:
            if scope == "capabilities" or (scope == "stats" and name in names):
                if name == "storage_protocol" and protocol is not MISSING:
                    return _single(protocol, strict=strict)
                if scope == "stats" and name in LIVE:
                    return self._live(name, rows, strict=strict)
                return self.column(scope, name, strict=strict).at(rows)
            return _own(request.get(scope), name, strict=strict)

        return look_up

    def _live(self, name: str, rows: Rows, *, strict: bool) -> Vector:
        columns = self._pools.columns
        values = columns[LIVE[name]][rows]
        numbers = values if strict else np.trunc(values)
        if name == "free_capacity_gb":
            unknown = columns["counted"][rows] == 0
            if unknown.any():
                words = self.column("stats", name, strict=strict).at(rows)
                kinds = np.where(unknown, words.kinds, np.uint8(NUMBER))
                return Vector(numbers, kinds, words.codes, words.words)
        return Vector(numbers, np.where(np.abs(numbers) < GREATEST, np.uint8(NUMBER), np.uint8(HARD)))


def _own(scope: Any, name: str, *, strict: bool) -> Vector:
    """A variable of the request."""
    value = scope.get(name, MISSING) if hasattr(scope, "get") else MISSING
    return constant(None) if value is MISSING else _single(value, strict=strict)


def _single(value: Any, *, strict: bool) -> Vector:
    """One value for all rows, as expressions take it."""
    try:
        return constant(kept(value) if strict else converted(value))
    except (TypeError, ValueError, OverflowError):
        return constant(None)
