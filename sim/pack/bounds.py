"""Lower bounds on the number of bins.

    sum     the items' sizes together, in the dimension that is used most
    L2      Martello and Toth's, of one dimension: for a threshold k, items above capacity - k share a bin with none
            of at least k, and items above half the capacity with none such; what else is at least k goes beside these
    parts   Fekete and Schepers' dual feasible functions u(k), of one dimension: where a bin holds k items of a size and
            not k + 1, each of these is a k-th of a bin
    apart   items of which no two fit one bin, found greedily

The latter three hold only where no size is negative.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .instance import Instance

MOST_PARTS: Final = 12
"""Items of a size that a bin holds up to which ``parts`` looks."""
_EXACT: Final = 2**62
MOST_PAIRS: Final = 4_000
"""Items up to which all pairs are compared."""


def lower_bound(instance: Instance) -> int:
    """The best of the bounds; 0 without items. O(items² * dimensions) up to 4,000 items, else O(items log items)."""
    if len(instance) == 0:
        return 0
    best = max(1, sum_bound(instance))
    if np.any(instance.sizes < 0):
        return best
    for sizes, capacity in zip(instance.sizes.T, instance.capacity.tolist(), strict=True):
        best = max(best, martello_toth(sizes, capacity), parts(sizes, capacity))
    return max(best, apart(instance)) if len(instance) <= MOST_PAIRS else best


def sum_bound(instance: Instance) -> int:
    """Sum of sizes over capacity, rounded up, in the tightest dimension."""
    totals: list[int] = instance.sizes.sum(axis=0).tolist()
    capacity: list[int] = instance.capacity.tolist()
    return max((-(-total // most) for total, most in zip(totals, capacity, strict=True) if most > 0), default=0)


def martello_toth(sizes: NDArray[np.int64], capacity: int) -> int:
    """Martello and Toth's L2 over all thresholds that matter, for one dimension of sizes that are not negative."""
    if capacity <= 0:
        return 0
    sizes = np.sort(sizes)
    sums = np.concatenate([[0], np.cumsum(sizes)])
    half = int(np.searchsorted(sizes, capacity / 2, side="right"))
    best = 0
    for threshold in np.unique(
        np.concatenate([[0], sizes[: int(np.searchsorted(sizes, capacity / 2, "right"))]])
    ).tolist():
        low = int(np.searchsorted(sizes, threshold, side="left"))
        alone = int(np.searchsorted(sizes, capacity - threshold, side="right"))
        large, above_half = len(sizes) - alone, len(sizes) - half
        beside = (above_half - large) * capacity - int(sums[alone] - sums[half])
        small = int(sums[half] - sums[min(low, half)])
        best = max(best, above_half + max(0, -(-(small - beside) // capacity)))
    return best


def parts(sizes: NDArray[np.int64], capacity: int) -> int:
    """Fekete and Schepers' bound by the functions u(1) to u(MOST_PARTS), for one dimension of sizes that are not
    negative: u(k) of a part x of a bin is x where (k + 1)x is whole, else the floor of (k + 1)x, divided by k."""
    if capacity <= 0 or capacity > _EXACT // (MOST_PARTS + 1):
        return 0
    sizes = np.minimum(sizes, capacity)
    best = 0
    for k in range(1, MOST_PARTS + 1):
        whole, rest = np.divmod(sizes * (k + 1), capacity)
        # In units of a k-th of a bin divided by the capacity; summed without overflow.
        exact = int(np.sum(sizes[rest == 0], dtype=object) or 0) * k
        total = exact + int(whole[rest != 0].sum()) * capacity
        best = max(best, -(-total // (k * capacity)))
    return best


def apart(instance: Instance) -> int:
    """How many items a greedy search finds of which no two fit one bin."""
    sizes, capacity = instance.sizes, instance.capacity
    conflicts = np.zeros((len(sizes), len(sizes)), bool)
    for column, most in zip(sizes.T, capacity.tolist(), strict=True):
        conflicts |= column[:, None] + column[None, :] > most
    np.fill_diagonal(conflicts, False)
    left, count = np.ones(len(sizes), bool), 0
    while left.any():
        # Of those left, the one that conflicts with most of those left.
        degrees = np.where(left, conflicts[:, left].sum(axis=1), -1)
        left &= conflicts[int(np.argmax(degrees))]
        count += 1
    return count
