"""A server group as a decision sees it: which rows hold how many members, whether the engine keeps the group or the
caller does."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..fleet.fleet import GROUP_POLICIES, Fleet
from ..fleet.group_members import kept_members, named_members, uuids_of_kept
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
    policy, at_most, _ = fleet._kernel.group(kept)
    members = kept_members(fleet, kept, request.instance_uuids)
    return GroupState(
        group, POLICY_NAMES[policy], at_most, kept, members=members, hosts=set(members), placed=bool(members)
    )


def _supplied(fleet: Fleet, group: ServerGroup) -> GroupState:
    state = GroupState(
        group.uuid, group.policy, group.max_server_per_host, named=group.members, placed=bool(group.hosts)
    )
    state.members = named_members(fleet, group.members)
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
        members=frozenset(uuids_of_kept(fleet, group.kept, group.hosts, request.instance_uuids)),
        hosts=hosts,
    )
    return request.with_changes(server_group=value)
