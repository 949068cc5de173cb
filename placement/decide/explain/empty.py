"""Whether a request would fit if no guests were there: tells a full fleet from one that cannot serve it at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ....ext.near_misses import Rules
from ....ext.tables import format_uuid
from ...fleet.columns import HOST_COLUMNS
from ...fleet.fleet import Fleet
from ...request.host_selection import names_hosts, selected, skips_filters
from ...types.request import Request
from ..context import DecisionContext
from ..scan import Ranked, Scan

COUNTED: Final = frozenset({"num_instances", "num_io_ops", "vcpus_used"})
"""Host columns that are 0 on an empty host."""
CHANGING: Final = COUNTED | {
    "free_ram_mb", "free_disk_mb", "disk_mb_used", "instances", "numa_topology", "pci_pools", "stats"
}  # fmt: skip
"""Fields of a host that guests change."""


Rows = NDArray[np.int32]
Bound = tuple[int, float, float, int]
"""(column, low, high, stage)."""


class Trial(Protocol):
    """An Engine that is a fork."""

    def release(self, uuids: Sequence[str]) -> int:
        """Remove instances and return their resources."""
        ...

    def rank(self, request: Request) -> Ranked:
        """All hosts that pass."""
        ...


def fits_empty(scan: Scan, considered: Rows | None = None) -> bool | None:
    """Whether one of some hosts would pass if it were empty; None where that is not known from totals and static facts
    alone: NUMA cells, PCI devices, nested providers and rules of one's own. ``considered``: rows of these hosts; None:
    all. O(stages * hosts) in the kernel where none does."""
    fleet, signature, spec = scan.fleet, scan.signature, scan.request.spec
    if scan.candidates is not None:
        return False if considered is not None and not len(considered) else None
    skipped = skips_filters(spec)
    last = signature.last_candidate_stage
    could: list[Bound] = []
    now: list[Bound] = []
    """Bounds that hold of empty hosts as of others, and those on what guests change."""
    for bound in () if skipped else signature.bounds:
        column, low, high, _ = bound
        if HOST_COLUMNS[column] not in COUNTED:
            (now if HOST_COLUMNS[column] in CHANGING else could).append(bound)
        elif not low <= 0 <= high:
            return False
    masks: list[tuple[NDArray[Any], int]] = []
    masks_now: list[tuple[NDArray[Any], int]] = []
    if names_hosts(spec):
        masks.append((by_row(fleet, selected(fleet, spec, np.arange(fleet.rows, dtype=np.int32))), last + 1))
    for stage, cache in signature.row_judges:
        if stage.number <= last or not skipped:
            static = stage.filter is not None and not stage.filter.fields(scan.request) & CHANGING
            (masks if static else masks_now).append((cache.array, stage.number))
    chosen = None if considered is None else among(fleet, considered)

    kept, words = considered is None and not names_hosts(spec), signature.class_words(skipped=skipped)

    def passes(use: str, bounds: list[Bound], masks: list[tuple[NDArray[Any], int]]) -> bool:
        def make() -> Rules:
            return Rules(fleet._kernel, words, signature.needs, bounds, masks, chosen)

        use = f"{use}, candidates" if skipped else use
        rules = scan.context.compiled.kept_rules.find(signature, use, words, None, make) if kept else make()
        return rules.could_pass()

    if not passes("empty", could, masks):
        return False
    if not now and not masks_now:
        return True
    return True if passes("empty, as guests are now", could + now, masks + masks_now) else None


def among(fleet: Fleet, rows: Rows) -> NDArray[np.uint8]:
    """By row, 1 for ``rows``."""
    mask = np.zeros(fleet._store.capacity, np.uint8)
    mask[rows] = 1
    return mask


def by_row(fleet: Fleet, passes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """``passes`` of all rows, to the capacity of the columns."""
    mask = np.zeros(fleet._store.capacity, np.uint8)
    mask[: len(passes)] = passes
    return mask


def fits_on_an_empty_fork(context: DecisionContext, request: Request, rows: Ranked, fork: Callable[[], Trial]) -> bool:
    """The same, tried on a fork from which all guests are removed. O(guests)."""
    fleet = context.fleet
    lines = (
        line
        for row in rows.considered.tolist()
        for line in map(fleet._kernel.consumer, fleet._kernel.consumers_on(row))
    )
    uuids = list(dict.fromkeys(format_uuid(line[0], line[1]) for line in lines))
    trial = fork()
    try:
        trial.release(uuids)
        return bool(len(trial.rank(request).rows))
    finally:
        context.fleet  # noqa: B018  # brings the state back from the fork


def suits_units(scan: Scan, index: int, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Placement's unit rules: whether each row gives a resource class in the amount asked for, however much is
    free."""
    inventory, amount = scan.fleet._store.inventory, scan.signature.resources[index]
    step = np.maximum(inventory["step_size"][index, rows], 1)
    most, least = inventory["max_unit"][index, rows], inventory["min_unit"][index, rows]
    suits: NDArray[np.bool_] = (least <= amount) & (amount <= most) & (amount % step == 0)
    return suits
