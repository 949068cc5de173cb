"""How many more guests of one shape fit, host by host, until capacity or a filter says no."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ..fleet.columns import HOST_COLUMNS
from ..fleet.fleet import Fleet
from ..request.host_selection import skips_filters
from ..types.decision import Decision, Selection
from ..types.errors import NoValidHost
from ..types.request import Request, ServerGroup
from .batch_decisions import Decisions
from .context import DecisionContext
from .scan import Scan
from .signature import Signature

_PLENTY: Final = 2**31 - 1
"""Guests on a host whom nothing limits."""
_ROUNDS: Final = 256
"""Rounds that are placed as one batch."""
_TOGETHER: Final = 1024
"""Guests that are placed as one batch at most."""
_ROUNDED: Final = frozenset({"free_vcpus"})
"""Host columns that guests change and that need not be whole."""


@dataclass(frozen=True, slots=True)
class SharedFit:
    """How many more guests of one of several shapes fit: ``alone``, with all room for this shape, and ``shared``, where
    all shapes get one guest each in turn for as long as they fit."""

    alone: Fit
    shared: Fit


class Placer(Protocol):
    """What places guests on a trial fleet: an Engine that is a fork."""

    def place_many(self, requests: Sequence[Request], *, strict: bool = True) -> Decisions:
        """Place the requests in order and claim their hosts."""
        ...

    def place(self, request: Request) -> Decision:
        """Place the request and claim its hosts."""
        ...


@dataclass(frozen=True, slots=True)
class Fit:
    """``count`` more guests fit; ``by_host`` = node name -> how many there (hosts with none are left out)."""

    count: int
    by_host: Mapping[str, int]


def fits(context: DecisionContext, request: Request, fork: Callable[[], Placer], *, limit: int | None = None) -> Fit:
    """Count guests of the request's shape, at most ``limit``. Where capacity and column bounds are all that changes as
    guests come, each host is counted by itself in one pass, O(hosts). Else (server groups, NUMA, PCI, nested providers,
    own rules, a limit that is reached) guests are placed on a fork until one is refused, O(guests)."""
    try:
        scan = Scan(context, request.with_changes(instance_uuids=request.instance_uuids[:1]))
    except NoValidHost:
        return Fit(0, {})
    signature = scan.signature
    bound = {HOST_COLUMNS[column] for column, *_ in signature.bounds}
    if signature.simple and request.server_group is None and not bound & _ROUNDED:
        rows = scan.passing_rows()
        room = _room(signature, rows, request)
        if limit is None or int(room.sum()) <= limit:
            return _counted(context.fleet, rows, room)
        return _placed_together(context, request, fork(), limit)
    return _placed(context, request, fork(), limit)


def fits_many(
    context: DecisionContext, requests: Sequence[Request], fork: Callable[[], Placer], *, limit: int | None = None
) -> tuple[SharedFit, ...]:
    """``fits`` for each of several shapes, and a fair division of the room among them: in rounds, each shape that still
    fits gets one guest, in the order of ``requests``. At most ``limit`` guests of a shape. O(guests)."""
    alone = [fits(context, request, fork, limit=limit) for request in requests]
    taken: list[dict[str, int]] = [{} for _ in requests]
    open_to = [number for number, fit in enumerate(alone) if fit.count]
    asked, trial, rounds = list(requests), fork(), 0
    try:
        while open_to and (limit is None or rounds < limit):
            together = 1 if any(isinstance(asked[each].server_group, ServerGroup) for each in open_to) else _ROUNDS
            together = together if limit is None else min(together, limit - rounds)
            rounds += together
            open_to = _rounds(trial, asked, open_to, together, taken)
    finally:
        context.fleet  # noqa: B018  # brings the state back from the fork
    return tuple(SharedFit(fit, Fit(sum(held.values()), held)) for fit, held in zip(alone, taken, strict=True))


def _rounds(
    trial: Placer, asked: list[Request], open_to: list[int], together: int, taken: list[dict[str, int]]
) -> list[int]:
    """Place one guest of each shape, ``together`` times; the shapes that still fit. A shape that is refused once is
    refused from then on, as no guest leaves."""
    order = open_to * together
    decisions = trial.place_many([asked[number].with_changes(instance_uuids=()) for number in order])
    refused = set()
    for number, decision in zip(order, decisions, strict=True):
        if not decision.placed:
            refused.add(number)
            continue
        chosen = decision.selected
        taken[number][chosen.node] = taken[number].get(chosen.node, 0) + 1
        asked[number] = _joined(asked[number], chosen)
    return [number for number in open_to if number not in refused]


def _room(signature: Signature, rows: NDArray[np.int32], request: Request) -> NDArray[np.int64]:
    """Guests that each row can still take."""
    fleet = signature.fleet
    room = np.full(len(rows), _PLENTY, np.int64)
    inventory = fleet._store.inventory
    for resource, amount in signature.resources.items():
        left = inventory["limit"][resource, rows] - inventory["used"][resource, rows]
        room = np.minimum(room, left // amount)
    added = _added(request)
    for column, low, high, _ in () if skips_filters(request.spec) else signature.bounds:
        step, values = added.get(HOST_COLUMNS[column], 0), fleet._store.host[column, rows]
        left = (high - values) // step if step > 0 else (values - low) // -step if step < 0 else room
        room = np.minimum(room, np.minimum(left, _PLENTY) + 1).astype(np.int64)
    return np.maximum(room, 0)


def _added(request: Request) -> dict[str, int]:
    """What one more guest adds to the host columns that are whole numbers."""
    flavor = request.flavor
    return {
        "num_instances": 1,
        "num_io_ops": 1,
        "vcpus_used": flavor.vcpus,
        "free_ram_mb": -flavor.memory_mb,
        "free_disk_mb": -(flavor.root_gb + flavor.ephemeral_gb) * 1024,
    }


def _counted(fleet: Fleet, rows: NDArray[np.int32], room: NDArray[np.int64]) -> Fit:
    some = room > 0
    names = map(fleet._providers.names.get, rows[some].tolist())
    return Fit(int(room.sum()), dict(zip(names, room[some].tolist(), strict=True)))


def _placed_together(context: DecisionContext, request: Request, trial: Placer, limit: int) -> Fit:
    """Place up to ``limit`` guests of a request that the batch kernel decides alone, each seeing those before it."""
    by_host: dict[str, int] = {}
    request, left = request.with_changes(instance_uuids=()), limit
    try:
        while left:
            together = min(left, _TOGETHER)
            decisions = trial.place_many([request] * together)
            for error in decisions.errors.values():
                raise error
            placed = [decision.selected.node for decision in decisions if decision.placed]
            for node in placed:
                by_host[node] = by_host.get(node, 0) + 1
            left = left - together if len(placed) == together else 0
    finally:
        context.fleet  # noqa: B018  # brings the state back from the fork
    return Fit(sum(by_host.values()), by_host)


def _placed(context: DecisionContext, request: Request, trial: Placer, limit: int | None) -> Fit:
    by_host: dict[str, int] = {}
    try:
        for _ in itertools.count() if limit is None else range(limit):
            decision = trial.place(request.with_changes(instance_uuids=()))
            if not decision.placed:
                break
            chosen = decision.selected
            by_host[chosen.node] = by_host.get(chosen.node, 0) + 1
            request = _joined(request, chosen)
    finally:
        context.fleet  # noqa: B018  # brings the state back from the fork
    return Fit(sum(by_host.values()), by_host)


def _joined(request: Request, guest: Selection) -> Request:
    """The request for the next guest: where the caller keeps the server group, it has one member more."""
    group = request.server_group
    if not isinstance(group, ServerGroup):
        return request
    group = replace(group, members=group.members | {guest.instance_uuid}, hosts=group.hosts | {guest.host})
    return request.with_changes(server_group=group)
