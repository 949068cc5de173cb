"""``hostler regions``: the regions that a service is the parent of."""

from __future__ import annotations

import cyclopts

from .remote import LOCAL, Remote

regions = cyclopts.App(
    name="regions", help="The regions that the service is the parent of: which answer, and what is free."
)


@regions.default
def show_regions(*, remote: Remote = LOCAL) -> int:
    """The regions in the order of the configuration: whether they answer, the age of their summaries in milliseconds,
    what is free by those (memory in MiB, disk in GiB), and what became of requests since the parent started."""
    return remote.table(remote.ask("regions"))
