"""What Nova's engine asks of the candidate search: which trees have an allocation candidate, and the first of one.

A query's fallback is asked where the query itself finds nothing. A tree is named by its root's row: a compute host.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..fleet.fleet import Fleet
from ..request.placement_query import PlacementQuery
from .independent import Independent, independent
from .search import CandidateSearch
from .slots import Prepared, prepare

Amounts = dict[int, dict[int, int]]
"""row -> resource class index -> amount."""
Mappings = dict[str, tuple[int, ...]]
"""suffix of a request group -> rows."""
TREE_STEPS = 200_000
"""Maximum search steps per tree (`Effort`); beyond it the tree counts as having no candidate."""


class TreeQuery:
    """A query that is asked again and again, ready for the fleet as it is."""

    def __init__(self, fleet: Fleet, query: PlacementQuery) -> None:
        self._fleet, self._query = fleet, query
        self._fallback = None if query.fallback is None else TreeQuery(fleet, query.fallback)
        self._seen: tuple[int, ...] = ()
        self._prepared: Prepared | None = None
        self._independent: Independent | None = None

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
        fleet, layout = self._fleet, self._fleet._index.layout()
        known: NDArray[np.bool_] = (layout.tree_of[rows] >= 0) & (fleet._store.row["root"][rows] == rows)
        trees, back = np.unique(layout.tree_of[rows[known]].astype(np.int64), return_inverse=True)
        search = CandidateSearch(fleet, self._ready(), tree_steps=TREE_STEPS, independent=self._independent)
        known[known] = search.having(trees)[back]
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
            self._independent = independent(self._prepared)
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
