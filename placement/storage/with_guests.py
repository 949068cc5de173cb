"""A guest and its volumes placed together, all or nothing, with its storage near it as a must or as a wish.

Near is: on the guest's own host, in its availability zone, or in an aggregate (a rack) that both are in. As a *filter*
each volume must be near, and the best host by the compute policy that has such room wins. As a *weight* hosts compete
by their weight plus ``weight * share of the volumes that are near``, and near pools get ``weight`` besides.
Hosts that see the same storage as near are tried once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..decide.engine import Engine
from ..decide.scan import Ranked
from ..types.content import ContentEquality
from ..types.decision import Decision, Refusal
from ..types.errors import DuplicateName, InvalidValue, UnknownName
from ..types.request import Destination, Request
from ..types.validation import finite, shown
from .decision import VolumeDecision
from .engine import VolumeEngine
from .explain import refusal
from .pools.backend_names import backend_part, host_part
from .pools.request import VolumeRequest
from .scan import PoolRanking

LEVELS: Final = ("host", "zone", "aggregate")
MODES: Final = ("filter", "weight")
_WORDS: Final = {"host": "on its host", "zone": "in its zone", "aggregate": "in an aggregate of its own"}

Rows = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """How near storage is to be. ``weight`` counts in the mode ``weight`` alone, in the units of host weights."""

    level: str
    mode: str = "filter"
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointRequest(ContentEquality):
    """One guest and its volumes."""

    guest: Request
    volumes: tuple[VolumeRequest, ...]
    locality: Locality | None = None


class JointDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: the guest's decision and one for each volume, or a refusal and nothing. ``near`` says of each volume
    whether it is near; ``tried`` how many hosts were tried."""

    guest: Decision | None = None
    volumes: tuple[VolumeDecision, ...] = ()
    near: tuple[bool, ...] = ()
    tried: int = 0
    refusal: Refusal | None = None

    @property
    def placed(self) -> bool:
        """True if the guest and all volumes were placed."""
        return self.refusal is None

    def __bool__(self) -> bool:
        """``placed``: a refusal is false."""
        return self.placed


def place_together(compute: Engine, storage: VolumeEngine, request: JointRequest) -> JointDecision:
    """Place a guest and its volumes, all or nothing, on one fleet that both engines share. InvalidValue and its like
    for bad input, and nothing changed. O(hosts + hosts tried * volumes * pools)."""
    _check(compute, storage, request)
    with _all_or_nothing(compute, storage):
        return _Joint(compute, storage, request).place()


def _check(compute: Engine, storage: VolumeEngine, request: object) -> None:
    if not isinstance(compute, Engine) or not isinstance(storage, VolumeEngine):
        raise InvalidValue("a guest and volumes are placed by an Engine and a VolumeEngine", field="engine")
    if not storage._context.shares_version(compute.fleet):
        raise InvalidValue("the two engines are not on one version of one fleet", field="storage", hint=_HINT)
    if not isinstance(request, JointRequest):
        raise InvalidValue(f"request must be a JointRequest, got {shown(request)}", field="request")
    if not isinstance(request.guest, Request) or len(request.guest.instance_uuids) > 1:
        raise InvalidValue("guest must be a Request for one guest", field="guest")
    if not isinstance(request.volumes, tuple | list):
        raise InvalidValue(f"volumes must be several requests, got {shown(request.volumes)}", field="volumes")
    ids = [storage._context.checked(volume).volume_id for volume in request.volumes]
    named = [volume_id for volume_id in ids if volume_id is not None]
    if len(set(named)) < len(named):
        raise DuplicateName("a volume is named twice", field="volumes")
    if request.locality is not None:
        _check_locality(request.locality)


_HINT: Final = "make the VolumeEngine with the fleet of the Engine, after forking"


def _check_locality(locality: object) -> None:
    if not isinstance(locality, Locality):
        raise InvalidValue(f"locality must be a Locality, got {shown(locality)}", field="locality")
    if locality.level not in LEVELS:
        raise UnknownName.among("level", str(locality.level), LEVELS, field="locality.level")
    if locality.mode not in MODES:
        raise UnknownName.among("mode", str(locality.mode), MODES, field="locality.mode")
    if finite(locality.weight, "locality.weight") < 0:
        raise InvalidValue("locality.weight must not be negative", field="locality.weight")


@contextmanager
def _all_or_nothing(compute: Engine, storage: VolumeEngine) -> Iterator[None]:
    sequence = compute.sequence
    now = compute.fleet.now
    with storage._context.deciding():
        try:
            yield
        except BaseException:
            compute.sequence = sequence
            compute.fleet.advance(now, compute.policy.options.default.service_down_time)
            raise


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome on one host."""

    guest: Decision
    volumes: tuple[VolumeDecision, ...]
    near: tuple[bool, ...]

    @property
    def share(self) -> float:
        """Share of the volumes that are near."""
        return sum(self.near) / len(self.near) if self.near else 1.0


class _Joint:
    """One request in the making."""

    def __init__(self, compute: Engine, storage: VolumeEngine, request: JointRequest) -> None:
        self.compute, self.storage, self.request = compute, storage, request
        self.locality = request.locality
        self.tried = 0
        self.why: Refusal | None = None
        self._near: dict[Hashable, Rows] = {}

    def place(self) -> JointDecision:
        guest = self.compute.rank(self.request.guest)
        if not len(guest.rows):
            decision = self.compute.place(self.request.guest)
            return JointDecision(guest=decision, refusal=decision.refusal)
        if self.locality is None:
            return self.first(guest, self.attempt(None))
        return self.nearest(guest) if self.locality.mode == "filter" else self.best(guest)

    def first(self, guest: Ranked, outcome: _Outcome | None) -> JointDecision:
        if outcome is None:
            return self.refused(guest)
        return JointDecision(guest=outcome.guest, volumes=outcome.volumes, near=outcome.near, tried=self.tried)

    def nearest(self, guest: Ranked) -> JointDecision:
        """The first host, by rank, that has all volumes near."""
        for row in self.hosts(guest):
            if not self.request.volumes or len(self.near(row)):
                outcome = self.attempt(row)
                if outcome is not None:
                    return self.first(guest, self.as_ranked(outcome, guest, row))
        return self.refused(guest)

    def best(self, guest: Ranked) -> JointDecision:
        """The host of the greatest weight and share together; no host below the bound is tried."""
        assert self.locality is not None
        weight = dict(zip(guest.rows.tolist(), guest.weights.tolist(), strict=True))
        chosen, most = None, -np.inf
        for row in self.hosts(guest):
            if weight[row] + self.locality.weight <= most:
                break
            with self.trial():
                outcome = self.attempt(row)
            if outcome is not None and weight[row] + self.locality.weight * outcome.share > most:
                chosen, most = row, weight[row] + self.locality.weight * outcome.share
        if chosen is None:
            return self.refused(guest)
        outcome = self.attempt(chosen)
        return self.first(guest, None if outcome is None else self.as_ranked(outcome, guest, chosen))

    def hosts(self, guest: Ranked) -> Iterator[int]:
        """The best host of each kind, by rank."""
        seen: set[Hashable] = set()
        for row in guest.rows.tolist():
            key = self.key(row)
            if key not in seen:
                seen.add(key)
                yield row

    def key(self, row: int) -> Hashable:
        """What hosts have in common that see the same storage as near."""
        near = tuple(self.near(row).tolist())
        static = any(volume.spec.scheduler_hints.get("local_to_instance") for volume in self.request.volumes)
        return (near, self.compute.fleet._service_host(row)) if static else near

    def near(self, row: int) -> Rows:
        """Rows of the pools that are near a host."""
        assert self.locality is not None
        place = _PLACES[self.locality.level](self.compute, row)
        found = self._near.get(place)
        if found is None:
            pools = self.storage.pools
            near = _IS_NEAR[self.locality.level]
            rows = [pool for pool in pools.live_rows().tolist() if near(self.storage, pool, place)]
            found = self._near[place] = np.array(rows, np.int32)
        return found

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo everything that the body does."""
        start = self.compute.fleet._history.hold()
        sequences = self.compute.sequence, self.storage.sequence
        try:
            yield
        finally:
            self.compute.fleet._history.go(start)
            self.compute.sequence, self.storage.sequence = sequences

    def attempt(self, row: int | None) -> _Outcome | None:
        """Place the guest on a host (None: where the policy likes it best) and its volumes; None, and nothing changed,
        if they do not all fit."""
        self.tried += 1
        fleet = self.compute.fleet
        start, sequences = fleet._history.hold(), (self.compute.sequence, self.storage.sequence)
        guest = self.compute.place(self.request.guest if row is None else self._to(row))
        if guest.placed:
            found = self.volumes(row)
            if found is not None:
                volumes, near = found
                return _Outcome(guest, volumes, near)
        fleet._history.go(start)
        self.compute.sequence, self.storage.sequence = sequences
        return None

    def _to(self, row: int) -> Request:
        """The guest's request for one host."""
        guest, fleet = self.request.guest, self.compute.fleet
        before = guest.spec.requested_destination or Destination()
        destination = replace(before, host=fleet._service_host(row), node=fleet.name(row))
        return guest.with_changes(spec=replace(guest.spec, requested_destination=destination))

    def volumes(self, row: int | None) -> tuple[tuple[VolumeDecision, ...], tuple[bool, ...]] | None:
        decisions: list[VolumeDecision] = []
        near: list[bool] = []
        for volume in self.request.volumes:
            decision = self.volume(volume, row)
            if decision.selection is None:
                self.why = decision.refusal
                return None
            decisions.append(decision)
            pool = self.storage.pools.row_of[decision.selection.backend_id]
            near.append(row is not None and pool in self.near(row))
        return tuple(decisions), tuple(near)

    def volume(self, volume: VolumeRequest, row: int | None) -> VolumeDecision:
        storage = self.storage
        if row is None:
            return storage.place(volume)
        assert self.locality is not None
        storage.pools.advance(volume.now)
        volume = volume.with_changes(volume_id=storage._context.new_volume_id(volume))
        filter_properties = storage._context.filter_properties(volume)
        allowed = storage._context.places(volume.spec.resource_backend)
        near = self.near(row)
        must = near if self.locality.mode == "filter" else None
        if must is not None and allowed is not None:
            must = np.intersect1d(must, allowed).astype(np.int32)
        ranking = storage._context.ranking(filter_properties, among=allowed if must is None else must)
        at = 0 if must is not None else _nearest(ranking, near, self.locality.weight)
        if at is None:
            return storage._context.decision(
                volume, ranking, refusal(storage.pools, storage.policy, filter_properties, ranking)
            )
        if not len(ranking.rows):
            return storage._context.decision(
                volume, ranking, refusal(storage.pools, storage.policy, filter_properties, ranking)
            )
        chosen = storage._context.selection(volume, ranking, at, volume.spec.size_gb)
        storage._context.charge(chosen, volume)
        return storage._context.decision(volume, ranking, None, chosen)

    def as_ranked(self, outcome: _Outcome, guest: Ranked, row: int) -> _Outcome:
        """The guest's decision as one among all hosts: counts and weight are those of the whole ranking."""
        weight = float(guest.weights[int(np.flatnonzero(guest.rows == row)[0])])
        selection = msgspec.structs.replace(outcome.guest.selected, weight=weight, parts=())
        decision = msgspec.structs.replace(
            outcome.guest, considered=len(guest.considered), removed=guest.removed, selections=(selection,)
        )
        return replace(outcome, guest=decision)

    def refused(self, guest: Ranked) -> JointDecision:
        """Hosts there are, but not with room for the volumes."""
        hosts = len(guest.rows)
        where = "" if self.locality is None or self.locality.mode == "weight" else f" {_WORDS[self.locality.level]}"
        many = f"{hosts} hosts" if hosts > 1 else "1 host"
        sentence = f"{many} can take the guest, but none has room for its volumes{where}"
        if self.why is not None:
            sentence = f"{sentence}: {self.why.sentence}"
        return JointDecision(tried=self.tried, refusal=Refusal(sentence=sentence, stage="volumes", hint=self.hint()))

    def hint(self) -> str | None:
        """What would help: to let the volumes be far."""
        if self.locality is None or self.locality.mode == "weight":
            return self.why.hint if self.why is not None else None
        self.locality = None
        with self.trial():
            far = self.attempt(None)
        return "without locality all would be placed" if far is not None else None


def _nearest(ranking: PoolRanking, near: Rows, weight: float) -> int | None:
    """Place of the best pool, near ones weighing more; None if there is none."""
    if not len(ranking.rows):
        return None
    return int(np.argmax(ranking.weights + weight * np.isin(ranking.rows, near)))


# what is near


def _host_place(compute: Engine, row: int) -> Hashable:
    return compute.fleet._service_host(row)


def zone_of_row(compute: Engine, row: int) -> str:
    """The availability zone of a host. O(its aggregates)."""
    fleet = compute.fleet
    zone = compute.policy.options.default.default_availability_zone
    for index in fleet._host_class(row).aggregates:
        zone = fleet.aggregates[index].metadata.get("availability_zone", zone)
    return zone


def _aggregate_place(compute: Engine, row: int) -> Hashable:
    fleet = compute.fleet
    return frozenset(fleet.aggregates[index].uuid for index in fleet._host_class(row).aggregates)


def _on_host(storage: VolumeEngine, pool: int, place: Hashable) -> bool:
    return host_part(storage.pools.fact(pool).host) == place


def _in_zone(storage: VolumeEngine, pool: int, place: Hashable) -> bool:
    return storage.pools.fact(pool).availability_zone == place


def _in_aggregate(storage: VolumeEngine, pool: int, place: Hashable) -> bool:
    assert isinstance(place, frozenset)
    return not place.isdisjoint(pool_aggregates(storage, pool))


def pool_aggregates(storage: VolumeEngine, row: int) -> frozenset[str]:
    """Uuids of the aggregates that a pool is in: those of its cluster, backend or host by ``set_aggregates``, and those
    of the compute host of the same name. O(nodes of the host)."""
    fleet, facts = storage.fleet, storage.pools.fact(row)
    host = host_part(facts.host)
    found: set[str] = set()
    for name in (facts.backend_key, backend_part(facts.host), host):
        found |= storage.pools.aggregates.get(name, frozenset())
    for node in fleet._rows_of_service_host(host):
        found |= {fleet.aggregates[index].uuid for index in fleet._host_class(node).aggregates}
    return frozenset(found)


_PLACES: Final = {"host": _host_place, "zone": zone_of_row, "aggregate": _aggregate_place}
_IS_NEAR: Final = {"host": _on_host, "zone": _in_zone, "aggregate": _in_aggregate}
