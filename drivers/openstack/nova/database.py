"""What changed in Nova's cell databases since the last look: rows of compute nodes and services, instances of hosts.
Runs inside Nova."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nova import context as nova_context
from nova import objects
from nova.db.main import api as db_api
from nova.db.main import models
from oslo_utils import timeutils
from sqlalchemy import or_

OVERLAP: Final = datetime.timedelta(seconds=15)
"""Rows older than the newest by less are read again: clocks of writers differ. A writer whose clock is ahead of this
one's does not hide what others write."""
FULL: Final = 20.0
"""Seconds after which all rows of a cell are looked at again; well below ``service_down_time``, so that a service whose
row was missed is not taken for dead."""
SETTLED: Final = 2.0
"""Seconds after which a row whose time has no fraction cannot have been written again within the same second."""


@dataclass(slots=True)
class Node:
    """A row of compute_nodes, and since when it is known as it is (monotonic seconds)."""

    host: str
    updated_at: datetime.datetime | None
    since: float
    settled: bool = False


@dataclass(slots=True)
class Cell:
    """What is known of one cell. ``read_at``: monotonic time of the last full look."""

    nodes: dict[str, Node] = field(default_factory=dict)
    services: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    newest: dict[str, datetime.datetime] = field(default_factory=dict)
    read_at: float = float("-inf")


@dataclass(slots=True)
class Changes:
    """What a look found. ``nodes``: uuids to read by cell; ``gone``: uuids of nodes that were deleted; ``services``:
    hosts whose service changed."""

    nodes: dict[str, list[str]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)

    def follow(self, earlier: Changes) -> None:
        """Add what an earlier look found and was not read in; its nodes are looked at again. O(changes)."""
        self.gone[:0] = earlier.gone
        self.services |= earlier.services


_SERVICE: Final = ("disabled", "disabled_reason", "forced_down", "last_seen_up", "created_at", "version")


class Cells:
    """The rows of all cells, as far as a scheduler needs them to see changes."""

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}

    def look(self, context: Any, mappings: Sequence[Any]) -> Changes:
        """Look at these cells, in parallel. A cell that fails or does not answer is not among those ``answered``.
        O(rows that changed), O(rows) once in FULL seconds."""
        now = time.monotonic()
        wanted: dict[str, Mapping[str, datetime.datetime]] = {}
        for mapping in mappings:
            cell = self.cells.setdefault(mapping.uuid, Cell())
            wanted[mapping.uuid] = cell.newest if now - cell.read_at < FULL else {}
        found: Mapping[str, Any] = nova_context.scatter_gather_cells(
            context, mappings, nova_context.CELL_TIMEOUT, _read_cell, wanted
        )
        changes = Changes()
        for uuid, rows in found.items():
            if nova_context.is_cell_failure_sentinel(rows):
                continue
            changes.answered.add(uuid)
            self._take(uuid, rows, changes, now, full=not wanted[uuid])
        return changes

    def _take(self, uuid: str, rows: Any, changes: Changes, now: float, *, full: bool) -> None:
        cell, (nodes, services) = self.cells[uuid], rows
        if full:
            cell.read_at = now
            there = {row.uuid for row in nodes}
            changes.gone += [each for each in cell.nodes if each not in there]
            hosts = {row.host for row in services}
            changes.services |= cell.services.keys() - hosts
            cell.nodes = {each: node for each, node in cell.nodes.items() if each in there}
            cell.services = {host: service for host, service in cell.services.items() if host in hosts}
        for row in nodes:
            if row.deleted:
                if cell.nodes.pop(row.uuid, None) is not None:
                    changes.gone.append(row.uuid)
                continue
            known = cell.nodes.get(row.uuid)
            if known is None or known.updated_at != row.updated_at or known.host != row.host:
                cell.nodes[row.uuid] = Node(row.host, row.updated_at, now)
        for row in sorted(services, key=lambda row: not row.deleted):  # a host's new service outlives its deleted one
            self._take_service(cell, row, changes)
        for name, part in (("nodes", nodes), ("services", services)):
            times = [each for row in part for each in (row.updated_at, row.created_at, row.deleted_at) if each]
            if times:
                cell.newest[name] = max(times)
        changes.nodes[uuid] = self._unread(cell, now)

    @staticmethod
    def _take_service(cell: Cell, row: Any, changes: Changes) -> None:
        if row.deleted:
            if cell.services.pop(row.host, None) is not None:
                changes.services.add(row.host)
            return
        service = {name: getattr(row, name) for name in _SERVICE}
        if cell.services.get(row.host) != service:
            cell.services[row.host] = service
            changes.services.add(row.host)

    @staticmethod
    def _unread(cell: Cell, now: float) -> list[str]:
        unread = []
        for uuid, node in cell.nodes.items():
            if not node.settled:
                unread.append(uuid)
                fraction = node.updated_at is not None and node.updated_at.microsecond
                node.settled = bool(fraction) or now - node.since >= SETTLED
        return unread

    def unsettle(self, uuids: Iterable[str]) -> None:
        """Have these nodes read at the next look. O(uuids)."""
        for uuid in uuids:
            for cell in self.cells.values():
                if uuid in cell.nodes:
                    cell.nodes[uuid].settled = False


def _read_cell(context: Any, wanted: Mapping[str, Mapping[str, datetime.datetime]]) -> Any:
    return _changed_rows(context, wanted.get(context.cell_uuid, {}))


@db_api.pick_context_manager_reader  # type: ignore[untyped-decorator]  # Nova is not typed
def _changed_rows(context: Any, newest: Mapping[str, datetime.datetime]) -> Any:
    node, service = models.ComputeNode, models.Service
    nodes = context.session.query(
        node.uuid, node.host, node.updated_at, node.created_at, node.deleted_at, node.deleted
    ).filter(node.uuid.isnot(None))
    columns = [getattr(service, name) for name in (*_SERVICE, "host", "updated_at", "deleted_at", "deleted")]
    services = context.session.query(*columns).filter(service.binary == "nova-compute")
    return _since(nodes, node, newest.get("nodes")).all(), _since(services, service, newest.get("services")).all()


def _since(query: Any, model: Any, newest: datetime.datetime | None) -> Any:
    if newest is None:
        return query.filter(model.deleted == 0)
    since = min(newest, timeutils.utcnow()) - OVERLAP
    return query.filter(or_(model.updated_at >= since, model.created_at >= since, model.deleted_at >= since))


def compute_nodes(context: Any, wanted: Mapping[str, Sequence[str]]) -> Any:
    """The compute nodes of one cell that are wanted of it, by uuid. O(nodes)."""
    return objects.ComputeNodeList.get_all_by_uuids(context, wanted[context.cell_uuid])


@db_api.pick_context_manager_reader  # type: ignore[untyped-decorator]  # Nova is not typed
def instances_of(context: Any, hosts: Sequence[str]) -> dict[str, list[str]]:
    """Uuids of the instances of hosts of one cell, by host. O(instances)."""
    instance = models.Instance
    found: dict[str, list[str]] = {host: [] for host in hosts}
    query = context.session.query(instance.host, instance.uuid).filter(instance.deleted == 0)
    for host, uuid in query.filter(instance.host.in_(list(hosts))).order_by(instance.id).all():
        found.setdefault(host, []).append(uuid)  # a database may compare names without regard to case
    return found
