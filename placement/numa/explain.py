"""Why a guest does not fit a host's NUMA cells, as a sentence with numbers. The rules are in ``fit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..devices import pci
from ..types.host import NumaCell, NumaTopology, PciPool
from ..types.networks import NetworkMetadata
from ..types.request import InstanceNumaTopology, PciRequest
from .fit import (
    ANY_PAGES,
    LARGE_PAGES,
    SMALL_PAGES,
    FittedCell,
    Limits,
    Refusal,
    Stage,
    fit,
    fit_cell,
    with_spares,
)

_SENTENCES = {
    Stage.PAGE_SIZE: "has no pages of {need}",
    Stage.PAGE_MULTIPLE: "cannot hold {need} MiB in whole pages of {have} KiB",
    Stage.PAGES: "lacks pages for {need} MiB: {have} MiB are there",
    Stage.MEMORY: "lacks memory for {need} MiB: {have} MiB are there",
    Stage.DEDICATED_CPUS: "has {have} CPUs to dedicate, {need} are requested",
    Stage.SHARED_CPUS: "has {have} shared CPUs, {need} are requested",
    Stage.FREE_CPUS: "has {have} of its dedicated CPUs free, {need} are requested",
    Stage.CORES: "has {have} of its dedicated CPUs free, but not {need} on cores as the thread policy asks",
    Stage.CPU_RATIO: "would carry {need} shared guest CPUs, its allocation ratio allows {have}",
    Stage.RAM_RATIO: "would carry {need} MiB, its allocation ratio allows {have}",
}
_PAGE_CLASSES = {SMALL_PAGES: "the smallest size", LARGE_PAGES: "a large size", ANY_PAGES: "any size"}


class _Nearest(NamedTuple):
    """The host cell that came closest to fitting a guest cell, and what it lacks."""

    cell: int
    refusal: Refusal


def explain(
    host: NumaTopology | None,
    wanted: InstanceNumaTopology,
    *,
    limits: Limits | None = None,
    pci_requests: Sequence[PciRequest] = (),
    pci_pools: Sequence[PciPool] = (),
    networks: NetworkMetadata | None = None,
) -> str:
    """Why ``fit`` finds no place: for each guest cell that fits no host cell, the host cell that came closest."""
    if host is None or not host.cells:
        return f"requests {len(wanted.cells)} NUMA cells, the host reports none"
    if len(host.cells) < len(wanted.cells):
        return f"requests {len(wanted.cells)} NUMA cells, the host has {len(host.cells)}"
    misses = _misses(host, wanted, limits)
    if misses:
        return "; ".join(misses)
    if fit(host, wanted, limits=limits) is None:
        return f"each guest NUMA cell fits some host cell, but there are no {len(wanted.cells)} different cells for all"
    if fit(host, wanted, limits=limits, pci_requests=pci_requests, pci_pools=pci_pools) is None:
        every = [cell.id for cell in host.cells]
        lack = pci.explain(pci_pools, pci_requests, every, topology=host)
        if pci.supports(pci_pools, pci_requests, every, topology=host):
            lack = "the NUMA cells that fit lack PCI devices with the required affinity"
        return f"the guest fits, its PCI devices do not: {lack}"
    if fit(host, wanted, limits=limits, networks=networks) is None and networks is not None:
        names = [*sorted(networks.physnets), *(["tunnelled networks"] if networks.tunneled else [])]
        return f"the NUMA cells with room are not near {', '.join(names)}"
    return "each guest NUMA cell fits, but not in the order in which nova-compute tries the host's cells"


def _misses(host: NumaTopology, wanted: InstanceNumaTopology, limits: Limits | None) -> list[str]:
    misses = []
    for guest, spare in with_spares(wanted):
        nearest = _nearest(host.cells, [fit_cell(cell, guest, spare, limits) for cell in host.cells])
        if nearest is not None:
            misses.append(f"guest NUMA cell {guest.id}: host cell {nearest.cell} {_sentence(nearest.refusal)}")
    return misses


def _nearest(cells: Sequence[NumaCell], pairs: Sequence[FittedCell | Refusal]) -> _Nearest | None:
    """None if a cell fits; else the refusal at the latest stage, of these the one with the most available, of these the
    first."""
    refused = [_Nearest(cell.id, pair) for cell, pair in zip(cells, pairs, strict=True) if isinstance(pair, Refusal)]
    if len(refused) < len(cells):
        return None
    return max(refused, key=lambda nearest: (nearest.refusal.stage, nearest.refusal.have))


def _sentence(refusal: Refusal) -> str:
    need = _PAGE_CLASSES.get(refusal.need, f"{refusal.need} KiB") if refusal.stage is Stage.PAGE_SIZE else refusal.need
    return _SENTENCES[refusal.stage].format(need=need, have=f"{refusal.have:.10g}")
