"""Free vCPUs. The more are free, the higher the score. Source: Nova 33 CPUWeigher.

raw = vcpus_total * cpu_allocation_ratio - vcpus_used (vCPUs, clamped at 0); multiplier cpu_weight_multiplier (1.0)
"""

from __future__ import annotations

from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import ColumnWeigher


class CPUWeigher(ColumnWeigher):
    """Spreads by free vCPUs, over-commitment counted; a negative multiplier stacks."""

    name: ClassVar[str] = "CPUWeigher"
    minval: ClassVar[float | None] = 0.0
    option: ClassVar[str] = "cpu_weight_multiplier"
    reads: ClassVar[frozenset[str]] = frozenset({"vcpus_total", "vcpus_used", "cpu_allocation_ratio"})
    fleet_column: ClassVar[str] = "free_vcpus"

    def raw(self, host: HostState, request: Request) -> float:
        return host.vcpus_total * host.cpu_allocation_ratio - host.vcpus_used
