"""Lower bounds on the number of bins: what no packing can undercut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .instances import Instance


def lower_bound(given: Instance) -> int:
    """The greatest over the dimensions of the volume bound and the bound of Martello and Toth (L2). O(d n log n)."""
    if not len(given.sizes):
        return 0
    bounds = [_of_dimension(given.sizes[:, k], int(limit)) for k, limit in enumerate(given.capacity.tolist())]
    return max(1, *bounds)


def _of_dimension(sizes: NDArray[np.int64], capacity: int) -> int:
    if capacity == 0:
        return 1
    volume = -(-int(sizes.sum()) // capacity)
    if int(sizes.min()) < 0:
        # Something that gives room makes large items compatible: only the volume counts.
        return volume
    return max(volume, _martello_toth(sizes, capacity))


def _martello_toth(sizes: NDArray[np.int64], capacity: int) -> int:
    """For a threshold t up to half a bin: items above capacity - t and those above half a bin need a bin each; what
    remains of the latter's bins takes items from t up to half a bin, as if these were liquid."""
    ordered = np.sort(sizes)
    sums = np.concatenate([[0], np.cumsum(ordered)])
    first_large = int(np.searchsorted(ordered, capacity // 2, side="right"))
    best = len(ordered) - first_large
    for threshold in np.unique(ordered[:first_large]).tolist():
        first = int(np.searchsorted(ordered, threshold))
        huge = int(np.searchsorted(ordered, capacity - threshold, side="right"))
        large = len(ordered) - first_large
        room = (huge - first_large) * capacity - int(sums[huge] - sums[first_large])
        medium = int(sums[first_large] - sums[first])
        best = max(best, large + max(0, -(-(medium - room) // capacity)))
    return best
