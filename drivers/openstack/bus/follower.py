"""What changed in Nova's databases since the last look: reports of compute nodes, services that were heard, nodes that
are gone, aggregates. Runs in a thread; it knows nothing of the service. A cell whose database fails stays as it was."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ....placement.types.host import Aggregate, Host
from ..source import compute_nodes as cn
from ..source.databases import Database, Reading, SourceFailed
from ..source.nova_databases import Cell, read_aggregates, read_services

log = logging.getLogger("hostler.nova")

CHUNK: Final = 500
SETTLED: Final = 2.0
"""Seconds after a row was first seen, by a clock that is not set, after which another change has another time, also
where the time has no fraction."""
_SERVICE: Final = ("disabled", "disabled_reason", "forced_down", "version", "created_at")


@dataclass(slots=True)
class Changes:
    """What a look found. ``hosts``: as they are to be reported; ``heard``: nodes whose service was seen again;
    ``gone``: names of nodes whose rows are no more. ``read``: names of the cells that were read; ``failed``: what kept
    the others from it; ``newest``: the newest version of a nova-compute service, 0 without one."""

    hosts: list[Host] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    failed: list[SourceFailed] = field(default_factory=list)
    newest: int = 0


@dataclass(slots=True)
class _Known:
    """A row of compute_nodes as it was read last. ``since``: when it was first seen with that time."""

    host: str
    node: str
    updated_at: Any
    since: float
    settled: bool = False


@dataclass(slots=True)
class _CellState:
    nodes: dict[str, _Known] = field(default_factory=dict)
    services: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class Follower:
    """The rows of all cells, as far as they are needed to see changes. One thread at a time."""

    def __init__(
        self, cells: Callable[[], Sequence[Cell]], api: Database, *, steady: Callable[[], float] = time.monotonic
    ) -> None:
        """``cells``: reads which cells there are; HostlerError if it cannot. ``steady``: a clock that is not set."""
        self._steady = steady
        self._cells_now, self._api = cells, api
        self._cells: Sequence[Cell] = ()
        self._known: dict[str, _CellState] = {}
        self.aggregates: dict[str, tuple[Aggregate, ...]] = {}
        """Of service hosts."""

    @property
    def cells(self) -> frozenset[str]:
        """Names of the cells."""
        return frozenset(cell.database.name for cell in self._cells)

    def look(self, *, now: float, full: bool, stale: frozenset[str] = frozenset()) -> Changes:
        """Look at all cells. ``full``: cells and aggregates are read, and all nodes reported; ``stale``: service hosts
        that are reported whatever their rows say. SourceFailed if the API database fails, or those of all cells.
        O(rows)."""
        changes = Changes()
        if full or not self._cells:
            stale |= self._read_aggregates()
            changes.gone += self._read_cells()
        for cell in self._cells:
            try:
                with cell.database.reading() as reading:
                    self._look(cell, reading, changes, now, stale, full=full)
            except SourceFailed as error:
                changes.failed.append(error)
            else:
                changes.read.append(cell.database.name)
        if changes.failed and not changes.read:
            raise changes.failed[0]
        services = [each for known in self._known.values() for each in known.services.values()]
        changes.newest = max((each["version"] or 0 for each in services), default=0)
        return changes

    def _read_cells(self) -> list[str]:
        """Read which cells there are; names of the nodes of those that are no more."""
        self._cells = self._cells_now()
        before, self._known = self._known, {}
        for cell in self._cells:
            self._known[cell.database.name] = before.pop(cell.database.name, _CellState())
        return [node.node for known in before.values() for node in known.nodes.values()]

    def _read_aggregates(self) -> frozenset[str]:
        """Read the aggregates; the service hosts whose aggregates changed."""
        found: dict[str, list[Aggregate]] = {}
        with self._api.reading() as reading:
            for each in read_aggregates(reading):
                for host in each.hosts:
                    found.setdefault(host, []).append(each.aggregate)
        before, self.aggregates = self.aggregates, {host: tuple(each) for host, each in found.items()}
        names = before.keys() | self.aggregates.keys()
        return frozenset(name for name in names if before.get(name) != self.aggregates.get(name))

    def _look(
        self, cell: Cell, reading: Reading, changes: Changes, now: float, stale: frozenset[str], *, full: bool
    ) -> None:
        known = self._known[cell.database.name]
        services = read_services(reading)
        changed = {host for host, each in services.items() if _differs(each, known.services.get(host))}
        changed |= stale | (known.services.keys() - services.keys())
        heard = {
            host
            for host, each in services.items()
            if host in known.services and each["last_seen_up"] != known.services[host]["last_seen_up"]
        }
        wanted, seen, names, steady = list[int](), set[str](), dict[str, _Known](), self._steady()
        for row in reading.rows(cn.NODES, ("id", "uuid", "host", "hypervisor_hostname", "updated_at"), alive=True):
            if row.uuid is None:
                continue
            seen.add(row.uuid)
            before = known.nodes.get(row.uuid)
            if before is not None and before.settled and before.updated_at == row.updated_at and not full:
                if row.host in changed:
                    wanted.append(row.id)
                elif row.host in heard:
                    changes.heard.append(before.node)
                continue
            names[row.uuid] = _known(row, before, steady)
            wanted.append(row.id)
        changes.gone += [each.node for uuid, each in known.nodes.items() if uuid not in seen]
        hosts = list(self._read(cell, reading, wanted, services, now))
        # Only now, so that a failure has all of it read again.
        changes.hosts += hosts
        known.services = services
        known.nodes = {uuid: each for uuid, each in (known.nodes | names).items() if uuid in seen}

    def _read(
        self, cell: Cell, reading: Reading, ids: Sequence[int], services: Mapping[str, Mapping[str, Any]], now: float
    ) -> Iterable[Host]:
        from sqlalchemy import column

        for start in range(0, len(ids), CHUNK):
            some = column("id").in_(ids[start : start + CHUNK])
            rows = list(reading.rows(cn.NODES, cn.NODE_COLUMNS, where=some))
            instances = _instances(reading, sorted({row.host for row in rows if row.host}))
            for row in rows:
                try:
                    node = cn.node_of(row, services.get(row.host), cell=cell.uuid, now=now, table=cn.NODES)
                except cn.Malformed as error:
                    log.warning("compute node %s is left as it was: %s", row.hypervisor_hostname, error)
                    continue
                there = instances.get((node.host.host, node.host.nodename), {})
                mine = self.aggregates.get(node.host.host, ())
                yield replace(node.host, instances=there, aggregates=mine)


def _differs(service: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
    return before is None or any(service[name] != before[name] for name in _SERVICE)


def _known(row: Any, before: _Known | None, steady: float) -> _Known:
    """A row as it is now, ``before`` as it was read last."""
    at = row.updated_at
    since = before.since if before is not None and before.updated_at == at else steady
    settled = at is not None and (bool(at.microsecond) or steady - since >= SETTLED)
    return _Known(row.host, row.hypervisor_hostname, at, since, settled)


def _instances(reading: Reading, hosts: Sequence[str]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Instances of service hosts by host and node. O(instances)."""
    from sqlalchemy import column

    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    rows = reading.rows("instances", ("id", "uuid", "host", "node"), alive=True, where=column("host").in_(hosts))
    for row in rows:
        found.setdefault((row.host, row.node), {})[row.uuid] = {}
    return found


__all__ = ["Changes", "Follower"]
