"""The obvious twin of _packing.pyx: items of several sizes, whole numbers, packed into equal bins."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_WORD: Final = (1 << 64) - 1
_MOST: Final = 1 << 31


def _check(sizes: Int64, capacity: Int64) -> None:
    if sizes.shape[1] != len(capacity) or len(capacity) == 0:
        raise ValueError("sizes and capacity differ in length")
    if len(sizes) and ((sizes > capacity) | (sizes < -_MOST) | (capacity > _MOST) | (capacity < 0)).any():
        raise ValueError("an item is larger than a bin")


def first_fit(sizes: Int64, capacity: Int64, order: Int32) -> Int32:
    """Each item, in ``order``, into the first bin that has room. Returns the bin of each item."""
    _check(sizes, capacity)
    if sorted(order.tolist()) != list(range(len(sizes))):
        raise ValueError("an order names each item once")
    bins, loads = np.full(len(sizes), -1, np.int32), list[Int64]()
    for item in order.tolist():
        b = next((b for b, load in enumerate(loads) if np.all(load + sizes[item] <= capacity)), len(loads))
        if b == len(loads):
            loads.append(np.zeros_like(capacity))
        loads[b] += sizes[item]
        bins[item] = b
    return bins


def bin_centric(sizes: Int64, capacity: Int64, weights: Floats, by_norm: bool, bonus: Floats) -> Int32:
    """Bin by bin, the item that suits the open bin's remaining room best."""
    _check(sizes, capacity)
    if len(weights) != len(capacity) or len(bonus) != len(sizes):
        raise ValueError("weights differ in length")
    bins, load, b = np.full(len(sizes), -1, np.int32), [0] * len(capacity), 0
    items, limits = sizes.tolist(), capacity.tolist()
    while -1 in bins:
        best: tuple[float, int] | None = None
        for item in np.flatnonzero(bins < 0).tolist():
            if any(have + size > limit for have, size, limit in zip(load, items[item], limits, strict=True)):
                continue
            score = float(bonus[item])
            for weight, have, each, limit in zip(weights.tolist(), load, items[item], limits, strict=True):
                if limit == 0:
                    continue
                room, size = (limit - have) / limit, each / limit
                score = score - weight * (room - size) * (room - size) if by_norm else score + weight * room * size
            if best is None or score > best[0]:
                best = score, item
        if best is None:
            b, load = b + 1, [0] * len(capacity)
            continue
        bins[best[1]] = b
        load = [have + size for have, size in zip(load, items[best[1]], strict=True)]
    return bins


class _Chance:
    """xorshift64*."""

    def __init__(self, seed: int) -> None:
        self.state = (seed * 0x9E3779B97F4A7C15 + 0x1234567) & _WORD or 1

    def below(self, most: int) -> int:
        self.state ^= self.state >> 12
        self.state = (self.state ^ self.state << 25) & _WORD
        self.state ^= self.state >> 27
        return (self.state * 2685821657736338717 & _WORD) % most


class _Search:
    """The tabu search of ``empty_a_bin``."""

    def __init__(self, sizes: Int64, capacity: Int64, bin_of: Int32, bins: int, seed: int) -> None:
        self.sizes, self.capacity, self.bins, self.chance = sizes, capacity, bins, _Chance(seed)
        self.held: list[list[int]] = [[] for _ in range(bins)]
        self.load = np.zeros((bins, len(capacity)), np.int64)
        self.weight = [
            sum(int(size) * 65536 // int(limit) for size, limit in zip(item, capacity, strict=True) if limit)
            for item in sizes
        ]
        for item, b in enumerate(bin_of.tolist()):
            self._put(item, b)
        fill = [sum(self.weight[item] for item in held) for held in self.held]
        self.victim = fill.index(min(fill))
        self.out, self.held[self.victim] = self.held[self.victim], []
        self.tabu = [0] * len(sizes)

    def _put(self, item: int, b: int) -> None:
        self.held[b].append(item)
        self.load[b] += self.sizes[item]

    def _from_chance(self) -> list[int]:
        start = self.chance.below(self.bins)
        return [b for step in range(self.bins) if (b := (start + step) % self.bins) != self.victim]

    def fill_up(self) -> None:
        """Whatever fits somewhere goes in."""
        place = 0
        while place < len(self.out):
            item = self.out[place]
            fitting = [b for b in self._from_chance() if np.all(self.load[b] + self.sizes[item] <= self.capacity)]
            if fitting:
                self._put(item, fitting[0])
                last = self.out.pop()
                if place < len(self.out):
                    self.out[place] = last
            else:
                place += 1

    def _best_exchange(self, item: int, move: int) -> tuple[int, int, int] | None:
        """The bin, and the places of the one or two that go out of it."""
        best, best_gain = None, -(1 << 62)
        for b in self._from_chance():
            room, held = self.capacity - self.load[b] - self.sizes[item], self.held[b]
            for i, first in enumerate(held):
                if self.tabu[first] > move:
                    continue
                gain = self.weight[item] - self.weight[first]
                if gain > best_gain and np.all(room + self.sizes[first] >= 0):
                    best, best_gain = (b, i, -1), gain
                    continue
                for j in range(i):
                    gain = self.weight[item] - (self.weight[first] + self.weight[held[j]])
                    if gain <= best_gain or self.tabu[held[j]] > move:
                        continue
                    if np.all(room + self.sizes[first] + self.sizes[held[j]] >= 0):
                        best, best_gain = (b, i, j), gain
        return best

    def exchange(self, move: int) -> None:
        """One in, one or two out."""
        place = self.chance.below(len(self.out))
        item = self.out[place]
        best = self._best_exchange(item, move)
        if best is None:
            return
        b, i, j = best
        held = self.held[b]
        self.out[place] = held[i]
        self.out += [held[j]] if j >= 0 else []
        for gone in (i, j) if j >= 0 else (i,):
            self.load[b] -= self.sizes[held[gone]]
            last = held.pop()
            if gone < len(held):
                held[gone] = last
        self._put(item, b)
        self.tabu[item] = move + 2 + len(self.out) + self.chance.below(10)


def empty_a_bin(sizes: Int64, capacity: Int64, bin_of: Int32, bins: int, moves: int, seed: int) -> Int32 | None:
    """The items packed into one bin less than ``bins``, or None if that is not found in so many moves."""
    _check(sizes, capacity)
    if len(bin_of) != len(sizes):
        raise ValueError("bins and items differ in length")
    if any(not 0 <= b < bins for b in bin_of.tolist()):
        raise ValueError("no such bin")
    if bins <= 1 or len(sizes) == 0:
        return None
    search = _Search(sizes, capacity, bin_of, bins, seed)
    for move in range(moves):
        search.fill_up()
        if not search.out:
            break
        search.exchange(move)
    if search.out:
        return None
    packed = np.empty(len(sizes), np.int32)
    for b, held in enumerate(search.held):
        packed[held] = search.victim if b == bins - 1 else b
    return packed
