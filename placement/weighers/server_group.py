"""Server groups with a soft policy. Source: Nova 33 ServerGroupSoftAffinityWeigher and -SoftAntiAffinityWeigher.

soft-affinity       raw = +members of the request's group on the host; multiplier soft_affinity_weight_multiplier (1.0)
soft-anti-affinity  raw = -members of it on the host; multiplier soft_anti_affinity_weight_multiplier (1.0)

Raw is 0 everywhere if the request's group has another policy. Neither multiplier may be negative.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..filters.server_group import group_with
from ..types.host import HostState
from ..types.request import Request
from .base import Weigher


class _SoftPolicyWeigher(Weigher):
    policy: ClassVar[str]
    group_factor: ClassVar[float]

    def applies(self, request: Request) -> bool:
        return group_with(request, self.policy) is not None

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"instances"})

    def key(self, request: Request) -> Hashable:
        group = group_with(request, self.policy)
        return None if group is None else group.members

    def raw(self, host: HostState, request: Request) -> float:
        return self.group_factor * self._members_on(host, request)

    def describe(self, host: HostState, request: Request, best: float | None = None) -> str:
        group = group_with(request, self.policy)
        if group is None:
            return f"the request is in no group of policy {self.policy}"
        text = f"{self._members_on(host, request)} members of server group {group.uuid} ({self.policy})"
        return text if best is None else f"{text}, best host has {abs(best):.15g}"

    def _members_on(self, host: HostState, request: Request) -> int:
        group = group_with(request, self.policy)
        return 0 if group is None else len(group.members & host.instances.keys())


class ServerGroupSoftAffinityWeigher(_SoftPolicyWeigher):
    """Prefers the hosts that hold most members of the group."""

    name: ClassVar[str] = "ServerGroupSoftAffinityWeigher"
    option: ClassVar[str] = "soft_affinity_weight_multiplier"
    policy: ClassVar[str] = "soft-affinity"
    group_factor: ClassVar[float] = 1.0


class ServerGroupSoftAntiAffinityWeigher(_SoftPolicyWeigher):
    """Prefers the hosts that hold fewest members of the group."""

    name: ClassVar[str] = "ServerGroupSoftAntiAffinityWeigher"
    option: ClassVar[str] = "soft_anti_affinity_weight_multiplier"
    policy: ClassVar[str] = "soft-anti-affinity"
    group_factor: ClassVar[float] = -1.0
