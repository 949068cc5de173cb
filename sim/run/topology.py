"""The NUMA cells of a kind of host: its CPUs, shared and dedicated, its cores, its memory and its huge pages, dealt to
equal cells. It knows no fleet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ...placement.types.errors import InvalidValue
from ...placement.types.host import MemoryPages, NumaCell, NumaTopology
from .hardware import Hardware

SMALL_KIB: Final = 4
"""Size of the pages that the rest of the memory has."""
_PAGE: Final = re.compile(r"([1-9][0-9]{0,9})\s*([KMG])i?B", re.IGNORECASE)
_KIB: Final[Mapping[str, int]] = {"K": 1, "M": 1024, "G": 1024 * 1024}


def pages_of(kind: Hardware, key: str) -> dict[int, int]:
    """Size in KiB -> huge pages of a kind of host. InvalidValue, with ``key``, for a text that is not a size, or for
    more pages than there is memory."""
    found: dict[int, int] = {}
    for text, count in kind.huge_pages.items():
        told = _PAGE.fullmatch(text.strip())
        size = int(told[1]) * _KIB[told[2].upper()] if told else 0
        if size <= SMALL_KIB or size in found:
            problem = (
                f"{key}.huge_pages: {text!r} is {'there twice' if size in found else 'not the size of a huge page'}"
            )
            raise InvalidValue(problem, field=f"fleet.{key}.huge_pages", hint='{"2MiB" = 1024, "1GiB" = 16}')
        found[size] = count
    taken, there = sum(size * count for size, count in found.items()), _memory_mb(kind) * 1024
    if taken > there:
        problem = f"{key}.huge_pages: {taken / _KIB['G']:g} GiB of pages, and {kind.memory_gb:g} GiB of memory"
        raise InvalidValue(problem, field=f"fleet.{key}.huge_pages")
    return found


def check_topology(kind: Hardware, key: str) -> None:
    """InvalidValue, with ``key``, for cells, dedicated CPUs or pages that the size of the host does not allow."""
    if kind.dedicated_vcpus > kind.vcpus:
        problem = f"{key}.dedicated_vcpus: {kind.dedicated_vcpus} of {kind.vcpus} vCPUs are dedicated"
        raise InvalidValue(problem, field=f"fleet.{key}.dedicated_vcpus")
    if kind.numa_cells > kind.vcpus:
        problem = f"{key}.numa_cells: {kind.vcpus} CPUs for {kind.numa_cells} NUMA cells"
        raise InvalidValue(problem, field=f"fleet.{key}.numa_cells")
    if kind.reserved_vcpus and kind.reserved_vcpus > kind.shared_vcpus:
        problem = f"{key}.reserved_vcpus: {kind.reserved_vcpus} are reserved, and {kind.shared_vcpus} vCPUs are shared"
        raise InvalidValue(problem, field=f"fleet.{key}.reserved_vcpus")
    pages_of(kind, key)


def topology_of(kind: Hardware) -> NumaTopology | None:
    """The cells; None for a kind that reports none. CPUs, memory and pages are dealt in equal parts, the rest of a
    division to the last cell; dedicated are the CPUs with the greatest numbers of each cell."""
    if not (kind.numa_cells or kind.dedicated_vcpus or kind.huge_pages):
        return None
    count = max(1, kind.numa_cells)
    memory, dedicated = _dealt(_memory_mb(kind), count), _dealt(kind.dedicated_vcpus, count)
    pages = {size: _dealt(number, count) for size, number in pages_of(kind, f"hardware {kind.name}").items()}
    cells, first = [], 0
    for number, cpus in enumerate(_dealt(kind.vcpus, count)):
        own = range(first, first + cpus)
        first += cpus
        shared = own[: len(own) - dedicated[number]]
        here = {size: each[number] for size, each in pages.items() if each[number]}
        cells.append(
            NumaCell(
                id=number,
                cpuset=frozenset(shared),
                pcpuset=frozenset(own[len(shared) :]),
                memory=memory[number],
                siblings=_cores(own, kind.threads_per_core),
                mempages=_mempages(memory[number], here),
            )
        )
    return NumaTopology(cells=tuple(cells))


def _memory_mb(kind: Hardware) -> int:
    return round(kind.memory_gb * 1024)


def _dealt(amount: int, count: int) -> list[int]:
    each = amount // count
    return [each] * (count - 1) + [amount - each * (count - 1)]


def _cores(cpus: range, threads: int) -> tuple[frozenset[int], ...]:
    """The CPUs of each core."""
    return tuple(frozenset(cpus[at : at + threads]) for at in range(0, len(cpus), threads))


def _mempages(memory_mb: int, huge: Mapping[int, int]) -> tuple[MemoryPages, ...]:
    """Small pages of what huge ones leave, and these."""
    left = max(0, memory_mb * 1024 - sum(size * count for size, count in huge.items()))
    small = MemoryPages(size_kb=SMALL_KIB, total=left // SMALL_KIB)
    return small, *(MemoryPages(size_kb=size, total=count) for size, count in sorted(huge.items()))
