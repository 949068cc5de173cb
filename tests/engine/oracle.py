"""The slow, obvious scheduler: Nova 33's select_destinations over plain hosts, step by step as anchors/nova.md tells
it.

Nothing is compiled, cached, ranked or vectorised: each rule, as ``rules`` and ``placement_rules`` state it, looks at
every surviving host, and ``tests/weighers/scoring``, the obvious scorer, adds up the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from hostler.placement.filters.base import Filter
from hostler.placement.policy.policy import Policy
from hostler.placement.types.errors import HostlerError, MetricNotFound, NoValidHost
from hostler.placement.types.request import Request, RequestSpec, ServerGroup
from tests.weighers.scoring import score

from .placement_rules import Query, query_of
from .rules import FILTERS, ON_REBUILD, ONCE, weighers_of
from .world import Guest, Node, World

Weighed = list[tuple[Node, float]]


@dataclass(frozen=True)
class Chosen:
    """One instance's host, its weight, and the alternates as (node, weight)."""

    uuid: str
    node: str
    weight: float
    alternates: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Answer:
    """What a decision must say; nothing was placed if ``chosen`` is empty."""

    considered: int
    removed: dict[str, int]
    chosen: tuple[Chosen, ...] = ()


@dataclass
class Oracle:
    """The scheduler. ``order`` gives the place of a host in the order in which hosts come (Nova: arbitrary)."""

    world: World
    policy: Policy
    order: Callable[[str], int]
    removed: dict[str, int] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)
    """Node -> the stage that removed it, of the latest request."""

    def place(self, request: Request, seed: int = 0) -> Answer:
        """Choose and claim a host for every instance, all or nothing. ``seed`` makes the random choices."""
        placed: list[tuple[Guest, float]] = []
        now = self.world.now
        try:
            return self._place(request, words_of(seed), placed)
        except HostlerError:
            self._take_back(placed)
            self.world.now = now
            raise

    def _place(self, request: Request, words: Iterator[int], placed: list[tuple[Guest, float]]) -> Answer:
        self._arrive(request)
        try:
            query = self._query(request)
        except NoValidHost:
            return Answer(0, {})
        hosts = self._candidates(request, query)
        considered, group = len(self.world.nodes), self._group(request)
        weighed: Weighed = []
        for index, uuid in enumerate(request.instance_uuids):
            weighed = self._sorted(request, uuid, group, hosts, index, words)
            hosts = [node for node, _ in weighed]
            guest = self._claim_first(request, uuid, query, weighed)
            if guest is None:
                break
            placed.append(guest)
            group = _joined(group, guest[0])
        if len(placed) < len(request.instance_uuids):
            self._take_back(placed)
            return Answer(considered, self.removed)
        if len(placed) > 1 and request.alternates:
            weighed = self._sorted(request, request.instance_uuids[-1], group, hosts, len(placed), words)
        return Answer(considered, self.removed, _answer(request, placed, weighed))

    def _take_back(self, placed: list[tuple[Guest, float]]) -> None:
        for made, _ in reversed(placed):
            self.world.release(made.uuid)

    def replace(self, uuid: str, request: Request, seed: int, *, leave: bool) -> Answer:
        """Place a guest again: elsewhere (a migration), or anywhere with its old resources given back (a resize)."""
        old = self.world.release(uuid)
        if leave:
            ignored = (*request.spec.ignore_hosts, old.node.host)
            request = request.with_changes(spec=replace(request.spec, ignore_hosts=ignored))
        group = old.group if request.server_group is None else request.server_group
        project, user = request.project_id or old.project_id, request.user_id or old.user_id
        answer = self.place(request.with_changes(server_group=group, project_id=project, user_id=user), seed)
        if not answer.chosen:
            self.world.claim(old)
        return answer

    def rank(self, request: Request) -> Weighed:
        """All hosts that pass for the first instance, best first."""
        self._arrive(request)
        hosts = self._candidates(request, self._query(request))
        return self._sorted(request, request.instance_uuids[0], self._group(request), hosts, 0, None)

    def place_many(self, requests: Sequence[Request], seeds: Sequence[int]) -> list[Answer | MetricNotFound]:
        """One after the other, each seeing the claims before it. One that fails at its turn changes nothing, and the
        next one has its seed."""
        left = iter(seeds)
        answers: list[Answer | MetricNotFound] = []
        seed = next(left, 0)
        for request in requests:
            try:
                answers.append(self.place(request, seed))
            except MetricNotFound as error:
                answers.append(error)
            else:
                seed = next(left, 0)
        return answers

    def _arrive(self, request: Request) -> None:
        if request.now is not None:
            self.world.now = request.now
        self.removed, self.stages = {}, {}

    # allocation candidates

    def _query(self, request: Request) -> Query:
        """What Nova asks of Placement (its text is compared with Nova's own elsewhere)."""
        return query_of(request, self.world.aggregates.values(), self._lookup, self.policy.options)

    def _lookup(self, host: str | None, node: str | None, cell_uuid: str | None) -> list[str]:
        found = self._in_order()
        found = [each for each in found if host in (None, each.host) and node in (None, each.nodename)]
        return [each.uuid for each in found if cell_uuid in (None, each.cell_uuid)]

    def _in_order(self) -> list[Node]:
        return sorted(self.world.nodes.values(), key=lambda node: self.order(node.nodename))

    def _candidates(self, request: Request, query: Query) -> list[Node]:
        """Hosts whose own inventories, traits and aggregates satisfy the query."""
        hosts, destination = self._in_order(), request.spec.requested_destination
        if destination is not None and destination.cell_uuid is not None and not destination.allow_cross_cell_move:
            hosts = self._keep("cell", hosts, lambda node: node.cell_uuid == destination.cell_uuid)
        forced = request.spec.force_hosts or request.spec.force_nodes
        skipped = bool(forced) and "_nova_check_type" not in request.scheduler_hints
        if skipped or all(judge.name != "ComputeFilter" for judge in self.policy.filters):
            hosts = self._keep("compute_status", hosts, lambda node: not node.service.disabled)
        required, forbidden = query.required, query.forbidden
        if required or forbidden:
            hosts = self._keep("traits", hosts, lambda node: required <= node.traits and not forbidden & node.traits)
        if query.member_of or query.forbidden_aggregates:
            hosts = self._keep("aggregates", hosts, lambda node: _is_member(node, query))
        for name, amount in query.resources.items():
            hosts = self._keep(name, hosts, partial(_fits, name, amount))
        return hosts

    def _keep(self, stage: str, hosts: list[Node], passes: Callable[[Node], bool]) -> list[Node]:
        """The hosts that pass a stage; the others are counted."""
        kept = [node for node in hosts if passes(node)]
        self.removed[stage] = len(hosts) - len(kept)
        self.stages |= {node.nodename: stage for node in hosts if node not in kept}
        return kept

    # filters and weighers

    def _sorted(
        self,
        request: Request,
        uuid: str,
        group: ServerGroup | None,
        hosts: list[Node],
        index: int,
        words: Iterator[int] | None,
    ) -> Weighed:
        """Nova's _get_sorted_hosts for instance ``index``."""
        asked = request.with_changes(instance_uuids=(uuid,), server_group=group, now=self.world.now)
        hosts = self._filtered(asked, hosts, index)
        weighed = [(hosts[one.host_index], one.total) for one in score(hosts, asked, list(weighers_of(self.policy)))]
        return weighed if words is None or not weighed else self._choose(weighed, words)

    def _filtered(self, request: Request, hosts: list[Node], index: int) -> list[Node]:
        removed_before, stages_before = dict(self.removed), dict(self.stages)
        if _names_hosts(request.spec):
            named = _named(request.spec, hosts)
            hosts = self._keep("host_selection", hosts, lambda node: node in named)
        forced = request.spec.force_hosts or request.spec.force_nodes
        skipped = bool(forced) and "_nova_check_type" not in request.scheduler_hints
        for judge in self.policy.filters:
            not_now = index > 0 and judge.name in ONCE
            if skipped or not_now or (request.is_rebuild and judge.name not in ON_REBUILD):
                self.removed[judge.name] = 0
            else:
                hosts = self._keep(judge.name, hosts, partial(self._passes, judge, request))
        if index > 0:  # decisions tell what the stages removed for the first instance
            self.removed, self.stages = removed_before, stages_before
        return hosts

    def _passes(self, judge: Filter, request: Request, node: Node) -> bool:
        """Nova's filters as stated in ``rules``; a filter of one's own is stated by its host form."""
        stated = FILTERS.get(judge.name)
        if stated is not None:
            return stated(node, request, self.policy.options)
        return judge.host_passes(node, request)

    def _choose(self, weighed: Weighed, words: Iterator[int]) -> Weighed:
        """Shuffle the equal best if asked, and put one of the first ``host_subset_size`` first; that is drawn first."""
        options = self.policy.options.filter_scheduler
        size = min(options.host_subset_size, len(weighed))
        first = next(words) * size // 2**64 if size > 1 else 0
        if options.shuffle_best_same_weighed_hosts:
            left, best = [each for each in weighed if each[1] == weighed[0][1]], []
            while len(left) > 1:
                drawn = next(words) * len(left) // 2**64
                best.append(left[drawn])
                left[drawn] = left[0]
                del left[0]
            weighed = best + left + weighed[len(best) + 1 :]
        return [weighed[first], *weighed[:first], *weighed[first + 1 :]]

    # claims

    def _group(self, request: Request) -> ServerGroup | None:
        group = request.server_group
        return self.world.group(group, request.instance_uuids) if isinstance(group, str) else group

    def _claim_first(self, request: Request, uuid: str, query: Query, weighed: Weighed) -> tuple[Guest, float] | None:
        resources = query.resources
        for node, weight in weighed:
            if node.fits(resources):
                kept = request.server_group if isinstance(request.server_group, str) else None
                shown = dict(request.image_properties) if self._keeps_images() else {}
                owner = request.project_id, request.user_id
                guest = Guest(uuid, node, resources, request.flavor, shown, kept, True, *owner, request.spec.is_bfv)
                self.world.claim(guest)
                return guest, weight
        return None

    def _keeps_images(self) -> bool:
        return self.policy.options.filter_scheduler.image_props_weight_multiplier != 0.0


def _is_member(node: Node, query: Query) -> bool:
    mine = set(node.aggregate_uuids)
    return all(term & mine for term in query.member_of) and not query.forbidden_aggregates & mine


def _names_hosts(spec: RequestSpec) -> bool:
    destination = spec.requested_destination
    host = destination.host if destination is not None else None
    return bool(host is not None or spec.ignore_hosts or spec.force_hosts or spec.force_nodes)


def _named(spec: RequestSpec, hosts: list[Node]) -> list[Node]:
    """Nova's get_filtered_hosts: destination, then ignored, then forced hosts, then forced nodes."""
    destination = spec.requested_destination
    if destination is not None and destination.host is not None:
        hosts = [node for node in hosts if node.host == destination.host]
        hosts = [node for node in hosts if destination.node in (None, node.nodename)]
    ignored, forced = ({name.lower() for name in names} for names in (spec.ignore_hosts, spec.force_hosts))
    hosts = [node for node in hosts if node.host.lower() not in ignored]
    if forced:
        hosts = [node for node in hosts if node.host.lower() in forced]
    if spec.force_nodes:
        hosts = [node for node in hosts if node.nodename in spec.force_nodes]
    return hosts


def _joined(group: ServerGroup | None, guest: Guest) -> ServerGroup | None:
    """The group once a guest of the request was placed: its host is one of the group's."""
    return None if group is None else replace(group, hosts=group.hosts | {guest.node.host})


def _answer(request: Request, placed: list[tuple[Guest, float]], weighed: Weighed) -> tuple[Chosen, ...]:
    taken = [guest.node for guest, _ in placed]
    chosen = []
    for guest, weight in placed:
        others = [each for each in weighed if each[0] not in taken and each[0].cell_uuid == guest.node.cell_uuid]
        alternates = tuple((node.nodename, other) for node, other in others[: request.alternates])
        chosen.append(Chosen(guest.uuid, guest.node.nodename, weight, alternates))
    return tuple(chosen)


def _fits(name: str, amount: int, node: Node) -> bool:
    return node.fits({name: amount})


def words_of(seed: int) -> Iterator[int]:
    """The words of 64 bits that splitmix64 makes of a seed."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        word = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        yield word ^ (word >> 31)
