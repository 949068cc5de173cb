"""Runs a third-party Nova filter, unchanged, as a Hostler filter in host form.

Such a filter is a class without constructor arguments that has ``host_passes(host_state, spec_obj)`` and maybe Nova's
``run_filter_once_per_request`` and ``RUN_ON_REBUILD``. It receives read-only objects with the attributes of Nova's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..fleet.fleet import GROUP_POLICIES
from ..fleet.group_members import kept_members, uuids_of_kept
from ..types.errors import LONGEST, HostlerError, InvalidValue, RuleFailed, UnknownName, said
from ..types.guarded import check_judges_singly
from ..types.host import Aggregate, HostState, Service
from ..types.request import Destination, Flavor, Image, Request, ServerGroup
from . import nova_objects, nova_requested
from .base import Filter
from .host_attributes import FIELDS
from .nova_requested import NovaObject

if TYPE_CHECKING:
    from ..types.options import Options

_NOVA_READS = {"hypervisor_hostname": "nodename", "pci_stats": "pci_pools"}


class NovaFilterAdapter(Filter):
    """Base of adapted filters; ``NovaFilterAdapter.of(nova_class)`` makes one that can be registered like any other.

    The result is assumed to depend on every host field unless the Nova class declares the fields it reads: ``reads =
    ("stats", "num_instances")``. Fewer fields mean more cache hits.
    """

    nova_class: ClassVar[type[Any]]
    stands_for: ClassVar[frozenset[str]] = frozenset()
    """Names of the Nova rules that the class derives from: what these judge is judged."""
    judges_candidates: ClassVar[bool] = False
    """True if it leaves each host the allocation candidates that fit (Nova 33 CandidateFilterMixin)."""

    @classmethod
    def of(cls, nova_class: type[Any]) -> type[NovaFilterAdapter]:
        """A filter class with the name and behaviour of ``nova_class``. Raises InvalidValue if that is not a Nova
        filter."""
        if not callable(getattr(nova_class, "host_passes", None)):
            raise InvalidValue(
                f"{nova_class!r} is not a Nova filter: it has no method host_passes", field="nova_filters"
            )
        check_judges_singly(nova_class, "BaseFilter", "filter_all")
        attributes = {
            "__doc__": nova_class.__doc__,
            "name": nova_class.__name__,
            "once_per_request": bool(getattr(nova_class, "run_filter_once_per_request", False)),
            "runs_on_rebuild": bool(getattr(nova_class, "RUN_ON_REBUILD", False)),
            "nova_class": nova_class,
            "stands_for": frozenset(each.__name__ for each in nova_class.__mro__ if each is not object),
            "judges_candidates": any(each.__name__ == "CandidateFilterMixin" for each in nova_class.__mro__),
        }
        return type(nova_class.__name__, (cls,), attributes)

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._nova_filter = self.nova_class()
        self._passes = getattr(self._nova_filter, "_filter_one", self._nova_filter.host_passes)
        self._reads = _fields_read(self.nova_class)

    def fields(self, request: Request) -> frozenset[str]:
        return self._reads

    def host_passes(self, host: HostState, request: Request) -> bool:
        """What the Nova class answers. Raises InvalidValue, which names the class, if that raises."""
        with calling(self.name, host.host, time_of(host, request)):
            return bool(self._passes(NovaHostState(host), nova_request_spec(request, host)))

    def candidate_passes(self, host: HostState, request: Request, mappings: Mapping[str, Sequence[str]]) -> bool:
        """What the Nova class answers where one allocation candidate of the host is left, whose request groups have
        these providers."""
        candidate = {"allocations": {}, "mappings": {suffix: list(uuids) for suffix, uuids in mappings.items()}}
        with calling(self.name, host.host, time_of(host, request)):
            state = NovaHostState(host, [candidate])
            return bool(self._passes(state, nova_request_spec(request, host)))

    def reason(self, host: HostState, request: Request) -> str:
        return f"refused by {self.nova_class.__module__}.{self.nova_class.__qualname__}"


@contextlib.contextmanager
def calling(name: str, host: str, now: float | None) -> Iterator[None]:
    """Around a call of a third-party rule: its clock is the decision's, and what it raises names it (RuleFailed)."""
    try:
        with nova_objects.clock(now):
            yield
    except (HostlerError, MemoryError):
        raise
    except Exception as error:  # a third-party rule may fail in any way
        text = f"{name} failed{host and f' for host {host}'}: {said(error)}"
        raise RuleFailed(text[:LONGEST], field=name) from error


def time_of(host: HostState, request: Request) -> float | None:
    """The time of a decision; without one that of the host's last heartbeat, as heartbeats are not checked then."""
    now = request.now if request.now is not None else getattr(getattr(host, "fleet", None), "now", None)
    if now is not None:
        return float(now)
    service = host.service
    seen = service.created_at if service.last_seen_up is None else service.last_seen_up
    return 0.0 if seen is None else seen


def _fields_read(nova_class: type[Any]) -> frozenset[str]:
    reads = getattr(nova_class, "reads", None)
    if reads is None:
        return FIELDS
    named = frozenset(_NOVA_READS.get(name, name) for name in reads)
    for name in sorted(named - FIELDS):
        raise UnknownName.among("host field", name, FIELDS, field=f"{nova_class.__name__}.reads")
    return named


# Read-only counterparts of Nova's objects


class NovaHostState:
    """A host with the additional attributes of Nova's HostState: ``hypervisor_hostname``, ``limits``,
    ``allocation_candidates``, ``pci_stats``, and with ``service``, ``metrics``, ``aggregates`` and ``numa_topology`` in
    Nova's form. Every other attribute is that of the host."""

    __slots__ = ("_host", "allocation_candidates", "limits")

    def __init__(self, host: HostState, candidates: list[dict[str, Any]] | None = None) -> None:
        self._host = host
        self.limits: dict[str, Any] = {}
        self.allocation_candidates = [{"allocations": {}, "mappings": {}}] if candidates is None else candidates

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    @property
    def hypervisor_hostname(self) -> str:
        return self._host.nodename

    @property
    def service(self) -> Mapping[str, Any]:
        """The service's record, with times as datetimes. One without heartbeats was seen at the time of the request."""
        service = self._host.service
        values = {name: getattr(service, name) for name in Service.__dataclass_fields__}
        seen, created = nova_objects.moment(service.last_seen_up), nova_objects.moment(service.created_at)
        if seen is None and created is None:
            created = nova_objects.moment(getattr(getattr(self._host, "fleet", None), "now", None) or 0.0)
        times = {"last_seen_up": seen, "created_at": created, "updated_at": seen}
        return MappingProxyType(
            {"host": self._host.host, "binary": "nova-compute", "topic": "compute"} | values | times
        )

    @property
    def numa_topology(self) -> Any:
        return nova_objects.host_topology(self._host.numa_topology)

    @property
    def metrics(self) -> list[NovaObject]:
        return [NovaObject(name=name, value=value) for name, value in self._host.metrics.items()]

    @property
    def pci_stats(self) -> Any:
        """Nova's PciDeviceStats where Nova is installed, else an object with ``pools``."""
        made = nova_objects.pci_stats(self.numa_topology, self._host.pci_pools)
        if made is not None:
            return made
        pools = [{**pool.tags, "numa_node": pool.numa_node, "count": pool.count} for pool in self._host.pci_pools]
        return NovaObject(pools=pools)

    @property
    def aggregates(self) -> list[NovaObject]:
        return [NovaAggregate(aggregate, self._host) for aggregate in self._host.aggregates]


class NovaAggregate(NovaObject):
    """An aggregate as Nova's filters read it; ``hosts`` are the service hosts of all its members."""

    def __init__(self, aggregate: Aggregate, host: HostState) -> None:
        zone = aggregate.metadata.get("availability_zone")
        super().__init__(
            uuid=aggregate.uuid, name=aggregate.name, metadata=dict(aggregate.metadata), availability_zone=zone
        )
        self.__dict__["_of"] = host

    @property
    def hosts(self) -> list[str]:
        """Names of its service hosts, in the order of rows. O(hosts)."""
        host = self.__dict__["_of"]
        fleet = getattr(host, "fleet", None)
        if fleet is None:
            return [host.host]
        number = next(at for at, each in enumerate(fleet.aggregates) if each.uuid == self.uuid)
        rows = np.flatnonzero(fleet.is_host[: fleet.rows])
        classes = {at for at, each in enumerate(fleet._classes) if number in each.aggregates}
        member = np.isin(fleet._store.row["class_of"][rows], np.array(sorted(classes), np.int64))
        return list(dict.fromkeys(fleet._service_host(row) for row in rows[member].tolist()))


class NovaRequestSpec(NovaObject):
    """Nova's RequestSpec as filters read it."""

    scheduler_hints: dict[str, list[str]]

    def get_scheduler_hint(self, hint_name: str, default: Any = None) -> Any:
        """A hint's one value, the list if it has several, ``default`` if it is not given."""
        values = self.scheduler_hints.get(hint_name)
        if values is None:
            return default
        return values[0] if len(values) == 1 else values


def nova_request_spec(request: Request, host: HostState | None = None) -> NovaRequestSpec:
    """``request`` as Nova's filters read it; a server group that the fleet of ``host`` keeps has its members. As in
    Nova one object for all hosts, but for a kept group. O(size of the request + members)."""
    shared, group = _shared_spec(request), request.server_group
    if not isinstance(group, str) or host is None:
        return shared
    kept = _kept_group(getattr(host, "fleet", None), group, request.instance_uuids)
    return NovaRequestSpec(**{**vars(shared), "instance_group": _instance_group(kept)})


def _shared_spec(request: Request) -> NovaRequestSpec:
    """What all hosts are judged for; that of the last request is kept. Whether Nova's own objects are among it depends
    on whether Nova is imported by now."""
    global _last
    with_nova = nova_objects.installed("nova.scheduler") is not None
    known = _last
    if known is None or known[0] is not request or known[1] != with_nova:
        known = _last = request, with_nova, _spec_of(request)
    return known[2]


_last: tuple[Request, bool, NovaRequestSpec] | None = None


def _spec_of(request: Request) -> NovaRequestSpec:
    spec, flavor = request.spec, request.flavor
    devices = nova_objects.pci_requests(spec.pci_requests) if spec.pci_requests else None
    return NovaRequestSpec(
        **nova_requested.parts(spec),
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
        numa_topology=nova_objects.guest_topology(spec.numa_topology),
        pci_requests=NovaObject(requests=devices or list(spec.pci_requests)) if spec.pci_requests else None,
        is_bfv=spec.is_bfv,
        ignore_hosts=list(spec.ignore_hosts) or None,
        force_hosts=list(spec.force_hosts) or None,
        force_nodes=list(spec.force_nodes) or None,
    )


def _kept_group(fleet: Any, uuid: str, own: tuple[str, ...]) -> ServerGroup | str:
    """A server group that the fleet keeps, as a value with its members and their service hosts. ``own``: instances of
    the request. O(members' hosts)."""
    if fleet is None:
        return uuid
    kept = fleet._group_id(uuid)
    policy, at_most, _ = fleet._kernel.group(kept)
    rows = kept_members(fleet, kept, own)
    return ServerGroup(
        uuid=uuid,
        policy=next(name for name, number in GROUP_POLICIES.items() if number == policy),
        max_server_per_host=at_most,
        members=frozenset(uuids_of_kept(fleet, kept, rows, own)),
        hosts=frozenset(fleet._service_host(row) for row in rows),
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


def _image(image: Image | None) -> NovaObject:
    """Nova's rules always have an image; that of a guest without one has no properties."""
    if image is None:
        return NovaObject(id=None, properties=NovaObject())
    known = {"id": image.id, "disk_format": image.disk_format}
    given = {name: value for name, value in known.items() if value is not None}
    return NovaObject(**given, properties=NovaObject(**nova_requested.image_properties(image)))


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
