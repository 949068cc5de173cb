"""What a compute node reports of itself at one time, and what became of reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from .host import Host, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """A complete report of one host: ``host`` as it was ``at`` a time (seconds since the epoch).

    It replaces what is known of the host: totals, ratios, reserved amounts, figures, hypervisor, cpu_info,
    supported_instances, stats, metrics, NUMA cells, PCI pools, address, cell, aggregates, service host and the guests.
    ``host.nodename`` (or the uuid) says which host it is; one that is not known is added, a provider of the same uuid
    or name becomes a host. Traits stay where ``host.traits`` is empty, and the compute service stays as it is where
    ``service`` is None: both have other sources. ``includes``: uuids of the consumers that the figures count; None:
    those of ``host.instances``. ``inventories``: all inventories of the host's own provider by resource class, where
    they are not those that follow from the totals (a bare-metal node); None: they follow, but for classes that were
    written through the Placement API.
    """

    host: Host
    at: float
    includes: frozenset[str] | None = None
    service: Service | None = None
    inventories: Mapping[str, Mapping[str, float]] | None = None


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of reports.

    ``applied`` hosts changed, of which ``added`` were not known or not known as hosts. ``stale``: nodes whose report is
    older than the one that is known, and was left aside. ``expired``: instances whose claims no report has included for
    longer than the claim timeout; they were released. ``drift``: nodes that differ from what their guests take, or
    whose guests no longer fit.
    """

    applied: int
    added: int
    stale: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()
