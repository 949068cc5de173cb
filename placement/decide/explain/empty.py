"""Whether a request would fit if no guests were there: tells a full fleet from one that cannot serve it at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ....ext.tables import format_uuid
from ...fleet.columns import HOST_COLUMNS
from ...request.host_selection import names_hosts, selected
from ...types.request import Request
from ..context import DecisionContext
from ..scan import Ranked, Scan

COUNTED: Final = frozenset({"num_instances", "num_io_ops", "vcpus_used"})
"""Host columns that are 0 on an empty host."""
CHANGING: Final = COUNTED | {
    "free_ram_mb", "free_disk_mb", "disk_mb_used", "instances", "numa_topology", "pci_pools", "stats"
}  # fmt: skip
"""Fields of a host that guests change."""


class Trial(Protocol):
    """An Engine that is a fork."""

    def release(self, uuids: Sequence[str]) -> int:
        """Remove instances and return their resources."""
        ...

    def rank(self, request: Request) -> Ranked:
        """All hosts that pass."""
        ...


def fits_empty(scan: Scan, ranked: Ranked) -> bool | None:
    """Whether a host would pass if it were empty; None where that is not known from totals and static facts alone:
    NUMA cells, PCI devices, nested providers and rules of one's own. O(stages * hosts)."""
    fleet, signature, rows = scan.fleet, scan.signature, ranked.considered
    if not len(rows) or scan.candidates is not None:
        return None if len(rows) else False
    could, now = np.ones(len(rows), bool), np.ones(len(rows), bool)
    class_of = fleet._store.row["class_of"][rows]
    judged = signature.class_results().items()
    last = signature.last_candidate_stage
    for number, passes in judged:
        if number <= last or not ranked.filters_skipped:
            could &= passes[class_of]
    if names_hosts(scan.request.spec):
        could &= selected(fleet, scan.request.spec, rows)
    for index, amount, _, _ in signature.needs:
        could &= (fleet._store.inventory["limit"][index, rows] >= amount) & suits_units(scan, index, rows)
    for column, low, high, _ in () if ranked.filters_skipped else signature.bounds:
        values = fleet._store.host[column, rows]
        passes_now = (low <= values) & (values <= high)
        if HOST_COLUMNS[column] in COUNTED:
            could &= low <= 0 <= high
        elif HOST_COLUMNS[column] in CHANGING:
            now &= passes_now
        else:
            could &= passes_now
    for stage, cache in signature.row_judges:
        if stage.number > last and ranked.filters_skipped:
            continue
        passes_now = cache.array[rows] != 0
        if stage.filter is not None and not stage.filter.fields(scan.request) & CHANGING:
            could &= passes_now
        else:
            now &= passes_now
    if not could.any():
        return False
    return True if (could & now).any() else None


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
