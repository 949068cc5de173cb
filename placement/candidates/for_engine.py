"""What Nova's engine asks of the candidate search: which trees have an allocation candidate, and the first of one.

A query's fallback is asked where the query itself finds nothing. A tree is named by its root's row: a compute host.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..fleet.fleet import Fleet
from ..request.placement_query import PlacementQuery
from .search import CandidateSearch
from .slots import Prepared, prepare

Amounts = dict[int, dict[int, int]]
"""row -> resource class index -> amount."""
Mappings = dict[str, tuple[int, ...]]
"""suffix of a request group -> rows."""
TREE_STEPS = 200_000
"""Maximum search steps per tree (`Effort`); beyond it the tree counts as having no candidate."""
FEW = 16
"""Rows that are looked at one by one: more are judged with all others at once."""


class TreeQuery:
    """A query that is asked again and again, ready for the fleet as it is."""

    def __init__(self, fleet: Fleet, query: PlacementQuery) -> None:
        self._fleet, self._query = fleet, query
        self._fallback = None if query.fallback is None else TreeQuery(fleet, query.fallback)
        self._seen: tuple[int, ...] = ()
        self._prepared: Prepared | None = None

    def candidates(self, root: int) -> Iterator[Amounts]:
        """All candidates in a tree, one after the other, those of the fallback last."""
        return (amounts for amounts, _ in self.mapped(root))

    def mapped(self, root: int) -> Iterator[tuple[Amounts, Mappings]]:
        """The same, each with the rows of the providers that give each request group."""
        layout = self._fleet._index.layout()
        if self._fleet._store.row["root"][root] == root and layout.tree_of[root] >= 0:
            prepared = self._ready()
            for way in CandidateSearch(self._fleet, prepared, tree_steps=TREE_STEPS).within(int(layout.tree_of[root])):
                yield _amounts(prepared, way), _mappings(prepared, way)
        if self._fallback is not None:
            yield from self._fallback.mapped(root)

    def first(self, root: int) -> Amounts | None:
        """The first candidate in a tree, None if there is none. O(providers of the tree)."""
        return next(self.candidates(root), None)

    def having(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which rows are roots of trees that have a candidate. O(rows), vectorised where that is enough."""
        if len(rows) <= FEW:
            return np.array([self.first(row) is not None for row in rows.tolist()], bool)
        fleet, layout = self._fleet, self._fleet._index.layout()
        trees = np.zeros(max(layout.trees, 1), bool)
        search = CandidateSearch(fleet, self._ready(), tree_steps=TREE_STEPS)
        for found in search.trees(None):
            trees[found.tree] = search.has_some(found)
        known: NDArray[np.bool_] = (layout.tree_of[rows] >= 0) & trees[layout.tree_of[rows]]
        known &= fleet._store.row["root"][rows] == rows
        if self._fallback is not None and not known.all():
            known[~known] = self._fallback.having(rows[~known])
        return known

    def _ready(self) -> Prepared:
        fleet = self._fleet
        change_log = fleet._change_log
        seen = (
            *(change_log.topology_epoch, change_log.static_epoch, change_log.forgotten_classes),
            *(fleet.rows, len(fleet._classes), len(fleet.resource_classes)),
        )
        if self._prepared is None or seen != self._seen:
            self._prepared, self._seen = prepare(fleet, self._query), seen
        return self._prepared


def _amounts(prepared: Prepared, way: tuple[int, ...]) -> Amounts:
    amounts: Amounts = {}
    for row, slot in zip(way, prepared.slots, strict=True):
        mine = amounts.setdefault(row, {})
        for index, amount in slot.amounts:
            mine[index] = mine.get(index, 0) + amount
    return amounts


def _mappings(prepared: Prepared, way: tuple[int, ...]) -> Mappings:
    mapped: dict[str, dict[int, None]] = {}
    for row, slot in zip(way, prepared.slots, strict=True):
        mapped.setdefault(slot.suffix, {})[row] = None
    return {suffix: tuple(rows) for suffix, rows in mapped.items()}
