"""Many placements in one kernel call: requests become arrays, and so do their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext import batch as kernel
from ...ext.gather import gather
from ...ext.tables import format_uuid, make_many
from ..fleet.fleet import Fleet, uuid_words
from ..request.checks import check_request
from ..request.host_selection import names_targets
from ..types.decision import Decision
from ..types.errors import DuplicateName, InvalidValue, NoValidHost
from ..types.request import Request
from ..types.validation import shown
from .batch_decisions import Decisions, Run
from .context import DecisionContext
from .signature import Signature
from .signature_cache import Numbered

FEW: Final = 16
"""Signatures that a kernel call may be given whether it needs them or not."""
ALONE = -1
"""Mark of requests that ``Engine.place`` decides one by one."""


class Plan:
    """Requests read into columns and checked: ``which`` signature each has, or ALONE."""

    def __init__(self, context: DecisionContext, batch: list[Request], place: Callable[[Request], Decision]) -> None:
        count = len(batch)
        self.context, self.batch, self.place = context, batch, place
        self.signatures: list[Signature] = []
        self.which = np.full(count, ALONE, np.int32)
        self.uuids = make_many(context.uuid_seed, context.sequence, count)
        """Of the instances; made by the engine where a request leaves it out."""
        self.projects, self.users = np.zeros(count, np.int32), np.zeros(count, np.int32)
        self.groups = np.full(count, -1, np.int32)
        self.times = np.full(count, np.nan)
        """Time of each request, seconds since the epoch; NaN: the time before."""
        self._known = context.compiled.numbered()
        self._read()
        self._choose_signatures()
        self.clock = self.times
        """The time at each request's turn; NaN while none was given."""
        if np.isnan(self.times).any():
            given = np.maximum.accumulate(np.where(np.isnan(self.times), -1, np.arange(count)))
            now = context.fleet.now
            self.clock = np.where(given >= 0, self.times[given], np.nan if now is None else now)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Consecutive spans (first, last + 1) of requests during which the same services are up. When a span is handed
        out the time is its first request's, when the next one is asked for it becomes its last's."""
        context, first = self.context, 0
        while first < len(self.batch):
            self.advance(first)
            # A rule that is not ours may read the time of a request.
            since, until = (self.clock[first],) * 2 if context.compiled.custom else context.fleet.services.holds
            last = _first_outside(self.clock, first, since, until)
            yield first, last
            self.advance(last - 1)
            first = last

    def advance(self, position: int) -> None:
        """Set the time to that of a request's turn."""
        now = float(self.clock[position])
        self.context.advance(None if np.isnan(now) else now)

    def _read(self) -> None:
        """Read all requests; raises HostlerError for the first that is malformed. Changes nothing but the clock."""
        fleet, position = self.context.fleet, 0
        projects, users = fleet.projects.ids, fleet.users.ids
        plain = not self.context.compiled.custom and not fleet.shared_service_hosts
        shared, specs = self._known, self._known.specs if plain else {}
        columns = (self.which, self.uuids, self.projects, self.users, self.groups, self.times)
        while True:
            position = gather(self.batch, position, Request, specs, projects, users, fleet.groups, *columns)
            if position == len(self.batch):
                self._check_groups()
                return
            check_request(self.batch[position])
            self._look(position)
            position += 1
            if self._known is shared is not self.context.compiled.batch:
                # What was numbered has been dropped: start again with numbers of this plan's own.
                self._known, position = Numbered(), 0
                specs = self._known.specs if plain else {}
                self.which.fill(ALONE)

    def _choose_signatures(self) -> None:
        """Keep the signatures that some request has, and number these."""
        known = self._known.signatures
        if len(known) <= FEW:
            self.signatures = known.copy()
            return
        used = np.unique(self.which)
        used = used[used >= 0]
        self.signatures = [known[number] for number in used.tolist()]
        found = self.which >= 0
        self.which[found] = np.searchsorted(used, self.which[found])

    def _check_groups(self) -> None:
        """InvalidValue if a server group has a policy that no enabled rule judges. O(requests)."""
        for group in np.unique(self.groups[self.groups >= 0]).tolist():
            first = int(np.flatnonzero(self.groups == group)[0])
            self.context.prepared(self.batch[first])

    def _look(self, position: int) -> None:
        """A request that is not plain: check it, compile its spec, and read it or leave it to be placed alone."""
        context, fleet, request = self.context, self.context.fleet, self.batch[position]
        self.times[position] = np.nan if request.now is None else request.now
        spec, request = request.spec, context.prepared(request)
        hinted = request.server_group is not self.batch[position].server_group
        single = len(request.instance_uuids) <= 1 and not request.alternates
        for uuid in request.instance_uuids:
            uuid_words(uuid, "instance_uuids")
        self.which[position] = ALONE
        given = request if request.instance_uuids else request.with_changes(instance_uuids=("",))
        try:
            signature = context.ranked_way(given) if single else None
            if signature is None:
                context.signature(request)
        except NoValidHost:
            return
        if signature is None or not signature.simple or hinted:
            return
        number = self._known.number(signature)
        self.which[position] = number
        if names_targets(request.spec):
            pass  # which hosts there are decides of it, too
        elif context.compiled.reads_project:
            self._known.specs.setdefault(spec, {})[request.project_id] = number
        else:
            self._known.specs[spec] = number
        self.projects[position] = fleet.projects.id(request.project_id)
        self.users[position] = fleet.users.id(request.user_id)
        self.groups[position] = -1 if request.server_group is None else fleet.group_id(str(request.server_group))
        if request.instance_uuids:
            self.uuids[position] = uuid_words(request.instance_uuids[0], "instance_uuids")


def _first_outside(values: NDArray[np.float64], first: int, least: float, greatest: float) -> int:
    """The first position from ``first`` on whose value is not within [least, greatest]; the length if there is none.
    O(positions passed)."""
    size = 64
    while first < len(values):
        some = values[first : first + size]
        inside = (some >= least) & (some <= greatest) if least == least else np.isnan(some)
        outside = np.flatnonzero(~inside)
        if len(outside):
            return first + int(outside[0])
        first, size = first + len(some), 4 * size
    return first


def place_batch(
    context: DecisionContext, requests: Iterable[Request], place: Callable[[Request], Decision]
) -> Decisions:
    """``Engine.place_many``: runs of requests that the kernel can decide alone go to it together, the others one by
    one."""
    if not isinstance(requests, Iterable):
        raise InvalidValue(f"requests must be Requests in order, got {shown(requests)}", field="requests")
    batch = list(requests)
    context.fleet._reclaim.if_due()
    decisions = Decisions(context, len(batch))
    plan = Plan(context, batch, place)
    start, now, sequence = context.fleet.history.hold(), context.fleet.now, context.sequence
    try:
        for position, until in plan.spans():
            _place_span(plan, decisions, position, until)
    except BaseException:
        context.fleet.history.go(start)
        context.fleet._rewind(now)
        context.sequence = sequence
        raise
    context.fleet.change_log.add_reader(decisions)
    return decisions


def _place_span(plan: Plan, decisions: Decisions, first: int, last: int) -> None:
    alone = np.flatnonzero(plan.which[first:last] == ALONE) + first
    for position in (*alone.tolist(), last):
        if position > first:
            _place_run(plan, decisions, first, position)
        if position < last:
            plan.advance(position)
            decisions._add(position, plan.place(plan.batch[position]))
        first = position + 1


def _place_run(plan: Plan, decisions: Decisions, first: int, last: int) -> None:
    context, fleet, span, count = plan.context, plan.context.fleet, slice(first, last), last - first
    width = max(len(signature.stages) for signature in plan.signatures)
    which, uuids = plan.which[span], plan.uuids[span]
    rows, consumers = np.empty(count, np.int32), np.empty(count, np.int32)
    scores, counts = np.empty(count, np.float64), np.empty((count, width), np.int64)
    done = kernel.place(
        fleet.kernel,
        [signature.ranking for signature in plan.signatures],
        which,
        np.array([signature.shape for signature in plan.signatures], np.int32)[which],
        uuids,
        plan.projects[span],
        plan.users[span],
        plan.groups[span],
        True,
        context.seed,
        context.sequence + 1,
        rows,
        consumers,
        scores,
        counts,
    )
    placed = consumers[:done][rows[:done] >= 0]
    taken = done if done < count else _taken(fleet, uuids, rows, consumers)
    if taken is not None:
        kernel.release(fleet.kernel, placed[::-1].copy())
        uuid = format_uuid(int(uuids[taken, 0]), int(uuids[taken, 1]))
        raise DuplicateName(f"consumer {uuid} exists", field="instance_uuids")
    fleet._placed(placed.tolist() if fleet.history.recording else ())
    requests = plan.batch[span]
    if context.reads_instance_images:
        for request, consumer in zip(requests, consumers.tolist(), strict=True):
            if consumer >= 0 and request.image_properties:
                fleet.image_properties[consumer] = request.image_properties
    decisions._add_run(Run(first, context.sequence + 1, requests, plan.signatures, which, uuids, rows, scores, counts))
    context.sequence += count


def _taken(
    fleet: Fleet, uuids: NDArray[np.uint64], rows: NDArray[np.int32], consumers: NDArray[np.int32]
) -> int | None:
    """Position of a refused request whose uuid existed when its turn came; the kernel looks only where it places."""
    if rows.min() >= 0:
        return None
    refused = np.flatnonzero(rows < 0)
    holders = np.empty(len(refused), np.int32)
    kernel.find(fleet.kernel, uuids[refused], holders)
    for position, holder in zip(refused[holders >= 0].tolist(), holders[holders >= 0].tolist(), strict=True):
        if not np.any(consumers[position + 1 :] == holder):
            return int(position)
    return None
