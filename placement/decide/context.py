"""What decides beside the request: the fleet at one version, a policy, the compiled signatures, seed and sequence.

An Engine owns one and composes the modules of this package, which take it and do not know the Engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np

from ...ext.draws import word
from ...ext.tables import format_many, format_uuid, make_many
from ..fleet.fleet import Fleet
from ..fleet.group_members import doubled_rows, hosts_of
from ..policy.policy import Policy
from ..request.checks import check_request, check_uuids
from ..request.host_selection import names_hosts, skips_filters
from ..request.preparation import Preparation
from ..types.decision import Alternate, NumaLimits, Selection
from ..types.host_classes import HostClass
from ..types.request import Request, ServerGroup
from .claim import Allocations, Claimed
from .signature import Signature
from .signature_cache import Compiled


class DecisionContext:
    """The fleet as one engine sees it, under one policy. ``seed`` feeds every random choice."""

    __slots__ = ("_fleet", "compiled", "draws", "policy", "preparation", "reads_instance_images", "seed", "uuid_seed")

    def __init__(self, fleet: Fleet, policy: Policy, seed: int, *, compiled: Compiled | None = None) -> None:
        self._fleet = fleet
        self.policy, self.seed = policy, seed
        self.uuid_seed = seed ^ 0x5DEECE66D
        """Seed of the instance uuids that requests leave out."""
        self.compiled = Compiled(fleet._state(), policy) if compiled is None else compiled
        self.preparation = Preparation(fleet, policy)
        options = policy.options.filter_scheduler
        self.draws = options.host_subset_size > 1 or options.shuffle_best_same_weighed_hosts
        """True if the policy chooses at random among the best hosts."""
        self.reads_instance_images = options.image_props_weight_multiplier != 0.0
        """True if a weigher reads the image properties of the instances on a host."""

    @property
    def fleet(self) -> Fleet:
        """The fleet, brought to this context's version."""
        fleet = self._fleet
        return fleet if type(fleet) is Fleet else fleet._entered()

    def fork(self, policy: Policy | None, *, like: DecisionContext | None = None) -> DecisionContext:
        """A context on the fleet as it is now, under the same policy, another, or that of ``like``, a fork of this
        fleet. O(1)."""
        if like is not None:
            return DecisionContext(self.fleet.fork(), like.policy, self.seed, compiled=like.compiled)
        compiled = self.compiled if policy is None else None
        return DecisionContext(self.fleet.fork(), policy or self.policy, self.seed, compiled=compiled)

    def shares_state(self, other: DecisionContext) -> bool:
        """Whether the fleets of both are versions of one state. O(1): the state goes to neither."""
        one, another = (object.__getattribute__(each._fleet, "__dict__") for each in (self, other))
        return one is another

    # numbers and seeds

    @property
    def sequence(self) -> int:
        """Number of the latest decision."""
        return self.fleet._heads.sequence

    @sequence.setter
    def sequence(self, number: int) -> None:
        self.fleet._heads.sequence = number

    def next_sequence(self) -> int:
        """Count one decision and return its number."""
        heads = self.fleet._heads
        heads.sequence += 1
        return heads.sequence

    def seed_of(self, sequence: int) -> int:
        """64-bit seed of a decision: splitmix64 of the engine's seed and the sequence number."""
        return word(self.seed, sequence)

    def decision_seed(self) -> int:
        """Seed of the decision that is being made."""
        return self.seed_of(self.sequence + 1)

    # requests

    def begin(self, request: Request) -> Request:
        """The request checked and prepared, with an instance uuid; the clock moves to the request's time."""
        check_request(request)
        self.fleet._reclaim.if_due()
        request = self.prepared(request)
        if not request.instance_uuids:
            request = request.with_changes(instance_uuids=(self.new_uuid(),))
        self.advance(request.now)
        return request

    def new_uuid(self, after: int = 0) -> str:
        """A uuid for the instance of the next decision, or the one ``after`` it, which no consumer has: those who know
        the seed can take uuids before their turn. O(1), or O(those that were taken)."""
        known, sequence, attempt = self.fleet._kernel.consumers, self.fleet._heads.sequence + after, 0
        while True:
            high, low = make_many(self.uuid_seed ^ attempt, sequence, 1)[0].tolist()
            made = format_uuid(high, low)
            if known.get(made) < 0:
                return made
            attempt += 1

    def prepared(self, request: Request) -> Request:
        """The request completed and checked as nova-api and nova-conductor do, unless the policy or its spec says that
        they have. InvalidValue or UnknownName for what is not possible."""
        return self.preparation(request)

    def advance(self, now: float | None) -> None:
        """Set the time, seconds since the epoch; None leaves it."""
        self.fleet.advance(now, self.policy.options.default.service_down_time)

    @contextmanager
    def looking(self, request: Request) -> Iterator[Request]:
        """The request as ``begin`` makes it, for a question that claims nothing; an error restores the clock."""
        now = self.fleet.now
        try:
            given = self.begin(request)
            check_uuids(given)
            yield given
        except BaseException:
            self.fleet._rewind(now)
            raise

    def signature(self, request: Request, *, candidates_given: bool = False) -> Signature:
        """The request, prepared, compiled; O(1) for a spec that was compiled before."""
        return self.compiled.signature(self.prepared(request), candidates_given=candidates_given)

    def ranked_way(self, request: Request) -> Signature | None:
        """The signature if the ranking kernel alone can find the host of an instance of the request; None if it takes
        the scan."""
        group = request.server_group
        if names_hosts(request.spec) or isinstance(group, ServerGroup):
            return None
        signature = self.compiled.signature(request, candidates_given=False)
        if not signature.simple:
            if signature.owner.row_values:
                signature.refresh()  # a rule may raise for a host that changed, which the scan reports
            if not signature.ranks:
                return None
        if group is not None:
            consumers = self._fleet._consumers
            if self._fleet._shared_service_hosts or consumers.also_on:
                return None
            if consumers.elsewhere and doubled_rows(consumers):
                return None
        if request.alternates and len(self._fleet.cells()) > 1:
            return None
        return signature

    # hosts

    def rows_holding(self, uuid: str) -> list[int]:
        """Rows of the service hosts that an instance stands on, two while it moves; empty if there is none. O(1), and
        O(hosts with moving instances)."""
        rows = self._rows_of_consumer(uuid)
        for row, instances in self.fleet._consumers.also_on.items():
            if uuid in instances:
                rows += [each for each in self.fleet._nodes.siblings(row) if each not in rows]
        return rows

    def _rows_of_consumer(self, uuid: str) -> list[int]:
        if not re.fullmatch(r"[0-9a-fA-F-]{32,36}", uuid):
            return []
        try:
            consumer = self.fleet._kernel.consumers.get(uuid)
        except ValueError:
            return []
        if consumer < 0:
            return []
        rows = [
            self.fleet._rows_of_service_host(self.fleet._service_host(row)) for row in hosts_of(self.fleet, consumer)
        ]
        return list(dict.fromkeys(chain.from_iterable(rows)))

    def zone_of(self, static: HostClass) -> str | None:
        """Availability zone of the hosts of a class: that of their aggregates, else the default."""
        zone: str | None = self.policy.options.default.default_availability_zone
        for index in static.aggregates:
            zone = self._fleet.aggregates[index].metadata.get("availability_zone", zone)
        return zone

    def alternate(
        self, signature: Signature, request: Request, row: int, weight: float, taken: Allocations | None
    ) -> Alternate:
        """A host of the answer that was not claimed; ``taken``: what the guest would take there (None: it has no room
        beside the instances of the request, and what is asked of its own provider is said)."""
        fleet = self.fleet
        static, names = fleet._host_class(row), fleet.resource_classes
        if taken is None:
            said = {fleet.uuid(row): {names[index]: amount for index, amount in signature.resources.items()}}
        else:
            said = taken.by_uuid(fleet)
        return Alternate(
            fleet._service_host(row),
            fleet.name(row),
            fleet.uuid(row),
            static.cell_uuid,
            weight,
            self.zone_of(static),
            said,
            {} if taken is None else taken.mappings,
            self.numa_limits(signature, request, row),
        )

    def numa_limits(self, signature: Signature, request: Request, row: int) -> NumaLimits | None:
        """What the compute service checks the guest's NUMA cells with: set where the guest and the host have some and
        NUMATopologyFilter is enabled (Nova 34)."""
        spec = request.spec
        if spec.numa_topology is None or self._fleet._numa.get_row(row) is None or skips_filters(spec):
            return None
        if all(each.name != "NUMATopologyFilter" for each in signature.policy.filters):
            return None
        static = self._fleet._host_class(row)
        return NumaLimits(
            cpu_allocation_ratio=static.cpu_allocation_ratio,
            ram_allocation_ratio=static.ram_allocation_ratio,
            network_metadata=spec.network_metadata,
        )

    def selections(self, claims: Sequence[Claimed], limits: Sequence[NumaLimits | None]) -> tuple[Selection, ...]:
        """``selection`` of several claims, without alternates. O(claims)."""
        fleet = self._fleet
        rows = np.array([claimed.row for claimed in claims], np.int32)
        classes = fleet._store.row["class_of"].take(rows).tolist()
        places = {}
        for number in set(classes):
            static = fleet._classes[number]
            places[number] = static.cell_uuid, self.zone_of(static)
        columns = fleet._service_hosts(rows), format_many(fleet._providers.words(rows)), classes
        return tuple(
            [
                Selection(
                    instance_uuid=claimed.uuid,
                    host=host,
                    node=fleet.name(claimed.row),
                    provider_uuid=provider,
                    cell_uuid=places[number][0],
                    availability_zone=places[number][1],
                    weight=claimed.weight,
                    allocations=claimed.allocations,
                    parts=claimed.parts,
                    mappings=claimed.mappings,
                    limits=limit,
                )
                for claimed, limit, host, provider, number in zip(claims, limits, *columns, strict=True)
            ]
        )

    def selection(self, claimed: Claimed, alternates: tuple[Alternate, ...], limits: NumaLimits | None) -> Selection:
        """A claim as the answer's value."""
        fleet, row = self._fleet, claimed.row
        static = fleet._host_class(row)
        return Selection(
            instance_uuid=claimed.uuid,
            host=fleet._service_host(row),
            node=fleet.name(row),
            provider_uuid=fleet.uuid(row),
            cell_uuid=static.cell_uuid,
            availability_zone=self.zone_of(static),
            weight=claimed.weight,
            allocations=claimed.allocations,
            parts=claimed.parts,
            alternates=alternates,
            mappings=claimed.mappings,
            limits=limits,
        )
