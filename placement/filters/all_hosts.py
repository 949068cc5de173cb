"""The filter that passes every host, for configurations that must name at least one filter. Source: Nova 33
AllHostsFilter."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import Filter


class AllHostsFilter(Filter):
    """Passes every host."""

    name: ClassVar[str] = "AllHostsFilter"
    once_per_request: ClassVar[bool] = True

    def applies(self, request: Request) -> bool:
        return False

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset()

    def key(self, request: Request) -> Hashable:
        return None

    def host_passes(self, host: HostState, request: Request) -> bool:
        return True
