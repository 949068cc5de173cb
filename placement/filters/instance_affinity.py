"""Next to, or away from, given instances: hints ``same_host`` and ``different_host``.

Source: Nova 33 SameHostFilter and DifferentHostFilter.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from ..types.uuids import plain_uuid
from .base import Filter, Selection


class _InstanceAffinityFilter(Filter):
    """Passes the hosts that hold (``keep``), or do not hold, one of the instances that the hint names."""

    hint: ClassVar[str]
    keep: ClassVar[bool]
    once_per_request: ClassVar[bool] = True

    def applies(self, request: Request) -> bool:
        return bool(self._named(request))

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"instances"})

    def key(self, request: Request) -> Hashable:
        return self._named(request)

    def selection(self, request: Request) -> Selection | None:
        return Selection(keep=self.keep, instances=self._named(request))

    def host_passes(self, host: HostState, request: Request) -> bool:
        named = self._named(request)
        return not named or _holds_one(host, named) == self.keep

    def _named(self, request: Request) -> frozenset[str]:
        """The instances of the hint; a single empty string counts as no hint."""
        values = request.scheduler_hints.get(self.hint, ())
        return frozenset() if tuple(values) == ("",) else frozenset(map(plain_uuid, values))


class SameHostFilter(_InstanceAffinityFilter):
    """Passes a host that holds one of the instances in the hint ``same_host``."""

    name: ClassVar[str] = "SameHostFilter"
    hint: ClassVar[str] = "same_host"
    keep: ClassVar[bool] = True

    def reason(self, host: HostState, request: Request) -> str:
        return f"holds none of the {len(self._named(request))} instances of the hint same_host"


class DifferentHostFilter(_InstanceAffinityFilter):
    """Passes a host that holds none of the instances in the hint ``different_host``."""

    name: ClassVar[str] = "DifferentHostFilter"
    hint: ClassVar[str] = "different_host"
    keep: ClassVar[bool] = False

    def reason(self, host: HostState, request: Request) -> str:
        held = min(uuid for uuid in self._named(request) if uuid in host.instances)
        return f"holds instance {held} of the hint different_host"


def _holds_one(host: HostState, uuids: frozenset[str]) -> bool:
    return any(uuid in host.instances for uuid in uuids)
