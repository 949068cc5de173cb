"""Checks of requests: a bad request is refused as a whole, naming the field, before any state changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..fleet.server_groups import GROUP_POLICIES
from ..types.errors import DuplicateName, InvalidValue, UnknownName
from ..types.limits import MAX_AMOUNT
from ..types.request import (
    Destination,
    Flavor,
    Image,
    InstanceNumaCell,
    InstanceNumaTopology,
    PciRequest,
    Request,
    RequestSpec,
    ServerGroup,
)
from ..types.validation import MAX_NESTING, finite, is_deeper, shown, uuid_words, whole_number
from .requested import check_requested

MAX_TEXT: Final = 1 << 20
"""Maximum total length in characters of the extra specs, image properties or hints of one request."""
MAX_WORD: Final = 255
"""Maximum length of a name in characters."""
MAX_INSTANCES: Final = 100_000
MAX_ALTERNATES: Final = 1_000
CPU_POLICIES: Final = ("shared", "dedicated", "mixed")
THREAD_POLICIES: Final = ("prefer", "isolate", "require")
EMULATOR_POLICIES: Final = ("share", "isolate")
PCI_NUMA_POLICIES: Final = ("required", "preferred", "legacy", "socket")


def check_request(request: object) -> None:
    """Raise InvalidValue, UnknownName or DuplicateName if the request (not its spec) is malformed. O(instances)."""
    if not isinstance(request, Request):
        raise InvalidValue(f"a Request is needed, got {type(request).__name__}", field="request")
    spec, uuids, group = request.spec, request.instance_uuids, request.server_group
    if not isinstance(spec, RequestSpec):
        raise InvalidValue(f"spec must be a RequestSpec, got {type(spec).__name__}", field="spec")
    if spec.requested_destination is not None:
        _is_a(spec.requested_destination, Destination, "requested_destination")
    if type(request.alternates) is not int or request.alternates:
        whole_number(request.alternates, "alternates", most=MAX_ALTERNATES)
    if type(uuids) is not tuple or len(uuids) != 1 or type(uuids[0]) is not str:
        _check_uuids(uuids)
    if request.now is not None:
        finite(request.now, "now")
    _text(request.project_id, "project_id")
    _text(request.user_id, "user_id")
    if request.request_id is not None:
        _text(request.request_id, "request_id")
    if isinstance(group, ServerGroup):
        _check_group(group)
    elif group is not None:
        uuid_words(group, "server_group")


def check_uuids(request: Request) -> None:
    """Raise InvalidValue for a malformed instance uuid, in requests that claim nothing. O(instances)."""
    for uuid in request.instance_uuids:
        uuid_words(uuid, "instance_uuids")


def _check_uuids(uuids: Any) -> None:
    _texts(uuids, "instance_uuids")
    if len(uuids) > MAX_INSTANCES:
        raise InvalidValue(f"at most {MAX_INSTANCES} instances at once, got {len(uuids)}", field="instance_uuids")
    if len(uuids) > 1 and len({uuid.lower().replace("-", "") for uuid in uuids}) < len(uuids):
        raise DuplicateName("an instance uuid is given twice", field="instance_uuids")


def _check_group(group: ServerGroup) -> None:
    _text(group.uuid, "server_group.uuid")
    if not isinstance(group.policy, str) or group.policy not in GROUP_POLICIES:
        raise UnknownName.among("server group policy", str(group.policy), GROUP_POLICIES, field="server_group.policy")
    whole_number(group.max_server_per_host, "server_group.max_server_per_host", least=1)
    _text_set(group.members, "server_group.members")
    _text_set(group.hosts, "server_group.hosts")


def check_spec(spec: RequestSpec) -> None:
    """Raise InvalidValue if the spec is malformed. O(size of the spec)."""
    check_flavor_fields(spec.flavor)
    if spec.image is not None:
        _check_image(spec.image)
    _optional_text(spec.availability_zone, "availability_zone")
    _check_hints(spec.scheduler_hints)
    for name in ("ignore_hosts", "force_hosts", "force_nodes"):
        _texts(getattr(spec, name), name)
    if spec.requested_destination is not None:
        _check_destination(spec.requested_destination)
    for request in _sequence(spec.pci_requests, "pci_requests"):
        _check_pci(_is_a(request, PciRequest, "pci_requests"))
    if spec.numa_topology is not None:
        _check_numa(_is_a(spec.numa_topology, InstanceNumaTopology, "numa_topology"))
    _flag(spec.is_bfv, "is_bfv")
    if spec.prepare is not None:
        _flag(spec.prepare, "prepare")
    check_requested(spec)


def check_flavor_fields(flavor: Flavor) -> None:
    """Raise InvalidValue if the flavor of a spec is malformed. O(size of the flavor)."""
    _is_a(flavor, Flavor, "flavor")
    _text(flavor.name, "flavor.name")
    for name in ("vcpus", "memory_mb", "root_gb", "ephemeral_gb", "swap"):
        value = getattr(flavor, name)
        if type(value) is not int or not 0 <= value <= MAX_AMOUNT:
            whole_number(value, f"flavor.{name}", most=MAX_AMOUNT)
    specs, field = flavor.extra_specs, "flavor.extra_specs"
    for key, value in _mapping(specs, field).items():
        if not isinstance(value, str):
            raise InvalidValue(f"{field} must map strings to strings, got {shown(key)}: {shown(value)}", field=field)
    _limited(specs.items(), field)


def _check_image(image: Image) -> None:
    _is_a(image, Image, "image")
    _optional_text(image.id, "image.id")
    _optional_text(image.disk_format, "image.disk_format")
    properties = _mapping(image.properties, "image.properties")
    if is_deeper(properties, MAX_NESTING):
        problem = f"image.properties is nested more than {MAX_NESTING} levels deep"
        raise InvalidValue(problem, field="image.properties")
    _limited(((key, str(value)) for key, value in properties.items()), "image.properties")


def _check_hints(hints: Any) -> None:
    for key, values in _mapping(hints, "scheduler_hints").items():
        if not isinstance(values, (tuple, list)) or not all(isinstance(value, str) for value in values):
            raise InvalidValue(
                f"scheduler_hints must map strings to lists of strings, got {shown(key)}: {shown(values)}",
                field="scheduler_hints",
            )
    _limited(((key, *values) for key, values in hints.items()), "scheduler_hints")


def _check_destination(destination: Destination) -> None:
    for name in ("host", "node", "cell_uuid"):
        _optional_text(getattr(destination, name), f"requested_destination.{name}")
    _flag(destination.allow_cross_cell_move, "requested_destination.allow_cross_cell_move")
    _texts(destination.aggregates, "requested_destination.aggregates", most=MAX_TEXT)
    _text_set(destination.forbidden_aggregates, "requested_destination.forbidden_aggregates")


def _check_pci(request: PciRequest) -> None:
    whole_number(request.count, "pci_requests.count", least=1)
    if not _sequence(request.spec, "pci_requests.spec"):
        raise InvalidValue("pci_requests.spec must name at least one kind of device", field="pci_requests.spec")
    for alternative in request.spec:
        _mapping(alternative, "pci_requests.spec")
    _optional_text(request.alias_name, "pci_requests.alias_name")
    _optional_text(request.request_id, "pci_requests.request_id")
    _optional_text(request.requester_id, "pci_requests.requester_id")
    _one_of(request.numa_policy, PCI_NUMA_POLICIES, "pci_requests.numa_policy")


def _check_numa(topology: InstanceNumaTopology) -> None:
    _one_of(topology.emulator_threads_policy, EMULATOR_POLICIES, "numa_topology.emulator_threads_policy")
    for cell in _sequence(topology.cells, "numa_topology.cells"):
        _is_a(cell, InstanceNumaCell, "numa_topology.cells")
        for name in ("id", "memory"):
            whole_number(getattr(cell, name), f"numa_topology.cells.{name}")
        for name in ("cpuset", "pcpuset"):
            for cpu in _set(getattr(cell, name), f"numa_topology.cells.{name}"):
                whole_number(cpu, f"numa_topology.cells.{name}")
        if cell.pagesize is not None:
            whole_number(cell.pagesize, "numa_topology.cells.pagesize", least=-3)
        _one_of(cell.cpu_policy, CPU_POLICIES, "numa_topology.cells.cpu_policy")
        _one_of(cell.cpu_thread_policy, THREAD_POLICIES, "numa_topology.cells.cpu_thread_policy")


# single values


def _is_a(value: Any, kind: type[Any], field: str) -> Any:
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise InvalidValue(f"{field} must be {article} {kind.__name__}, got {shown(value)}", field=field)
    return value


def _text(value: object, field: str, most: int = MAX_WORD) -> None:
    if not isinstance(value, str) or len(value) > most:
        raise InvalidValue(f"{field} must be a string of at most {most} characters, got {shown(value)}", field=field)


def _optional_text(value: object, field: str) -> None:
    if value is not None:
        _text(value, field)


def _flag(value: object, field: str) -> None:
    if not isinstance(value, bool):
        raise InvalidValue(f"{field} must be true or false, got {shown(value)}", field=field)


def _one_of(value: object, choices: tuple[str, ...], field: str) -> None:
    if value is not None and (not isinstance(value, str) or value not in choices):
        raise InvalidValue(f"{field} must be one of {', '.join(choices)}, got {shown(value)}", field=field)


def _sequence(value: Any, field: str) -> Any:
    """``value`` if it is a tuple or list; a string is refused although it is a sequence."""
    if not isinstance(value, (tuple, list)):
        raise InvalidValue(f"{field} must be a tuple, got {shown(value)}", field=field)
    return value


def _set(value: Any, field: str) -> Any:
    if not isinstance(value, (frozenset, set)):
        raise InvalidValue(f"{field} must be a frozenset, got {shown(value)}", field=field)
    return value


def _texts(values: Any, field: str, most: int = MAX_WORD) -> None:
    for value in _sequence(values, field):
        _text(value, field, most)


def _text_set(values: Any, field: str) -> None:
    for value in _set(values, field):
        _text(value, field)


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{field} must be a mapping, got {shown(value)}", field=field)
    for key in value:
        _text(key, field, MAX_TEXT)
    return value


def _limited(items: Iterable[tuple[str, ...]], field: str) -> None:
    size = sum(len(text) for texts in items for text in texts)
    if size > MAX_TEXT:
        raise InvalidValue(f"{field} hold {size} characters, at most {MAX_TEXT} are accepted", field=field)
