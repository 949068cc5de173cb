"""The rows of a cell as they were read last, and what a look finds beside them. Nothing known is changed before the
look has succeeded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from ..source.changed_rows import Service, key_of, microseconds
from ..source.compute_nodes import SERVICE_COLUMNS
from .window import Window

SETTLED: Final = 2.0
"""Seconds after a row was first seen, by a clock that is not set, after which another change has another time, also
where the time has no fraction. A change that is committed more than a second after another with the same ``updated_at``
is not seen by it: the comparison of all rows finds it when the node has its turn."""
_SEEN: Final = SERVICE_COLUMNS.index("last_seen_up")
_VERSION: Final = SERVICE_COLUMNS.index("version")
_ID: Final = SERVICE_COLUMNS.index("id")
_HOST: Final = SERVICE_COLUMNS.index("host")
_REASON: Final = SERVICE_COLUMNS.index("disabled_reason")
_DISABLED: Final = SERVICE_COLUMNS.index("disabled")
_FORCED_DOWN: Final = SERVICE_COLUMNS.index("forced_down")
Place = tuple[str, str | None]
"""Host and node of an instance."""
Heard = tuple[str, Any, Any]
"""The host of a service, when it was last heard, and its version."""


class KnownNode(NamedTuple):
    """A row of compute_nodes as it was read last. ``since``: when it was first seen with that time; ``content``: hash
    of what was reported, None before; ``row_sum``: the database's own, of the row as it was read, None without one;
    ``turn``: how many looks had compared all rows when it was reported."""

    id: int
    host: str
    node: str
    updated_at: datetime | None
    since: float
    settled: bool = False
    content: int | None = None
    row_sum: str | None = None
    turn: int = -1


class CellState:
    """The rows of one cell."""

    def __init__(self, name: str) -> None:
        self.read = False
        """True once all rows were read."""
        self.stale: set[str] = set()
        """Service hosts that the next look reports whatever their rows say."""
        self.full = self.compared = False
        """The next look reports all nodes, or compares the keys of all rows."""
        self.turn = 1
        """How many looks have compared them, and one: of that one, which nodes it reports."""
        self.nodes: dict[str, KnownNode] = {}
        self._unsettled: set[str] = set()
        self.sum = 0
        """Of the times of their last changes, as `sum_of_nodes` has it."""
        self.node_keys = self.place_keys = self.service_keys = 0
        """Of what tells rows apart, as `sum_of_node_keys` and the like have it."""
        self.services: dict[str, Service] = {}
        """By host; when one was heard, and its version, are in ``heard``."""
        self.heard: dict[str, Heard] = {}
        self.services_at = float("-inf")
        self.unusual: set[str] = set()
        """Hosts whose service is disabled or forced down."""
        self.newest = 0
        """The newest version of a service."""
        self.places: dict[str, Place] = {}
        self.instances: dict[Place, dict[str, None]] = {}
        """The instances of each place, in the order in which they came."""
        self.ending: set[str] = set()
        """Instances that are being deleted: their deletion leaves ``updated_at`` as it was."""
        self.nodes_window = Window(f"{name}: compute_nodes")
        self.instances_window = Window(f"{name}: instances")

    @property
    def unsettled(self) -> set[str]:
        """Nodes that may change once more with the same time."""
        return self._unsettled

    def want(self, stale: Iterable[str], *, full: bool = False, compared: bool = False) -> None:
        """Have the next look do this beside what it is to do, however many fail before. O(stale)."""
        self.stale.update(stale)
        self.full |= full
        self.compared |= compared

    def apply(self, found: Found, steady: float) -> list[str]:
        """Make what a look has found known; names of the nodes that are gone. O(found)."""
        self.sum, self.node_keys = found.sum_of_nodes(self)[1], found.sum_of_node_keys(self)[1]
        self.place_keys, self.service_keys = found.sum_of_place_keys(self)[1], found.sum_of_service_keys(self)[1]
        gone = [self.nodes.pop(uuid).node for uuid, node in found.nodes.items() if node is None and uuid in self.nodes]
        for uuid, node in found.nodes.items():
            self._unsettled.discard(uuid)
            if node is not None:
                self.nodes[uuid] = node
                if not node.settled:
                    self._unsettled.add(uuid)
        for host, service in found.services.items():
            self.unusual.discard(host)
            if service is None:
                self.services.pop(host, None)
                self.heard.pop(host, None)
                continue
            self.services[host] = service
            if service[_DISABLED] or service[_FORCED_DOWN]:
                self.unusual.add(host)
        if found.all_heard is not None:
            self.heard = found.all_heard
        self.heard.update(found.some_heard)
        self._place(found.places)
        self.ending = (self.ending | found.ending) - found.ended
        self.nodes_window.saw(found.newest_node, steady)
        self.instances_window.saw(found.newest_instance, steady)
        if found.services_at is not None:
            self.services_at = found.services_at
        if found.services:
            self.newest = max((each[_VERSION] or 0 for each in self.services.values()), default=0)
        self.read = self.read or found.whole
        self.turn += self.compared and not self.full
        self.full = self.compared = False
        self.stale.clear()
        if not gone:
            return gone
        there = {each.node for each in self.nodes.values()}  # a node may have come back with another uuid
        return [name for name in gone if name not in there]

    def _place(self, places: Mapping[str, Place | None]) -> None:
        """Have instances be where they were found."""
        for instance, place in places.items():
            before = self.places.pop(instance, None)
            if before is not None:
                there = self.instances[before]
                del there[instance]
                if not there:
                    del self.instances[before]
            if place is not None:
                self.places[instance] = place
                self.instances.setdefault(place, {})[instance] = None


@dataclass(slots=True)
class Found:
    """What a look finds of one cell; None for what is gone. ``whole``: all rows are read. ``changed``: service
    hosts whose nodes are reported; ``wanted``: nodes whose rows are read; ``forced``: those that are reported whatever
    these say; ``heard``: service hosts that were heard again."""

    changed: set[str]
    whole: bool
    services: dict[str, Service | None] = field(default_factory=dict)
    services_at: float | None = None
    all_heard: dict[str, Heard] | None = None
    some_heard: dict[str, Heard] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    places: dict[str, Place | None] = field(default_factory=dict)
    places_seen: set[str] = field(default_factory=set)
    ending: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    newest_instance: datetime | None = None
    nodes: dict[str, KnownNode | None] = field(default_factory=dict)
    wanted: dict[str, KnownNode] = field(default_factory=dict)
    forced: set[str] = field(default_factory=set)
    newest_node: datetime | None = None

    # services

    def all_services(self, known: CellState, there: Mapping[str, Service], steady: float) -> None:
        """All services were read."""
        self.services_at = steady
        self.some_services(known, {**dict.fromkeys(known.services.keys() - there.keys()), **there})

    def heartbeats(self, known: CellState, rows: Iterable[Heard], steady: float) -> bool:
        """The times and versions of all services were read. False, and nothing is found, if a service came or went, so
        that all columns are to be read."""
        there = {row[0]: row for row in rows}
        if there.keys() != known.services.keys():
            return False
        self.services_at, self.all_heard, before = steady, there, known.heard
        changed = [row for host, row in there.items() if before[host] != row]
        self.heard.update([row[0] for row in changed])
        for host, _, version in changed:
            if version != before[host][2]:
                service = known.services[host]
                self.services[host] = (*service[:_VERSION], version, *service[_VERSION + 1 :])
                self.changed.add(host)
        return True

    def some_services(self, known: CellState, there: Mapping[str, Service | None]) -> None:
        """Services by host, None for one that is gone."""
        for host, service in there.items():
            before = known.services.get(host)
            if service is not None:
                heard = self.some_heard[host] = (host, service[_SEEN], service[_VERSION])
                if before is not None and _state(service) == _state(before):
                    if heard != known.heard[host]:
                        self.heard.add(host)
                    continue
            if service != before:
                self.services[host] = service
                self.changed.add(host)

    def sum_of_service_keys(self, known: CellState) -> tuple[int, int]:
        """How many services there are with those found, and the sum of their keys. O(found)."""
        count, total = len(known.services), known.service_keys
        for host, service in self.services.items():
            before = known.services.get(host)
            count += (service is not None) - (before is not None)
            total += _service_key(service) - _service_key(before)
        return count, total

    def service(self, known: CellState, host: str) -> Service | None:
        """A service as it is known with what was found."""
        service = self.services[host] if host in self.services else known.services.get(host)
        if service is None:
            return None
        heard = self.some_heard.get(host) or (known.heard if self.all_heard is None else self.all_heard).get(host)
        return service if heard is None else (*service[:_SEEN], heard[1], *service[_SEEN + 1 :])

    # instances

    def all_places(self, known: CellState, rows: Iterable[Any], since: datetime) -> None:
        """All instances on hosts were read."""
        left = dict(known.places)
        for row in rows:
            left.pop(row.uuid, None)
            if self._place(known, row.uuid, (row.host, row.node)) and known.read:
                known.instances_window.missed(row.updated_at, since)
            self._saw_instance(row.updated_at)
        for uuid in left:
            self._place(known, uuid, None)
        self.ended |= known.ending & left.keys()

    def some_places(self, known: CellState, rows: Iterable[Any]) -> None:
        """Instances that were changed, and may be deleted."""
        for row in rows:
            self.places_seen.add(row.uuid)
            self._place(known, row.uuid, None if row.deleted or row.host is None else (row.host, row.node))
            self._saw_instance(row.updated_at)
            if row.deleted:
                self.ended.add(row.uuid)
            elif row.task_state == "deleting" or row.vm_state == "deleted":
                self.ending.add(row.uuid)
            elif row.uuid in known.ending:
                self.ended.add(row.uuid)

    def ended_places(self, known: CellState, rows: Iterable[Any], pending: set[str]) -> None:
        """Instances that were being deleted, of which there may be no row any longer."""
        self.some_places(known, rows)
        for uuid in pending - self.places_seen:
            self._place(known, uuid, None)
            self.ended.add(uuid)

    def sum_of_place_keys(self, known: CellState) -> tuple[int, int]:
        """How many instances are on hosts with those found, and the sum of their keys. O(found)."""
        count, total = len(known.places), known.place_keys
        for uuid, place in self.places.items():
            before = known.places.get(uuid)
            count += (place is not None) - (before is not None)
            total += _place_key(uuid, place) - _place_key(uuid, before)
        return count, total

    def _place(self, known: CellState, uuid: str, place: Place | None) -> bool:
        """True if an instance is elsewhere than it was: both hosts are reported."""
        before = known.places.get(uuid)
        if place == before:
            return False
        self.places[uuid] = place
        self.changed.update(each[0] for each in (before, place) if each is not None)
        return True

    def _saw_instance(self, at: datetime | None) -> None:
        if at is not None and (self.newest_instance is None or at > self.newest_instance):
            self.newest_instance = at

    # compute nodes

    def some_nodes(self, known: CellState, rows: Iterable[Any], steady: float) -> None:
        """Nodes that were changed, and may be deleted."""
        for row in rows:
            if row.uuid is None:
                continue
            if row.deleted:
                if row.uuid in known.nodes:
                    self.nodes[row.uuid] = None
                continue
            self._node(known, row, steady)

    def all_nodes(self, known: CellState, rows: Iterable[Any], steady: float) -> None:
        """All nodes that are there were read."""
        left = set(known.nodes)
        for row in rows:
            if row.uuid is None:
                continue
            left.discard(row.uuid)
            self._node(known, row, steady)
        for uuid in left:
            self.nodes[uuid] = None

    def sum_of_nodes(self, known: CellState) -> tuple[int, int]:
        """How many nodes there are with those found, and the sum of their times. O(found)."""
        count, total = len(known.nodes), known.sum
        for uuid, node in self.nodes.items():
            before = known.nodes.get(uuid)
            count += (node is not None) - (before is not None)
            total += microseconds(node and node.updated_at) - microseconds(before and before.updated_at)
        return count, total

    def sum_of_node_keys(self, known: CellState) -> tuple[int, int]:
        """The same with the sum of their keys. O(found)."""
        count, total = len(known.nodes), known.node_keys
        for uuid, node in self.nodes.items():
            before = known.nodes.get(uuid)
            if node is None or before is None or node[:3] != before[:3]:  # most have changed otherwise
                count += (node is not None) - (before is not None)
                total += _node_key(uuid, node) - _node_key(uuid, before)
        return count, total

    def unsettled(self, known: CellState) -> dict[str, KnownNode]:
        """Nodes that were not found to have another time, and may have changed with the one that they have."""
        there = ((uuid, known.nodes[uuid]) for uuid in known.unsettled - self.nodes.keys())
        return {uuid: each for uuid, each in there if each.updated_at is not None}

    def settle(self, unsettled: Mapping[str, KnownNode], sums: Mapping[int, str] | None, steady: float) -> None:
        """Nodes that have changed with the same time are wanted, by the sums of their rows; all of them where there
        are none. Those that cannot change so any longer are settled."""
        for uuid, each in unsettled.items():
            settled = steady - each.since >= SETTLED
            same = sums is not None and sums.get(each.id) == each.row_sum
            node = each._replace(settled=settled)
            if settled or not same:
                self.nodes[uuid] = node
            if not same:
                self.wanted[uuid] = node

    def nodes_of_changed(self, known: CellState, *, everything: bool) -> None:
        """The nodes of changed hosts are wanted, or all."""
        if not everything and not self.changed:
            return
        for uuid, each in known.nodes.items():
            if (everything or each.host in self.changed) and uuid not in self.wanted and self.nodes.get(uuid, each):
                self.wanted[uuid] = each

    def read(self, uuid: str, node: KnownNode, row_sum: str | None) -> KnownNode:
        """A node's row was read."""
        if row_sum is not None:
            node = self.nodes[uuid] = node._replace(row_sum=row_sum)
        return node

    def reported(self, uuid: str, node: KnownNode, content: int, turn: int) -> None:
        """A node is reported with a content, once so many looks have compared all rows."""
        self.nodes[uuid] = node._replace(content=content, turn=turn)

    def _node(self, known: CellState, row: Any, steady: float) -> None:
        """A row that may have changed, or not."""
        at, before = row.updated_at, known.nodes.get(row.uuid)
        if at is None:  # it has never reported, and may at any time
            settled = False
        elif (
            before is not None and before.updated_at == at and before[:3] == (row.id, row.host, row.hypervisor_hostname)
        ):
            return
        else:
            settled = bool(at.microsecond)
            if self.newest_node is None or at > self.newest_node:
                self.newest_node = at
        content, turn = (None, -1) if before is None else (before.content, before.turn)
        node = KnownNode(row.id, row.host, row.hypervisor_hostname, at, steady, settled, content, turn=turn)
        self.nodes[row.uuid] = self.wanted[row.uuid] = node


def _node_key(uuid: str, node: KnownNode | None) -> int:
    return 0 if node is None else key_of(node.id, uuid, node.host, node.node)


def _place_key(uuid: str, place: Place | None) -> int:
    return 0 if place is None else key_of(uuid, *place)


def _service_key(service: Service | None) -> int:
    if service is None:
        return 0
    return key_of(service[_ID], service[_HOST], service[_VERSION], service[_REASON])


def _state(service: Service) -> Service:
    """All columns of a service but the time when it was heard: their change has its hosts reported."""
    return service[:_SEEN] + service[_SEEN + 1 :]


__all__ = ["SETTLED", "CellState", "Found", "KnownNode"]
