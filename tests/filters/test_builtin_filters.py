"""The list of Nova's filters."""

import pytest

from hostler.placement.filters import BUILTIN_FILTERS

# name: judged once per request, judged on rebuild (nova.md section 4)
NOVA = {
    "AggregateImagePropertiesIsolation": (True, True),
    "AggregateInstanceExtraSpecsFilter": (True, False),
    "AggregateIoOpsFilter": (False, False),
    "AggregateMultiTenancyIsolation": (True, False),
    "AggregateNumInstancesFilter": (False, False),
    "AggregateTypeAffinityFilter": (True, False),
    "AllHostsFilter": (True, False),
    "ComputeCapabilitiesFilter": (True, False),
    "ComputeFilter": (True, False),
    "DifferentHostFilter": (True, False),
    "ImagePropertiesFilter": (True, True),
    "IoOpsFilter": (False, False),
    "IsolatedHostsFilter": (True, True),
    "JsonFilter": (False, False),
    "MetricsFilter": (False, False),
    "NUMATopologyFilter": (False, False),
    "NumInstancesFilter": (False, False),
    "PciPassthroughFilter": (False, False),
    "SameHostFilter": (True, False),
    "ServerGroupAffinityFilter": (False, False),
    "ServerGroupAntiAffinityFilter": (False, False),
    "SimpleCIDRAffinityFilter": (True, False),
}


def test_all_of_novas_filters_are_there() -> None:
    assert BUILTIN_FILTERS.keys() == NOVA.keys()


@pytest.mark.parametrize(("name", "switches"), NOVA.items())
def test_a_filter_is_judged_once_or_on_rebuild_as_in_nova(name: str, switches: tuple[bool, bool]) -> None:
    builtin = BUILTIN_FILTERS[name]
    assert builtin.name == name
    assert (builtin.once_per_request, builtin.runs_on_rebuild) == switches
