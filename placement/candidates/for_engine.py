"""What Nova's engine asks of the candidate search: which trees have an allocation candidate, and the first of one.

A query's fallback is asked where the query itself finds nothing. A tree is named by its root's row: a compute host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...ext.provider_trees import TreeCounts
from ..fleet.fleet import Fleet
from ..request.placement_query import PlacementQuery
from .independent import Independent, counts_of, independent
from .search import CandidateSearch
from .slots import Prepared, prepare
from .tree_search import Way

Amounts = dict[int, dict[int, int]]
"""row -> resource class index -> amount."""
Mappings = dict[str, tuple[int, ...]]
"""suffix of a request group -> rows."""
TREE_STEPS = 200_000
"""Maximum search steps per tree (`Effort`); beyond it the tree counts as having no candidate."""


class Counted(NamedTuple):
    """A query that counts answer: ``order`` has the place of each slot of ``prepared`` in their answers, ``slots`` the
    slots that they know; of these the last one stands for several where there are more places."""

    prepared: Prepared
    counts: TreeCounts
    order: tuple[int, ...]
    slots: int


class TreeQuery:
    """A query that is asked again and again, ready for the fleet as it is."""

    def __init__(self, fleet: Fleet, query: PlacementQuery) -> None:
        self._fleet, self._query = fleet, query
        self._fallback = None if query.fallback is None else TreeQuery(fleet, query.fallback)
        self._seen: tuple[int, ...] = ()
        self._prepared: Prepared | None = None
        self._independent: Independent | None = None
        self._counts: TreeCounts | None = None
        self._order: tuple[int, ...] = ()
        """Of each slot of the query, its place in what the counts answer."""

    def candidates(self, root: int) -> Iterator[Amounts]:
        """All candidates in a tree, one after the other, those of the fallback last."""
        return (amounts for amounts, _ in self.mapped(root))

    def mapped(self, root: int) -> Iterator[tuple[Amounts, Mappings]]:
        """The same, each with the rows of the providers that give each request group. The first one takes no search
        where counts tell it."""
        prepared, counts, known = self._ready(), self._counts, None
        if counts is not None:
            answer, rows = counts.first(root)
            if rows is not None:
                known = tuple(map(rows.__getitem__, self._order))
                yield amounts_of(prepared, known), mappings_of(prepared, known)
            if answer == 0:
                yield from () if self._fallback is None else self._fallback.mapped(root)
                return
        for way in self._searched(root):
            if way != known:
                yield amounts_of(prepared, way), mappings_of(prepared, way)
        if self._fallback is not None:
            yield from self._fallback.mapped(root)

    def _searched(self, root: int) -> Iterator[Way]:
        layout = self._fleet._index.layout()
        if self._fleet._store.row["root"][root] != root or layout.tree_of[root] < 0:
            return iter(())
        search = CandidateSearch(self._fleet, self._ready(), tree_steps=TREE_STEPS)
        return search.within(int(layout.tree_of[root]))

    def first(self, root: int) -> Amounts | None:
        """The first candidate in a tree, None if there is none. O(providers of the tree)."""
        return next(self.candidates(root), None)

    def having(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which rows are roots of trees that have a candidate. O(rows), by counts or vectorised where that is
        enough."""
        prepared = self._ready()
        if self._counts is not None:
            answers = self._counts.having(np.ascontiguousarray(rows, np.int32))
            known: NDArray[np.bool_] = answers == 1
            unsure = answers == 2
            if unsure.any():
                known[unsure] = self._search(prepared, rows[unsure])
        else:
            known = self._search(prepared, rows)
        if self._fallback is not None and not known.all():
            known[~known] = self._fallback.having(rows[~known])
        return known

    def update(self, known: NDArray[np.uint8], changed: NDArray[np.int32]) -> list[int] | None:
        """Bring the answers of ``having`` for all rows up to date, after changes of some; returns the other roots whose
        answer is another one now. None, and nothing is changed, where counts do not tell it. O(providers of changed
        trees)."""
        self._ready()
        if self._counts is None or self._fallback is not None:
            return None
        return self._counts.update(known, changed)

    def counted(self) -> Counted | None:
        """The counts that answer the query on the fleet's providers and host classes as they are; None where a search
        may have to."""
        prepared, counts, known = self._ready(), self._counts, self._independent
        if counts is None or known is None or self._fallback is not None:
            return None
        return Counted(prepared, counts, self._order, len(known.alone) + bool(known.equal))

    def _search(self, prepared: Prepared, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        fleet, layout = self._fleet, self._fleet._index.layout()
        known: NDArray[np.bool_] = (layout.tree_of[rows] >= 0) & (fleet._store.row["root"][rows] == rows)
        trees, back = np.unique(layout.tree_of[rows[known]].astype(np.int64), return_inverse=True)
        search = CandidateSearch(fleet, prepared, tree_steps=TREE_STEPS, independent=self._independent)
        known[known] = search.having(trees)[back]
        return known

    def _ready(self) -> Prepared:
        fleet = self._fleet
        change_log = fleet._change_log
        seen = (
            *(change_log.topology_epoch, change_log.static_epoch, change_log.forgotten_classes),
            *(fleet.rows, len(fleet._classes), len(fleet.resource_classes)),
            *(len(fleet._unit_rules), fleet._store.capacity),
        )
        if self._prepared is None or seen != self._seen:
            self._prepared, self._seen = prepare(fleet, self._query), seen
            self._independent = independent(self._prepared)
            found = None if self._independent is None else counts_of(fleet, self._prepared, self._independent)
            self._counts, self._order = (None, ()) if found is None else found
        return self._prepared


def amounts_of(prepared: Prepared, way: Sequence[int]) -> Amounts:
    """What each provider gives, where each of the slots goes to one of the rows ``way``. O(slots)."""
    amounts: Amounts = {}
    for row, slot in zip(way, prepared.slots, strict=True):
        mine = amounts.setdefault(row, {})
        for index, amount in slot.amounts:
            mine[index] = mine.get(index, 0) + amount
    return amounts


def mappings_of(prepared: Prepared, way: Sequence[int]) -> Mappings:
    """The rows of each request group, likewise. O(slots)."""
    mapped: dict[str, dict[int, None]] = {}
    for row, slot in zip(way, prepared.slots, strict=True):
        mapped.setdefault(slot.suffix, {})[row] = None
    return {suffix: tuple(rows) for suffix, rows in mapped.items()}
