"""Reports of thousands of hosts taken in some at a time, with the outcome that they have together.

A report that says of its host what is known of it already, as to its guests, and of no other host, can be taken in by
itself; so can those of new hosts, and of guests that nothing else knows. Where guests go or come from elsewhere, the
reports of the hosts that they concern are taken in together. So are all those of hosts at whose guests more than that
is to be looked at: with moves under way, or with claims that were left out for too long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import REPORTED
from ...ext.fleet_state import consumers_on_rows, find_uuids
from ...ext.tables import format_uuid
from ..fleet.fleet import Fleet
from ..types.disjoint_sets import DisjointSets
from ..types.errors import HostlerError
from ..types.host_report import HostReport, Reported
from ..types.steps import in_pieces
from ..types.validation import finite
from .bulk import CHUNK, all_or_nothing
from .checks import read_uuids
from .replacement import shrink_tables
from .reports import (
    CLAIM_TIMEOUT,
    FEW,
    LOOKED_AT,
    Taken,
    checked_reports,
    chunk_of,
    keys_of,
    latest_of,
    node_of,
    report_hosts,
    reported_of,
    take_in,
)


def report_hosts_in_steps(
    fleet: Fleet, reports: Sequence[HostReport], *, claim_timeout: float = CLAIM_TIMEOUT
) -> Generator[None, None, Reported]:
    """``report_hosts`` in steps of about a millisecond, between which others may read the fleet, and change forks of
    it. The fields of all are checked before the first one is taken in; what is refused after that is undone."""
    if len(reports) > FEW:
        try:
            return (yield from _in_steps(fleet, reports, finite(claim_timeout, "claim_timeout")))
        except HostlerError:
            pass  # said below, as of all together
    return report_hosts(fleet, reports, claim_timeout=claim_timeout)


def _in_steps(fleet: Fleet, reports: Sequence[HostReport], timeout: float) -> Generator[None, None, Reported]:
    fleet._reclaim.if_due()
    checked: list[HostReport] = []
    for some in in_pieces(reports, LOOKED_AT):
        checked += checked_reports(some)
        yield
    stale: list[str] = []
    with all_or_nothing(fleet):
        latest, taken = latest_of(checked, stale), list[Taken]()
        for block in in_pieces(latest, CHUNK):
            yield
            taken.append((yield from _block(fleet, block, timeout)))
    shrink_tables(fleet)
    return reported_of(taken, stale)


def _block(fleet: Fleet, reports: Sequence[HostReport], timeout: float) -> Generator[None, None, Taken]:
    """Reports that are otherwise taken in together."""
    for some in in_pieces(reports, LOOKED_AT):
        if _are_others(fleet, some):
            return take_in(fleet, reports, timeout)
        yield
    alone: list[bool] = []
    moving = _moving(fleet)
    for some in in_pieces(reports, LOOKED_AT):
        alone += _stand_alone(fleet, some, moving, timeout).tolist()
        yield
    if alone.count(False) > FEW:
        alone = yield from _with_newcomers(fleet, reports, alone, moving, timeout)
    found = list[tuple[Sequence[int], Taken]]()
    parts = list(in_pieces([at for at, itself in enumerate(alone) if itself], FEW))
    rest = [at for at, itself in enumerate(alone) if not itself]
    parts += (yield from _related(fleet, reports, rest, moving, timeout)) if len(rest) > FEW else [rest]
    for positions in parts:
        if positions:
            found.append((positions, take_in(fleet, [reports[at] for at in positions], timeout)))
            yield
    return Taken(
        sum(taken.applied for _, taken in found),
        sum(taken.added for _, taken in found),
        sorted((positions[at], name) for positions, taken in found for at, name in taken.stale),
        [uuid for _, taken in found for uuid in taken.expired],
        sorted((positions[at], name) for positions, taken in found for at, name in taken.drift),
    )


def _related(
    fleet: Fleet, reports: Sequence[HostReport], positions: Sequence[int], moving: set[str], timeout: float
) -> Generator[None, None, list[Sequence[int]]]:
    """Positions in parts that can be taken in one after the other: reports of hosts that a guest concerns in common are
    in one part, and all those to which more than their guests applies in the last."""
    links = _Links(fleet, moving, timeout)
    for some in in_pieces(positions, FEW):
        links.add([reports[at] for at in some])
        yield
    sets: dict[int, list[int]] = {}
    for number, at in enumerate(positions):
        sets.setdefault(links.set_of(reports[at]), []).append(at)
        if number % LOOKED_AT == 0:
            yield
    last, parts = sets.pop(links.set_of(None), []), list[Sequence[int]]()
    part: list[int] = []
    for some in sets.values():
        if part and len(part) + len(some) > FEW:
            parts.append(sorted(part))
            part = []
        part += some
    return [*parts, sorted(part), last]


class _Links:
    """Sets of rows that guests of reports concern in common: where they are, stand as well, or are reported."""

    _OTHERS: Final = -1
    """In the set of the rows to whose reports more applies than the guests that they name. New hosts, which have no row
    (-1), are among them."""

    def __init__(self, fleet: Fleet, moving: set[str], timeout: float) -> None:
        self._fleet, self._moving, self._timeout = fleet, moving, timeout
        self._sets, self._named = DisjointSets(), dict[str, int]()
        self._standing: dict[str, list[int]] = {}
        for row, held in fleet._consumers.also_on.items():
            for uuid in held:
                self._standing.setdefault(uuid, []).append(row)

    def set_of(self, report: HostReport | None) -> int:
        """What stands for the set of a report's host, or, for None, of the others."""
        return self._sets.of(self._OTHERS if report is None else self._fleet._names.find(node_of(report.host)))

    def add(self, reports: Sequence[HostReport]) -> None:
        """Join the hosts of some reports with those that their guests concern. O(guests)."""
        fleet, join = self._fleet, self._sets.join
        rows = np.array([fleet._names.find(node_of(report.host)) for report in reports], np.int32)
        for row, report in zip(rows.tolist(), reports, strict=True):
            plain = row >= 0 and node_of(report.host) not in self._moving
            if not plain or fleet._shared_service_hosts or fleet._service_host(row) != report.host.host:
                join(self._OTHERS, row)
        chunk = chunk_of(fleet, reports, rows)
        for words, consumer, at in zip(chunk.words.tolist(), chunk.ids.tolist(), chunk.positions.tolist(), strict=True):
            uuid = format_uuid(*words)
            self._concerns(uuid, int(rows[at]))
            join(self._named.setdefault(uuid, int(rows[at])), int(rows[at]))
            if consumer >= 0:
                join(int(fleet._kernel.consumer(consumer)[2]), int(rows[at]))
        given = np.flatnonzero(rows >= 0)
        found = consumers_on_rows(fleet._kernel, np.ascontiguousarray(rows[given]))
        at_row = given[found[1]]
        left_out = ~np.isin(keys_of(found[0], at_row), keys_of(chunk.ids, chunk.positions))
        for consumer, at in zip(found[0, left_out].tolist(), at_row[left_out].tolist(), strict=True):
            self._is_left_out(consumer, int(rows[at]), reports[at].at)

    def _concerns(self, uuid: str, row: int) -> None:
        if uuid in self._fleet._consumers.moves:
            self._sets.join(self._OTHERS, row)
        for other in self._standing.get(uuid, ()):
            self._sets.join(other, row)

    def _is_left_out(self, consumer: int, row: int, at: float) -> None:
        """A consumer on a row is not in its report of a time."""
        fleet = self._fleet
        line, extras = fleet._kernel.consumer(consumer), fleet._extras.get(consumer)
        since = fleet._consumers.missing.get(consumer)
        if (extras is not None and extras.elsewhere) or (since is not None and at - since >= self._timeout):
            self._sets.join(self._OTHERS, row)
        self._concerns(format_uuid(*line[:2]), row)


def _with_newcomers(
    fleet: Fleet, reports: Sequence[HostReport], alone: Sequence[bool], moving: set[str], timeout: float
) -> Generator[None, None, list[bool]]:
    """Which reports can be taken in by themselves, those of new hosts and of new guests included: of hosts and guests
    that no other report names. New hosts get their rows in the order of the reports, so all of them can, or none."""
    named = Counter[str]()
    alike = True
    for some in in_pieces(reports, LOOKED_AT):
        for report in some:
            named.update({*report.host.instances, *(report.includes or ())})
            alike &= node_of(report.host) == report.host.host
        yield
    found = list(alone)
    new = list[int]()
    for positions in in_pieces([at for at, itself in enumerate(alone) if not itself], FEW):
        given = [reports[at] for at in positions]
        for at, itself in zip(positions, _stand_alone(fleet, given, moving, timeout, named).tolist(), strict=True):
            found[at] = itself
        new += [at for at in positions if fleet._names.find(node_of(reports[at].host)) < 0]
        yield
    if not alike or not all(found[at] for at in new):
        for at in new:
            found[at] = False
    return found


def _is_new(fleet: Fleet, report: HostReport, moving: set[str], named: Counter[str]) -> bool:
    """True for a host of a name that is not known, whose guests are not known either, and named once."""
    name = node_of(report.host)
    known = fleet._nodes.names.find(name) >= 0 or name in moving or report.host.uuid
    try:
        return not known and all(
            named[uuid] == 1 and uuid not in fleet._consumers.moves and fleet._kernel.consumers.get(uuid) < 0
            for uuid in report.host.instances
        )
    except ValueError:  # of a malformed uuid, which is said where all are taken in together
        return False


def _are_others(fleet: Fleet, reports: Sequence[HostReport]) -> bool:
    """True if the uuid of a report is not that of the provider of its node's name: which hosts they are of is then a
    matter of all of them together. O(hosts)."""
    hosts = [report.host for report in reports]
    uuids = read_uuids(hosts, [host.uuid for host in hosts])
    if uuids is None:
        return False
    words, given = uuids
    by_name = np.array([fleet._names.find(node_of(host)) for host in hosts], np.int32)[given]
    found = find_uuids(fleet._providers.uuids, np.ascontiguousarray(words[given]))
    return bool((found != by_name).any())


def _moving(fleet: Fleet) -> set[str]:
    """Nodes that a move under way begins or ends at. O(moves)."""
    return {name for move in fleet._consumers.moves.values() for name in (move.source, move.target)}


def _stand_alone(
    fleet: Fleet,
    reports: Iterable[HostReport],
    moving: set[str],
    timeout: float,
    named: Counter[str] | None = None,
) -> NDArray[np.bool_]:
    """Which reports can be taken in by themselves. ``named``: how many reports name each guest; without it, those of
    new hosts and guests cannot. O(hosts + guests)."""
    given = list(reports)
    names = [node_of(report.host) for report in given]
    rows = np.array([fleet._names.find(name) for name in names], np.int32)
    apart = np.array(
        [
            row >= 0
            and name not in moving
            and row not in fleet._consumers.also_on
            and fleet._service_host(row) == report.host.host
            for row, name, report in zip(rows.tolist(), names, given, strict=True)
        ],
        np.bool_,
    )
    if fleet._shared_service_hosts:
        apart[:] = False
        return apart
    there = np.flatnonzero(apart)
    if named is not None:
        for at in np.flatnonzero(rows < 0).tolist():
            apart[at] = _is_new(fleet, given[at], moving, named)
    if not len(there):
        return apart
    chunk = chunk_of(fleet, [given[at] for at in there.tolist()], rows[there])
    found = consumers_on_rows(fleet._kernel, np.ascontiguousarray(chunk.rows))
    held, counted = keys_of(found[0], found[1]), keys_of(chunk.ids, chunk.positions)
    for index in np.flatnonzero(~np.isin(counted, held)).tolist():
        at, uuid = int(chunk.positions[index]), chunk.uuids[index]
        new = named is not None and chunk.ids[index] < 0 and named[uuid] == 1 and uuid not in fleet._consumers.moves
        if uuid in chunk.reports[at].host.instances and not new:
            apart[there[at]] = False  # it comes
    gone = ((found[3] & REPORTED) != 0) & ~np.isin(held, counted)
    apart[there[found[1][gone]]] = False
    since = fleet._consumers.missing
    for consumer, at in zip(found[0].tolist(), found[1].tolist(), strict=True) if since else ():
        if consumer in since and chunk.reports[at].at - since[consumer] >= timeout:
            apart[there[at]] = False  # a claim that is left out for too long goes
    return apart


__all__ = ["report_hosts_in_steps"]
