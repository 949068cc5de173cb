"""Allocation candidates over the whole fleet, generated lazily in a fixed order.

Order: trees that are preferred, then the others by the rows of their roots, which is the order of loading; within a
tree as tree_candidates.py says, slots in the order of the query's groups. Trees are looked at in blocks, each four
times the last, vectorised over the columns; only in trees that may have a candidate are single providers looked at. So
a limit of N costs N, and a first block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..fleet.fleet import Fleet
from ..fleet.provider_index import Layout, Mask
from .independent import Independent
from .slots import Prepared, Rows
from .tree_search import Effort, TreeSearch, Way

FIRST_BLOCK = 64
"""Trees in the first block, if the limit is not higher."""


@dataclass(frozen=True, slots=True)
class Found:
    """A tree that has candidates, or may have. ``alone``: it is one provider that fills all slots; else ``options``:
    by slot, the rows that can fill it."""

    tree: int
    alone: int
    options: tuple[list[int], ...] = ()


class CandidateSearch:
    """One search of one fleet as it is."""

    def __init__(
        self,
        fleet: Fleet,
        query: Prepared,
        *,
        nested: bool = True,
        preferred: Sequence[int] = (),
        effort: Effort | None = None,
        tree_steps: int | None = None,
        independent: Independent | None = None,
    ) -> None:
        """``nested`` False: no candidate with two providers of one tree. ``preferred``: trees to look at before all
        others, in this order. ``effort``: what it may cost; the ways end when it is spent. ``tree_steps``: what each
        tree may cost by itself, instead, so that what is found in one does not depend on the others.
        ``independent``: what the query is as such a one, if it is one and ``having`` is asked."""
        self._effort, self._tree_steps = effort or Effort(), tree_steps
        self._independent = independent
        self._preferred = list(dict.fromkeys(preferred))
        self._fleet, self._query, self._nested = fleet, query, nested
        self._layout = fleet._index.layout()
        self._suffixed = [at for at, slot in enumerate(query.slots) if slot.suffix]
        self._sums = _sums(query)

    def ways(self, *, breadth_first: bool = False, expected: int | None = None) -> Iterator[Way]:
        """The row of each slot, candidate after candidate; no two the same. ``expected``: how many may be taken.

        ``breadth_first``: the first candidate of each tree, then the second of each, and so on.
        """
        sharing = frozenset(self._fleet.sharing_providers())
        seen: set[Way] = set()
        for way in self._round_robin(expected) if breadth_first else self._in_turn(expected):
            if sharing and sharing.issuperset(way):
                # Sharing providers that give everything do so for each tree they serve: it is one candidate.
                if way in seen:
                    continue
                seen.add(way)
            yield way

    def within(self, tree: int) -> Iterator[Way]:
        """The candidates of one tree. O(its providers), and each candidate a few steps."""
        found = self._single(tree)
        return iter(()) if found is None else self._of(found)

    def _single(self, tree: int) -> Found | None:
        """One tree, looked at by itself; None if it has no candidate."""
        query, layout = self._query, self._layout
        members = layout.rows[layout.starts[tree] : layout.starts[tree + 1]]
        columns, root = self._fleet._store.row, members[:1]
        if query.hopeless or not query.slots or not (query.root is None or query.root[columns["class_of"][root[0]]]):
            return None
        own = Rows(self._fleet, members, root, layout.tree_of[members], None)
        options = [members[own.able(slot, query.wishes[slot.group])].tolist() for slot in query.slots]
        servers = layout.server[slice(*np.searchsorted(layout.served_tree, (tree, tree + 1)))]
        if len(servers):
            serving = Rows(self._fleet, servers, root, layout.tree_of[servers], None)
            for slot, rows in zip(query.slots, options, strict=True):
                rows += servers[serving.able(slot, query.wishes[slot.group], sharing=True)].tolist()
        return Found(tree, -1, tuple(options)) if all(options) else None

    def having(self, trees: NDArray[np.int64]) -> Mask:
        """Which of some trees, in order and each named once, have a candidate. O(their providers), vectorised; only
        those of which counts do not decide it are searched."""
        if self._query.hopeless or not self._query.slots or not len(trees):
            return np.zeros(len(trees), bool)
        wanted = self._only_trees()
        block = _Block(self, trees, counted=self._independent is not None)
        having, unsure = block.filled()
        if wanted is not None:
            allowed = np.isin(trees, wanted)
            having, unsure = having & allowed, unsure & allowed
        for found in block.found(unsure) if unsure.any() else ():
            at = int(np.searchsorted(trees, found.tree))
            having[at] = next(self._of(found), None) is not None
        return having

    def trees(self, expected: int | None) -> Iterator[Found]:
        """Trees that may have candidates, in order. O(trees looked at), vectorised."""
        if self._query.hopeless or not self._query.slots:
            return
        wanted, preferred = self._only_trees(), self._preferred
        if wanted is not None:
            preferred = [tree for tree in preferred if tree in wanted] + wanted
        for tree in dict.fromkeys(preferred):
            found = self._single(tree)
            if found is not None:
                yield found
        first = 0 if wanted is None else self._layout.trees
        size, done = self._layout.trees if expected is None else max(expected, FIRST_BLOCK), frozenset(preferred)
        while first < self._layout.trees:
            for found in _Block(self, np.arange(first, min(first + size, self._layout.trees))).found():
                if found.tree not in done:
                    yield found
            first, size = first + size, 4 * size

    def _only_trees(self) -> list[int] | None:
        """The trees that in_tree leaves, None for all."""
        layout = self._layout
        left: set[int] | None = None
        for number, wish in enumerate(self._query.wishes):
            if wish.tree < 0:
                continue
            mine = {wish.tree}
            if any(slot.group == number and slot.suffix for slot in self._query.slots) and len(layout.server):
                served = layout.tree_of[layout.server] == wish.tree
                mine |= set(layout.served_tree[served].tolist())
            left = mine if left is None else left & mine
        return None if left is None else sorted(left)

    def _in_turn(self, expected: int | None) -> Iterator[Way]:
        for found in self.trees(expected):
            yield from self._of(found)

    def _round_robin(self, expected: int | None) -> Iterator[Way]:
        waiting: list[Iterator[Way]] = []
        for found in self.trees(expected):
            ways = self._of(found)
            way = next(ways, None)
            if way is not None:
                waiting.append(ways)
                yield way
        while waiting:
            still = []
            for ways in waiting:
                way = next(ways, None)
                if way is not None:
                    still.append(ways)
                    yield way
            waiting = still

    def _of(self, found: Found) -> Iterator[Way]:
        if found.alone >= 0:
            yield (found.alone,) * len(self._query.slots)
        else:
            effort = self._effort if self._tree_steps is None else Effort(self._tree_steps)
            search = TreeSearch(self._fleet, self._query, found.options, nested=self._nested, effort=effort)
            yield from search.ways()


def _sums(query: Prepared) -> dict[int, tuple[int, int, tuple[int, ...]]]:
    """By resource class that several slots ask for: the sum, the least amount, and the slots."""
    by_class: dict[int, list[tuple[int, int]]] = {}
    for at, slot in enumerate(query.slots):
        for index, amount in slot.amounts:
            by_class.setdefault(index, []).append((at, amount))
    return {
        index: (sum(amount for _, amount in asked), min(amount for _, amount in asked), tuple(at for at, _ in asked))
        for index, asked in by_class.items()
        if len(asked) > 1
    }


class _Block:
    """Some trees, in order, judged all at once. ``counted``: ``filled`` is asked, which counts itself."""

    def __init__(self, search: CandidateSearch, trees: NDArray[np.int64], *, counted: bool = False) -> None:
        self._search, self._trees, self._counted = search, trees, counted
        fleet, layout = search._fleet, search._layout
        firsts = layout.starts[trees]
        self._lengths = layout.starts[trees + 1] - firsts
        ends = np.cumsum(self._lengths)
        self._starts: NDArray[np.int64] = ends - self._lengths
        count, low, high = int(ends[-1]), int(firsts[0]), int(firsts[-1] + self._lengths[-1])
        self._flat = count == len(trees)
        together = slice(low, high) if count == high - low else None
        rows = layout.rows[
            np.repeat(firsts - self._starts, self._lengths) + np.arange(count) if together is None else together
        ]
        roots = rows if self._flat else np.repeat(rows[self._starts], self._lengths)
        self._rows = Rows(fleet, rows, roots, layout.tree_of[rows], together if layout.plain else None)
        self._able = self._each_able(self._rows)
        self._served, self._serving = self._servers(layout)
        self._ok = self._judged()

    def _each_able(self, rows: Rows, *, sharing: bool = False) -> list[Mask]:
        """By slot, the rows that can fill it; looked at once for slots that are equal."""
        query = self._search._query
        independent = self._search._independent
        equal = independent.equal if independent is not None else ()
        able: list[Mask] = []
        for at, slot in enumerate(query.slots):
            known = equal and at in equal[1:]
            able.append(able[equal[0]] if known else rows.able(slot, query.wishes[slot.group], sharing=sharing))
        return able

    def filled(self) -> tuple[Mask, Mask]:
        """Trees that have a candidate for certain, and those that are to be searched for one."""
        independent, certain = self._search._independent, self._ok & self._alone
        left = self._ok & ~certain
        if independent is None or not left.any():
            return certain, left
        filled, unsure = independent.filled(self._able, self._rows.avail, self._rows.class_of, self._starts)
        if self._served is not None:
            unsure = unsure.copy()
            unsure[self._served] = True
        return certain | left & filled & ~unsure, left & unsure

    def found(self, which: Mask | None = None) -> Iterator[Found]:
        """The trees that may have candidates; those of ``which``."""
        trees = np.flatnonzero(self._ok if which is None else which)
        if len(trees) == 0:
            return
        rows, alone = self._rows.rows, self._alone
        if alone.all():
            for tree, row in zip(trees.tolist(), rows[self._starts[trees]].tolist(), strict=True):
                yield Found(int(self._trees[tree]), row)
            return
        options = [self._options(able) for able in self._able]
        for tree in trees.tolist():
            if alone[tree]:
                yield Found(int(self._trees[tree]), int(rows[self._starts[tree]]))
                continue
            own = (found[bounds[tree] : bounds[tree + 1]] for found, bounds in options)
            if self._served is None:
                yield Found(int(self._trees[tree]), -1, tuple(own))
                continue
            first, last = np.searchsorted(self._served, (tree, tree + 1)).tolist()
            serving = self._serving
            assert serving is not None
            more = (serving.rows[first:last][able[first:last]].tolist() for able in self._able_serving)
            yield Found(
                int(self._trees[tree]), -1, tuple(mine + theirs for mine, theirs in zip(own, more, strict=True))
            )

    def _options(self, able: Mask) -> tuple[list[int], list[int]]:
        """Rows that can fill a slot, and where those of each tree begin."""
        places = np.flatnonzero(able)
        bounds = np.searchsorted(places, np.append(self._starts, len(able)))
        return self._rows.rows[places].tolist(), bounds.tolist()

    def _servers(self, layout: Layout) -> tuple[NDArray[np.int64] | None, Rows | None]:
        """Sharing providers outside the trees that serve them: the tree each serves (within the block), and the
        rows."""
        if len(layout.server) == 0:
            return None, None
        pairs = np.flatnonzero(np.isin(layout.served_tree, self._trees))
        if not len(pairs):
            return None, None
        served, rows = layout.served_tree[pairs], layout.server[pairs]
        roots = layout.rows[layout.starts[served]]
        serving = Rows(self._search._fleet, rows, roots, layout.tree_of[rows], None)
        self._able_serving = self._each_able(serving, sharing=True)
        return np.searchsorted(self._trees, served), serving

    def _judged(self) -> Mask:
        query, count = self._search._query, len(self._starts)
        ok: Mask = np.ones(count, bool)
        if query.root is not None:
            ok &= self._rows.allowed_roots(query.root)[self._starts]
        self._alone = self._lengths == 1
        if self._served is not None:
            self._alone[self._served] = False
        for at, able in enumerate(self._able):
            if not any(able is other for other in self._able[:at]):
                ok &= self._in_tree(able, None if self._served is None else self._able_serving[at])
        if self._alone.any():
            ok &= ~self._alone | self._fills_alone()
        if not (self._counted or self._alone.all()):
            ok &= self._alone | self._enough_together()
        return ok

    def _in_tree(self, able: Mask, serving: Mask | None) -> Mask:
        """Trees in which, or for which, some row is able."""
        here: Mask = able if self._flat else np.logical_or.reduceat(able, self._starts)
        if serving is not None and self._served is not None:
            here = here | (np.bincount(self._served[serving], minlength=len(self._starts)) > 0)
        return here

    def _fills_alone(self) -> Mask:
        """Trees whose root can give the sum of all slots, as far as that is more than each of them says."""
        search, rows = self._search, self._rows
        fits: Mask = np.ones(len(self._starts), bool)
        if search._query.isolate and len(search._suffixed) > 1:
            return ~fits
        at = rows.rows[self._starts]
        avail = search._fleet._store.inventory["avail"]
        for index, (total, _, _) in search._sums.items():
            fits &= avail[index, at] >= total
        for wish in search._query.wishes:
            for mask in wish.required:
                fits &= mask[search._fleet._store.row["class_of"][at]]
        return fits

    def _enough_together(self) -> Mask:
        """Trees whose providers together have enough: a bound that spares hopeless searches. Those that sharing
        providers serve pass."""
        search = self._search
        enough: Mask = np.ones(len(self._starts), bool)
        for index, (total, least, slots) in search._sums.items():
            able = np.logical_or.reduce([self._able[at] for at in slots])
            left = np.where(able, np.maximum(self._rows.left(index), 0), 0)
            enough &= np.add.reduceat(left, self._starts) >= total
            enough &= np.add.reduceat(left // least, self._starts) >= len(slots)
        if search._query.isolate and len(search._suffixed) > 1:
            able = np.logical_or.reduce([self._able[at] for at in search._suffixed])
            enough &= np.add.reduceat(able.astype(np.int64), self._starts) >= len(search._suffixed)
        if self._served is not None:
            enough[self._served] = True
        return enough
