"""Queries whose slots do not compete for a provider's amounts, but for those of equal request groups: counts tell
without a search whether a tree has a candidate. A guest with GPUs is such a query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...ext.provider_trees import TreeCounts
from ..fleet.fleet import Fleet
from ..fleet.provider_index import Mask
from .slots import Prepared, Wish


@dataclass(frozen=True, slots=True)
class Independent:
    """Of such a query. ``alone``: slots that no other limits; ``equal``: slots of suffixed groups that ask for the same
    ``amounts`` of the same providers; ``apart``: each of those from a provider of its own; ``required``: by host class,
    sets of traits of which the providers of the slots of the unsuffixed group, ``collective``, together need one
    each."""

    alone: tuple[int, ...]
    equal: tuple[int, ...]
    amounts: tuple[tuple[int, int], ...]
    apart: bool
    collective: tuple[int, ...]
    required: tuple[Mask, ...]

    def filled(
        self,
        able: Sequence[Mask],
        avail: Callable[[int], NDArray[np.int64]],
        class_of: NDArray[np.integer],
        starts: NDArray[np.int64],
    ) -> tuple[Mask, Mask]:
        """Which trees have a candidate, and of which this is not decided: bool[trees] each. ``able``: by slot, the rows
        that can fill it; ``avail``: by resource class, what a guest may take of each row; ``starts``: where the rows of
        each tree begin, which are consecutive. O(slots x rows)."""
        filled: Mask = np.ones(len(starts), bool)
        for at in self.alone:
            filled &= np.logical_or.reduceat(able[at], starts)
        if self.equal:
            takes: NDArray[np.int64] = able[self.equal[0]].astype(np.int64)
            if not self.apart:
                takes *= np.min([avail(index) // amount for index, amount in self.amounts], axis=0)
            filled &= np.add.reduceat(takes, starts) >= len(self.equal)
        unsure: Mask = np.zeros(len(starts), bool)
        if self.required:
            chosen = np.logical_or.reduce([able[at] for at in self.collective])
            for mask in self.required:
                filled &= np.logical_or.reduceat(chosen & mask[class_of], starts)
            for at in self.collective:
                unsure |= np.add.reduceat(able[at].astype(np.int64), starts) > 1
        return filled, unsure & filled


def independent(query: Prepared) -> Independent | None:
    """What makes a query such a query; None if it is none. O(slots)."""
    slots, wishes = query.slots, query.wishes
    collective = tuple(at for at, slot in enumerate(slots) if not slot.suffix)
    suffixed = tuple(at for at, slot in enumerate(slots) if slot.suffix)
    if query.subtrees or not slots or not all(slot.amounts for slot in slots):
        return None
    equal = suffixed if len(suffixed) > 1 else ()
    if equal:
        first = slots[equal[0]]
        if any(slots[at].amounts != first.amounts for at in equal):
            return None
        if not all(_same(wishes[slots[at].group], wishes[first.group]) for at in equal):
            return None
    shared = {index for at in suffixed for index, _ in slots[at].amounts}
    if any(index in shared for at in collective for index, _ in slots[at].amounts):
        return None
    return Independent(
        alone=collective if equal else (*collective, *suffixed),
        equal=equal,
        amounts=slots[equal[0]].amounts if equal else (),
        apart=query.isolate,
        collective=collective,
        required=tuple(mask for at in collective[:1] for mask in wishes[slots[at].group].required),
    )


def counts_of(fleet: Fleet, query: Prepared, counted: Independent) -> tuple[TreeCounts, tuple[int, ...]] | None:
    """The kernel that answers such a query on the fleet as it is, and the place of each slot of the query in its
    answers; None if it has no candidates, or names the trees that it is for. O(trees + sharing providers)."""
    if query.hopeless or any(wish.tree >= 0 for wish in query.wishes):
        return None
    layout, groups = fleet._index.layout(), [(at, 1) for at in counted.alone]
    if counted.equal:
        groups.append((counted.equal[0], len(counted.equal)))
    slots = []
    for at, count in groups:
        slot, wish = query.slots[at], query.wishes[query.slots[at].group]
        needs = [(index, amount, index in fleet._unit_rules) for index, amount in slot.amounts]
        traits, member, outcast = map(_bytes, (wish.traits, wish.member, wish.outcast))
        apart = counted.apart and count > 1
        slots.append((needs, traits, member, outcast, wish.tree, not slot.suffix, apart, count))
    unsure = None
    if len(layout.server):
        unsure = np.zeros(layout.trees, np.uint8)
        unsure[layout.served_tree] = 1
    counts = TreeCounts(
        fleet._kernel,
        fleet._store.row["root"],
        layout.tree_of,
        layout.rows,
        layout.starts,
        unsure,
        slots,
        _bytes(query.root),
        [mask.astype(np.uint8) for mask in counted.required],
    )
    order = (*counted.alone, *counted.equal)
    return counts, tuple(order.index(at) for at in range(len(query.slots)))


def _bytes(mask: Mask | None) -> NDArray[np.uint8] | None:
    return None if mask is None else mask.astype(np.uint8)


def _same(one: Wish, other: Wish) -> bool:
    """Whether two groups demand the same of a provider."""
    pairs = ((one.traits, other.traits), (one.member, other.member), (one.outcast, other.outcast))
    if one.tree != other.tree or one.hopeless or other.hopeless:
        return False
    return all(a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs)
