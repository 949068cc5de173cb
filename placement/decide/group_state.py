"""A server group as a decision sees it: which rows hold how many members, whether the engine keeps the group or the
caller does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...ext.constants import NOT_INSTANCE
from ...ext.tables import format_uuid
from ..fleet.fleet import GROUP_POLICIES, Fleet
from ..types.request import Request, ServerGroup

POLICY_NAMES = {number: name for name, number in GROUP_POLICIES.items()}


@dataclass(slots=True)
class GroupState:
    """``members``: row -> members on its service host; ``hosts``: rows whose service host the group is on; ``placed``:
    it is on some host, maybe one that is not known here. ``members`` changes through ``join`` once ``full`` was
    read."""

    uuid: str
    policy: str
    at_most: int
    kept: int = -1
    named: frozenset[str] = frozenset()
    members: dict[int, int] = field(default_factory=dict)
    hosts: set[int] = field(default_factory=set)
    placed: bool = False
    _full: set[int] | None = None

    @property
    def full(self) -> set[int]:
        """Rows with as many members as an anti-affinity group may have on a host. O(members) once, then O(1)."""
        if self._full is None:
            self._full = {row for row, members in self.members.items() if members >= self.at_most}
        return self._full

    def join(self, fleet: Fleet, row: int, instance_uuid: str) -> None:
        """An instance of the request was placed on ``row``: it counts if it is a member (Nova 33: members and
        host.instances)."""
        siblings = fleet._rows_of_service_host(fleet._service_host(row))
        self.hosts.update(siblings)
        self.placed = True
        if self.kept >= 0 or instance_uuid in self.named:
            for sibling in siblings:
                self.members[sibling] = self.members.get(sibling, 0) + 1
                if self._full is not None and self.members[sibling] >= self.at_most:
                    self._full.add(sibling)


def group_state(fleet: Fleet, request: Request) -> GroupState | None:
    """The request's server group; UnknownName if it names one that the engine does not keep. O(members)."""
    group = request.server_group
    if group is None:
        return None
    if isinstance(group, ServerGroup):
        return _supplied(fleet, group)
    kept = fleet._group_id(group)
    policy, at_most, rows = fleet._kernel.group(kept)
    state = GroupState(group, POLICY_NAMES[policy], at_most, kept, placed=bool(rows))
    if not fleet._shared_service_hosts:
        state.members, state.hosts = rows, set(rows)
        return state
    for row, members in rows.items():
        for sibling in fleet._rows_of_service_host(fleet._service_host(row)):
            state.members[sibling] = state.members.get(sibling, 0) + members
            state.hosts.add(sibling)
    return state


def _supplied(fleet: Fleet, group: ServerGroup) -> GroupState:
    state = GroupState(
        group.uuid, group.policy, group.max_server_per_host, named=group.members, placed=bool(group.hosts)
    )
    for uuid in sorted(group.members):
        try:
            consumer = fleet._kernel.consumers.get(uuid)
        except ValueError:
            continue  # a member that is not a uuid is on no host of the fleet
        if consumer >= 0:
            row = fleet._kernel.consumer(consumer)[2]
            for sibling in fleet._rows_of_service_host(fleet._service_host(row)):
                state.members[sibling] = state.members.get(sibling, 0) + 1
    for host in group.hosts:
        state.hosts.update(fleet._rows_of_service_host(host))
    return state


def as_value(fleet: Fleet, group: GroupState | None, request: Request) -> Request:
    """The request with its group as a value, for filters that explain themselves by it. O(consumers on its hosts)."""
    if group is None or isinstance(request.server_group, ServerGroup):
        return request
    hosts = frozenset(fleet._service_host(row) for row in group.hosts)
    value = ServerGroup(
        uuid=group.uuid,
        policy=group.policy,
        max_server_per_host=group.at_most,
        members=frozenset(_kept_members(fleet, group)),
        hosts=hosts,
    )
    return request.with_changes(server_group=value)


def _kept_members(fleet: Fleet, group: GroupState) -> Iterator[str]:
    for row in group.hosts:
        for consumer in fleet._kernel.consumers_on(row):
            high, low, _, _, _, _, kept, flags, _ = fleet._kernel.consumer(consumer)
            if kept == group.kept and not flags & NOT_INSTANCE:
                yield format_uuid(high, low)
