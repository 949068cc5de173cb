"""The question which server groups are kept, and its answer."""

from __future__ import annotations

import msgspec
import numpy as np

from ...ext.constants import NOT_INSTANCE
from ...ext.fleet_state import consumers
from ...placement.fleet.server_groups import GROUP_POLICIES
from ..tenancy.rights import project_scope
from ..tenancy.tenants import CLOUD, RANK
from .question import Page, Query
from .state import ServiceState

_POLICY_OF = {number: name for name, number in GROUP_POLICIES.items()}


class ServerGroups(Query, frozen=True):
    """Server groups that are kept, in the order of their uuids, behind the one named ``after``; of a ``project`` where
    it is given. Readers of the cloud see all, others those of projects that they may read."""

    project: str | None = None
    after: str | None = None
    limit: Page = 1_000


class ServerGroupLine(msgspec.Struct, frozen=True):
    """A server group: its project (empty: it has none, or members of several) and its number of members."""

    uuid: str
    policy: str
    max_server_per_host: int
    project_id: str
    members: int


def server_groups(state: ServiceState, user: str, query: ServerGroups) -> list[ServerGroupLine]:
    """The answer. NotAllowed for a project that the user may not read. O(groups log groups + instances), the latter
    vectorised."""
    fleet, tenants = state.fleet, state.tenants
    if query.project is not None:
        tenants.require(user, "reader", project_scope(query.project))
    everything = tenants.role(user, CLOUD) >= RANK["reader"]
    found = consumers(fleet._kernel)
    instances = (found["row"] >= 0) & (found["flags"] & NOT_INSTANCE == 0)
    groups = found["group"][instances & (found["group"] >= 0)]
    members = np.bincount(groups, minlength=len(fleet._group_uuids))
    lines: list[ServerGroupLine] = []
    for uuid in sorted(fleet._groups):
        if query.after is not None and uuid <= query.after:
            continue
        project = state.group_project(uuid) or ""
        if query.project not in (None, project):
            continue
        if not everything and (not project or tenants.role(user, project_scope(project)) < RANK["reader"]):
            continue
        index = fleet._groups[uuid]
        policy, most = fleet._kernel.group_policy(index)
        lines.append(ServerGroupLine(uuid, _POLICY_OF[policy], most, project, int(members[index])))
        if len(lines) == query.limit:
            break
    return lines
