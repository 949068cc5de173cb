"""Number of instances. The more, the higher the score. Source: Nova 33 NumInstancesWeigher.

raw = num_instances; multiplier num_instances_weight_multiplier (0.0: off)
"""

from __future__ import annotations

from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import ColumnWeigher


class NumInstancesWeigher(ColumnWeigher):
    """Stacks by number of instances; a negative multiplier spreads."""

    name: ClassVar[str] = "NumInstancesWeigher"
    option: ClassVar[str] = "num_instances_weight_multiplier"
    reads: ClassVar[frozenset[str]] = frozenset({"num_instances"})
    fleet_column: ClassVar[str] = "num_instances"

    def raw(self, host: HostState, request: Request) -> float:
        return host.num_instances
