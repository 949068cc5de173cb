"""``hostler guest``: which guests there are."""

from __future__ import annotations

from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from cyclopts.validators import Number

from .guest_lives import add_commands
from .remote import LOCAL, Remote

guest = cyclopts.App(name="guest", help="List and show guests, and have back ends carry them out.")
add_commands(guest)


@guest.command(name="list")
def list_guests(
    *,
    project: Annotated[str | None, Parameter(help="of this project")] = None,
    node: Annotated[str | None, Parameter(help="on the host with this node name")] = None,
    user: Annotated[str | None, Parameter(help="of this user")] = None,
    group: Annotated[str | None, Parameter(help="in the server group with this uuid")] = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 100,
    after: Annotated[str | None, Parameter(help="go on behind this uuid")] = None,
    remote: Remote = LOCAL,
) -> int:
    """Guests in the order of their uuids, as far as you may see them."""
    wanted = {"project": project, "node": node, "user": user, "server_group": group}

    def row(line: Any) -> list[Any]:
        holds = [f"{amount} {name}" for name, amount in line.resources.items()]
        state = "building" if line.building else "built"
        return [line.uuid, line.node, line.project_id, line.user_id, line.server_group, state, holds]

    found = remote.ask("instances", {**wanted, "limit": limit, "after": after})
    head = ["uuid", "node", "project", "user", "server group", "state", "holds"]
    return remote.listed(found, head, row, page=limit, by="uuid")


@guest.command(name="show")
def show_guest(uuid: str, *, remote: Remote = LOCAL) -> int:
    """One guest in full."""
    found = remote.ask("instance", {"uuid": uuid})
    if remote.as_json:
        remote.show(found)
        return 0
    holds = [f"{amount} {name}" for name, amount in found.resources.items()]
    for provider, amounts in found.elsewhere.items():
        holds += [f"{amount} {name} of {provider}" for name, amount in amounts.items()]
    rows = [
        ["node", found.node],
        ["project", found.project_id],
        ["user", found.user_id],
        ["server group", found.server_group],
        ["state", "building" if found.building else "built"],
        ["holds", holds],
    ]
    remote.lines(["", found.uuid], rows)
    return 0
