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


def named_rows(fleet: Fleet, spec: RequestSpec) -> tuple[set[int] | None, set[int]]:
    """Rows of the nodes that the spec keeps (None: all), and of those that it drops all the same.

    It keeps the destination's host (exact name, and node if given), the forced hosts (ignoring case) and the forced
    nodes (exact), and drops the ignored hosts (ignoring case). O(names).
    """
    kept: set[int] | None = None
    destination = spec.requested_destination
    if destination is not None and destination.host is not None:
        named = fleet._rows_of_service_host(destination.host)
        kept = {row for row in named if not destination.node or fleet.name(row) == destination.node}
    if spec.force_hosts:
        forced = _in_any_case(fleet, spec.force_hosts)
        kept = forced if kept is None else kept & forced
    if spec.force_nodes:
        forced = {row for name in spec.force_nodes if (row := fleet._names.find(name)) >= 0}
        kept = forced if kept is None else kept & forced
    return kept, _in_any_case(fleet, spec.ignore_hosts) if spec.ignore_hosts else set()


def selected(fleet: Fleet, spec: RequestSpec, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Mask of the ``rows`` (hosts) that remain. O(rows)."""
    kept, dropped = named_rows(fleet, spec)
    keep = np.ones(len(rows), bool) if kept is None else np.isin(rows, np.array(sorted(kept), np.int32))
    return keep & ~np.isin(rows, np.array(sorted(dropped), np.int32)) if dropped else keep


def _in_any_case(fleet: Fleet, names: tuple[str, ...]) -> set[int]:
    """Rows whose service host is one of ``names`` in any case."""
    return set(fleet._nodes.rows_in_any_case(names, fleet._topology_epoch))
