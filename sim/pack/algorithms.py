"""The ways to pack, by the names they have in the literature, and the best of them followed by local search.

FF            first fit in the order given
FFD-M-Unit    first fit by decreasing measure M of size / capacity: L1 sum, L2 sum of squares, Linf greatest;
              in single precision and stably, as in the Vectorpack experiments
BFD-M-Unit    by decreasing measure into the fullest bin, by the same measure, that has room
DP, L2        bin by bin: the greatest dot product of the room left and the size, or the least distance of the two
best          items that fill bins exactly first; then the best of DP and L2 under several weights; then bins are
              emptied by tabu search until none can be

Source: Mommessin, Erlebach, Shakhlevich, Classification and evaluation of the algorithms for vector bin packing (2024);
the search is after Buljubašić and Vasquez, Consistent neighborhood search for bin packing (2016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext import packing
from ...placement.errors import UnknownName
from .bounds import lower_bound
from .instances import Instance, instance

Bins = NDArray[np.int32]
Order = NDArray[np.int32]

MOVES: Final = 20_000
"""Moves of the search for each bin that is to be emptied."""
TRIES: Final = 2
"""Searches, by other seeds, before a bin counts as one that cannot be emptied."""


def measure(given: Instance, kind: str) -> NDArray[np.float32]:
    """A size per item in single precision, added up in the order of the dimensions: L1, L2 or Linf."""
    scaled = given.sizes.astype(np.float32) / given.capacity.astype(np.float32)
    total = np.zeros(len(scaled), np.float32)
    for column in scaled.T:
        total = np.maximum(total, column) if kind == "Linf" else total + (column if kind == "L1" else column * column)
    return total


def _decreasing(given: Instance, order: Order, kind: str) -> Order:
    return order[np.argsort(-measure(given, kind)[order], kind="stable")].astype(np.int32)


def first_fit(given: Instance, order: Order) -> Bins:
    return packing.first_fit(given.sizes, given.capacity, order)


def first_fit_decreasing(kind: str) -> Callable[[Instance, Order], Bins]:
    return lambda given, order: first_fit(given, _decreasing(given, order, kind))


def best_fit_decreasing(kind: str) -> Callable[[Instance, Order], Bins]:
    """Each item into the bin with room that is fullest by the same measure; the first of equals."""

    def pack(given: Instance, order: Order) -> Bins:
        bins, loads = np.full(len(given.sizes), -1, np.int32), np.zeros_like(given.sizes)
        scale, used = np.maximum(given.capacity, 1), 0
        for item in _decreasing(given, order, kind).tolist():
            fitting = np.flatnonzero((loads[:used] + given.sizes[item] <= given.capacity).all(axis=1))
            parts = loads[fitting] / scale
            by_kind = {"L1": parts.sum(axis=1), "L2": (parts * parts).sum(axis=1)}
            fill = by_kind[kind] if kind in by_kind else parts.max(axis=1, initial=0.0)
            b = int(fitting[int(np.argmax(fill))]) if len(fitting) else used
            used = max(used, b + 1)
            loads[b] += given.sizes[item]
            bins[item] = b
        return bins

    return pack


def bin_centric(by_norm: bool) -> Callable[[Instance, Order], Bins]:
    def pack(given: Instance, order: Order) -> Bins:
        weights, bonus = np.ones(len(given.capacity)), np.zeros(len(given.sizes))
        ordered = packing.bin_centric(np.ascontiguousarray(given.sizes[order]), given.capacity, weights, by_norm, bonus)
        bins = np.empty(len(order), np.int32)
        bins[order] = ordered
        return bins

    return pack


def best(given: Instance, order: Order, *, moves: int = MOVES, tries: int = TRIES) -> Bins:
    """The best packing that we know to find. The same for the same input, whatever machine."""
    exact = perfect_groups(given)
    rest = np.flatnonzero(exact < 0)
    filled = int(exact.max(initial=-1)) + 1
    candidates = [_packed(given, order, moves, tries)]
    if filled:
        left = instance(given.name, given.sizes[rest], given.capacity.tolist())
        bins = exact.copy()
        if len(rest):
            bins[rest] = filled + _packed(left, np.arange(len(rest), dtype=np.int32), moves, tries)
        candidates.insert(0, bins)
    return min(candidates, key=count_bins)


def count_bins(bins: Bins) -> int:
    """How many bins a packing has."""
    return int(bins.max(initial=-1)) + 1


def _packed(given: Instance, order: Order, moves: int, tries: int) -> Bins:
    bins, bound = min(_started(given, order), key=count_bins), lower_bound(given)
    while (count := count_bins(bins)) > bound:
        fewer = (
            packing.empty_a_bin(given.sizes, given.capacity, bins, count, moves, seed) for seed in range(1, tries + 1)
        )
        found = next((packed for packed in fewer if packed is not None), None)
        if found is None:
            break
        bins = found
    return bins


def _started(given: Instance, order: Order) -> Iterator[Bins]:
    """Packings to start from: DP and L2 with all dimensions equal, weighed by demand, and with a liking for large
    items."""
    yield first_fit_decreasing("L1")(given, order)
    capacity = np.maximum(given.capacity, 1)
    demand = np.maximum(given.sizes.sum(axis=0) / capacity, 1e-9)
    demand = demand / demand.max(initial=1e-9)
    large = (given.sizes / capacity).sum(axis=1)
    for by_norm in (False, True):
        for weights in (np.ones(len(capacity)), demand, demand**3):
            for bonus in (0.0, 0.3):
                yield packing.bin_centric(given.sizes, given.capacity, weights, by_norm, bonus * large)


def perfect_groups(given: Instance) -> Bins:
    """Bins of three items that fill one exactly in every dimension, those first that an item has least choice of; -1
    for the other items. O(items²)."""
    sizes, n = given.sizes, len(given.sizes)
    bins = np.full(n, -1, np.int32)
    if n < 3 or n > 5_000:
        return bins
    rows: dict[bytes, list[int]] = {}
    for item, size in enumerate(sizes):
        rows.setdefault(size.tobytes(), []).append(item)
    triples: list[tuple[int, int, int]] = []
    of_item: list[list[int]] = [[] for _ in range(n)]
    total = sizes.sum(axis=1)
    for first in range(n - 2):
        left = given.capacity - sizes[first] - sizes[first + 1 :]
        # A third item must be as large as what is left: compare sums before vectors.
        for second in np.flatnonzero(np.isin(left.sum(axis=1), total)).tolist():
            for third in rows.get(left[second].tobytes(), ()):
                if third > first + 1 + second:
                    for item in (triple := (first, first + 1 + second, third)):
                        of_item[item].append(len(triples))
                    triples.append(triple)
    return _cover(bins, triples, of_item)


def _cover(bins: Bins, triples: list[tuple[int, int, int]], of_item: list[list[int]]) -> Bins:
    open_to = [len(each) for each in of_item]
    alive, free, opened = [True] * len(triples), set(np.flatnonzero(open_to).tolist()), 0
    while free:
        item = min(free, key=lambda each: (open_to[each], each))
        choices = [number for number in of_item[item] if alive[number]]
        if not choices:
            free.discard(item)
            continue
        chosen = min(choices, key=lambda number: (sum(open_to[each] for each in triples[number]), number))
        for member in triples[chosen]:
            bins[member] = opened
            free.discard(member)
            for number in of_item[member]:
                if alive[number]:
                    alive[number] = False
                    for other in triples[number]:
                        open_to[other] -= 1
        opened += 1
    return bins


ALGORITHMS: Final[Mapping[str, Callable[[Instance, Order], Bins]]] = {
    "FF": first_fit,
    **{f"FFD-{kind}-Unit": first_fit_decreasing(kind) for kind in ("L1", "L2", "Linf")},
    **{f"BFD-{kind}-Unit": best_fit_decreasing(kind) for kind in ("L1", "L2", "Linf")},
    "DP": bin_centric(by_norm=False),
    "L2": bin_centric(by_norm=True),
    "best": best,
}
"""Name -> how to pack items that come in an order."""


def pack(given: Instance, algorithm: str, order: Order | None = None) -> Bins:
    """The bin of each item. UnknownName for an algorithm that is none."""
    if algorithm not in ALGORITHMS:
        raise UnknownName.among("algorithm", algorithm, ALGORITHMS, field="algorithm")
    chosen = np.arange(len(given.sizes), dtype=np.int32) if order is None else order
    return ALGORITHMS[algorithm](given, chosen)
