"""Which flavor extra specs there are, and which values they take. Not what they mean.

A name in one of Nova's namespaces that Nova does not know is an error, as is a value of the wrong form. Other
namespaces, and names without one, are left to filters. Source: Nova 34 api/validation/extra_specs (API 2.86).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from ..types.errors import InvalidValue, UnknownName

TRUE: Final = frozenset({"1", "t", "true", "on", "y", "yes"})
FALSE: Final = frozenset({"0", "f", "false", "off", "n", "no"})
_GROUP: Final = "([a-zA-Z0-9_-]{1,64})?"
_CPUS: Final = r"\^?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*"
_INTEGER: Final = re.compile(r"\s*[+-]?\d{1,18}\s*")


class _Form(NamedTuple):
    """What a value must be, in words, and the test of it."""

    words: str
    holds: Callable[[str], bool]


def _one_of(*values: str) -> _Form:
    return _Form(f"one of {', '.join(values)}", lambda text: text in values)


def _whole(least: int | None = None) -> _Form:
    def holds(text: str) -> bool:
        return _INTEGER.fullmatch(text) is not None and (least is None or int(text) >= least)

    return _Form("a whole number" + ("" if least is None else f" from {least}"), holds)


def _like(words: str, pattern: str) -> _Form:
    compiled = re.compile(pattern)
    return _Form(words, lambda text: compiled.fullmatch(text) is not None)


_ANY: Final = _Form("a text", lambda text: True)
_SWITCH: Final = _Form("true or false", lambda text: text.strip().lower() in TRUE | FALSE)

_QUOTAS: Final = ("cpu", "memory", "disk_io", "vif")
_FORMS: Final[Mapping[str, _Form]] = {
    "accel:device_profile": _ANY,
    "group_policy": _one_of("isolate", "none"),
    "hide_hypervisor_id": _SWITCH,
    "hw:boot_menu": _SWITCH,
    "hw:cpu_cores": _whole(1),
    "hw:cpu_dedicated_mask": _like("a list of CPUs", _CPUS),
    "hw:cpu_max_cores": _whole(1),
    "hw:cpu_max_sockets": _whole(1),
    "hw:cpu_max_threads": _whole(1),
    "hw:cpu_policy": _one_of("dedicated", "shared", "mixed"),
    "hw:cpu_realtime": _SWITCH,
    "hw:cpu_realtime_mask": _like("a list of CPUs", _CPUS),
    "hw:cpu_sockets": _whole(1),
    "hw:cpu_thread_policy": _one_of("prefer", "isolate", "require"),
    "hw:cpu_threads": _whole(1),
    "hw:emulator_threads_policy": _one_of("isolate", "share"),
    "hw:ephemeral_encryption": _SWITCH,
    "hw:ephemeral_encryption_format": _one_of("luks", "plain"),
    "hw:hide_hypervisor_id": _SWITCH,
    "hw:locked_memory": _SWITCH,
    "hw:maxphysaddr_bits": _whole(0),
    "hw:maxphysaddr_mode": _one_of("passthrough", "emulate"),
    "hw:mem_encryption": _SWITCH,
    "hw:mem_encryption_model": _one_of("amd-sev", "amd-sev-es", "amd-sev-snp", "intel-tdx"),
    "hw:mem_page_size": _like(
        "small, large, any, or a size such as 2048 or 1GB", r"large|small|any|\d+([kKMGT]i?)?(b|bit|B)?"
    ),
    "hw:numa_nodes": _whole(1),
    "hw:pci_numa_affinity_policy": _one_of("required", "preferred", "legacy", "socket"),
    "hw:pmem": _like("labels separated by commas", "([a-zA-Z0-9_]+(,)?)+"),
    "hw:pmu": _SWITCH,
    "hw:redirected_usb_ports": _whole(0),
    "hw:serial_port_count": _whole(0),
    "hw:sound_model": _one_of("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio"),
    "hw:tpm_model": _one_of("tpm-tis", "tpm-crb"),
    "hw:tpm_secret_security": _one_of("user", "host", "deployment"),
    "hw:tpm_version": _one_of("1.2", "2.0"),
    "hw:usb_model": _ANY,
    "hw:vif_multiqueue_enabled": _SWITCH,
    "hw:viommu_model": _one_of("intel", "smmuv3", "virtio", "auto"),
    "hw:virtio_packed_ring": _SWITCH,
    "hw:watchdog_action": _one_of("none", "pause", "poweroff", "reset", "disabled"),
    "hw_rng:allowed": _SWITCH,
    "hw_rng:rate_bytes": _whole(0),
    "hw_rng:rate_period": _whole(0),
    "hw_video:ram_max_mb": _whole(0),
    "os:secure_boot": _one_of("disabled", "required"),
    "pci_passthrough:alias": _like("NAME:COUNT, several separated by commas", r"[^:]+:\d+(?:\s*,\s*[^:]+:\d+)*"),
    "quota:cpu_period": _whole(0),
    "quota:cpu_quota": _whole(),
    "quota:cpu_shares": _whole(0),
    **{f"quota:{kind}_{limit}": _whole(0) for kind in _QUOTAS for limit in ("limit", "shares_share")},
    **{f"quota:{kind}_reservation": _whole() for kind in _QUOTAS},
    **{f"quota:{kind}_shares_level": _one_of("custom", "high", "normal", "low") for kind in _QUOTAS},
    **{f"quota:disk_{way}_{unit}_sec": _whole(0) for way in ("read", "write", "total") for unit in ("bytes", "iops")},
    **{
        f"quota:vif_{way}_{what}": _whole(0) for way in ("inbound", "outbound") for what in ("average", "burst", "peak")
    },
    "vmware:hw_version": _ANY,
    "vmware:storage_policy": _ANY,
}
_PATTERNS: Final = (
    (re.compile(r"hw:numa_cpus\.\d+"), _like("a list of CPUs", _CPUS)),
    (re.compile(r"hw:numa_mem\.\d+"), _whole(1)),
    (re.compile(f"resources{_GROUP}:.+"), _whole(0)),
    (re.compile(f"trait{_GROUP}:.+"), _one_of("required", "forbidden")),
    (re.compile(r"(capabilities|aggregate_instance_extra_specs):.+"), _ANY),
)
_NAMESPACES: Final = re.compile(
    f"accel|aggregate_instance_extra_specs|capabilities|hw|hw_rng|hw_video|os|pci_passthrough|quota|vmware"
    f"|resources{_GROUP}|trait{_GROUP}"
)


def check_extra_specs(extra_specs: Mapping[str, str]) -> None:
    """Raise UnknownName for a name that Nova's namespaces do not have, InvalidValue for a value of the wrong form.
    O(extra specs)."""
    for name, value in extra_specs.items():
        form = _form(name)
        if form is None:
            namespace, colon, _ = name.partition(":")
            if colon and _NAMESPACES.fullmatch(namespace):
                raise UnknownName.among("extra spec", name, _FORMS, field=name)
        elif not form.holds(value):
            raise InvalidValue(f"extra spec {name} is {value[:200]!r}, but must be {form.words}", field=name)


def is_known(name: str) -> bool:
    """True for a name that Nova itself reads."""
    return _form(name) is not None


def _form(name: str) -> _Form | None:
    known = _FORMS.get(name)
    if known is not None:
        return known
    return next((form for pattern, form in _PATTERNS if pattern.fullmatch(name)), None)
