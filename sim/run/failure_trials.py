"""Failures on trial: which sets of hosts may fail so that all their guests find another host."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Final

import msgspec

from ...placement.decide.engine import Engine
from ...placement.gpu.providers import gpu_wish
from ...placement.types.request import Request, RequestSpec
from .failure_bounds import Bounds
from .fleet_plan import Place
from .guests_on import guests_on
from .host_columns import RESOURCES
from .policies import FILTERS
from .sizing import Search

FEW: Final = 300
"""Sets up to which all are tried."""
PLAIN: Final = frozenset(
    {*FILTERS, "NUMATopologyFilter", "ComputeCapabilitiesFilter", "ImagePropertiesFilter", "PciPassthroughFilter"}
)
"""Filters that refuse no running host a guest that asks for resources, GPUs and a zone only."""


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
    again, those with most GPUs and vCPUs first, by the engine's policy."""

    def __init__(self, engine: Engine, places: Sequence[Place], spec_of: Callable[[str], RequestSpec]) -> None:
        self.engine, self.spec_of = engine, spec_of
        self._numbers: dict[RequestSpec, int] = {}
        self._known: dict[int, int] = {}
        self.place = {place.host: place for place in places}
        fleet = engine.fleet
        self.guests = {host: sorted(guests_on(fleet, host)) for host in self.place}
        specs = {host: [spec_of(uuid) for uuid in here] for host, here in self.guests.items()}
        others = {each.name for each in engine.policy.filters} - PLAIN
        self._bounds = Bounds(fleet, self.place, specs, grouped=bool(fleet._group_uuids or others))
        self._failed: dict[frozenset[str], tuple[int, int]] = {}
        """What the failures that were tried did."""
        self._again = {uuid: self._guest(uuid) for here in self.guests.values() for uuid in here}
        """How each guest is placed again: its turn, and its request."""

    def _guest(self, uuid: str) -> tuple[tuple[object, ...], Request]:
        """The turn and the request of a guest: those with most of GPUs, vCPUs and memory first, equal ones together."""
        spec, fleet = self.spec_of(uuid), self.engine.fleet
        wish = gpu_wish(spec.flavor.extra_specs)
        sizes = -wish.count * wish.milli, -spec.flavor.vcpus, -spec.flavor.memory_mb
        group = fleet.consumer(uuid).server_group if fleet._group_uuids else None
        return (*sizes, self._number(uuid), uuid), Request(spec=spec, instance_uuids=(uuid,), server_group=group)

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
        proven = max(proven, self._bounds.proven(domains))
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
        found = self._bounds.decided(hosts)
        return self._fail(hosts)[1] > 0 if found is None else not found

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
        """Let hosts fail, and place their guests again; how many they are, and find no host. Tried once for a set."""
        key = frozenset(hosts)
        known = self._failed.get(key)
        if known is None:
            guests = [uuid for host in hosts for uuid in self.guests[host]]
            trial = self.engine.fork()
            trial.fleet.set_service(hosts, forced_down=True)
            trial.release(guests)
            ordered = sorted((self._again[uuid] for uuid in guests), key=itemgetter(0))
            placed = trial.place_many([request for _, request in ordered]).placed
            known = self._failed[key] = len(guests), len(guests) - placed
        return known
