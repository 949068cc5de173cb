"""Version of the hypervisor. The newer, the higher the score. Source: Nova 33 HypervisorVersionWeigher.

raw = hypervisor_version (8.2.0 is 8002000), 0 if unknown; multiplier hypervisor_version_weight_multiplier (1.0)
"""

from __future__ import annotations

from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import ColumnWeigher


class HypervisorVersionWeigher(ColumnWeigher):
    """Prefers newer hypervisors; a negative multiplier prefers older ones."""

    name: ClassVar[str] = "HypervisorVersionWeigher"
    option: ClassVar[str] = "hypervisor_version_weight_multiplier"
    reads: ClassVar[frozenset[str]] = frozenset({"hypervisor_version"})
    fleet_column: ClassVar[str] = "hypervisor_version"

    def raw(self, host: HostState, request: Request) -> float:
        return host.hypervisor_version or 0
