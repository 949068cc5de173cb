"""Checks of what callers ask: a bad request is refused whole, naming the field, before it reaches the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .columns import MAX_AMOUNT
from .errors import InvalidValue, UnknownName
from .fleet import GROUP_POLICIES, finite, uuid_words, whole_number
from .request import Destination, Flavor, Image, InstanceNumaTopology, PciRequest, Request, RequestSpec, ServerGroup

MAX_TEXT: Final = 1 << 20
"""Characters that all extra specs, image properties or hints of one request may have together."""
MAX_INSTANCES: Final = 100_000
MAX_ALTERNATES: Final = 1_000


def check_request(request: object) -> None:
    """Raise InvalidValue or UnknownName if the request (not its spec) is malformed."""
    if not isinstance(request, Request):
        raise InvalidValue(f"a Request is needed, got {type(request).__name__}", field="request")
    if not isinstance(request.spec, RequestSpec):
        raise InvalidValue(f"spec must be a RequestSpec, got {type(request.spec).__name__}", field="spec")
    if request.alternates:
        whole_number(request.alternates, "alternates", most=MAX_ALTERNATES)
    if len(request.instance_uuids) > MAX_INSTANCES:
        raise InvalidValue(
            f"at most {MAX_INSTANCES} instances at once, got {len(request.instance_uuids)}", field="instance_uuids"
        )
    if request.now is not None:
        finite(request.now, "now")
    for name in ("project_id", "user_id"):
        _text(getattr(request, name), name, most=255)
    if isinstance(request.server_group, ServerGroup):
        _check_group(request.server_group)
    elif request.server_group is not None:
        uuid_words(request.server_group, "server_group")


def _check_group(group: ServerGroup) -> None:
    if group.policy not in GROUP_POLICIES:
        raise UnknownName.among("server group policy", str(group.policy), GROUP_POLICIES, field="server_group.policy")
    whole_number(group.max_server_per_host, "server_group.max_server_per_host", least=1)


def check_spec(spec: RequestSpec) -> None:
    """Raise InvalidValue if the spec is malformed. O(size of the spec)."""
    _check_flavor(spec.flavor)
    if spec.image is not None:
        _check_image(spec.image)
    if spec.availability_zone is not None:
        _text(spec.availability_zone, "availability_zone", most=255)
    _check_words(spec.scheduler_hints, "scheduler_hints")
    for name in ("ignore_hosts", "force_hosts", "force_nodes"):
        for host in getattr(spec, name):
            _text(host, name, most=255)
    if spec.requested_destination is not None and not isinstance(spec.requested_destination, Destination):
        raise InvalidValue("requested_destination must be a Destination", field="requested_destination")
    for request in spec.pci_requests:
        if not isinstance(request, PciRequest):
            raise InvalidValue("pci_requests must be PciRequest values", field="pci_requests")
        whole_number(request.count, "pci_requests.count", least=1)
    if spec.numa_topology is not None:
        _check_numa(spec.numa_topology)


def _check_flavor(flavor: Flavor) -> None:
    if not isinstance(flavor, Flavor):
        raise InvalidValue(f"flavor must be a Flavor, got {type(flavor).__name__}", field="flavor")
    _text(flavor.name, "flavor.name", most=255)
    for name in ("vcpus", "memory_mb", "root_gb", "ephemeral_gb", "swap"):
        whole_number(getattr(flavor, name), f"flavor.{name}", most=MAX_AMOUNT)
    _check_mapping(flavor.extra_specs, "flavor.extra_specs")


def _check_image(image: Image) -> None:
    if not isinstance(image, Image):
        raise InvalidValue(f"image must be an Image, got {type(image).__name__}", field="image")
    if not isinstance(image.properties, Mapping):
        raise InvalidValue("image.properties must be a mapping", field="image.properties")
    size = sum(len(str(key)) + len(str(value)) for key, value in image.properties.items())
    if size > MAX_TEXT:
        raise InvalidValue(
            f"image.properties hold {size} characters, at most {MAX_TEXT} are taken", field="image.properties"
        )


def _check_numa(topology: InstanceNumaTopology) -> None:
    if not isinstance(topology, InstanceNumaTopology):
        raise InvalidValue("numa_topology must be an InstanceNumaTopology", field="numa_topology")
    for cell in topology.cells:
        whole_number(cell.memory, "numa_topology.memory")
        for cpu in (*cell.cpuset, *cell.pcpuset):
            whole_number(cpu, "numa_topology.cpuset")


def _check_mapping(values: Any, field: str) -> None:
    if not isinstance(values, Mapping):
        raise InvalidValue(f"{field} must be a mapping", field=field)
    size = 0
    for key, value in values.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidValue(f"{field} must map strings to strings, got {key!r:.80}: {value!r:.80}", field=field)
        size += len(key) + len(value)
    if size > MAX_TEXT:
        raise InvalidValue(f"{field} hold {size} characters, at most {MAX_TEXT} are taken", field=field)


def _check_words(hints: Any, field: str) -> None:
    if not isinstance(hints, Mapping):
        raise InvalidValue(f"{field} must be a mapping", field=field)
    size = 0
    for key, values in hints.items():
        if not isinstance(key, str) or isinstance(values, str) or not all(isinstance(value, str) for value in values):
            raise InvalidValue(f"{field} must map strings to lists of strings", field=field)
        size += len(key) + sum(len(value) for value in values)
    if size > MAX_TEXT:
        raise InvalidValue(f"{field} hold {size} characters, at most {MAX_TEXT} are taken", field=field)


def _text(value: object, field: str, *, most: int) -> None:
    if not isinstance(value, str) or len(value) > most:
        raise InvalidValue(f"{field} must be a text of at most {most} characters, got {value!r:.80}", field=field)
