"""Hosts that a command adds to the service's fleet, in steps."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, Final

from ...placement.fleet.fleet import Fleet
from ...placement.load.adding_in_steps import add_hosts_in_steps
from ...placement.types.host import DERIVED, Host
from ...placement.types.steps import in_pieces
from ..engine_commands import AddHosts
from . import arrivals
from .state import ServiceState

READ: Final = 500
"""Hosts that are looked through in one step."""


def add_hosts(state: ServiceState, command: AddHosts, *, checked: bool) -> Generator[None, None, int]:
    """Add hosts, all or none; how many. ``checked``: they are in no aggregate that is a resource pool's, which was not
    looked at in old journals."""
    for some in in_pieces(command.hosts, READ) if checked and state.pools.pools else ():
        state.check_no_pools(aggregate.uuid for host in some for aggregate in host.aggregates)
        yield
    come: list[str] = []
    for some in in_pieces(command.hosts, READ):
        come += arrivals.unknown(state, some)
        yield
    return (yield from arrivals.charged(state, added(state.fleet, command), come))


def added(fleet: Fleet, command: AddHosts) -> Generator[None, None, int]:
    """Add hosts to a fleet of no resource pools."""
    hosts: Sequence[Host] = command.hosts
    if not command.negative_free:
        derived: list[Host] = []
        for some in in_pieces(hosts, READ):
            derived += map(_derived, some)
            yield
        hosts = derived
    return (yield from add_hosts_in_steps(fleet, hosts, adopts=command.negative_free))


def _derived(host: Host) -> Host:
    """The host as version 0.1 took it: -1 in place of what is free meant that it follows from the totals, and functions
    of an SR-IOV card did not exclude each other."""
    changes: dict[str, Any] = {name: DERIVED for name in ("free_ram_mb", "free_disk_mb") if getattr(host, name) == -1}
    if host.pci_pools:
        changes["pci_pools"] = tuple(replace(pool, card=f"{index}") for index, pool in enumerate(host.pci_pools))
    return replace(host, **changes) if changes else host
