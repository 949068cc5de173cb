"""Image properties known to Nova: names, legacy names and types. Filters decide which hosts suit an image.

A property is compared in its canonical form: ``amd64`` is ``x86_64``, ``yes`` for a boolean is ``True``, and a property
without a field in Nova is ignored. Source: Nova 33 ImageMetaProps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import InvalidValue, UnknownName
from .validation import shown

_LEGACY = {
    "architecture": "hw_architecture",
    "auto_disk_config": "hw_auto_disk_config",
    "bdm_v2": "img_bdm_v2",
    "bittorrent": "img_bittorrent",
    "block_device_mapping": "img_block_device_mapping",
    "cache_in_nova": "img_cache_in_nova",
    "hypervisor_type": "img_hv_type",
    "hypervisor_version_requires": "img_hv_requested_version",
    "ipxe_boot": "hw_ipxe_boot",
    "mappings": "img_mappings",
    "owner_id": "img_owner_id",
    "root_device_name": "img_root_device_name",
    "vm_mode": "hw_vm_mode",
    "vmware_disktype": "hw_disk_type",
    "vmware_image_version": "img_version",
    "vmware_linked_clone": "img_linked_clone",
    "vmware_ostype": "os_distro",
    "xenapi_device_id": "hw_device_id",
    "xenapi_image_compression_level": "img_compression_level",
    "xenapi_skip_agent_inject_files_at_boot": "os_skip_agent_inject_files_at_boot",
    "xenapi_skip_agent_inject_ssh": "os_skip_agent_inject_ssh",
    "xenapi_use_agent": "img_use_agent",
}

_TEXTS = frozenset(
    [
        "hw_auto_disk_config",
        "hw_cdrom_bus",
        "hw_cpu_policy",
        "hw_cpu_realtime_mask",
        "hw_cpu_thread_policy",
        "hw_disk_bus",
        "hw_disk_type",
        "hw_emulation_architecture",
        "hw_emulator_threads_policy",
        "hw_ephemeral_encryption_format",
        "hw_ephemeral_encryption_secret_uuid",
        "hw_firmware_type",
        "hw_floppy_bus",
        "hw_input_bus",
        "hw_machine_type",
        "hw_maxphysaddr_mode",
        "hw_mem_encryption_model",
        "hw_mem_page_size",
        "hw_numa_cpus",
        "hw_numa_mem",
        "hw_pci_numa_affinity_policy",
        "hw_pointer_model",
        "hw_rescue_bus",
        "hw_rescue_device",
        "hw_rng_model",
        "hw_scsi_model",
        "hw_sound_model",
        "hw_tpm_model",
        "hw_tpm_version",
        "hw_usb_model",
        "hw_video_model",
        "hw_vif_model",
        "hw_viommu_model",
        "hw_watchdog_action",
        "img_block_device_mapping",
        "img_config_drive",
        "img_hv_requested_version",
        "img_mappings",
        "img_owner_id",
        "img_root_device_name",
        "img_signature",
        "img_signature_certificate_uuid",
        "img_signature_hash_method",
        "img_signature_key_type",
        "os_admin_user",
        "os_command_line",
        "os_distro",
        "os_secure_boot",
        "os_type",
        "traits_required",
    ]
)
_INTEGERS = frozenset(
    [
        "hw_cpu_cores",
        "hw_cpu_max_cores",
        "hw_cpu_max_sockets",
        "hw_cpu_max_threads",
        "hw_cpu_sockets",
        "hw_cpu_threads",
        "hw_device_id",
        "hw_maxphysaddr_bits",
        "hw_numa_nodes",
        "hw_redirected_usb_ports",
        "hw_serial_port_count",
        "hw_video_ram",
        "img_compression_level",
        "img_version",
    ]
)
_SWITCHES = frozenset(
    [
        "hw_boot_menu",
        "hw_ephemeral_encryption",
        "hw_firmware_stateless",
        "hw_ipxe_boot",
        "hw_locked_memory",
        "hw_mem_encryption",
        "hw_pmu",
        "hw_qemu_guest_agent",
        "hw_time_hpet",
        "hw_vif_multiqueue_enabled",
        "hw_virtio_packed_ring",
        "img_bdm_v2",
        "img_bittorrent",
        "img_cache_in_nova",
        "img_hide_hypervisor_id",
        "img_linked_clone",
        "img_use_agent",
        "os_require_quiesce",
        "os_skip_agent_inject_files_at_boot",
        "os_skip_agent_inject_ssh",
    ]
)
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})
_LISTS = frozenset({"traits_required", "hw_numa_cpus", "hw_numa_mem"})
_NUMBERED = re.compile(r"hw_numa_(cpus|mem)\.\d+")

_ARCHITECTURES = {
    "amd64": "x86_64",
    "i386": "i686",
    "i486": "i686",
    "i586": "i686",
    "x86_32": "i686",
    "x86_32p": "i686",
}
_HYPERVISORS = {"powervm": "phyp", "xapi": "xen"}
_VM_MODES = {"baremetal": "hvm", "hv": "hvm", "pv": "xen"}


def architecture(name: str) -> str:
    """The canonical name of a CPU architecture."""
    name = name.lower()
    return _ARCHITECTURES.get(name, name)


def hypervisor_type(name: str) -> str:
    """The canonical name of a hypervisor type."""
    name = name.lower()
    return _HYPERVISORS.get(name, name)


def vm_mode(name: str) -> str:
    """The canonical name of a VM mode."""
    name = name.lower()
    return _VM_MODES.get(name, name)


def _integer(value: Any) -> Any:
    try:
        return int(value)
    except (TypeError, ValueError):
        return value


def _switch(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).strip().lower() in _TRUE


_CANONICAL: dict[str, Callable[[Any], Any]] = {
    "hw_architecture": lambda value: architecture(str(value)),
    "img_hv_type": lambda value: hypervisor_type(str(value)),
    "hw_vm_mode": lambda value: vm_mode(str(value)),
    **dict.fromkeys(_TEXTS, lambda value: value),
    **dict.fromkeys(_INTEGERS, _integer),
    **dict.fromkeys(_SWITCHES, _switch),
}


def canonical(properties: Mapping[str, Any]) -> dict[str, Any]:
    """``properties`` with Nova's names and types; unknown and None ones are omitted. O(properties)."""
    named = {_LEGACY[old]: value for old, value in properties.items() if old in _LEGACY}
    named |= _vmware_adapter(properties.get("vmware_adaptertype"))
    named |= properties
    return {name: _CANONICAL[name](value) for name, value in named.items() if name in _CANONICAL and value is not None}


def from_image_meta_props(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Properties as an ``Image`` has them from the fields of Nova's ImageMetaProps object, which holds required traits,
    and the CPUs and memory of NUMA nodes, as lists. O(fields)."""
    properties = {name: value for name, value in fields.items() if name not in _LISTS and value is not None}
    properties |= {f"trait:{trait}": "required" for trait in fields.get("traits_required") or ()}
    for name in ("hw_numa_cpus", "hw_numa_mem"):
        for number, value in enumerate(fields.get(name) or ()):
            cpus = name == "hw_numa_cpus"
            properties[f"{name}.{number}"] = ",".join(map(str, sorted(value))) if cpus else str(value)
    return properties


def check_names(properties: Mapping[str, Any]) -> None:
    """Raise UnknownName for a property that asks for hardware (``hw_*``) under a name that Nova does not have, and
    InvalidValue for one whose value is of the wrong type, or a trait that is not required. O(properties)."""
    for name, value in properties.items():
        if name.startswith("trait:"):
            if value != "required":
                raise InvalidValue(f"{name} is {shown(value)}, but an image can only require a trait", field=name)
        elif name.startswith("hw_") and name not in _CANONICAL and not _NUMBERED.fullmatch(name):
            raise UnknownName.among("image property", name, _CANONICAL, field=name)
        elif name in _INTEGERS and not isinstance(_integer(value), int) and value is not None:
            raise InvalidValue(f"{name} is {shown(value)}, but must be a whole number", field=name)
        elif name in _SWITCHES and not (isinstance(value, bool) or str(value).strip().lower() in _TRUE | _FALSE):
            raise InvalidValue(f"{name} is {shown(value)}, but must be true or false", field=name)


def _vmware_adapter(adapter: Any) -> dict[str, Any]:
    """VMware's adapter type is either a bus or a SCSI controller."""
    if adapter is None:
        return {}
    return {"hw_disk_bus": "ide"} if adapter == "ide" else {"hw_disk_bus": "scsi", "hw_scsi_model": adapter}
