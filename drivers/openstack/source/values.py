"""Resource providers, consumers, compute nodes, instances and aggregates as plain values. It knows no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ....placement.fleet.inventories import Inventory
from ....placement.types.host import Aggregate, Host
from ....placement.types.request import Flavor, RequestSpec


@dataclass(slots=True, kw_only=True)
class SourceProvider:
    """A resource provider. ``aggregates``: uuids; ``parent``: uuid, None for a root."""

    uuid: str
    name: str
    parent: str | None = None
    generation: int = 0
    inventories: dict[str, Inventory] = field(default_factory=dict)
    traits: set[str] = field(default_factory=set)
    aggregates: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class SourceConsumer:
    """What a consumer holds: ``allocations`` = {provider uuid: {resource class: amount}}. ``consumer_type`` None: not
    told."""

    uuid: str
    project_id: str = ""
    user_id: str = ""
    consumer_type: str | None = None
    generation: int = 1
    allocations: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(slots=True)
class PlacementSource:
    """All that Placement has. Providers and consumers by uuid, in the order of the source; names of the resource
    classes and traits that exist."""

    providers: dict[str, SourceProvider] = field(default_factory=dict)
    consumers: dict[str, SourceConsumer] = field(default_factory=dict)
    resource_classes: list[str] = field(default_factory=list)
    traits: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNode:
    """A compute node with its service. ``host`` has neither instances nor aggregates; ``up``: the service had reported
    within its time when the database was read. ``row``: where it is, for reports."""

    host: Host
    up: bool
    row: Row


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table, for reports."""

    table: str
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A PCI device that an instance holds."""

    node: str
    """Uuid of the compute node."""
    vendor_id: str
    product_id: str
    dev_type: str
    numa_node: int | None


@dataclass(slots=True, kw_only=True)
class SourceInstance:
    """An instance that is not deleted. ``host`` and ``node`` are None while it is on none. ``flavor`` None: the
    database has none of it; ``spec``: what it was asked with, None where that is not known. ``has_numa``: it has NUMA
    cells of its own."""

    uuid: str
    row: Row
    host: str | None
    node: str | None
    project_id: str
    user_id: str
    availability_zone: str | None
    vm_state: str | None
    is_bfv: bool
    flavor: Flavor | None = None
    has_numa: bool = False
    spec: RequestSpec | None = None
    devices: list[Device] = field(default_factory=list)

    @property
    def image_properties(self) -> Mapping[str, Any]:
        """Those of the image it was asked with."""
        image = self.spec.image if self.spec is not None else None
        return {} if image is None else image.properties


@dataclass(slots=True, kw_only=True)
class SourceGroup:
    """A server group with its members by uuid."""

    uuid: str
    policy: str
    max_server_per_host: int = 1
    project_id: str = ""
    members: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class SourceAggregate:
    """A host aggregate of Nova with the service hosts in it."""

    aggregate: Aggregate
    hosts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class NovaSource:
    """All that Nova's databases have. Nodes and instances by uuid; ``migrations``: uuids of migrations; ``problems``:
    (row, name, what) of rows that could not be read."""

    nodes: dict[str, SourceNode] = field(default_factory=dict)
    instances: dict[str, SourceInstance] = field(default_factory=dict)
    groups: dict[str, SourceGroup] = field(default_factory=dict)
    aggregates: list[SourceAggregate] = field(default_factory=list)
    migrations: set[str] = field(default_factory=set)
    problems: list[tuple[Row, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
