"""A cloud that Placement and Nova keep becomes a fleet, and the report names what does not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler import Engine, Flavor, Fleet, InvalidValue, Request, RequestSpec, load_fleet, load_requests
from hostler.core.machine.machine import ServiceMachine
from hostler.drivers.imports.cloud import ImportReport
from hostler.drivers.imports.command import app
from hostler.drivers.openstack.source.databases import SourceFailed
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.fleet.host_view import HostView

from .clouds import CELL, NOW, Cloud, flavor, instance_uuid, node_uuid, versioned

GPU = "eeeeeeee-0000-4000-8000-000000000001"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setattr(time, "time", lambda: NOW)
    return Cloud(tmp_path)


def taken(cloud: Cloud, tmp_path: Path, *options: str) -> tuple[Fleet, dict[str, RequestSpec], ImportReport]:
    """What ``hostler import openstack`` writes and reports."""
    report = tmp_path / "report.json"
    given = list(options) or cloud.options
    app(["openstack", *given, "-o", str(tmp_path / "fleet"), "--report", str(report)], result_action="return_value")
    found = msgspec.json.decode(report.read_bytes(), type=ImportReport)
    return load_fleet(tmp_path / "fleet"), load_requests(tmp_path / "fleet"), found


def view(fleet: Fleet, node: str) -> HostView:
    return HostView(fleet, fleet.row(node))


def reasons(report: ImportReport) -> dict[str, str]:
    return {each.what: each.why for each in report.dropped}


def test_providers_have_the_inventories_traits_and_aggregates_of_placement(cloud: Cloud, tmp_path: Path) -> None:
    root = cloud.host(1, traits=("HW_CPU_X86_VMX", "CUSTOM_FAST"))
    aggregate = "aaaaaaaa-0000-4000-8000-000000000009"
    inventory = {"CUSTOM_GPU": {"total": 4, "max_unit": 2, "reserved": 1}}
    cloud.provider(GPU, "cmp1_gpu", inventory, parent=root, traits=("CUSTOM_A100",), aggregates=(aggregate,))
    fleet, _, report = taken(cloud, tmp_path)
    model = PlacementModel(fleet)
    assert [each.name for each in model.providers()] == ["cmp1", "cmp1_gpu"]
    assert model.provider(GPU).parent == node_uuid(1)
    gpus = model.inventories(GPU).inventories["CUSTOM_GPU"]
    assert (gpus.total, gpus.reserved, gpus.max_unit) == (4, 1, 2)
    assert model.provider_traits(GPU).traits == ["CUSTOM_A100"]
    assert model.provider_traits(node_uuid(1)).traits == ["HW_CPU_X86_VMX", "OWNER_NOVA", "CUSTOM_FAST"]
    assert model.provider_aggregates(GPU).aggregates == [aggregate]
    assert report.dropped == []
    fleet.check()


def test_an_instance_keeps_its_allocation_project_request_and_group(cloud: Cloud, tmp_path: Path) -> None:
    uuid = cloud.instance(1, 1, cloud.host(1))
    group = cloud.group(1, "anti-affinity", uuid, rules='{"max_server_per_host": "2"}')
    fleet, requests, report = taken(cloud, tmp_path)
    consumer = fleet.consumer(uuid)
    assert (consumer.project_id, consumer.user_id, consumer.server_group) == ("p1", "u1", group)
    assert consumer.resources == {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}
    assert requests[uuid].flavor.name == "m1.small"
    assert (report.hosts, report.guests, report.groups) == (1, 1, 1)
    assert PlacementModel(fleet).provider_usages(node_uuid(1)).usages == consumer.resources
    fleet.check()


def test_a_next_guest_is_placed_beside_those_that_are_there(cloud: Cloud, tmp_path: Path) -> None:
    members = [cloud.instance(number, number, cloud.host(number)) for number in (1, 2)]
    group = cloud.group(1, "anti-affinity", *members)
    cloud.host(3)
    fleet, *_ = taken(cloud, tmp_path)
    spec = RequestSpec(flavor=Flavor(name="m", vcpus=2, memory_mb=2048, root_gb=20))
    assert Engine(fleet).place(Request(spec=spec, server_group=group)).host == "cmp3"


def test_hosts_are_as_nova_reads_their_compute_nodes(cloud: Cloud, tmp_path: Path) -> None:
    cell = versioned(
        "NUMACell",
        "1.5",
        **{"id": 0, "cpuset": [0, 1], "pcpuset": [2, 3], "memory": 8192, "cpu_usage": 1, "memory_usage": 1024},
        **{"pinned_cpus": [2], "siblings": [[0, 1], [2, 3]], "mempages": [], "socket": 0},
    )
    pool = versioned(
        "PciDevicePool",
        "1.1",
        **{"product_id": "10fb", "vendor_id": "8086", "numa_node": 0, "count": 3, "tags": {"dev_type": "type-VF"}},
    )
    cloud.host(
        1,
        numa_topology=json.dumps(versioned("NUMATopology", "1.2", cells=[cell])),
        pci_stats=json.dumps(versioned("PciDevicePoolList", "1.1", objects=[pool])),
        disk_available_least=300,
        stats=json.dumps({"num_instances": "3", "io_workload": "1", "failed_builds": "2"}),
        cpu_allocation_ratio=None,
    )
    fleet, *_ = taken(cloud, tmp_path)
    host = view(fleet, "cmp1")
    assert (host.host, host.nodename, host.uuid, host.cell_uuid) == ("cmp1", "cmp1", node_uuid(1), CELL)
    assert (host.free_ram_mb, host.free_disk_mb, host.cpu_allocation_ratio) == (15_872, 300 * 1024, 4.0)
    assert (host.num_instances, host.num_io_ops, host.failed_builds) == (3, 1, 2)
    assert host.supported_instances == (("x86_64", "kvm", "hvm"),)
    assert host.numa_topology is not None
    assert host.numa_topology.cells[0].pinned_cpus == {2}
    assert [(each.count, each.tags["dev_type"]) for each in host.pci_pools] == [(3, "type-VF")]


def test_aggregates_have_their_hosts_metadata_and_zone(cloud: Cloud, tmp_path: Path) -> None:
    cloud.host(1)
    cloud.host(2)
    uuid = cloud.aggregate(1, "cmp1", "gone", availability_zone="az1", ssd="true")
    cloud.change(cloud.placement, "INSERT INTO placement_aggregates (id, uuid) VALUES (1, ?)", uuid)
    cloud.write(cloud.placement, "resource_provider_aggregates", resource_provider_id=1, aggregate_id=1)
    fleet, _, report = taken(cloud, tmp_path)
    (aggregate,) = view(fleet, "cmp1").aggregates
    assert aggregate.metadata == {"availability_zone": "az1", "ssd": "true"}
    assert view(fleet, "cmp2").aggregates == ()
    assert reasons(report) == {"gone": "it is in an aggregate, and there is no compute node of its name"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"disabled": 1, "disabled_reason": "broken"}, "broken"),
        ({"seen": NOW - 61}, "down when it was imported"),
        ({"seen": NOW - 59}, None),
    ],
)
def test_a_service_that_is_disabled_or_down_takes_no_guests(
    cloud: Cloud, tmp_path: Path, changes: dict[str, Any], reason: str | None
) -> None:
    cloud.host(1, **changes)
    fleet, *_ = taken(cloud, tmp_path)
    service = view(fleet, "cmp1").service
    assert (service.disabled, service.disabled_reason) == (reason is not None, reason)
    fleet.advance(NOW + 86_400.0)
    up = bool(fleet.column("service_up")[fleet.row("cmp1")])
    assert up == (reason is None), "nothing reports to a file: heartbeats do not age"


def test_a_guest_with_devices_gives_them_back_when_it_goes(cloud: Cloud, tmp_path: Path) -> None:
    pool = versioned(
        "PciDevicePool",
        "1.1",
        **{"product_id": "10fb", "vendor_id": "8086", "numa_node": 0, "count": 3, "tags": {"dev_type": "type-VF"}},
    )
    uuid = cloud.instance(
        1, 1, cloud.host(1, pci_stats=json.dumps(versioned("PciDevicePoolList", "1.1", objects=[pool])))
    )
    device = {"compute_node_id": 1, "vendor_id": "8086", "product_id": "10fb", "dev_type": "type-VF", "numa_node": 0}
    cloud.write(cloud.cell, "pci_devices", instance_uuid=uuid, status="allocated", **device)
    cloud.write(cloud.cell, "pci_devices", instance_uuid=None, status="available", **device)
    fleet, *_ = taken(cloud, tmp_path)
    assert [each.count for each in view(fleet, "cmp1").pci_pools] == [3]
    Engine(fleet).release(uuid)
    assert [each.count for each in view(fleet, "cmp1").pci_pools] == [4]


def test_allocations_of_nested_and_sharing_providers_are_those_of_one_consumer(cloud: Cloud, tmp_path: Path) -> None:
    root = cloud.host(1)
    gpu = cloud.provider(GPU, "cmp1_gpu", {"CUSTOM_GPU": {"total": 4}}, parent=root)
    uuid = cloud.instance(1, 1, root)
    cloud.allocate(uuid, gpu, {"CUSTOM_GPU": 2})
    group = cloud.group(1, "affinity", uuid)
    fleet, *_ = taken(cloud, tmp_path)
    view = PlacementModel(fleet).allocations(uuid)
    assert view is not None
    assert {provider: held for provider, (held, _) in view.allocations.items()} == {
        node_uuid(1): {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20},
        GPU: {"CUSTOM_GPU": 2},
    }
    assert fleet.consumer(uuid).server_group == group
    fleet.check()


def test_a_migration_holds_its_source_and_is_no_instance(cloud: Cloud, tmp_path: Path) -> None:
    source, target = cloud.host(1), cloud.host(2)
    cloud.instance(1, 2, target)
    migration = "ffffffff-0000-4000-8000-000000000001"
    cloud.write(cloud.cell, "migrations", uuid=migration, instance_uuid=instance_uuid(1), status="migrating")
    cloud.allocate(migration, source, {"VCPU": 2, "MEMORY_MB": 2048})
    fleet, _, report = taken(cloud, tmp_path)
    view = PlacementModel(fleet).allocations(migration)
    assert view is not None
    assert view.consumer_type == "MIGRATION"
    assert report.guests == 1
    assert any(note.startswith("1 consumers are not instances") for note in report.notes)


def test_guests_that_exceed_what_a_host_may_give_now_stay_where_they_are(cloud: Cloud, tmp_path: Path) -> None:
    provider = cloud.host(1)
    other = "99999999-0000-4000-8000-000000000001"
    cloud.allocate(other, provider, {"VCPU": 30, "MEMORY_MB": 2048}, kind="VOLUME_SERVER")
    cloud.instance(1, 1, provider)
    cloud.change(cloud.placement, "UPDATE inventories SET total = 4, max_unit = 4, allocation_ratio = 1.0 WHERE id = 1")
    fleet, _, report = taken(cloud, tmp_path)
    model = PlacementModel(fleet)
    assert model.provider_usages(node_uuid(1)).usages["VCPU"] == 32
    assert model.inventories(node_uuid(1)).inventories["VCPU"].total == 4
    assert report.dropped == []
    fleet.check()


def test_what_cannot_be_taken_over_is_named_with_its_reason(cloud: Cloud, tmp_path: Path) -> None:
    cloud.host(1, traits=("NOT_YET_KNOWN",))
    provider = cloud.host(2)
    cloud.change(cloud.placement, "DELETE FROM resource_providers WHERE uuid = ?", node_uuid(2))
    cloud.change(cloud.placement, "DELETE FROM inventories WHERE resource_provider_id = ?", provider)
    cloud.host(3, free_disk_gb=None)
    cloud.host(4, numa_topology="{")
    cloud.instance(1, 2, None)
    cloud.instance(2, 1, None)
    cloud.instance(3, None, None)
    cloud.change(cloud.api, "UPDATE request_specs SET spec = '{' WHERE instance_uuid = ?", instance_uuid(2))
    cloud.group(1, "none-of-these")
    _, _, report = taken(cloud, tmp_path)
    found = reasons(report)
    assert found["NOT_YET_KNOWN"] == "it is newer than os-traits here: upgrade that"
    assert found["cmp2"] == "Placement has no resource provider of its uuid"
    assert found["cmp3"] == "it has not reported its resources yet"
    assert found["cmp4"].startswith("numa_topology is not JSON")
    assert found[instance_uuid(1)] == "its host cmp2 is not taken over"
    whys = {(each.what, each.why) for each in report.dropped}
    assert (instance_uuid(2), "it has no allocation in Placement: it counts in the figures of its host only") in whys
    assert any(what == instance_uuid(2) and why.startswith("its request cannot be read") for what, why in whys)
    assert instance_uuid(3) not in found, "an instance on no host is no loss"
    assert report.groups == 0


def test_an_older_nova_without_a_column_is_read(cloud: Cloud, tmp_path: Path) -> None:
    cloud.instance(1, 1, cloud.host(1))
    cloud.script(cloud.cell, "ALTER TABLE services DROP COLUMN version; ALTER TABLE migrations DROP COLUMN uuid;")
    cloud.script(cloud.placement, "DROP TABLE consumer_types; ALTER TABLE consumers DROP COLUMN consumer_type_id;")
    fleet, _, report = taken(cloud, tmp_path)
    assert (report.guests, view(fleet, "cmp1").service.version) == (1, None)


def test_cells_can_be_named_and_a_url_be_in_a_file(cloud: Cloud, tmp_path: Path) -> None:
    cloud.host(1)
    url = tmp_path / "placement.url"
    url.write_text(cloud.url("placement") + "\n")
    fleet, _, report = taken(cloud, tmp_path, "--placement", f"@{url}", "--nova-cell", f"{CELL}={cloud.url('cell')}")
    assert view(fleet, "cmp1").cell_uuid == CELL
    assert any("there are no aggregates" in note for note in report.notes)


def test_a_service_starts_from_the_data_folder(cloud: Cloud, tmp_path: Path) -> None:
    uuid = cloud.instance(1, 1, cloud.host(1), flavor={"extra_specs": {"hw:boot_menu": "true"}})
    data = tmp_path / "data"
    app(["openstack", *cloud.options, "--data", str(data)], result_action="return_value")
    (snapshot,) = data.iterdir()
    machine = ServiceMachine()
    machine.load(snapshot)
    state = machine.state
    assert state.usage.of("project:p1")["VCPU"] == 2
    assert state.holding(uuid) == ("p1", {"instances": 1, "VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20})
    assert state.spec_of(state.asked_of(uuid)).flavor is not None
    with pytest.raises(InvalidValue, match="not empty"):
        app(["openstack", *cloud.options, "--data", str(data)], result_action="return_value")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--placement", "sqlite:///nowhere.sqlite", "--nova-cell", "x"], "there is no file nowhere.sqlite"),
        (["--placement", "nonsense", "--nova-cell", "x"], "URL of the database is malformed"),
        (["--placement", "mysql://u:secret@h:port/d", "--nova-cell", "x"], "malformed: it cannot be parsed"),
        (["--placement", "oracle9://h/d", "--nova-cell", "x"], "malformed|driver"),
        (["--nova-cell", "x"], "give either --placement or --placement-api"),
        (["--placement", "@/nowhere"], "/nowhere cannot be read"),
        (["--placement", "PLACEMENT"], "give --nova-api, --nova-cell, or both"),
        (["--placement", "CELL", "--nova-api", "API"], "no table resource_providers"),
    ],
)
def test_a_wrong_source_is_one_clear_error(cloud: Cloud, tmp_path: Path, options: list[str], problem: str) -> None:
    known = {"PLACEMENT": cloud.url("placement"), "CELL": cloud.url("cell"), "API": cloud.url("api")}
    with pytest.raises((InvalidValue, SourceFailed), match=problem):
        taken(cloud, tmp_path, *[known.get(each, each) for each in options])


def test_a_password_is_in_no_error(tmp_path: Path, cloud: Cloud) -> None:
    url = "postgresql://nova:secret@127.0.0.1:9/nova"
    with pytest.raises(SourceFailed) as caught:
        taken(cloud, tmp_path, "--placement", url, "--nova-cell", cloud.url("cell"))
    assert "secret" not in str(caught.value)


def test_a_flavor_that_was_resized_since_is_the_one_that_counts(cloud: Cloud, tmp_path: Path) -> None:
    uuid = cloud.instance(1, 1, cloud.host(1))
    newer = json.dumps({"cur": flavor(name="m1.big", vcpus=4, extra_specs={"a": "b"}), "old": None, "new": None})
    cloud.change(cloud.cell, "UPDATE instance_extra SET flavor = ?", newer)
    _, requests, _ = taken(cloud, tmp_path)
    assert requests[uuid].flavor.name == "m1.big"
