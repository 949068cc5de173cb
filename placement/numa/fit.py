"""Which host cells a guest's NUMA cells are placed on (Nova 33 hardware.py NUMA fit): the rules on plain values.

The kernel ``ext/_numa`` must agree with this module. Memory is in MiB, pages in KiB.

Each pair of cells is evaluated independently. Nova evaluates them while it overwrites the request (cell ids and page
sizes) and caches results by those ids, so it sometimes misses a fit, or accepts a misfit, for guests with unequal cells
or with page size small, large or any: ``nova_fit`` answers as it does. For all other guests the answers are equal.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..devices import pci
from ..types.host import MemoryPages, NumaCell, NumaTopology, PciPool
from ..types.networks import NetworkMetadata
from ..types.request import InstanceNumaCell, InstanceNumaTopology, PciRequest
from .cores import ISOLATE, free_pcpus, pack
from .networks import supports as near_networks

DEDICATED = "dedicated"
MIXED = "mixed"
SHARED = "shared"

SMALL_PAGES = -1
LARGE_PAGES = -2
ANY_PAGES = -3


class Limits(NamedTuple):
    """How far floating guests may overcommit a cell: Nova's NUMATopologyLimits."""

    cpu_allocation_ratio: float
    ram_allocation_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedCell:
    """A guest cell on a host cell: everything that it uses there, sufficient to release it.

    ``guest_cell`` and ``host_cell`` are ids. ``memory`` in MiB. ``page_kb``: page size that the memory is counted in
    (asked for, or the host cell's smallest), None if the host cell reports none. ``shared_cpus``: number of guest CPUs
    that float. ``pinning``: (guest CPU, host CPU) by guest CPU. ``emulator_cpus``: host CPUs for emulator threads.
    ``taken_cpus``: host CPUs that become pinned: those two, and with thread policy isolate their siblings.
    """

    guest_cell: int
    host_cell: int
    memory: int
    page_kb: int | None = None
    shared_cpus: int = 0
    pinning: tuple[tuple[int, int], ...] = ()
    emulator_cpus: frozenset[int] = frozenset()
    taken_cpus: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedNuma:
    """Where each cell of a guest goes on one host.

    ``nova_charges``: whether Nova 33 can charge this to its host state. It cannot if a host cell reports no page sizes,
    or if isolated siblings are not all free: it logs an exception, and then charges no PCI device and no I/O operation
    either.
    """

    cells: tuple[FittedCell, ...]
    emulator_threads_policy: str | None = None
    nova_charges: bool = True


class Stage(enum.IntEnum):
    """The checks on a pair of cells in Nova's order; a refusal at a later stage is closer to a fit."""

    PAGE_SIZE = enum.auto()
    PAGE_MULTIPLE = enum.auto()
    PAGES = enum.auto()
    MEMORY = enum.auto()
    DEDICATED_CPUS = enum.auto()
    SHARED_CPUS = enum.auto()
    FREE_CPUS = enum.auto()
    CORES = enum.auto()
    CPU_RATIO = enum.auto()
    RAM_RATIO = enum.auto()


class Refusal(NamedTuple):
    """Why a guest cell does not fit a host cell: ``need`` against ``have``; units depend on the stage."""

    stage: Stage
    need: int
    have: float


class _Page(NamedTuple):
    """The chosen page size in KiB, None if the host cell reports none."""

    size_kb: int | None


def fit(
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
    """The first permutation of host cells, in Nova's order of preference, that fits ``wanted`` with its PCI devices
    and is near to its ``networks``; else None.

    ``mappings``: Placement's providers per request group, where PCI devices are in Placement. ``packing`` is [compute]
    packing_host_numa_cells_allocation_strategy: fill used cells first instead of spreading. O(guest cells * host cells)
    checks of a pair, and at worst one visit per set of host cells.
    """
    if not wanted.cells or len(host.cells) < len(wanted.cells):
        return None
    cells = in_order(host, wanted, pci_requests=pci_requests, pci_pools=pci_pools, packing=packing)
    table = [[fit_cell(cell, guest, spare, limits) for cell in cells] for guest, spare in with_spares(wanted)]

    accept = accepts(host, pci_requests, pci_pools, networks, mappings)
    chosen = first_permutation(
        [[isinstance(pair, FittedCell) for pair in row] for row in table],
        lambda indices: accept([cells[index].id for index in indices]),
    )
    if chosen is None:
        return None
    fitted = [pair for row, index in zip(table, chosen, strict=True) if isinstance(pair := row[index], FittedCell)]
    return fitted_numa([cells[index] for index in chosen], wanted, fitted)


def accepts(
    host: NumaTopology,
    pci_requests: Sequence[PciRequest],
    pci_pools: Sequence[PciPool],
    networks: NetworkMetadata | None,
    mappings: Mapping[str, Sequence[str]] | None,
) -> Callable[[Sequence[int]], bool]:
    """What beside the cells themselves decides whether a guest may be on host cells of these ids: PCI devices and
    networks near them."""

    def accept(ids: Sequence[int]) -> bool:
        if pci_requests and not pci.supports(pci_pools, pci_requests, ids, topology=host, mappings=mappings):
            return False
        return near_networks(host.cells, ids, networks)

    return accept


def fitted_numa(cells: Sequence[NumaCell], wanted: InstanceNumaTopology, fitted: Sequence[FittedCell]) -> FittedNuma:
    """The guest cells of ``wanted``, as fitted, on the host ``cells`` beside them."""
    triples = zip(cells, wanted.cells, fitted, strict=True)
    return FittedNuma(
        cells=tuple(fitted),
        emulator_threads_policy=wanted.emulator_threads_policy,
        nova_charges=all(_nova_charges(*triple) for triple in triples),
    )


def with_spares(wanted: InstanceNumaTopology) -> list[tuple[InstanceNumaCell, int]]:
    """The guest cells, each with the number of host CPUs that its emulator threads need: one on the first cell if
    isolated."""
    isolated = wanted.emulator_threads_policy == ISOLATE
    return [(cell, int(isolated and index == 0)) for index, cell in enumerate(wanted.cells)]


def in_order(
    host: NumaTopology,
    wanted: InstanceNumaTopology,
    *,
    pci_requests: Sequence[PciRequest] = (),
    pci_pools: Sequence[PciPool] = (),
    packing: bool = False,
) -> list[NumaCell]:
    """The host cells, most preferred first, by stable sorts of which the last dominates: free memory, CPUs, PCI devices
    of the cell.

    With as many host cells as guest cells Nova keeps the host's order.
    """
    cells = list(host.cells)
    if len(cells) <= len(wanted.cells):
        return cells
    cells.sort(key=_free_memory, reverse=not packing)
    if is_pinned(wanted.cells[0]):
        cells.sort(key=lambda cell: len(free_pcpus(cell)), reverse=not packing)
    else:
        cells.sort(key=lambda cell: cell.cpu_usage, reverse=packing)
    devices = pci.free_by_node(pci_pools)
    cells.sort(key=lambda cell: devices.get(cell.id, 0), reverse=bool(pci_requests))
    return cells


def _free_memory(cell: NumaCell) -> int:
    return cell.memory - cell.memory_usage


def first_permutation(
    fits: Sequence[Sequence[bool]], accept: Callable[[Sequence[int]], bool]
) -> tuple[int, ...] | None:
    """The first of ``itertools.permutations`` of the columns in which every row fits its column and ``accept`` agrees,
    else None.

    ``accept`` may depend only on the set of columns. A set without a valid completion is therefore never tried again,
    which avoids visiting every permutation.
    """
    dead: set[frozenset[int]] = set()

    def extend(chosen: tuple[int, ...]) -> tuple[int, ...] | None:
        used = frozenset(chosen)
        if used in dead:
            return None
        if len(chosen) == len(fits):
            found = chosen if accept(chosen) else None
        else:
            row = fits[len(chosen)]
            tries = (extend((*chosen, index)) for index, fit in enumerate(row) if fit and index not in used)
            found = next((result for result in tries if result is not None), None)
        if found is None:
            dead.add(used)
        return found

    return extend(())


def nova_raises(cells: Sequence[NumaCell], wanted: InstanceNumaTopology) -> bool:
    """Whether Nova 33 and 34 raise ValueError while they fit pinned cells: of the first host cell with room, they take
    the core with most threads, and the host reports no cores for it. O(guest cells * host cells)."""
    for guest, spare in with_spares(wanted):
        for cell in cells if is_pinned(guest) else ():
            if not isinstance(_memory(cell, guest), Refusal) and _room(cell, guest, spare) is None:
                return not cell.siblings
    return False


def is_pinned(guest: InstanceNumaCell) -> bool:
    """True if some CPUs of ``guest`` are dedicated to it."""
    return guest.cpu_policy in (DEDICATED, MIXED)


def is_floating(guest: InstanceNumaCell) -> bool:
    """True if some CPUs of ``guest`` float over the host cell's shared CPUs."""
    return guest.cpu_policy != DEDICATED


def fit_cell(cell: NumaCell, guest: InstanceNumaCell, spare: int, limits: Limits | None) -> FittedCell | Refusal:
    """The usage of ``guest`` on ``cell``, with ``spare`` host CPUs (0 or 1) for emulator threads, or the first check
    that fails."""
    page = _memory(cell, guest)
    if isinstance(page, Refusal):
        return page
    refusal = _room(cell, guest, spare)
    if refusal is not None:
        return refusal
    cpus: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()
    if is_pinned(guest):
        pinning = pack(cell, len(guest.pcpuset), spare, guest.cpu_thread_policy)
        if pinning is None:
            return Refusal(Stage.CORES, len(guest.pcpuset) + spare, len(free_pcpus(cell)))
        cpus, emulator = pinning
    if is_floating(guest) and limits is not None:
        refusal = _overcommit(cell, guest, limits)
        if refusal is not None:
            return refusal
    return FittedCell(
        guest_cell=guest.id,
        host_cell=cell.id,
        memory=guest.memory,
        page_kb=page.size_kb,
        shared_cpus=len(guest.cpuset),
        pinning=tuple(zip(sorted(guest.pcpuset), cpus, strict=bool(cpus))),
        emulator_cpus=frozenset(emulator),
        taken_cpus=claimed_cpus(cell, frozenset(cpus + emulator), guest.cpu_thread_policy) & free_pcpus(cell),
    )


def claimed_cpus(cell: NumaCell, cpus: frozenset[int], thread_policy: str | None) -> frozenset[int]:
    """The host CPUs that Nova marks as pinned for ``cpus``: with isolate, also all their siblings."""
    if thread_policy != ISOLATE:
        return cpus
    return frozenset().union(*(core for core in cell.siblings if core & cpus))


def _nova_charges(cell: NumaCell, guest: InstanceNumaCell, fitted: FittedCell) -> bool:
    held = frozenset(cpu for _, cpu in fitted.pinning) | fitted.emulator_cpus
    return bool(cell.mempages) and claimed_cpus(cell, held, guest.cpu_thread_policy) == fitted.taken_cpus


def choose_page(cell: NumaCell, guest: InstanceNumaCell) -> int | None:
    """The page size in KiB that ``guest``, which asks for pages, gets on ``cell``; None if they do not hold it."""
    page = _memory(cell, guest)
    return page.size_kb if isinstance(page, _Page) else None


def _memory(cell: NumaCell, guest: InstanceNumaCell) -> _Page | Refusal:
    """The page size for ``guest`` on ``cell``, or why its memory does not fit."""
    if guest.pagesize:
        return _asked_pages(cell, guest, guest.pagesize)
    if cell.mempages:
        pages = min(cell.mempages, key=lambda pages: pages.size_kb)
        room = _free_pages(pages) if is_pinned(guest) else pages.total
        return _pages_hold(guest, pages, room) or _Page(pages.size_kb)
    room = _free_memory(cell) if is_pinned(guest) else cell.memory
    return _Page(None) if guest.memory <= room else Refusal(Stage.MEMORY, guest.memory, room)


def _asked_pages(cell: NumaCell, guest: InstanceNumaCell, asked: int) -> _Page | Refusal:
    """The largest size of the asked class (or the asked size in KiB) with enough free pages."""
    by_size = sorted(cell.mempages, key=lambda pages: pages.size_kb, reverse=True)
    if asked == SMALL_PAGES:
        by_size = by_size[-1:]
    elif asked == LARGE_PAGES:
        by_size = by_size[:-1]
    elif asked != ANY_PAGES:
        by_size = [pages for pages in by_size if pages.size_kb == asked]
    best = Refusal(Stage.PAGE_SIZE, asked, 0)
    for pages in by_size:
        refusal = _pages_hold(guest, pages, _free_pages(pages))
        if refusal is None:
            return _Page(pages.size_kb)
        best = max(best, refusal)
    return best


def _free_pages(pages: MemoryPages) -> int:
    return pages.total - pages.used - pages.reserved


def _pages_hold(guest: InstanceNumaCell, pages: MemoryPages, room: int) -> Refusal | None:
    """None if ``room`` pages hold the memory of ``guest`` in whole pages."""
    memory_kb = guest.memory * 1024
    if memory_kb % pages.size_kb:
        return Refusal(Stage.PAGE_MULTIPLE, guest.memory, pages.size_kb)
    if memory_kb > room * pages.size_kb:
        return Refusal(Stage.PAGES, guest.memory, room * pages.size_kb / 1024)
    return None


def _room(cell: NumaCell, guest: InstanceNumaCell, spare: int) -> Refusal | None:
    """None if ``cell`` has enough CPUs for ``guest``, each on a CPU of its own; dedicated ones must also be free."""
    dedicated = len(guest.pcpuset) + spare
    if is_pinned(guest) and dedicated > len(cell.pcpuset):
        return Refusal(Stage.DEDICATED_CPUS, dedicated, len(cell.pcpuset))
    if is_floating(guest) and len(guest.cpuset) > len(cell.cpuset):
        return Refusal(Stage.SHARED_CPUS, len(guest.cpuset), len(cell.cpuset))
    if is_pinned(guest) and dedicated > len(free_pcpus(cell)):
        return Refusal(Stage.FREE_CPUS, dedicated, len(free_pcpus(cell)))
    return None


def _overcommit(cell: NumaCell, guest: InstanceNumaCell, limits: Limits) -> Refusal | None:
    """None if floating CPUs and memory stay within the allocation ratios of the cell."""
    cpus = cell.cpu_usage + len(guest.cpuset)
    if cpus > len(cell.cpuset) * limits.cpu_allocation_ratio:
        return Refusal(Stage.CPU_RATIO, cpus, len(cell.cpuset) * limits.cpu_allocation_ratio)
    memory = cell.memory_usage + guest.memory
    if memory > cell.memory * limits.ram_allocation_ratio:
        return Refusal(Stage.RAM_RATIO, memory, cell.memory * limits.ram_allocation_ratio)
    return None
