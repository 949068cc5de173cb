"""Which of the hosts that pass a guest moves to: the fullest for packing, or the best by the engine's weighers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..fleet.change_log import Rows
from ..fleet.fleet import Fleet
from .trial import OnRow


def best_weighed(scan: OnRow, rows: Rows) -> int:
    """The row with the greatest weight under the engine's policy; the lower row among equals."""
    return int(rows[np.argmax(scan.scored(rows))]) if len(rows) > 1 else int(rows[0])


def tightest(scan: OnRow, rows: Rows) -> int:
    """The row that has the smallest share left after it takes the guest, summed over what the guest takes; the lower
    row among equals."""
    return int(rows[np.argmin(_left(scan, rows))]) if len(rows) > 1 else int(rows[0])


def by_tightness(scan: OnRow, rows: Rows) -> Rows:
    """Rows in the order of what is left after each takes the guest, as ``tightest``."""
    return rows[np.argsort(_left(scan, rows), kind="stable")] if len(rows) > 1 else rows


def _left(scan: OnRow, rows: Rows) -> NDArray[np.float64]:
    inventory, resources = scan.fleet._store.inventory, scan.signature.resources
    total = np.zeros(len(rows))
    for resource, amount in resources.items():
        limit = inventory["limit"][resource].take(rows)
        total += (limit - inventory["used"][resource].take(rows) - amount) / np.maximum(limit, 1)
    return total


def room(fleet: Fleet, rows: Rows, resource: int) -> NDArray[np.int64]:
    """What is left of a resource class on rows."""
    inventory = fleet._store.inventory
    left: NDArray[np.int64] = inventory["limit"][resource, rows] - inventory["used"][resource, rows]
    return left
