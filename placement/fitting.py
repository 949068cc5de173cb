"""How many more guests of one shape fit, host by host, until capacity or a filter says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import NoValidHost
from .request import Request
from .schedule import Scheduling

if TYPE_CHECKING:
    from .engine import Engine
    from .signature import Signature


@dataclass(frozen=True, slots=True)
class Fit:
    """``count`` more guests fit; ``by_host`` = node name -> how many there (hosts with none are left out)."""

    count: int
    by_host: Mapping[str, int]


def fits(engine: Engine, request: Request, *, limit: int | None = None) -> Fit:
    """Count guests of the request's shape. Where capacity and column bounds are all that changes as guests come, each
    host is counted by itself in one pass, O(hosts); else (server groups, NUMA, PCI, nested providers, own rules)
    guests are placed on a fork until one is refused, O(guests)."""
    try:
        scheduling = Scheduling(engine, request.with_changes(instance_uuids=request.instance_uuids[:1]))
    except NoValidHost:
        return Fit(0, {})
    signature = scheduling.signature
    if signature.simple and request.server_group is None:
        ranked = scheduling.rank()
        room = _room(engine, signature, ranked.rows)
        return _fit(engine, ranked.rows, room, limit)
    return _try(engine, request, limit)


def _room(engine: Engine, signature: Signature, rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Guests that each row can still take."""
    fleet = engine.fleet
    room = np.full(len(rows), 2**31 - 1, np.int64)
    inventory = fleet.store.inventory
    for resource, amount in signature.resources.items():
        left = inventory["limit"][resource, rows] - inventory["used"][resource, rows]
        room = np.minimum(room, left // amount)
    for column, low, high, _ in signature.bounds:
        step = signature.growth(column)
        if step:
            values = fleet.store.host[column, rows]
            end = high if step > 0 else low
            if np.isfinite(end):
                room = np.minimum(room, np.floor((end - values) / step).astype(np.int64) + 1)
    return np.maximum(room, 0)


def _fit(engine: Engine, rows: NDArray[np.int32], room: NDArray[np.int64], limit: int | None) -> Fit:
    by_host: dict[str, int] = {}
    total = 0
    for row, each in zip(rows, room, strict=True):
        count = int(each) if limit is None else min(int(each), limit - total)
        if count > 0:
            by_host[engine.fleet.name(int(row))] = count
            total += count
    return Fit(total, by_host)


def _try(engine: Engine, request: Request, limit: int | None) -> Fit:
    trial = engine.fork()
    by_host: dict[str, int] = {}
    total = 0
    while limit is None or total < limit:
        decision = trial.place(request.with_changes(instance_uuids=()))
        if not decision.placed:
            break
        node = decision.selected.node
        by_host[node] = by_host.get(node, 0) + 1
        total += 1
    engine.fleet  # noqa: B018  # brings the state back from the fork
    return Fit(total, by_host)
