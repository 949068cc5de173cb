"""The smallest fleet of one kind of host that holds a workload: where to start, and which size to try next."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...placement.types.errors import InvalidValue
from ...placement.types.host import Host
from ...placement.types.request import Flavor
from ..trace.workload import Workload


def lower_bound(workload: Workload, host: Host) -> int:
    """Hosts that even a perfect packing needs when most is asked for at once; at least one. InvalidValue for a flavor
    that is larger than the host."""
    has: tuple[tuple[str, Callable[[Flavor], int], float], ...] = (
        ("vCPUs", lambda flavor: flavor.vcpus, host.vcpus_total * host.cpu_allocation_ratio),
        ("MiB", lambda flavor: flavor.memory_mb, host.total_usable_ram_mb * host.ram_allocation_ratio),
    )
    for unit, amount, most in has:
        largest = int(workload.amounts(amount).max())
        if largest > most:
            raise InvalidValue(f"{workload.name}: a guest of {largest} {unit} fits no host of {most:g}", field="trace")
    return max(1, *(math.ceil(workload.peak(amount) / most) for _, amount, most in has))


class Search:
    """Upwards from a lower bound in growing strides until a size holds, then by halves down to the smallest.

    It takes it that a larger fleet holds what a smaller one does; what it ends with holds, and one host less does not.
    A bound that is not ``proven`` is only where it begins: it looks below as well.
    """

    def __init__(self, lower_bound: int, *, proven: bool = True) -> None:
        self.too_few = lower_bound - 1 if proven else 0
        self._first = lower_bound
        self.enough: int | None = None
        self._stride = 1

    @property
    def candidate(self) -> int | None:
        """The size to try next; None when the search has ended."""
        if self.enough is None:
            return max(self.too_few + self._stride, self._first)
        return None if self.enough - self.too_few == 1 else (self.too_few + self.enough) // 2

    def note(self, hosts: int, *, holds: bool) -> None:
        """Record the outcome of a trial."""
        if holds:
            self.enough = hosts
            return
        self.too_few = hosts
        self._stride *= 2
