"""Nova's objects become Hostler's values: what filters and weighers read, and nothing that would have to be loaded."""

from __future__ import annotations

import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from hostler.drivers.openstack.nova.hosts import host_of, service_of
from hostler.drivers.openstack.nova.requests import NotModelled, request_of
from hostler.placement.types.host import PciPool

from .nova_objects import NOW, Versioned, aggregate, flavor, host_state, instance_uuid, request_spec


def asked(**changes: Any) -> Any:
    return request_of(request_spec(**changes), [instance_uuid(1)], alternates=2, now=5.0)


def test_a_host_state_is_a_host_with_its_figures_and_its_service() -> None:
    host = host_of(host_state(1, free_ram_mb=-512, num_io_ops=3, aggregates=[aggregate(2, ssd="true"), aggregate(1)]))
    assert (host.host, host.free_ram_mb, host.num_io_ops) == ("compute1", -512, 3)
    assert [each.name for each in host.aggregates] == ["aggregate 1", "aggregate 2"]
    assert host.service.last_seen_up == NOW.timestamp()


def test_a_time_without_a_zone_is_utc() -> None:
    naive = datetime.datetime(2026, 1, 1, 12, 0)
    assert service_of({"last_seen_up": naive}).last_seen_up == NOW.timestamp()


def test_images_of_instances_are_read_only_on_request() -> None:
    properties = Versioned(hw_architecture="x86_64")
    instance = SimpleNamespace(image_meta=Versioned(properties=properties))
    state = host_state(1, instances={instance_uuid(1): instance})
    assert host_of(state).instances == {instance_uuid(1): {}}
    assert host_of(state, read_images=True).instances == {instance_uuid(1): {"hw_architecture": "x86_64"}}


def test_numa_cells_and_devices_are_taken() -> None:
    page = Versioned(size_kb=4, total=100, used=1, reserved=2)
    cell = Versioned(
        **{"id": 0, "cpuset": {0, 1}, "pcpuset": {2, 3}, "memory": 1024, "cpu_usage": 1, "memory_usage": 512},
        **{"pinned_cpus": {2}, "siblings": [{2, 3}], "mempages": [page], "socket": 1},
        network_metadata=Versioned(physnets={"physnet0"}, tunneled=True),
    )
    pool = {"count": 2, "numa_node": 0, "vendor_id": "8086", "product_id": "10fb", "dev_type": "type-VF"}
    state = host_state(1, numa_topology=Versioned(cells=[cell]), pci_stats=SimpleNamespace(pools=[pool]))
    host = host_of(state)
    assert host.numa_topology is not None
    (found,) = host.numa_topology.cells
    assert found.pcpuset == {2, 3}
    assert found.pinned_cpus == {2}
    assert (found.mempages[0].reserved, found.socket) == (2, 1)
    assert found.network_metadata is not None
    assert found.network_metadata.physnets == {"physnet0"}
    tags = {"vendor_id": "8086", "product_id": "10fb", "dev_type": "type-VF"}
    assert host.pci_pools == (PciPool(count=2, numa_node=0, tags=tags),)


def test_a_request_keeps_what_the_prefilters_made_of_it() -> None:
    request = asked(flavor=flavor(swap=512, extra_specs={"hw:cpu_policy": "shared"}), ignore_hosts=["compute9"])
    assert (request.spec.prepare, request.flavor.swap, request.spec.ignore_hosts) == (False, 512, ("compute9",))
    assert (request.alternates, request.now, request.instance_uuids) == (2, 5.0, (instance_uuid(1),))


def test_fields_that_are_unset_are_not_loaded() -> None:
    request = asked()
    assert (request.image, request.server_group, request.spec.requested_destination) == (None, None, None)


def test_hints_groups_destinations_and_request_groups_are_taken() -> None:
    port = Versioned(resources={"NET_BW_EGR_KILOBIT_PER_SEC": 100}, requester_id="port", use_same_provider=True)
    group = Versioned(
        uuid="group", policy="anti-affinity", _rules={"max_server_per_host": "2"}, members=["a"], hosts=["compute1"]
    )
    request = asked(
        scheduler_hints={"same_host": [instance_uuid(7)], "group": ["group"]},
        instance_group=group,
        requested_destination=Versioned(cell=Versioned(uuid="cell"), allow_cross_cell_move=True, host=None),
        requested_resources=[port],
        request_level_params=Versioned(root_required={"OWNER_NOVA"}, same_subtree=[["port"]]),
    )
    assert request.scheduler_hints["same_host"] == (instance_uuid(7),)
    assert (request.server_group.policy, request.server_group.max_server_per_host) == ("anti-affinity", 2)
    assert request.spec.requested_destination.cell_uuid == "cell"
    assert request.spec.requested_resources[0].requester_id == "port"
    assert request.spec.request_level_params.same_subtree == (("port",),)


def test_a_field_of_a_newer_nova_is_not_modelled_unless_it_is_empty() -> None:
    class Newer(type(request_spec())):  # type: ignore[misc]  # the class of a double
        fields = (*type(request_spec()).fields, "requested_gravity")

    values = {"flavor": flavor(), "project_id": "project"}
    request_of(Newer(**values, requested_gravity=None), [instance_uuid(1)], alternates=0, now=1.0)
    with pytest.raises(NotModelled, match="requested_gravity") as raised:
        request_of(Newer(**values, requested_gravity=2), [instance_uuid(1)], alternates=0, now=1.0)
    assert raised.value.field == "request_field"
