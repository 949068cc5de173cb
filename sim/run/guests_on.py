"""The guests of a host that a run may stop or move: those whose allocations are on it. An instance that stands on a
second host too, as it moves or as both report it, is on one of them only, and of a service host with several nodes each
has its own."""

from __future__ import annotations

from ...ext.constants import NOT_INSTANCE
from ...ext.tables import format_uuid
from ...placement.fleet.fleet import Fleet


def guests_on(fleet: Fleet, host: str) -> list[str]:
    """Uuids of the guests on a host, newest first. O(consumers on it)."""
    consumers = map(fleet._kernel.consumer, fleet._kernel.consumers_on(fleet.row(host)))
    return [format_uuid(high, low) for high, low, *_, flags, _ in consumers if not flags & NOT_INSTANCE]


__all__ = ["guests_on"]
