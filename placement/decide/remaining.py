"""The hosts that are left for further instances of one request, weighed again after each claim.

Nova filters and weighs all of them again for each instance. Between two instances only the rows of the last claim
change, so that the others keep their raw values: what is done here is the same arithmetic, on columns, for those
weighers whose normaliser has moved. ``Scan`` weighs where this does not apply.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import SOURCE_GROUP
from ..fleet.fleet import Fleet
from ..types.decision import ScorePart
from .signature import Signature

Rows = NDArray[np.int32]
Members = Callable[[Rows], "NDArray[np.float64] | None"]
Passes = Callable[[Rows], NDArray[np.bool_]]


class Remaining:
    """``rows``, in order, that a first instance was placed on one of; the claim has not been made yet."""

    def __init__(self, fleet: Fleet, signature: Signature, rows: Rows, members: Members, passes: Passes) -> None:
        self._fleet, self._signature, self._members, self._passes = fleet, signature, members, passes
        self._seen = fleet.version
        self._rows = rows
        self._alive = np.ones(len(rows), bool)
        """Whether the host at each position is left; one that is dropped keeps its position."""
        self._count = len(rows)
        self._ends = [(term.get("minval"), term.get("maxval")) for term in signature.terms]
        given = members(rows)
        self._idle = [given is None and term["source"] == SOURCE_GROUP for term in signature.terms]
        parts = signature.ranking.parts(rows, given)
        self._raw = np.array([raw for raw, _, _ in parts]).reshape(len(parts), len(rows))
        self._multipliers = np.array([multiplier for *_, multiplier in parts]).reshape(len(parts), len(rows))
        self._ranges = [self._range(number) for number in range(len(parts))]
        self._weights = self._weighed(slice(None))
        self._place = np.full(fleet.rows, -1, np.int32)
        """Position of each row in the columns, -1 for those that are not left."""
        self._place[rows] = np.arange(len(rows), dtype=np.int32)
        self._order = np.arange(len(rows))
        """Positions in the order in which hosts are tried: by weight; equal weights keep the order they came in."""
        self.rows, self.weights = rows.copy(), self._weights.copy()
        """The hosts in that order, and their weights. They change with the next claim."""

    @staticmethod
    def applies(signature: Signature) -> bool:
        """True if a claim changes nothing that the request's rules read of other rows than its own."""
        if signature.complex or signature.fleet._shared_service_hosts:
            return False
        caches = [*(cache for _, cache in signature.row_judges), *(values.cache for values in signature.row_values)]
        if any(cache.whole_trees or cache.whole_fleet for cache in caches):
            return False
        return not any(term.get("by_load") for term in signature.terms)

    def after_claim(self) -> bool:
        """Take in what has changed. False if that is not known row by row."""
        changed = self._fleet._kernel.changed(self._seen)
        if changed is None:
            return False
        self._seen = self._fleet.version
        touched = np.unique(self._place[changed[changed < len(self._place)]])
        touched = touched[touched >= 0]
        passes = self._passes(self._rows[touched])
        ranges = list(self._ranges)
        if not passes.all():
            self._drop(touched[~passes])
            touched = touched[passes]
        for at in touched.tolist():
            self._look(at)
        if ranges != self._ranges or len(touched) > 1:
            self._weights = self._weighed(slice(None))
            self._order = self._order[np.argsort(-self._weights[self._order], kind="stable")]
            self.rows, self.weights = self._rows[self._order], self._weights[self._order]
        elif len(touched):
            self._move(int(touched[0]))
        return True

    def parts(self, place: int) -> tuple[ScorePart, ...]:
        """Score parts of the host at a place of the order."""
        at = int(self._order[place])
        return tuple(
            ScorePart(
                name,
                float(self._raw[number, at]),
                float((self._raw[number, at] - low) / span) if span else 0.0,
                float(self._multipliers[number, at]),
            )
            for number, (name, (low, _, span)) in enumerate(
                zip(self._signature.weigher_names, self._ranges, strict=True)
            )
        )

    def _drop(self, positions: NDArray[np.int32]) -> None:
        """Leave out hosts, and find the ranges of those weighers whose they moved."""
        self._alive[positions] = False
        self._count -= len(positions)
        self._place[self._rows[positions]] = -1
        if len(positions) == 1:
            at = int(np.flatnonzero(self._order == positions[0])[0])
            self._order, self.rows = np.delete(self._order, at), np.delete(self.rows, at)
            self.weights = np.delete(self.weights, at)
        else:
            keep = self._alive[self._order]
            self._order, self.rows, self.weights = self._order[keep], self.rows[keep], self.weights[keep]
        gone = self._raw[:, positions]
        for number, (low, high, _) in enumerate(self._ranges):
            if self._count <= 1 or not np.all((low < gone[number]) & (gone[number] < high)):
                self._ranges[number] = self._range(number)

    def _look(self, at: int) -> None:
        """Read the raw values of a row that has changed, and find the ranges of those weighers whose it moves."""
        row = self._rows[at : at + 1]
        members = self._members(row)
        parts = self._signature.ranking.row_parts(int(row[0]), 0.0 if members is None else float(members[0]))
        before = self._raw[:, at].tolist()
        for number, ((raw, _, multiplier), old) in enumerate(zip(parts, before, strict=True)):
            self._multipliers[number, at] = multiplier
            if raw != old:
                self._raw[number, at] = raw
                low, high, _ = self._ranges[number]
                if not (low < old < high and low < raw < high):
                    self._ranges[number] = self._range(number)

    def _range(self, number: int) -> tuple[float, float, float]:
        """(least, greatest, difference) of a weigher's values; 0 for the last where it adds nothing."""
        if self._count <= 1 or self._idle[number]:
            return (0.0, 0.0, 0.0)
        low, high = self._ends[number]
        raw = self._raw[number]
        low = float(raw.min(where=self._alive, initial=np.inf)) if low is None else low
        high = float(raw.max(where=self._alive, initial=-np.inf)) if high is None else high
        return (low, high, high - low if high > low else 0.0)

    def _weighed(self, at: slice | int) -> NDArray[np.float64]:
        """Nova's sum, from 0.0, weigher by weigher: multiplier * (raw - least) / (greatest - least)."""
        total = np.zeros(self._raw[:0, at].shape[1:])
        for raw, multipliers, (low, _, span) in zip(self._raw, self._multipliers, self._ranges, strict=True):
            if span:
                total = total + multipliers[at] * ((raw[at] - low) / span)
        return total

    def _move(self, at: int) -> None:
        """Weigh one host, and put it where a stable sort would."""
        weight = self._weights[at] = float(self._weighed(at))
        order, rows, weights = self._order, self.rows, self.weights
        before = 0 if order[0] == at else int(np.flatnonzero(order == at)[0])
        first, last = _between(weights, weight, before)
        after = min(max(before, first), last)
        if after > before:
            for array in (order, rows, weights):
                array[before:after] = array[before + 1 : after + 1]
        else:
            for array in (order, rows, weights):
                array[after + 1 : before + 1] = array[after:before].copy()
        order[after], rows[after], weights[after] = at, self._rows[at], weight


def _between(weights: NDArray[np.float64], weight: float, without: int) -> tuple[int, int]:
    """Where a weight belongs in falling ``weights`` of which the one at ``without`` is left out: before the equal ones,
    and behind them. O(log weights)."""
    found = []
    for is_before in (operator.gt, operator.ge):
        low, high = 0, len(weights) - 1
        while low < high:
            middle = (low + high) // 2
            if is_before(weights[middle + (middle >= without)], weight):
                low = middle + 1
            else:
                high = middle
        found.append(low)
    return found[0], found[1]
