"""``hostler status``, ``watch`` and ``snapshot``: the service itself."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ..tenancy.errors import NotAllowed, NotAuthenticated
from .remote import LOCAL, Remote

watch = cyclopts.App(name="watch", help="What happens, as it happens, until Ctrl-C.")
backup = cyclopts.App(name="backup", help="Copy the running service's state into a new folder.")
status = cyclopts.App(name="status", help="Whether the service takes commands. Exit code 4: it does not.")
snapshot = cyclopts.App(name="snapshot", help="Take a snapshot of the service's state now.")

Kind = Literal["decisions", "refusals", "changes", "capacity"]
NOT_READY: Final = 4
"""Exit code where the service takes no commands, as where it is not there."""
KINDS: Final = ("decisions", "refusals", "changes")


@watch.default
def watch_events(
    *kinds: Kind,
    project: str | None = None,
    after: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    seconds: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    remote: Remote = LOCAL,
) -> int:
    """Print events of KINDS: decisions, refusals, changes (these three by default), capacity; from now on, or all AFTER
    a command, as far as the service keeps them. Ends when no event has arrived for SECONDS."""
    with remote.client() as client, suppress(KeyboardInterrupt):
        client.call("watch", {"kinds": kinds or KINDS, "project": project, "after": after})
        for event in client.events(seconds):
            if remote.as_json:
                sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
            else:
                placed = ", ".join(f"{uuid} on {host}" for uuid, host in (event.hosts | event.backends).items())
                figures = ", ".join(f"{name} {each.used}/{each.total}" for name, each in event.capacity.items())
                gap = "earlier events are no longer available" if event.kind == "gap" else ""
                what = placed or event.sentence or ", ".join((*event.instances, *event.volumes)) or figures or gap
                print(f"{event.sequence} {event.kind} {event.user} {event.command} {what}".rstrip())
            sys.stdout.flush()
    return 0


@backup.default
def back_up(folder: Path, *, remote: Remote = LOCAL) -> int:
    """Copy the running service's state into a new FOLDER on its machine, from which a service can be started."""
    sequence = remote.ask("backup", {"folder": str(folder.absolute())})
    shown = {"sequence": sequence, "folder": str(folder)}
    remote.show(shown) if remote.as_json else print(f"backup of command {sequence} in {folder}")
    return 0


@status.default
def show_status(*, remote: Remote = LOCAL) -> int:
    """State of the service, your identity there and, for readers of the cloud, its capacity and usage."""
    from .hosts import capacity_lines

    with remote.client() as client:
        found = client.call("status")
        try:
            capacity = client.call("capacity") if found.ready else {}
        except (NotAllowed, NotAuthenticated):
            capacity = {}
    if remote.as_json:
        remote.show({**msgspec.to_builtins(found), "capacity": capacity})
    else:
        rows = [[name.replace("_", " "), getattr(found, name)] for name in found.__struct_fields__]
        remote.lines(["", remote.server], rows)
        if capacity:
            remote.lines(*capacity_lines(capacity))
    return 0 if found.ready else NOT_READY


@snapshot.default
def take_snapshot(*, remote: Remote = LOCAL) -> int:
    """Take a snapshot, and wait until it is complete."""
    sequence = remote.ask("snapshot")
    remote.show({"sequence": sequence}) if remote.as_json else print(f"snapshot of command {sequence} taken")
    return 0
