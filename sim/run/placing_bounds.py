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
UNREACHED: Final = 4.0
"""What counts in the first weights as a host's share of what is given where it can never be too full."""


class Asked:
    """What guests ask for, by shape. ``amounts``: [shapes, resources and then GPUs]; ``milli``: of each GPU; ``zones``:
    number of what a shape is bound to (a zone, or GPU models), 0 for nothing. Those with most thousandths of GPUs,
    vCPUs and memory are placed first, equal ones in any order."""

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
    add up to 1 at most. Of a resource of which no guests that a host has room for in another one ask for so much, it is
    never too full. O(shapes squared, and shapes x hosts).
    """
    shapes = np.array(sorted(counts), np.int64)
    number = np.array([counts[shape] for shape in shapes.tolist()], np.int64)
    turns, zones, amounts, milli = (each[shapes] for each in (asked.turn, asked.zones, asked.amounts, asked.milli))
    # What is asked for of each resource, and of GPUs in thousandths and in number; and what hosts have of it.
    demands = np.column_stack([amounts[:, :-1], amounts[:, -1] * milli, amounts[:, -1]])
    free = np.vstack([room.left, room.gpus.sum(axis=1)])
    hosts = np.array(there, np.int64)
    compete = hosts @ hosts.T > 0
    """Whether some host may take the guests of two zones."""
    for at, own in enumerate(amounts):
        before = (turns <= turns[at]) & compete[zones[at], zones]
        taken = number * before
        taken[at] -= 1
        share, count = int(milli[at]), int(own[-1])
        fits = there[zones[at]] & (room.most >= own[:-1, None]).all(axis=0)
        if count:
            fits &= room.idle(share) >= count
        where = np.flatnonzero(fits)
        if not len(where):
            return False
        earlier = demands[taken > 0]
        if not len(earlier):
            continue
        given = taken @ demands
        limits = {of: room.left[of, where] - asks + 1 for of, asks in enumerate(own[:-1].tolist()) if asks}
        ways = [limits]
        if count and given[-1]:
            ways = [limits | {len(free): room.idle(share)[where] - count + 1}]
            ways.append(limits | {len(free) - 1: room.spare(share, count)[where]})
        if not any(_roomy(given, _reachable(each, earlier, free[:, where]), each) for each in ways):
            return False
    return True


def _reachable(limits: Mapping[int, Whole], earlier: Whole, free: Whole) -> Mask:
    """[limits, hosts] whether guests that fit a host can ask for so much of a resource (the keys of ``limits``) that it
    is too full: the guests ``earlier``, by their demands, of whom a host has room for what is ``free`` of it."""
    possible = np.ones((len(limits), free.shape[1]), np.bool_)
    for other, left in enumerate(free):
        per = earlier[:, other]
        if per.min() > 0:
            for at, (of, needed) in enumerate(limits.items()):
                most = float((earlier[:, of] / per).max())
                possible[at] &= most * left * SURE >= needed
    return possible


def _roomy(given: Whole, possible: Mask, limits: Mapping[int, Whole]) -> bool:
    """Whether what is ``given`` of each resource cannot make all hosts too full: by so much (``limits``, by resource)
    of one of those by which they can be (``possible``)."""
    kept = [at for at, of in enumerate(limits) if given[of] > 0]
    if not kept or not possible[kept].any(axis=0).all():
        return True
    told = list(limits.items())
    shares = np.stack([told[at][1] / given[told[at][0]] for at in kept])
    weight = 1 / np.where(possible[kept], np.minimum(shares, UNREACHED), UNREACHED).sum(axis=1)
    share = np.where(possible[kept], shares, np.inf)
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
