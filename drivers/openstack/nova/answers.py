"""Decisions as Nova's Selection objects. Runs inside Nova."""

from __future__ import annotations

import json
from typing import Any

from nova import objects

from ....placement.types.decision import Alternate, NumaLimits, Selection


def selection_of(chosen: Selection | Alternate, version: str | None, *, claimed: bool) -> Any:
    """A chosen host or an alternate. ``version``: microversion of the allocation request; ``claimed``: whether there
    are allocations at all (there are none for the check of a rebuild)."""
    provider = chosen.provider_uuid
    return objects.Selection(
        compute_node_uuid=provider,
        service_host=chosen.host,
        nodename=chosen.node,
        cell_uuid=chosen.cell_uuid,
        limits=objects.SchedulerLimits.from_dict(_limits(chosen.limits)),
        allocation_request=json.dumps(chosen.allocation_request if claimed else None),
        allocation_request_version=version,
        availability_zone=chosen.availability_zone,
    )


def _limits(limits: NumaLimits | None) -> dict[str, Any]:
    if limits is None:
        return {}
    values: dict[str, Any] = {
        "cpu_allocation_ratio": limits.cpu_allocation_ratio,
        "ram_allocation_ratio": limits.ram_allocation_ratio,
    }
    networks = limits.network_metadata
    if networks is not None:
        values["network_metadata"] = objects.NetworkMetadata(
            physnets=set(networks.physnets), tunneled=networks.tunneled
        )
    return {"numa_topology": objects.NUMATopologyLimits(**values)}
