"""The NUMA cells and PCI devices that a guest takes of the host it was placed on. Source: Nova 33
HostState.consume_from_request."""

from __future__ import annotations

from ..devices import pci
from ..fleet.fleet import Fleet
from ..numa.fit import FittedNuma, Limits, fit
from ..types.host import PciPool
from ..types.request import RequestSpec


def fit_claim(
    fleet: Fleet, spec: RequestSpec, row: int, *, packing: bool
) -> tuple[FittedNuma | None, tuple[PciPool, ...]]:
    """(fitted NUMA cells or None, PCI devices taken). A request that no filter checked and that does not fit takes
    nothing."""
    pools = fleet.pci_pools(row)
    topology = fleet.numa.get_row(row)
    fitted = None
    if spec.numa_topology is not None and topology is not None:
        static = fleet.host_class(row)
        fitted = fit(
            topology,
            spec.numa_topology,
            limits=Limits(static.cpu_allocation_ratio, static.ram_allocation_ratio),
            pci_requests=spec.pci_requests,
            pci_pools=pools,
            packing=packing,
        )
    if not spec.pci_requests:
        return fitted, ()
    cells = [part.host_cell for part in fitted.cells] if fitted is not None else None
    if not pci.supports(pools, spec.pci_requests, cells, topology=topology):
        return fitted, ()
    return fitted, pci.taken(pools, spec.pci_requests, cells, topology=topology)
