"""A fleet from what Placement and Nova keep: provider trees, inventories, traits and allocations as Placement has them,
hosts, instances, aggregates, zones, server groups and devices as Nova has them. The report names what is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ...placement.api import commands as c
from ...placement.api.adoption import adopt
from ...placement.api.errors import Conflict
from ...placement.api.placement_model import PlacementModel
from ...placement.fleet.fleet import Fleet
from ...placement.fleet.inventories import INVENTORY_FIELDS, Inventory
from ...placement.load.reports import report_hosts
from ...placement.types.errors import HostlerError, UnknownName
from ...placement.types.host import Aggregate, Host, PciPool, RunningInstance
from ...placement.types.host_report import HostReport
from ...placement.types.limits import MAX_AMOUNT
from ...placement.types.request import RequestSpec
from ...placement.types.validation import STANDARD_CLASSES, is_custom, standard_traits
from ..openstack.source.compute_nodes import without_heartbeat
from ..openstack.source.nova_databases import hosts_of
from ..openstack.source.values import (
    Device,
    NovaSource,
    PlacementSource,
    Row,
    SourceConsumer,
    SourceInstance,
    SourceNode,
    SourceProvider,
)
from .cloud import Dropped, ImportReport

POLICIES: Final = ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")
MIGRATION: Final = "MIGRATION"
CHUNK: Final = 500
"""Nodes that are taken in at a time."""
_ROOMY: Final = Inventory(total=MAX_AMOUNT, min_unit=1, max_unit=MAX_AMOUNT, step_size=1)
Done = Callable[[int], None]


class CloudBuilder:
    """Makes the fleet of one cloud, once. ``fleet``, ``requests`` (what instances were asked with, by uuid) and
    ``report`` are its results."""

    def __init__(self, placement: PlacementSource, nova: NovaSource, *, now: float) -> None:
        """``now``: time of the import in seconds since the epoch, that of all that is written."""
        self._placement, self._nova, self._now = placement, nova, now
        self.fleet, self.report = Fleet(), ImportReport()
        self.requests: dict[str, RequestSpec] = {}
        self._model = PlacementModel(self.fleet)
        self._group_of: dict[str, str] = {}
        self._traits: set[str] = set()
        self._classes: set[str] = set()
        self._nodes: dict[str, SourceNode] = {}
        self._on: dict[tuple[str, str], list[SourceInstance]] = {}

    def build(self, done: Done = lambda count: None) -> None:
        """Take everything over; ``done`` is called with each number of providers and consumers done. O(rows)."""
        for row, name, problem in self._nova.problems:
            self._drop(row, name, problem)
        for note in self._nova.notes:
            self.report.note(note)
        self._names()
        for provider in _parents_first(self._placement.providers):
            self._provider(provider)
            done(1)
        self._groups()
        self._hosts()
        self._consumers(done)
        self._unplaced()
        self._adopt()
        self.report.hosts = int(self.fleet.is_host.sum())
        self._last_notes()

    def _drop(self, row: Row, what: str, why: str) -> None:
        self.report.dropped.append(Dropped(row.table, row.id, what, why))

    def _refuse(self, table: str, what: str, why: str) -> None:
        self._drop(Row(f"placement: {table}", 0), what, why)

    # Placement

    def _names(self) -> None:
        """Resource classes and traits; those that are neither custom nor known here are left out."""
        for name in self._placement.resource_classes:
            if name in STANDARD_CLASSES:
                self._classes.add(name)
            elif is_custom(name):
                self._model.apply(c.CreateResourceClass(now=self._now, name=name, may_exist=True))
                self._classes.add(name)
            elif self._is_used(name):
                self._refuse("resource_classes", name, "it is newer than os-resource-classes here: upgrade that")
        for name in self._placement.traits:
            if name in standard_traits():
                self._traits.add(name)
            elif is_custom(name):
                self._model.apply(c.CreateTrait(now=self._now, name=name))
                self._traits.add(name)
            elif any(name in provider.traits for provider in self._placement.providers.values()):
                self._refuse("traits", name, "it is newer than os-traits here: upgrade that")

    def _is_used(self, name: str) -> bool:
        return any(name in provider.inventories for provider in self._placement.providers.values())

    def _provider(self, source: SourceProvider) -> None:
        model, now, uuid = self._model, self._now, source.uuid
        try:
            model.apply(c.CreateProvider(now=now, uuid=uuid, name=source.name, parent=source.parent))
            inventories = {name: each for name, each in source.inventories.items() if name in self._classes}
            if inventories:
                self._set_inventories(uuid, inventories)
            traits = tuple(sorted(source.traits & self._traits))
            if traits:
                generation = model.provider(uuid).generation
                model.apply(c.SetTraits(now=now, provider=uuid, generation=generation, traits=traits))
            if source.aggregates:
                model.apply(c.SetAggregates(now=now, provider=uuid, aggregates=tuple(sorted(source.aggregates))))
        except HostlerError as error:
            self._refuse("resource_providers", source.name, str(error))

    def _set_inventories(self, uuid: str, inventories: Mapping[str, Inventory]) -> None:
        generation = self._model.provider(uuid).generation
        command = c.SetInventories(
            now=self._now, provider=uuid, generation=generation, inventories=dict(inventories), may_reserve_all=True
        )
        self._model.apply(command)

    # hosts

    def _groups(self) -> None:
        for group in self._nova.groups.values():
            if group.policy not in POLICIES:
                self._drop(Row("instance_groups", 0), group.uuid, f"its policy {group.policy!r} is not known")
                continue
            self.fleet.add_server_group(group.uuid, group.policy, max_server_per_host=group.max_server_per_host)
            self._group_of.update(dict.fromkeys(group.members, group.uuid))
            self.report.groups += 1

    def _hosts(self) -> None:
        """Nodes become hosts. A node whose provider Placement does not have is left out: Nova cannot choose it."""
        aggregates: dict[str, list[Aggregate]] = {}
        for each in self._nova.aggregates:
            self._learn(each.aggregate)
            for name in each.hosts:
                aggregates.setdefault(name, []).append(each.aggregate)
        known = {node.host.host for node in self._nova.nodes.values()}
        for name in sorted(aggregates.keys() - known):
            self._drop(
                Row("aggregate_hosts", 0), name, "it is in an aggregate, and there is no compute node of its name"
            )
        self._on = hosts_of(self._nova.instances.values())
        for uuid, node in self._nova.nodes.items():
            provider = self._placement.providers.get(uuid)
            if provider is None:
                self._drop(node.row, node.host.nodename, "Placement has no resource provider of its uuid")
                continue
            if provider.name != node.host.nodename:
                self.report.note(f"resource provider {provider.name} is called {node.host.nodename}, as its node is")
            mine = tuple(aggregates.get(node.host.host, ()))
            self._nodes[uuid] = replace(node, host=replace(without_heartbeat(node), aggregates=mine))
        self._report(list(self._nodes), self._now)

    def _learn(self, aggregate: Aggregate) -> None:
        """Give an aggregate that Placement knows by its uuid the name and metadata that Nova knows."""
        try:
            self.fleet.aggregate(aggregate.uuid)
        except UnknownName:
            return
        self.fleet.update_aggregate(aggregate)

    def _report(self, uuids: Sequence[str], at: float) -> None:
        """Take in nodes as they report themselves, with their instances. A node that cannot be is left out."""
        for start in range(0, len(uuids), CHUNK):
            some = uuids[start : start + CHUNK]
            try:
                report_hosts(self.fleet, [self._report_of(uuid, at) for uuid in some])
            except HostlerError as error:
                if len(some) > 1:
                    for uuid in some:
                        self._report((uuid,), at)
                else:
                    self._leave_out(some[0], str(error))

    def _leave_out(self, uuid: str, why: str) -> None:
        node = self._nodes.pop(uuid)
        self._drop(node.row, node.host.nodename, why)

    def _report_of(self, uuid: str, at: float) -> HostReport:
        node, provider = self._nodes[uuid], self._placement.providers[uuid]
        host = node.host
        instances = {each.uuid: self._running(each, uuid) for each in self._on.get((host.host, host.nodename), ())}
        inventories = {
            name: {figure: getattr(each, figure) for figure in (*INVENTORY_FIELDS, "allocation_ratio")}
            for name, each in provider.inventories.items()
            if name in self._classes
        }
        return HostReport(host=replace(host, instances=instances), at=at, service=host.service, inventories=inventories)

    def _running(self, instance: SourceInstance, provider: str) -> RunningInstance | Mapping[str, Any]:
        """An instance as its host reports it: with what Placement says that it takes there, if anything."""
        consumer = self._placement.consumers.get(instance.uuid)
        held = {} if consumer is None else consumer.allocations.get(provider, {})
        held = {name: amount for name, amount in held.items() if name in self._classes}
        if not held:
            return dict(instance.image_properties)
        return RunningInstance(
            flavor=instance.flavor,
            resources=held,
            image_properties=instance.image_properties,
            project_id=consumer.project_id if consumer is not None else instance.project_id,
            user_id=consumer.user_id if consumer is not None else instance.user_id,
            server_group=self._group_of.get(instance.uuid),
            is_bfv=instance.is_bfv,
            pci_devices=self._devices(instance, self._nova.nodes[provider].host, provider),
        )

    @staticmethod
    def _devices(instance: SourceInstance, host: Host, node: str) -> tuple[PciPool, ...]:
        pools: dict[Any, PciPool] = {}
        for device in instance.devices:
            if device.node != node:
                continue
            pool = _pool_of(device, host.pci_pools)
            key = (pool.numa_node, tuple(sorted(pool.tags.items(), key=str)))
            before = pools[key].count if key in pools else 0
            pools[key] = replace(pool, count=before + 1, total=None)
        return tuple(pools.values())

    # consumers

    def _consumers(self, done: Done) -> None:
        forced: set[str] = set()
        for consumer in self._placement.consumers.values():
            if self._is_entered(consumer) or self._write(consumer, forced):
                self._took(consumer)
            done(1)
        self._report(sorted(forced & self._nodes.keys()), self._now + 1.0)

    def _took(self, consumer: SourceConsumer) -> None:
        instance = self._nova.instances.get(consumer.uuid)
        if instance is not None:
            self.report.guests += 1
            spec = instance.spec
            if spec is None and instance.flavor is not None:
                spec = RequestSpec(flavor=instance.flavor, is_bfv=instance.is_bfv)
            if spec is not None:
                self.requests[consumer.uuid] = spec

    def _is_entered(self, consumer: SourceConsumer) -> bool:
        """True for an instance that its host has brought, with all that it holds."""
        if consumer.consumer_type not in (None, "INSTANCE") or len(consumer.allocations) != 1:
            return False
        instance = self._nova.instances.get(consumer.uuid)
        (provider, held), *_ = consumer.allocations.items()
        node = self._nodes.get(provider)
        on_it = (
            instance is not None
            and node is not None
            and (instance.host, instance.node)
            == (
                node.host.host,
                node.host.nodename,
            )
        )
        return on_it and self._classes.issuperset(held) and self.fleet._kernel.consumers.get(consumer.uuid) >= 0

    def _write(self, consumer: SourceConsumer, forced: set[str]) -> bool:
        """Enter a consumer as Placement has it, also where that is more than its providers may give."""
        allocations: dict[str, dict[str, int]] = {}
        for provider, held in consumer.allocations.items():
            taken = {name: amount for name, amount in held.items() if name in self._classes}
            if taken:
                allocations[provider] = taken
        kind = consumer.consumer_type
        if kind is None and consumer.uuid in self._nova.migrations:
            kind = MIGRATION
        given = c.ConsumerAllocations(
            allocations=allocations,
            project_id=consumer.project_id or "unknown",
            user_id=consumer.user_id or "unknown",
            consumer_type=kind,
        )
        command = c.SetAllocations(now=self._now, consumers={consumer.uuid: given})
        try:
            try:
                self._model.apply(command)
            except Conflict:
                self._force(command, allocations, forced)
        except HostlerError as error:
            self._refuse("allocations", consumer.uuid, str(error))
            return False
        return True

    def _force(self, command: c.SetAllocations, allocations: Mapping[str, Mapping[str, int]], forced: set[str]) -> None:
        """Enter allocations that the inventories of their providers do not allow, as Placement keeps them once they are
        there. HostlerError for a provider that has no inventory of a class at all."""
        for uuid, held in allocations.items():
            known = self._placement.providers[uuid].inventories
            for name in held:
                if name not in known:
                    raise Conflict(f"provider {uuid} has no inventory of {name}", field="allocations")
        rooms = {uuid: self._inventories(uuid) for uuid in allocations}
        try:
            for uuid, inventories in rooms.items():
                self._set_inventories(uuid, dict.fromkeys(inventories, _ROOMY))
            self._model.apply(command)
        finally:
            for uuid, inventories in rooms.items():
                self._set_inventories(uuid, inventories)
        forced.update(allocations)

    def _inventories(self, uuid: str) -> dict[str, Inventory]:
        known = self._placement.providers[uuid].inventories
        return {name: inventory for name, inventory in known.items() if name in self._classes}

    # the rest

    def _adopt(self) -> None:
        """Generations as Placement has them, the types of consumers that their hosts brought, and inventories that
        reports leave as they are."""
        placement = self._placement
        providers = {uuid: each.generation for uuid, each in placement.providers.items()}
        consumers = {uuid: (each.generation, each.consumer_type) for uuid, each in placement.consumers.items()}
        adopt(self.fleet, providers, consumers, self._now)

    def _unplaced(self) -> None:
        """Instances on a host that hold nothing in Placement, and those whose host is not taken over."""
        standing = {(node.host.host, node.host.nodename) for node in self._nodes.values()}
        for instance in self._nova.instances.values():
            if not instance.host or instance.uuid in self._placement.consumers:
                continue
            if (instance.host, instance.node or "") in standing:
                why = "it has no allocation in Placement: it counts in the figures of its host only"
            else:
                why = f"its host {instance.host} is not taken over"
            self._drop(instance.row, instance.uuid, why)

    def _last_notes(self) -> None:
        report, fleet = self.report, self.fleet
        if any(each.has_numa for each in self._nova.instances.values()):
            report.note(
                "NUMA cells of hosts are taken with what is used of them, and not which guest uses what: a guest that "
                "is released gives them back with the next report of its host"
            )
        if any(not each.inventories for each in self._placement.providers.values()):
            count = sum(not each.inventories for each in self._placement.providers.values())
            report.note(f"{count} resource providers have no inventory")
        unknown = sum(uuid not in self._nova.instances for uuid in self._placement.consumers)
        if unknown:
            report.note(f"{unknown} consumers are not instances of these cells (migrations, or of other services)")
        beyond = [fleet.name(int(row)) for row in fleet.drift()]
        if beyond:
            report.note(f"guests need more than these hosts may give, or differ from them: {', '.join(beyond[:10])}")


def _pool_of(device: Device, pools: Iterable[PciPool]) -> PciPool:
    """The pool that a device was taken from: one of its vendor, product and NUMA node, else one that is made."""
    for pool in pools:
        tags = pool.tags
        same = tags.get("vendor_id") == device.vendor_id and tags.get("product_id") == device.product_id
        if same and pool.numa_node == device.numa_node and tags.get("dev_type", device.dev_type) == device.dev_type:
            return pool
    tags = {"vendor_id": device.vendor_id, "product_id": device.product_id, "dev_type": device.dev_type}
    return PciPool(count=1, numa_node=device.numa_node, tags=tags)


def _parents_first(providers: Mapping[str, SourceProvider]) -> list[SourceProvider]:
    """Providers with each behind its parent, else in their order. O(providers)."""
    found: dict[str, SourceProvider] = {}
    for provider in providers.values():
        line = []
        while provider.uuid not in found and provider not in line:
            line.append(provider)
            above = providers.get(provider.parent or "")
            if above is None:
                break
            provider = above
        found.update((each.uuid, each) for each in reversed(line))
    return list(found.values())


__all__ = ["CloudBuilder"]
