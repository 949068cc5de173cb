"""Settings given by a flavor, an image, or both: as an extra spec ``hw:x`` and a property ``hw_x``. Resolves the
settings and refuses contradictions; ``resource_groups`` translates them for Placement.

Source: Nova 33 virt/hardware.py (the ``get_*_constraint`` functions that the scheduler calls).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from ..numa import cpu_set
from ..types.errors import InvalidValue
from ..types.image_properties import canonical
from ..types.options import NEWEST_NOVA
from ..types.request import Request

CPU_POLICIES: Final = ("shared", "dedicated", "mixed")
CPU_THREAD_POLICIES: Final = ("prefer", "isolate", "require")
EMULATOR_THREADS_POLICIES: Final = ("isolate", "share")
PCI_NUMA_POLICIES: Final = ("required", "preferred", "legacy", "socket")
SECURE_BOOT: Final = ("required", "disabled", "optional")
MAXPHYSADDR_MODES: Final = ("passthrough", "emulate")
MEMORY_ENCRYPTION_MODELS: Final = {
    "33": ("amd-sev", "amd-sev-es"),
    "34": ("amd-sev", "amd-sev-es", "amd-sev-snp", "intel-tdx"),
}
"""Release of Nova -> models it knows."""
STATELESS_MODELS: Final = ("amd-sev-snp", "intel-tdx")
"""Models that need stateless firmware."""
TPM_VERSIONS: Final = ("1.2", "2.0")
TPM_MODELS: Final = ("tpm-tis", "tpm-crb")
TPM_SECRET_SECURITY: Final = ("user", "host", "deployment")
SOUND_MODELS: Final = ("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio")
ENCRYPTION_FORMATS: Final = ("luks", "plain")

_TRUE: Final = frozenset({"1", "t", "true", "on", "y", "yes"})
_MOST_CPUS: Final = 1 << 16


class FlavorImageConflict(InvalidValue):
    """The flavor and the image of a request contradict each other."""

    nova_error: ClassVar[str] = "FlavorImageConflict"


@dataclass(frozen=True, slots=True)
class Wishes:
    """A flavor's extra specs beside its image's properties (Nova's names and types)."""

    vcpus: int
    extra_specs: Mapping[str, str]
    properties: Mapping[str, Any]
    release: str = NEWEST_NOVA

    @classmethod
    def of(cls, request: Request, release: str = NEWEST_NOVA) -> Wishes:
        """The settings of ``request`` as a release of Nova reads them; no image counts as an image without
        properties."""
        return cls(request.flavor.vcpus, request.extra_specs, canonical(request.image_properties), release)

    def both(self, key: str, valid: Collection[str], prefix: str = "hw") -> tuple[str | None, str | None]:
        """The flavor's and the image's value of ``key``, None where empty. Raises InvalidValue unless ``valid``."""
        flavor = self.extra_specs.get(f"{prefix}:{key}") or None
        image = self.properties.get(f"{prefix}_{key}") or None
        for field, value in ((f"{prefix}:{key}", flavor), (f"{prefix}_{key}", image)):
            if value is not None and value not in valid:
                raise InvalidValue(f"{field} is {value!r}, but must be one of {', '.join(valid)}", field=field)
        return flavor, image

    def one(self, key: str, valid: Collection[str], prefix: str = "hw") -> str | None:
        """The value that flavor or image give. Raises FlavorImageConflict if they differ."""
        flavor, image = self.both(key, valid, prefix)
        if flavor and image and flavor != image:
            raise _conflict(f"{prefix}:{key}", flavor, f"{prefix}_{key}", image)
        return flavor or image

    def switch(self, key: str) -> bool:
        """Whether flavor or image enable ``key``. Raises FlavorImageConflict if one enables and the other disables
        it."""
        text = self.extra_specs.get(f"hw:{key}")
        flavor = None if text is None else _is_true(text)
        image: bool | None = self.properties.get(f"hw_{key}")
        if flavor is not None and image is not None and flavor != image:
            raise _conflict(f"hw:{key}", text, f"hw_{key}", image)
        return bool(flavor or image)


def cpu_policy(wishes: Wishes) -> str | None:
    """``shared``, ``dedicated``, ``mixed`` or None. A flavor with dedicated CPUs prevails; otherwise the image may not
    request them. Raises FlavorImageConflict."""
    flavor, image = wishes.both("cpu_policy", CPU_POLICIES)
    forbidden = {"mixed": ("dedicated",), "shared": ("mixed", "dedicated")}.get(flavor or "", ())
    if image in forbidden:
        raise _conflict("hw:cpu_policy", flavor, "hw_cpu_policy", image)
    return flavor or image


def cpu_thread_policy(wishes: Wishes) -> str | None:
    """``prefer``, ``isolate``, ``require`` or None. A flavor's ``prefer`` prevails; its other values must not be
    contradicted."""
    flavor, image = wishes.both("cpu_thread_policy", CPU_THREAD_POLICIES)
    if flavor not in (None, "prefer") and image and image != flavor:
        raise _conflict("hw:cpu_thread_policy", flavor, "hw_cpu_thread_policy", image)
    return flavor or image


def isolates_emulator_threads(wishes: Wishes) -> bool:
    """Whether the emulator threads get a dedicated CPU of their own. Only a flavor can request it."""
    return _of_flavor(wishes, "hw:emulator_threads_policy", EMULATOR_THREADS_POLICIES) == "isolate"


def dedicated_cpus(wishes: Wishes) -> frozenset[int]:
    """Dedicated guest CPUs of a flavor with the mixed policy; by default its realtime CPUs. Raises InvalidValue if that
    is none or all of the CPUs, or one that the flavor does not have.
    """
    mask = wishes.extra_specs.get("hw:cpu_dedicated_mask")
    if not mask:
        return _realtime_cpus(wishes)
    cpus = _masked_cpus(mask, wishes.vcpus, "hw:cpu_dedicated_mask")
    if not cpus < _all_cpus(wishes.vcpus):
        raise InvalidValue(
            f"hw:cpu_dedicated_mask {mask!r} must leave some of the flavor's {wishes.vcpus} CPUs, and name no others",
            field="hw:cpu_dedicated_mask",
        )
    return cpus


def _realtime_cpus(wishes: Wishes) -> frozenset[int]:
    if not _is_true(wishes.extra_specs.get("hw:cpu_realtime", "")):
        raise InvalidValue(
            "hw:cpu_policy is mixed, but hw:cpu_dedicated_mask is not set", field="hw:cpu_dedicated_mask"
        )
    mask = wishes.properties.get("hw_cpu_realtime_mask") or wishes.extra_specs.get("hw:cpu_realtime_mask")
    everything = _all_cpus(wishes.vcpus)
    cpus = _masked_cpus(str(mask), wishes.vcpus, "hw:cpu_realtime_mask") if mask else everything
    alone = cpus == everything and "hw:emulator_threads_policy" not in wishes.extra_specs
    if alone or not cpus <= everything:
        raise InvalidValue(
            f"hw:cpu_realtime_mask {mask!r} must leave some of the flavor's {wishes.vcpus} CPUs, and name no others",
            field="hw:cpu_realtime_mask",
        )
    return cpus


def _masked_cpus(mask: str, vcpus: int, field: str) -> frozenset[int]:
    """CPUs of a list such as ``0-3,^2``; one that starts with ``^`` excludes CPUs from all ``vcpus``."""
    text = f"0-{vcpus - 1},{mask}" if mask.strip().startswith("^") else mask
    cpus = cpu_set.parse(text, field=field)
    if not cpus:
        raise InvalidValue(f"{field} {mask[:200]!r} names no CPU", field=field)
    return cpus


def _all_cpus(vcpus: int) -> frozenset[int]:
    if not 0 <= vcpus <= _MOST_CPUS:
        raise InvalidValue(f"the flavor has {vcpus} CPUs, but must have from 0 to {_MOST_CPUS}", field="vcpus")
    return frozenset(range(vcpus))


def memory_encryption(wishes: Wishes) -> str | None:
    """The model of memory encryption (``amd-sev`` if none is named), or None. The image must boot by UEFI on a q35
    machine; for amd-sev-snp and intel-tdx with stateless firmware, for intel-tdx without a video device. Raises
    FlavorImageConflict, InvalidValue. (Nova 33 looks at the image before the model, Nova 34 after it.)"""
    if not wishes.switch("mem_encryption"):
        return None
    model = None if wishes.release == "33" else _encryption_model(wishes)
    firmware, machine = wishes.properties.get("hw_firmware_type"), wishes.properties.get("hw_machine_type")
    if firmware != "uefi":
        raise _conflict("hw:mem_encryption", "true", "hw_firmware_type", firmware)
    if machine is not None and "q35" not in str(machine):
        raise InvalidValue(f"hw_machine_type {machine!r}: memory encryption needs q35", field="hw_machine_type")
    model = model or _encryption_model(wishes)
    if model in STATELESS_MODELS and not needs_stateless_firmware(wishes):
        raise InvalidValue(
            f"hw:mem_encryption_model {model} needs hw_firmware_stateless true", field="hw_firmware_stateless"
        )
    if model == "intel-tdx" and wishes.properties.get("hw_video_model") != "none":
        raise InvalidValue(f"hw:mem_encryption_model {model} needs hw_video_model none", field="hw_video_model")
    return model


def _encryption_model(wishes: Wishes) -> str:
    return wishes.one("mem_encryption_model", MEMORY_ENCRYPTION_MODELS[wishes.release]) or "amd-sev"


def virtual_tpm(wishes: Wishes) -> tuple[str, str] | None:
    """Version and model (``tpm-tis`` if none is named) of a virtual TPM, or None without a version."""
    version = wishes.one("tpm_version", TPM_VERSIONS)
    if version is None:
        return None
    model = wishes.one("tpm_model", TPM_MODELS) or "tpm-tis"
    if model == "tpm-crb" and version != "2.0":
        raise InvalidValue(f"hw:tpm_model tpm-crb needs hw:tpm_version 2.0, not {version}", field="hw:tpm_model")
    return version, model


def tpm_secret_security(wishes: Wishes) -> str:
    """Who can read the secret of a virtual TPM: ``user`` (default), ``host`` or ``deployment``."""
    return _of_flavor(wishes, "hw:tpm_secret_security", TPM_SECRET_SECURITY) or "user"


def needs_secure_boot(wishes: Wishes) -> bool:
    """Whether the guest must boot securely."""
    return wishes.one("secure_boot", SECURE_BOOT, prefix="os") == "required"


def needs_stateless_firmware(wishes: Wishes) -> bool:
    """Whether the image requests stateless firmware; it must boot with UEFI then: Nova 33 refuses other firmware, Nova
    34 ignores the property."""
    if not wishes.properties.get("hw_firmware_stateless"):
        return False
    firmware = wishes.properties.get("hw_firmware_type")
    if firmware != "uefi":
        if wishes.release != "33":
            return False
        raise InvalidValue(
            f"hw_firmware_stateless needs hw_firmware_type uefi, not {firmware!r}", field="hw_firmware_type"
        )
    return True


def maxphysaddr_mode(wishes: Wishes) -> str | None:
    """Width of the guest's physical addresses: that of the host (``passthrough``), emulated, or None."""
    return wishes.one("maxphysaddr_mode", MAXPHYSADDR_MODES)


def pci_numa_policy(wishes: Wishes) -> str | None:
    """The NUMA affinity policy of the guest's PCI devices, or None."""
    return wishes.one("pci_numa_affinity_policy", PCI_NUMA_POLICIES)


def pmem_labels(wishes: Wishes) -> list[str]:
    """Labels of the persistent memory namespaces that the flavor requests, one for each."""
    return [label.strip() for label in wishes.extra_specs.get("hw:pmem", "").split(",") if label.strip()]


def ephemeral_encryption(wishes: Wishes) -> tuple[bool, str | None]:
    """Whether local disks are encrypted, and in which format if one is named."""
    if not wishes.switch("ephemeral_encryption"):
        return False, None
    return True, wishes.one("ephemeral_encryption_format", ENCRYPTION_FORMATS)


def has_virtio_sound(wishes: Wishes) -> bool:
    """Whether the guest gets a virtio sound device."""
    return wishes.one("sound_model", SOUND_MODELS) == "virtio"


def _of_flavor(wishes: Wishes, field: str, valid: Collection[str]) -> str | None:
    value = wishes.extra_specs.get(field) or None
    if value is not None and value not in valid:
        raise InvalidValue(f"{field} is {value!r}, but must be one of {', '.join(valid)}", field=field)
    return value


def _is_true(text: object) -> bool:
    return str(text).strip().lower() in _TRUE


def _conflict(spec: str, flavor: object, name: str, image: object) -> FlavorImageConflict:
    message = f"the flavor's {spec} {flavor!r} contradicts the image's {name} {image!r}"
    return FlavorImageConflict(message, field=spec, hint="change or remove one of them")
