"""Instances that hosts report: unknown ones become consumers, with what they take where the host says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ...ext.constants import REPORTED, SEEN
from ..devices.pci import give_back
from ..fleet.consumers import Detail, Extras
from ..fleet.fleet import Fleet
from ..fleet.interned_pci import check_pools, is_plain
from ..types.errors import InvalidValue
from ..types.from_builtins import from_plain
from ..types.host import RunningInstance
from ..types.request import Flavor
from ..types.validation import check_resource_class, check_text, shown, uuid_words, whole_number
from .checks import is_running

_SIZES: Final = ("vcpus", "memory_mb", "root_gb", "ephemeral_gb", "swap")


def running(value: object, field: str) -> RunningInstance | Mapping[str, Any]:
    """A reported instance as a RunningInstance with a size, or else its image properties. InvalidValue or UnknownName
    if it is neither."""
    if is_running(value):
        value = from_plain(value, RunningInstance, field)
    if not isinstance(value, RunningInstance):
        if value and not is_plain(value):
            raise InvalidValue(f"{field} must be plain properties, got {shown(value)}", field=field)
        return dict(value) if isinstance(value, Mapping) else {}
    if value.flavor is None and value.resources is None:
        raise InvalidValue(f"{field} needs a flavor or resources", field=field)
    if value.flavor is not None:
        _check_flavor(value.flavor, field)
    for name, amount in (value.resources or {}).items():
        whole_number(amount, f"{field}.{check_resource_class(name)}", least=1)
    for name in ("project_id", "user_id"):
        check_text(getattr(value, name), f"{field}.{name}")
    check_pools(value.pci_devices, f"{field}.pci_devices")
    if not is_plain(value.image_properties):
        raise InvalidValue(f"{field}.image_properties must be plain", field=f"{field}.image_properties")
    return value


def _check_flavor(flavor: object, field: str) -> None:
    if not isinstance(flavor, Flavor):
        raise InvalidValue(f"{field}.flavor must be a Flavor, got {shown(flavor)}", field=f"{field}.flavor")
    for name in _SIZES:
        whole_number(getattr(flavor, name), f"{field}.flavor.{name}")


def properties_of(value: object) -> Mapping[str, Any]:
    """Image properties of a reported instance. O(1)."""
    if isinstance(value, RunningInstance):
        return value.image_properties
    if isinstance(value, Mapping):
        return value.get("image_properties", {}) if is_running(value) else value
    return {}


def enter(fleet: Fleet, row: int, instances: Iterable[tuple[str, object]]) -> None:
    """Make consumers of instances that are not known, on the host at ``row``. One without a size holds no allocation:
    its usage is in the figures of its host. Figures are the caller's to settle. O(instances)."""
    plain: list[Detail] = []
    for uuid, given in instances:
        field = f"instances.{uuid}"
        value, words = running(given, field), uuid_words(uuid, "instances")
        if isinstance(value, RunningInstance):
            fleet._consumers.claim(_sized(fleet, row, words, value, field))
        else:
            project, user = fleet._projects.id(""), fleet._users.id("")
            plain.append(Detail(words, row, -1, project, user, -1, REPORTED, None, value or None))
    fleet._consumers.claim_many(plain)


def _sized(fleet: Fleet, row: int, words: tuple[int, int], value: RunningInstance, field: str) -> Detail:
    flavor, resources = value.flavor, value.resources
    if resources is None:
        assert flavor is not None
        resources = _resources(fleet, row, flavor, value.is_bfv)
    amounts = {fleet.resource_class(name, create=True): int(amount) for name, amount in resources.items()}
    if flavor is not None:
        figures = flavor.vcpus, flavor.memory_mb, flavor.local_disk_mb(is_bfv=value.is_bfv)
    else:
        vcpus = resources.get("VCPU", 0) + resources.get("PCPU", 0)
        figures = vcpus, resources.get("MEMORY_MB", 0), 1024 * resources.get("DISK_GB", 0)
    group = -1 if value.server_group is None else fleet._group_id(value.server_group)
    extras = Extras(pci=value.pci_devices) if value.pci_devices else None
    if extras is not None:
        # The host's pools are what is free beside them; claiming takes them out again.
        _give(fleet, row, value)
    project, user = fleet._projects.id(value.project_id), fleet._users.id(value.user_id)
    shape = fleet._shape(amounts, *figures)
    return Detail(words, row, shape, project, user, group, SEEN, extras, dict(value.image_properties) or None)


def _give(fleet: Fleet, row: int, value: RunningInstance) -> None:
    with_devices = fleet._pci_states.id(give_back(fleet._pci_states.of(row), value.pci_devices))
    fleet._pci_states.replace(row, with_devices)


def _resources(fleet: Fleet, row: int, flavor: Flavor, is_bfv: bool) -> dict[str, int]:
    """What a flavor takes of a host's own provider, as Nova asks of Placement."""
    dedicated = flavor.extra_specs.get("hw:cpu_policy") == "dedicated"
    pcpu = fleet._store.inventory["total"][fleet.resource_class("PCPU"), row] > 0
    disk = (0 if is_bfv else flavor.root_gb) + flavor.ephemeral_gb - (-flavor.swap // 1024)
    amounts = {"PCPU" if dedicated and pcpu else "VCPU": flavor.vcpus, "MEMORY_MB": flavor.memory_mb, "DISK_GB": disk}
    return {name: amount for name, amount in amounts.items() if amount}
