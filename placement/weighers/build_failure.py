"""Builds that failed lately. The fewer, the higher the score. Source: Nova 33 BuildFailureWeigher.

raw = failed_builds; multiplier -1 * build_failure_weight_multiplier (1000000.0), also where an aggregate sets it
"""

from __future__ import annotations

from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import ColumnWeigher


class BuildFailureWeigher(ColumnWeigher):
    """Avoids hosts whose last builds failed, before all else by default."""

    name: ClassVar[str] = "BuildFailureWeigher"
    option: ClassVar[str] = "build_failure_weight_multiplier"
    sign: ClassVar[float] = -1.0
    reads: ClassVar[frozenset[str]] = frozenset({"failed_builds"})
    fleet_column: ClassVar[str] = "failed_builds"

    def raw(self, host: HostState, request: Request) -> float:
        return host.failed_builds
