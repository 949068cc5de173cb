"""The engine: places guests on one fleet under one policy, and says why. The same fleet and commands give the same
decisions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ..fleet.fleet import Fleet, whole_number
from ..policy.policy import Policy
from ..request.checks import check_request, check_spec
from ..types.decision import Decision
from ..types.errors import InUse, InvalidValue, NoValidHost
from ..types.moves import Expiry, MoveKind, PendingMove
from ..types.plans import Goal, Plan, PlanOptions
from ..types.request import Request
from ..types.validation import shown
from . import moves
from .batch import place_batch
from .batch_decisions import Decisions
from .choosing import CandidateClaim, Choosing
from .context import DecisionContext
from .explain.explanation import Explanation, explain
from .explain.refusals import advised
from .fits import Fit, SharedFit, fits, fits_many
from .in_steps import place_alone
from .offered import place_offered, place_offered_in_steps
from .placement import place, ruled_out
from .scan import Ranked, Scan
from .scan_placement import ClaimHook


class Engine:
    """Places guests on a fleet. Not thread-safe; deterministic given the fleet, the policy, ``seed`` and the calls.

    ``seed`` feeds every random choice (``host_subset_size``, ``shuffle_best_same_weighed_hosts``, uuids left out).
    """

    def __init__(self, fleet: Fleet | None = None, policy: Policy | None = None, *, seed: int | None = None) -> None:
        _check_kind(fleet, Fleet, "fleet")
        _check_kind(policy, Policy, "policy")
        policy = policy if policy is not None else Policy.nova_default()
        fleet = fleet if fleet is not None else Fleet()
        seed = whole_number(policy.seed if seed is None else seed, "seed", most=2**63 - 1)
        self._context = DecisionContext(fleet, policy, seed)

    def __repr__(self) -> str:
        return f"<Engine on {self.fleet!r} under {self.policy!r}, seed {self.seed}, {self.sequence} decisions>"

    # sequence and state

    @property
    def fleet(self) -> Fleet:
        """The fleet as this engine sees it. A fork has a Fleet of its own."""
        return self._context.fleet

    @property
    def policy(self) -> Policy:
        """The policy that this engine decides under."""
        return self._context.policy

    @property
    def seed(self) -> int:
        """Seed of every random choice."""
        return self._context.seed

    @property
    def sequence(self) -> int:
        """Number of this engine's latest decision. Engines on one fleet that are no forks count together, and a fleet
        that was saved and loaded goes on counting."""
        return self._context.sequence

    @sequence.setter
    def sequence(self, number: int) -> None:
        self._context.sequence = number

    def advance(self, now: float | None) -> None:
        """Set the time, seconds since the epoch; None leaves it. Requests that carry one do so themselves."""
        self._context.advance(now)

    # deciding

    def place(
        self,
        request: Request,
        *,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        claim: ClaimHook | None = None,
    ) -> Decision:
        """Choose hosts for the request's instances by Nova 33's rules and claim them, all or nothing.

        ``candidates``: Placement's allocation requests by provider uuid, where an outside Placement made them
        (capacity was judged there; hosts with an empty list are weighed but never claimed). ``claim(instance uuid,
        provider uuid, allocations)`` claims there; False has the next host tried. A refusal is a Decision too; bad
        input raises HostlerError and changes nothing. O(changes since the last like decision + log hosts + hosts
        named) for one instance that finds a host, else O(hosts).
        """
        return self._place(request, candidates, claim, leave=None)

    def _place(
        self,
        request: Request,
        candidates: Mapping[str, Sequence[Any]] | None,
        claim: ClaimHook | None,
        *,
        leave: str | None,
    ) -> Decision:
        """``place``; ``leave``: a service host that is ignored beside those that the request ignores."""
        now = self.fleet.now
        try:
            return place(self._context, self._context.begin(request), candidates, claim, leave=leave)
        except BaseException:
            self.fleet._rewind(now)
            raise

    def place_many(
        self, requests: Iterable[Request], *, strict: bool = True, built_at: Sequence[int] = ()
    ) -> Decisions:
        """Place each request, one after the other, each seeing the claims before it. Each has an outcome of its own:
        neither a refusal nor an error (``Decisions.errors``), such as DuplicateName for a uuid that exists at its turn,
        stops the rest.

        The answers are those of ``place``; those of requests that are decided together, or by nested providers, are
        without score parts, and their refusals without advice. Malformed requests raise before anything is placed, or
        have the error as their outcome where the call is not ``strict``. O(requests) beside what ``place`` costs.

        ``built_at``: positions, ascending, before which the guests of all requests before them have been built
        (``spawned``), the number of requests for all of them, as where the requests of several points of time are
        placed at once. InvalidValue for what are no such positions, and where one of these requests does not bring the
        uuids of its instances.
        """
        return place_batch(self._context, requests, self.place, strict=strict, built_at=built_at)

    def place_in_steps(self, request: Request) -> Generator[None, None, Decisions]:
        """``place_many`` of one request, not ``strict``, in steps: those with many instances or alternates take more
        than a millisecond. At each pause the fleet is as before the request; others may read it then, and change forks
        of it."""
        return (yield from place_alone(self._context, request, self.place))

    def advise(self, request: Request, decision: Decision) -> Decision:
        """The refusal of a request by ``place_many`` as ``place`` gives it, with what would help as the fleet is now:
        what was placed after it counts. Any other decision as it is. O(stages * hosts), O(stages) where the same was
        refused before and nothing has changed since."""
        refusal = decision.refusal
        if refusal is None or refusal.code != "refused":
            return decision
        with self._context.looking(request) as given:
            return advised(Scan(self._context, given), decision)

    def place_candidates(self, request: Request, candidates: Mapping[str, Sequence[Any]]) -> Decision:
        """``place`` among allocation candidates that this fleet gave before, such as the answer to the Placement API's
        GET /allocation_candidates, by uuid of the host's provider.

        Of each host the first is claimed that the filters leave and that there is room for now. Hosts without one,
        providers that are no hosts, and candidates that name unknown providers are left out. Traits and aggregates
        were judged when the candidates were made. A refusal is a Decision too. O(hosts + candidates).
        """
        now = self.fleet.now
        try:
            return place_offered(self._context, self._context.begin(request), candidates)
        except BaseException:
            self.fleet._rewind(now)
            raise

    def place_candidates_in_steps(
        self, request: Request, candidates: Mapping[str, Sequence[Any]], check: Callable[[Decision], object]
    ) -> Generator[None, None, Decision]:
        """``place_candidates`` in steps, as for ``place_in_steps``. ``check`` sees the decision before it is kept: what
        it raises leaves the fleet as it was."""
        context, fleet = self._context, self.fleet
        fleet._reclaim.if_due()
        aside = context.fork(None)
        try:
            decision = yield from place_offered_in_steps(aside, aside.begin(request), candidates)
            check(decision)
        except BaseException:
            Fleet._drop(fleet, aside._fleet)
            raise
        Fleet._replace(fleet, aside._fleet)
        return decision

    def choose(
        self,
        request: Request,
        *,
        candidates: Mapping[str, Sequence[Any]],
        claim: CandidateClaim | None = None,
    ) -> Decision:
        """``place`` for a scheduler beside an outside Placement, which alone keeps the claims: the fleet is afterwards
        what it was.

        One instance may be known to the fleet (a resize, a migration): it counts where it is. ``claim(instance uuid,
        provider uuid, candidate)`` is called with the candidate that is left to the host; False has the next host
        tried. DuplicateName if one of several instances is known. O(hosts).
        """
        with self._context.looking(request) as given:
            try:
                choosing = Choosing(self._context, given, candidates, claim)
            except NoValidHost as error:
                return ruled_out(self._context, given, error)
            return choosing.choose()

    def rank(
        self,
        request: Request,
        *,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        rows: NDArray[np.int32] | None = None,
    ) -> Ranked:
        """All hosts that pass, best first with weights, and the stage that removed each other. ``rows``: the hosts that
        are judged, ascending row ids; None: all, or the ``candidates``. Claims nothing. O(hosts log hosts)."""
        with self._context.looking(request) as given:
            return Scan(self._context, given, candidates, rows=rows).rank()

    def explain(
        self,
        request: Request,
        *,
        top: int = 5,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        assume_empty: bool = False,
    ) -> Explanation:
        """Per host the first refusing stage and why, score parts of the best ``top``, and what would change the
        answer. Claims nothing. O(hosts).

        ``assume_empty``: also whether a host would pass if there were no guests (``Explanation.fits_empty``), which
        tells a full fleet from an impossible request; O(guests) for requests with NUMA cells, PCI devices, nested
        providers or rules of one's own.
        """
        whole_number(top, "top")
        with self._context.looking(request) as given:
            fork = self.fork if assume_empty else None
            return explain(self._context, given, top=top, candidates=candidates, empty_fork=fork)

    def fits(self, request: Request, *, limit: int | None = None) -> Fit:
        """How many more guests of this shape fit, and on which hosts, counting capacity and every filter. Claims
        nothing."""
        if limit is not None:
            whole_number(limit, "limit", most=2**63 - 1)
        with self._context.looking(request) as given:
            return fits(self._context, given, self.fork, limit=limit)

    def fits_many(self, requests: Sequence[Request], *, limit: int | None = None) -> tuple[SharedFit, ...]:
        """``fits`` for each request, and how many of each fit together, where the room is divided fairly: one guest of
        each shape in turn, for as long as it fits. Claims nothing. O(guests that fit)."""
        if limit is not None:
            whole_number(limit, "limit", most=2**63 - 1)
        with contextlib.ExitStack() as looking:
            given = [looking.enter_context(self._context.looking(request)) for request in requests]
            return fits_many(self._context, given, self.fork, limit=limit)

    # changing

    def release(self, uuids: str | Iterable[str]) -> int:
        """Remove consumers and give back what they took; returns how many. UnknownName, and nothing changed, if one is
        unknown. What the source of a guest's move holds goes with the guest."""
        given = _listed(uuids)
        if self.fleet._consumers.moves:
            return moves.release(self.fleet, given)
        return self.fleet._release_uuids(given)

    def spawned(self, uuids: str | Iterable[str]) -> None:
        """The guests have been built: they no longer count among their hosts' io operations. UnknownName, and nothing
        changed, if one is unknown. O(1) each."""
        fleet = self.fleet
        consumers = fleet._consumers.ids(_listed(uuids)).tolist()
        # No version is held that would need the change recorded.
        set_building = fleet._set_building if fleet._history.recording else fleet._kernel.set_building
        for consumer in consumers:
            set_building(consumer, False)

    def move(
        self,
        uuid: str,
        request: Request,
        *,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        claim: ClaimHook | None = None,
    ) -> Decision:
        """Place an existing guest again on another host (a migration): all that it holds is given back first, and its
        service host is ignored. What ``request`` leaves out (``project_id``, ``user_id``, ``server_group``) stays as it
        is. A refusal, and an error, leave the guest where it is. ``candidates`` and ``claim`` as for ``place``."""
        return self._replace(uuid, request, candidates, claim, leave=True)

    def resize(
        self,
        uuid: str,
        request: Request,
        *,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        claim: ClaimHook | None = None,
    ) -> Decision:
        """Place an existing guest again with another flavor; its own host is as good as any. All else as ``move``."""
        return self._replace(uuid, request, candidates, claim, leave=False)

    def _replace(
        self,
        uuid: str,
        request: Request,
        candidates: Mapping[str, Sequence[Any]] | None,
        claim: ClaimHook | None,
        *,
        leave: bool,
    ) -> Decision:
        fleet = self.fleet
        check_request(request)
        consumer, guest = fleet.consumer_id(uuid), fleet.consumer(uuid)
        if uuid in fleet._consumers.moves:
            raise InUse(f"instance {uuid} is being moved", field="uuid", hint="confirm or revert that move first")
        host = fleet._service_host(fleet.row(guest.provider)) if leave else None
        request = request.with_changes(
            instance_uuids=(uuid,),
            project_id=request.project_id or guest.project_id,
            user_id=request.user_id or guest.user_id,
            server_group=guest.server_group if request.server_group is None else request.server_group,
        )
        check_request(request)
        start, sequence = fleet._history.hold(), self.sequence
        try:
            fleet.release([consumer])
            decision = self._place(request, candidates, claim, leave=host)
            if not decision.placed:
                fleet._history.go(start)
            return decision
        except BaseException:
            fleet._history.go(start)
            self.sequence = sequence
            raise

    # moves in two phases

    def begin_move(
        self,
        uuid: str,
        request: Request,
        *,
        kind: MoveKind = "cold_migrate",
        migration: str | None = None,
        expires: float | None = None,
        on_expiry: Expiry = "revert",
    ) -> Decision:
        """Claim a new place for a guest and keep the old one, until ``confirm`` or ``revert``.

        Both ends count for capacity and server groups. ``request`` is what was asked for the guest; of it are kept and
        dropped, by ``kind``, what Nova's conductor keeps and drops: forced hosts go, the source is ignored (but for a
        resize, which adds up on one host), and the guest stays in its cell unless the request allows another.
        ``migration``: uuid of the consumer that holds the source, made if left out. At ``expires`` (seconds since the
        epoch) ``expire_moves`` reverts or confirms the move, as ``on_expiry`` says. A refusal, and an error, leave all
        as it was. InUse if a move is under way; InvalidValue for the evacuation of a host that is up.
        """
        moves.check_kind(kind, on_expiry)
        fleet = self.fleet
        check_request(request)
        check_spec(request.spec)
        guest = fleet.consumer(uuid)
        row, uuid = fleet.row(guest.provider), guest.uuid
        self._context.advance(request.now)
        moves.check_source(fleet, row, kind)
        request = request.with_changes(
            instance_uuids=(uuid,),
            spec=moves.spec_for(fleet, request.spec, row, kind),
            project_id=request.project_id or guest.project_id,
            user_id=request.user_id or guest.user_id,
            server_group=guest.server_group if request.server_group is None else request.server_group,
        )
        start, sequence = fleet._history.hold(), self.sequence
        try:
            holder = moves.hold_source(fleet, uuid, migration)
            decision = self.place(request)
            if not decision.placed:
                fleet._history.go(start)
                return decision
            target = decision.selected.node
            move = PendingMove(
                instance=uuid,
                migration=holder,
                kind=kind,
                source=guest.provider,
                target=target,
                began=fleet.now,
                expires=expires,
                on_expiry=on_expiry,
            )
            moves.note_move(fleet, move)
            return decision
        except BaseException:
            fleet._history.go(start)
            self.sequence = sequence
            raise

    def begin_resize(
        self,
        uuid: str,
        request: Request,
        *,
        migration: str | None = None,
        expires: float | None = None,
        on_expiry: Expiry = "revert",
    ) -> Decision:
        """``begin_move`` for another flavor. The guest's own host is a candidate as any other and holds both sizes
        until ``confirm`` or ``revert``."""
        return self.begin_move(uuid, request, kind="resize", migration=migration, expires=expires, on_expiry=on_expiry)

    def confirm(self, uuid: str) -> PendingMove:
        """The guest has moved: what it held before is given back. UnknownName if no move is under way."""
        return moves.confirm(self.fleet, uuid)

    def revert(self, uuid: str) -> PendingMove:
        """The guest stays, or is back, where it was; needs no room and cannot fail for lack of it. It stays on the
        target where clients of the Placement API have confirmed the move: nothing holds its source any more.
        UnknownName if no move is under way."""
        confirmed = moves.is_confirmed(self.fleet, moves.pending(self.fleet, uuid))
        return (moves.confirm if confirmed else moves.revert)(self.fleet, uuid)

    def moves(self) -> list[PendingMove]:
        """Moves under way, in order of their instances. O(moves)."""
        under_way = self.fleet._consumers.moves
        return [under_way[uuid] for uuid in sorted(under_way)]

    def expire_moves(self, now: float) -> list[PendingMove]:
        """End the moves whose time is over at ``now``; returns them. One whose source was given back through the
        Placement API is confirmed. O(1) before that of the next one, else O(moves)."""
        over = moves.expired(self.fleet, now)
        for move in over:
            confirmed = move.on_expiry == "confirm" or moves.is_confirmed(self.fleet, move)
            (self.confirm if confirmed else self.revert)(move.instance)
        return over

    def plan(self, goal: Goal, **options: Unpack[PlanOptions]) -> Plan:
        """The plan of moves that reaches ``goal`` (``Drain``, ``Consolidate``, ``MakeRoom``, ...). Every state between
        keeps every rule, with both ends of the moves under way held; nothing is changed. Options: ``PlanOptions``."""
        return goal.plan(self, options)

    # forks

    def fork(self, policy: Policy | None = None, *, compiled_by: Engine | None = None) -> Engine:
        """An engine on the same fleet as it is now, under the same policy or another; what either does the other never
        sees. O(1). ``compiled_by``: a fork under another policy, whose policy it has, with what that has compiled."""
        _check_kind(policy, Policy, "policy")
        _check_kind(compiled_by, Engine, "compiled_by")
        if compiled_by is not None and (policy is not None or not self._context.shares_state(compiled_by._context)):
            raise InvalidValue("compiled_by is a fork of this engine, and brings its policy", field="compiled_by")
        other = Engine.__new__(Engine)
        other._context = self._context.fork(policy, like=None if compiled_by is None else compiled_by._context)
        return other

    def what_if(self, policy: Policy | None = None) -> Engine:
        """A fork to try things on and throw away: ``engine.what_if().place(request)``."""
        return self.fork(policy)


def _listed(uuids: object) -> list[str]:
    """Consumer uuids as a list; one may come alone."""
    if isinstance(uuids, str):
        return [uuids]
    if not isinstance(uuids, Iterable):
        raise InvalidValue(f"consumers are named by uuids, got {shown(uuids)}", field="uuids")
    return list(uuids)


def _check_kind(value: object, kind: type[Any], field: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise InvalidValue(f"{field} must be a {kind.__name__}, got {shown(value)}", field=field)
