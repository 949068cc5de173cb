"""What sums say of failures, without a trial: that all guests of what fails find another host, whichever way they are
placed, or that they cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...ext.devices import WHOLE
from ...placement.fleet.fleet import Fleet
from ...placement.gpu.providers import GPU_MILLI, MODELS, GpuTable, GpuWish, gpu_extra_specs, gpu_wish, model_trait
from ...placement.types.errors import HostlerError
from ...placement.types.request import RequestSpec
from .fleet_plan import Place
from .host_columns import RESOURCES
from .placing_bounds import Asked, Room, all_placed

Whole = NDArray[np.int64]
Binding = tuple[str | None, tuple[str, ...]]
"""The zone that a guest is bound to, and the GPU models of which it takes one; None and empty: any."""


class Bounds:
    """Sums over hosts, by what guests are bound to. ``specs``: what the guests of each host asked for. The hosts
    are those that run, in the order of ``place``."""

    def __init__(
        self, fleet: Fleet, place: Mapping[str, Place], specs: Mapping[str, Sequence[RequestSpec]], *, grouped: bool
    ) -> None:
        """``grouped``: guests of the fleet are in server groups, or rules beside room and zone judge hosts. O(hosts +
        guests)."""
        self._number = {host: at for at, host in enumerate(place)}
        wishes = {id(spec): _wish(spec) for here in specs.values() for spec in here}
        known = {id(spec): spec for here in specs.values() for spec in here}
        self._plain = not grouped and all(wish is not None for wish in wishes.values())
        asked = {
            each: (spec.flavor.vcpus, spec.flavor.memory_mb, _disk_gb(spec), wish.milli * wish.count)
            for each, spec in known.items()
            if (wish := wishes[each]) is not None
        }
        bound_to = {each: _binding(spec, wishes[each]) for each, spec in known.items()}
        self._zones: list[Binding] = [(None, ()), *sorted({*bound_to.values()} - {(None, ())}, key=str)]
        of_zone = {binding: at for at, binding in enumerate(self._zones)}
        count = len(place)
        self._needs: Whole = np.zeros((len(self._zones), len(RESOURCES) + 1, count), np.int64)
        """What the guests of each host need, by what they are bound to; of the first (anything) all of them."""
        self._guests: Whole = np.array([len(specs[host]) for host in place], np.int64)
        self._bound = np.zeros((len(self._zones), count), np.bool_)
        """Whether a host has guests that are bound so; the first: to nothing."""
        for at, host in enumerate(place):
            for spec in specs[host]:
                zone = of_zone[bound_to[id(spec)]]
                self._bound[zone, at] = True
                amounts = asked.get(id(spec), (0, 0, 0, 0))
                self._needs[0, :, at] += amounts
                if zone:
                    self._needs[zone, :, at] += amounts
        self._there = np.array([_there(fleet, place, binding) for binding in self._zones], bool)
        largest = [max((each[at] for each in asked.values()), default=0) for at in range(len(RESOURCES))]
        gpus = max((wish.count for wish in wishes.values() if wish is not None), default=0)
        rows = np.array([fleet.row(host) for host in place], np.int64)
        blocks = fleet._store.inventory
        closed = fleet._change_log.is_down()[fleet._store.row["class_of"][rows]]
        """Hosts that take no new guests."""
        left = (blocks["limit"][: len(RESOURCES)] - blocks["used"][: len(RESOURCES)])[:, rows]
        avail = blocks["avail"][: len(RESOURCES)][:, rows]
        self._room = Room(
            np.where(closed, 0, np.maximum(left, 0)),
            np.where(closed, 0, np.maximum(avail, 0)),
            np.where(closed[:, None], 0, _idle_gpus(fleet, rows)),
        )
        self._free: Whole = np.vstack([self._room.left, self._room.gpus.sum(axis=1)])
        """What is free on each host, of GPUs in thousandths."""
        self._slots = self._places(largest, gpus)
        """How many guests of the largest of each size it has room for, on GPUs of which nothing is given."""
        at_of = {each: at for at, each in enumerate(asked)}
        self._shapes = [[at_of[id(spec)] for spec in specs[host] if id(spec) in at_of] for host in place]
        """By host, the shape of each guest."""
        told = [(*asked[each][: len(RESOURCES)], wish.count) for each in asked if (wish := wishes[each]) is not None]
        self._asked = Asked(
            np.array(told, np.int64).reshape(len(told), len(RESOURCES) + 1),
            np.array([wish.milli for each in asked if (wish := wishes[each]) is not None], np.int64),
            np.array([of_zone[bound_to[each]] for each in asked], np.int64),
        )

    def _places(self, largest: Sequence[int], gpus: int) -> Whole:
        """By host, guests as large as the largest, each on GPUs of its own."""
        room, sizes = self._room, (*largest, gpus)
        parts = [each // size for each, size in zip((*room.left, room.idle(WHOLE)), sizes, strict=True) if size]
        places = np.min(parts, axis=0) if parts else np.zeros(room.left.shape[1], np.int64)
        return np.where((room.most >= np.array(largest, np.int64)[:, None]).all(axis=0), places, 0)

    def decided(self, hosts: Sequence[str]) -> bool | None:
        """True if all guests of those hosts find another one if they fail, False if they cannot; None if sums do not
        tell. A guest takes the place of one guest as large as the largest at most, however it is placed. O(hosts), and
        O(shapes of guests x hosts) where that does not tell."""
        which = np.array([self._number[host] for host in hosts], np.int64)
        left = np.ones(self._there.shape[1], np.bool_)
        left[which] = False
        zones = [zone for zone in range(len(self._zones)) if not zone or self._bound[zone, which].any()]
        for zone in zones:
            if np.any(self._needs[zone][:, which].sum(axis=1) > self._free[:, self._there[zone] & left].sum(axis=1)):
                return False
        guests = int(self._guests[which].sum())
        if not guests:
            return True
        there = [zone for zone in zones if self._bound[zone, which].any()]
        if not self._plain:
            return None
        if all(guests <= int(self._slots[self._there[zone] & left].sum()) for zone in there):
            return True
        counts = Counter(shape for at in which.tolist() for shape in self._shapes[at])
        placed = all_placed(self._asked, counts, self._room, self._there & left)
        return True if placed else None

    def proven(self, domains: Mapping[str, Sequence[str]]) -> int:
        """So many of the domains, whichever they are, may fail, as ``decided`` tells of the worst of them. 0 where
        guests ask for more than resources, GPUs and a zone."""
        if not self._plain or not self._guests.any():
            return 0
        members = [np.array([self._number[host] for host in each], np.int64) for each in domains.values()]
        proven = len(domains)
        for zone in range(len(self._zones)):
            if self._bound[zone].any():
                inside = np.where(self._there[zone], self._slots, 0)
                needs = np.sort([int((self._guests + inside)[each].sum()) for each in members])[::-1]
                proven = min(proven, int(np.count_nonzero(np.cumsum(needs) <= int(inside.sum()))))
        return proven


def _idle_gpus(fleet: Fleet, rows: Whole) -> Whole:
    """[hosts, most GPUs] thousandths that are left."""
    if GPU_MILLI not in fleet.resource_classes or not len(rows):
        return np.zeros((len(rows), 0), np.int64)
    return np.maximum(GpuTable(fleet).idle(rows), 0).astype(np.int64)


def _disk_gb(spec: RequestSpec) -> int:
    flavor = spec.flavor
    return flavor.root_gb + flavor.ephemeral_gb + -(-flavor.swap // 1024)


def _wish(spec: RequestSpec) -> GpuWish | None:
    """The GPUs of a guest that asks for resources, GPUs and a zone only; None for others."""
    if spec != RequestSpec(flavor=spec.flavor, availability_zone=spec.availability_zone, prepare=spec.prepare):
        return None
    try:
        wish = gpu_wish(spec.flavor.extra_specs)
    except HostlerError:
        return None
    told = {key: value for key, value in spec.flavor.extra_specs.items() if key != MODELS}
    return wish if told == gpu_extra_specs(wish.milli, wish.count) else None


def _binding(spec: RequestSpec, wish: GpuWish | None) -> Binding:
    return spec.availability_zone, () if wish is None else wish.models


def _there(fleet: Fleet, place: Mapping[str, Place], binding: Binding) -> list[bool]:
    """Which hosts a guest that is bound so may be on, as GpuModelFilter and the zones say."""
    zone, models = binding
    traits = {model_trait(model) for model in models}
    return [
        zone in (None, each.zone) and (not traits or not traits.isdisjoint(fleet._host_class(fleet.row(host)).traits))
        for host, each in place.items()
    ]
