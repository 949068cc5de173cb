"""Why a guest found no host: the smallest change that would have placed it, found by trying changes on what was free.

Hosts on which the guest may be (zone, traits, GPU models) are told from what they have left. A resource is named that
the nearest of these hosts lacked; the zone, the trait or the model, if a host elsewhere had room; and that hosts are
out of service, if one of these had. Where a host has room for all of it, a rule refused the guest: ``rules`` tries
which.

Of guests that are refused again, the answer holds while no host has more left than it had, and those have not less by
which it was found: what any other host lacks has become no less."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.engine import Engine
from ...placement.fleet.inventories import FIRST_CLASSES
from ...placement.gpu.providers import GPU_MILLI, GpuWish, gpu_wish, model_trait
from ...placement.request.flavor_and_image import Wishes
from ...placement.request.resource_groups import groups_of
from ...placement.types.errors import HostlerError
from ...placement.types.request import Request, RequestSpec
from .room import Room, Then, Whole
from .rules import binding_rule
from .site import Site

OUT: Final = ", with hosts out of service"
GPU: Final = "GPU"
IN_PARTS: Final = "GPU (idle in parts)"
"""What a host lacks whose GPUs have enough left together, and not each."""
Mask = NDArray[np.bool_]
MOST_KEPT: Final = 4096
"""Specs whose answers are kept."""


class Wanted(NamedTuple):
    """What a spec asks for: amounts by resource class, GPUs, and traits that a host must have or must not."""

    amounts: tuple[tuple[str, int], ...]
    gpus: GpuWish
    required: frozenset[str]
    forbidden: frozenset[str]


class _Found(NamedTuple):
    """What bound the guests of a spec at a moment, None: a rule. It holds until a host on the rows ``by`` has given
    more, or any host less."""

    spec: RequestSpec
    what: str | None
    by: tuple[int, ...]
    moment: int


class Binding:
    """The binding constraints of guests that were refused by a site's engine, at the moment of the last ``renew``: call
    it when anything has changed."""

    def __init__(self, site: Site, wished: Mapping[int, RequestSpec] = MappingProxyType({})) -> None:
        """``wished``: specs as the trace has them, by the identities of those that were completed for the engine."""
        self._site, self._room, self._wished = site, Room(site.engine.fleet), wished
        self._rows: Whole | slice = slice(0, 0)
        self._every: Whole = np.empty(0, np.int64)
        """The row of each host."""
        self._then: Then | None = None
        self._caught_up = False
        self._asked: Engine | None = None
        """The engine as it was at the moment, once a rule is to be tried."""
        self._layout: tuple[object, ...] = ()
        """What hosts there are, and which of them are out of service: what the masks are of."""
        self._up: Mask = np.zeros(0, np.bool_)
        self._masks: dict[str, Mask] = {}
        """Hosts by what narrows them, in words."""
        self._known: dict[tuple[int, str | None, str, str], str] = {}
        """At this moment; by the identity of the spec, which the caller keeps until the next one."""
        self._kept: dict[int, _Found] = {}
        """By the identity of the spec, which each of them keeps."""

    def renew(self, rows: Whole | slice, then: Then | None = None) -> None:
        """Judge by hosts on these rows, in the order of the site's places, as they are now, or were ``then``. O(1)."""
        self._rows, self._then = rows, then
        self._known.clear()
        self._caught_up, self._asked = False, None

    def forget(self) -> None:
        """Let go of the engine on which rules were tried, which would have every further change recorded. O(1)."""
        self._asked = None

    def of(self, request: Request, *, stage: str) -> str:
        """What bound a guest of a request, which the ``stage`` of the decision refused; the same for all guests of a
        spec, server group and project, whatever their uuids are. O(1) where what bound such a guest before still does,
        else O(hosts); and a few questions to the engine, once for each moment, where a rule bound it."""
        group = request.server_group
        key = (id(request.spec), group if isinstance(group, str) else None, request.project_id, stage)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._by_amounts(request.spec).what or self._by_rule(request, stage)
        return known

    def _by_rule(self, request: Request, stage: str) -> str:
        if self._asked is None:
            engine = self._site.engine
            self._asked = engine if self._then is None else self._then.came.engine_after(self._then.number)
        wished = self._wished.get(id(request.spec))
        return binding_rule(self._asked, request if wished is None else replace(request, spec=wished), stage)

    def _by_amounts(self, spec: RequestSpec) -> _Found:
        self._catch_up()
        found = self._kept.get(id(spec))
        if found is None or found.spec is not spec or not self._holds(found):
            found = self._find(spec)
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[id(spec)] = found
        return found

    def _holds(self, found: _Found) -> bool:
        changed, moment = self._room.changed_since, found.moment
        return not any(changed(row, moment) for row in found.by)

    def _catch_up(self) -> None:
        """Bring what is known to the moment. O(rows) for the first refusal at a moment, less within one stretch."""
        if self._caught_up:
            return
        self._caught_up = True
        site, fleet = self._site, self._site.engine.fleet
        out = {host for counts in (site.down, site.closing) for host, reasons in counts.items() if reasons > 0}
        classes = len(fleet.resource_classes)
        layout = (id(fleet), fleet._topology_epoch, fleet.rows, len(site.places), classes, frozenset(out))
        if layout != self._layout:
            self._room = Room(fleet)
            self._layout = layout
            self._masks.clear()
            self._kept.clear()
            self._every = np.arange(fleet.rows)[self._rows]
            self._up = np.ones(len(site.places), np.bool_)
            if out:
                self._up[:] = [place.host not in out for place in site.places]
        if not self._room.renew(self._then):
            self._kept.clear()

    def _find(self, spec: RequestSpec) -> _Found:
        """What bound the guests of a spec by what hosts have left. O(hosts)."""
        wanted = wanted_by(spec)
        names, lacks, asked = self._lacks(wanted)
        kinds = np.sum(lacks > 0, axis=0)
        fits: Mask = kinds == 0
        up, where = self._up, dict(self._where(spec, wanted))
        there = _all(where.values(), len(fits))
        if not there.any():
            missing = [name for name, mask in where.items() if not mask.any()]
            return self._found(spec, f"no host {' '.join(missing or where)}", [])
        here = fits & there
        if (room := here & up).any():
            return self._found(spec, None, [int(np.argmax(room))])
        elsewhere = dict(_elsewhere(fits & up, where))
        by = list(elsewhere.values())
        closed = bool(here.any())
        if closed:
            by.append(int(np.argmax(here)))
        reached = there & up
        if not reached.any():
            if closed:
                return self._found(spec, " ".join(["hosts out of service", *where]), by)
            reached = there
        nearest, host = self._nearest(names, lacks, asked, np.where(reached, kinds, len(names) + 1), wanted.gpus)
        what = " ".join([nearest, *elsewhere])
        return self._found(spec, f"{what}{OUT}" if closed else what, [*by, host])

    def _found(self, spec: RequestSpec, what: str | None, by: list[int]) -> _Found:
        """An answer that holds by the hosts at these positions."""
        return _Found(spec, what, tuple(self._every[by].tolist()), self._room.moment)

    # where a guest may be

    def _where(self, spec: RequestSpec, wanted: Wanted) -> Iterator[tuple[str, Mask]]:
        """What narrows the hosts on which a guest may be, in words, and the hosts that it leaves."""
        if spec.availability_zone:
            name = f"in {spec.availability_zone}"
            if name not in self._masks:
                self._masks[name] = self._site.zones_of_places() == spec.availability_zone
            yield name, self._masks[name]
        for trait in sorted(wanted.required):
            yield f"with {trait}", self._has(trait)
        for trait in sorted(wanted.forbidden):
            yield f"without {trait}", ~self._has(trait)
        if wanted.gpus.models:
            masks = [self._has(model_trait(model)) for model in wanted.gpus.models]
            yield f"of {' or '.join(wanted.gpus.models)}", np.logical_or.reduce(masks)

    def _has(self, trait: str) -> Mask:
        """Which hosts have a trait, themselves or in their provider trees. O(rows) once for each trait."""
        name = f"with {trait}"
        if name not in self._masks:
            fleet = self._room.fleet
            columns = fleet._store.row
            class_of = columns["class_of"][: fleet.rows]
            first = {int(number): at for at, number in reversed(list(enumerate(class_of.tolist())))}
            having = [number for number, row in first.items() if trait in fleet._host_class(row).traits]
            held = np.flatnonzero(np.isin(class_of, having))
            mask = np.zeros(fleet.rows, np.bool_)
            mask[held] = True
            mask[columns["root"][held]] = True
            self._masks[name] = mask[self._rows]
        return self._masks[name]

    # what they have left

    def _lacks(self, wanted: Wanted) -> tuple[list[str], Whole, Whole]:
        """The resources that a guest asks for, what each host lacks of each, int64 [resources, hosts], and what is
        asked for. GPUs are counted that have the share left."""
        classes = self._room.fleet.resource_classes
        amounts = [(name, amount) for name, amount in wanted.amounts if name in classes]
        lacks = [np.maximum(amount - self._left(name), 0) for name, amount in amounts]
        wish = wanted.gpus
        if wish.count:
            able = np.sum(self._room.idle_gpus(self._every) >= wish.milli, axis=0)
            amounts, lacks = [*amounts, (GPU, wish.count)], [*lacks, np.maximum(wish.count - able, 0)]
        found = np.array(lacks, np.int64).reshape(len(amounts), len(self._up))
        return [name for name, _ in amounts], found, np.array([amount for _, amount in amounts], np.int64)

    def _left(self, name: str) -> Whole:
        """What hosts have left of a resource class; of those beside Nova's first ones, their provider trees."""
        index = self._room.fleet.resource_class(name)
        left = self._room.left(index) if name in FIRST_CLASSES else self._room.left_in_trees(index)
        return left[self._rows]

    def _nearest(self, names: list[str], lacks: Whole, asked: Whole, kinds: Whole, wish: GpuWish) -> tuple[str, int]:
        """The resources that the host lacked which lacked fewest, and least of them; and that host. ``kinds``: how many
        each host lacks, more than there are for those that do not count."""
        fewest = np.flatnonzero(kinds == kinds.min())
        parts = lacks[:, fewest] / np.maximum(asked, 1)[:, None]
        best = int(fewest[np.argmin(parts.max(axis=0))])
        short = [name for name, amount in zip(names, lacks[:, best].tolist(), strict=True) if amount]
        if GPU in short and self._idle_in_parts(best, wish):
            short[short.index(GPU)] = IN_PARTS
        return " and ".join(short), best

    def _idle_in_parts(self, host: int, wish: GpuWish) -> bool:
        idle = self._room.idle_gpus(self._every)[:, host]
        return int(np.maximum(idle, 0).sum()) >= wish.milli * wish.count


def _elsewhere(fits: Mask, where: Mapping[str, Mask]) -> Iterator[tuple[str, int]]:
    """What keeps a guest from hosts that fit, and the first of these."""
    for name, mask in where.items():
        others = _all((other for key, other in where.items() if key != name), len(fits))
        room = fits & ~mask & others
        if room.any():
            yield name, int(np.argmax(room))


@lru_cache(maxsize=4096)
def wanted_by(spec: RequestSpec) -> Wanted:
    """What a spec asks for, as Placement is asked; of an invalid one, which the run names, the flavor alone."""
    flavor, request = spec.flavor, Request(spec=spec)
    try:
        wish = gpu_wish(flavor.extra_specs)
        group = groups_of(request, Wishes.of(request)).group()
    except HostlerError:
        disk = 0 if spec.is_bfv else flavor.root_gb
        amounts = (("VCPU", flavor.vcpus), ("MEMORY_MB", flavor.memory_mb), ("DISK_GB", disk))
        return Wanted(amounts, GpuWish(), frozenset(), frozenset())
    first = [(name, group.resources[name]) for name in FIRST_CLASSES if name in group.resources]
    more = [each for each in sorted(group.resources.items()) if each[0] not in (*FIRST_CLASSES, GPU_MILLI)]
    return Wanted((*first, *more), wish, frozenset(group.required), frozenset(group.forbidden))


def _all(masks: Iterable[Mask], count: int) -> Mask:
    found: Mask = np.ones(count, np.bool_)
    for mask in masks:
        found &= mask
    return found
