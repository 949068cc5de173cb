"""Server groups with a hard policy. Source: Nova 33 ServerGroupAntiAffinityFilter and ServerGroupAffinityFilter.

    anti-affinity   members on the host < max_server_per_host, or the host already holds the instance itself
    affinity        the group has no hosts yet, or the host is one of them

The soft policies are weighers' business.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request, ServerGroup
from .base import Filter, Selection


def group_with(request: Request, policy: str) -> ServerGroup | None:
    """The request's group if it has this policy; a group known only by its uuid is not judged."""
    group = request.server_group
    return group if isinstance(group, ServerGroup) and group.policy == policy else None


class ServerGroupAntiAffinityFilter(Filter):
    """Passes a host with fewer than ``max_server_per_host`` members, and the host that the instance is on (a resize or
    rebuild in place). Several instances asked for at once are new and on no host."""

    name: ClassVar[str] = "ServerGroupAntiAffinityFilter"

    def applies(self, request: Request) -> bool:
        group = group_with(request, "anti-affinity")
        return group is not None and (bool(group.members) or group.max_server_per_host < 1)

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"instances"})

    def key(self, request: Request) -> Hashable:
        group = group_with(request, "anti-affinity")
        return None if group is None else (group.members, group.max_server_per_host, _own(request))

    def selection(self, request: Request) -> Selection | None:
        """Selection form. It has no words for "unless it holds the instance itself": None where that can happen."""
        group = group_with(request, "anti-affinity")
        if group is None or _own(request) is not None or group.max_server_per_host < 1:
            return None
        return Selection(keep=False, instances=group.members, at_least=group.max_server_per_host)

    def host_passes(self, host: HostState, request: Request) -> bool:
        group = group_with(request, "anti-affinity")
        if group is None or _own(request) in host.instances:
            return True
        return _members_on(host, group) < group.max_server_per_host

    def reason(self, host: HostState, request: Request) -> str:
        group = group_with(request, "anti-affinity")
        if group is None:
            return super().reason(host, request)
        held = _members_on(host, group)
        return (
            f"holds {held} member{'' if held == 1 else 's'} of server group {group.uuid}, "
            f"whose policy anti-affinity admits {group.max_server_per_host} per host"
        )


class ServerGroupAffinityFilter(Filter):
    """Passes the hosts that the group is on; every host while it is on none."""

    name: ClassVar[str] = "ServerGroupAffinityFilter"

    def applies(self, request: Request) -> bool:
        return bool(self._hosts(request))

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"host"})

    def key(self, request: Request) -> Hashable:
        return self._hosts(request)

    def selection(self, request: Request) -> Selection | None:
        return Selection(keep=True, hosts=self._hosts(request)) if self.applies(request) else None

    def host_passes(self, host: HostState, request: Request) -> bool:
        hosts = self._hosts(request)
        return not hosts or host.host in hosts

    def reason(self, host: HostState, request: Request) -> str:
        hosts = sorted(self._hosts(request))
        return f"the server group's policy affinity keeps it on {', '.join(hosts[:3])}{', ...' if hosts[3:] else ''}"

    def _hosts(self, request: Request) -> frozenset[str]:
        group = group_with(request, "affinity")
        return frozenset() if group is None else group.hosts


def _own(request: Request) -> str | None:
    """The uuid of the one instance that is asked for."""
    return request.instance_uuids[0] if len(request.instance_uuids) == 1 else None


def _members_on(host: HostState, group: ServerGroup) -> int:
    return len(group.members & host.instances.keys())
