"""Whether a guest's NUMA cells fit a host's, with its PCI devices near them. Source: Nova 33 NUMATopologyFilter."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..devices import pci
from ..numa.cores import has_threads
from ..numa.explain import explain as numa_explain
from ..numa.fit import Limits
from ..numa.fit import fit as numa_fit
from ..types.host import HostState
from ..types.request import InstanceNumaTopology, Request
from .base import Filter

if TYPE_CHECKING:
    from ..fleet.host_view import FleetView


class NUMATopologyFilter(Filter):
    """Passes a host on whose NUMA cells the guest fits; a guest without NUMA cells passes everywhere. Guests with CPU
    policy dedicated and thread policy require also need a host with SMT.
    """

    name: ClassVar[str] = "NUMATopologyFilter"

    def applies(self, request: Request) -> bool:
        return _wanted(request) is not None or needs_threads(request)

    def fields(self, request: Request) -> frozenset[str]:
        """Allocation ratios bind only floating CPUs; PCI pools matter only if devices are asked for."""
        fields = {"numa_topology"}
        wanted = _wanted(request)
        if wanted is not None and any(cell.cpu_policy != "dedicated" for cell in wanted.cells):
            fields |= {"cpu_allocation_ratio", "ram_allocation_ratio"}
        if wanted is not None and request.spec.pci_requests:
            fields.add("pci_pools")
        return frozenset(fields)

    def key(self, request: Request) -> Hashable:
        return request.spec.numa_topology, pci.key(request.spec.pci_requests), needs_threads(request)

    def mask(self, view: FleetView, request: Request) -> NDArray[np.bool_] | None:
        """By the fleet's NUMA table, unless PCI devices must be near."""
        wanted = _wanted(request)
        if wanted is None or request.spec.pci_requests:
            return None
        table = view.fleet.numa
        program = table.compile(wanted, needs_smt=needs_threads(request))
        return table.judge(program, view.row_ids).astype(np.bool_)

    def host_passes(self, host: HostState, request: Request) -> bool:
        wanted = _wanted(request)
        topology = host.numa_topology
        if topology is None or not topology.cells:
            return wanted is None
        if needs_threads(request) and not has_threads(topology.cells):
            return False
        if wanted is None:
            return True
        requests = request.spec.pci_requests
        pools = host.pci_pools if requests else ()
        return numa_fit(topology, wanted, limits=_limits(host), pci_requests=requests, pci_pools=pools) is not None

    def reason(self, host: HostState, request: Request) -> str:
        wanted = _wanted(request)
        topology = host.numa_topology
        if topology is not None and needs_threads(request) and not has_threads(topology.cells):
            return "thread policy require needs cores with several threads, the host has none"
        if wanted is None:
            return super().reason(host, request)
        requests = request.spec.pci_requests
        return numa_explain(topology, wanted, limits=_limits(host), pci_requests=requests, pci_pools=host.pci_pools)


def needs_threads(request: Request) -> bool:
    """True if flavor or image name CPU policy dedicated, and flavor or image name thread policy require."""
    specs, properties = request.extra_specs, request.image_properties
    dedicated = "dedicated" in (specs.get("hw:cpu_policy"), properties.get("hw_cpu_policy"))
    return dedicated and "require" in (specs.get("hw:cpu_thread_policy"), properties.get("hw_cpu_thread_policy"))


def _wanted(request: Request) -> InstanceNumaTopology | None:
    wanted = request.spec.numa_topology
    return wanted if wanted is not None and wanted.cells else None


def _limits(host: HostState) -> Limits:
    return Limits(host.cpu_allocation_ratio, host.ram_allocation_ratio)
