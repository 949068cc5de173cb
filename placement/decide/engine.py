"""The engine: places guests on one fleet under one policy, and says why. The same fleet and commands give the same
decisions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ...ext.constants import SOFT_AFFINITY, SOFT_ANTI_AFFINITY
from ...ext.draws import word
from ...ext.tables import format_uuid, make_many
from ..fleet.fleet import Fleet, Head, uuid_words, whole_number
from ..policy.policy import Policy
from ..request.checks import check_request, check_spec, check_uuids
from ..request.host_selection import names_hosts
from ..types.decision import Alternate, Decision, Refusal, ScorePart, Selection
from ..types.errors import DuplicateName, InvalidValue, NoValidHost
from ..types.host_classes import HostClass
from ..types.request import Request, ServerGroup
from ..types.validation import shown
from .batch import place_batch
from .batch_decisions import Decisions
from .claim import Claimed, allocations_of, extras_for
from .explain.explanation import Explanation, explain
from .fits import Fit, fits
from .scan import ClaimHook, Ranked, Scheduling
from .signature import Signature
from .signature_cache import Compiled


def draws(policy: Policy) -> bool:
    """True if the policy has chance choose among the best hosts."""
    options = policy.options.filter_scheduler
    return options.host_subset_size > 1 or options.shuffle_best_same_weighed_hosts


class Engine:
    """Places guests on a fleet. Not thread-safe; deterministic given the fleet, the policy, ``seed`` and the calls.

    ``seed`` feeds every random choice (``host_subset_size``, ``shuffle_best_same_weighed_hosts``, uuids left out).
    """

    def __init__(self, fleet: Fleet | None = None, policy: Policy | None = None, *, seed: int | None = None) -> None:
        _check_kind(fleet, Fleet, "fleet")
        _check_kind(policy, Policy, "policy")
        self._fleet = fleet if fleet is not None else Fleet()
        self._head = self._fleet.heads.adopt(Head())
        self.policy = policy if policy is not None else Policy.nova_default()
        self.seed = whole_number(self.policy.seed if seed is None else seed, "seed", most=2**63 - 1)
        self.draws = draws(self.policy)
        """True if chance has a part in choosing among the best hosts."""
        self.reads_instance_images = self.policy.options.filter_scheduler.image_props_weight_multiplier != 0.0
        self.compiled = Compiled(self._fleet, self.policy)

    # sequence and state

    @property
    def fleet(self) -> Fleet:
        """The fleet as this engine sees it. Change it through here: after a fork, the same Fleet object serves both
        engines in turn."""
        self._fleet.heads.enter(self._head)
        return self._fleet

    @property
    def sequence(self) -> int:
        """Number of this engine's latest decision. Engines on one fleet that are no forks count together, and a fleet
        that was saved and loaded goes on counting."""
        return self.fleet.heads.sequence

    @sequence.setter
    def sequence(self, number: int) -> None:
        self.fleet.heads.sequence = number

    @property
    def uuid_seed(self) -> int:
        """Seed of the uuids that requests leave out."""
        return self.seed ^ 0x5DEECE66D

    def seed_of(self, sequence: int) -> int:
        """64-bit seed of a decision: splitmix64 of the engine's seed and the sequence number."""
        return word(self.seed, sequence)

    def next_sequence(self) -> int:
        """Number of the decision that is being made; the next one gets the next number."""
        heads = self.fleet.heads
        heads.sequence += 1
        return heads.sequence

    def decision_seed(self) -> int:
        """Seed of the decision that is being made."""
        return self.seed_of(self.sequence + 1)

    def signature(self, request: Request, *, candidates_given: bool = False) -> Signature:
        """The request compiled. O(1) for a spec that was seen before, else about a microsecond per hundred hosts."""
        return self.compiled.signature(request, candidates_given=candidates_given)

    def begin(self, request: Request) -> Request:
        """Bring the state to this engine's version, and the request to a checked form with uuids."""
        check_request(request)
        if not request.instance_uuids:
            made = make_many(self.uuid_seed, self.fleet.heads.sequence, 1)
            request = request.with_changes(instance_uuids=(format_uuid(int(made[0, 0]), int(made[0, 1])),))
        self.advance(request.now)
        return request

    def advance(self, now: float | None) -> None:
        """Set the time, seconds since the epoch; None leaves it. Requests that carry one do so themselves."""
        self.fleet.advance(now, self.policy.options.default.service_down_time)

    @contextmanager
    def _looking(self, request: Request) -> Iterator[Request]:
        """The request as ``begin`` makes it, for a look that claims nothing; one that fails leaves the clock."""
        now = self.fleet.now
        try:
            given = self.begin(request)
            check_uuids(given)
            yield given
        except BaseException:
            self.fleet.rewind(now)
            raise

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
        input raises HostlerError and changes nothing. O(changes since the last like decision + log hosts) for one
        instance without named hosts, else O(hosts).
        """
        now = self.fleet.now
        try:
            return self._place(self.begin(request), candidates, claim)
        except BaseException:
            self.fleet.rewind(now)
            raise

    def _place(
        self, request: Request, candidates: Mapping[str, Sequence[Any]] | None, claim: ClaimHook | None
    ) -> Decision:
        for uuid in request.instance_uuids:
            self._check_new(uuid)
        try:
            if candidates is None and claim is None:
                decision = self._place_ranked(request)
                if decision is not None:
                    return decision
            scheduling = Scheduling(self, request, candidates, claim)
        except NoValidHost as error:
            return self._ruled_out(request, error)
        return scheduling.place()

    def _ruled_out(self, request: Request, error: NoValidHost) -> Decision:
        """The answer where the request was refused before any host was looked at."""
        seed = self.decision_seed()
        return Decision(
            sequence=self.next_sequence(),
            request_id=request.request_id,
            considered=0,
            removed={},
            refusal=Refusal(sentence=error.args[0], stage="request", hint=error.hint),
            seed=seed,
        )

    def _check_new(self, uuid: str) -> None:
        try:
            taken = self._fleet.kernel.consumers.get(uuid) >= 0
        except (TypeError, ValueError):
            uuid_words(uuid, "instance_uuids")
            raise
        if taken:
            raise DuplicateName(f"consumer {uuid} exists", field="instance_uuids")

    def ranked_way(self, request: Request) -> Signature | None:
        """The signature if the kernel's ranking alone can decide the request, None if it takes the scan."""
        group = request.server_group
        if len(request.instance_uuids) != 1 or names_hosts(request.spec) or isinstance(group, ServerGroup):
            return None
        signature = self.compiled.signature(request, candidates_given=False)
        if not signature.simple:
            signature.refresh()  # a rule may raise for a host that changed, which the scan reports
            if not signature.ranks:
                return None
        if group is not None and self._fleet.shared_service_hosts:
            return None
        if request.alternates and len(self._fleet.cells()) > 1:
            return None
        return signature

    def _place_ranked(self, request: Request) -> Decision | None:
        signature = self.ranked_way(request)
        if signature is None:
            return None
        uuid = request.instance_uuids[0]
        fleet = self._fleet
        group = fleet.group_id(request.server_group) if isinstance(request.server_group, str) else -1
        signature.refresh()
        seed = self.decision_seed()
        rows, weights = signature.ranking.best(group, 1 + request.alternates, seed)
        counts = signature.ranking.counts(group, len(signature.stages))
        if not rows:
            return Scheduling(self, request).refuse()
        row = rows[0]
        parts = self._parts(signature, row, group) if counts[0] > 1 else ()
        taken = None if signature.simple else allocations_of(fleet, signature, row, given=False, request=request)
        fleet.claim(
            uuid,
            row,
            signature.shape if taken is None else taken.shape,
            project_id=request.project_id,
            user_id=request.user_id,
            group=group,
            building=True,
            extras=None if taken is None else extras_for(fleet, signature, request, row, taken),
            image_properties=request.image_properties if self.reads_instance_images else None,
        )
        names = fleet.resource_classes
        allocations: Mapping[str, Mapping[str, int]]
        if taken is None:
            allocations = {fleet.uuid(row): {names[index]: amount for index, amount in signature.resources.items()}}
        else:
            allocations = taken.by_uuid(fleet)
        alternates: tuple[Alternate, ...] = ()
        if len(rows) > 1:
            alternates = tuple(map(self._alternate, rows[1:], weights[1:]))
        chosen = self.selection(Claimed(uuid, row, -1, weights[0], allocations, parts), alternates)
        return Decision(
            seed=seed,
            sequence=self.next_sequence(),
            request_id=request.request_id,
            considered=sum(counts),
            removed=dict(zip(signature.stage_names, counts[1:], strict=True)),
            selections=(chosen,),
        )

    def _parts(self, signature: Signature, row: int, group: int) -> tuple[ScorePart, ...]:
        """Score parts of the row under the normalisers of the decision at hand."""
        members = 0.0
        if group >= 0:
            policy, _, held = self._fleet.kernel.group(group)
            members = {SOFT_AFFINITY: 1.0, SOFT_ANTI_AFFINITY: -1.0}.get(policy, 0.0) * held.get(row, 0)
        parts = signature.ranking.row_parts(row, members)
        return tuple([ScorePart(name, *part) for name, part in zip(signature.weigher_names, parts, strict=True)])

    def _alternate(self, row: int, weight: float) -> Alternate:
        fleet = self.fleet
        return Alternate(
            fleet.service_host(row), fleet.name(row), fleet.uuid(row), fleet.host_class(row).cell_uuid, weight
        )

    def selection(self, claimed: Claimed, alternates: tuple[Alternate, ...]) -> Selection:
        """A claim as the answer's value."""
        fleet, row = self._fleet, claimed.row
        static = fleet.host_class(row)
        return Selection(
            instance_uuid=claimed.uuid,
            host=fleet.service_host(row),
            node=fleet.name(row),
            provider_uuid=fleet.uuid(row),
            cell_uuid=static.cell_uuid,
            availability_zone=self.zone_of(static),
            weight=claimed.weight,
            allocations=claimed.allocations,
            parts=claimed.parts,
            alternates=alternates,
        )

    def zone_of(self, static: HostClass) -> str | None:
        """Availability zone of the hosts of a class: their aggregates' one, else the default."""
        zone: str | None = self.policy.options.default.default_availability_zone
        for index in static.aggregates:
            zone = self._fleet.aggregates[index].metadata.get("availability_zone", zone)
        return zone

    def place_many(self, requests: Iterable[Request]) -> Decisions:
        """Place each request, one after the other, each seeing the claims before it; a refusal does not stop the rest.

        The answers are those of ``place``, without score parts. Bad input raises before anything is placed.
        """
        return place_batch(self, requests)

    def rank(self, request: Request, *, candidates: Mapping[str, Sequence[Any]] | None = None) -> Ranked:
        """All hosts that pass, best first with weights, and the stage that removed each other. Claims nothing. O(hosts
        log hosts)."""
        with self._looking(request) as given:
            return Scheduling(self, given, candidates).rank()

    def explain(
        self,
        request: Request,
        *,
        top: int = 5,
        candidates: Mapping[str, Sequence[Any]] | None = None,
    ) -> Explanation:
        """Per host the first refusing stage and why, score parts of the best ``top``, and what would change the
        answer. Claims nothing. O(hosts)."""
        whole_number(top, "top")
        with self._looking(request) as given:
            return explain(self, given, top=top, candidates=candidates)

    def fits(self, request: Request, *, limit: int | None = None) -> Fit:
        """How many more guests of this shape fit, and on which hosts, counting capacity and every filter. Claims
        nothing."""
        if limit is not None:
            whole_number(limit, "limit", most=2**63 - 1)
        with self._looking(request) as given:
            return fits(self, given, limit=limit)

    # changing

    def release(self, uuids: str | Iterable[str]) -> int:
        """Remove consumers and give back what they took; returns how many. UnknownName, and nothing changed, if one is
        unknown."""
        return self.fleet.release_uuids(_listed(uuids))

    def spawned(self, uuids: str | Iterable[str]) -> None:
        """The guests have been built: they no longer count among their hosts' io operations. UnknownName, and nothing
        changed, if one is unknown. O(1) each."""
        fleet = self.fleet
        consumers = fleet.consumers.ids(_listed(uuids)).tolist()
        # Between versions that nobody holds there is nothing to record.
        set_building = fleet.set_building if fleet.history.recording else fleet.kernel.set_building
        for consumer in consumers:
            set_building(consumer, False)

    def move(self, uuid: str, request: Request, **options: Any) -> Decision:
        """Place an existing guest again on another host (a migration): all that it holds is given back first, and its
        service host is ignored. What ``request`` leaves out (``project_id``, ``user_id``, ``server_group``) stays as it
        is. A refusal, and an error, leave the guest where it is."""
        return self._replace(uuid, request, options, leave=True)

    def resize(self, uuid: str, request: Request, **options: Any) -> Decision:
        """Place an existing guest again with another flavor; its own host is as good as any. All else as ``move``."""
        return self._replace(uuid, request, options, leave=False)

    def _replace(self, uuid: str, request: Request, options: dict[str, Any], *, leave: bool) -> Decision:
        fleet = self.fleet
        check_request(request)
        check_spec(request.spec)
        consumer, guest = fleet.consumer_id(uuid), fleet.consumer(uuid)
        spec = request.spec
        if leave:
            host = fleet.service_host(fleet.row(guest.provider))
            spec = replace(spec, ignore_hosts=(*spec.ignore_hosts, host))
        request = request.with_changes(
            instance_uuids=(uuid,),
            spec=spec,
            project_id=request.project_id or guest.project_id,
            user_id=request.user_id or guest.user_id,
            server_group=guest.server_group if request.server_group is None else request.server_group,
        )
        check_request(request)
        start, sequence = fleet.history.hold(), self.sequence
        try:
            fleet.release([consumer])
            decision = self.place(request, **options)
            if not decision.placed:
                fleet.history.go(start)
            return decision
        except BaseException:
            fleet.history.go(start)
            self.sequence = sequence
            raise

    def rows_holding(self, uuid: str) -> list[int]:
        """Rows of the service host that holds an instance; empty if none does. O(1)."""
        if not re.fullmatch(r"[0-9a-fA-F-]{32,36}", uuid):
            return []
        try:
            consumer = self.fleet.kernel.consumers.get(uuid)
        except ValueError:
            return []
        if consumer < 0:
            return []
        row = int(self.fleet.kernel.consumer(consumer)[2])
        return self.fleet.rows_of_service_host(self.fleet.service_host(row))

    # forks

    def fork(self, policy: Policy | None = None) -> Engine:
        """An engine on the same fleet as it is now, under the same policy or another; what either does the other never
        sees. O(1)."""
        _check_kind(policy, Policy, "policy")
        other = Engine.__new__(Engine)
        other._fleet = self.fleet
        other.policy = policy if policy is not None else self.policy
        other.seed = self.seed
        other.draws = draws(other.policy)
        other.reads_instance_images = other.policy.options.filter_scheduler.image_props_weight_multiplier != 0.0
        other.compiled = self.compiled if policy is None else Compiled(self.fleet, policy)
        other._head = Head()
        self.fleet.heads.share(other._head)
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
