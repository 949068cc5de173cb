"""What changed in Nova's databases since the last look: reports of compute nodes, services that were heard, nodes that
are gone, aggregates. Runs in a thread; it knows nothing of the service. A cell whose database fails stays as it was.

A look reads the rows that have changed, by their times and within a window that covers clocks and transactions; now and
then one compares what tells rows apart in all of them, by sums that the database makes, which finds what no time shows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ....placement.types.errors import InvalidValue
from ....placement.types.host import Aggregate, Host
from ..source import changed_rows as rows
from ..source import compute_nodes as cn
from ..source.databases import Database, Reading, SourceFailed
from ..source.nova_databases import Cell, read_aggregates
from ..source.unplaced import unmoved, unplaced
from .known_rows import SETTLED, CellState, Found

log = logging.getLogger("hostler.nova")

SERVICES_A_SECOND: Final = 500
"""Services whose heartbeats are read a second: of a large cell they are read every few seconds."""
HEARD_SECONDS: Final = 10.0
"""Between two readings of heartbeats at most, Nova's report_interval; and between two that show whether aggregates
changed of which no fan-out came."""
ROUNDS: Final = 10
"""Looks that compare all rows in which each node is reported once, whether it changed or not."""


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


@dataclass(frozen=True, slots=True)
class _Look:
    """One look. ``now``: seconds since the epoch; ``steady``: by a clock that is not set."""

    now: float
    steady: float


class Follower:
    """The rows of all cells, as far as they are needed to see changes. One thread at a time."""

    def __init__(
        self, cells: Callable[[], Sequence[Cell]], api: Database, *, steady: Callable[[], float] = time.monotonic
    ) -> None:
        """``cells``: reads which cells there are; HostlerError if it cannot. ``steady``: a clock that is not set."""
        self._steady = steady
        self._cells_now, self._api = cells, api
        self._cells: Sequence[Cell] = ()
        self._known: dict[str, CellState] = {}
        """By uuid, as names change and are given twice."""
        self._cells_due = self._aggregates_due = True
        """They are to be read, whatever says that they have not changed."""
        self._gone: set[str] = set()
        """Nodes of cells that are no more, which no look has told yet."""
        self._aggregates_mark: tuple[Any, ...] = ()
        self._aggregates_at = float("-inf")
        self.aggregates: dict[str, tuple[Aggregate, ...]] = {}
        """Of service hosts."""

    @property
    def cells(self) -> frozenset[str]:
        """Names of the cells."""
        return frozenset(cell.database.name for cell in self._cells)

    @property
    def api(self) -> str:
        """Name of the API database."""
        return self._api.name

    def look(
        self,
        *,
        now: float,
        full: bool,
        compared: bool = False,
        aggregates: bool = False,
        stale: frozenset[str] = frozenset(),
    ) -> Changes:
        """Look at all cells. ``full``: cells and aggregates are read, and all nodes reported; ``compared``: cells and
        aggregates are read, and the keys of all rows, and what has changed is reported, beside every tenth node;
        ``aggregates``: those are read. ``stale``: service hosts that are reported whatever their rows say. SourceFailed
        if the databases of all cells fail, or the API database where all is to be read. O(changed rows), with one of
        the first two O(rows). What a cell that fails was to be looked at for, and what the API database was to be read
        for, the next look does that succeeds."""
        changes, steady = Changes(), self._steady()
        self._cells_due |= full or compared or not self._cells
        self._aggregates_due |= self._cells_due or aggregates
        for state in self._known.values():
            state.want(stale, full=full, compared=compared)
        try:
            self._follow_aggregates(steady)
            self._read_cells(full=full, compared=compared)
        except (SourceFailed, InvalidValue) as error:
            if full or not self._cells:
                raise
            changes.failed.append(
                SourceFailed(str(error), field=self.api)
            )  # the cells that are known can be followed without
        look = _Look(now, steady)
        for cell in self._cells:
            try:
                with cell.database.reading() as reading:
                    self._look(cell, reading, changes, look)
            except SourceFailed as error:
                changes.failed.append(error)
            else:
                changes.read.append(cell.database.name)
        if changes.failed and not changes.read:
            raise changes.failed[0]
        changes.gone = self._no_more((*changes.gone, *self._gone))
        self._gone.clear()
        changes.newest = max((known.newest for known in self._known.values()), default=0)
        return changes

    def unplaced(self, uuids: Sequence[str]) -> list[str]:
        """Of ``uuids`` those of instances that Nova is done with; see `unplaced`. SourceFailed if a database fails."""
        return unplaced(self._api, self._cells, uuids)

    def unmoved(self, nodes: Mapping[str, str]) -> list[str]:
        """Of instances those that are not on their way to a node any longer; see `unmoved`. SourceFailed if a database
        fails."""
        return unmoved(self._cells, nodes)

    def close(self) -> None:
        """Close the connections that are kept."""
        for cell in self._cells:
            cell.database.close()
        self._api.close()

    def _read_cells(self, *, full: bool, compared: bool) -> None:
        """Read which cells there are, if that is due. Those that are new are looked at as the others."""
        if not self._cells_due:
            return
        before, self._cells = self._cells, self._cells_now()
        kept = {id(cell.database) for cell in self._cells}
        for cell in before:
            if id(cell.database) not in kept:
                cell.database.close()
        known, self._known = self._known, {}
        for cell in self._cells:
            key = _key(cell)
            if key not in known:
                known[key] = CellState(cell.database.name)
                known[key].want((), full=full, compared=compared)
            self._known[key] = known.pop(key)
        self._gone |= {node.node for state in known.values() for node in state.nodes.values()}
        self._cells_due = False

    def _no_more(self, names: Sequence[str]) -> list[str]:
        """Of nodes that are gone from a cell those that no cell has. O(nodes) if there are any."""
        there = {node.node for state in self._known.values() for node in state.nodes.values()} if names else ()
        return [name for name in dict.fromkeys(names) if name not in there]

    # aggregates

    def _follow_aggregates(self, steady: float) -> None:
        """Read the aggregates if that is due, or they have changed. Service hosts whose aggregates did are reported."""
        if not self._aggregates_due and steady - self._aggregates_at < HEARD_SECONDS:
            return
        with self._api.reading() as reading:
            mark = rows.mark_of_aggregates(reading)
            if not self._aggregates_due and mark == self._aggregates_mark:
                self._aggregates_at = steady
                return
            found: dict[str, list[Aggregate]] = {}
            for each in read_aggregates(reading):
                for host in each.hosts:
                    found.setdefault(host, []).append(each.aggregate)
        self._aggregates_mark, self._aggregates_at, self._aggregates_due = mark, steady, False
        before, self.aggregates = self.aggregates, {host: tuple(each) for host, each in found.items()}
        names = before.keys() | self.aggregates.keys()
        changed = [name for name in names if before.get(name) != self.aggregates.get(name)]
        for state in self._known.values():
            state.want(changed)

    # a cell

    def _look(self, cell: Cell, reading: Reading, changes: Changes, look: _Look) -> None:
        known = self._known[_key(cell)]
        found = Found(changed=set(known.stale), whole=known.full or not known.read)
        self._services(known, reading, found, look)
        self._instances(known, reading, found, look)
        self._nodes(known, reading, found, look)
        if known.compared and not known.full:
            self._in_turn(known, found)
        hosts = list(self._read(cell, reading, known, found, look))
        # Only now, so that a failure has all of it read again.
        changes.hosts += hosts
        changes.gone += known.apply(found, look.steady)
        if found.heard:
            reported = {host.nodename for host in hosts}
            wanted = (each.node for each in known.nodes.values() if each.host in found.heard)
            changes.heard += [node for node in wanted if node not in reported]

    def _services(self, known: CellState, reading: Reading, found: Found, look: _Look) -> None:
        """Services that were disabled, forced down or the contrary; where it is due, heartbeats; and all else where all
        rows are compared, or a service came or went."""
        if found.whole:
            found.all_services(known, rows.all_services(reading), look.steady)
            return
        if look.steady - known.services_at >= _pause(len(known.services)) and not found.heartbeats(
            known, rows.heartbeats(reading), look.steady
        ):
            found.all_services(known, rows.all_services(reading), look.steady)
            return
        unusual = rows.unusual_services(reading)
        found.some_services(known, unusual)
        usual_again = known.unusual - unusual.keys()
        if usual_again:
            there = rows.services_of(reading, usual_again)
            found.some_services(known, {host: there.get(host) for host in usual_again})
        if known.compared and rows.sum_of_service_keys(reading) != found.sum_of_service_keys(known):
            found.all_services(known, rows.all_services(reading), look.steady)

    def _instances(self, known: CellState, reading: Reading, found: Found, look: _Look) -> None:
        """Instances that came to a host, left one or were deleted: their hosts are reported."""
        since = known.instances_window.since(look.now, look.steady)
        if found.whole:
            found.all_places(known, rows.instance_places(reading), since)
            return
        found.some_places(known, rows.changed_instance_places(reading, since))
        pending = known.ending - found.places_seen
        if pending:
            found.ended_places(known, rows.instances_by_uuid(reading, pending), pending)
        if known.compared and rows.sum_of_place_keys(reading) != found.sum_of_place_keys(known):
            found.all_places(known, rows.instance_places(reading), since)

    def _nodes(self, known: CellState, reading: Reading, found: Found, look: _Look) -> None:
        """Compute nodes that changed, came or went, and those of hosts that are to be reported."""
        since, lately = (
            known.nodes_window.since(look.now, look.steady),
            known.nodes_window.lately(look.now, look.steady),
        )
        whole = found.whole
        for begin in () if whole else (lately, since):
            found.some_nodes(known, rows.changed_node_keys(reading, begin), look.steady)
            whole = rows.sum_of_nodes(reading) != found.sum_of_nodes(known)
            if not whole:
                break
        if known.compared and not whole:
            whole = rows.sum_of_node_keys(reading) != found.sum_of_node_keys(known)
        if whole:
            found.all_nodes(known, rows.node_keys(reading), look.steady)
        unsettled = found.unsettled(known)
        sums = rows.sums_of_rows(reading, [each.id for each in unsettled.values()]) if unsettled else None
        found.settle(unsettled, sums, look.steady)
        found.nodes_of_changed(known, everything=known.full)

    def _in_turn(self, known: CellState, found: Found) -> None:
        """Have a tenth of the nodes reported as well, but for those that have been since the rows were compared before:
        what others made of them in the service does not last."""
        mine = known.turn % ROUNDS
        for uuid, each in known.nodes.items():
            if each.id % ROUNDS == mine and each.turn < known.turn - 1:
                found.forced.add(uuid)
                found.wanted[uuid] = found.nodes.get(uuid) or each

    def _read(self, cell: Cell, reading: Reading, known: CellState, found: Found, look: _Look) -> Iterable[Host]:
        """The hosts of wanted nodes, but for those whose rows say what they said when they were reported last."""
        by_id = {
            each.id: (uuid, each) for uuid, each in found.wanted.items() if found.nodes.get(uuid, each) is not None
        }
        for some in _chunks(list(by_id)):
            nodes = rows.nodes_by_id(reading, some)
            hosts = {row.host for row in nodes if row.host}
            services = self._services_of(known, reading, found, hosts)
            doubtful = {row.host for row in nodes if row.host in found.changed or _differs(row, known)}
            instances = rows.instances_on(reading, doubtful)
            for row in nodes:
                uuid, node = by_id[row.id]
                place = (row.host, row.hypervisor_hostname)
                there = (instances if row.host in doubtful else known.instances).get(place, {})
                content = hash((row[:-2], frozenset(there)))  # without time and sum
                node = found.read(uuid, node, row.row_sum)
                forced = known.full or uuid in found.forced or row.host in found.changed
                if content == node.content and not forced:
                    continue
                host = self._host(cell, row, services.get(row.host), there, look.now)
                if host is not None:
                    found.reported(uuid, node, content, known.turn)
                    yield host

    def _services_of(
        self, known: CellState, reading: Reading, found: Found, hosts: set[str]
    ) -> dict[str, rows.Service | None]:
        """Services of hosts as they are known with what was found; those that are not known are read."""
        services = {host: found.service(known, host) for host in hosts}
        unknown = [host for host, service in services.items() if service is None]
        return {**services, **rows.services_of(reading, unknown)} if unknown else services

    def _host(
        self, cell: Cell, row: Any, service: rows.Service | None, instances: Iterable[str], now: float
    ) -> Host | None:
        try:
            return cn.node_of(
                row,
                service,
                cell=cell.uuid,
                now=now,
                table=cn.NODES,
                aggregates=self.aggregates.get(row.host, ()),
                instances={uuid: {} for uuid in instances},
            ).host
        except cn.Malformed as error:
            log.warning("compute node %s is left as it was: %s", row.hypervisor_hostname, error)
            return None


def _differs(row: Any, known: CellState) -> bool:
    """True if a compute node counts other instances than those that are known to be on it: one was committed later than
    any window covers, or is on its way. They are read then, in place of what is known."""
    place = (row.host, row.hypervisor_hostname)
    return cn.instances_counted(row.stats) != len(known.instances.get(place, ()))


def _key(cell: Cell) -> str:
    """What tells a cell from others, also once its name is another."""
    return cell.uuid or cell.database.name


def _pause(count: int) -> float:
    """Seconds between two readings of ``count`` rows, by which their number a second is bounded."""
    return min(HEARD_SECONDS, count / SERVICES_A_SECOND)


def _chunks(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + rows.CHUNK] for start in range(0, len(ids), rows.CHUNK))


__all__ = ["SETTLED", "Changes", "Follower"]
