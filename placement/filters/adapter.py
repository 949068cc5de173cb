"""Runs a third-party Nova filter, unchanged, as a Hostler filter in host form.

Such a filter is a class without constructor arguments that has ``host_passes(host_state, spec_obj)`` and maybe Nova's
``run_filter_once_per_request`` and ``RUN_ON_REBUILD``. It receives read-only objects with the attributes of Nova's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from ..types.errors import InvalidValue, UnknownName
from ..types.host import Aggregate, HostState, Service
from ..types.request import Destination, Flavor, Image, Request, ServerGroup
from .base import Filter
from .host_attributes import FIELDS

if TYPE_CHECKING:
    from ..types.options import Options

_NOVA_READS = {"hypervisor_hostname": "nodename", "pci_stats": "pci_pools"}


class NovaFilterAdapter(Filter):
    """Base of adapted filters; ``NovaFilterAdapter.of(nova_class)`` makes one that can be registered like any other.

    The result is assumed to depend on every host field unless the Nova class declares the fields it reads: ``reads =
    ("stats", "num_instances")``. Fewer fields mean more cache hits.
    """

    nova_class: ClassVar[type[Any]]

    @classmethod
    def of(cls, nova_class: type[Any]) -> type[NovaFilterAdapter]:
        """A filter class with the name and behaviour of ``nova_class``. Raises InvalidValue if that is not a Nova
        filter."""
        if not callable(getattr(nova_class, "host_passes", None)):
            raise InvalidValue(
                f"{nova_class!r} is not a Nova filter: it has no method host_passes", field="nova_filters"
            )
        attributes = {
            "__doc__": nova_class.__doc__,
            "name": nova_class.__name__,
            "once_per_request": bool(getattr(nova_class, "run_filter_once_per_request", False)),
            "runs_on_rebuild": bool(getattr(nova_class, "RUN_ON_REBUILD", False)),
            "nova_class": nova_class,
        }
        return type(nova_class.__name__, (cls,), attributes)

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._nova_filter = self.nova_class()
        self._reads = _fields_read(self.nova_class)

    def fields(self, request: Request) -> frozenset[str]:
        return self._reads

    def host_passes(self, host: HostState, request: Request) -> bool:
        return bool(self._nova_filter.host_passes(NovaHostState(host), nova_request_spec(request)))

    def reason(self, host: HostState, request: Request) -> str:
        return f"refused by {self.nova_class.__module__}.{self.nova_class.__qualname__}"


def _fields_read(nova_class: type[Any]) -> frozenset[str]:
    reads = getattr(nova_class, "reads", None)
    if reads is None:
        return FIELDS
    named = frozenset(_NOVA_READS.get(name, name) for name in reads)
    for name in sorted(named - FIELDS):
        raise UnknownName.among("host field", name, FIELDS, field=f"{nova_class.__name__}.reads")
    return named


# Read-only counterparts of Nova's objects


class NovaObject(SimpleNamespace):
    """A Nova object as filters read it: attributes, ``name in obj``, ``obj.get(name, default)``."""

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self))

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute ``name``, or ``default`` if it is not set."""
        return getattr(self, name, default)

    def obj_attr_is_set(self, name: str) -> bool:
        """Whether the attribute ``name`` is set."""
        return hasattr(self, name)


class NovaHostState:
    """A host with the additional attributes of Nova's HostState: ``hypervisor_hostname``, ``limits``, ``pci_stats``,
    and with ``service``, ``metrics`` and ``aggregates`` in Nova's form. Every other attribute is that of the host."""

    __slots__ = ("_host", "limits")

    def __init__(self, host: HostState) -> None:
        self._host = host
        self.limits: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    @property
    def hypervisor_hostname(self) -> str:
        return self._host.nodename

    @property
    def service(self) -> Mapping[str, Any]:
        service = self._host.service
        return MappingProxyType(
            {"host": self._host.host} | {name: getattr(service, name) for name in Service.__dataclass_fields__}
        )

    @property
    def metrics(self) -> list[NovaObject]:
        return [NovaObject(name=name, value=value) for name, value in self._host.metrics.items()]

    @property
    def pci_stats(self) -> NovaObject:
        pools = [{**pool.tags, "numa_node": pool.numa_node, "count": pool.count} for pool in self._host.pci_pools]
        return NovaObject(pools=pools)

    @property
    def aggregates(self) -> list[NovaObject]:
        return [_aggregate(aggregate, self._host.host) for aggregate in self._host.aggregates]


class NovaRequestSpec(NovaObject):
    """Nova's RequestSpec as filters read it."""

    scheduler_hints: dict[str, list[str]]

    def get_scheduler_hint(self, hint_name: str, default: Any = None) -> Any:
        """A hint's one value, the list if it has several, ``default`` if it is not given."""
        values = self.scheduler_hints.get(hint_name)
        if values is None:
            return default
        return values[0] if len(values) == 1 else values


def nova_request_spec(request: Request) -> NovaRequestSpec:
    """``request`` as Nova's filters read it. O(size of the request)."""
    spec, flavor = request.spec, request.flavor
    return NovaRequestSpec(
        flavor=_flavor(flavor),
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mb,
        root_gb=flavor.root_gb,
        ephemeral_gb=flavor.ephemeral_gb,
        swap=flavor.swap,
        image=_image(spec.image),
        project_id=request.project_id,
        user_id=request.user_id,
        availability_zone=spec.availability_zone,
        scheduler_hints={hint: list(values) for hint, values in spec.scheduler_hints.items()},
        num_instances=len(request.instance_uuids) or 1,
        instance_uuid=request.instance_uuids[0] if request.instance_uuids else None,
        instance_group=_instance_group(request.server_group),
        requested_destination=_destination(spec.requested_destination),
        numa_topology=spec.numa_topology,
        pci_requests=NovaObject(requests=list(spec.pci_requests)) if spec.pci_requests else None,
        is_bfv=spec.is_bfv,
        ignore_hosts=list(spec.ignore_hosts) or None,
        force_hosts=list(spec.force_hosts) or None,
        force_nodes=list(spec.force_nodes) or None,
    )


def _flavor(flavor: Flavor) -> NovaObject:
    return NovaObject(
        name=flavor.name,
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mb,
        root_gb=flavor.root_gb,
        ephemeral_gb=flavor.ephemeral_gb,
        swap=flavor.swap,
        extra_specs=dict(flavor.extra_specs),
    )


def _image(image: Image | None) -> NovaObject | None:
    if image is None:
        return None
    known = {"id": image.id, "disk_format": image.disk_format}
    given = {name: value for name, value in known.items() if value is not None}
    return NovaObject(**given, properties=NovaObject(**image.properties))


def _instance_group(group: ServerGroup | str | None) -> NovaObject | None:
    if not isinstance(group, ServerGroup):
        return None if group is None else NovaObject(uuid=group)
    return NovaObject(
        uuid=group.uuid,
        policy=group.policy,
        policies=[group.policy],
        rules={"max_server_per_host": group.max_server_per_host} if group.policy == "anti-affinity" else {},
        members=sorted(group.members),
        hosts=sorted(group.hosts),
    )


def _destination(destination: Destination | None) -> NovaObject | None:
    if destination is None:
        return None
    cell = None if destination.cell_uuid is None else NovaObject(uuid=destination.cell_uuid)
    return NovaObject(
        host=destination.host,
        node=destination.node,
        cell=cell,
        allow_cross_cell_move=destination.allow_cross_cell_move,
        aggregates=list(destination.aggregates) or None,
        forbidden_aggregates=sorted(destination.forbidden_aggregates),
    )


def _aggregate(aggregate: Aggregate, host: str) -> NovaObject:
    """An aggregate as Nova's filters read it; its only known member is the host being checked."""
    zone = aggregate.metadata.get("availability_zone")
    return NovaObject(
        uuid=aggregate.uuid,
        name=aggregate.name,
        metadata=dict(aggregate.metadata),
        availability_zone=zone,
        hosts=list(getattr(aggregate, "hosts", (host,))),
    )
