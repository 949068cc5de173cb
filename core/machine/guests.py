"""Commands on guests: placing them within the quotas of their projects, and giving back what they took.

A guest is counted in the same step in which it is placed or removed, so limits hold exactly. Where a limit binds, what
is on its way counts as placed until it is decided; runs of requests are decided together as far as that allows.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from ...placement.decide.batch_decisions import Decisions
from ...placement.decide.moves import expired
from ...placement.load.reports import expiring
from ...placement.load.reports import report_hosts as load_reports
from ...placement.plan.guests import Guests
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError, InUse, InvalidValue, NoValidHost
from ...placement.types.host_report import HostReport, Reported
from ...placement.types.moves import PendingMove
from ...placement.types.request import Destination, Request, RequestSpec
from ..engine_commands import AddServerGroup, Asked, BeginMove, Hold, Placed, RemoveServerGroup, ReportHosts
from ..engine_commands import asked as asked_for
from ..errors import DEPENDS_ON_COMMAND, InternalError, StateUnknown, checked_outcome
from ..tenancy.usage import INSTANCES, SERVER_GROUPS
from .edits import edit
from .guest_claims import check_claim, claimed_before
from .orders import INSTANCES_BY_TYPE
from .phase_timing import PhaseSampler
from .report_columns import reports_of
from .state import ServiceState

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
STEP: Final = 128
"""Weight of the requests of one command that are decided at a time: about a millisecond."""
OTHER_SPEC: Final = 8
NEW_SPEC: Final = 32
"""Weight of the first request of a spec among these, and of the first in the command, where the spec has yet to be
compiled. Every other request weighs 1."""

Held = list[tuple[str, dict[str, int]]]
"""(project, amounts with ``instances``) of consumers."""

log = logging.getLogger("hostler.guests")


_Waiting = tuple[int, Asked, Request, Mapping[str, int]]
"""A request on its way: its position, what was asked, the request, and the amounts reserved for it, if a limit binds
its project. (A plain tuple, as one is made for each placement.)"""


class _Decided(NamedTuple):
    """Requests that the engine has decided: their positions, its answers, and the uuid of the first guest of each."""

    positions: Sequence[int]
    decisions: Decisions
    uuids: list[str]


class _Placing:
    """Requests queued for the engine, in order, and the outcomes of those that were decided."""

    def __init__(self, state: ServiceState, now: float) -> None:
        self.state, self.now = state, now
        self._limited = bool(state.tenants.limits)
        self.waiting: list[_Waiting] = []
        self.decided: list[_Decided] = []
        self.errors: dict[int, HostlerError] = {}
        self.known: dict[int, Decision] = {}
        """Requests that were placed before under the same claim."""

    def add(self, position: int, asked: Asked, spec: bytes | None = None) -> None:
        """Queue a request. ``spec``: that of ``asked``, if the caller has it as bytes."""
        if asked.claim and (known := claimed_before(self.state, asked)) is not None:
            self.known[position] = known
            return
        try:
            request = self.state.request(asked, self.now, spec=spec)
            reserved = self._reserve(request) if self._limited else _NOTHING
        except HostlerError as error:
            self.errors[position] = checked_outcome(error)
            return
        except DEPENDS_ON_COMMAND as error:
            checked_outcome(error)
            self.errors[position] = _unexpected()
            return
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
        tenants, usage = self.state.tenants, self.state.usage
        for _, _, request, reserved in waiting if self._limited else ():
            if reserved:
                usage.add(tenants, request.project_id, reserved, -1)
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
            self.errors[each[0]] = cause if isinstance(cause, HostlerError) else _unexpected()

    def _take(self, waiting: Sequence[_Waiting], sampler: PhaseSampler | None = None) -> None:
        engine, requests = self.state.engine, [request for _, _, request, _ in waiting]
        try:
            decisions = (
                engine.place_many(requests, strict=False) if sampler is None else sampler.place(engine, requests[0])
            )
        except HostlerError as error:
            raise Undone from checked_outcome(error)
        except DEPENDS_ON_COMMAND as error:
            raise Undone from checked_outcome(error)
        try:
            self._charge(waiting, decisions)
        except Exception as error:  # the engine has them, the account has not
            raise StateUnknown("guests were placed and not counted") from error

    def _charge(self, waiting: Sequence[_Waiting], decisions: Decisions) -> None:
        positions, rows, uuids = [each[0] for each in waiting], decisions.rows.tolist(), decisions.uuids()
        self.decided.append(_Decided(positions, decisions, uuids))
        for index, error in decisions.errors.items():
            self.errors[positions[index]] = checked_outcome(error)
        kept, claims = self.state.requests, self.state.requests.claims
        by_spec: dict[int, tuple[Asked, list[str]]] = {}
        """Guests by identity of the decoded spec, which requests with equal bytes share."""
        totals: dict[tuple[int, str], list[int]] = {}
        """[requests, instances] by what a request takes and its project."""
        spec = size = project = None
        for (_, asked, request, _), row, uuid, takes in zip(waiting, rows, uuids, decisions.sizes(), strict=True):
            if row < 0:
                continue
            if request.spec is not spec:
                spec = request.spec
                _, guests = by_spec.setdefault(id(spec), (asked, []))
            if takes != size or request.project_id != project:
                size, project = takes, request.project_id
                total = totals.setdefault((size, project), [0, 0])
            own = request.instance_uuids
            if own:
                guests += own
            else:
                guests.append(uuid)
            total[0] += 1
            total[1] += len(own) or 1
            if asked.claim or claims:
                kept.claim(own or (uuid,), asked.claim)
        for asked, guests in by_spec.values():
            kept.keep(guests, self.state.kept_spec(asked))
        for (takes, owner), (requests, instances) in totals.items():
            amounts = {name: amount * requests for name, amount in decisions.amounts_of(takes).items()}
            self.state.usage.add(self.state.tenants, owner, {INSTANCES: instances, **amounts})


class Undone(Exception):
    """The engine refused a run of requests and is as before; the cause says why."""


def _unexpected() -> InternalError:
    """The error of a request that raised an unexpected exception which depends on the command only."""
    log.exception("a placement failed in an unexpected way; it counts as refused")
    return InternalError("the placement failed in an unexpected way; the service's log says how")


def place_each(
    state: ServiceState, asked: Sequence[Asked], now: float, wanted: Sequence[bool] | None = None
) -> list[Decision | HostlerError | None]:
    """Place requests in order; returns for each its decision (None if not ``wanted``), or the error that refused it."""
    placing = _Placing(state, now)
    for position, each in enumerate(asked):
        placing.add(position, each)
    placing.decide()
    outcomes: list[Decision | HostlerError | None] = [None] * len(asked)
    for positions, decisions, _ in placing.decided:
        if wanted is None:
            for position, decision in zip(positions, decisions, strict=True):
                outcomes[position] = decision
        else:
            for index, position in enumerate(positions):
                if wanted[position]:
                    outcomes[position] = decisions[index]
    for position, error in placing.errors.items():
        outcomes[position] = error
    for position, known in placing.known.items():
        outcomes[position] = known
    return outcomes


def place_many(state: ServiceState, asked: Sequence[Asked], now: float) -> Generator[None, None, Placed]:
    """The same, with a short answer, and in steps."""
    placing, sequence = _Placing(state, now), state.engine.sequence + 1
    weight, specs, known_specs = 0, set[bytes](), set[bytes]()
    last, spec = msgspec.Raw(), b""
    for position, each in enumerate(asked):
        if each.spec != last:
            last = each.spec
            spec = bytes(last)
        own = 1 if spec in specs else OTHER_SPEC if spec in known_specs else NEW_SPEC
        if weight + own > STEP:
            placing.decide()
            yield
            weight = 0
            specs.clear()
            own = max(own, OTHER_SPEC)
        weight += own
        if own > 1:
            specs.add(spec)
            known_specs.add(spec)
        placing.add(position, each, spec)
    placing.decide()
    yield
    hosts: list[str | None] = [None] * len(asked)
    uuids = [""] * len(asked)
    refusals = {position: (error.code, str(error)) for position, error in placing.errors.items()}
    refused_by, removed = Counter[str](), Counter[str]()
    for position, known in placing.known.items():
        hosts[position], uuids[position] = known.host, known.selected.instance_uuid
    for positions, decisions, made in placing.decided:
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


def release(state: ServiceState, uuids: Sequence[str], claim: str = "") -> int:
    """Remove guests, all or none, with a ``claim`` those that were placed under it; what the sources of their moves
    hold goes with them."""
    if claim:
        check_claim(state, uuids, claim)
    held = state.holdings(uuids)
    held += [_source(state, uuid) for uuid in uuids if uuid in state.fleet._consumers.moves]
    count = state.engine.release(uuids)
    for project, amounts in held:
        state.usage.add(state.tenants, project, amounts, -1)
    state.requests.forget(uuids)
    state.holds.end(uuids)
    return count


def hold(state: ServiceState, command: Hold, now: float) -> Decision:
    """Place a request; its guests are released after a time unless they are confirmed."""
    (outcome,) = place_each(state, (command.request,), now)
    if isinstance(outcome, HostlerError):
        raise outcome
    assert outcome is not None
    state.holds.add((each.instance_uuid for each in outcome.selections), now + command.expires_in)
    return outcome


def confirm_hold(state: ServiceState, uuids: Sequence[str]) -> int:
    """Have held guests stay, all or none; returns how many."""
    for uuid in uuids:
        state.project_of(uuid)  # which says if there is none
        if uuid not in state.holds:
            raise InvalidValue(f"instance {uuid} is not held", field="uuids")
    return state.holds.end(uuids)


def expire_holds(state: ServiceState, now: float) -> None:
    """Release held guests whose time is over. O(those)."""
    due = state.holds.due(now)
    consumers = state.fleet._kernel.consumers
    standing = [uuid for uuid in due if consumers.get(uuid) >= 0]
    state.holds.end(due)
    if standing:
        release(state, standing)


def _source(state: ServiceState, uuid: str) -> tuple[str, dict[str, int]]:
    """(project, amounts) that the source of a guest's move holds; the guest itself is counted at its target."""
    move = state.fleet._consumers.moves[uuid]
    if not move.migration or state.fleet._kernel.consumers.get(move.migration) < 0:
        return state.project_of(uuid), {}
    project, amounts = state.holding(move.migration)
    return project, {name: amount for name, amount in amounts.items() if name != INSTANCES}


def begin_move(state: ServiceState, command: BeginMove, now: float) -> Decision:
    """Claim a new place for a guest and keep the old one. Both count in the project's usage, the instance once."""
    uuid = command.uuid
    consumer = state.fleet.consumer(uuid)
    asked = command.request
    known = asked is not None or command.target is None or state.requests.get(uuid) is not None
    if asked is None:
        asked = state.asked_of(uuid) if known else derived(state, uuid)
    project, before = consumer.project_id, _held_by(state, (uuid,))
    if asked.project_id not in ("", project):
        raise InvalidValue(f"instance {uuid} is in project {project!r}", field="project_id")
    asked = msgspec.structs.replace(asked, project_id=project)
    request = state.request(asked, now, (uuid,)).with_changes(user_id=consumer.user_id)
    if command.target is not None:
        request = request.with_changes(spec=_to(state, request.spec, command.target))
    more = {name: amount for name, amount in state.amounts(request).items() if name != INSTANCES}
    state.usage.check(state.tenants, project, more)
    expires = None if command.expires_in is None else now + command.expires_in
    options = {"kind": command.kind, "migration": command.migration, "on_expiry": command.on_expiry}
    try:
        decision = state.engine.begin_move(uuid, request, expires=expires, **options)  # type: ignore[arg-type]  # one dict for keywords of several types
    except DEPENDS_ON_COMMAND:
        raise _unexpected() from None
    if decision.placed:
        ends = (uuid, state.fleet._consumers.moves[consumer.uuid].migration)
        _count_change(state, before, _held_by(state, ends))
        if known:
            state.requests.keep_during_move(uuid, state.kept_spec(asked))
    return decision


def check_no_sources(state: ServiceState, uuids: Sequence[str]) -> None:
    """InUse for the consumer that holds the source of a move: the end of the move gives it back. O(uuids + moves)."""
    known, moves = state.fleet._kernel.consumers, state.fleet._consumers.moves
    sources = {known.get(move.migration): uuid for uuid, move in moves.items() if move.migration}
    for consumer in state.fleet._consumers.find(uuids).tolist():
        if consumer >= 0 and consumer in sources:
            problem = f"it holds the source of the move of instance {sources[consumer]}"
            raise InUse(problem, field="uuid", hint="confirm or revert that move")


def derived(state: ServiceState, uuid: str) -> Asked:
    """A request for what an instance holds. InvalidValue if none can be derived."""
    guests = Guests(state.fleet, None, "cold_migrate", frozenset())
    guest = guests.of(state.fleet.consumer_id(uuid, field="uuid"))
    if guest.request is None:
        raise InvalidValue(f"instance {uuid} cannot move: {guest.stays}", field="request", hint="give the request")
    return asked_for(guest.request.with_changes(server_group=None))


def _to(state: ServiceState, spec: RequestSpec, node: str) -> RequestSpec:
    """A spec for one node only."""
    host = state.fleet._service_host(state.fleet.row(node, field="target"))
    destination = spec.requested_destination or Destination()
    return dataclasses.replace(spec, requested_destination=dataclasses.replace(destination, host=host, node=node))


def end_move(state: ServiceState, uuid: str, *, confirm: bool) -> PendingMove:
    """Confirm or revert the move of a guest: one of its ends no longer counts."""
    fleet = state.fleet
    if uuid not in fleet._consumers.moves:
        return state.engine.confirm(uuid) if confirm else state.engine.revert(uuid)  # which says that there is none
    ends = (uuid, fleet._consumers.moves[uuid].migration)
    before = _held_by(state, ends)
    move = state.engine.confirm(uuid) if confirm else state.engine.revert(uuid)
    _count_change(state, before, _held_by(state, ends))
    state.requests.end_move(uuid, confirm=confirm)
    state.forget_gone((uuid,))
    return move


def _count_change(state: ServiceState, before: Held, after: Held) -> None:
    """Count what consumers hold instead of what they held."""
    for sign, held in ((-1, before), (1, after)):
        for project, amounts in held:
            state.usage.add(state.tenants, project, amounts, sign)


def _held_by(state: ServiceState, ends: Iterable[str]) -> Held:
    """(project, amounts) of the ends of a move; clients of the Placement API may have removed either of them."""
    consumers = state.fleet._kernel.consumers
    held = [state.holding(uuid) for uuid in ends if uuid and consumers.get(uuid) >= 0]
    if state.rules >= INSTANCES_BY_TYPE:
        return held
    return [(project, {name: n for name, n in amounts.items() if name != INSTANCES}) for project, amounts in held]


def expire_moves(state: ServiceState, now: float) -> None:
    """End the moves whose time is over. O(moves)."""
    for move in expired(state.fleet, now):
        end_move(state, move.instance, confirm=move.on_expiry == "confirm")


def report_hosts(state: ServiceState, command: ReportHosts, now: float) -> Reported:
    """Take in reports of hosts; claims that no report has had for too long are released, in the usage as well. Hosts
    stay in their resource pools."""
    reports = reports_of(command, now)
    late = expiring(state.fleet, reports, claim_timeout=command.claim_timeout)
    held = [state.holding(uuid) for uuid in late]
    reported = load_reports(state.fleet, map(state.with_pools, reports), claim_timeout=command.claim_timeout)
    for project, amounts in held:
        state.usage.add(state.tenants, project, amounts, -1)
    state.requests.forget(late)
    if state.holds:
        # A host that has a guest shows that the hold was taken up.
        state.holds.end((*late, *(uuid for report in reports for uuid in _included(report))))
    return reported


def _included(report: HostReport) -> Iterable[str]:
    """Uuids of the guests that a report counts."""
    return report.includes if report.includes is not None else report.host.instances


def replace(state: ServiceState, uuid: str, given: Asked | None, now: float, *, leave: bool, rules: int) -> Decision:
    """Place a guest again, in the pools of its project: on another host (``leave``), or wherever it fits with another
    flavor. Without a request it is judged by what was asked when it was placed. Under rules 0 a request without a
    project is in no pools."""
    consumer = state.fleet.consumer(uuid)
    asked = given if given is not None else state.asked_of(uuid)
    project, before = state.holding(uuid)
    if asked.project_id not in ("", project):
        raise InvalidValue(f"instance {uuid} is in project {project!r}", field="project_id")
    if rules:
        asked = msgspec.structs.replace(asked, project_id=project)
    request = state.request(asked, now, (uuid,)).with_changes(project_id=project, user_id=consumer.user_id)
    engine, tenants, usage = state.engine, state.tenants, state.usage
    usage.add(tenants, project, before, -1)
    after = before
    try:
        usage.check(tenants, project, state.amounts(request))
        decision = engine.move(uuid, request) if leave else engine.resize(uuid, request)
        if decision.placed:
            after = state.holding(uuid)[1]
            state.requests.keep((uuid,), state.kept_spec(asked))
        return decision
    except DEPENDS_ON_COMMAND:
        raise _unexpected() from None
    finally:
        usage.add(tenants, project, after)


def change_groups(state: ServiceState, command: AddServerGroup | RemoveServerGroup, now: float) -> None:
    """Add or remove a server group; a group of a project counts towards its limit."""
    tenants, usage, owners = state.tenants, state.usage, state.group_owners
    if isinstance(command, AddServerGroup):
        project = command.project_id
        if project:
            usage.check_groups(tenants, project)
        edit(state.engine, command, now)
        if project:
            owners[state.fleet._server_groups.kept(command.uuid)] = project
            usage.add(tenants, project, {SERVER_GROUPS: 1})
        return
    uuid = state.fleet._server_groups.kept(command.uuid)
    edit(state.engine, command, now)
    owner = owners.pop(uuid, None)
    if owner is not None:
        usage.add(tenants, owner, {SERVER_GROUPS: 1}, -1)
