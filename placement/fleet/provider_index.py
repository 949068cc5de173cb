"""Indices for searches over many providers: the layout of trees, host classes by trait and aggregate, and the trees
that sharing providers serve. Derived from the fleet and rebuilt only when it has changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .parts import FleetParts

Mask = NDArray[np.bool_]
MOST_MASKS: Final = 512
"""Maximum number of traits and aggregates whose host classes are cached."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All providers by tree, in the order of the roots' rows; in each tree the root first, then in row order.

    ``rows``: their rows; ``starts``: the first position of each tree, and the end; ``plain``: ``rows`` are 0, 1, 2, ...
    and each is a tree of one provider. ``tree_of``: tree by row. ``served_tree``, ``server``: pairs of a tree and a
    sharing provider outside of it that serves it, sorted.
    """

    rows: NDArray[np.int32]
    starts: NDArray[np.int64]
    plain: bool
    tree_of: NDArray[np.int32]
    served_tree: NDArray[np.int64]
    server: NDArray[np.int32]

    @property
    def trees(self) -> int:
        """Number of trees."""
        return len(self.starts) - 1

    def members(self, tree: int) -> list[int]:
        """Rows of a tree, the root first. O(rows of the tree)."""
        members: list[int] = self.rows[self.starts[tree] : self.starts[tree + 1]].tolist()
        return members

    def servers(self, tree: int) -> list[int]:
        """Rows of the sharing providers outside a tree that serve it, in row order. O(log pairs)."""
        if len(self.server) == 0:
            return []
        first, last = np.searchsorted(self.served_tree, (tree, tree + 1))
        servers: list[int] = self.server[first:last].tolist()
        return servers


class ProviderIndex:
    """The indices of one fleet."""

    def __init__(self, fleet: FleetParts) -> None:
        self._fleet = fleet
        self._seen: tuple[int, int] = (-1, -1)
        self._layout: Layout | None = None
        self._classes = 0
        self._forgotten = 0
        self._having: dict[str | int, list[int]] = {}
        """Host classes by trait, and by aggregate id."""
        self._masks: dict[str | int, Mask] = {}

    def layout(self) -> Layout:
        """The current layout of trees. O(1) while no provider is added, removed, moved, or changes its traits or
        aggregates, else O(rows log rows)."""
        fleet = self._fleet
        seen = (fleet._change_log.topology_epoch, fleet.rows)
        if self._layout is None or seen != self._seen:
            self._layout, self._seen = self._laid_out(), seen
        return self._layout

    def having(self, what: str | int) -> Mask:
        """Host classes with a trait (by name) or in an aggregate (by id): bool[host classes]. O(1) while no class is
        added."""
        self._catch_up()
        mask = self._masks.get(what)
        if mask is None or len(mask) != self._classes:
            mask = np.zeros(self._classes, bool)
            mask[self._having.get(what, [])] = True
            if len(self._masks) >= MOST_MASKS:
                self._masks.clear()
            self._masks[what] = mask
        return mask

    def having_any(self, several: Iterable[str | int]) -> Mask:
        """Host classes that have at least one of several traits or aggregates."""
        masks = [self.having(what) for what in several]
        self._catch_up()
        result: Mask = np.logical_or.reduce(masks) if masks else np.zeros(self._classes, bool)
        return result

    def _catch_up(self) -> None:
        change_log = self._fleet._change_log
        if self._forgotten != change_log.forgotten_classes:
            self._classes, self._forgotten = 0, change_log.forgotten_classes
            self._having, self._masks = {}, {}
        for number in range(self._classes, len(change_log.classes)):
            value = change_log.classes[number]
            for trait in value.traits:
                self._having.setdefault(trait, []).append(number)
            for aggregate in value.aggregates:
                self._having.setdefault(aggregate, []).append(number)
        self._classes = len(change_log.classes)

    def _laid_out(self) -> Layout:
        fleet = self._fleet
        count, columns = fleet.rows, fleet._store.row
        rows = np.arange(count, dtype=np.int32)
        if len(fleet) < count:
            live = np.ones(count, bool)
            live[fleet._names.to_arrays()["free"]] = False
            rows = rows[live]
        roots = columns["root"][rows]
        if not np.array_equal(roots, rows):
            order = np.lexsort((rows, rows != roots, roots))
            rows, roots = rows[order], roots[order]
        is_first = rows == roots
        starts = np.append(np.flatnonzero(is_first), len(rows)).astype(np.int64)
        tree_of = np.full(count, -1, np.int32)
        tree_of[rows] = np.cumsum(is_first) - 1
        plain = len(rows) == count and len(starts) == count + 1
        return Layout(rows, starts, plain, tree_of, *self._served(rows, tree_of))

    def _served(self, rows: NDArray[np.int32], tree_of: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[Any]]:
        fleet = self._fleet
        class_of = fleet._store.row["class_of"][rows]
        pairs: list[tuple[int, int]] = []
        for row in rows[fleet._change_log.is_sharing()[class_of]].tolist():
            members = rows[self.having_any(fleet._host_class(row).aggregates)[class_of]]
            trees = np.unique(tree_of[members])
            pairs += [(tree, row) for tree in trees[trees != tree_of[row]].tolist()]
        pairs.sort()
        array = np.array(pairs, np.int64).reshape(len(pairs), 2)
        return array[:, 0], array[:, 1].astype(np.int32)
