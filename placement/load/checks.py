"""Checks of hosts to be loaded, before anything changes: every field has the right type and is in range."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from types import NoneType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...ext.tables import parse_many
from ..fleet.interned_pci import check_pools, is_plain
from ..types.errors import HostlerError, InvalidValue
from ..types.host import DERIVED, Host, NumaTopology, RunningInstance
from ..types.limits import MAX_AMOUNT
from ..types.networks import NetworkMetadata
from ..types.validation import (
    LONGEST_NAME,
    MOST_RATIO,
    check_name,
    check_text,
    check_traits,
    finite,
    ratio,
    shown,
    uuid_words,
    whole_number,
)

LEAST: Final = {
    "vcpus_total": 0,
    "vcpus_used": 0,
    "total_usable_ram_mb": 0,
    "total_usable_disk_gb": 0,
    "reserved_vcpus": 0,
    "reserved_ram_mb": 0,
    "reserved_disk_gb": 0,
    "disk_mb_used": 0,
    "num_instances": 0,
    "num_io_ops": 0,
    "failed_builds": 0,
    "free_ram_mb": -MAX_AMOUNT,
    "free_disk_mb": -MAX_AMOUNT * 1024,
}
"""Integer fields of a host, each with its minimum."""
MOST: Final = dict.fromkeys(LEAST, MAX_AMOUNT) | {
    "disk_mb_used": MAX_AMOUNT * 1024,
    "free_disk_mb": MAX_AMOUNT * 1024,
}
DERIVABLE: Final = ("free_ram_mb", "free_disk_mb")
"""Amounts that a host may leave out."""
RATIOS: Final = ("cpu_allocation_ratio", "ram_allocation_ratio", "disk_allocation_ratio")
_SEEN: Final = ("service.last_seen_up", "service.created_at")

_PLAIN: Final[Mapping[str, frozenset[type]]] = {
    **dict.fromkeys(("host", "nodename", "uuid"), frozenset({str})),
    **dict.fromkeys(LEAST, frozenset({int})),
    **dict.fromkeys(RATIOS, frozenset({int, float})),
    **dict.fromkeys(("cell_uuid", "hypervisor_type", "host_ip", "cpu_info"), frozenset({str, NoneType})),
    **dict.fromkeys(("service.disabled", "service.forced_down"), frozenset({bool})),
    **dict.fromkeys(_SEEN, frozenset({int, float, NoneType})),
    "service.disabled_reason": frozenset({str, NoneType}),
    "service.version": frozenset({int, NoneType}),
    "hypervisor_version": frozenset({int, NoneType}),
    **dict.fromkeys(("stats", "metrics", "instances"), frozenset({dict})),
    "pci_pools": frozenset({tuple}),
    "numa_topology": frozenset({NumaTopology, NoneType}),
    **dict.fromkeys(("supported_instances", "aggregates"), frozenset({tuple})),
    "traits": frozenset({frozenset}),
}
"""Fields and their usual types; hosts with other types are checked one by one."""
_FIELDS: Final = tuple(_PLAIN)
_VALUES: Final = attrgetter(*_FIELDS)

Fields = dict[str, tuple[Any, ...]]
"""Values of all hosts by field."""


def read_hosts(hosts: Sequence[object]) -> Fields:
    """The fields of hosts, checked. InvalidValue or UnknownName naming host and field. O(hosts), plus the check of rare
    fields."""
    try:
        fields: Fields = dict(zip(_FIELDS, zip(*map(_VALUES, hosts), strict=True), strict=True))
        plain = all(type(host) is Host for host in hosts) and _is_plain(fields)
    except (AttributeError, OverflowError):
        plain = False
    if not plain:
        for host in hosts:
            check_host(host)
        fields = dict(zip(_FIELDS, zip(*map(_VALUES, hosts), strict=True), strict=True))
    for name in _RARE:
        for host, value in zip(hosts, fields[name], strict=True):
            if value:
                _check(host, name, _CHECKS[name])
    return fields


def _is_plain(fields: Fields) -> bool:
    """True if checks of whole columns find no error."""
    if any(not set(map(type, fields[field])) <= types for field, types in _PLAIN.items()):
        return False
    addresses = (address for address in fields["host_ip"] if address is not None)
    names = (*fields["host"], *filter(None, fields["nodename"]), *addresses)
    if not all(names) or max(map(len, names)) > LONGEST_NAME or not all(map(str.isprintable, names)):
        return False
    for name in LEAST:
        values = np.array(fields[name], np.int64)
        if name in DERIVABLE:
            values = values[values != DERIVED]
        if len(values) and (values.min() < LEAST[name] or values.max() > MOST[name]):
            return False
    for name in (*RATIOS, *_SEEN):
        numbers = np.array(fields[name], np.float64)
        given = numbers[~np.isnan(numbers)]
        if not np.all(np.isfinite(given)):
            return False
        if name in RATIOS and (len(given) < len(numbers) or given.min() < 0 or given.max() > MOST_RATIO):
            return False
        if name in _SEEN and len(given) != sum(value is not None for value in fields[name]):
            return False
    versions = [version for version in fields["hypervisor_version"] if version is not None]
    return not versions or (min(versions) >= 0 and max(versions) <= MAX_AMOUNT)


def read_uuids(hosts: Sequence[Host], uuids: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]] | None:
    """Uuids of hosts as pairs of 64-bit words, and which hosts have one; None if none has. InvalidValue naming the host
    with a malformed uuid."""
    given = np.array(list(map(bool, uuids)))
    if not given.any():
        return None
    words = np.zeros((len(hosts), 2), np.uint64)
    try:
        words[given] = parse_many([uuid for uuid in uuids if uuid])
    except ValueError:
        for host in hosts:
            _check(host, "uuid", _uuid)
        raise
    return words, given


def check_host(host: object) -> Host:
    """``host``, or InvalidValue or UnknownName naming it and the field that is of the wrong type or out of range."""
    if not isinstance(host, Host):
        raise InvalidValue(f"hosts must be Host values, got {shown(host)}", field="hosts")
    check_name(host.host, "host")
    for field, check in _CHECKS.items():
        _check(host, field, check)
    return host


def check_static(host: Host) -> None:
    """InvalidValue or UnknownName naming the host and the invalid static field. ``read_hosts`` does not check these:
    they are checked once per host class."""
    for field in _STATIC:
        _check(host, field, _CHECKS[field])


def _check(host: Any, field: str, check: Callable[[Any, str], object]) -> None:
    try:
        try:
            value = attrgetter(field)(host)
        except AttributeError:
            raise InvalidValue(f"{field} is missing", field=field) from None
        check(value, field)
    except HostlerError as error:
        raise of_host(error, host.host) from None


def of_host(error: HostlerError, host: object) -> HostlerError:
    """The error with the host's name in front."""
    name = host if isinstance(host, str) else shown(host)
    return type(error)(f"host {name}: {error.args[0]}", field=error.field, hint=error.hint)


def _whole(field: str) -> Callable[[object, str], int]:
    def check(value: object, name: str) -> int:
        if field in DERIVABLE and value == DERIVED:
            return DERIVED
        return whole_number(value, name, least=LEAST[field], most=MOST[field])

    return check


def _optional(check: Callable[[Any, str], object]) -> Callable[[Any, str], object]:
    """A check that also accepts None."""
    return lambda value, field: None if value is None else check(value, field)


def _nodename(value: object, field: str) -> None:
    if value != "":
        check_name(value, field)


def _uuid(value: object, field: str) -> None:
    if value != "":
        uuid_words(value, field)


def _flag(value: object, field: str) -> None:
    if not isinstance(value, bool):
        raise InvalidValue(f"{field} must be true or false, got {shown(value)}", field=field)


def _mapping(value: object, field: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{field} must be a mapping, got {shown(value)}", field=field)
    return value


def _stats(value: object, field: str) -> None:
    for name, text in _mapping(value, field).items():
        check_text(name, field)
        check_text(text, f"{field}.{name}")


def _metrics(value: object, field: str) -> None:
    for name, number in _mapping(value, field).items():
        finite(number, f"{field}.{check_text(name, field)}")


def _instances(value: object, field: str) -> None:
    given = _mapping(value, field)
    try:
        parse_many(list(given))
    except (ValueError, TypeError):
        for uuid in given:
            uuid_words(uuid, field)
        raise
    for uuid, properties in given.items():
        if not properties and isinstance(properties, (dict, NoneType)):
            continue
        if isinstance(properties, RunningInstance) or is_running(properties):
            continue  # checked where it is entered
        if properties and not is_plain(properties):
            raise InvalidValue(f"{field}.{uuid} must be plain properties, got {shown(properties)}", field=field)


def is_running(value: object) -> bool:
    """True for the plain form of a RunningInstance: image properties have no such names. O(1)."""
    return isinstance(value, Mapping) and ("flavor" in value or "resources" in value)


def _instance_types(value: object, field: str) -> None:
    if not isinstance(value, (tuple, list)) or not all(isinstance(row, (tuple, list)) for row in value):
        raise InvalidValue(f"{field} must be a tuple of strings, got {shown(value)}", field=field)
    for row in value:
        for text in row:
            check_text(text, field)


def _aggregates(value: object, field: str) -> None:
    if not isinstance(value, Collection) or isinstance(value, (str, bytes, Mapping)):
        raise InvalidValue(f"{field} must be aggregates, got {shown(value)}", field=field)


def _topology(value: object, field: str) -> None:
    if not isinstance(value, NumaTopology):
        raise InvalidValue(f"{field} must be a NumaTopology, got {shown(value)}", field=field)
    try:
        for cell in value.cells:
            for name in ("cpu_usage", "memory_usage"):
                whole_number(getattr(cell, name), f"{field}.{name}")
            networks = cell.network_metadata
            if networks is not None and not isinstance(networks, NetworkMetadata):
                raise InvalidValue(f"{field}.network_metadata must be a NetworkMetadata", field=field)
    except (AttributeError, TypeError):
        raise InvalidValue(f"{field} has no NUMA cells, but {shown(value.cells)}", field=field) from None


_CHECKS: Final[Mapping[str, Callable[[Any, str], object]]] = {
    "nodename": _nodename,
    "uuid": _uuid,
    **{name: _whole(name) for name in LEAST},
    **dict.fromkeys(RATIOS, ratio),
    **dict.fromkeys(("cell_uuid", "hypervisor_type", "cpu_info"), _optional(check_text)),
    "host_ip": _optional(check_name),
    "hypervisor_version": _optional(whole_number),
    "service.disabled": _flag,
    "service.forced_down": _flag,
    "service.disabled_reason": _optional(check_text),
    "service.version": _optional(whole_number),
    **dict.fromkeys(_SEEN, _optional(finite)),
    "supported_instances": _instance_types,
    "stats": _stats,
    "metrics": _metrics,
    "aggregates": _aggregates,
    "instances": _instances,
    "numa_topology": _optional(_topology),
    "pci_pools": check_pools,
    "traits": lambda value, field: check_traits(value),
}
_RARE: Final = ("stats", "metrics", "instances", "numa_topology", "pci_pools")
"""Fields that most hosts leave empty and that must be checked one by one."""
_STATIC: Final = (
    "service.version",
    *("cell_uuid", "hypervisor_type", "cpu_info", "service.disabled_reason", "supported_instances", "traits"),
    "aggregates",
)
"""Fields of a host class that need more than a check of types."""
