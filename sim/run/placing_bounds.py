"""Whether guests find hosts in whatever way they are placed, the largest first: told by how much must be given on every
host that has room for a guest before none of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]
SURE = 1.0 + 1e-9
"""What the shares of all hosts must add up to, above the rounding of their sum."""
TRIES: Final = 16
STRIDE: Final = 0.25
"""How many weights are tried, and how far the next are from the last."""


class Asked:
    """What guests ask for, by shape. ``amounts``: [shapes, resources and then GPUs]; ``milli``: of each GPU; ``zones``:
    number of the zone that a shape is bound to, 0 for none. Those with most thousandths of GPUs, vCPUs and memory are
    placed first, equal ones in any order."""

    def __init__(self, amounts: Whole, milli: Whole, zones: Whole) -> None:
        self.amounts, self.milli, self.zones = amounts, milli, zones
        keys = np.stack([-amounts[:, 1], -amounts[:, 0], -amounts[:, -1] * milli]) if len(amounts) else amounts.T
        order = np.lexsort(keys) if len(amounts) else np.zeros(0, np.int64)
        changes = np.any(np.diff(keys[:, order], axis=1) != 0, axis=0) if len(order) > 1 else np.zeros(0, bool)
        self.turn: Whole = np.zeros(len(amounts), np.int64)
        """When each shape's turn comes."""
        self.turn[order] = np.concatenate([[0], np.cumsum(changes)]) if len(order) else 0


class Room:
    """What hosts have room for. ``left``: [resources, hosts]; ``most``: what one guest may take of it; ``gpus``:
    [hosts, GPUs] the thousandths that are left of each, 0 where there are fewer."""

    def __init__(self, left: Whole, most: Whole, gpus: Whole) -> None:
        self.left, self.most, self.gpus = left, most, gpus
        self._idle: dict[int, Whole] = {}
        self._spare: dict[tuple[int, int], Whole] = {}

    def idle(self, milli: int) -> Whole:
        """How many GPUs of each host have so much left."""
        known = self._idle.get(milli)
        if known is None:
            known = self._idle[milli] = np.count_nonzero(self.gpus >= milli, axis=1)
        return known

    def spare(self, milli: int, count: int) -> Whole:
        """How many thousandths must be given of each host's GPUs before fewer than ``count`` have ``milli`` left; 0
        where fewer have."""
        known = self._spare.get((milli, count))
        if known is None:
            enough = self.gpus >= milli
            least = np.sort(np.where(enough, self.gpus - milli + 1, np.iinfo(np.int32).max), axis=1).cumsum(axis=1)
            last = np.maximum(self.idle(milli) - count, 0)[:, None]
            found = np.take_along_axis(least, last, axis=1)[:, 0] if least.shape[1] else np.zeros(len(least), np.int64)
            known = self._spare[milli, count] = np.where(self.idle(milli) >= count, found, 0)
        return known


def all_placed(asked: Asked, counts: Mapping[int, int], room: Room, there: Sequence[Mask] | Mask) -> bool:
    """True if so many guests of each shape (``counts``) all find a host, of those that may take the guests of each zone
    (``there``).

    A guest finds none only if on each host that had room something has been given to those before it: of some resource
    as much as makes the rest too little, or of as many GPUs as leaves too few. Let T be what those before it ask for of
    each resource, and a weight for each add up to 1; then the least weighted shares of T that make each host too full
    add up to 1 at most. O(shapes squared, and shapes x hosts).
    """
    shapes = np.array(sorted(counts), np.int64)
    number = np.array([counts[shape] for shape in shapes.tolist()], np.int64)
    turns, zones, amounts, milli = (each[shapes] for each in (asked.turn, asked.zones, asked.amounts, asked.milli))
    for at, own in enumerate(amounts):
        before = (turns <= turns[at]) & ((zones == zones[at]) | (zones == 0) | (zones[at] == 0))
        taken = number * before
        taken[at] -= 1
        given, share, count = taken @ amounts, int(milli[at]), int(own[-1])
        fits = there[zones[at]] & (room.most >= own[:-1, None]).all(axis=0)
        if count:
            fits &= room.idle(share) >= count
        where = np.flatnonzero(fits)
        if not len(where):
            return False
        rooms = [
            (left[where] - asks + 1, n) for left, asks, n in zip(room.left, own, given, strict=False) if asks and n
        ]
        others = [rooms]
        if count and given[-1]:
            touched, milli_given = room.idle(share)[where] - count + 1, int(taken @ (amounts[:, -1] * milli))
            others = [[*rooms, (touched, int(given[-1]))], [*rooms, (room.spare(share, count)[where], milli_given)]]
        if not any(_roomy(limits) for limits in others):
            return False
    return True


def _roomy(limits: Sequence[tuple[Whole, int]]) -> bool:
    """Whether what is given (the second of each pair) cannot make all hosts too full (by the first, for each)."""
    if not limits:
        return True
    share = np.stack([room / given for room, given in limits])
    weight = 1 / share.sum(axis=1)
    for _ in range(TRIES):
        weight /= weight.sum()
        weighted = share * weight[:, None]
        least = weighted.argmin(axis=0)
        if float(weighted.min(axis=0).sum()) > SURE:
            return True
        # More for those that make most hosts too full: the sum of the least is concave in the weights.
        slope = np.bincount(least, share[least, np.arange(share.shape[1])], len(share))
        weight *= np.exp(STRIDE * (slope / max(float(slope.max()), 1e-9) - 1))
    return False
