"""Free local disk. The more is free, the higher the score. Source: Nova 33 DiskWeigher.

raw = free_disk_mb (MiB, clamped at 0); multiplier disk_weight_multiplier (1.0)
"""

from __future__ import annotations

from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import ColumnWeigher


class DiskWeigher(ColumnWeigher):
    """Spreads by free local disk; a negative multiplier stacks."""

    name: ClassVar[str] = "DiskWeigher"
    minval: ClassVar[float | None] = 0.0
    option: ClassVar[str] = "disk_weight_multiplier"
    reads: ClassVar[frozenset[str]] = frozenset({"free_disk_mb"})
    fleet_column: ClassVar[str] = "free_disk_mb"

    def raw(self, host: HostState, request: Request) -> float:
        return host.free_disk_mb
