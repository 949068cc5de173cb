"""Placing guests within the quotas of their projects.

A guest is counted in the same step in which it is placed, so limits hold exactly. Where a limit binds, what is on its
way counts as placed until it is decided; runs of requests are decided together as far as that allows.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import chain, compress, groupby, repeat
from operator import attrgetter
from types import MappingProxyType
from typing import Final, NamedTuple

from ...placement.decide.batch_decisions import Decisions
from ...placement.decide.in_steps import is_long
from ...placement.types.decision import Decision, PackedDecision
from ...placement.types.errors import HostlerError, NoValidHost
from ...placement.types.request import Request
from ...placement.types.steps import finished
from ..engine_commands import Asked, KnownSpec, Placed
from ..errors import DEPENDS_ON_COMMAND, InternalError, StateUnknown, checked_outcome
from ..tenancy.usage import INSTANCES
from .guest_claims import claimed_before
from .phase_timing import PhaseSampler
from .state import ServiceState

_NONE_REFUSED: Final[tuple[bool, ...]] = ()
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
STEP: Final = 128
"""Weight of the requests of one command that are decided at a time: about a millisecond."""
OTHER_SPEC: Final = 6
NEW_SPEC: Final = 32
"""Weight of the first request of a spec among these, and of the first in the command where no guest has been placed
with the spec: it has yet to be compiled. Every other request weighs 1."""

INSTANCE_WEIGHT: Final = 16
"""What each instance of a request for several weighs."""

_SPEC, _UUIDS, _PROJECT, _CLAIM = map(attrgetter, ("spec", "instance_uuids", "project_id", "claim"))

log = logging.getLogger("hostler.guests")


_Waiting = tuple[int, Asked, Request, Mapping[str, int]]
"""A request on its way: its position, what was asked, the request, and the amounts reserved for it, if a limit binds
its project. (A plain tuple, as one is made for each placement.)"""


class _Decided(NamedTuple):
    """Requests that the engine has decided, their positions, its answers, and the uuid of the first guest of each."""

    positions: Sequence[int]
    requests: Sequence[Request]
    decisions: Decisions
    uuids: list[str]


class _Placing:
    """Requests queued for the engine, in order, and the outcomes of those that were decided."""

    def __init__(self, state: ServiceState, now: float) -> None:
        self.state, self.now = state, now
        self._limited = bool(state.tenants.limits)
        self._last: tuple[Asked, Request] | None = None
        """What was read last; equal ones share its request."""
        self.waiting: list[_Waiting] = []
        self.decided: list[_Decided] = []
        self.errors: dict[int, HostlerError] = {}
        self.known: dict[int, Decision] = {}
        """Requests that were placed before under the same claim."""
        self._claimed = False
        """True if a request has the id of a parent's claim."""

    def add(self, position: int, asked: Asked, spec: bytes | None = None, count: int = 1) -> None:
        """Queue a request, or ``count`` equal ones from a position on. ``spec``: that of ``asked``, if the caller has
        it as bytes."""
        if asked.claim:
            self._claimed = True
            if count > 1:
                for at in range(position, position + count):
                    self.add(at, asked, spec)
                return
            if any(each.claim == asked.claim for _, each, _, _ in self.waiting):
                self.decide()  # it may be one of these
            known = claimed_before(self.state, asked)
            if known is not None:
                self.known[position] = known
                return
        try:
            last = self._last
            if last is not None and asked == last[0]:
                request = last[1]
            else:
                request = self.state.request(asked, self.now, spec=spec)
                self._last = asked, request
        except (HostlerError, *DEPENDS_ON_COMMAND) as error:
            self.errors.update(dict.fromkeys(range(position, position + count), _outcome_of(error)))
        else:
            if self._limited:
                self._add_counted(range(position, position + count), asked, request)
            elif count == 1:
                self.waiting.append((position, asked, request, _NOTHING))
            else:
                alike = repeat(asked), repeat(request), repeat(_NOTHING)
                self.waiting += zip(range(position, position + count), *alike, strict=False)

    def add_each(self, first: int, asked: Sequence[Asked], specs: Sequence[bytes]) -> None:
        """Queue requests that come one after the other, of which hardly two are equal. ``specs``: theirs, as bytes."""
        if self._limited or any(map(_CLAIM, asked)):
            for position, (each, spec) in enumerate(zip(asked, specs, strict=True), first):
                self.add(position, each, spec)
            return
        waiting, request_of, now = self.waiting, self.state.request, self.now
        for position, (each, spec) in enumerate(zip(asked, specs, strict=True), first):
            try:
                waiting.append((position, each, request_of(each, now, spec=spec), _NOTHING))
            except (HostlerError, *DEPENDS_ON_COMMAND) as error:
                self.errors[position] = _outcome_of(error)

    def _add_counted(self, positions: range, asked: Asked, request: Request) -> None:
        for position in positions:
            try:
                reserved = self._reserve(request)
            except (HostlerError, *DEPENDS_ON_COMMAND) as error:
                self.errors[position] = _outcome_of(error)
            else:
                self.waiting.append((position, asked, request, reserved))

    def _reserve(self, request: Request) -> Mapping[str, int]:
        """Count the request's amounts if its project has a limit. QuotaExceeded if it would be exceeded."""
        tenants, usage, project = self.state.tenants, self.state.usage, request.project_id
        if next(tenants.limits_above(f"project:{project}"), None) is None:
            return _NOTHING
        amounts = self.state.amounts(request)
        try:
            usage.check(tenants, project, amounts)
        except HostlerError:
            if not self.waiting:
                raise
            self.decide()  # some queued requests may be refused
            usage.check(tenants, project, amounts)
        usage.add(tenants, project, amounts)
        return amounts

    def decide(self) -> None:
        """Have the engine decide all that wait."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        if self._limited:
            self._give_back(waiting)
        failed = False
        parts = ((waiting, None),) if self.state.sampler is None else self._parts(self.state.sampler, waiting)
        for part, sampler in parts:
            try:
                if not failed:
                    self._take(part, sampler)
            except Undone:
                failed = True  # one of them is at fault; the others have their turn all the same
            if failed:
                for each in part:
                    self._take_alone(each)

    def _give_back(self, waiting: Sequence[_Waiting]) -> None:
        """What was reserved for those that wait."""
        tenants, usage = self.state.tenants, self.state.usage
        for _, _, request, reserved in waiting:
            if reserved:
                usage.add(tenants, request.project_id, reserved, -1)

    def decide_in_steps(self) -> Generator[None, None, None]:
        """``decide``, in steps where one request waits that takes several."""
        if len(self.waiting) != 1 or not is_long(self.waiting[0][1]):
            self.decide()
            return
        waiting, self.waiting = self.waiting, []
        self._give_back(waiting)
        ((position, asked, request, _),) = waiting
        try:
            decisions = yield from self.state.engine.place_in_steps(request)
        except (HostlerError, *DEPENDS_ON_COMMAND) as error:
            checked_outcome(error)
            self.errors[position] = error if isinstance(error, HostlerError) else unexpected()
            return
        self._charge((position,), (asked,), (request,), decisions)

    @staticmethod
    def _parts(sampler: PhaseSampler, waiting: list[_Waiting]) -> Iterator[tuple[list[_Waiting], PhaseSampler | None]]:
        """All that wait, together; or apart, where one is to be measured."""
        chosen = sampler.choose(len(waiting))
        if chosen is None:
            yield waiting, None
            return
        if chosen > 0:
            yield waiting[:chosen], None
        yield waiting[chosen : chosen + 1], sampler
        if chosen + 1 < len(waiting):
            yield waiting[chosen + 1 :], None

    def _take_alone(self, each: _Waiting) -> None:
        try:
            self._take([each])
        except HostlerError as error:
            self.errors[each[0]] = checked_outcome(error)
        except Undone as undone:
            cause = undone.__cause__
            self.errors[each[0]] = cause if isinstance(cause, HostlerError) else unexpected()

    def _take(self, waiting: Sequence[_Waiting], sampler: PhaseSampler | None = None) -> None:
        engine, (positions, asked, requests, _) = self.state.engine, zip(*waiting, strict=True)
        try:
            decisions = (
                engine.place_many(requests, strict=False) if sampler is None else sampler.place(engine, requests[0])
            )
        except (HostlerError, *DEPENDS_ON_COMMAND) as error:
            raise Undone from checked_outcome(error)
        self._charge(positions, asked, requests, decisions)

    def _charge(
        self, positions: Sequence[int], asked: Sequence[Asked], requests: Sequence[Request], decisions: Decisions
    ) -> None:
        """Count what was placed, and keep what it was asked with. StateUnknown if that fails: the engine has them, the
        account has not."""
        try:
            uuids = decisions.uuids()
            self.decided.append(_Decided(positions, requests, decisions, uuids))
            for index, error in decisions.errors.items():
                self.errors[positions[index]] = checked_outcome(error)
            sizes = decisions.sizes()
            if (decisions.rows < 0).any():
                placed = (decisions.rows >= 0).tolist()
                asked, requests = list(compress(asked, placed)), list(compress(requests, placed))
                uuids, sizes = list(compress(uuids, placed)), list(compress(sizes, placed))
            specs, projects = list(map(id, map(_SPEC, requests))), list(map(_PROJECT, requests))
            instances = list(map(len, map(_UUIDS, requests)))  # 0 for one whose uuid the engine has made
            self._keep(asked, specs, uuids, requests if max(instances, default=0) > 1 else None)
            used: dict[str, dict[str, int]] = {}
            for (project, size, each), count in Counter(zip(projects, sizes, instances, strict=True)).items():
                amounts = used.setdefault(project, {INSTANCES: 0})
                amounts[INSTANCES] += (each or 1) * count
                for name, amount in decisions.amounts_of(size).items():
                    amounts[name] = amounts.get(name, 0) + amount * count
            for project, amounts in used.items():
                self.state.usage.add(self.state.tenants, project, amounts)
        except Exception as error:
            raise StateUnknown("guests were placed and not counted") from error

    def _keep(
        self, asked: Sequence[Asked], specs: Sequence[int], uuids: list[str], several: Sequence[Request] | None
    ) -> None:
        """Keep the specs and claims of guests. ``specs``: identities of the decoded specs, which requests with equal
        bytes share. ``uuids``: of the first guest of each request. ``several``: the requests, if some are for several
        guests."""
        kept = self.state.requests
        guests = None
        if several is not None:
            guests = [each.instance_uuids or (uuid,) for each, uuid in zip(several, uuids, strict=True)]
        one_of = dict(zip(specs, asked, strict=True))
        for one in one_of.values():
            self.state.specs[bytes(one.spec)].placed = True
        if len(one_of) == 1:
            kept.keep(uuids if guests is None else list(chain.from_iterable(guests)), self.state.kept_spec(asked[-1]))
        else:
            by_spec: dict[int, list[str]] = {spec: [] for spec in one_of}
            if guests is None:
                for spec, uuid in zip(specs, uuids, strict=True):
                    by_spec[spec].append(uuid)
            else:
                for spec, each in zip(specs, guests, strict=True):
                    by_spec[spec] += each
            for spec, several_uuids in by_spec.items():
                kept.keep(several_uuids, self.state.kept_spec(one_of[spec]))
        if kept.claims or self._claimed:
            for one, each in zip(asked, list(zip(uuids)) if guests is None else guests, strict=True):
                kept.claim(each, one.claim)


class Undone(Exception):
    """The engine refused a run of requests and is as before; the cause says why."""


def _outcome_of(error: Exception) -> HostlerError:
    """What becomes of a request that cannot be queued."""
    checked_outcome(error)
    return error if isinstance(error, HostlerError) else unexpected()


def unexpected() -> InternalError:
    """The error of a request that raised an unexpected exception which depends on the command only."""
    log.exception("a placement failed in an unexpected way; it counts as refused")
    return InternalError("the placement failed in an unexpected way; the service's log says how")


def place_one(state: ServiceState, asked: Asked, now: float) -> Decision:
    """Place a request. HostlerError if it is refused for another reason than that no host passes."""
    return finished(place_one_in_steps(state, asked, now, at_once=True))


def place_one_in_steps(
    state: ServiceState, asked: Asked, now: float, *, at_once: bool = False
) -> Generator[None, None, Decision]:
    """The same in steps, where it takes more than a millisecond; between two of them nothing has changed."""
    placing = _Placing(state, now)
    placing.add(0, asked)
    if at_once:
        placing.decide()
    else:
        yield from placing.decide_in_steps()
    (outcome,) = _outcomes(placing, 1, (True,))
    if isinstance(outcome, HostlerError):
        raise outcome
    assert isinstance(outcome, Decision), "it is wanted"
    return outcome


def place_run(
    state: ServiceState, asked: Sequence[Asked], now: float, wanted: Sequence[bool] | None = None
) -> list[PackedDecision | Decision | HostlerError | None]:
    """Place requests in order; returns for each its decision (None if not ``wanted``), or the error that refused it."""
    placing = _Placing(state, now)
    for position, each in enumerate(asked):
        placing.add(position, each)
    placing.decide()
    return _outcomes(placing, len(asked), wanted)


def _outcomes(
    placing: _Placing, count: int, wanted: Sequence[bool] | None
) -> list[PackedDecision | Decision | HostlerError | None]:
    outcomes: list[PackedDecision | Decision | HostlerError | None] = [None] * count
    for positions, requests, decisions, _ in placing.decided:
        unplaced = decisions.rows < 0
        refused = unplaced.tolist() if unplaced.any() else _NONE_REFUSED
        if wanted is None:
            for position, decision in zip(positions, decisions._to_pass_on(), strict=True):
                outcomes[position] = decision
        else:
            for index, position in enumerate(positions):
                if wanted[position]:
                    outcomes[position] = decisions[index]
        for index in compress(range(len(positions)), refused):
            found = outcomes[positions[index]]
            if isinstance(found, Decision) and index not in decisions.errors:
                outcomes[positions[index]] = _advised(placing.state, requests[index], found)
    for position, error in placing.errors.items():
        outcomes[position] = error
    for position, known in placing.known.items():
        outcomes[position] = known
    return outcomes


def weights_of(requests: Sequence[Asked]) -> list[int]:
    """Weights of the instances of requests, in order; 0 for a request for one."""
    counts = list(map(len, map(_UUIDS, requests)))
    if max(counts, default=0) < 2:
        return [0] * len(counts)
    return [INSTANCE_WEIGHT * count if count > 1 else 0 for count in counts]


def _advised(state: ServiceState, request: Request, decision: Decision) -> Decision:
    """A refusal with what would help."""
    try:
        return state.engine.advise(request, decision)
    except (HostlerError, *DEPENDS_ON_COMMAND):
        log.exception("what would help a refused request was not worked out")
        return decision


def _steps(specs: Sequence[bytes], weights: Sequence[int], read: Mapping[bytes, KnownSpec]) -> Iterator[int]:
    """Where each step of a command ends. ``read``: the specs that were read before."""
    all_specs = set(specs)
    new, known = set[bytes](), {spec for spec in all_specs if (found := read.get(spec)) is not None and found.placed}
    """Of the step, and of those before."""
    first = OTHER_SPEC * len(known) + NEW_SPEC * (len(all_specs) - len(known))
    if first + len(specs) - len(all_specs) + sum(weights) <= STEP:
        yield len(specs)
        return
    weight = 0
    for position, (spec, instances) in enumerate(zip(specs, weights, strict=True)):
        own = 1 if spec in new else OTHER_SPEC if spec in known else NEW_SPEC
        if weight and weight + own + instances > STEP:
            yield position
            weight = 0
            known |= new
            new.clear()
            own = max(own, OTHER_SPEC)
        if own > 1:
            new.add(spec)
        weight += own + instances
    yield len(specs)


def place_many(state: ServiceState, asked: Sequence[Asked], now: float) -> Generator[None, None, Placed]:
    """The same, with a short answer, and in steps."""
    placing, sequence = _Placing(state, now), state.engine.sequence + 1
    specs, first = list(map(bytes, map(_SPEC, asked))), 0
    for end in _steps(specs, weights_of(asked), state.specs):
        if first:
            yield from placing.decide_in_steps()
            yield
        step = asked[first:end]
        if all(map(_UUIDS, step)):  # hardly two of them are equal
            placing.add_each(first, step, specs[first:end])
            first = end
            continue
        for each, alike in groupby(step):
            count = len(list(alike))
            placing.add(first, each, specs[first], count)
            first += count
    yield from placing.decide_in_steps()
    yield
    hosts: list[str | None] = [None] * len(asked)
    uuids = [""] * len(asked)
    refusals = {position: (error.code, str(error)) for position, error in placing.errors.items()}
    refused_by, removed = Counter[str](), Counter[str]()
    for position, known in placing.known.items():
        hosts[position], uuids[position] = known.host, known.selected.instance_uuid
    for positions, _, decisions, made in placing.decided:
        rows, first, end = decisions.rows, positions[0], positions[-1] + 1
        names = state.fleet._service_hosts(rows[rows >= 0])
        if len(names) == end - first:  # all of them, one after the other
            hosts[first:end], uuids[first:end] = names, made
            continue
        placed = iter(names)
        for index, (position, row, uuid) in enumerate(zip(positions, rows.tolist(), made, strict=True)):
            if row >= 0:
                hosts[position], uuids[position] = next(placed), uuid
            elif index not in decisions.errors:
                uuids[position] = uuid
                refusal = decisions[index].refusal
                assert refusal is not None
                refusals[position] = (NoValidHost.code, refusal.sentence)
                refused_by[refusal.stage] += 1
                removed.update({stage: count for stage, count in decisions[index].removed.items() if count})
    return Placed(
        sequence=sequence,
        hosts=hosts,
        instance_uuids=uuids,
        refusals=dict(sorted(refusals.items())),
        refused_by=dict(sorted(refused_by.items())),
        removed=dict(sorted(removed.items())),
    )
