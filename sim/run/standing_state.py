"""A fleet that stands already, from a state's file (``hostler import``): its hosts as named hosts of a plan, and its
guests, which stand there when a run begins."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from ...ext.constants import NOT_INSTANCE
from ...ext.fleet_state import consumers_on_rows
from ...placement.decide.moves import confirm
from ...placement.fleet.columns import COLUMN
from ...placement.fleet.fleet import Fleet
from ...placement.fleet.host_view import HostView
from ...placement.gpu.providers import GPU_MILLI, GpuTable
from ...placement.persist.file import load, load_requests
from ...placement.plan.guests import Guests
from ...placement.types.errors import InvalidValue
from ...placement.types.host import NumaTopology
from ...placement.types.request import Flavor, RequestSpec
from .fleet_plan import FleetPlan, checked
from .hardware import PCPU
from .named_hosts import NamedHost
from .topology import SMALL_KIB

NO_ZONE: Final = "nova"
"""The zone of hosts that are in none, Nova's default_availability_zone."""
_RESOURCES: Final = ("VCPU", PCPU, "MEMORY_MB", "DISK_GB")


def with_state(plan: FleetPlan | None, path: Path) -> FleetPlan:
    """The plan on the fleet of a state's file: its hosts are named hosts beside those of the plan (None: none). They
    are of kinds by size, ratios, GPUs and custom resource classes. SnapshotError for a file that is not a fleet;
    InvalidValue for one without hosts."""
    hosts = _hosts(_settled(path))
    if not hosts:
        raise InvalidValue(f"{path}: no hosts with CPUs and memory", field="state")
    plan = plan if plan is not None else FleetPlan(name=path.name.partition(".")[0])
    if plan.state:
        raise InvalidValue(f"{path}: the plan stands on {plan.state} already", field="state")
    zones = tuple(dict.fromkeys(host.zone for host in hosts))
    found = checked(msgspec.structs.replace(plan, named=(*hosts, *plan.named), state=str(path)))
    kinds = [kind for kind in found.hardware if kind not in plan.hardware]
    # More hosts of a kind that stands there come to the zones in which hosts stand.
    changed = {kind.name: msgspec.structs.replace(kind, zones=zones) for kind in kinds}
    hardware = tuple(changed.get(kind.name, kind) for kind in found.hardware)
    return msgspec.structs.replace(found, hardware=hardware)


def at_rest(path: Path) -> Fleet:
    """The fleet of a state's file without a time: services that are down when it was saved stay down, the others up,
    since no heartbeats come in a simulation. Guests that were moving have moved."""
    fleet = _settled(path)
    up = fleet.column("service_up")[: fleet.rows]
    down = [fleet.name(row) for row in np.flatnonzero(fleet.is_host[: fleet.rows] & (up == 0)).tolist()]
    fleet._store.host[COLUMN["last_seen_up"], : fleet.rows] = np.nan
    if down:
        fleet.set_service(down, forced_down=True)
    fleet._rewind(None)
    return fleet


def _settled(path: Path) -> Fleet:
    """The fleet of a state's file, with the moves under way confirmed: each guest is in one place."""
    fleet = load(path)
    for uuid in sorted(fleet._consumers.moves):
        confirm(fleet, uuid)
    return fleet


def _hosts(fleet: Fleet) -> list[NamedHost]:
    rows = np.flatnonzero(fleet.is_host[: fleet.rows])
    gpus = (GpuTable(fleet).below(rows) >= 0).sum(axis=1) if len(rows) else np.zeros(0, np.int64)
    found = []
    for row, count in zip(rows.tolist(), gpus.tolist(), strict=True):
        inventories = fleet.inventory(fleet.name(row))
        inventory = {name: inventories.get(name) for name in _RESOURCES}
        (vcpu, vcpus), (memory, memory_mb) = inventory["VCPU"] or (None, 0), inventory["MEMORY_MB"] or (None, 0)
        disk, disk_gb = inventory["DISK_GB"] or (None, 0)
        pcpu, _ = inventory[PCPU] or (None, 0)
        shared, dedicated = (0 if each is None else each.total for each in (vcpu, pcpu))
        if memory is None or shared + dedicated <= 0 or memory.total <= 0:
            continue
        host_class = fleet._host_class(row)
        metadata: dict[str, str] = {}
        for index in host_class.aggregates:
            metadata |= {key: text for key, text in fleet.aggregates[index].metadata.items() if key not in metadata}
        models = [trait for trait in host_class.traits if trait.startswith("CUSTOM_GPU_")] if count else []
        traits = sorted(trait for trait in host_class.traits if not trait.startswith(("COMPUTE_", "CUSTOM_GPU_")))
        found.append(
            NamedHost(
                name=fleet.name(row),
                zone=metadata.get("availability_zone", NO_ZONE),
                rack=metadata.get("rack", ""),
                row=metadata.get("row", ""),
                cluster=metadata.get("cluster", ""),
                cell=host_class.cell_uuid or "",
                vcpus=shared + dedicated,
                dedicated_vcpus=dedicated,
                **_cells(HostView(fleet, row).numa_topology, memory.total),
                memory_gb=memory.total / 1024,
                disk_gb=disk.total if disk is not None else 0,
                gpus=count,
                gpu_model=models[0].removeprefix("CUSTOM_GPU_") if len(models) == 1 else "",
                traits=tuple(traits) or None,
                resources=_custom(fleet, row) or None,
                cpu_allocation_ratio=vcpu.allocation_ratio if vcpu is not None else 1.0,
                ram_allocation_ratio=memory.allocation_ratio,
                disk_allocation_ratio=disk.allocation_ratio if disk is not None else 1.0,
                reserved_vcpus=vcpu.reserved if vcpu is not None else 0,
                reserved_memory_gb=memory.reserved / 1024,
                reserved_disk_gb=disk.reserved if disk is not None else 0,
                used_vcpus=vcpus,
                used_memory_gb=memory_mb / 1024,
                used_disk_gb=disk_gb,
            )
        )
    return found


def _custom(fleet: Fleet, row: int) -> dict[str, int]:
    """What a host and the providers below it give of custom resource classes, but for GPUs, which are counted.
    O(tree)."""
    total = Counter[str]()
    for each in fleet.tree(row):
        for name, (inventory, _) in fleet.inventory(fleet.name(each)).items():
            if name.startswith("CUSTOM_") and name != GPU_MILLI:
                total[name] += int((inventory.total - inventory.reserved) * inventory.allocation_ratio)
    return {name: amount for name, amount in sorted(total.items()) if amount > 0}


def _cells(topology: NumaTopology | None, memory_mb: int) -> dict[str, Any]:
    """What cells a host has, as the keys of a named host. Pages beyond its memory, which is where hosts tell other
    amounts than Placement, are not told."""
    if topology is None or not topology.cells:
        return {}
    threads = {len(core) for cell in topology.cells for core in cell.siblings}
    pages = Counter[int]()
    for cell in topology.cells:
        sizes = sorted(cell.mempages, key=lambda each: each.size_kb)
        pages.update({each.size_kb: each.total for each in sizes if each.size_kb > SMALL_KIB})
    held = sum(size * count for size, count in pages.items()) <= memory_mb * 1024
    told = {f"{size} KiB": count for size, count in sorted(pages.items()) if count} if held else {}
    return {
        "numa_cells": len(topology.cells),
        "threads_per_core": max(threads) if len(threads) == 1 and 1 <= max(threads) <= 8 else None,
        "huge_pages": told or None,
    }


def _uuids(fleet: Fleet, read: Guests) -> list[str]:
    rows = np.flatnonzero(fleet.is_host[: fleet.rows]).astype(np.int32)
    found = consumers_on_rows(fleet._kernel, rows)
    return sorted(read.of(each).uuid for each in found[0, (found[3] & NOT_INSTANCE) == 0].tolist())


def standing_uuids(path: Path) -> list[str]:
    """The guests of a state, sorted."""
    fleet = _settled(path)
    return _uuids(fleet, Guests(fleet, {"kind": "evacuate"}))


class StandingGuests:
    """The guests of a state on the fleet loaded from its file. ``requests``: what they were asked with, where the file
    tells; of others it follows from what they hold."""

    def __init__(self, fleet: Fleet, path: Path) -> None:
        self.requests = {uuid: spec.as_kept() for uuid, spec in load_requests(path).items()}
        self._read = Guests(fleet, {"asked": self.requests, "kind": "evacuate"})
        self.uuids = _uuids(fleet, self._read)
        self._specs = {uuid: self._spec(fleet, uuid) for uuid in self.uuids}

    def _spec(self, fleet: Fleet, uuid: str) -> RequestSpec:
        if uuid in self.requests:
            return self.requests[uuid]
        guest = self._read.of(fleet.consumer_id(uuid))
        if guest.request is not None:
            return guest.request.spec
        flavor = Flavor(name="a guest of the state", vcpus=0, memory_mb=guest.memory_mb, root_gb=guest.disk_mb // 1024)
        return RequestSpec(flavor=flavor)

    def spec_of(self, uuid: str) -> RequestSpec | None:
        """What a guest of the state asked for; None for another guest."""
        return self._specs.get(uuid)

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return len(self.uuids)
