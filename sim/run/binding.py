"""Why a guest found no host: the smallest change that would have placed it, found by trying changes on what was free.

A resource is named that the nearest host lacked; the zone, if a host elsewhere had room; and that hosts are out of
service, if one of these had. Where a host has room for all of it, another rule refused it: that of the decision."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.fleet.inventories import FIRST_CLASSES
from ...placement.gpu.providers import gpu_wish
from ...placement.types.request import RequestSpec
from .holding import cpus_of
from .site import Site

OUT: Final = ", with hosts out of service"
RESOURCES: Final = FIRST_CLASSES
Mask = NDArray[np.bool_]


class Binding:
    """The binding constraints of guests that were refused by a site's engine as it stands: ``renew`` it when anything
    has changed."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows: NDArray[np.int64] | slice = slice(0, 0)
        self._used: NDArray[np.int64] | None = None
        self._known: dict[tuple[int, bool, str], str] = {}
        """By the identity of the spec, which the caller keeps."""
        self._had_room: dict[int, int] = {}
        """By the identity of the spec, the position of a host that had room for its amounts in its zone: such a host
        has room still more often than not."""
        self._asked: dict[int, NDArray[np.int64]] = {}
        self._on_gpus: dict[int, bool] = {}
        """What specs ask for, by identity."""
        self._free: NDArray[np.int64] | None = None
        self._out: Mask | None = None

    def renew(self, rows: NDArray[np.int64] | slice, used: NDArray[np.int64] | None = None) -> None:
        """Judge by hosts as they are now, on these rows; ``used``: what they have given of the first resource classes,
        if not as the fleet says. O(1)."""
        self._rows, self._used, self._free, self._out = rows, used, None, None
        self._known.clear()

    def of(self, spec: RequestSpec, *, grouped: bool, stage: str) -> str:
        """What bound a guest of a spec, which the ``stage`` of the decision refused. O(hosts) once for each spec, O(1)
        where the host that had room when it was asked last has room still."""
        key = (id(spec), grouped, stage)
        if key not in self._known:
            self._known[key] = self._found(spec, grouped, stage)
        return self._known[key]

    def _amounts(self, spec: RequestSpec) -> NDArray[np.int64]:
        """What a spec asks of each resource class."""
        known = self._asked.get(id(spec))
        if known is None:
            shared, dedicated = cpus_of(spec)
            flavor = spec.flavor
            amounts = [shared, flavor.memory_mb, 0 if spec.is_bfv else flavor.root_gb, dedicated]
            known = self._asked[id(spec)] = np.array(amounts, np.int64)
        return known

    def _room(self) -> NDArray[np.int64]:
        """What hosts have left, [resources, hosts]."""
        if self._free is None:
            blocks = self._site.engine.fleet._store.inventory
            limit = blocks["limit"][: len(RESOURCES)][:, self._rows]
            self._free = limit - blocks["used"][: len(RESOURCES)][:, self._rows]
            if self._used is not None:
                self._free[: len(self._used)] = limit[: len(self._used)] - self._used
        return self._free

    def _out_of_service(self) -> Mask:
        if self._out is None:
            site = self._site
            out = {host for counts in (site.down, site.closing) for host, reasons in counts.items() if reasons > 0}
            self._out = np.zeros(len(site.zones_of_places()), np.bool_)
            if out:
                self._out[:] = [place.host in out for place in site.places]
        return self._out

    def _found(self, spec: RequestSpec, grouped: bool, stage: str) -> str:
        zone, asked, free, out = spec.availability_zone, self._amounts(spec), self._room(), self._out_of_service()
        host = self._had_room.get(id(spec), -1)
        if 0 <= host < len(out) and not out[host] and (free[:, host] >= asked).all():
            return self._ruled(spec, grouped, stage)
        lacks = np.maximum(asked[:, None] - free, 0)
        fits = ~lacks.any(axis=0)
        zones = self._site.zones_of_places()
        there: Mask = zones == zone if zone else np.ones(len(zones), np.bool_)
        if zone and not there.any():
            return f"no host in {zone}"
        fitting = np.flatnonzero(fits & there & ~out)
        if len(fitting):
            self._had_room[id(spec)] = int(fitting[0])
            return self._ruled(spec, grouped, stage)
        if np.any(fits & there) and not np.any(there & ~out):
            return f"hosts out of service in {zone}" if zone else "hosts out of service"
        what = self._nearest(lacks, asked, there & ~out) or self._nearest(lacks, asked, there) or stage
        if zone and np.any(fits & ~there & ~out):
            what += f" in {zone}"
        return f"{what}{OUT}" if np.any(fits & there & out) else what

    def _nearest(self, lacks: NDArray[np.int64], asked: NDArray[np.int64], which: Mask) -> str:
        """The resources that the host lacked which lacked fewest, and least of them; empty for no host."""
        at = np.flatnonzero(which)
        if not len(at):
            return ""
        parts = lacks[:, at] / np.maximum(asked, 1)[:, None]
        kinds, most = np.count_nonzero(parts, axis=0), parts.max(axis=0)
        best = at[np.lexsort((most, kinds))[0]]
        return " and ".join(name for name, amount in zip(RESOURCES, lacks[:, best].tolist(), strict=True) if amount)

    def _ruled(self, spec: RequestSpec, grouped: bool, stage: str) -> str:
        """The rule that refused a guest though a host has room for its amounts."""
        on_gpus = self._on_gpus.get(id(spec))
        if on_gpus is None:
            on_gpus = self._on_gpus[id(spec)] = gpu_wish(spec.flavor.extra_specs).count > 0
        if on_gpus:
            return "GPU"
        # A resource that most other hosts lacked did not refuse it on the host that has room.
        by_group = stage in ("", "aggregates", *RESOURCES) or stage.startswith("ServerGroup")
        return "server group" if grouped and by_group else stage
