"""Many placements in one kernel call: requests become arrays, and so do their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...ext import batch as kernel
from ...ext.gather import SpecTable, gather
from ...ext.tables import make_many, parse_uuid
from ..fleet.fleet import Fleet, uuid_words
from ..request.checks import check_request
from ..request.host_selection import names_hosts, names_targets
from ..types.decision import Decision
from ..types.errors import DuplicateName, HostlerError, InvalidValue, NoValidHost
from ..types.request import Request, RequestSpec
from ..types.validation import shown
from .batch_decisions import Decisions
from .context import DecisionContext
from .nested_batch import decide_nested, goes_here
from .run import Run
from .shape_table import NESTED, OTHERS, ShapeTable
from .signature import Signature

ALONE = -1
"""Mark of requests that ``Engine.place`` decides one by one."""
CAREFUL: Final = 64
"""Requests of the first kernel call behind one that was not carried out; each further call may have twice as many."""


class Plan:
    """Requests read into columns and checked: ``which`` signature each has, or ALONE."""

    def __init__(
        self,
        context: DecisionContext,
        fleet: Fleet,
        batch: list[Request],
        place: Callable[[Request], Decision],
        *,
        strict: bool,
    ) -> None:
        count = len(batch)
        self.errors: dict[int, HostlerError] = {}
        """Of malformed requests, by position; ``strict``: the first is raised."""
        self._strict = strict
        self.context, self.fleet, self.batch, self.place = context, fleet, batch, place
        self.which = np.full(count, ALONE, np.int32)
        self.uuids = make_many(context.uuid_seed, fleet._heads.sequence, count)
        """Of the instances; made by the engine where a request leaves it out."""
        self.projects, self.users = np.zeros(count, np.int32), np.zeros(count, np.int32)
        self.groups = np.full(count, -1, np.int32)
        down_time = context.policy.options.default.service_down_time
        self._new_down_time = down_time != fleet._services.down_time
        self.times = np.full(count, np.nan)
        """Time of each request, seconds since the epoch; NaN: the time before."""
        now = fleet._services.now
        self._began = np.nan if now is None else now
        self.careful = 0
        """Requests that the next kernel call may have at most; 0 while all requests were carried out: no limit."""
        self.shapes = context.compiled.numbered()
        self._read()
        self.clock = self.times
        """The time at each request's turn; NaN while none was given."""
        if np.isnan(self.times).any():
            given = np.maximum.accumulate(np.where(np.isnan(self.times), -1, np.arange(count)))
            self.clock = np.where(given >= 0, self.times[given], self._began)

    def span_from(self, first: int) -> int:
        """End of the requests from ``first`` on during which the same services are up; the time becomes the first
        one's."""
        self.advance(first)
        if first + 1 == len(self.clock):
            return first + 1
        # A rule that is not ours may read the time of a request.
        since, until = (self.clock[first],) * 2 if self.context.compiled.custom else self.fleet._services.holds
        return _first_outside(self.clock, first, since, until)

    def forget_time(self, position: int) -> bool:
        """Take back the time of a request that was not carried out. True if that is another one than the time before:
        the services that are up have to be looked at again. O(1) where all have one time, else O(requests)."""
        before = self.clock[position - 1] if position else self._began
        if np.isnan(self.times[position]) or self.times[position] == before:
            return False
        if self.clock is self.times:
            self.clock = self.times.copy()
        self.times[position] = np.nan
        given = np.flatnonzero(~np.isnan(self.times[position:]))
        self.clock[position : position + int(given[0]) if len(given) else None] = before
        self.fleet._rewind(None if np.isnan(before) else float(before))
        return True

    def new_uuids(self, first: int, last: int) -> None:
        """Make the uuids of a span again where requests leave them out: one before it was not carried out, and took no
        number. O(span)."""
        made = make_many(self.context.uuid_seed, self.fleet._heads.sequence, last - first)
        for position, request in enumerate(self.batch[first:last]):
            if not request.instance_uuids:
                self.uuids[first + position] = made[position]

    def advance(self, position: int) -> None:
        """Set the time to that of a request's turn."""
        now = float(self.clock[position])
        if now != self.fleet._services.now or self._new_down_time:
            self.context.advance(None if np.isnan(now) else now)

    def _read(self) -> None:
        """Read and check all requests. Changes nothing but the clock."""
        fleet, position = self.fleet, 0
        projects, users = fleet._projects.ids, fleet._users.ids
        plain = not self.context.compiled.custom and not fleet._shared_service_hosts
        shared, specs = self.shapes, self.shapes.specs if plain else _no_specs(self.shapes)
        groups = {} if fleet._consumers.also_on else fleet._groups
        columns = (self.which, self.uuids, self.projects, self.users, self.groups, self.times)
        while True:
            position = gather(self.batch, position, Request, specs, projects, users, groups, *columns)
            if position == len(self.batch):
                if self.groups.max(initial=-1) >= 0:
                    self._check_groups()
                return
            if self.shapes is not shared or not shared.dropped:
                try:
                    check_request(self.batch[position])
                    self._look(position)
                except HostlerError as error:
                    self._malformed(position, error)
                position += 1
            if self.shapes is shared and shared.dropped:
                # What was numbered does not hold any more: start again with numbers of this plan's own.
                self.shapes, position = self.context.compiled.shapes_apart(), 0
                specs = self.shapes.specs if plain else _no_specs(self.shapes)
                self.which.fill(ALONE)
                self.errors.clear()

    def _malformed(self, position: int, error: HostlerError) -> None:
        if self._strict:
            raise error
        self.errors[position] = error
        self.which[position], self.times[position] = ALONE, np.nan

    def _check_groups(self) -> None:
        """InvalidValue if a server group has a policy that no enabled rule judges. O(requests)."""
        for group in np.unique(self.groups[self.groups >= 0]).tolist():
            of_group = np.flatnonzero(self.groups == group).tolist()
            try:
                self.context.prepared(self.batch[of_group[0]])
            except HostlerError as error:
                for position in of_group:
                    self._malformed(position, error)

    def _look(self, position: int) -> None:
        """A request that is not plain: check it, compile its spec, and read it or leave it to be placed alone."""
        context, fleet, request = self.context, self.fleet, self.batch[position]
        self.times[position] = np.nan if request.now is None else request.now
        spec, request = request.spec, context.prepared(request)
        hinted = request.server_group is not self.batch[position].server_group
        single = len(request.instance_uuids) <= 1 and not request.alternates
        for uuid in request.instance_uuids:
            uuid_words(uuid, "instance_uuids")
        if isinstance(request.server_group, str):
            fleet._group_id(request.server_group)  # which says if there is none
        self.which[position] = ALONE
        try:
            if hinted or not single:
                return
            compiled = context.compiled.signature(request, candidates_given=False)
            nested = request.server_group is None and goes_here(context, compiled) and not names_hosts(spec)
            if not compiled.simple and not nested:
                return  # judged when its turn comes, on what is free then
            signature = compiled if nested and compiled.ranks else context.ranked_way(request)
        except NoValidHost:
            return
        if signature is None:
            return
        self.which[position] = self._number(spec, request, signature)
        self.projects[position] = fleet._projects.id(request.project_id)
        self.users[position] = fleet._users.id(request.user_id)
        self.groups[position] = -1 if request.server_group is None else fleet._group_id(str(request.server_group))
        if request.instance_uuids:
            self.uuids[position] = uuid_words(request.instance_uuids[0], "instance_uuids")

    def _number(self, spec: RequestSpec, request: Request, signature: Signature) -> int:
        """The shape of a request that was asked for with ``spec``, which is known from now on."""
        shapes = self.shapes
        number = shapes.specs.find(spec, request.project_id)
        if number >= 0:
            return number
        number = shapes.number(signature) if signature.simple else shapes.nested_number(signature)
        if names_targets(request.spec):
            pass  # which hosts there are decides of it, too
        elif self.context.compiled.reads_project:
            shapes.specs.specs.setdefault(spec, {})[request.project_id] = number
        else:
            shapes.specs.specs[spec] = number
        return number


def _no_specs(shapes: ShapeTable) -> SpecTable:
    """A table of specs that is empty: each request is looked at."""
    return SpecTable(shapes.shapes, RequestSpec, OTHERS)


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
    context: DecisionContext, requests: Iterable[Request], place: Callable[[Request], Decision], *, strict: bool
) -> Decisions:
    """``Engine.place_many``: runs of requests that the kernel can decide alone go to it together, the others one by
    one."""
    if not isinstance(requests, Iterable):
        raise InvalidValue(f"requests must be Requests in order, got {shown(requests)}", field="requests")
    batch = list(requests)
    fleet = context.fleet
    fleet._reclaim.if_due()
    decisions = Decisions(context, len(batch))
    plan = Plan(context, fleet, batch, place, strict=strict)
    start, now, sequence = fleet._history.hold(), fleet._services.now, fleet._heads.sequence
    try:
        position = 0
        while position < len(batch):
            position = _place_span(plan, decisions, position, plan.span_from(position))
    except BaseException:
        fleet._history.go(start)
        fleet._rewind(now)
        fleet._heads.sequence = sequence
        raise
    fleet._change_log.add_reader(decisions)
    return decisions


def _place_span(plan: Plan, decisions: Decisions, first: int, last: int) -> int:
    """Place requests during which the same services are up; returns the position behind those that have an outcome."""
    alone: list[int] = []
    which = plan.which[first:last]
    if which.min() == ALONE or which.max() >= NESTED:
        alone = (np.flatnonzero((which == ALONE) | (which >= NESTED)) + first).tolist()
    for position in (*alone, last):
        while first < position:
            first, error = _place_run(plan, decisions, first, position)
            if error is not None and _not_carried_out(plan, decisions, first - 1, error):
                return first
        if position < last:
            first, error = position + 1, _place_alone(plan, decisions, position)
            if error is not None and _not_carried_out(plan, decisions, position, error):
                return first
    plan.advance(last - 1)
    return last


def _place_alone(plan: Plan, decisions: Decisions, position: int) -> HostlerError | None:
    """Have ``Engine.place`` decide a request; returns the error if it was not carried out."""
    plan.advance(position)
    if position in plan.errors:
        return plan.errors[position]
    try:
        if plan.which[position] >= NESTED and _place_nested(plan, decisions, position):
            return None
        decisions._add(position, plan.place(plan.batch[position]))
    except HostlerError as error:
        return error
    return None


def _place_nested(plan: Plan, decisions: Decisions, position: int) -> bool:
    """Have the ranking of a request's spec decide it; False if it is left to ``Engine.place``. DuplicateName."""
    signature = plan.shapes.nested[plan.which[position] - NESTED]
    if plan.groups[position] >= 0 or signature.owner.stale or len(plan.fleet._classes) != signature.classes_known:
        return False
    context, request = plan.context, plan.batch[position]
    if request.instance_uuids:
        uuid = request.instance_uuids[0]
        high, low = plan.uuids[position].tolist()
        if plan.fleet._kernel.consumers.get(uuid) >= 0:
            raise DuplicateName(f"consumer {uuid} exists", field="instance_uuids")
    else:
        uuid = context.new_uuid()
        high, low = parse_uuid(uuid)
    answer = decide_nested(context, signature, (high, low), int(plan.projects[position]), int(plan.users[position]))
    if answer is None:
        return False
    decisions._add_nested(position, request, uuid, answer)
    return True


def _not_carried_out(plan: Plan, decisions: Decisions, position: int, error: HostlerError) -> bool:
    """Note the error of a request; those behind it have their turn. True if they do at another time."""
    # Its traceback would keep the frames, and hence all requests, of the batch alive.
    decisions._add_error(position, error.with_traceback(None))
    plan.careful = CAREFUL
    return plan.forget_time(position)


def _place_run(plan: Plan, decisions: Decisions, first: int, last: int) -> tuple[int, HostlerError | None]:
    """Have the kernel decide requests from ``first`` on; returns the position behind those that have an outcome, and
    the error of the last of these if it was not carried out."""
    until, exists = last, False
    if plan.careful:
        until = min(last, first + plan.careful)
        plan.careful *= 2
        plan.new_uuids(first, until)
        existing = _existing(plan.fleet, plan.uuids[first:until])
        if existing is not None:
            until, exists = first + existing, True
    taken = _decide(plan, decisions, first, until)
    if taken == until and not exists:
        return until, None
    own = plan.batch[taken].instance_uuids
    if own:
        return taken + 1, DuplicateName(f"consumer {own[0]} exists", field="instance_uuids")
    plan.uuids[taken] = parse_uuid(plan.context.new_uuid())
    return _decide(plan, decisions, taken, taken + 1), None


def _existing(fleet: Fleet, uuids: NDArray[np.uint64]) -> int | None:
    """The first of ``uuids`` that a consumer has. O(uuids)."""
    holders = np.empty(len(uuids), np.int32)
    kernel.find(fleet._kernel, uuids, holders)
    found = np.flatnonzero(holders >= 0)
    return int(found[0]) if len(found) else None


class _Answers(NamedTuple):
    """What the kernel answered to consecutive requests, up to the first whose uuid existed at its turn."""

    which: NDArray[np.int32]
    uuids: NDArray[np.uint64]
    rows: NDArray[np.int32]
    consumers: NDArray[np.int32]
    scores: NDArray[np.float64]
    counts: NDArray[np.int64]


def _decide(plan: Plan, decisions: Decisions, first: int, last: int) -> int:
    """One kernel call. Returns ``last``, or the position of the first request whose uuid exists at its turn: that one
    and those behind it have changed nothing."""
    if first == last:
        return last
    context, fleet, shapes = plan.context, plan.fleet, plan.shapes
    sequence = fleet._heads.sequence + 1
    answers = _ask_kernel(plan, sequence, first, last)
    done = len(answers.rows)
    placed = answers.consumers[answers.rows >= 0]
    fleet._placed(placed.tolist() if fleet._history.recording else ())
    requests = plan.batch[first : first + done]
    if context.reads_instance_images:
        for request, consumer in zip(requests, answers.consumers.tolist(), strict=True):
            if consumer >= 0 and request.image_properties:
                fleet._image_properties[consumer] = request.image_properties
    if done:
        rankings, sizes = shapes.shapes.rankings_and_sizes(answers.which)
        run = Run(
            first=first,
            sequence=sequence,
            requests=requests,
            stage_names=shapes.stage_names,
            resources=shapes.resources,
            rankings=rankings,
            sizes=sizes,
            uuids=answers.uuids,
            rows=answers.rows,
            scores=answers.scores,
            counts=answers.counts,
        )
        decisions._add_run(run)
    fleet._heads.sequence += done
    return first + done


def _ask_kernel(plan: Plan, sequence: int, first: int, last: int) -> _Answers:
    """Have the kernel decide and claim; the first request gets number ``sequence``. What it claimed for requests behind
    one whose uuid existed is released again."""
    fleet, span, count = plan.fleet, slice(first, last), last - first
    which, uuids = plan.which[span], plan.uuids[span]
    rows, consumers = np.empty(count, np.int32), np.empty(count, np.int32)
    scores, counts = np.empty(count, np.float64), np.empty((count, plan.shapes.width), np.int64)
    done = kernel.place(
        fleet._kernel,
        plan.shapes.shapes,
        which,
        uuids,
        plan.projects[span],
        plan.users[span],
        plan.groups[span],
        True,
        plan.context.seed,
        sequence,
        rows,
        consumers,
        scores,
        counts,
    )
    taken = _taken(fleet, uuids, rows, consumers, done) if done and rows[:done].min() < 0 else None
    if taken is not None:
        behind = consumers[taken:done]
        kernel.release(fleet._kernel, behind[behind >= 0][::-1].copy())
        done = taken
    if done < count:
        uuids = uuids[:done].copy()  # the others may be made again
    return _Answers(which[:done], uuids, rows[:done], consumers[:done], scores[:done], counts[:done])


def _taken(
    fleet: Fleet, uuids: NDArray[np.uint64], rows: NDArray[np.int32], consumers: NDArray[np.int32], done: int
) -> int | None:
    """Position of a refused request, among the first ``done``, whose uuid existed at its turn; the kernel looks only
    where it places."""
    rows, consumers = rows[:done], consumers[:done]
    refused = np.flatnonzero(rows < 0)
    holders = np.empty(len(refused), np.int32)
    kernel.find(fleet._kernel, uuids[refused], holders)
    for position, holder in zip(refused[holders >= 0].tolist(), holders[holders >= 0].tolist(), strict=True):
        if not np.any(consumers[position + 1 :] == holder):
            return int(position)
    return None
