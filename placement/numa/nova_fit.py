"""Which host cells a guest's NUMA cells go to, exactly as Nova tries them.

Nova 33 and 34 overwrite the request while they try permutations of host cells: a guest cell takes the id of the host
cell that it fitted last, and the page size that was chosen for it; results are remembered by the pair of ids. Where
all guest cells ask for the same and no page size is left open, this finds what ``fit`` finds, which is faster.
nova-compute tries in the same way, so a host that ``fit`` accepts beyond that would refuse the guest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from ..types.host import NumaCell, NumaTopology, PciPool
from ..types.networks import NetworkMetadata
from ..types.options import Options
from ..types.request import InstanceNumaCell, InstanceNumaTopology, PciRequest
from .cores import ISOLATE
from .fit import FittedCell, FittedNuma, Limits, accepts, choose_page, fit, fit_cell, fitted_numa, in_order, with_spares

MOST_TRIES: Final = 20_000
"""Permutations that are tried; for a guest that needs more, ``fit`` decides."""


class Fitter(Protocol):
    """``fit`` or ``nova_fit``."""

    def __call__(
        self,
        host: NumaTopology,
        wanted: InstanceNumaTopology,
        *,
        limits: Limits | None = None,
        pci_requests: Sequence[PciRequest] = (),
        pci_pools: Sequence[PciPool] = (),
        packing: bool = False,
        networks: NetworkMetadata | None = None,
        mappings: Mapping[str, Sequence[str]] | None = None,
    ) -> FittedNuma | None: ...


def fitter(options: Options) -> Fitter:
    """The way of fitting that ``[numa] fit`` names."""
    return fit if options.numa.fit == "exact" else nova_fit


def order_matters(wanted: InstanceNumaTopology) -> bool:
    """True if Nova's way of trying may answer otherwise than ``fit``: a page size is left open, or cells differ."""
    first = wanted.cells[0]
    if any(cell.pagesize is not None and cell.pagesize < 0 for cell in wanted.cells):
        return True
    if len(wanted.cells) == 1:
        return False
    return wanted.emulator_threads_policy == ISOLATE or any(_demand(cell) != _demand(first) for cell in wanted.cells)


def _demand(cell: InstanceNumaCell) -> tuple[object, ...]:
    return (
        *(len(cell.cpuset), len(cell.pcpuset), cell.memory, cell.pagesize),
        *(cell.cpu_policy, cell.cpu_thread_policy),
    )


def nova_fit(
    host: NumaTopology,
    wanted: InstanceNumaTopology,
    *,
    limits: Limits | None = None,
    pci_requests: Sequence[PciRequest] = (),
    pci_pools: Sequence[PciPool] = (),
    packing: bool = False,
    networks: NetworkMetadata | None = None,
    mappings: Mapping[str, Sequence[str]] | None = None,
) -> FittedNuma | None:
    """Where Nova puts the guest, or None. Parameters as ``fit``'s; the same answer where ``order_matters`` is False.
    O(permutations of host cells that are no repetition) checks of a pair, at most MOST_TRIES permutations."""
    if not wanted.cells or len(host.cells) < len(wanted.cells):
        return None
    exact = partial(
        fit,
        host,
        wanted,
        limits=limits,
        pci_requests=pci_requests,
        pci_pools=pci_pools,
        packing=packing,
        networks=networks,
        mappings=mappings,
    )
    if not order_matters(wanted):
        return exact()
    cells = in_order(host, wanted, pci_requests=pci_requests, pci_pools=pci_pools, packing=packing)
    accept = accepts(host, pci_requests, pci_pools, networks, mappings)
    trial = _Trial(cells, wanted, limits, accept)
    chosen = trial.first()
    if trial.gave_up:
        return exact()
    return None if chosen is None else trial.fitted(chosen)


@dataclass(slots=True)
class _Guest:
    """A guest cell while it is tried: ``id`` and ``pagesize`` as Nova has overwritten them by now, ``fitted`` as it was
    last computed."""

    cell: InstanceNumaCell
    spare: int
    id: int
    pagesize: int | None
    fitted: FittedCell | None = None


def _without_cpus(guest: _Guest, cell: NumaCell) -> FittedCell:
    """A guest cell on a host cell that has no CPUs to pin for it: its memory and floating CPUs alone."""
    smallest = min((pages.size_kb for pages in cell.mempages), default=None)
    asked_for = guest.pagesize is not None and guest.pagesize > 0
    return FittedCell(
        guest_cell=guest.cell.id,
        host_cell=cell.id,
        memory=guest.cell.memory,
        page_kb=guest.pagesize if asked_for else smallest,
        shared_cpus=len(guest.cell.cpuset),
    )


class _Trial:
    """Permutations of host cells in Nova's order, and what it remembers between them."""

    def __init__(
        self,
        cells: list[NumaCell],
        wanted: InstanceNumaTopology,
        limits: Limits | None,
        accept: Callable[[Sequence[int]], bool],
    ) -> None:
        self._cells, self._wanted, self._limits, self._accept = cells, wanted, limits, accept
        self._guests = [_Guest(cell, spare, cell.id, cell.pagesize) for cell, spare in with_spares(wanted)]
        self._fits: set[tuple[int, int]] = set()
        self._misfits: set[tuple[int, int]] = set()
        self._tries = 0
        self._changed = False
        self.gave_up = False

    def first(self) -> tuple[int, ...] | None:
        """Indices of the first permutation that Nova takes."""
        found, _ = self._extend(())
        return found

    def _extend(self, prefix: tuple[int, ...]) -> tuple[tuple[int, ...] | None, int]:
        """The first permutation below ``prefix`` that is taken; else how many of its cells all further ones share with
        one that failed without changing anything, which therefore fail as well."""
        if len(prefix) == len(self._guests):
            return self._try(prefix)
        for index in range(len(self._cells)):
            if index in prefix:
                continue
            found, useless = self._extend((*prefix, index))
            if found is not None or self.gave_up:
                return found, 0
            if useless <= len(prefix):
                return None, useless
        return None, len(self._guests) + 1

    def _try(self, chosen: tuple[int, ...]) -> tuple[tuple[int, ...] | None, int]:
        self._tries += 1
        if self._tries > MOST_TRIES:
            self.gave_up = True
            return None, 0
        self._changed = False
        for position, index in enumerate(chosen):
            if not self._fit(self._guests[position], self._cells[index]):
                return None, len(chosen) + 1 if self._changed else position + 1
        if self._accept([self._cells[index].id for index in chosen]):
            return chosen, 0
        return None, len(chosen) + 1

    def _fit(self, guest: _Guest, cell: NumaCell) -> bool:
        pair = (cell.id, guest.id)
        if pair in self._misfits:
            return False
        if pair in self._fits:
            self._changed |= guest.id != cell.id
            guest.id = cell.id
            return True
        self._changed = True
        asked = replace(guest.cell, pagesize=guest.pagesize)
        if guest.pagesize:
            guest.pagesize = choose_page(cell, asked) or guest.pagesize
            asked = replace(guest.cell, pagesize=guest.pagesize)
        fitted = fit_cell(cell, asked, guest.spare, self._limits)
        if not isinstance(fitted, FittedCell):
            self._misfits.add(pair)
            return False
        guest.fitted = fitted
        self._fits.add(pair)
        guest.id = cell.id
        return True

    def fitted(self, chosen: tuple[int, ...]) -> FittedNuma:
        """What the guest takes. Nova keeps the CPUs that it computed last for each guest cell, maybe for another host
        cell, or none where another guest cell's result was taken for its own; then it fails to charge the guest, and
        here the CPUs are those of the cell chosen."""
        cells, parts, stale = [self._cells[index] for index in chosen], list[FittedCell](), False
        for cell, guest in zip(cells, self._guests, strict=True):
            part = guest.fitted
            if part is None or part.host_cell != cell.id:
                again = fit_cell(cell, replace(guest.cell, pagesize=guest.pagesize), guest.spare, self._limits)
                if isinstance(again, FittedCell):
                    stale = stale or bool((part or again).taken_cpus)
                    part = again
                else:
                    part, stale = _without_cpus(guest, cell), True
            parts.append(part)
        made = fitted_numa(cells, self._wanted, parts)
        return replace(made, nova_charges=made.nova_charges and not stale)
