"""Free PCI devices. The fewer, the higher the score. Source: Nova 33 PCIWeigher.

raw = 100 - min(free devices in all pools, 99); multiplier pci_weight_multiplier (1.0, not negative)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from ..types.host import HostState, PciPool
from ..types.request import Request
from .base import ColumnWeigher

NO_DEVICES: Final = 100
MOST_COUNTED: Final = 99
"""Where devices abound it does not matter how many there are: from 99 on all hosts are equal."""


class PCIWeigher(ColumnWeigher):
    """Keeps hosts with PCI devices free, and fills those with few left first."""

    name: ClassVar[str] = "PCIWeigher"
    option: ClassVar[str] = "pci_weight_multiplier"
    reads: ClassVar[frozenset[str]] = frozenset({"pci_pools"})
    fleet_column: ClassVar[str] = "pci_weight"

    def raw(self, host: HostState, request: Request) -> float:
        return pci_weight(host.pci_pools)


def pci_weight(pools: Iterable[PciPool]) -> int:
    """100 without devices, down to 1 with 99 or more. O(pools)."""
    return NO_DEVICES - min(sum(pool.count for pool in pools), MOST_COUNTED)
