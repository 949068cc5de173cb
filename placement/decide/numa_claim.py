"""The NUMA cells and PCI devices that a guest takes of the host it was placed on. Source: Nova 34
HostState.consume_from_request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..devices import pci
from ..fleet.fleet import Fleet
from ..fleet.host_view import HostView
from ..numa.fit import FittedNuma, Limits
from ..numa.nova_fit import fitter
from ..types.host import PciPool
from ..types.options import Options
from ..types.request import RequestSpec


def fit_claim(
    fleet: Fleet, spec: RequestSpec, row: int, options: Options, mappings: Mapping[str, Sequence[str]] | None = None
) -> tuple[FittedNuma | None, tuple[PciPool, ...]]:
    """(fitted NUMA cells or None, PCI devices taken, from the providers that ``mappings`` names). A request that no
    filter checked and that does not fit takes nothing."""
    pools = fleet.pci_pools(row)
    topology = HostView(fleet, row).numa_topology
    fitted = None
    if spec.numa_topology is not None and topology is not None:
        static = fleet._host_class(row)
        fitted = fitter(options)(
            topology,
            spec.numa_topology,
            limits=Limits(static.cpu_allocation_ratio, static.ram_allocation_ratio),
            pci_requests=spec.pci_requests,
            pci_pools=pools,
            packing=options.compute.packing_host_numa_cells_allocation_strategy,
            networks=spec.network_metadata,
            mappings=mappings,
        )
    if not spec.pci_requests:
        return fitted, ()
    cells = [part.host_cell for part in fitted.cells] if fitted is not None else None
    if not pci.supports(pools, spec.pci_requests, cells, topology=topology, mappings=mappings):
        return fitted, ()
    return fitted, pci.taken(pools, spec.pci_requests, cells, topology=topology, mappings=mappings)
