"""Free memory. The more is free, the higher the score. Source: Nova 33 RAMWeigher.

raw = free_ram_mb (MiB, clamped at 0); multiplier ram_weight_multiplier (1.0)
"""

from __future__ import annotations

from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import ColumnWeigher


class RAMWeigher(ColumnWeigher):
    """Spreads by free memory; a negative multiplier stacks."""

    name: ClassVar[str] = "RAMWeigher"
    minval: ClassVar[float | None] = 0.0
    option: ClassVar[str] = "ram_weight_multiplier"
    reads: ClassVar[frozenset[str]] = frozenset({"free_ram_mb"})
    fleet_column: ClassVar[str] = "free_ram_mb"

    def raw(self, host: HostState, request: Request) -> float:
        return host.free_ram_mb
