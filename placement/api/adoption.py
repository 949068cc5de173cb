"""A fleet that was filled from another Placement is its own from then on: generations are those that its clients know,
and inventories are not what hosts report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from ..fleet.change_log import rows_array
from ..fleet.fleet import Fleet
from .allocations import note_of
from .providers import find

FIGURED: Final = 3
"""VCPU, MEMORY_MB and DISK_GB, the first classes: their inventories follow from reports until the API has written."""


def adopt(
    fleet: Fleet, providers: Mapping[str, int], consumers: Mapping[str, tuple[int, str | None]], now: float
) -> None:
    """Set the generations of providers, and generation and type of consumers (None: as it was written, or none), by
    uuid; have the inventories of these providers be as the API wrote them, also where it wrote none of a class. What
    the fleet does not have is passed over. Not recorded for an undo. O(providers + consumers)."""
    known = {find(fleet, uuid): given for uuid, given in providers.items()}
    known.pop(-1, None)
    rows, at = rows_array(*known), round(now * 1e6)
    updated = fleet._store.inventory["updated"]
    updated[:FIGURED, rows] = np.where(updated[:FIGURED, rows] > 0, updated[:FIGURED, rows], at)
    fleet._change_log.set_generations(rows, np.fromiter(known.values(), np.int64, len(known)), now)
    for uuid, (given, kind) in consumers.items():
        consumer = fleet._kernel.consumers.get(uuid)
        if consumer < 0:
            continue
        before = note_of(fleet, consumer)
        noted = fleet._consumers.notes.get(consumer)
        if kind is None and noted is not None:
            kind = noted.consumer_type
        after = before._replace(generation=given, consumer_type=kind)
        if after != before:
            fleet._consumers.put_note(consumer, after)


__all__ = ["adopt"]
