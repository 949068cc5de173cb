"""What decides about volumes beside the request: the pools at one version, a policy, compiled requests, seed, sequence.

A VolumeEngine owns one and composes the modules of this package, which take it and do not know the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np

from ...ext.draws import Draws, word
from ...ext.tables import format_uuid, make_many
from ..fleet.fleet import Fleet
from ..types.decision import Refusal
from ..types.errors import InvalidValue, UnknownName
from ..types.recently_used import RecentlyUsed
from .compiled import AnySignature, CompiledVolumes, rankable
from .decision import PoolAlternate, PoolSelection, VolumeDecision
from .pools.backend_names import backend_part, pool_part
from .pools.filter_properties import FilterProperties, InstanceHost
from .pools.filters.base import Rows
from .pools.policy import VolumePolicy
from .pools.pools import Pools
from .pools.request import Retry, VolumeRequest, VolumeSpec, check_volume_request, check_volume_spec
from .pools.volumes import Volume
from .scan import PoolRanking, rank, stage_names

T = TypeVar("T")

CHECKED_BYTES: Final = 64 << 20
"""Memory of specs that are known to be well formed; those that were used least recently are forgotten."""


class VolumeContext:
    """The pools as one engine sees them, under one policy. ``seed`` feeds every random choice."""

    def __init__(self, fleet: Fleet, policy: VolumePolicy, seed: int, *, instance_host: InstanceHost | None) -> None:
        self._fleet = fleet
        self.policy, self.seed = policy, seed
        self._asked = instance_host
        self._checked: RecentlyUsed[int, VolumeSpec] = RecentlyUsed(CHECKED_BYTES)
        self._compile()

    def _compile(self) -> None:
        """What does not depend on requests."""
        self._reads_user = self.policy.has_functions
        self.stage_names = stage_names(self.policy)
        self.compiled = CompiledVolumes(self._fleet.pools, self.policy)

    def fork(self, policy: VolumePolicy | None = None) -> VolumeContext:
        """A context on the pools as they are now, under the same policy or another. O(1)."""
        fleet = self.fleet.fork()
        other = VolumeContext(fleet, policy or self.policy, self.seed, instance_host=self._asked)
        if policy is None:
            other.compiled = self.compiled
        return other

    def aside(self) -> VolumeContext:
        """A fork for one decision, which knows the specs that were checked. O(1)."""
        other = self.fork()
        other._checked = self._checked
        return other

    # state

    @property
    def instance_host(self) -> InstanceHost:
        """The compute host of an instance, for the hint ``local_to_instance``."""
        return self._asked or self._guest_host  # not kept: it refers to this context

    @property
    def id_seed(self) -> int:
        """Seed of the ids of volumes that come without one."""
        return self.seed ^ 0x5DEECE66D

    @property
    def fleet(self) -> Fleet:
        """The fleet as this engine sees it."""
        return self._fleet._entered()

    @property
    def sequence(self) -> int:
        """Number of the latest decision about volumes. Engines on one fleet that are no forks count together, and a
        fleet that was saved and loaded goes on counting."""
        return self.fleet._heads.volume_sequence

    @sequence.setter
    def sequence(self, number: int) -> None:
        self.fleet._heads.volume_sequence = number

    @property
    def pools(self) -> Pools:
        """The pools as this engine sees them. Change them through here: forks share one Fleet object in turn."""
        pools = self.fleet.pools
        pools.set_default_ratio(self.policy.options.max_over_subscription_ratio)
        return pools

    def _guest_host(self, uuid: str) -> str | None:
        fleet = self.fleet
        try:
            row = int(fleet._kernel.consumer(fleet.consumer_id(uuid))[2])
        except (UnknownName, InvalidValue):
            return None
        return fleet._service_host(row)

    def seed_of(self, sequence: int) -> int:
        """64-bit seed of a decision: splitmix64 of the engine's seed and the sequence number."""
        return word(self.seed, sequence)

    @contextmanager
    def deciding(self) -> Iterator[Pools]:
        """The pools, for a command that is undone as a whole if it raises."""
        pools, sequence = self.pools, self.sequence
        history = self._fleet._history
        start = history.hold()
        try:
            yield pools
        except BaseException:
            self.fleet  # noqa: B018  # others may have used other versions since
            history.go(start)
            self.sequence = sequence
            raise

    def at_own_version(self, steps: Generator[None, None, T]) -> Generator[None, None, T]:
        """Steps on the pools, each with the state at this engine's version: between them others use theirs."""
        while True:
            self.pools  # noqa: B018
            try:
                next(steps)
            except StopIteration as end:
                outcome: T = end.value
                return outcome
            yield

    def checked(self, request: VolumeRequest) -> VolumeRequest:
        """The request if it can be decided; InvalidValue otherwise. O(1) for a spec that was seen before."""
        check_volume_request(request)
        spec = request.spec
        if spec is None or (self._checked.get(id(spec)) or self._checked.again(id(spec))) is not spec:
            check_volume_spec(spec)
            self._checked.keep(id(spec), spec, spec.nbytes)
        return request

    # deciding

    def filter_properties(self, request: VolumeRequest, **others: Any) -> FilterProperties:
        """The request as filters and weighers read it."""
        return FilterProperties.of(
            request.spec,
            project_id=request.project_id,
            user_id=request.user_id,
            instance_host=self.instance_host,
            **{"retry": request.retry, **others},
        )

    def ranking(
        self,
        filter_properties: FilterProperties,
        *,
        among: Rows | None = None,
        only: Rows | None = None,
        sequence: int | None = None,
    ) -> PoolRanking:
        """All pools that pass, best first; charges nothing. ``among``: the only rows that may be chosen. ``only``: rows
        that are judged and weighed as if there were no other pools. O(pools), or O(``only``)."""
        draw = self.draw(self.sequence + 1 if sequence is None else sequence)
        return rank(self.pools, self.policy, filter_properties, draw, among=among, only=only)

    def draw(self, sequence: int) -> Callable[[], float]:
        """The random numbers of a decision."""
        return Draws(self.seed_of(sequence)).fraction

    def rank(self, request: VolumeRequest, *, only: Rows | None = None) -> PoolRanking:
        """All pools that pass, best first; charges nothing. ``only``: as for ``ranking``. O(pools log pools)."""
        self.checked(request)
        among = self.places(request.spec.resource_backend)
        return self.ranking(self.filter_properties(request), among=among, only=only)

    def signature(self, request: VolumeRequest) -> AnySignature | None:
        """The request compiled, as one that was not tried before; None if it takes the scan. O(1) for a spec that was
        seen before, else O(pools)."""
        spec = request.spec
        key = (id(spec), request.project_id, request.user_id) if self._reads_user else (id(spec),)
        known = self.compiled.known(key, spec)
        if known is not None:
            return known
        filter_properties = self.filter_properties(request, retry=None)
        if not rankable(self.pools, self.policy, filter_properties):
            return None
        return self.compiled.signature(key, filter_properties)

    def new_volume_id(self, request: VolumeRequest) -> str:
        """The id of the request's volume, made if it has none; DuplicateName if there is such a volume."""
        if request.volume_id is not None:
            self.pools.volumes.check_new(request.volume_id)
            return request.volume_id
        return self.unused_id(self.sequence, self.pools.volumes)

    def unused_id(self, sequence: int, used: Container[str]) -> str:
        """An id for the volume of the decision after ``sequence``, which is not in use: those who know the seed can
        take ids before their turn. O(1), or O(those that were taken)."""
        attempt = 0
        while True:
            high, low = make_many(self.id_seed ^ attempt, sequence, 1)[0].tolist()
            made = format_uuid(high, low)
            if made not in used:
                return made
            attempt += 1

    def places(self, backend: str | None) -> Rows | None:
        """Rows of ``host@backend`` or ``host@backend#pool``; None for any."""
        if backend is None:
            return None
        pools = self.pools
        if pool_part(backend) is not None:
            rows = [pools.row_of[backend]] if backend in pools.row_of else []
        else:
            rows = pools.rows_of_backend(backend) if backend == backend_part(backend) else []
        return _rows(rows)

    def decision(
        self,
        request: VolumeRequest,
        ranking: PoolRanking | None,
        why: Refusal | None,
        chosen: PoolSelection | None = None,
        retry: Retry | None = None,
    ) -> VolumeDecision:
        """The next decision, with the next sequence number."""
        self.sequence += 1
        return VolumeDecision(
            sequence=self.sequence,
            request_id=request.request_id,
            considered=0 if ranking is None else len(ranking.considered),
            removed=dict.fromkeys(stage_names(self.policy), 0) if ranking is None else ranking.removed,
            selection=chosen,
            refusal=why,
            retry=retry,
            seed=self.seed_of(self.sequence),
        )

    def selection(self, request: VolumeRequest, ranking: PoolRanking, at: int, charged: int) -> PoolSelection:
        """The pool at a place of a ranking as an answer's value."""
        facts = self.pools.fact
        chosen = facts(int(ranking.rows[at]))
        others = zip(ranking.rows[at + 1 :].tolist(), ranking.weights[at + 1 :].tolist(), strict=True)
        alternates = [
            PoolAlternate(facts(row).backend_id, facts(row).host, weight)
            for row, weight in islice(others, request.alternates)
        ]
        assert request.volume_id is not None
        return PoolSelection(
            volume_id=request.volume_id,
            backend_id=chosen.backend_id,
            host=chosen.host,
            cluster_name=chosen.cluster_name,
            pool_name=chosen.pool_name,
            availability_zone=chosen.availability_zone,
            weight=float(ranking.weights[at]),
            charged_gb=charged,
            parts=ranking.parts(at),
            alternates=tuple(alternates),
        )

    def charge(self, chosen: PoolSelection, request: VolumeRequest) -> None:
        """Charge the pool of a selection, and know its volume there. O(1)."""
        pools = self.pools
        pools.consume(pools.row_of[chosen.backend_id], chosen.charged_gb, pools.now)
        volume = Volume(
            volume_id=chosen.volume_id,
            host=chosen.host,
            cluster_name=chosen.cluster_name,
            size_gb=chosen.charged_gb,
            project_id=request.project_id,
            charged=(chosen.backend_id,),
        )
        pools.put_volume(chosen.volume_id, volume)

    def shares_version(self, fleet: Fleet) -> bool:
        """True if this engine is where the fleet is now: commands of either side are seen by both. O(1)."""
        return fleet is self._fleet


def _rows(rows: list[int]) -> Rows:
    return np.array(rows, np.int32)
