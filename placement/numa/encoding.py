"""Conversion of NUMA values to and from the numbers of the kernel ``ext/_numa``, whose docstrings define the
encoding."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ..types.host import MemoryPages, NumaCell, NumaTopology
from ..types.request import InstanceNumaTopology
from .cores import ISOLATE, REQUIRE
from .fit import FittedCell, FittedNuma, is_floating, is_pinned, with_spares

Placed = tuple[int, int, list[int], list[int], list[int], bool]
"""Host cell id, page size or 0, host CPUs by guest CPU, emulator CPUs, CPUs that become pinned, whether Nova charges
it."""

_THREADS = {REQUIRE: 1, ISOLATE: 2}


def topology_words(topology: NumaTopology) -> array[int]:
    """A host's cells for ``set_row``."""
    words = array("q", [len(topology.cells)])
    for cell in topology.cells:
        words.extend(_cell_words(cell))
    return words


def _cell_words(cell: NumaCell) -> Iterator[int]:
    yield from (cell.id, cell.socket is not None, cell.socket or 0, cell.memory, cell.memory_usage, cell.cpu_usage)
    yield from map(len, (cell.cpuset, cell.pcpuset, cell.pinned_cpus, cell.siblings, cell.mempages))
    for cpus in (cell.cpuset, cell.pcpuset, cell.pinned_cpus):
        yield from sorted(cpus)
    for core in cell.siblings:
        yield len(core)
        yield from sorted(core)
    for pages in cell.mempages:
        yield from (pages.size_kb, pages.total, pages.used, pages.reserved)


def topology(words: Sequence[int]) -> NumaTopology:
    """The inverse of ``topology_words``."""
    numbers = iter(words)
    return NumaTopology(cells=tuple(_cell(numbers) for _ in range(next(numbers))))


def _cell(numbers: Iterator[int]) -> NumaCell:
    id, has_socket, socket, memory, memory_usage, cpu_usage = islice(numbers, 6)
    shared, dedicated, pinned, cores, pages = islice(numbers, 5)
    return NumaCell(
        id=id,
        socket=socket if has_socket else None,
        memory=memory,
        memory_usage=memory_usage,
        cpu_usage=cpu_usage,
        cpuset=frozenset(islice(numbers, shared)),
        pcpuset=frozenset(islice(numbers, dedicated)),
        pinned_cpus=frozenset(islice(numbers, pinned)),
        siblings=tuple(frozenset(islice(numbers, next(numbers))) for _ in range(cores)),
        mempages=tuple(_pages(*islice(numbers, 4)) for _ in range(pages)),
    )


def with_state(topology: NumaTopology, words: Sequence[int]) -> NumaTopology:
    """A host of the same shape as ``topology``, with the amounts encoded by ``state_words``."""
    numbers = iter(words)
    return NumaTopology(cells=tuple(_cell_with_state(cell, numbers) for cell in topology.cells))


def _cell_with_state(cell: NumaCell, numbers: Iterator[int]) -> NumaCell:
    memory, memory_usage, cpu_usage, pinned = islice(numbers, 4)
    return NumaCell(
        id=cell.id,
        socket=cell.socket,
        cpuset=cell.cpuset,
        pcpuset=cell.pcpuset,
        siblings=cell.siblings,
        memory=memory,
        memory_usage=memory_usage,
        cpu_usage=cpu_usage,
        pinned_cpus=frozenset(islice(numbers, pinned)),
        mempages=tuple(_pages(pages.size_kb, *islice(numbers, 3)) for pages in cell.mempages),
    )


def _pages(size_kb: int, total: int, used: int, reserved: int) -> MemoryPages:
    return MemoryPages(size_kb=size_kb, total=total, used=used, reserved=reserved)


def request_words(wanted: InstanceNumaTopology) -> array[int]:
    """A guest's cells for ``compile``."""
    words = array("q")
    for cell, spare in with_spares(wanted):
        words.extend((cell.memory, cell.pagesize or 0, len(cell.cpuset), len(cell.pcpuset), spare))
        words.extend((is_pinned(cell), is_floating(cell), _THREADS.get(cell.cpu_thread_policy or "", 0)))
    return words


def fitted(wanted: InstanceNumaTopology, places: Iterable[Placed]) -> FittedNuma:
    """The result of the kernel's ``fit`` as a value."""
    cells = []
    charges = True
    for guest, (host_cell, page_kb, cpus, emulator, taken, nova_charges) in zip(wanted.cells, places, strict=True):
        charges = charges and nova_charges
        part = FittedCell(
            guest_cell=guest.id,
            host_cell=host_cell,
            memory=guest.memory,
            page_kb=page_kb or None,
            shared_cpus=len(guest.cpuset),
            pinning=tuple(zip(sorted(guest.pcpuset), cpus, strict=bool(cpus))),
            emulator_cpus=frozenset(emulator),
            taken_cpus=frozenset(taken),
        )
        cells.append(part)
    return FittedNuma(cells=tuple(cells), emulator_threads_policy=wanted.emulator_threads_policy, nova_charges=charges)


def usage_words(placed: FittedNuma) -> array[int]:
    """The usage of a fitted guest, for ``consume`` and ``release``."""
    words = array("q")
    for cell in placed.cells:
        words.extend((cell.host_cell, cell.memory, cell.shared_cpus, cell.page_kb or 0, len(cell.taken_cpus)))
        words.extend(sorted(cell.taken_cpus))
    return words
