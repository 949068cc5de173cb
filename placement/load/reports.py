"""Reports of compute hosts: what is known of each host is replaced, its guests stay, and each of them counts once.

A report says which consumers its figures include. A claim that it does not include is charged on top of them, until a
report has it, its allocation goes, or the claim timeout passes.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import BUILDING, REPORTED, SEEN, UNCOUNTED
from ...ext.fleet_state import consumers_on_rows, find_uuids
from ...ext.tables import format_uuid, parse_many
from ..fleet.change_log import Rows
from ..fleet.fleet import Fleet
from ..types.errors import HostlerError, InvalidValue
from ..types.host import Host, Service
from ..types.host_report import HostReport, Reported
from ..types.steps import finished, in_pieces
from ..types.uuids import are_plain, by_plain_uuid
from ..types.validation import finite, shown
from . import instances
from .bulk import CHUNK, all_or_nothing, columns_of
from .checks import Fields, check_host, of_host, read_hosts
from .identity import rows_of
from .replacement import replace_columns, shrink_tables
from .usage import Guests, guests_on, with_moves

FEW: Final = 64
"""Reports that are taken in in about a millisecond."""
LOOKED_AT: Final = 300
"""Reports whose fields are checked in about a millisecond."""
CLAIM_TIMEOUT: Final = 600.0
"""Seconds for which a claim is kept that the reports of its host do not include."""


class Chunk(NamedTuple):
    """Reports of different hosts, at their rows; ``ids`` are the consumers that they name, by ``positions``."""

    reports: Sequence[HostReport]
    rows: Rows
    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    words: NDArray[np.uint64]
    uuids: Sequence[str]

    def again(self, fleet: Fleet) -> Chunk:
        """The same reports, with the consumers that are there now. O(guests)."""
        return self._replace(ids=find_uuids(fleet._kernel.consumers, self.words))


def report_hosts(fleet: Fleet, reports: Iterable[HostReport], *, claim_timeout: float = CLAIM_TIMEOUT) -> Reported:
    """Replace what is known of hosts by what they report; see HostReport. All or nothing: bad input leaves the fleet
    as it was.

    A report older than the one that is known of its host is left aside; of several of one host the latest counts.
    ``claim_timeout``: seconds after which claims of the engine that no report has included are released, and other
    allocations no longer count in their host's figures. Raises InvalidValue, UnknownName or DuplicateName naming the
    host and field. O(hosts + their guests): some 10 µs a host and 1 µs a guest.
    """
    timeout = finite(claim_timeout, "claim_timeout")
    fleet._reclaim.if_due()
    stale: list[str] = []
    with all_or_nothing(fleet):
        latest = latest_of(checked_reports(reports), stale)
        taken = [take_in(fleet, some, timeout) for some in in_pieces(latest, CHUNK)]
    shrink_tables(fleet)
    return reported_of(taken, stale)


class Taken(NamedTuple):
    """What became of some reports; ``stale`` and ``drift``: (position among them, name of the host)."""

    applied: int
    added: int
    stale: Sequence[tuple[int, str]]
    expired: Sequence[str]
    drift: Sequence[tuple[int, str]]


def reported_of(taken: Iterable[Taken], stale: Iterable[str]) -> Reported:
    """The answer. ``stale``: nodes of which there were several reports."""
    each = list(taken)
    return Reported(
        applied=sum(some.applied for some in each),
        added=sum(some.added for some in each),
        stale=(*stale, *(name for some in each for _, name in some.stale)),
        expired=tuple(uuid for some in each for uuid in some.expired),
        drift=tuple(name for some in each for _, name in some.drift),
    )


def take_in(fleet: Fleet, reports: Sequence[HostReport], timeout: float) -> Taken:
    """Take in reports of different nodes together; a ``HostlerError`` may leave some of it done."""
    hosts = [report.host for report in reports]
    fields = read_hosts(hosts)
    rows, new = rows_of(fleet, hosts)
    known = fleet._store.row["reported"][rows]
    fresh = np.array([report.at for report in reports]) >= known
    stale = [(at, node_of(hosts[at])) for at in np.flatnonzero(~fresh).tolist()]
    keep = np.flatnonzero(fresh)
    if len(keep) < len(reports):
        reports = [reports[at] for at in keep.tolist()]
        fields = read_hosts([report.host for report in reports]) if reports else {}
    expired = _apply(fleet, reports, fields, rows[keep], new[keep], timeout)
    position = dict(zip(rows[keep].tolist(), keep.tolist(), strict=True))
    drift = [(position[row], fleet.name(row)) for row in fleet._drift_of(rows[keep]).tolist()]
    return Taken(len(keep), int(np.count_nonzero(new & fresh)), stale, expired, drift)


def expiring(fleet: Fleet, reports: Iterable[HostReport], *, claim_timeout: float = CLAIM_TIMEOUT) -> list[str]:
    """Uuids of the claims that ``report_hosts`` would release for these reports. Changes nothing. O(guests), O(1) where
    no report has left out a claim."""
    return finished(expiring_in_steps(fleet, list(reports), claim_timeout=claim_timeout))


def expiring_in_steps(
    fleet: Fleet, reports: Sequence[HostReport], *, claim_timeout: float = CLAIM_TIMEOUT, by_uuid: bool = True
) -> Generator[None, None, list[str]]:
    """The same in steps. Without ``by_uuid``, a host whose node was renamed is none that is known."""
    found: list[str] = []
    if not fleet._consumers.missing:
        return found
    checked: list[HostReport] = []
    for some in in_pieces(reports, LOOKED_AT):
        checked += checked_reports(some)
        yield
    several = fleet._consumers.moves or fleet._consumers.also_on
    concerned = {int(fleet._kernel.consumer(each)[2]) for each in fleet._consumers.missing}
    latest = latest_of(checked, [])
    yield
    looked = 0
    for position, report in enumerate(latest):
        if position and position % LOOKED_AT == 0:
            yield
        row = fleet._names.find(node_of(report.host))
        if row < 0 and by_uuid and report.host.uuid:  # as ``rows_of`` has it
            row = _row_of_uuid(fleet, report.host.uuid)
        if (row not in concerned and not several) or row < 0 or report.at < fleet._store.row["reported"][row]:
            continue
        if looked and looked % FEW == 0:
            yield
        looked += 1
        chunk = chunk_of(fleet, [report], np.array([row], np.int32))
        guests = _guests(fleet, chunk)
        late, _ = _missing(fleet, chunk, guests, claim_timeout)
        found += [_uuid(fleet, consumer) for consumer in late if _is_own_claim(fleet, consumer)]
    return found


def _row_of_uuid(fleet: Fleet, uuid: str) -> int:
    """Row of the provider of a uuid; -1 if there is none, or where it is malformed, which ``rows_of`` says. O(1)."""
    try:
        words = parse_many([uuid])
    except (ValueError, TypeError):
        return -1
    return int(find_uuids(fleet._providers.uuids, np.ascontiguousarray(words))[0])


def checked_reports(reports: Iterable[object]) -> list[HostReport]:
    """Reports whose own fields were looked through. O(reports)."""
    found: list[HostReport] = []
    for report in reports:
        if not isinstance(report, HostReport):
            raise InvalidValue(f"reports must be HostReport values, got {shown(report)}", field="reports")
        if not isinstance(report.host, Host):
            check_host(report.host)
        try:
            _check(report)
        except HostlerError as error:
            raise of_host(error, report.host.host) from None
        found.append(_plain(report))
    return found


def _plain(report: HostReport) -> HostReport:
    """The report with the uuids of its instances in the form in which the fleet has them. O(instances)."""
    given = report.host.instances
    if not isinstance(given, dict) or not all(isinstance(uuid, str) for uuid in given) or are_plain(given):
        return report
    return replace(report, host=replace(report.host, instances=by_plain_uuid(given)))


def _check(report: HostReport) -> None:
    if finite(report.at, "at") <= 0:
        raise InvalidValue(f"at must be a time after 1970, got {shown(report.at)}", field="at")
    if report.service is not None and not isinstance(report.service, Service):
        raise InvalidValue(f"service must be a Service, got {shown(report.service)}", field="service")
    if report.includes is not None:
        if isinstance(report.includes, (str, bytes)) or not isinstance(report.includes, Collection):
            raise InvalidValue(f"includes must be uuids, got {shown(report.includes)}", field="includes")
        _words(report.includes)


def _words(uuids: Collection[str]) -> NDArray[np.uint64]:
    """Uuids that a report includes. InvalidValue if one is malformed."""
    try:
        return parse_many(list(uuids))
    except (ValueError, TypeError) as error:
        raise InvalidValue(f"includes must be uuids: {error}", field="includes") from None


def _included(report: HostReport) -> list[str]:
    named = (
        report.host.instances
        if report.includes is None
        else {**report.host.instances, **dict.fromkeys(sorted(report.includes))}
    )
    return list(named)


def node_of(host: Host) -> str:
    return host.nodename or host.host


def latest_of(reports: Sequence[HostReport], stale: list[str]) -> list[HostReport]:
    """The latest report of each node, in the order in which nodes first come."""
    by_node: dict[str, HostReport] = {}
    for report in reports:
        node = node_of(report.host)
        other = by_node.get(node)
        if other is not None:
            stale.append(node)
        if other is None or report.at >= other.at:
            by_node[node] = report
    return list(by_node.values())


def chunk_of(fleet: Fleet, reports: Sequence[HostReport], rows: Rows) -> Chunk:
    named = [_included(report) for report in reports]
    positions = np.repeat(np.arange(len(reports), dtype=np.int32), [len(uuids) for uuids in named])
    uuids = list(itertools.chain.from_iterable(named))
    try:
        words = np.ascontiguousarray(parse_many(uuids)) if uuids else np.zeros((0, 2), np.uint64)
    except ValueError as error:  # of reports whose hosts were not read yet
        raise InvalidValue(f"a guest of a report has a malformed uuid: {error}", field="reports") from None
    return Chunk(reports, rows, find_uuids(fleet._kernel.consumers, words), positions, words, uuids)


def _guests(fleet: Fleet, chunk: Chunk) -> Guests:
    """The consumers on the chunk's hosts, and which of them their figures include. O(consumers)."""
    guests = guests_on(fleet, chunk.rows, chunk.ids, chunk.positions)
    if not fleet._consumers.moves or not fleet._consumers.counts_once:
        return guests
    moving = parse_many(list(fleet._consumers.moves))
    named: list[set[str]] = [set() for _ in chunk.reports]
    for index in np.flatnonzero(np.isin(chunk.words[:, 0], moving[:, 0])).tolist():
        named[int(chunk.positions[index])].add(format_uuid(*chunk.words[index].tolist()))
    reported = [(report.at, uuids) for report, uuids in zip(chunk.reports, named, strict=True)]
    return with_moves(fleet, chunk.rows, guests, reported)


def _apply(
    fleet: Fleet, reports: Sequence[HostReport], fields: Fields, rows: Rows, new: NDArray[np.bool_], timeout: float
) -> list[str]:
    """Make hosts what they report; returns the claims that were released."""
    if not len(rows):
        return []
    columns = columns_of(fleet, [report.host for report in reports], fields)
    chunk = chunk_of(fleet, reports, rows)
    guests = _guests(fleet, chunk)
    version = fleet.version
    expired = _expire(fleet, chunk, guests, timeout)
    _leave(fleet, chunk)
    _come(fleet, chunk)
    if fleet.version != version:
        chunk = chunk.again(fleet)
        guests = _guests(fleet, chunk)
    _see(fleet, guests)
    replace_columns(fleet, reports, rows, new, columns, guests)
    return expired


# claims that reports leave out


def _missing(fleet: Fleet, chunk: Chunk, guests: Guests, timeout: float) -> tuple[list[int], dict[int, float]]:
    """Consumers on top that reports have left out for longer than ``timeout``, and those left out for the first
    time."""
    late: list[int] = []
    first: dict[int, float] = {}
    on_top = guests.on_top
    find, moves = fleet._kernel.consumers.get, fleet._consumers.moves if on_top.any() else {}
    moving = {find(uuid) for move in moves.values() for uuid in (move.instance, move.migration) if uuid}
    for consumer, position in zip(guests.ids[on_top].tolist(), guests.position[on_top].tolist(), strict=True):
        if consumer in moving:
            continue  # its target does not have it before it has moved, and its claim ends with the move
        since = fleet._consumers.missing.get(consumer)
        if since is None:
            first[consumer] = chunk.reports[position].at
        elif chunk.reports[position].at - since >= timeout:
            late.append(consumer)
    return late, first


def _is_own_claim(fleet: Fleet, consumer: int) -> bool:
    """True for a claim of the engine that no report has ever included: nothing but Hostler knows it."""
    return not fleet._kernel.consumer(consumer)[7] & SEEN and consumer not in fleet._consumers.notes


def _expire(fleet: Fleet, chunk: Chunk, guests: Guests, timeout: float) -> list[str]:
    late, first = _missing(fleet, chunk, guests, timeout)
    own = [consumer for consumer in late if _is_own_claim(fleet, consumer)]
    uuids = [_uuid(fleet, consumer) for consumer in own]
    others = [consumer for consumer in late if not _is_own_claim(fleet, consumer)]
    lines = [fleet._kernel.consumer(consumer) for consumer in others]
    fleet._consumers.mark(others, [line[3] for line in lines], [line[7] & ~BUILDING | UNCOUNTED for line in lines])
    changes: dict[int, float | None] = dict(first)
    if changes:
        fleet._consumers.miss(changes)
    if own:
        fleet.release(own)
    return uuids


def _uuid(fleet: Fleet, consumer: int) -> str:
    return format_uuid(*fleet._kernel.consumer(consumer)[:2])


def _see(fleet: Fleet, guests: Guests) -> None:
    """Guests that reports include have been built, and count in the figures."""
    held = guests.named & (guests.shape >= 0)
    wanted = guests.flags[held] & ~(BUILDING | UNCOUNTED) | SEEN
    differs = wanted != guests.flags[held]
    ids = guests.ids[held]
    fleet._consumers.mark(ids[differs].tolist(), guests.shape[held][differs].tolist(), wanted[differs].tolist())
    guests.flags[held] = wanted
    if fleet._consumers.missing:
        found = {consumer: None for consumer in ids.tolist() if consumer in fleet._consumers.missing}
        if found:
            fleet._consumers.miss(found)


# instances that come and go


def _leave(fleet: Fleet, chunk: Chunk) -> None:
    """Reported instances without an allocation go where their host no longer has them; one that stands on another host
    as well, and is not missing from a report of that one too, is from now on there alone."""
    found = consumers_on_rows(fleet._kernel, np.ascontiguousarray(chunk.rows))
    reported = (found[3] & REPORTED) != 0
    if not reported.any():
        return
    named = set(zip(chunk.ids.tolist(), chunk.positions.tolist(), strict=True))
    gone = [
        consumer
        for consumer, position in zip(found[0, reported].tolist(), found[1, reported].tolist(), strict=True)
        if (consumer, position) not in named
    ]
    left = {_uuid(fleet, consumer) for consumer in gone}
    fleet.release(gone)
    reports = dict(zip(chunk.rows.tolist(), chunk.reports, strict=True)) if left else {}
    # Of several the first row, whatever came first: a snapshot does not tell.
    for row, held in sorted(fleet._consumers.also_on.items()) if left else ():
        report = reports.get(row)
        both = {
            uuid: known
            for uuid, known in held.items()
            if uuid in left and (report is None or uuid in report.host.instances)
        }
        if both:
            fleet._consumers.stand_on(row, {uuid: known for uuid, known in held.items() if uuid not in left})
            instances.enter(fleet, row, both.items())
            left -= both.keys()


def _come(fleet: Fleet, chunk: Chunk) -> None:
    """Instances that are not known become consumers; those with a consumer on another row stand on both."""
    elsewhere: dict[int, dict[str, Any]] = {}
    unknown: dict[int, list[tuple[str, object]]] = {}
    rows = chunk.rows.tolist()
    found = consumers_on_rows(fleet._kernel, np.ascontiguousarray(chunk.rows))
    here = np.isin(keys_of(chunk.ids, chunk.positions), keys_of(found[0], found[1]), kind="sort")
    for index in np.flatnonzero(~here).tolist():
        position, uuid = int(chunk.positions[index]), chunk.uuids[index]
        row, reported = rows[position], chunk.reports[position].host.instances
        if uuid not in reported:
            continue  # included in the figures, and gone since
        if chunk.ids[index] < 0:
            unknown.setdefault(row, []).append((uuid, reported[uuid]))
        else:
            elsewhere.setdefault(row, {})[uuid] = dict(instances.properties_of(reported[uuid]))
    for row in rows:
        if row in elsewhere or row in fleet._consumers.also_on:
            fleet._consumers.stand_on(row, {**_moving_from(fleet, row), **elsewhere.get(row, {})})
    _enter(fleet, unknown, elsewhere)


def _moving_from(fleet: Fleet, row: int) -> dict[str, Mapping[str, Any]]:
    """Instances that stand on a row as long as their move from it has not ended. O(instances that stand on it)."""
    moves, name = fleet._consumers.moves, fleet.name(row)
    standing = fleet._consumers.also_on.get(row, {}) if moves else {}
    return {uuid: known for uuid, known in standing.items() if uuid in moves and moves[uuid].source == name}


def keys_of(ids: NDArray[np.int32], positions: NDArray[np.int32]) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = (ids.astype(np.int64) << 32) + positions
    return keys


def _enter(fleet: Fleet, unknown: dict[int, list[tuple[str, object]]], elsewhere: dict[int, dict[str, Any]]) -> None:
    """Enter unknown instances; one that two of the hosts report is a consumer of the first, and stands on both."""
    seen: set[str] = set()
    for row, given in unknown.items():
        own = [(uuid, value) for uuid, value in given if uuid not in seen]
        twice = {uuid: dict(instances.properties_of(value)) for uuid, value in given if uuid in seen}
        seen.update(uuid for uuid, _ in own)
        try:
            instances.enter(fleet, row, own)
        except HostlerError as error:
            raise of_host(error, fleet._service_host(row)) from None
        if twice:
            fleet._consumers.stand_on(row, {**elsewhere.get(row, {}), **twice})


__all__ = ["CLAIM_TIMEOUT", "expiring", "report_hosts"]
