"""Running builds, snapshots and moves. The fewer, the higher the score. Source: Nova 33 IoOpsWeigher.

raw = num_io_ops (operations, clamped at 0); multiplier io_ops_weight_multiplier (-1.0)
"""

from __future__ import annotations

from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import ColumnWeigher


class IoOpsWeigher(ColumnWeigher):
    """Prefers hosts with little going on; a positive multiplier prefers busy ones."""

    name: ClassVar[str] = "IoOpsWeigher"
    minval: ClassVar[float | None] = 0.0
    option: ClassVar[str] = "io_ops_weight_multiplier"
    reads: ClassVar[frozenset[str]] = frozenset({"num_io_ops"})
    fleet_column: ClassVar[str] = "num_io_ops"

    def raw(self, host: HostState, request: Request) -> float:
        return host.num_io_ops
