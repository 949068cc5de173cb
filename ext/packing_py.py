"""The pure-Python twin of _packing.pyx."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Sizes = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
BOUND = 1 << 40
WORD = (1 << 64) - 1


class Packing:
    """Bins as lists of items, the last that came first."""

    def __init__(self, sizes: Sizes, capacity: Sizes, bins: int) -> None:
        if sizes.ndim != 2 or sizes.shape[1] != len(capacity) or len(capacity) == 0:
            raise ValueError("items and capacity differ in dimensions")
        if np.any(sizes < -BOUND) or np.any(sizes > capacity) or np.any(capacity > BOUND):
            raise ValueError("a size is above the capacity, or too large")
        self.sizes: list[list[int]] = sizes.tolist()
        self.capacity: list[int] = capacity.tolist()
        self.free = [list(self.capacity) for _ in range(bins)]
        self.held: list[list[int]] = [[] for _ in range(bins)]
        self.bin_of = [-1] * len(self.sizes)

    def fits(self, item: int, bin: int, out: tuple[int, ...] = ()) -> bool:
        """Whether the item fits once those of ``out`` have left the bin."""
        room = [free + sum(self.sizes[each][d] for each in out) for d, free in enumerate(self.free[bin])]
        return all(size <= free for size, free in zip(self.sizes[item], room, strict=True))

    def can_leave(self, item: int) -> bool:
        """Whether what is left in the item's bin fits it: not so where the item's negative size made room."""
        free = self.free[self.bin_of[item]]
        return all(room + size >= 0 for room, size in zip(free, self.sizes[item], strict=True))

    def enter(self, item: int, bin: int) -> None:
        self.free[bin] = [free - size for free, size in zip(self.free[bin], self.sizes[item], strict=True)]
        self.held[bin].insert(0, item)
        self.bin_of[item] = bin

    def leave(self, item: int) -> None:
        bin = self.bin_of[item]
        self.free[bin] = [free + size for free, size in zip(self.free[bin], self.sizes[item], strict=True)]
        self.held[bin].remove(item)
        self.bin_of[item] = -1

    def load(self, bin: int, item: int, norm: int) -> float:
        """Size of what is free in a bin after the item came (-1: as it is), in parts of the capacity."""
        total = 0.0
        for d, capacity in enumerate(self.capacity):
            if capacity == 0:
                continue
            part = float(self.free[bin][d]) - (float(self.sizes[item][d]) if item >= 0 else 0.0)
            part /= capacity
            total = total + part if norm == 1 else total + part * part if norm == 2 else max(total, part)
        return total

    def answer(self) -> Numbers:
        return np.array(self.bin_of, np.int32)


def fit_in_turn(sizes: Sizes, capacity: Sizes, order: Numbers, norm: int) -> Numbers:
    """Items in ``order``, each into the first bin that it fits (norm 0), or into the one in which least is then free by
    the norm (1: sum, 2: sum of squares, 3: greatest; the first of equals); a new bin if it fits none."""
    _check_order(order, len(sizes))
    if not 0 <= norm <= 3:
        raise ValueError("norm must be within [0, 3]")
    packing, used = Packing(sizes, capacity, len(sizes)), 0
    for item in order.tolist():
        able = [bin for bin in range(used) if packing.fits(item, bin)]
        if able:
            loads = [0.0 if norm == 0 else packing.load(bin, item, norm) for bin in able]
            packing.enter(item, able[loads.index(min(loads))])
        else:
            packing.enter(item, used)
            used += 1
    return packing.answer()


def fill_in_turn(sizes: Sizes, capacity: Sizes, order: Numbers, rule: int) -> Numbers:
    """Bins one after the other, each filled with the item that suits it best while one fits: rule 1 takes the greatest
    dot product of what is free and what the item takes, rule 2 the least sum of squares of what is free then."""
    _check_order(order, len(sizes))
    if not 1 <= rule <= 2:
        raise ValueError("rule must be 1 or 2")
    packing, bin, left = Packing(sizes, capacity, len(sizes)), 0, order.tolist()
    while left:
        able = [item for item in left if packing.fits(item, bin)]
        if not able:
            bin += 1
            continue
        values = [-packing.load(bin, item, 2) if rule == 2 else _dot(packing, bin, item) for item in able]
        best = able[values.index(max(values))]
        packing.enter(best, bin)
        left.remove(best)
    return packing.answer()


def _dot(packing: Packing, bin: int, item: int) -> float:
    total = 0.0
    for d, capacity in enumerate(packing.capacity):
        if capacity:
            total += (packing.free[bin][d] / capacity) * (packing.sizes[item][d] / capacity)
    return total


def _check_order(order: Numbers, items: int) -> None:
    if sorted(order.tolist()) != list(range(items)):
        raise ValueError("order must name each item once")


@dataclass(slots=True)
class Chance:
    """xorshift64*."""

    state: int

    def below(self, count: int) -> int:
        x = self.state
        x ^= x >> 12
        x = (x ^ (x << 25)) & WORD
        x ^= x >> 27
        self.state = x
        return ((((x * 2685821657736338717) & WORD) >> 32) * count) >> 32


@dataclass(slots=True)
class Ejection:
    """The cheapest ejection known: which items of which bin; ``equals`` were offered at this cost."""

    cost: int = 1 << 62
    bin: int = -1
    out: tuple[int, ...] = field(default=())
    equals: int = 0

    def propose(self, chance: Chance, bin: int, out: tuple[int, ...], cost: int) -> None:
        self.equals = 1 if cost < self.cost else self.equals + 1
        if self.equals == 1 or chance.below(self.equals) == 0:
            self.bin, self.out, self.cost = bin, out, cost


def eliminate(
    sizes: Sizes, capacity: Sizes, bins: Numbers, count: int, steps: int, stirs: int, seed: int
) -> tuple[Numbers | None, int]:
    """Try to pack into ``count - 1`` bins what ``bins`` packs into ``count``; see the kernel."""
    if len(bins) != len(sizes) or count < 2 or stirs < 0:
        raise ValueError("a packing of at least two bins is wanted")
    if not 0 <= seed <= WORD:
        raise OverflowError("the seed is no 64-bit number")
    packing = Packing(sizes, capacity, count)
    if np.any(bins < 0) or np.any(bins >= count):
        raise ValueError("that is no packing")
    for item, bin in enumerate(bins.tolist()):
        packing.enter(item, bin)
    if any(free < 0 for row in packing.free for free in row):
        raise ValueError("that is no packing")
    chance = Chance(((seed * 0x9E3779B97F4A7C15 + 1) & WORD) or 1)
    waiting = _dissolve(packing)
    penalty, step = [0] * len(sizes), 0
    while waiting and step < steps:
        step += 1
        item = waiting.pop()
        able = [bin for bin in range(len(packing.free)) if packing.fits(item, bin)]
        if able:
            packing.enter(item, able[0])
            continue
        penalty[item] += 1
        found = _cheapest(packing, item, penalty, chance)
        out = found.out
        if found.bin < 0:
            found.bin = chance.below(len(packing.free))
            out = tuple(packing.held[found.bin])
        for each in out:
            packing.leave(each)
            waiting.append(each)
        packing.enter(item, found.bin)
        _stir(packing, stirs, chance)
    return (None if waiting else packing.answer()), step


def _dissolve(packing: Packing) -> list[int]:
    """Empty the bin in which most is free, and let the last bin take its number; returns the items."""
    loads = [packing.load(bin, -1, 1) for bin in range(len(packing.free))]
    victim, last = loads.index(max(loads)), len(loads) - 1
    waiting = list(packing.held[victim])
    for item in waiting:
        packing.leave(item)
    for item in list(packing.held[last]) if victim != last else ():
        packing.leave(item)
        packing.enter(item, victim)
    packing.free.pop()
    packing.held.pop()
    return waiting


def _cheapest(packing: Packing, item: int, penalty: list[int], chance: Chance) -> Ejection:
    """Which one or two items of which bin must go so that ``item`` fits, with the least penalties together."""
    best = Ejection()
    for bin, held in enumerate(packing.held):
        for out in held:
            if penalty[out] <= best.cost and packing.fits(item, bin, (out,)):
                best.propose(chance, bin, (out,), penalty[out])
    for bin, held in enumerate(packing.held):
        for position, out in enumerate(held):
            if penalty[out] >= best.cost:
                continue
            for other in held[position + 1 :]:
                cost = penalty[out] + penalty[other]
                if cost <= best.cost and packing.fits(item, bin, (out, other)):
                    best.propose(chance, bin, (out, other), cost)
    return best


def _stir(packing: Packing, times: int, chance: Chance) -> None:
    """Move single items, and swap pairs, of different bins at random, as far as they fit."""
    for _ in range(times):
        one, two = chance.below(len(packing.sizes)), chance.below(len(packing.sizes))
        home, bin = packing.bin_of[one], packing.bin_of[two]
        if home < 0 or bin < 0 or home == bin:
            continue
        if packing.fits(one, bin) and packing.can_leave(one):
            packing.leave(one)
            packing.enter(one, bin)
        elif packing.fits(two, home, (one,)) and packing.fits(one, bin, (two,)):
            packing.leave(one)
            packing.leave(two)
            packing.enter(one, bin)
            packing.enter(two, home)
