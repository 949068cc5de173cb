"""The fleet: resource providers, hosts, inventories, consumers and server groups, with a change log and versions.

The fleet stores state and makes no decisions. ``Fleet`` is the facade; each part has a module of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import BUILDING, REPORTED
from ..types.errors import InUse
from ..types.host import Aggregate, PciPool
from ..types.host_classes import HostClass
from ..types.validation import check_name, check_trait, check_traits, finite, ratio, uuid_words, whole_number
from . import host_reports, invariants
from .change_log import Rows, rows_array
from .consumers import Consumer, Detail, Extras
from .heads import Head, Heads
from .inventories import Inventory
from .parts import FleetParts
from .provider_index import ProviderIndex
from .reclaim import Reclaim
from .server_groups import GROUP_POLICIES


class Fleet(FleetParts):
    """All providers of one scheduler, at one version. Not thread-safe. Rows are stable ids in load order; freed rows
    are used again.

    ``seed`` generates the uuids of providers that are loaded without one; ``capacity`` is the number of rows to
    allocate at first. An error leaves the fleet unchanged. ``load.add_hosts`` and ``load.load_hosts`` add hosts.

    A Fleet is a handle on one version: ``Engine.fork`` makes another handle on the same state, and what is done by one
    is never seen by the other. The state is at the handle that was used last; using another one brings it there, which
    costs what was changed between the two.
    """

    __slots__ = ("_head",)

    def __init__(self, *, seed: int = 0, capacity: int = 64) -> None:
        super().__init__(seed=seed, capacity=capacity)
        self._head = self._heads.adopt(Head(self))
        self._index = ProviderIndex(self._state())
        """What searches over many providers look up."""
        self._reclaim = Reclaim(self._state())
        """Gives back interned values that nothing refers to."""

    def __repr__(self) -> str:
        hosts, consumers = int(np.count_nonzero(self.is_host)), self._kernel.consumer_count
        return f"<Fleet of {hosts} hosts, {len(self) - hosts} other providers and {consumers} consumers>"

    # versions

    def _set_present(self, present: bool) -> None:
        """The state comes to this handle's version, or goes to another's. For ``heads`` alone."""
        self.__class__ = Fleet if present else _AwayFleet

    def _entered(self) -> Fleet:
        """This handle, once the state is at its version."""
        return self

    def fork(self) -> Fleet:
        """A handle on a version of its own that starts as this one is now. O(1)."""
        other = Fleet.__new__(Fleet)
        other.__dict__ = self.__dict__
        other._head = Head(other)
        self._heads.share(other._head)
        return other

    @staticmethod
    def _replace(fleet: Fleet, fork: Fleet) -> None:
        """Have a fleet go on from the version of its fork, which is not used any more. O(1) if the state is there."""
        _heads_of(fleet).replace(_head_of(fleet), _head_of(fork))

    @staticmethod
    def _drop(fleet: Fleet, fork: Fleet) -> None:
        """Go back to the version of a fleet; its fork is not used any more. O(changes)."""
        _heads_of(fleet).drop(_head_of(fleet), _head_of(fork))

    def _state(self) -> Fleet:
        """The state at whichever version it is, for what the versions share (compiled signatures, indices): who uses
        it has entered a handle before."""
        other = Fleet.__new__(Fleet)
        other.__dict__ = self.__dict__
        return other

    def advance(self, now: float | None, service_down_time: float = 60) -> None:
        """Set the time (None: keep it) and the service down time. O(1) while no service changes between up and down."""
        self._services.advance(self.now if now is None else now, service_down_time)

    def _rewind(self, now: float | None) -> None:
        """Go back to an earlier time; None: to no time at all. O(rows)."""
        self._services.advance(now, self.service_down_time)

    def check(self) -> None:
        """Assert every invariant. O(everything): about a second for 100,000 hosts."""
        invariants.check(self)

    def drift(self) -> Rows:
        """Rows of hosts that differ from what their guests take: reported free memory, disk or used vCPUs, guests that
        no longer fit, or guests that the host has not for longer than the claim timeout. O(rows + consumers)."""
        return host_reports.drift(self._change_log, self._consumers)

    def _drift_of(self, rows: Rows) -> Rows:
        """Those of ``rows`` that ``drift`` would name. O(rows + their consumers)."""
        return host_reports.drift(self._change_log, self._consumers, rows)

    # providers

    def add_provider(
        self,
        name: str,
        *,
        uuid: str | None = None,
        parent: str | None = None,
        traits: Iterable[str] = (),
        aggregates: Iterable[Aggregate] = (),
    ) -> int:
        """Add a resource provider that is not a compute host: a child (NUMA cell, GPU), a sharing provider or a pool.

        Returns its row. DuplicateName, UnknownName or InvalidValue for bad input. O(1).
        """
        self._reclaim.if_due()
        check_name(name, "name")
        above = self.row(parent, field="parent") if parent is not None else -1
        known = check_traits(traits)
        words = None if uuid is None else np.array([uuid_words(uuid, "uuid")], np.uint64)
        with self._history.undoing():
            ids = self._aggregate_table.ids(aggregates)
            rows = self._providers.add([name], words)
            with self._change_log.rewriting(rows):
                self._trees.place(int(rows[0]), above)
                self._store.row["class_of"][rows] = self._change_log.class_id(HostClass(traits=known, aggregates=ids))
        return int(rows[0])

    def remove_provider(self, name: str) -> None:
        """Remove a provider. InUse if it has consumers, usage by consumers elsewhere, or children. O(rows)."""
        self._reclaim.if_due()
        if self.row(name) in self._consumers.also_on:
            raise InUse(f"{name} has instances that stand on another host as well", field="provider")
        self._providers.remove(name)

    def set_parent(self, name: str, parent: str | None) -> None:
        """Re-parent a provider with its descendants (None: it becomes a root). InvalidValue for a cycle. O(rows)."""
        above = self.row(parent, field="parent") if parent is not None else -1
        self._trees.move(self.row(name), above, f"{parent} is {name} itself or a descendant of it")

    def tree(self, root: int) -> list[int]:
        """Rows of a root's tree, the root first, then in row order. O(1) while no provider is added, removed or
        moved."""
        return self._trees.tree(root)

    def sharing_providers(self) -> list[int]:
        """Rows with the trait MISC_SHARES_VIA_AGGREGATE. O(1) while no provider is added, removed or moved."""
        return self._trees.sharing()

    def set_traits(self, name: str, traits: Iterable[str]) -> None:
        """Replace a provider's traits. UnknownName for a trait that is neither standard nor CUSTOM_. O(traits)."""
        self._reclaim.if_due()
        row, known = self.row(name), check_traits(traits)
        with self._change_log.editing(rows_array(row)):
            self._change_log.reclass(rows_array(row), traits=known)
        self._change_log.topology_epoch += 1

    def set_inventory(self, name: str, inventories: Mapping[str, Inventory]) -> None:
        """Replace a provider's inventories; capacity below the current usage is accepted. InUse if an omitted class has
        usage."""
        self._inventories.set(self.row(name), name, inventories)

    def inventory(self, name: str) -> dict[str, tuple[Inventory, int]]:
        """{resource class: (inventory, used)} of a provider. O(classes)."""
        return self._inventories.of(self.row(name))

    def _fits_row(self, row: int, resources: Mapping[int, int]) -> bool:
        """Whether the amounts (by resource class index) fit one provider, by Placement's rule. O(resources)."""
        return self._inventories.fits(row, resources)

    # aggregates

    def _aggregate_ids(self, aggregates: Iterable[Aggregate]) -> tuple[int, ...]:
        """Ids of aggregates; new ones are added. InvalidValue if one differs from the known aggregate with its uuid."""
        return self._aggregate_table.ids(aggregates)

    def aggregate(self, uuid: str) -> Aggregate:
        """The aggregate with this uuid; UnknownName otherwise. O(1)."""
        return self._aggregate_table.of(uuid)

    def update_aggregate(self, aggregate: Aggregate) -> None:
        """Replace an aggregate's name and metadata. O(1), but every compiled signature is rebuilt on next use."""
        self._aggregate_table.update(aggregate)

    def remove_aggregate(self, uuid: str) -> None:
        """Remove the aggregate with this uuid, and with it its availability zone if no other one names it. UnknownName;
        InUse, as from Nova, while a host or another provider is in it, or storage that was said to stand in it.
        O(rows), and every compiled signature is rebuilt on next use."""
        self._reclaim.if_due()
        uuid = self._aggregate_table.of(uuid).uuid
        for host, uuids in self.pools.aggregates.items():
            if uuid in uuids:
                raise InUse(f"storage of {host} stands in the aggregate", field="aggregate", hint="take it out first")
        self._aggregate_table.remove(uuid)

    def set_aggregates(self, name: str, aggregates: Iterable[Aggregate]) -> None:
        """Replace the aggregates of a provider. O(aggregates)."""
        self._reclaim.if_due()
        row = self.row(name)
        with self._history.undoing():
            ids = self._aggregate_table.ids(aggregates)
            with self._change_log.editing(rows_array(row)):
                self._change_log.reclass(rows_array(row), aggregates=ids)
            self._change_log.topology_epoch += 1

    # hosts

    def set_service(
        self,
        name: str | Sequence[str],
        *,
        disabled: bool | None = None,
        disabled_reason: str | None = None,
        forced_down: bool | None = None,
    ) -> None:
        """Enable, disable or force down the compute service of one or several hosts; None keeps a setting. O(hosts)."""
        self._reclaim.if_due()
        rows = rows_array(self._providers.host(name)) if isinstance(name, str) else self._providers.hosts(name)
        self._services.set_service(rows, disabled=disabled, disabled_reason=disabled_reason, forced_down=forced_down)

    def heartbeat(self, name: str, at: float) -> None:
        """A host's compute service reported at ``at`` (seconds since the epoch). O(1)."""
        self._services.heartbeats(rows_array(self._providers.host(name)), finite(at, "heartbeat"))

    def heartbeats(
        self, hosts: Sequence[str] | NDArray[np.integer[Any]], at: float | NDArray[np.floating[Any]]
    ) -> None:
        """The compute services of hosts, by node names or rows, reported at ``at``: one time for all or one each.

        The change log lists only services that change between up and down, until a rule reads heartbeat times
        themselves. O(hosts).
        """
        self._services.heartbeats(self._providers.hosts(hosts), at)

    def report(
        self,
        name: str,
        *,
        free_ram_mb: float | None = None,
        free_disk_mb: float | None = None,
        vcpus_used: float | None = None,
        num_io_ops: float | None = None,
        num_instances: float | None = None,
        failed_builds: float | None = None,
        at: float | None = None,
    ) -> None:
        """Load single figures that a compute node reports, memory and disk in MiB; None leaves a figure as it is.
        Weighers read these; what fits is still decided by the allocations.

        ``at``: time of the report, seconds since the epoch; one that is older than what is known is left aside. While
        guests of the host are being built, the report may be older than their claims: no figure then says that less is
        used than its guests take. ``report_hosts`` takes complete reports that say which guests they include.
        InvalidValue if a figure is no whole number. O(the host's guests).
        """
        given = {
            "free_ram_mb": free_ram_mb,
            "free_disk_mb": free_disk_mb,
            "vcpus_used": vcpus_used,
            "num_io_ops": num_io_ops,
            "num_instances": num_instances,
            "failed_builds": failed_builds,
        }
        reported = {figure: value for figure, value in given.items() if value is not None}
        host_reports.report(
            self._change_log,
            self._consumers,
            self._providers.host(name),
            reported,
            at=at,
            keeps_claims=self._inventories.figures_follow,
        )

    def pci_pools(self, row: int) -> tuple[PciPool, ...]:
        """PCI devices of a row that a guest may take; empty if none are known. O(1)."""
        return self._pci_states.available(row)

    def instances(self, row: int) -> dict[str, Mapping[str, Any]]:
        """uuid -> image properties of the consumers on the row's service host, all its nodes', as Nova tracks them."""
        return dict(pair for node in self._nodes.siblings(row) for pair in self._consumers.on(node))

    # server groups and consumers

    def add_server_group(self, uuid: str, policy: str, *, max_server_per_host: int = 1) -> None:
        """Add a server group: its members are the consumers placed with its uuid. O(1)."""
        self._server_groups.add(uuid, policy, max_server_per_host)

    def remove_server_group(self, uuid: str) -> None:
        """Remove a server group. Its members stay placed and belong to no group. UnknownName if there is none. O(1)."""
        self._server_groups.remove(uuid)

    def _group_id(self, uuid: str) -> int:
        """Id of a server group; UnknownName otherwise. O(1)."""
        return self._server_groups.id(uuid)

    def _shape(self, resources: Mapping[int, int], vcpus: int, memory_mb: int, disk_mb: int) -> int:
        """Id of the resources that a consumer takes on its host: {resource class index: amount}, and vCPUs, MiB and MiB
        of Nova's HostState. O(1) for known shapes."""
        return self._consumers.shape(resources, vcpus, memory_mb, disk_mb)

    def claim(
        self,
        uuid: str,
        row: int,
        shape: int,
        *,
        project_id: str = "",
        user_id: str = "",
        group: int = -1,
        building: bool = False,
        extras: Extras | None = None,
        image_properties: Mapping[str, Any] | None = None,
    ) -> int:
        """Create consumer ``uuid`` on ``row`` with ``shape`` and ``extras``, without a capacity check: the caller has
        made it.

        Returns the consumer's dense id. DuplicateName if it exists; CapacityExceeded or InvalidValue if NUMA cells or
        PCI devices are not free. O(1).
        """
        words, flags = uuid_words(uuid, "consumer"), BUILDING if building else 0
        project, user = self._projects.id(project_id), self._users.id(user_id)
        detail = Detail(words, row, shape, project, user, group, flags, extras, image_properties)
        return self._consumers.claim(detail)

    def _placed(self, ids: Sequence[int] | NDArray[np.int32]) -> None:
        """Record the consumers that a batch kernel added, in order. O(1)."""
        self._consumers.placed(ids)

    def release(self, consumers: Iterable[int]) -> None:
        """Remove consumers (dense ids) and return their resources. O(consumers)."""
        self._consumers.release(list(consumers))

    def _release_uuids(self, uuids: Sequence[str]) -> int:
        """Remove consumers by uuid; UnknownName if one does not exist, InvalidValue if one is given twice.
        O(consumers)."""
        self._reclaim.if_due()
        return self._consumers.release_uuids(uuids)

    def _set_building(self, consumer: int, building: bool) -> None:
        """Count a consumer among its host's I/O operations, or stop counting it. O(1)."""
        self._consumers.set_building(consumer, building)

    def consumer_id(self, uuid: str, *, field: str = "consumer") -> int:
        """Dense id of a consumer; UnknownName if there is none. O(1)."""
        return self._consumers.id(uuid, field)

    def consumer(self, uuid: str) -> Consumer:
        """A consumer as a value; UnknownName if there is none. O(1)."""
        return self._consumers.value(self.consumer_id(uuid), self.resource_classes, self._group_uuids)


def _head_of(fleet: Fleet) -> Head:
    """The head of a handle, which does not enter it."""
    head: Head = object.__getattribute__(fleet, "_head")
    return head


def _heads_of(fleet: Fleet) -> Heads:
    heads: Heads = object.__getattribute__(fleet, "__dict__")["_heads"]
    return heads


class _AwayFleet(Fleet):
    """A handle while the state is at another version: any use of an attribute brings it back first."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return object.__getattribute__(self, name)
        if name != "_set_present":
            _heads_of(self).enter(_head_of(self))
        return object.__getattribute__(self, name)


__all__ = [
    "BUILDING",
    "GROUP_POLICIES",
    "REPORTED",
    "Consumer",
    "Extras",
    "Fleet",
    "Inventory",
    "check_name",
    "check_trait",
    "finite",
    "ratio",
    "uuid_words",
    "whole_number",
]
