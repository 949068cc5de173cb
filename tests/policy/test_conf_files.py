"""nova.conf and cinder.conf as they are."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from hostler.placement.oslo_conf.read import UnknownOption
from hostler.placement.policy.policy import Policy
from hostler.placement.storage.pools.policy import VolumePolicy
from hostler.placement.types.errors import InvalidValue, UnknownName

NOVA_CONF = """
[DEFAULT]
debug = true
transport_url = rabbit://guest:secret@127.0.0.1:5672/
my_ip = 10.0.0.1
zone = north
default_schedule_zone = $zone
service_down_time = 90

[database]
connection = mysql+pymysql://nova@db/nova

[filter_scheduler]
enabled_filters = ComputeFilter, ${hostler.name},
    ImagePropertiesFilter
available_filters = nova.scheduler.filters.all_filters
available_filters = tests.policy.test_conf_files.OddFilter
weight_classes = nova.scheduler.weights.ram.RAMWeigher,nova.scheduler.weights.ram.RAMWeigher
isolated_hosts = a, b,
shuffle_best_same_weighed_hosts = Yes
max_instances_per_host = $limit
limit = 7

[pci]
alias = { "vendor_id": "8086", "product_id": "154d", "device_type": "type-PF", "name": "a1" }
alias = { "vendor_id": "10de", "product_id": "2235", "device_type": "type-PCI", "name": "a2" }

[hostler]
name = OddFilter
"""


class OddFilter:
    """A filter outside of Nova."""

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        return int(host_state.host[-1]) % 2 == 1


def written(folder: Path, text: str, name: str = "nova.conf") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_a_nova_conf_is_read_as_it_is(tmp_path: Path) -> None:
    with pytest.warns(UnknownOption):
        policy = Policy.from_nova_conf(written(tmp_path, NOVA_CONF))
    assert [rule.name for rule in policy.filters] == ["ComputeFilter", "OddFilter", "ImagePropertiesFilter"]
    assert [rule.name for rule in policy.weighers] == ["RAMWeigher", "RAMWeigher"]
    options = policy.options
    assert (options.default.default_schedule_zone, options.default.service_down_time) == ("north", 90)
    assert (options.filter_scheduler.max_instances_per_host, options.filter_scheduler.isolated_hosts) == (7, ("a", "b"))
    assert options.filter_scheduler.shuffle_best_same_weighed_hosts
    assert len(options.pci.alias.to_words()) == 2
    assert Policy.from_toml(policy.to_toml()) == policy


def test_an_option_that_nova_does_not_have_is_warned_of_once(tmp_path: Path) -> None:
    file = written(tmp_path, "[filter_scheduler]\nram_weight_multipler = 2\n[DEFAULT]\ndebug = true\n[own]\nx = 1\n")
    with pytest.warns(UnknownOption) as caught:
        Policy.from_nova_conf(file)
    (sentence,) = [str(each.message) for each in caught]
    assert "unknown option [filter_scheduler] ram_weight_multipler (closest: ram_weight_multiplier)" in sentence


def test_a_folder_is_read_in_the_order_of_names_and_after_the_file_before_it(tmp_path: Path) -> None:
    folder = tmp_path / "nova.conf.d"
    folder.mkdir()
    written(folder, "[filter_scheduler]\nhost_subset_size = 3\n", "20.conf")
    written(folder, "[filter_scheduler]\nhost_subset_size = 2\nmax_io_ops_per_host = 4\n", "10.conf")
    written(folder, "[filter_scheduler]\nhost_subset_size = 9\n", "30.txt")
    first = written(tmp_path, "[filter_scheduler]\nmax_io_ops_per_host = 5\nhost_subset_size = 1\n")
    options = Policy.from_nova_conf(first, folder).options.filter_scheduler
    assert (options.host_subset_size, options.max_io_ops_per_host) == (3, 4)
    assert Policy.from_nova_conf(folder, first).options.filter_scheduler.max_io_ops_per_host == 5


def test_the_former_name_of_an_option_is_read(tmp_path: Path) -> None:
    alias = '{"vendor_id": "8086", "product_id": "154d", "device_type": "type-PF", "name": "a1"}'
    policy = Policy.from_nova_conf(written(tmp_path, f"[DEFAULT]\npci_alias = {alias}\n"))
    assert policy == Policy.from_mapping({"pci": {"alias": [alias]}})


@pytest.mark.parametrize(
    "text",
    ["a = 1\n", "[filter_scheduler]\nhost_subset_size = many\n", "[filter_scheduler]\nhost_subset_size = 0\n", "[x\n"],
)
def test_what_nova_would_not_start_with_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidValue):
        Policy.from_nova_conf(written(tmp_path, text))


@pytest.mark.parametrize("name", ["missing.conf", "missing.d/", "."])
def test_a_file_that_is_not_there_is_an_error_and_an_empty_folder_is_novas_default(tmp_path: Path, name: str) -> None:
    if name == ".":
        assert Policy.from_nova_conf(tmp_path) == Policy.nova_default()
        return
    with pytest.raises(InvalidValue, match="cannot be read as a nova"):
        Policy.from_nova_conf(tmp_path / name)


def test_a_cinder_conf_is_read_as_it_is(tmp_path: Path) -> None:
    text = """
[DEFAULT]
debug = True
enabled_backends = lvm,ceph
scheduler_default_filters = AvailabilityZoneFilter,CapacityFilter
max_over_subscription_ratio = auto
capacity_weight_multiplier = -1
glance_api_servers = http://$my_ip:9292
[lvm]
volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver
"""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy = VolumePolicy.from_cinder_conf(written(tmp_path, text, "cinder.conf"))
    assert [rule.name for rule in policy.filters] == ["AvailabilityZoneFilter", "CapacityFilter"]
    assert (policy.options.max_over_subscription_ratio, policy.options.capacity_weight_multiplier) == ("auto", -1.0)


def test_a_nova_conf_for_the_service_may_have_the_section_storage(tmp_path: Path) -> None:
    from hostler.placement.policy.files import policy_values

    path = tmp_path / "nova.conf"
    path.write_text("[storage]\ncapacity_weight_multiplier = -1.0\n[filter_scheduler]\nhost_subset_size = 3\n")
    assert policy_values(path)["storage"] == {"capacity_weight_multiplier": -1.0}


def test_a_value_refers_to_the_default_of_an_option_that_no_file_sets(tmp_path: Path) -> None:
    text = """
[DEFAULT]
default_schedule_zone = $default_availability_zone
[filter_scheduler]
disk_weight_multiplier = $io_ops_weight_multiplier
max_instances_per_host = $max_io_ops_per_host
"""
    (tmp_path / "nova.conf").write_text(text)
    options = Policy.from_nova_conf(tmp_path / "nova.conf").options
    assert options.default.default_schedule_zone == "nova"
    assert options.filter_scheduler.disk_weight_multiplier == -1.0
    assert options.filter_scheduler.max_instances_per_host == 8
    (tmp_path / "cinder.conf").write_text("[DEFAULT]\nvolume_number_multiplier = $capacity_weight_multiplier\n")
    assert VolumePolicy.from_cinder_conf(tmp_path / "cinder.conf").options.volume_number_multiplier == 1.0
    (tmp_path / "odd.conf").write_text("[filter_scheduler]\nhost_subset_size = $no_such_option\n")
    with pytest.raises(InvalidValue, match=r"\[filter_scheduler\] host_subset_size"):
        Policy.from_nova_conf(tmp_path / "odd.conf")


@pytest.mark.parametrize("name", ["AvailabilityZoneFilter", "RetryFilter", "RamFilter"])
def test_a_filter_that_nova_had_once_is_refused_as_gone(tmp_path: Path, name: str) -> None:
    text = f"[filter_scheduler]\nenabled_filters = {name}, ComputeFilter\n"
    with pytest.raises(UnknownName, match=f"unknown filter '{name}'") as refused:
        Policy.from_nova_conf(written(tmp_path, text))
    assert "Nova no longer has it" in str(refused.value.hint)
