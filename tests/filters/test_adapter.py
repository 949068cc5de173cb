"""Filters that a user wrote for Nova."""

from typing import Any

import pytest

from hostler.placement.filters.adapter import NovaFilterAdapter, nova_request_spec
from hostler.placement.filters.host_attributes import FIELDS
from hostler.placement.types.errors import UnknownName
from hostler.placement.types.host import PciPool
from hostler.placement.types.options import Options
from hostler.placement.types.request import Destination, PciRequest, Request, ServerGroup

from .values import aggregate, host, request


class RackFilter:
    """Keeps a project on its rack."""

    run_filter_once_per_request = True
    RUN_ON_REBUILD = True
    reads: tuple[str, ...] = ("stats", "hypervisor_hostname")

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        return bool(host_state.stats.get("rack") == spec_obj.project_id)


class CuriousFilter:
    """Reads whatever Nova's filters read."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        self.seen = {
            "service": host_state.service["disabled"],
            "metrics": {metric.name: metric.value for metric in host_state.metrics},
            "node": (host_state.host, host_state.nodename, host_state.hypervisor_hostname),
            "aggregates": [
                (a.name, a.metadata.get("tier"), a.availability_zone, a.hosts) for a in host_state.aggregates
            ],
            "pools": host_state.pci_stats.pools,
            "limits": host_state.limits,
            "instances": list(host_state.instances),
        }
        return False


def adapted(nova_class: type[Any]) -> NovaFilterAdapter:
    return NovaFilterAdapter.of(nova_class)(Options())


def test_an_adapted_filter_judges_like_the_original() -> None:
    judge = adapted(RackFilter)
    assert judge.host_passes(host(stats={"rack": "p1"}), request(project_id="p1"))
    assert not judge.host_passes(host(stats={"rack": "p2"}), request(project_id="p1"))


def test_an_adapted_filter_has_the_originals_name_and_switches() -> None:
    rack, curious = NovaFilterAdapter.of(RackFilter), NovaFilterAdapter.of(CuriousFilter)
    assert (rack.name, rack.once_per_request, rack.runs_on_rebuild) == ("RackFilter", True, True)
    assert (curious.name, curious.once_per_request, curious.runs_on_rebuild) == ("CuriousFilter", False, False)
    assert adapted(RackFilter).reason(host(), request()) == f"refused by {RackFilter.__module__}.RackFilter"


def test_a_filter_reads_every_field_unless_it_says_which() -> None:
    assert adapted(RackFilter).fields(request()) == {"stats", "nodename"}
    assert adapted(CuriousFilter).fields(request()) == FIELDS


def test_every_field_is_one_that_hosts_have() -> None:
    for field in FIELDS:
        assert hasattr(host(), field)


def test_a_filter_that_says_it_reads_a_field_that_no_host_has_is_an_error() -> None:
    class WrongFilter(RackFilter):
        reads = ("stat",)

    with pytest.raises(UnknownName, match="stats"):
        adapted(WrongFilter)


def test_the_host_state_has_novas_attributes() -> None:
    judge = adapted(CuriousFilter)
    of = host(
        metrics={"cpu.percent": 7},
        aggregates=(aggregate("fast", tier="gold", availability_zone="az1"),),
        pci_pools=(PciPool(count=2, numa_node=0, tags={"vendor_id": "8086"}),),
        instances={"i1": {}},
    )
    assert not judge.host_passes(of, request())
    assert judge._nova_filter.seen == {
        "service": False,
        "metrics": {"cpu.percent": 7},
        "node": ("h1", "n1", "n1"),
        "aggregates": [("fast", "gold", "az1", ["h1"])],
        "pools": [{"vendor_id": "8086", "numa_node": 0, "count": 2}],
        "limits": {},
        "instances": ["i1"],
    }


def test_the_request_spec_has_novas_attributes() -> None:
    spec = nova_request_spec(
        request(
            extra_specs={"tier": "gold"},
            image="image-1",
            properties={"os_distro": "ubuntu"},
            hints={"one": ("a",), "two": ("a", "b")},
            server_group=ServerGroup(
                uuid="g1", policy="anti-affinity", max_server_per_host=2, members=frozenset({"i1"})
            ),
            instance_uuids=("own", "i1"),
        )
    )
    assert spec.flavor.extra_specs == {"tier": "gold"}
    assert (spec.flavor.name, spec.memory_mb, spec.vcpus) == ("m1.small", 512, 1)
    assert "extra_specs" in spec.flavor
    assert (spec.image.id, spec.image.properties.os_distro) == ("image-1", "ubuntu")
    assert spec.image.properties.get("os_type", "linux") == "linux"
    assert "os_type" not in spec.image.properties
    assert "disk_format" not in spec.image
    assert spec.get_scheduler_hint("one") == "a"
    assert spec.get_scheduler_hint("two") == ["a", "b"]
    assert spec.get_scheduler_hint("three", "none") == "none"
    assert (spec.num_instances, spec.instance_uuid) == (2, "own")
    assert (spec.instance_group.policy, spec.instance_group.rules) == ("anti-affinity", {"max_server_per_host": 2})
    assert spec.ignore_hosts is spec.force_hosts is spec.requested_destination is spec.pci_requests is None


def test_the_request_spec_tells_the_destination_and_the_devices() -> None:
    plain = request()
    moved = Request(
        spec=type(plain.spec)(
            flavor=plain.flavor,
            requested_destination=Destination(host="h2", cell_uuid="c1"),
            pci_requests=(PciRequest(count=1, spec=({"vendor_id": "8086"},)),),
            force_hosts=("h2",),
        ),
        server_group="g1",
    )
    spec = nova_request_spec(moved)
    assert (spec.requested_destination.host, spec.requested_destination.cell.uuid) == ("h2", "c1")
    assert spec.pci_requests.requests[0].count == 1
    assert spec.force_hosts == ["h2"]
    assert (spec.image.id, spec.instance_uuid, spec.num_instances, spec.instance_group.uuid) == (None, None, 1, "g1")
