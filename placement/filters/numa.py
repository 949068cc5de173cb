"""Whether a guest's NUMA cells fit a host's, with its PCI devices near them. Source: Nova 33 NUMATopologyFilter."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..devices import pci
from ..numa.cores import has_threads
from ..numa.explain import explain as numa_explain
from ..numa.fit import Limits, nova_raises
from ..numa.nova_fit import fitter, order_matters
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
        """Allocation ratios bind only floating CPUs; PCI pools matter if devices are asked for, and for the order in
        which Nova tries host cells."""
        fields = {"numa_topology"}
        wanted = _wanted(request)
        if wanted is not None and any(cell.cpu_policy != "dedicated" for cell in wanted.cells):
            fields |= {"cpu_allocation_ratio", "ram_allocation_ratio"}
        if wanted is not None and (request.spec.pci_requests or self._tries_in_order(wanted)):
            fields.add("pci_pools")
        return frozenset(fields)

    def _tries_in_order(self, wanted: InstanceNumaTopology) -> bool:
        return self.options.numa.fit == "nova" and order_matters(wanted)

    def key(self, request: Request) -> Hashable:
        spec = request.spec
        return spec.numa_topology, pci.key(spec.pci_requests), needs_threads(request), spec.network_metadata

    def mask(self, view: FleetView, request: Request) -> NDArray[np.bool_] | None:
        """By the fleet's NUMA table, unless PCI devices or networks must be near, or Nova's order of tries matters."""
        wanted = _wanted(request)
        if wanted is None or request.spec.pci_requests or request.spec.network_metadata is not None:
            return None
        if self._tries_in_order(wanted):
            return None
        table = view.fleet._numa
        program = table.compile(wanted, needs_smt=needs_threads(request))
        return table.judge(program, view.row_ids).astype(np.bool_)

    def host_passes(self, host: HostState, request: Request) -> bool:
        return self.candidate_passes(host, request, {})

    def candidate_passes(self, host: HostState, request: Request, mappings: Mapping[str, Sequence[str]]) -> bool:
        """The rule for one allocation candidate of the host, whose providers are ``mappings`` by request group."""
        wanted = _wanted(request)
        topology = host.numa_topology
        if topology is None or not topology.cells:
            return wanted is None
        if needs_threads(request) and not has_threads(topology.cells):
            return False
        if wanted is None:
            return True
        requests = request.spec.pci_requests
        found = fitter(self.options)(
            topology,
            wanted,
            limits=_limits(host),
            pci_requests=requests,
            pci_pools=host.pci_pools if requests or self._tries_in_order(wanted) else (),
            packing=self.options.compute.packing_host_numa_cells_allocation_strategy,
            networks=request.spec.network_metadata,
            mappings=mappings,
        )
        return found is not None

    def nova_error(self, host: HostState, request: Request) -> str | None:
        wanted, topology = _wanted(request), host.numa_topology
        if wanted is None or topology is None or (needs_threads(request) and not has_threads(topology.cells)):
            return None
        return "ValueError" if nova_raises(topology.cells, wanted) else None

    def reason(self, host: HostState, request: Request) -> str:
        wanted = _wanted(request)
        topology = host.numa_topology
        if topology is not None and needs_threads(request) and not has_threads(topology.cells):
            return "thread policy require needs cores with several threads, the host has none"
        if wanted is None:
            return super().reason(host, request)
        requests, networks = request.spec.pci_requests, request.spec.network_metadata
        return numa_explain(
            topology,
            wanted,
            limits=_limits(host),
            pci_requests=requests,
            pci_pools=host.pci_pools if requests else (),
            networks=networks,
        )


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
