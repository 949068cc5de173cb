"""Filters decide which hosts can take a request. One file per family: Nova 33's 22 filters, and Hostler's own."""

from __future__ import annotations

from typing import Final

from .aggregate_image_properties_isolation import AggregateImagePropertiesIsolation
from .aggregate_instance_extra_specs import AggregateInstanceExtraSpecsFilter
from .aggregate_multitenancy_isolation import AggregateMultiTenancyIsolation
from .aggregate_type_affinity import AggregateTypeAffinityFilter
from .all_hosts import AllHostsFilter
from .base import Filter
from .capabilities import ComputeCapabilitiesFilter
from .cidr import SimpleCIDRAffinityFilter
from .compute import ComputeFilter
from .image_properties import ImagePropertiesFilter
from .instance_affinity import DifferentHostFilter, SameHostFilter
from .io_ops_and_instances import AggregateIoOpsFilter, AggregateNumInstancesFilter, IoOpsFilter, NumInstancesFilter
from .isolated import IsolatedHostsFilter
from .json_query import JsonFilter
from .metrics import MetricsFilter
from .numa import NUMATopologyFilter
from .pci import PciPassthroughFilter
from .server_group import ServerGroupAffinityFilter, ServerGroupAntiAffinityFilter

BUILTIN_FILTERS: Final[dict[str, type[Filter]]] = {
    builtin.name: builtin
    for builtin in (
        AggregateImagePropertiesIsolation,
        AggregateInstanceExtraSpecsFilter,
        AggregateIoOpsFilter,
        AggregateMultiTenancyIsolation,
        AggregateNumInstancesFilter,
        AggregateTypeAffinityFilter,
        AllHostsFilter,
        ComputeCapabilitiesFilter,
        ComputeFilter,
        DifferentHostFilter,
        ImagePropertiesFilter,
        IoOpsFilter,
        IsolatedHostsFilter,
        JsonFilter,
        MetricsFilter,
        NUMATopologyFilter,
        NumInstancesFilter,
        PciPassthroughFilter,
        SameHostFilter,
        ServerGroupAffinityFilter,
        ServerGroupAntiAffinityFilter,
        SimpleCIDRAffinityFilter,
    )
}
"""Nova's name of a filter -> its class."""

__all__ = ["BUILTIN_FILTERS", "Filter"]
