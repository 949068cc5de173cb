"""Which host CPUs a guest cell is pinned to: packing onto cores by thread policy (Nova 33 hardware.py core packing).

Considers the CPUs of one host cell; memory and pages are checked in ``fit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from ..types.host import NumaCell

REQUIRE = "require"
ISOLATE = "isolate"
PREFER = "prefer"


class Pinning(NamedTuple):
    """``cpus``: host CPUs in the order of the guest's sorted CPUs. ``emulator``: host CPUs set apart for emulator
    threads."""

    cpus: tuple[int, ...]
    emulator: tuple[int, ...] = ()


def free_pcpus(cell: NumaCell) -> frozenset[int]:
    """Dedicated CPUs of ``cell`` that no guest holds."""
    return cell.pcpuset - cell.pinned_cpus


def threads_per_core(cell: NumaCell) -> int:
    """The most threads that a core of ``cell`` has; 0 if the host reports no cores."""
    return max(map(len, cell.siblings), default=0)


def has_threads(cells: Sequence[NumaCell]) -> bool:
    """True if any core of any cell has more than one thread (SMT)."""
    return any(threads_per_core(cell) > 1 for cell in cells)


def pack(cell: NumaCell, count: int, reserved: int, policy: str | None) -> Pinning | None:
    """Pin ``count`` guest CPUs and ``reserved`` emulator threads (0 or 1) to free CPUs of ``cell``, or None.

    Within a core, threads are taken in ascending order; cores in the order in which the host reports them. A cell of a
    mixed guest may have no CPU to pin (``count`` 0): then it needs none, but still a core with two free threads if the
    policy is require.
    """
    threads = threads_per_core(cell)
    free = free_pcpus(cell)
    cores = [core for core in (tuple(sorted(siblings & free)) for siblings in cell.siblings) if core]
    if not threads or (not count and (reserved or policy == ISOLATE)):
        return None
    if policy == ISOLATE:
        return _isolated(cell, cores, threads, count, reserved)
    return _packed(cores, threads, count, reserved, policy)


def _isolated(cell: NumaCell, cores: list[tuple[int, ...]], threads: int, count: int, reserved: int) -> Pinning | None:
    """One thread on each of ``count`` wholly free cores, their siblings left idle.

    Nova refuses this on SMT hosts unless the host tells shared and dedicated CPUs apart in no way (vcpu_pin_set).
    """
    if threads > 1 and cell.pcpuset != cell.cpuset:
        return None
    whole = [core for core in cores if len(core) == threads][:count]
    if len(whole) < count:
        return None
    others = chain.from_iterable(core for core in cores if core not in whole)
    return _with_emulator(tuple(core[0] for core in whole), others, reserved)


def _packed(
    cores: list[tuple[int, ...]], threads: int, count: int, reserved: int, policy: str | None
) -> Pinning | None:
    """As many threads of a core as possible. ``require`` never uses a single thread of a core; the other policies
    finally take any free CPU."""
    every = tuple(chain.from_iterable(cores))
    for width in range(threads, 1 if policy == REQUIRE else 0, -1):
        wide = [core[:width] for core in cores if len(core) >= width]
        if wide and width * len(wide) >= count:
            pinning = _with_emulator(tuple(chain.from_iterable(wide))[:count], every, reserved)
            if pinning is not None:
                return pinning
    if policy == REQUIRE or len(every) < count:
        return None
    return _with_emulator(every[:count], every, reserved)


def _with_emulator(cpus: tuple[int, ...], candidates: chain[int] | tuple[int, ...], reserved: int) -> Pinning | None:
    """``cpus`` and the first ``reserved`` candidates that are not among them; None if there is none."""
    if not reserved:
        return Pinning(cpus)
    left = [cpu for cpu in candidates if cpu not in cpus][:reserved]
    return Pinning(cpus, tuple(left)) if left else None
