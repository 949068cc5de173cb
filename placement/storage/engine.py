"""The storage engine: places volumes on the pools of one fleet under one policy, and says why. The same pools and
commands give the same decisions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import numpy as np

from ...ext.tables import format_uuid, make_many
from ..decide.fits import Fit
from ..fleet.fleet import Fleet
from ..fleet.heads import Head
from ..types.decision import Refusal, ScorePart
from ..types.errors import InvalidValue, UnknownName
from ..types.validation import shown, whole_number
from . import (
    batch as volume_batch,
)
from . import (
    changes as volume_changes,
)
from . import (
    fits as volume_fits,
)
from . import (
    groups as volume_groups,
)
from .batch import VolumeDecisions
from .compiled import CompiledVolumes, VolumeSignature, rankable
from .decision import PoolAlternate, PoolSelection, VolumeDecision, VolumeGroupDecision
from .explain import VolumeExplanation, explain, refusal
from .pools.backend_names import backend_part, pool_part
from .pools.filter_properties import FilterProperties, InstanceHost
from .pools.filters.base import Rows
from .pools.policy import VolumePolicy
from .pools.pools import Pools
from .pools.request import (
    Retry,
    VolumeGroupRequest,
    VolumeRequest,
    VolumeSpec,
    check_volume_request,
    check_volume_spec,
)
from .pools.volumes import Volume
from .scan import PoolRanking, rank, stage_names

_MIX: Final = 0x9E3779B97F4A7C15
_WORD: Final = (1 << 64) - 1


class VolumeEngine:
    """Places volumes. Not thread-safe; deterministic given the fleet, the policy, ``seed`` and the calls.

    Pools come by ``engine.pools.report`` and ``load``. ``instance_host`` says on which compute host an instance is, for
    the hint ``local_to_instance``; left out, the guests of the same fleet are looked at. An error raises HostlerError
    and changes nothing; a refusal is a decision too.
    """

    def __init__(
        self,
        fleet: Fleet | None = None,
        policy: VolumePolicy | None = None,
        *,
        seed: int | None = None,
        instance_host: InstanceHost | None = None,
    ) -> None:
        _check_kind(fleet, Fleet, "fleet")
        _check_kind(policy, VolumePolicy, "policy")
        self._fleet = fleet if fleet is not None else Fleet()
        self._head = self._fleet.heads.adopt(Head())
        self.policy = policy if policy is not None else VolumePolicy.cinder_default()
        self.seed = whole_number(self.policy.options.seed if seed is None else seed, "seed", most=2**63 - 1)
        self.instance_host: InstanceHost = instance_host or self._guest_host
        self._checked: dict[int, VolumeSpec] = {}
        self._compile()

    def _compile(self) -> None:
        """What does not depend on requests."""
        self._reads_user = self.policy.has_functions
        self._stages = stage_names(self.policy)
        self.compiled = CompiledVolumes(self._fleet.pools, self.policy)

    # state

    @property
    def id_seed(self) -> int:
        """Seed of the ids of volumes that come without one."""
        return self.seed ^ 0x5DEECE66D

    @property
    def fleet(self) -> Fleet:
        """The fleet as this engine sees it."""
        self._fleet.heads.enter(self._head)
        return self._fleet

    @property
    def sequence(self) -> int:
        """Number of the latest decision about volumes. Engines on one fleet that are no forks count together, and a
        fleet that was saved and loaded goes on counting."""
        return self.fleet.heads.volume_sequence

    @sequence.setter
    def sequence(self, number: int) -> None:
        self.fleet.heads.volume_sequence = number

    @property
    def pools(self) -> Pools:
        """The pools as this engine sees them. Change them through here: forks share one Fleet object in turn."""
        pools = self.fleet.pools
        pools.set_default_ratio(self.policy.options.max_over_subscription_ratio)
        return pools

    def _guest_host(self, uuid: str) -> str | None:
        fleet = self.fleet
        try:
            row = int(fleet.kernel.consumer(fleet.consumer_id(uuid))[2])
        except (UnknownName, InvalidValue):
            return None
        return fleet.service_host(row)

    def seed_of(self, sequence: int) -> int:
        """64-bit seed of a decision: splitmix64 of the engine's seed and the sequence number."""
        word = (self.seed + sequence * _MIX) & _WORD
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
        return word ^ (word >> 31)

    @contextmanager
    def deciding(self) -> Iterator[Pools]:
        """The pools, for a command that is undone as a whole if it raises."""
        pools, sequence = self.pools, self.sequence
        history = self._fleet.history
        start = history.hold()
        try:
            yield pools
        except BaseException:
            history.go(start)
            self.sequence = sequence
            raise

    def checked(self, request: VolumeRequest) -> VolumeRequest:
        """The request if it can be decided; InvalidValue otherwise. O(1) for a spec that was seen before."""
        check_volume_request(request)
        spec = request.spec
        if spec is None or self._checked.get(id(spec)) is not spec:
            check_volume_spec(spec)
            if len(self._checked) > 10_000:
                self._checked.clear()
            self._checked[id(spec)] = spec
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
        self, filter_properties: FilterProperties, *, among: Rows | None = None, sequence: int | None = None
    ) -> PoolRanking:
        """All pools that pass, best first; charges nothing. ``among``: the only rows that may be chosen. O(pools)."""
        draw = self.draw(self.sequence + 1 if sequence is None else sequence)
        return rank(self.pools, self.policy, filter_properties, draw, among=among)

    def draw(self, sequence: int) -> Callable[[], float]:
        """The random numbers of a decision."""
        return random.Random(self.seed_of(sequence)).random

    def place(self, request: VolumeRequest) -> VolumeDecision:
        """Choose a pool for a new volume by Cinder 29's rules and charge it.

        With ``retry`` the pool tried last gets back what it was charged, and none that was tried is tried again where
        the policy has IgnoreAttemptedHostsFilter. InvalidValue, or DuplicateName for a volume that exists. O(pools).
        """
        self.checked(request)
        with self.deciding() as pools:
            pools.advance(request.now)
            retry = self._next_attempt(request)
            if retry is not None and retry.num_attempts > self.policy.options.scheduler_max_attempts:
                return self._out_of_attempts(request, retry)
            if retry is not None and retry.backends:
                self._take_back(request, retry.backends[-1])
            signature = self.signature(request) if retry is None or not retry.tried else None
            request = request.with_changes(retry=retry, volume_id=self.new_volume_id(request))
            if signature is not None:
                decision = self._place_ranked(request, signature)
                if decision is not None:
                    return decision
            filter_properties = self.filter_properties(request)
            ranking = self.ranking(filter_properties, among=self.places(request.spec.resource_backend))
            return self._answer(request, filter_properties, ranking, request.spec.size_gb)

    def signature(self, request: VolumeRequest) -> VolumeSignature | None:
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

    def _place_ranked(self, request: VolumeRequest, signature: VolumeSignature) -> VolumeDecision | None:
        """The decision by the index; None if no pool passes, which the scan explains."""
        signature.refresh()
        pools, ranking = self.pools, signature.ranking
        rows, weights = ranking.best(-1, 1 + request.alternates)
        if not rows:
            return None
        counts = ranking.counts(-1, signature.stages)
        best, others = pools.fact(rows[0]), zip(map(pools.fact, rows[1:]), weights[1:], strict=True)
        parts = zip(self.policy.weighers, ranking.row_parts(rows[0]), strict=True)
        assert request.volume_id is not None
        chosen = PoolSelection(
            volume_id=request.volume_id,
            backend_id=best.backend_id,
            host=best.host,
            cluster_name=best.cluster_name,
            pool_name=best.pool_name,
            availability_zone=best.availability_zone,
            weight=weights[0],
            charged_gb=request.spec.size_gb,
            parts=tuple([ScorePart(weigher.name, *part) for weigher, part in parts]),
            alternates=tuple([PoolAlternate(other.backend_id, other.host, weight) for other, weight in others]),
        )
        self.charge(chosen, request)
        self.sequence += 1
        return VolumeDecision(
            sequence=self.sequence,
            request_id=request.request_id,
            considered=sum(counts),
            removed=dict(zip(self._stages, counts[1:], strict=True)),
            selection=chosen,
            retry=_after(request.retry, chosen.backend_id),
            seed=self.seed_of(self.sequence),
        )

    def place_many(self, requests: Iterable[VolumeRequest]) -> VolumeDecisions:
        """Place each request, one after the other, each seeing those before it; a refusal does not stop the rest.

        The answers are those of ``place``, without score parts and hints of refusals. Bad input raises before anything
        is placed. O(changes since the last like decision + log pools) each, where the policy leaves nothing to chance
        and no hint or earlier attempt speaks of single pools; else O(pools).
        """
        return volume_batch.place_many(self, requests)

    def _next_attempt(self, request: VolumeRequest) -> Retry | None:
        if self.policy.options.scheduler_max_attempts == 1:
            return None  # rescheduling is off
        if request.retry is None:
            return Retry(num_attempts=1)
        return replace(request.retry, num_attempts=request.retry.num_attempts + 1)

    def _out_of_attempts(self, request: VolumeRequest, retry: Retry) -> VolumeDecision:
        most = self.policy.options.scheduler_max_attempts
        sentence = f"No valid backend was found: {most} attempts have failed, and more are not made"
        why = Refusal(sentence=sentence, stage="retry", hint="raise scheduler_max_attempts")
        return self.decision(request, None, why, retry=retry)

    def _take_back(self, request: VolumeRequest, tried: str) -> None:
        pools = self.pools
        known = pools.volumes.get(request.volume_id) if request.volume_id is not None else None
        if known is not None and tried in known.charged:
            pools.put_volume(known.volume_id, None)
        row = pools.row_of.get(tried)
        if row is not None:
            pools.consume(row, -request.spec.size_gb)

    def new_volume_id(self, request: VolumeRequest) -> str:
        """The id of the request's volume, made if it has none; DuplicateName if there is such a volume."""
        if request.volume_id is not None:
            self.pools.volumes.check_new(request.volume_id)
            return request.volume_id
        made = make_many(self.id_seed, self.sequence, 1)
        return format_uuid(int(made[0, 0]), int(made[0, 1]))

    def places(self, backend: str | None) -> Rows | None:
        """Rows of ``host@backend`` or ``host@backend#pool``; None if any will do."""
        if backend is None:
            return None
        pools = self.pools
        if pool_part(backend) is not None:
            rows = [pools.row_of[backend]] if backend in pools.row_of else []
        else:
            rows = pools.rows_of_backend(backend) if backend == backend_part(backend) else []
        return _rows(rows)

    def _answer(
        self, request: VolumeRequest, filter_properties: FilterProperties, ranking: PoolRanking, charged: int
    ) -> VolumeDecision:
        """The decision for a ranking: its best pool, charged."""
        if not len(ranking.rows):
            why = refusal(self.pools, self.policy, filter_properties, ranking)
            return self.decision(request, ranking, why, retry=request.retry)
        chosen = self.selection(request, ranking, 0, charged)
        self.charge(chosen, request)
        return self.decision(request, ranking, None, chosen, _after(request.retry, chosen.backend_id))

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

    def rank(self, request: VolumeRequest) -> PoolRanking:
        """All pools that pass, best first with weights, and the stage that removed each other. O(pools log pools)."""
        self.checked(request)
        return self.ranking(self.filter_properties(request), among=self.places(request.spec.resource_backend))

    def explain(self, request: VolumeRequest, *, top: int = 5) -> VolumeExplanation:
        """Per pool the first refusing stage and why, score parts of the best ``top``, and what would change the
        answer. Charges nothing. O(pools)."""
        whole_number(top, "top")
        ranking = self.rank(request)
        return explain(self.pools, self.policy, self.filter_properties(request), ranking, top)

    def fits(self, request: VolumeRequest, *, limit: int | None = None) -> Fit:
        """How many more volumes of this kind fit, and in which pools. Charges nothing. InvalidValue without ``limit``
        where there is no end. O(pools), or O(volumes) where other filters read figures too."""
        if limit is not None:
            whole_number(limit, "limit")
        return volume_fits.fits(self, self.checked(request), limit)

    def shares_version(self, fleet: Fleet) -> bool:
        """True if this engine is where the fleet is now: commands of either side are seen by both. O(1)."""
        return fleet is self._fleet and fleet.heads.adopt(self._head) is self._head

    # changing: see volume_changes.py

    def passes(self, request: VolumeRequest, backend: str) -> VolumeDecision:
        """May the volume be on this pool, or on some pool of this ``host@backend``? Cinder's check before a migration
        or a snapshot: all filters, nothing charged. O(pools)."""
        return volume_changes.passes(self, request, backend)

    def extend(self, request: VolumeRequest, new_size_gb: int, backend: str | None = None) -> VolumeDecision:
        """Let a volume of ``request.spec.size_gb`` grow where it is: on ``backend``, or where the volume of
        ``request.volume_id`` is known to be. Its pool is charged the difference. O(pools)."""
        return volume_changes.extend(self, request, new_size_gb, backend)

    def retype(
        self, request: VolumeRequest, backend: str | None = None, *, migration_policy: str = "never"
    ) -> VolumeDecision:
        """Give a volume the type of ``request.spec``: where it is (``backend``, or as known) if that passes, for
        nothing; elsewhere only by the migration policy ``on-demand``: that pool is charged, and the old one keeps its
        charge until ``migrated``. O(pools)."""
        return volume_changes.retype(self, request, backend, migration_policy)

    def manage(self, request: VolumeRequest, backend: str) -> VolumeDecision:
        """Take over a volume that is on ``backend`` already, if all filters pass for a volume of no size: nothing is
        charged, but it is known from now on. O(pools)."""
        return volume_changes.manage(self, request, backend)

    def migrated(self, volume_id: str) -> None:
        """A retyped volume has left its old pool, which gets back what it was charged. UnknownName. O(1)."""
        volume_changes.migrated(self, volume_id)

    def release(self, volume_ids: str | Iterable[str]) -> int:
        """Volumes are gone: their pools get back what they were charged; returns how many. UnknownName, and nothing
        changed, if one is unknown. O(volumes)."""
        return volume_changes.release(self, volume_ids, give_back=True)

    def forget(self, volume_ids: str | Iterable[str]) -> int:
        """As ``release``, but what their pools have left is only told by the next report. O(volumes)."""
        return volume_changes.release(self, volume_ids, give_back=False)

    def place_group(self, request: VolumeGroupRequest) -> VolumeGroupDecision:
        """Place the volumes of a group on one backend, all or none: the best by Cinder's order whose pools can hold
        them together. InvalidValue or DuplicateName. O(backends tried * volumes * pools)."""
        return volume_groups.place_group(self, request)

    # forks

    def fork(self, policy: VolumePolicy | None = None) -> VolumeEngine:
        """An engine on the same pools as they are now, under the same policy or another; what either does the other
        never sees. O(1)."""
        _check_kind(policy, VolumePolicy, "policy")
        other = VolumeEngine.__new__(VolumeEngine)
        other.__dict__.update(self.__dict__)
        other._fleet = self.fleet
        other.policy = policy if policy is not None else self.policy
        other._checked = {}
        if policy is not None:
            other._compile()
        if self.instance_host == self._guest_host:
            other.instance_host = other._guest_host
        other._head = Head()
        other._fleet.heads.share(other._head)
        return other

    def what_if(self, policy: VolumePolicy | None = None) -> VolumeEngine:
        """A fork to try things on and throw away: ``engine.what_if().place(request)``."""
        return self.fork(policy)


def _after(retry: Retry | None, backend_id: str) -> Retry | None:
    """What the next attempt must carry: this pool was tried."""
    if retry is None:
        return None
    backends = None if retry.backends is None else (*retry.backends, backend_id)
    return replace(retry, backends=backends, hosts=(*retry.hosts, backend_id))


def _rows(rows: list[int]) -> Rows:
    return np.array(rows, np.int32)


def _check_kind(value: object, kind: type[Any], field: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise InvalidValue(f"{field} must be a {kind.__name__}, got {shown(value)}", field=field)
