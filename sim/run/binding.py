"""Why a guest found no host: the smallest change that would have placed it, found by trying changes on what was free.

A resource is named that the nearest host lacked; the zone, if a host elsewhere had room; and that hosts are out of
service, if one of these had. Where a host has room for all of it, another rule refused it: that of the decision."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.engine import Engine
from ...placement.fleet.inventories import FIRST_CLASSES
from ...placement.gpu.providers import gpu_wish
from ...placement.types.request import RequestSpec
from .holding import cpus_of
from .site import Site

OUT: Final = ", with hosts out of service"
RESOURCES: Final = FIRST_CLASSES
Mask = NDArray[np.bool_]


class Binding:
    """The binding constraints of guests that were refused by a site's engine as it stands. Make one for each step."""

    def __init__(self, site: Site, engine: Engine, rows: NDArray[np.int64] | slice) -> None:
        blocks = engine.fleet._store.inventory
        here = slice(None, len(RESOURCES))
        self._free = blocks["limit"][here][:, rows] - blocks["used"][here][:, rows]
        self._zones = site.zones_of_places()
        out = {host for counts in (site.down, site.closing) for host, reasons in counts.items() if reasons > 0}
        self._out: Mask = np.zeros(len(self._zones), np.bool_)
        if out:
            self._out[:] = [place.host in out for place in site.places]
        self._known: dict[tuple[int, bool, str], str] = {}
        """By the identity of the spec, which the caller keeps."""

    def of(self, spec: RequestSpec, *, grouped: bool, stage: str) -> str:
        """What bound a guest of a spec, which the ``stage`` of the decision refused. O(hosts) once for each spec."""
        key = (id(spec), grouped, stage)
        if key not in self._known:
            self._known[key] = self._found(spec, grouped, stage)
        return self._known[key]

    def _found(self, spec: RequestSpec, grouped: bool, stage: str) -> str:
        flavor, zone = spec.flavor, spec.availability_zone
        shared, dedicated = cpus_of(spec)
        amounts = [shared, flavor.memory_mb, 0 if spec.is_bfv else flavor.root_gb, dedicated]
        asked = np.array(amounts, np.int64)
        lacks = np.maximum(asked[:, None] - self._free, 0)
        fits = ~lacks.any(axis=0)
        there: Mask = self._zones == zone if zone else np.ones(len(self._zones), np.bool_)
        if zone and not there.any():
            return f"no host in {zone}"
        if np.any(fits & there & ~self._out):
            return self._ruled(spec, grouped, stage)
        if np.any(fits & there) and not np.any(there & ~self._out):
            return f"hosts out of service in {zone}" if zone else "hosts out of service"
        what = self._nearest(lacks, asked, there & ~self._out) or self._nearest(lacks, asked, there) or stage
        if zone and np.any(fits & ~there & ~self._out):
            what += f" in {zone}"
        return f"{what}{OUT}" if np.any(fits & there & self._out) else what

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
        if gpu_wish(spec.flavor.extra_specs).count:
            return "GPU"
        # A resource that most other hosts lacked did not refuse it on the host that has room.
        by_group = stage in ("", "aggregates", *RESOURCES) or stage.startswith("ServerGroup")
        return "server group" if grouped and by_group else stage
