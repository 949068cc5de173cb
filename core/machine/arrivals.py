"""Guests that come with hosts: added with them, or told by a report. They are charged to their projects like others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, compress

from ...placement.fleet.fleet import Fleet
from ...placement.types.errors import InvalidValue
from ...placement.types.host import Host
from .orders import CHARGING_REPORTED
from .state import ServiceState


def unknown(state: ServiceState, hosts: Iterable[Host]) -> list[str]:
    """Uuids of the guests of hosts that the fleet does not know; none where a uuid is malformed, which is refused, or
    under rules that did not charge them. O(guests)."""
    if state.rules < CHARGING_REPORTED:
        return []
    uuids = list(chain.from_iterable(host.instances for host in hosts))
    try:
        return _those(state.fleet, uuids, there=False)
    except InvalidValue:
        return []


def charge(state: ServiceState, uuids: Sequence[str]) -> None:
    """Count the guests that have come. O(guests)."""
    come = _those(state.fleet, list(dict.fromkeys(uuids)), there=True)
    for project, amounts in state.holdings(come) if come else ():
        state.usage.add(state.tenants, project, amounts)


def _those(fleet: Fleet, uuids: list[str], *, there: bool) -> list[str]:
    return list(compress(uuids, ((fleet._consumers.find(uuids) >= 0) == there).tolist())) if uuids else []


__all__ = ["charge", "unknown"]
