"""``hostler shadow``: what the shadow policy would have decided otherwise."""

from __future__ import annotations

from typing import Annotated, Any, Final

import cyclopts
from cyclopts import Parameter

from .remote import LOCAL, Remote

shadow = cyclopts.App(name="shadow", help="How another policy would have decided.")
OUTCOMES: Final = {
    "same": "the same",
    "elsewhere": "on another host",
    "only_live": "refused by the shadow policy only",
    "only_shadow": "placed by the shadow policy only",
    "passed_over": "not compared",
}


@shadow.command(name="status")
def shadow_status(
    *, limit: Annotated[int, Parameter(help="last differences to show, at most 200")] = 20, remote: Remote = LOCAL
) -> int:
    """Requests by how the shadow policy (``shadow_policy`` of the configuration) would have decided, and the last
    differences. With --json also the explanations of some."""
    found = remote.ask("shadow_status", {"limit": limit})
    if remote.as_json:
        remote.show(found)
        return 0
    state = f"{found.behind} commands behind" if found.running else "not running"
    print(f"shadow policy {found.policy[:12]}, {state}, restarts: {found.restarts}")
    for name, meaning in OUTCOMES.items():
        print(f"{getattr(found.counts, name):>12,} {meaning}")
    if found.differences:
        rows = [[each.sequence, each.position, _hosts(each.live), _hosts(each.shadow)] for each in found.differences]
        remote.lines(["command", "request", "live", "shadow"], rows)
    return 0


def _hosts(names: Any) -> str:
    return ", ".join(names) or "refused"
