"""Hosts that a request selects by name: destination, ignored and forced hosts. Source: Nova 33
HostManager.get_filtered_hosts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..fleet.fleet import Fleet
from ..types.request import RequestSpec


def names_hosts(spec: RequestSpec) -> bool:
    """True if the spec narrows the hosts by name."""
    destination = spec.requested_destination
    wanted = destination is not None and destination.host is not None
    return bool(wanted or spec.ignore_hosts or spec.force_hosts or spec.force_nodes)


def names_targets(spec: RequestSpec) -> bool:
    """True if the Placement query depends on the existing hosts with given names."""
    destination = spec.requested_destination
    wanted = destination is not None and (destination.host is not None or destination.node is not None)
    return bool(wanted or spec.force_hosts or spec.force_nodes)


def skips_filters(spec: RequestSpec) -> bool:
    """Forced hosts or nodes skip all filters, unless the request is only a check (hint ``_nova_check_type``)."""
    return bool(spec.force_hosts or spec.force_nodes) and "_nova_check_type" not in spec.scheduler_hints


def selected(fleet: Fleet, spec: RequestSpec, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Mask of the ``rows`` (hosts) that remain.

    In this order: keep the destination's host (exact name, and node if given); drop ignored hosts (ignoring case); keep
    forced hosts (ignoring case); keep forced nodes (exact). O(rows).
    """
    keep = np.ones(len(rows), bool)
    destination = spec.requested_destination
    if destination is not None and destination.host is not None:
        named = fleet.rows_of_service_host(destination.host)
        if destination.node:
            named = [row for row in named if fleet.name(row) == destination.node]
        keep &= np.isin(rows, named)
    if spec.ignore_hosts:
        keep &= ~_named(fleet, spec.ignore_hosts, rows, keep)
    if spec.force_hosts:
        keep &= _named(fleet, spec.force_hosts, rows, keep)
    if spec.force_nodes:
        keep &= np.isin(rows, [row for name in spec.force_nodes if (row := fleet.names.find(name)) >= 0])
    return keep


def _named(
    fleet: Fleet, names: tuple[str, ...], rows: NDArray[np.int32], among: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Rows whose service host is one of ``names`` in any case."""
    named = fleet.nodes.rows_in_any_case(names, fleet.topology_epoch)
    found: NDArray[np.bool_] = among & np.isin(rows, np.array(named, np.int32))
    return found
