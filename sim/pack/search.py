"""The best packing that is found: the best heuristic's, from which bins are eliminated one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ...ext.packing import eliminate
from ...placement.types.errors import UnknownName
from .bounds import lower_bound
from .heuristics import HEURISTICS, Bins, Order
from .instance import Instance
from .perfect import perfect_triples

BEST: Final = "best"
STEPS: Final = 20_000
"""Insertions after which the search for a packing with one bin less is given up, at effort 1."""
STIRS: Final = 100
"""Random moves and swaps after each ejection."""
SLOW_FROM: Final = 20_000
"""Items from which heuristics that look at all items for each one are left out."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A packing: ``bins`` of each item, how many are used, and the bound below which no packing is."""

    instance: Instance
    algorithm: str
    bins: Bins
    count: int
    lower_bound: int

    @property
    def optimal(self) -> bool:
        """True if the lower bound proves that fewer bins are not possible."""
        return self.count <= self.lower_bound


def pack(
    instance: Instance,
    algorithm: str = BEST,
    *,
    order: Order | None = None,
    seed: int = 1,
    effort: int = 1,
    go_on: Callable[[int], bool] = lambda _: True,
) -> Packed:
    """Pack all items. ``algorithm``: a name of HEURISTICS, or ``best``, which starts from the best of them (also with
    triples of items that fill a bin exactly put aside) and tries to empty bins by guided ejection search, ``effort``
    times 20,000 insertions for each. ``go_on`` is called with the number of bins before each is tried; the search ends
    with what it has once that is False. Deterministic given ``seed``, if it is not ended. UnknownName for another
    algorithm.
    """
    if algorithm != BEST and algorithm not in HEURISTICS:
        raise UnknownName.among("packing algorithm", algorithm, (*HEURISTICS, BEST), field="algorithm")
    given = np.arange(len(instance), dtype=np.int32) if order is None else order
    bound = lower_bound(instance)
    if algorithm != BEST:
        bins = HEURISTICS[algorithm](instance, given)
        return Packed(instance, algorithm, bins, _count(bins), bound)
    bins = min(_started(instance, given), key=_count)
    while _count(bins) > max(bound, 1) and go_on(_count(bins)):
        fewer, _ = eliminate(
            instance.sizes, instance.capacity, bins, _count(bins), effort * STEPS, STIRS, seed + _count(bins)
        )
        if fewer is None:
            break
        bins = fewer
    return Packed(instance, BEST, bins, _count(bins), bound)


def _started(instance: Instance, order: Order) -> Iterator[Bins]:
    """Packings to start from: those of all heuristics, alone and beside the triples that fill a bin exactly."""
    slow = len(instance) >= SLOW_FROM
    rules = [rule for name, rule in HEURISTICS.items() if not (slow and name.startswith("BC-"))]
    for rule in rules:
        yield rule(instance, order)
    perfect = perfect_triples(instance)
    filled, rest = _count(perfect), order[perfect[order] < 0]
    if filled:
        left = replace(instance, sizes=np.ascontiguousarray(instance.sizes[rest]), labels=())
        for rule in rules:
            bins = perfect.copy()
            bins[rest] = filled + rule(left, np.arange(len(rest), dtype=np.int32))
            yield bins


def _count(bins: Bins) -> int:
    return int(bins.max(initial=-1)) + 1
