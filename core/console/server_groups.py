"""``hostler server-group``: groups whose members are placed together, or apart."""

from __future__ import annotations

import uuid as uuids
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter
from cyclopts.validators import Number

from .remote import LOCAL, Remote

server_group = cyclopts.App(name="server-group", help="Server groups: guests that are placed together, or apart.")

Policy = Literal["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"]


@server_group.command(name="list")
def list_groups(
    *,
    project: Annotated[str | None, Parameter(help="of this project")] = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 100,
    after: Annotated[str | None, Parameter(help="go on behind this uuid")] = None,
    remote: Remote = LOCAL,
) -> int:
    """Server groups in the order of their uuids, as far as you may see them."""
    return remote.listed(
        remote.ask("server_groups", {"project": project, "limit": limit, "after": after}),
        ["uuid", "policy", "most on a host", "project", "members"],
        lambda each: [each.uuid, each.policy, each.max_server_per_host, each.project_id, each.members],
        page=limit,
        by="uuid",
    )


@server_group.command(name="create")
def create_group(
    policy: Policy,
    *,
    project: Annotated[str, Parameter(help="that it is for; that of its members if left out")] = "",
    uuid: Annotated[str | None, Parameter(help="made if left out")] = None,
    most: Annotated[int, Parameter(name="--max-server-per-host", validator=Number(gte=1))] = 1,
    remote: Remote = LOCAL,
) -> int:
    """Keep a server group. Guests join it as they are placed: hostler place --group UUID."""
    made = uuid if uuid is not None else str(uuids.uuid4())
    values = {"uuid": made, "policy": policy, "max_server_per_host": most, "project_id": project}
    return remote.do("add_server_group", values, f"server group {made} created")


@server_group.command(name="delete")
def delete_group(uuid: str, *, remote: Remote = LOCAL) -> int:
    """Delete a server group. Its members stay where they are, and belong to no group."""
    return remote.do("remove_server_group", {"uuid": uuid}, f"server group {uuid} deleted")
