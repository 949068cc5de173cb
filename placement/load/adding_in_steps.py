"""Thousands of hosts added some at a time, with the outcome that they have together."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import compress
from typing import Final

import numpy as np

from ..fleet.fleet import Fleet
from ..types.errors import HostlerError
from ..types.host import Host, RunningInstance
from ..types.steps import in_pieces
from . import bulk
from .adding import add_hosts, as_reported, providers_of
from .checks import is_running
from .reports import report_hosts

FEW: Final = 64
"""Weight of the hosts that are added in about a millisecond."""
GUESTS: Final = 4
"""Guests that a host comes with that weigh as much as a host, where only their properties are known."""
RUNNING: Final = 1
"""Weight of a guest of which is known what it takes."""
DEVICES: Final = 4
"""Weight of a host's NUMA cells or PCI devices."""


def add_hosts_in_steps(fleet: Fleet, hosts: Sequence[Host], *, adopts: bool = True) -> Generator[None, None, int]:
    """``add_hosts`` in steps of about a millisecond, between which others may read the fleet, which has some of the
    hosts then, and change forks of it. What is refused is undone. Without ``adopts``, as ``bulk.add_hosts``."""
    if sum(map(_weight, hosts[: FEW + 1])) > FEW:
        try:
            return (yield from _in_steps(fleet, hosts, adopts))
        except HostlerError:
            pass  # said below, as of all together
    return add_hosts(fleet, hosts) if adopts else bulk.add_hosts(fleet, hosts)


def _in_steps(fleet: Fleet, hosts: Sequence[Host], adopts: bool) -> Generator[None, None, int]:
    adopts = adopts and len(fleet) != int(np.count_nonzero(fleet.is_host))
    with bulk.all_or_nothing(fleet):
        for chunk in in_pieces(hosts, bulk.CHUNK):
            known: list[bool] = []
            taken, once = set[int](), True
            for some in in_pieces(chunk, FEW) if adopts else ():
                for host in some:
                    rows = providers_of(fleet, host)
                    known.append(bool(rows))
                    once = once and taken.isdisjoint(rows)
                    taken |= rows
                yield
            adopted = list(compress(chunk, known))
            for some in _pieces(adopted) if once else [adopted]:  # together they end as they do at once
                report_hosts(fleet, map(as_reported, some))
                yield
            new = compress(chunk, [not each for each in known]) if known else chunk
            for some in _pieces(list(new)):
                bulk.add_hosts(fleet, some)
                yield
    return len(hosts)


def _weight(host: Host) -> int:
    devices = DEVICES if host.numa_topology is not None or host.pci_pools else 0
    running = sum(isinstance(guest, RunningInstance) or is_running(guest) for guest in host.instances.values())
    return 1 + devices + (len(host.instances) - running) // GUESTS + RUNNING * running


def _pieces(hosts: Sequence[Host]) -> Iterator[Sequence[Host]]:
    """Hosts, in pieces of a weight of about FEW."""
    first = weight = 0
    for position, host in enumerate(hosts, 1):
        weight += _weight(host)
        if weight >= FEW:
            yield hosts[first:position]
            first, weight = position, 0
    if first < len(hosts):
        yield hosts[first:]


__all__ = ["add_hosts_in_steps"]
