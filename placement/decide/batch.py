"""Many placements in one kernel call: requests become arrays, and so do their answers."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext import batch as kernel
from ...ext.tables import parse_uuid
from ..fleet.fleet import Fleet
from ..types.decision import Decision
from ..types.errors import DuplicateName, HostlerError, InvalidValue
from ..types.request import Request
from ..types.validation import shown
from .batch_decisions import Decisions
from .batch_plan import ALONE, Answers, Plan
from .context import DecisionContext
from .nested_batch import decide_nested
from .nested_run import Kinds, NestedRun, ask_for_nested, keep_taken, plain_parts
from .run import Run
from .shape_table import NESTED

CAREFUL: Final = 64
"""Requests of the first kernel call behind one that was not carried out; each further call may have twice as many."""


def place_batch(
    context: DecisionContext,
    requests: Iterable[Request],
    place: Callable[[Request], Decision],
    *,
    strict: bool,
    built_at: Sequence[int] = (),
) -> Decisions:
    """``Engine.place_many``: runs of requests that the kernel can decide alone go to it together, the others one by
    one. ``built_at``: positions, ascending, of the requests before each of which all guests of those before it have
    been built, as ``Engine.spawned`` says; the requests bring the uuids of their instances then."""
    if not isinstance(requests, Iterable):
        raise InvalidValue(f"requests must be Requests in order, got {shown(requests)}", field="requests")
    batch = list(requests)
    built = [] if isinstance(built_at, tuple) and not built_at else _positions(batch, built_at)
    fleet = context.fleet
    fleet._reclaim.if_due()
    decisions = Decisions(context, len(batch))
    plan = Plan(context, fleet, batch, place, strict=strict)
    start, now, sequence = fleet._history.hold(), fleet._services.now, fleet._heads.sequence
    try:
        position = done = 0
        for begins, ends in itertools.pairwise((0, *built, len(batch))):
            if begins > done:
                _build(plan, decisions, done, begins)
                done = begins
            while position < ends:
                position = _place_span(plan, decisions, position, min(plan.span_from(position), ends))
    except BaseException:
        fleet._history.go(start)
        fleet._rewind(now)
        fleet._heads.sequence = sequence
        raise
    fleet._change_log.add_reader(decisions)
    return decisions


def _positions(batch: list[Request], built_at: Sequence[int]) -> list[int]:
    """``built_at`` as numbers. InvalidValue. O(requests)."""
    try:
        found = [-1 if isinstance(each, bool) else operator.index(each) for each in built_at]
    except TypeError:
        found = [-1]
    if any(a > b for a, b in itertools.pairwise((0, *found, len(batch)))):
        problem = f"built_at must be positions of requests, ascending, got {shown(built_at)}"
        raise InvalidValue(problem, field="built_at")
    # Values that are not Requests are reported by Plan, as without positions.
    if not all(each.instance_uuids for each in batch[: max(found, default=0)] if isinstance(each, Request)):
        raise InvalidValue("requests that are built must bring the uuids of their instances", field="instance_uuids")
    return found


def _build(plan: Plan, decisions: Decisions, first: int, last: int) -> None:
    """The guests of a part of the requests have been built. O(requests)."""
    fleet, placed = plan.fleet, np.flatnonzero(decisions.rows[first:last] >= 0) + first
    alone = plan.which[placed] == ALONE
    consumers = np.empty(len(placed) - int(np.count_nonzero(alone)), np.int32)
    kernel.find(fleet._kernel, plan.uuids[placed[~alone]], consumers)
    for consumer in consumers.tolist():
        fleet._set_building(consumer, False)
    for at in placed[alone].tolist():
        for selection in decisions[at].selections:
            fleet._set_building(fleet.consumer_id(selection.instance_uuid), False)


def _place_span(plan: Plan, decisions: Decisions, first: int, last: int) -> int:
    """Place requests during which the same services are up; returns the position behind those that have an outcome."""
    alone: list[int] = []
    which = plan.which[first:last]
    if which.min() == ALONE:
        alone = (np.flatnonzero(which == ALONE) + first).tolist()
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
    until, exists = plan.together(first, last), False
    if until == first:
        return first + 1, _place_alone(plan, decisions, first)
    if plan.careful:
        until = min(until, first + plan.careful)
        plan.careful *= 2
        plan.new_uuids(first, until)
        existing = _existing(plan.fleet, plan.uuids[first:until])
        if existing is not None:
            until, exists = first + existing, True
    taken, decided = _decide(plan, decisions, first, until)
    if not decided:
        return taken + 1, _place_alone(plan, decisions, taken)
    if taken == until and not exists:
        return until, None
    own = plan.batch[taken].instance_uuids
    if own:
        return taken + 1, DuplicateName(f"consumer {own[0]} exists", field="instance_uuids")
    plan.uuids[taken] = parse_uuid(plan.context.new_uuid())
    taken, decided = _decide(plan, decisions, taken, taken + 1)
    return (taken, None) if decided else (taken + 1, _place_alone(plan, decisions, taken))


def _existing(fleet: Fleet, uuids: NDArray[np.uint64]) -> int | None:
    """The first of ``uuids`` that a consumer has. O(uuids)."""
    holders = np.empty(len(uuids), np.int32)
    kernel.find(fleet._kernel, uuids, holders)
    found = np.flatnonzero(holders >= 0)
    return int(found[0]) if len(found) else None


def _decide(plan: Plan, decisions: Decisions, first: int, last: int) -> tuple[int, bool]:
    """One kernel call. Returns ``last``, or the position of the first request whose uuid exists at its turn, or that is
    left to Python (False): that one and those behind it have changed nothing."""
    if first == last:
        return last, True
    context, fleet, shapes = plan.context, plan.fleet, plan.shapes
    sequence = fleet._heads.sequence + 1
    mixed = int(plan.which[first:last].max()) >= NESTED
    answers = (ask_for_nested if mixed else _ask_kernel)(plan, sequence, first, last)
    done = len(answers.rows)
    kinds: Kinds = {}
    try:
        if mixed:
            kinds = _keep(plan, answers)
    finally:
        fleet._placed(answers.consumers[answers.rows >= 0].tolist() if fleet._history.recording else ())
    requests = plan.batch[first : first + done]
    if context.reads_instance_images:
        for request, consumer in zip(requests, answers.consumers.tolist(), strict=True):
            if consumer >= 0 and request.image_properties:
                fleet._image_properties[consumer] = request.image_properties
    for start, end in plain_parts(answers.which) if mixed else ((0, done),) if done else ():
        rankings, sizes = shapes.shapes.rankings_and_sizes(answers.which[start:end])
        run = Run(
            first=first + start,
            sequence=sequence + start,
            requests=requests[start:end],
            stage_names=shapes.stage_names,
            resources=shapes.resources,
            rankings=rankings,
            sizes=sizes,
            uuids=answers.uuids[start:end],
            rows=answers.rows[start:end],
            scores=answers.scores[start:end],
            counts=answers.counts[start:end, : shapes.width],
        )
        decisions._add_run(run)
    if kinds:
        decisions._add_nested_run(NestedRun(plan, first, sequence, answers, kinds))
    fleet._heads.sequence += done
    if not answers.decided:
        number = int(plan.which[first + done]) - NESTED
        shapes.nested_shapes.drop(number, shapes.nested[number])
    return first + done, answers.decided


def _keep(plan: Plan, answers: Answers) -> Kinds:
    """Note what the kernel has claimed elsewhere than on hosts. An interrupt leaves it noted in full: only so can it be
    undone. O(requests)."""
    try:
        return keep_taken(plan, answers)
    except BaseException:
        keep_taken(plan, answers)
        raise


def _ask_kernel(plan: Plan, sequence: int, first: int, last: int) -> Answers:
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
    return Answers(which[:done], uuids, rows[:done], consumers[:done], scores[:done], counts[:done])


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
