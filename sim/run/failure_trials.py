"""Failures on trial: which sets of hosts may fail so that all their guests find another host."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...placement.decide.engine import Engine
from ...placement.types.request import Request, RequestSpec
from .fleet_plan import Place
from .run import RESOURCES
from .sizing import Search

FEW: Final = 300
"""Sets up to which all are tried."""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """One failure: hosts that fail together, guests that lose their host, and those for which there is no other."""

    what: str
    hosts: int
    guests: int
    homeless: int


class Survival(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the ``of`` hosts, racks, cells or zones (``kind``) that run may fail together so that all guests find
    another host: the k of N+k. Any ``survives`` of them may, which is proven; ``found`` of them, an example of which is
    ``which``, were found that may not (None: none were). The number is known exactly if ``found`` is one more.

    One is tried of every kind of host that differs in hardware, zone or guests, all sets if there are few. Otherwise so
    many hosts are proven to be enough if, even without those with most guests and room, there is a place of the size of
    the largest guest for every guest.
    """

    kind: str
    survives: int
    of: int
    found: int | None = None
    which: list[str] = []


class Trials:
    """Failures of the ``places`` of an engine's fleet that run, on forks of it. The guests of what fails are placed
    again, the largest first, by the engine's policy."""

    def __init__(self, engine: Engine, places: Sequence[Place], spec_of: Callable[[str], RequestSpec]) -> None:
        self.engine, self.spec_of = engine, spec_of
        self._numbers: dict[RequestSpec, int] = {}
        self._known: dict[int, int] = {}
        self.place = {place.host: place for place in places}
        fleet = engine.fleet
        self.guests = {host: sorted(fleet.instances(fleet.row(host))) for host in self.place}

    def loss(self, what: str, hosts: Sequence[str]) -> Loss:
        """What the failure of hosts would do. O(guests on them) placements."""
        guests, homeless = self._fail(hosts)
        return Loss(what=what, hosts=len(hosts), guests=guests, homeless=homeless)

    def survival(self, kind: str, domains: Mapping[str, Sequence[str]]) -> Survival:
        """How many of the domains may fail together. O(distinct domains) trials, and a few of more at once."""
        names, count = list(domains), len(domains)
        bad = self.failing(kind, domains)
        if bad is not None:
            return Survival(kind=kind, survives=0, of=count, found=1, which=[bad])
        proven = 1
        for together in range(2, count):
            if math.comb(count, together) > FEW:
                break
            sets = itertools.combinations(names, together)
            found = next((each for each in sets if self._homeless(each, domains)), None)
            if found is not None:
                return Survival(kind=kind, survives=proven, of=count, found=together, which=list(found))
            proven = together
        proven = max(proven, self._proven(domains))
        worst = self._worst(domains, proven)
        if worst is None:
            return Survival(kind=kind, survives=proven, of=count)
        return Survival(kind=kind, survives=proven, of=count, found=len(worst), which=worst[:10])

    def failing(self, kind: str, domains: Mapping[str, Sequence[str]]) -> str | None:
        """The first of the domains whose failure alone leaves guests without a host. O(distinct domains) trials."""
        return next((name for name in self._distinct(kind, domains) if self._homeless([name], domains)), None)

    def _distinct(self, kind: str, domains: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """One of the domains of each kind; only single hosts without server groups can be alike."""
        if kind != "host" or self.engine.fleet._group_uuids:
            yield from domains
            return
        known: set[tuple[object, ...]] = set()
        for name in domains:
            place = self.place[name]
            shapes = tuple(sorted(self._number(uuid) for uuid in self.guests[name]))
            alike = (place.hardware, place.zone, place.rack, place.cell, shapes)
            if alike not in known:
                known.add(alike)
                yield name

    def _number(self, uuid: str) -> int:
        """A number for what a guest asked for, the same for the same."""
        spec = self.spec_of(uuid)
        number = self._known.get(id(spec))
        if number is None:
            number = self._known[id(spec)] = self._numbers.setdefault(spec, len(self._numbers))
        return number

    def _homeless(self, names: Sequence[str], domains: Mapping[str, Sequence[str]]) -> bool:
        hosts = [host for name in names for host in domains[name]]
        return self._fail(hosts)[1] > 0

    def _proven(self, domains: Mapping[str, Sequence[str]]) -> int:
        """So many of the domains, whichever they are, may fail: there is a place of the size of the largest guest left
        for each of their guests, in every zone that guests are bound to. A guest takes one such place at most, however
        it is placed. 0 where guests ask for more than resources and a zone."""
        fleet, hosts = self.engine.fleet, list(self.place)
        specs = {self._number(uuid): self.spec_of(uuid) for here in self.guests.values() for uuid in here}
        if fleet._group_uuids or any(not _plain(spec) for spec in specs.values()) or not specs:
            return 0
        asked = [(spec.flavor.vcpus, spec.flavor.memory_mb, spec.flavor.root_gb) for spec in specs.values()]
        largest = np.array(asked, np.int64).max(axis=0)
        rows = [fleet.row(host) for host in hosts]
        blocks = fleet._store.inventory
        free = blocks["limit"][: len(RESOURCES), rows] - blocks["used"][: len(RESOURCES), rows]
        parts = [free[each] // size for each, size in enumerate(largest.tolist()) if size]
        slots: NDArray[np.int64] = np.maximum(np.min(parts, axis=0), 0) if parts else np.zeros(len(hosts), np.int64)
        number = {host: at for at, host in enumerate(hosts)}
        members = [np.array([number[host] for host in each], np.int64) for each in domains.values()]
        guests = np.array([len(self.guests[host]) for host in hosts], np.int64)
        zones = {spec.availability_zone for spec in specs.values()}
        proven = len(domains)
        for zone in zones:
            there = np.array([zone is None or self.place[host].zone == zone for host in hosts])
            inside = np.where(there, slots, 0)
            needs = np.sort([int((guests + inside)[each].sum()) for each in members])[::-1]
            proven = min(proven, int(np.count_nonzero(np.cumsum(needs) <= int(inside.sum()))))
        return proven

    def _worst(self, domains: Mapping[str, Sequence[str]], proven: int) -> list[str] | None:
        """The fewest domains found whose failure leaves guests without a host: by several orders, those first that have
        most of something."""
        best: list[str] | None = None
        for order in self._orders(domains):
            most = len(order) - 1 if best is None else len(best) - 1
            if most <= proven or not self._homeless(order[:most], domains):
                continue
            search = Search(proven + 1)
            search.note(most, holds=True)
            while (together := search.candidate) is not None:
                search.note(together, holds=self._homeless(order[:together], domains))
            best = order[: search.enough]
        return best

    def _orders(self, domains: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
        """The domains, by what is given of each resource, by what there is of it, and by guests, the most first."""
        fleet = self.engine.fleet
        blocks = fleet._store.inventory
        rows = {name: [fleet.row(host) for host in hosts] for name, hosts in domains.items()}
        measures: list[dict[str, int]] = [
            {name: int(blocks[block][resource, rows[name]].sum()) for name in domains}
            for block in ("used", "limit")
            for resource in range(len(RESOURCES))
        ]
        measures.append({name: sum(len(self.guests[host]) for host in hosts) for name, hosts in domains.items()})
        known: list[list[str]] = []
        for measure in measures:
            order = sorted(domains, key=lambda name: (-measure[name], name))
            if order not in known:
                known.append(order)
                yield order

    def _fail(self, hosts: Sequence[str]) -> tuple[int, int]:
        """Let hosts fail, and place their guests again, the largest first; how many they are, and find no host."""
        trial = self.engine.fork()
        fleet = trial.fleet
        named = [(uuid, self.spec_of(uuid)) for host in hosts for uuid in self.guests[host]]
        guests = sorted(named, key=lambda guest: (-guest[1].flavor.vcpus, -guest[1].flavor.memory_mb, guest[0][-12:]))
        grouped = fleet.consumer if fleet._group_uuids else None
        requests = [
            Request(
                spec=spec,
                instance_uuids=(uuid,),
                server_group=None if grouped is None else grouped(uuid).server_group,
            )
            for uuid, spec in guests
        ]
        fleet.set_service(hosts, forced_down=True)
        trial.release(uuid for uuid, _ in guests)
        return len(guests), len(guests) - trial.place_many(requests).placed


def _plain(spec: RequestSpec) -> bool:
    """True if a guest asks for resources and a zone only."""
    bare = RequestSpec(flavor=spec.flavor, availability_zone=spec.availability_zone)
    return not spec.flavor.extra_specs and spec == bare
