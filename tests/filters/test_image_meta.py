"""How image properties are read."""

from typing import Any

import pytest

from hostler.placement.types.image_properties import canonical, from_image_meta_props

TABLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"hw_architecture": "AMD64"}, {"hw_architecture": "x86_64"}),
    ({"hw_architecture": "i586"}, {"hw_architecture": "i686"}),
    ({"architecture": "aarch64"}, {"hw_architecture": "aarch64"}),
    ({"architecture": "aarch64", "hw_architecture": "i686"}, {"hw_architecture": "i686"}),
    ({"vm_mode": "pv"}, {"hw_vm_mode": "xen"}),
    ({"img_hv_type": "XAPI"}, {"img_hv_type": "xen"}),
    ({"hypervisor_version_requires": ">=6"}, {"img_hv_requested_version": ">=6"}),
    ({"hw_cpu_cores": "04"}, {"hw_cpu_cores": 4}),
    ({"hw_cpu_cores": "many"}, {"hw_cpu_cores": "many"}),
    ({"hw_pmu": "Yes"}, {"hw_pmu": True}),
    ({"hw_pmu": "no"}, {"hw_pmu": False}),
    ({"hw_pmu": True}, {"hw_pmu": True}),
    ({"vmware_adaptertype": "ide"}, {"hw_disk_bus": "ide"}),
    ({"vmware_adaptertype": "lsiLogic"}, {"hw_disk_bus": "scsi", "hw_scsi_model": "lsiLogic"}),
    ({"os_distro": "ubuntu", "my_own": "x", "os_type": None}, {"os_distro": "ubuntu"}),
]


@pytest.mark.parametrize(("given", "read"), TABLE)
def test_properties_get_novas_names_and_types(given: dict[str, Any], read: dict[str, Any]) -> None:
    assert canonical(given) == read


def test_the_fields_of_novas_object_become_properties() -> None:
    fields = {
        "hw_architecture": "x86_64",
        "hw_numa_nodes": 2,
        "traits_required": ["CUSTOM_B", "CUSTOM_A"],
        "hw_numa_cpus": [[1, 0], [2]],
        "hw_numa_mem": [512, 1024],
        "img_hv_type": None,
    }
    assert from_image_meta_props(fields) == {
        "hw_architecture": "x86_64",
        "hw_numa_nodes": 2,
        "trait:CUSTOM_A": "required",
        "trait:CUSTOM_B": "required",
        "hw_numa_cpus.0": "0,1",
        "hw_numa_cpus.1": "2",
        "hw_numa_mem.0": "512",
        "hw_numa_mem.1": "1024",
    }
