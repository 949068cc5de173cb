"""Nova's own objects for third-party rules that need them: NUMA cells that are cloned and fitted, PCI statistics.

Only where a rule has imported Nova, as those that derive from Nova's have; others are given plain values.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from ..types.host import NumaTopology, PciPool
from ..types.networks import NetworkMetadata
from ..types.request import InstanceNumaTopology, PciRequest


def installed(name: str) -> ModuleType | None:
    """A module of Nova, where a rule has imported Nova; else None."""
    return importlib.import_module(name) if "nova.scheduler" in sys.modules else None


def host_topology(topology: NumaTopology | None) -> Any:
    """A host's NUMA cells as Nova's NUMATopology; as they are without Nova."""
    objects = installed("nova.objects.numa")
    if topology is None or objects is None:
        return topology
    return objects.NUMATopology(
        cells=[
            objects.NUMACell(
                id=cell.id,
                cpuset=set(cell.cpuset),
                pcpuset=set(cell.pcpuset),
                memory=cell.memory,
                cpu_usage=cell.cpu_usage,
                memory_usage=cell.memory_usage,
                pinned_cpus=set(cell.pinned_cpus),
                siblings=[set(threads) for threads in cell.siblings],
                mempages=[
                    objects.NUMAPagesTopology(
                        size_kb=pages.size_kb, total=pages.total, used=pages.used, reserved=pages.reserved
                    )
                    for pages in cell.mempages
                ],
                socket=cell.socket,
                **_of_cell(cell.network_metadata),
            )
            for cell in topology.cells
        ]
    )


def guest_topology(topology: InstanceNumaTopology | None) -> Any:
    """A guest's NUMA cells as Nova's InstanceNUMATopology; as they are without Nova."""
    objects = installed("nova.objects.instance_numa")
    if topology is None or objects is None:
        return topology
    return objects.InstanceNUMATopology(
        emulator_threads_policy=topology.emulator_threads_policy,
        cells=[
            objects.InstanceNUMACell(
                id=cell.id,
                cpuset=set(cell.cpuset),
                pcpuset=set(cell.pcpuset),
                memory=cell.memory,
                pagesize=cell.pagesize,
                cpu_policy=cell.cpu_policy,
                cpu_thread_policy=cell.cpu_thread_policy,
                cpu_pinning_raw=None,
                cpuset_reserved=None,
            )
            for cell in topology.cells
        ],
    )


def pci_requests(requests: Sequence[PciRequest]) -> list[Any] | None:
    """PCI requests as Nova's; None without Nova."""
    objects = installed("nova.objects.instance_pci_requests")
    if objects is None:
        return None
    return [
        objects.InstancePCIRequest(
            count=each.count,
            spec=[{name: str(value) for name, value in alternative.items()} for alternative in each.spec],
            alias_name=each.alias_name,
            request_id=each.request_id,
            requester_id=each.requester_id,
            numa_policy=each.numa_policy,
            is_new=False,
        )
        for each in requests
    ]


def pci_stats(topology: Any, pools: Sequence[PciPool]) -> Any:
    """A host's PCI devices as Nova's PciDeviceStats; None without Nova."""
    stats, objects = installed("nova.pci.stats"), installed("nova.objects.pci_device_pool")
    if stats is None or objects is None:
        return None
    made = [
        objects.PciDevicePool(
            product_id=str(pool.tags.get("product_id", "")),
            vendor_id=str(pool.tags.get("vendor_id", "")),
            numa_node=pool.numa_node,
            tags={name: value for name, value in pool.tags.items() if name not in ("product_id", "vendor_id")},
            count=pool.count,
        )
        for pool in pools
    ]
    return stats.PciDeviceStats(topology, stats=objects.PciDevicePoolList(objects=made))


def network_metadata(metadata: NetworkMetadata | None) -> Any:
    """Physical networks as Nova's NetworkMetadata; as they are without Nova."""
    objects = installed("nova.objects.network_metadata")
    if metadata is None or objects is None:
        return metadata
    return objects.NetworkMetadata(physnets=set(metadata.physnets), tunneled=metadata.tunneled)


def _of_cell(metadata: NetworkMetadata | None) -> Mapping[str, Any]:
    return {} if metadata is None else {"network_metadata": network_metadata(metadata)}


def moment(seconds: float | None) -> datetime.datetime | None:
    """Seconds since 1970 as Nova's services have times."""
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC)


@contextlib.contextmanager
def clock(now: float | None) -> Iterator[None]:
    """Have the code of Nova read ``now`` as the time, so that a decision depends on no clock."""
    timeutils: Any = sys.modules.get("oslo_utils.timeutils")
    if timeutils is None or now is None:
        yield
        return
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    original = timeutils.utcnow
    timeutils.utcnow = lambda with_timezone=False: at if with_timezone else at.replace(tzinfo=None)
    try:
        yield
    finally:
        timeutils.utcnow = original
