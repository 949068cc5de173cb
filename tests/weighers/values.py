"""Short ways to hosts and requests, and the strategies for the properties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from hostler.placement.types.host import Aggregate, Host, PciPool
from hostler.placement.types.options import Options
from hostler.placement.types.request import Destination, Flavor, Image, Request, RequestSpec, ServerGroup
from hostler.placement.weighers import BUILTIN_WEIGHERS
from hostler.placement.weighers.base import Weigher


def host(**changes: Any) -> Host:
    """A host of 8 vCPUs and 4 GiB with these fields changed."""
    return replace(Host(host="h1", nodename="n1", vcpus_total=8, total_usable_ram_mb=4096), **changes)


def aggregate(**metadata: str) -> Aggregate:
    return Aggregate(uuid=f"uuid-{sorted(metadata.items())}", name="a", metadata=metadata)


def in_aggregates(*all_metadata: Mapping[str, str]) -> Host:
    """A host that is in one aggregate for each of ``all_metadata``."""
    return host(aggregates=tuple(aggregate(**metadata) for metadata in all_metadata))


def request(
    *,
    properties: Mapping[str, Any] | None = None,
    destination: Destination | None = None,
    group: ServerGroup | str | None = None,
) -> Request:
    """A request for one small guest."""
    image = None if properties is None else Image(properties=properties)
    flavor = Flavor(name="m1.small", vcpus=1, memory_mb=512)
    spec = RequestSpec(flavor=flavor, image=image, requested_destination=destination)
    return Request(spec=spec, server_group=group)


def group(policy: str, *members: str) -> ServerGroup:
    return ServerGroup(uuid="g", policy=policy, members=frozenset(members))


def holding(*uuids: str, **properties: Any) -> Host:
    """A host with these instances, all of an image with ``properties``."""
    return host(instances=dict.fromkeys(uuids, properties))


def weigher(name: str, **groups: Mapping[str, Any]) -> Weigher:
    """A weigher with these options: group -> option -> value."""
    return BUILTIN_WEIGHERS[name](Options.from_mapping(groups))


HOME = Destination(cell_uuid="home", allow_cross_cell_move=True)

few = st.integers(-3, 9)
hosts = st.builds(
    Host,
    host=st.sampled_from(("h1", "h2")),
    vcpus_total=st.integers(1, 8),
    vcpus_used=st.integers(0, 40),
    cpu_allocation_ratio=st.sampled_from((1.0, 1.5, 4.0, 0.1)),
    total_usable_ram_mb=st.just(4096),
    free_ram_mb=few,
    free_disk_mb=few,
    num_io_ops=few,
    num_instances=few,
    failed_builds=few,
    hypervisor_version=st.none() | few,
    cell_uuid=st.sampled_from(("home", "away", None)),
    metrics=st.dictionaries(st.sampled_from(("a", "b")), st.integers(-5, 5)),
    instances=st.dictionaries(st.sampled_from("uvwx"), st.sampled_from(({}, {"os_distro": "rhel"}))),
    pci_pools=st.lists(st.builds(PciPool, count=st.integers(0, 60)), max_size=3).map(tuple),
    aggregates=st.lists(
        st.dictionaries(
            st.sampled_from([built.option for built in BUILTIN_WEIGHERS.values()]),
            st.sampled_from(("0", "-2", "1.5", "oops", "nan")),
        ).map(lambda metadata: aggregate(**metadata)),
        max_size=2,
    ).map(tuple),
)
requests = st.builds(
    request,
    properties=st.sampled_from((None, {}, {"os_distro": "rhel"})),
    destination=st.sampled_from((None, HOME, Destination(cell_uuid="home"))),
    group=st.sampled_from((None, group("soft-affinity", "u", "v"), group("soft-anti-affinity", "v", "w"))),
)
options = st.sampled_from(
    [
        Options.from_mapping({"metrics": {"required": False, **metrics}, "filter_scheduler": weighed})
        for metrics in ({}, {"weight_setting": "a=0.5,b=-2"})
        for weighed in ({}, {"image_props_weight_multiplier": 3, "ram_weight_multiplier": -1})
    ]
)
