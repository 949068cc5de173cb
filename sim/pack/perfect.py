"""Triples of items that fill a bin exactly in every dimension: where a set is made of such, they are the answer."""

from __future__ import annotations

from typing import Final

import numpy as np

from .heuristics import Bins
from .instance import Instance

MOST_ITEMS: Final = 5_000


def perfect_triples(instance: Instance) -> Bins:
    """Disjoint triples that fill a bin each, chosen greedily: next the item with the least choice, in the triple that
    takes least choice from others. The bin of each item, -1 for the others; none above 5,000 items. O(items² +
    triples²)."""
    bins = np.full(len(instance), -1, np.int32)
    if 3 <= len(instance) <= MOST_ITEMS:
        _choose(bins, _triples(instance))
    return bins


def _triples(instance: Instance) -> list[tuple[int, int, int]]:
    sizes, count = instance.sizes, len(instance)
    by_size: dict[bytes, list[int]] = {}
    for item, size in enumerate(sizes):
        by_size.setdefault(size.tobytes(), []).append(item)
    found: list[tuple[int, int, int]] = []
    totals = sizes.sum(axis=1)
    for first in range(count - 2):
        left = instance.capacity - sizes[first] - sizes[first + 1 :]
        # The third item's sum is compared before all its sizes.
        for place in np.flatnonzero(np.isin(left.sum(axis=1), totals)).tolist():
            second = first + 1 + place
            found += [(first, second, third) for third in by_size.get(left[place].tobytes(), ()) if third > second]
    return found


def _choose(bins: Bins, triples: list[tuple[int, int, int]]) -> None:
    """Give the items of disjoint triples their bins."""
    of_item: list[list[int]] = [[] for _ in bins]
    for number, triple in enumerate(triples):
        for item in triple:
            of_item[item].append(number)
    choice, alive = [len(each) for each in of_item], [True] * len(triples)
    waiting, opened = {item for item, each in enumerate(of_item) if each}, 0
    while waiting:
        item = min(waiting, key=lambda each: (choice[each], each))
        left = [number for number in of_item[item] if alive[number]]
        if not left:
            waiting.discard(item)
            continue
        chosen = min(left, key=lambda number: (sum(choice[each] for each in triples[number]), number))
        for member in triples[chosen]:
            bins[member] = opened
            waiting.discard(member)
            for number in of_item[member]:
                if alive[number]:
                    alive[number] = False
                    for other in triples[number]:
                        choice[other] -= 1
        opened += 1
