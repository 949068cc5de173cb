"""``hostler members`` and ``hostler lead``: the cluster that a service is a member of."""

from __future__ import annotations

import cyclopts

from .remote import LOCAL, Remote

members = cyclopts.App(name="members", help="The members of the cluster: who leads, and how far behind the others are.")
lead = cyclopts.App(name="lead", help="Have another member of the cluster lead, without a failed command.")


@members.default
def show_members(*, remote: Remote = LOCAL) -> int:
    """The members that are known: role, last report, and commands that they have not carried out yet."""
    return remote.table(remote.ask("members"))


@lead.default
def hand_over(*, to: str | None = None, remote: Remote = LOCAL) -> int:
    """Have the member TO lead, or the one that is least behind. Commands under way are carried out first."""
    name = remote.ask("lead", {"to": to})
    remote.show({"leader": name}) if remote.as_json else print(f"{name} takes over")
    return 0
