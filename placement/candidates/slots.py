"""An allocation candidate query made ready for search: slots, each to be filled by one provider, and which rows can.

The unsuffixed group has one slot for each resource class, since its classes may come from several providers; a suffixed
group has one slot for all of its own. Rules: Placement's GET /allocation_candidates at 1.39.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..fleet.fleet import Fleet
from ..fleet.provider_index import Mask
from ..request.placement_query import PlacementQuery, RequestGroup
from ..types.limits import MAX_AMOUNT


@dataclass(frozen=True, slots=True)
class Slot:
    """``amounts``: (resource class index, amount) that one provider gives; ``group``: index of the query's group."""

    group: int
    suffix: str
    amounts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a group demands of providers by their host class: bool[host classes], None where nothing is demanded.

    ``traits``: for suffixed groups all that is required, for the unsuffixed one only that nothing is forbidden.
    ``member``, ``outcast``: in the aggregates asked for, in a forbidden one. ``tree``: the only tree (-1: any).
    ``hopeless``: no provider can do. ``required``: host classes by each set of traits of which the unsuffixed group's
    providers together need one.
    """

    traits: Mask | None
    member: Mask | None
    outcast: Mask | None
    tree: int
    hopeless: bool
    required: tuple[Mask, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query on a fleet as it is. ``subtrees``: sets of slots that need a common ancestor among their providers.

    ``root``: host classes that a tree's root may have, None for any. ``hopeless``: it has no candidates.
    """

    slots: tuple[Slot, ...]
    wishes: tuple[Wish, ...]
    subtrees: tuple[frozenset[int], ...]
    isolate: bool
    root: Mask | None
    hopeless: bool


def prepare(fleet: Fleet, query: PlacementQuery, rank: Callable[[str], Any] | None = None) -> Prepared:
    """The query's slots in the order of its groups, classes of the unsuffixed group by ``rank`` (default: as they
    come). Names were checked. O(groups), and O(host classes) each for traits and aggregates."""
    slots: list[Slot] = []
    hopeless = False
    for number, group in enumerate(query.groups):
        named = group.resources if rank is None else sorted(group.resources, key=lambda pair: rank(pair[0]))
        found = [(fleet._inventories.index_of(name), amount) for name, amount in named]
        amounts = tuple((index, amount) for index, amount in found if index is not None)
        hopeless |= len(amounts) < len(found) or any(amount > MAX_AMOUNT for _, amount in amounts)
        if group.suffix:
            slots.append(Slot(number, group.suffix, amounts))
        else:
            slots += [Slot(number, "", (pair,)) for pair in amounts]
    place = {slot.suffix: index for index, slot in enumerate(slots) if slot.suffix}
    wishes = tuple(_resourceless(fleet, group) or wish_of(fleet, group) for group in query.groups)
    subtrees = tuple(frozenset(place[suffix] for suffix in suffixes) for suffixes in query.same_subtree)
    isolate = query.group_policy == "isolate"
    return Prepared(
        slots=tuple(slots),
        wishes=wishes,
        subtrees=subtrees,
        isolate=isolate,
        root=_traits_mask(fleet, query.root_required, (), query.root_forbidden),
        hopeless=hopeless or any(wish.hopeless for wish in wishes),
    )


def _resourceless(fleet: Fleet, group: RequestGroup) -> Wish | None:
    """The requirement of a suffixed group without resources, None for others. Placement finds its providers by required
    traits and aggregates; forbidden ones alone are not sufficient, and the tree is not searched."""
    if not group.suffix or group.resources:
        return None
    wish = wish_of(fleet, replace(group, in_tree=None))
    return wish if group.required or group.any_of or group.member_of else replace(wish, hopeless=True)


def wish_of(fleet: Fleet, group: RequestGroup) -> Wish:
    """What a group demands. O(host classes) for each trait and aggregate."""
    index, hopeless, tree, outcast = fleet._index, False, -1, None
    sets = (*(frozenset({trait}) for trait in sorted(group.required)), *group.any_of)
    if group.in_tree is not None:
        row = fleet._providers.uuids.get(group.in_tree)
        tree, hopeless = (int(index.layout().tree_of[row]), False) if row >= 0 else (-1, True)
    if group.forbidden_aggregates:
        outcast = index.having_any(_aggregate_ids(fleet, group.forbidden_aggregates))
    members = [index.having_any(_aggregate_ids(fleet, term)) for term in group.member_of]
    masks = tuple(index.having_any(sorted(choice)) for choice in sets)
    traits = _traits_mask(fleet, (), (), group.forbidden)
    if group.suffix and masks:
        traits = reduce(and_, masks, np.ones(1, bool) if traits is None else traits)
    return Wish(
        traits=traits,
        member=reduce(and_, members) if members else None,
        outcast=outcast,
        tree=tree,
        hopeless=hopeless,
        required=() if group.suffix else masks,
    )


def _aggregate_ids(fleet: Fleet, uuids: Iterable[str]) -> list[int]:
    """Ids of aggregates, without unknown ones."""
    ids = [fleet._aggregate_table.find(uuid) for uuid in uuids]
    return sorted(found for found in ids if found is not None)


def _traits_mask(
    fleet: Fleet, required: Iterable[str], any_of: Iterable[Iterable[str]], forbidden: Iterable[str]
) -> Mask | None:
    masks = [fleet._index.having(trait) for trait in sorted(required)]
    masks += [fleet._index.having_any(choice) for choice in any_of]
    masks += [~fleet._index.having(trait) for trait in sorted(forbidden)]
    return reduce(and_, masks) if masks else None


class Rows:
    """Rows of some trees, and which of them can fill which slot. All arrays are by position in ``rows``."""

    __slots__ = ("_fleet", "_root_at", "_trees", "_view", "class_of", "rows")

    def __init__(
        self,
        fleet: Fleet,
        rows: NDArray[np.int32],
        roots: NDArray[np.int32],
        trees: NDArray[np.int32],
        view: slice | None,
    ) -> None:
        """``roots``: the anchor's row of each row, or of all; ``trees``: the tree each row is in by itself.
        ``view``: the rows as a slice, if they are consecutive."""
        self._fleet, self.rows, self._trees = fleet, rows, trees
        self._view = rows if view is None else view
        class_of = fleet._store.row["class_of"]
        self.class_of = class_of[self._view]
        self._root_at = self.class_of if roots is rows else class_of[roots]

    def able(self, slot: Slot, wish: Wish, *, sharing: bool = False) -> Mask:
        """Rows that can fill a slot. ``sharing``: they are sharing providers that serve the anchor from outside."""
        able = self._capable(slot)
        collective = not slot.suffix
        if collective and sharing and wish.tree >= 0:
            return np.zeros(len(self.rows), bool)
        if wish.traits is not None:
            able &= wish.traits[self.class_of]
        if wish.member is not None:
            member = wish.member[self.class_of]
            able &= member | wish.member[self._root_at] if collective and not sharing else member
        if wish.outcast is not None:
            outcast = wish.outcast[self.class_of]
            able &= ~(outcast | wish.outcast[self._root_at] if collective else outcast)
        if wish.tree >= 0:
            able &= self._trees == wish.tree
        return able

    def _capable(self, slot: Slot) -> Mask:
        store, view = self._fleet._store, self._view
        able: Mask | None = None
        for index, amount in slot.amounts:
            enough = store.inventory["avail"][index, view] >= amount
            able = enough if able is None else able & enough
            if index in self._fleet._unit_rules:
                able &= store.inventory["min_unit"][index, view] <= amount
                able &= amount % np.maximum(store.inventory["step_size"][index, view], 1) == 0
        return np.ones(len(self.rows), bool) if able is None else able

    def allowed_roots(self, root: Mask) -> Mask:
        """Rows whose anchor has a host class that may be a root."""
        allowed: Mask = root[self._root_at]
        return allowed

    def avail(self, index: int) -> NDArray[np.int64]:
        """What one guest may take of a resource class at most."""
        avail: NDArray[np.int64] = self._fleet._store.inventory["avail"][index, self._view]
        return avail

    def left(self, index: int) -> NDArray[np.int64]:
        """What is left of a resource class."""
        blocks = self._fleet._store.inventory
        left: NDArray[np.int64] = blocks["limit"][index, self._view] - blocks["used"][index, self._view]
        return left
