"""``hostler backend`` and ``hostler reconcile``: the back ends that carry out guests, and how that goes."""

from __future__ import annotations

from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from .remote import LOCAL, Remote

backend = cyclopts.App(name="backend", help="Back ends that carry out guests.")
reconcile = cyclopts.App(name="reconcile", help="How guests are brought to what is desired.")


@backend.command(name="list")
def list_backends(*, remote: Remote = LOCAL) -> int:
    """Back ends, whether they may be used, their pools, and their guests by status."""

    def row(line: Any) -> list[Any]:
        guests = [f"{count} {status}" for status, count in line.guests.items()]
        pools = [f"{line.volume_host}#{pool}" for pool in line.pools]
        return [line.name, line.enabled, len(line.nodes), pools, guests, line.reason]

    return remote.listed(remote.ask("backends"), ["name", "enabled", "nodes", "pools", "guests", "reason"], row)


@backend.command(name="check")
def check_backend(name: str, *, remote: Remote = LOCAL) -> int:
    """Have the driver of back end NAME check that it answers."""
    return remote.do("check_backend", {"name": name}, f"back end {name} answers")


@backend.command(name="enable")
def enable_backend(name: str, *, remote: Remote = LOCAL) -> int:
    """Use back end NAME again."""
    return remote.do("set_backend", {"name": name, "enabled": True}, f"back end {name} is enabled")


@backend.command(name="disable")
def disable_backend(
    name: str, *, reason: Annotated[str, Parameter(help="for other operators")] = "", remote: Remote = LOCAL
) -> int:
    """Make no more calls on back end NAME, and place nothing on its nodes; its guests stay."""
    values = {"name": name, "enabled": False, "reason": reason}
    return remote.do("set_backend", values, f"back end {name} is disabled")


@reconcile.command(name="status")
def reconcile_status(*, remote: Remote = LOCAL) -> int:
    """Guests by status, those that are not as desired, and each back end's driver, queue and last problem."""
    found = remote.ask("reconcile_status")
    if remote.as_json:
        remote.show(found)
        return 0
    guests = ", ".join(f"{count} {status}" for status, count in found.guests.items()) or "none"
    print(f"installation {found.installation}: {found.unsettled} guests not as desired; guests: {guests}")
    head = ["back end", "driver", "enabled", "open", "breaker", "queued", "running", "nodes", "strangers", "problem"]
    rows = [
        [b.name, b.driver, b.enabled, b.open, b.breaker, b.queued, b.running, b.nodes, b.strangers, b.problem]
        for b in found.backends
    ]
    remote.lines(head, rows)
    return 0
