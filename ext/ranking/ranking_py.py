"""The obvious twin of _ranking.pyx: each answer is a fresh look at every row. No trees, no cache."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..constants import (
    AFFINITY,
    ANTI_AFFINITY,
    CPU_ALLOCATION_RATIO,
    DELTA_PERP,
    DOT_PRODUCT,
    FREE_RAM_MB,
    NO_POLICY,
    NOT_A_HOST,
    RAM_ALLOCATION_RATIO,
    SOFT_AFFINITY,
    SOFT_ANTI_AFFINITY,
    SOURCE_CLASS,
    SOURCE_COLUMN,
    SOURCE_GROUP,
    SOURCE_PACKING,
    SOURCE_ROW,
    STAGES,
    TERMS,
    TOTAL_USABLE_RAM_MB,
    VCPUS_TOTAL,
    VCPUS_USED,
)
from ..draws import Draws
from ..fleet_py import Columns, Group, checked
from ..vector_fit import Load, Pair, fit, load_of, mean_load


class Need(NamedTuple):
    """A row must have ``amount`` of a resource class; with ``units``, min_unit and step_size are looked at too."""

    resource: int
    amount: int
    stage: int
    units: bool


class Bound(NamedTuple):
    """A host column must be within [low, high]."""

    column: int
    low: float
    high: float
    stage: int


class Mask(NamedTuple):
    """A row must have a non-zero entry."""

    passes: npt.NDArray[np.uint8]
    stage: int


@dataclass(slots=True)
class Term:
    """One weigher: where its raw value comes from, which ends are fixed, and its multiplier, maybe by class."""

    source: int
    multiplier: float
    column: int = -1
    values: npt.NDArray[np.float64] | None = None
    minval: float | None = None
    maxval: float | None = None
    multipliers: npt.NDArray[np.float64] | None = None
    least_multiplier: float = 0.0
    greatest_multiplier: float = 0.0
    group_factor: float = 0.0
    steady: bool = False
    """A promise to the kernel that the raw values of rows never change; nothing is kept here that it could save."""
    formula: int = -1
    asked: Pair = (0.0, 0.0)
    """vCPUs and GiB that a formula of vector packing is asked with."""
    by_load: bool = False
    """The mean load of all hosts weighs the two resources of the formula."""


class HostIndex:
    """What the kernel's rankings search together; nothing is kept here."""

    def __init__(self, columns: Columns, *, held_room: int = 0, counted_from: int = 4096) -> None:
        self.columns, self.held_room = columns, held_room
        self.nbytes, self.statistics = 0, (0, 0)


class Ranking:
    """One request signature compiled against one fleet's columns; see the kernel."""

    def __init__(
        self,
        columns: Columns,
        *,
        class_stage: npt.NDArray[np.uint8],
        needs: Sequence[tuple[int, int, int, bool]] = (),
        bounds: Sequence[tuple[int, float, float, int]] = (),
        masks: Sequence[tuple[npt.NDArray[np.uint8], int]] = (),
        terms: Sequence[Mapping[str, Any]] = (),
        affinity_stage: int = 0,
        anti_affinity_stage: int = 0,
        shuffle: bool = False,
        subset: int = 1,
        index: HostIndex | None = None,
    ) -> None:
        if index is not None and index.columns is not columns:
            raise ValueError("an index of another fleet")
        if columns.capacity == 0:
            raise ValueError("the columns are not attached")
        if subset < 1:
            raise ValueError("subset must be at least 1")
        self.columns = columns
        self.capacity = columns.capacity
        self._lender: Ranking | None = None
        self.set_class_stage(class_stage)
        self.needs = [Need(*need) for need in needs]
        self.bounds = [Bound(*bound) for bound in bounds]
        self.masks = [Mask(*mask) for mask in masks]
        self.terms = [Term(**term) for term in terms]
        self.group_stage = {AFFINITY: affinity_stage, ANTI_AFFINITY: anti_affinity_stage}
        self.shuffle, self.subset = shuffle, subset
        self.seen = -1
        self.statistics = (0, 0)
        self.index, self.nbytes, self.held = index, 0, False
        self._normalisers: list[tuple[float, float]] = [(0.0, 0.0)] * len(self.terms)
        self._check_filters()
        self._check_terms()
        by_row = [term for term in self.terms if term.source in (SOURCE_ROW, SOURCE_PACKING)]
        self.searches = index is not None and not (by_row or self.masks or shuffle)

    def _check_filters(self) -> None:
        if not all(0 <= need.resource < self.columns.classes for need in self.needs):
            raise IndexError("resource class out of range")
        if not all(0 <= bound.column < len(self.columns.host) for bound in self.bounds):
            raise IndexError("column out of range")
        rules: list[Need | Bound | Mask] = [*self.needs, *self.bounds, *self.masks]
        if not all(0 < rule.stage < NOT_A_HOST for rule in rules):
            raise ValueError("a filter's stage must be within [1, 254]")
        if any(len(checked(mask.passes, np.uint8, 1)) != self.capacity for mask in self.masks):
            raise ValueError("a mask has one entry per row")

    def _check_terms(self) -> None:
        if len(self.terms) > TERMS:
            raise ValueError("too many weighers")
        for term in self.terms:
            if term.source not in (SOURCE_COLUMN, SOURCE_CLASS, SOURCE_ROW, SOURCE_GROUP, SOURCE_PACKING):
                raise ValueError("unknown source of raw values")
            if term.source == SOURCE_COLUMN and not 0 <= term.column < len(self.columns.host):
                raise IndexError("column out of range")
            if term.maxval is not None and term.source == SOURCE_COLUMN:
                raise ValueError("values of a term with maxval are given by class or row")
            if term.maxval is not None and term.minval is not None and term.minval > term.maxval:
                raise ValueError("minval is above maxval")
            if term.source in (SOURCE_CLASS, SOURCE_ROW) and (term.values is None or len(term.values) == 0):
                raise ValueError("values are missing")
            if term.source == SOURCE_ROW and term.values is not None and len(term.values) != self.capacity:
                raise ValueError("row values have one entry per row")
            if term.source == SOURCE_PACKING and not DOT_PRODUCT <= term.formula <= DELTA_PERP:
                raise ValueError("unknown formula")
            if term.source == SOURCE_PACKING and len(self.columns.host) <= RAM_ALLOCATION_RATIO:
                raise IndexError("column out of range")

    def resized(self, needs: Sequence[tuple[int, int, int, bool]]) -> Ranking | None:
        """A ranking that differs from this one in the amounts it needs alone; None if this one searches no index."""
        if not self.searches:
            return None
        if len(needs) != len(self.needs):
            raise ValueError("the needs differ in number")
        if any((a[0], a[2]) != (b.resource, b.stage) for a, b in zip(needs, self.needs, strict=True)):
            raise ValueError("the needs differ in more than amounts")
        other = copy.copy(self)
        other._lender = self._lender or self
        other.needs = [Need(*need) for need in needs]
        other._normalisers = [(0.0, 0.0)] * len(self.terms)
        return other

    def judging(self, class_stage: npt.NDArray[np.uint8]) -> Ranking | None:
        """A ranking that differs from this one in the results by class alone; None if this one searches no index."""
        if not self.searches:
            return None
        other = copy.copy(self)
        other._lender = None
        other.terms = [copy.copy(term) for term in self.terms]
        other.set_class_stage(class_stage)
        other._normalisers = [(0.0, 0.0)] * len(self.terms)
        return other

    def set_class_stage(self, class_stage: npt.NDArray[np.uint8]) -> None:
        """Replace the results by class (they grow as new host classes appear)."""
        self._check_own_classes()
        if len(checked(class_stage, np.uint8, 1)) == 0:
            raise ValueError("class stages are missing")
        self._class_stage = class_stage

    @property
    def class_stage(self) -> npt.NDArray[np.uint8]:
        """The stage that refuses each host class, 0 for none."""
        return (self._lender or self)._class_stage

    def _check_own_classes(self) -> None:
        if self._lender is not None:
            raise RuntimeError("a ranking that was made of another judges host classes as that one does")

    def set_class_values(
        self,
        term: int,
        values: npt.NDArray[np.float64] | None,
        multipliers: tuple[npt.NDArray[np.float64], float, float] | None,
    ) -> None:
        """Replace a class-sourced term's values, or any term's multipliers by class, after host classes were added."""
        self._check_own_classes()
        if not 0 <= term < len(self.terms):
            raise IndexError("term out of range")
        if (values is not None and len(values) == 0) or (multipliers is not None and len(multipliers[0]) == 0):
            raise ValueError("values are missing")
        if values is not None and self.terms[term].source == SOURCE_CLASS:
            self.terms[term].values = values
        if multipliers is not None:
            self.terms[term].multipliers = multipliers[0]

    def refresh(self) -> None:
        """Note the fleet's version. RuntimeError if the columns were reallocated since the ranking was made."""
        self._check_capacity()
        self.seen = self.columns.version

    def _check_capacity(self) -> None:
        if self.columns.capacity != self.capacity:
            raise RuntimeError("the columns moved: make a new ranking")

    # results

    def _fits(self, row: int, need: Need) -> bool:
        columns, resource, amount = self.columns, need.resource, need.amount
        if columns.avail[resource, row] < amount:
            return False
        if not need.units:
            return True
        step = int(columns.step_size[resource, row])
        return bool(columns.min_unit[resource, row] <= amount) and (step <= 1 or amount % step == 0)

    def _refusals(self, row: int) -> Iterable[int]:
        """Stages of all filters that refuse the row."""
        class_stage = int(self.class_stage[self.columns.class_of[row]])
        if class_stage != 0:
            yield class_stage
        for need in self.needs:
            if not self._fits(row, need):
                yield need.stage
        for bound in self.bounds:
            if not bound.low <= self.columns.host[bound.column, row] <= bound.high:
                yield bound.stage
        for mask in self.masks:
            if not mask.passes[row]:
                yield mask.stage

    def _stage(self, row: int, group: Group | None = None) -> int:
        """The first stage that refuses the row, 0 if none does; the filter of the guest's ``group`` is one of them."""
        refusals = list(self._refusals(row))
        if NOT_A_HOST in refusals:
            return NOT_A_HOST
        if group is not None and self._group_refuses(row, group):
            refusals.append(self.group_stage[group.policy])
        return min(refusals, default=0)

    @staticmethod
    def _group_refuses(row: int, group: Group) -> bool:
        if group.policy == AFFINITY:
            return row not in group.members
        return group.policy == ANTI_AFFINITY and group.members.get(row, 0) >= group.at_most

    def _looked_at(self, group: int) -> Group | None:
        """The guest's server group; None where it has no members yet, or a policy that no rule reads."""
        if group < 0:
            return None
        self.columns.check_group(group)
        found = self.columns._groups[group]
        looked_at = found.policy != NO_POLICY and self.group_stage.get(found.policy) != 0
        return found if found.members and looked_at else None

    def stages(self) -> npt.NDArray[np.uint8]:
        """Each row's first refusing stage, uint8[rows]."""
        self.refresh()
        return np.array([self._stage(row) for row in range(self.columns.rows)], np.uint8)

    def counts(self, group: int = -1, width: int = STAGES) -> list[int]:
        """Rows by first refusing stage for a guest of server group ``group``, as a list of ``width``."""
        looked_at = self._looked_at(group)
        if not 0 <= width <= STAGES:
            raise ValueError("width beyond the stages")
        self.refresh()
        counts = [0] * STAGES
        for row in range(self.columns.rows):
            counts[self._stage(row, looked_at)] += 1
        return counts[:width]

    def judge(self, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        """Results for ``rows``, uint8 each."""
        return np.array([self._stage(row) for row in self._known(rows)], np.uint8)

    def _known(self, rows: npt.NDArray[np.int32]) -> list[int]:
        self._check_capacity()
        known: list[int] = checked(rows, np.int32, 1).tolist()
        for row in known:
            self.columns.check_row(row)
        return known

    # scores

    def _raws(self, term: Term, rows: list[int], members: list[float]) -> list[float]:
        """The weigher's raw values of rows, within minval and maxval."""
        weight = self._mean_load() if term.by_load else (1.0, 1.0)
        return [self._raw(term, row, count, weight) for row, count in zip(rows, members, strict=True)]

    def _load(self, row: int) -> Load:
        host = self.columns.host[:, row]
        return load_of(
            vcpus_total=float(host[VCPUS_TOTAL]),
            cpu_allocation_ratio=float(host[CPU_ALLOCATION_RATIO]),
            vcpus_used=float(host[VCPUS_USED]),
            total_usable_ram_mb=float(host[TOTAL_USABLE_RAM_MB]),
            ram_allocation_ratio=float(host[RAM_ALLOCATION_RATIO]),
            free_ram_mb=float(host[FREE_RAM_MB]),
        )

    def _mean_load(self) -> Pair:
        hosts = self.class_stage[self.columns.class_of[: self.columns.rows]] != NOT_A_HOST
        return mean_load((row, self._load(row)) for row in np.flatnonzero(hosts).tolist())

    def _raw(self, term: Term, row: int, members: float, weight: Pair) -> float:
        """``weight``: of the resources in a formula."""
        if term.source == SOURCE_PACKING:
            raw = fit(term.formula, self._load(row), term.asked, weight)
        elif term.source == SOURCE_COLUMN:
            raw = float(self.columns.host[term.column, row])
        elif term.source == SOURCE_GROUP:
            # ``members`` is negative in a soft-anti-affinity group, and speaks only to the term of its own sign.
            raw = term.group_factor * abs(members) if term.group_factor * members > 0.0 else 0.0
        else:
            assert term.values is not None
            raw = float(term.values[self.columns.class_of[row] if term.source == SOURCE_CLASS else row])
        if term.minval is not None and raw < term.minval:
            return term.minval
        return raw if term.maxval is None else min(raw, term.maxval)

    def _multiplier(self, term: Term, row: int) -> float:
        return term.multiplier if term.multipliers is None else float(term.multipliers[self.columns.class_of[row]])

    def _ends(self, term: Term, raws: list[float], idle: bool) -> tuple[float, float]:
        """(lo, hi - lo) of the raw values; 0 for the second if the term adds nothing, as where it is ``idle``."""
        low = min(raws) if term.minval is None else term.minval
        high = max(raws) if term.maxval is None else term.maxval
        return (low, high - low) if high > low and not idle else (low, 0.0)

    def _scores(self, rows: list[int], members: list[float], idle: list[bool]) -> list[float]:
        """Nova's sum per row, from 0.0, in order: multiplier * (raw - lo) / (hi - lo). One row alone is not weighed."""
        totals = [0.0] * len(rows)
        self._normalisers = [(0.0, 0.0)] * len(self.terms)
        if len(rows) <= 1:
            return totals
        for position, term in enumerate(self.terms):
            raws = self._raws(term, rows, members)
            low, span = self._normalisers[position] = self._ends(term, raws, idle[position])
            if span == 0.0:
                continue
            for i, (row, raw) in enumerate(zip(rows, raws, strict=True)):
                totals[i] += self._multiplier(term, row) * ((raw - low) / span)
        return totals

    def best(self, group: int = -1, wanted: int = 1, seed: int = 0) -> tuple[list[int], list[float]]:
        """The ``wanted`` best rows and scores, best first, ties by row; what chance has a part in is drawn from
        ``seed``. O(rows * log rows)."""
        if wanted < 1:
            raise ValueError("wanted must be at least 1")
        looked_at = self._looked_at(group)
        self.refresh()
        rows = [row for row in range(self.columns.rows) if self._stage(row, looked_at) == 0]
        members = [self._members(row, looked_at) for row in rows]
        scores = self._scores(rows, members, [self._is_idle(term, looked_at) for term in self.terms])
        order = sorted(range(len(rows)), key=lambda i: (-scores[i], rows[i]))
        ties = scores.count(max(scores, default=0.0)) if self.shuffle else 1
        order = [order[position] for position in Draws(seed).order(len(order), ties, self.subset)[:wanted]]
        return [rows[i] for i in order], [scores[i] for i in order]

    @staticmethod
    def _members(row: int, group: Group | None) -> float:
        """Members of the guest's soft group on the row, negative for soft-anti-affinity."""
        if group is None:
            return 0.0
        count = float(group.members.get(row, 0))
        return count if group.policy == SOFT_AFFINITY else -count

    @staticmethod
    def _is_idle(term: Term, group: Group | None) -> bool:
        """True for a group term unless the guest's group is soft and of the term's kind: factors > 0 are affinity."""
        if term.source != SOURCE_GROUP:
            return False
        return group is None or group.policy != (SOFT_AFFINITY if term.group_factor > 0 else SOFT_ANTI_AFFINITY)

    def row_parts(self, row: int, members: float = 0.0) -> list[tuple[float, float, float]]:
        """Per term (raw, normalised, multiplier) of one row under the normalisers of the latest ``best`` or
        ``score_rows``."""
        self._check_capacity()
        self.columns.check_row(row)
        parts = []
        for term, (low, span) in zip(self.terms, self._normalisers, strict=True):
            raw = self._raws(term, [row], [members])[0]
            parts.append((raw, (raw - low) / span if span else 0.0, self._multiplier(term, row)))
        return parts

    def score_rows(
        self, rows: npt.NDArray[np.int32], members: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.float64]:
        """Nova's exact scores of ``rows``, normalised over themselves alone; ``members`` of the request's soft group on
        each row, negative if its policy is soft-anti-affinity."""
        known = self._known(rows)
        counts, idle = self._counted(known, members)
        return np.array(self._scores(known, counts, idle), np.float64)

    def _counted(self, rows: list[int], members: npt.NDArray[np.float64] | None) -> tuple[list[float], list[bool]]:
        """Members on each row, and which terms are idle for want of them."""
        if members is None:
            return [0.0] * len(rows), [term.source == SOURCE_GROUP for term in self.terms]
        if len(checked(members, np.float64, 1)) != len(rows):
            raise ValueError("rows and members differ in length")
        return members.tolist(), [False] * len(self.terms)

    def parts(
        self, rows: npt.NDArray[np.int32], members: npt.NDArray[np.float64] | None = None
    ) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        """Per term, (raw, normalised, multiplier) float64 arrays over ``rows``, normalised over themselves alone."""
        known = self._known(rows)
        counts, idle = self._counted(known, members)
        result = []
        for position, term in enumerate(self.terms):
            raws = self._raws(term, known, counts)
            low, span = self._ends(term, raws, idle[position]) if len(known) > 1 else (0.0, 0.0)
            norms = [(raw - low) / span if span else 0.0 for raw in raws]
            multipliers = [self._multiplier(term, row) for row in known]
            result.append((np.array(raws, np.float64), np.array(norms, np.float64), np.array(multipliers, np.float64)))
        return result

    def check(self) -> None:
        """Nothing is kept that could be wrong."""
        self.refresh()
