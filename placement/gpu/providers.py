"""GPUs as nested resource providers, shared in thousandths: the GPU request of a flavor, and the free capacity of the
nodes.

A GPU is a child provider of its host with an inventory of 1000 CUSTOM_GPU_MILLI. A flavor requests k GPUs with k
request groups of equal amounts and ``group_policy=isolate``. request groups of equal amounts, each from a GPU of its
own (group_policy isolate).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import os_resource_classes
from numpy.typing import NDArray

from ...ext.devices import MOST_DEVICES, WHOLE
from ..fleet.fleet import Fleet
from ..fleet.inventories import INVENTORY_FIELDS, Inventory
from ..types.errors import InvalidValue
from ..types.host_classes import HostClass
from ..types.validation import check_name, counted, whole_number

GPU_MILLI: Final = "CUSTOM_GPU_MILLI"
"""Resource class of a GPU's thousandths."""
MODELS: Final = "hostler:gpu_models"
"""Extra spec: the accepted models, as ``A|B``; any model if absent."""
_GROUP: Final = re.compile(rf"resources([a-zA-Z0-9_-]{{1,64}}):{GPU_MILLI}")


@dataclass(frozen=True, slots=True)
class GpuWish:
    """``count`` GPUs, ``milli`` thousandths of each, of one of ``models`` (empty: any)."""

    milli: int = 0
    count: int = 0
    models: tuple[str, ...] = ()


def gpu_wish(extra_specs: Mapping[str, str]) -> GpuWish:
    """The GPU request of a flavor. InvalidValue if the groups request different shares, or more than a whole GPU."""
    amounts = sorted(value for key, value in extra_specs.items() if _GROUP.fullmatch(key))
    if not amounts:
        return GpuWish()
    milli = counted(amounts[0], WHOLE)
    if len(set(amounts)) > 1 or not milli:
        raise InvalidValue(
            f"{GPU_MILLI} is requested as {', '.join(amounts)[:200]}, but each GPU must give the same 1 to {WHOLE}",
            field=f"extra_specs.resources:{GPU_MILLI}",
        )
    models = tuple(sorted(filter(None, extra_specs.get(MODELS, "").split("|"))))
    return GpuWish(milli, len(amounts), models)


def gpu_extra_specs(milli: int, count: int, models: str = "") -> dict[str, str]:
    """The extra specs with which a flavor requests GPUs; empty for a count or share of 0."""
    if milli == 0 or count == 0:
        return {}
    specs = {f"resources_GPU{number}:{GPU_MILLI}": str(milli) for number in range(count)}
    if count > 1:
        specs["group_policy"] = "isolate"
    if models:
        specs[MODELS] = models
    return specs


def model_trait(model: str) -> str:
    """The trait of hosts with GPUs of a model."""
    trait: str = os_resource_classes.normalize_name(f"GPU_{model}")
    return trait


def add_gpus(fleet: Fleet, gpus: Mapping[str, int]) -> None:
    """Add whole GPUs below each host, named ``host/gpu-0``, ``host/gpu-1``, ...: all or none. Raises UnknownName,
    DuplicateName or InvalidValue. O(GPUs)."""
    counts = [whole_number(count, f"gpus.{host}", most=MOST_DEVICES) for host, count in gpus.items()]
    parents = np.repeat(np.array([fleet.row(host, field="gpus") for host in gpus], np.int32), counts)
    names = [f"{host}/gpu-{number}" for host, count in zip(gpus, counts, strict=True) for number in range(count)]
    if not names:
        return
    store, whole = fleet._store, Inventory(total=WHOLE, max_unit=WHOLE)
    with fleet._history.undoing():
        resource = fleet.resource_class(GPU_MILLI, create=True)
        rows = fleet._providers.add([check_name(name, "gpus") for name in names])
        with fleet._change_log.editing(rows):
            store.row["parent"][rows], store.row["root"][rows] = parents, store.row["root"][parents]
            store.row["class_of"][rows] = fleet._change_log.class_id(HostClass())
            for field in INVENTORY_FIELDS:
                store.inventory[field][resource, rows] = getattr(whole, field)
            store.ratio[resource, rows] = whole.allocation_ratio
            store.refresh_limits(resource, rows)
        fleet._change_log.topology_epoch += 1


class GpuTable:
    """The GPUs below each host of a fleet, in row order. Kept up to date as providers come, go and move."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._layout = (-1, -1, -1)
        self._columns: NDArray[np.int32] = np.empty((0, 0), np.int32)

    def below(self, rows: NDArray[np.integer]) -> NDArray[np.int32]:
        """Rows of the GPUs below each of ``rows``, int32[rows, most GPUs], -1 where there are fewer. O(rows), and
        O(fleet) after providers were added, removed or moved. InvalidValue if a host has more than 64."""
        self.refreshed()
        found: NDArray[np.int32] = self._columns[rows]
        return found

    def refreshed(self) -> tuple[int, int, int]:
        """The layout of the fleet that ``columns`` are of, from now on. O(fleet) after providers were added, removed or
        moved. InvalidValue if a host has more than 64 GPUs."""
        fleet = self.fleet
        layout = (fleet._topology_epoch, len(fleet), fleet._store.capacity)
        if layout != self._layout:
            self._columns = self._lay_out()
            self._layout = layout
        return layout

    @property
    def columns(self) -> NDArray[np.int32]:
        """``below`` of all rows, int32[capacity, most GPUs], as of ``refreshed``."""
        return self._columns

    @property
    def width(self) -> int:
        """The most GPUs that a host has, as of ``refreshed``."""
        return int(self._columns.shape[1])

    def idle(self, rows: NDArray[np.integer]) -> NDArray[np.int32]:
        """Idle thousandths of the GPUs below each of ``rows``, int32[rows, most GPUs], -1 where there is none."""
        below = self.below(rows)
        if not below.size:
            return below
        avail = self.fleet._store.inventory["avail"][self.fleet.resource_class(GPU_MILLI)]
        return np.where(below >= 0, np.maximum(avail[below], 0), -1).astype(np.int32)

    def _lay_out(self) -> NDArray[np.int32]:
        fleet, capacity = self.fleet, self.fleet._store.capacity
        if GPU_MILLI not in fleet.resource_classes:
            return np.empty((capacity, 0), np.int32)
        total = fleet._store.inventory["total"][fleet.resource_class(GPU_MILLI), : fleet.rows]
        roots = fleet._store.row["root"][: fleet.rows]
        gpus = np.flatnonzero((total > 0) & (roots != np.arange(fleet.rows)))
        gpus = gpus[np.argsort(roots[gpus], kind="stable")]
        hosts, first, counts = np.unique(roots[gpus], return_index=True, return_counts=True)
        width = int(counts.max(initial=0))
        if width > MOST_DEVICES:
            raise InvalidValue(f"a host has {width} GPUs, but at most {MOST_DEVICES} are handled", field="inventory")
        columns = np.full((capacity, width), -1, np.int32)
        columns[np.repeat(hosts, counts), np.arange(len(gpus)) - np.repeat(first, counts)] = gpus
        return columns
