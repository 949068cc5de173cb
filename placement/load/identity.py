"""Which rows reported hosts are at: known ones by uuid and node name, providers that become hosts, and new ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...ext.fleet_state import discard_uuids, find_uuids
from ..fleet.change_log import Rows, rows_array
from ..fleet.fleet import Fleet
from ..types.errors import DuplicateName, InvalidValue
from ..types.host import Host
from .checks import of_host, read_uuids


def rows_of(fleet: Fleet, hosts: Sequence[Host]) -> tuple[Rows, NDArray[np.bool_]]:
    """Rows of checked hosts with different nodes, and which of them were no hosts until now; their names, uuids and
    service hosts are those reported from now on. DuplicateName or InvalidValue naming the host that cannot be.
    O(hosts)."""
    names = [host.nodename or host.host for host in hosts]
    by_name = np.fromiter(map(fleet._names.find, names), np.int32, len(names))
    by_uuid = np.full(len(hosts), -1, np.int32)
    uuids = read_uuids(hosts, [host.uuid for host in hosts])
    if uuids is not None:
        words, given = uuids
        _check_distinct(hosts, words, given)
        by_uuid[given] = find_uuids(fleet._providers.uuids, np.ascontiguousarray(words[given]))
    rows = np.where(by_uuid >= 0, by_uuid, by_name).astype(np.int32)
    _check(fleet, hosts, by_name, by_uuid, rows)
    adopted = (rows >= 0) & ~_is_host(fleet, rows)
    unknown = rows < 0
    if unknown.any():
        rows[unknown] = _added(fleet, [hosts[i] for i in np.flatnonzero(unknown).tolist()])
    for position in np.flatnonzero((by_uuid >= 0) & (by_name < 0)).tolist():
        _rename(fleet, int(rows[position]), names[position])
    if uuids is not None:
        for position in np.flatnonzero(uuids[1] & (by_uuid < 0) & ~unknown).tolist():
            _identify(fleet, int(rows[position]), uuids[0][position : position + 1])
    _rehost(fleet, rows, [host.host for host in hosts])
    for row in rows[adopted].tolist():
        _take_figures(fleet, row)
    return rows, unknown | adopted


def _is_host(fleet: Fleet, rows: Rows) -> NDArray[np.bool_]:
    classes = fleet._store.row["class_of"][np.maximum(rows, 0)] if fleet.rows else np.zeros(len(rows), np.int32)
    known: NDArray[np.bool_] = fleet._change_log.is_host()[classes] & (rows >= 0)
    return known


def _check(
    fleet: Fleet, hosts: Sequence[Host], by_name: NDArray[np.int32], by_uuid: NDArray[np.int32], rows: Rows
) -> None:
    """DuplicateName or InvalidValue for a host that two providers are, or two hosts one."""
    is_host = _is_host(fleet, rows)
    for position in np.flatnonzero((by_uuid >= 0) & (by_name >= 0) & (by_uuid != by_name)).tolist():
        host = hosts[position]
        raise of_host(DuplicateName("its node name is that of another provider", field="nodename"), host.host)
    known = np.flatnonzero(rows >= 0)
    for position in known[~is_host[known]].tolist():
        host, row = hosts[position], int(rows[position])
        if fleet._store.row["parent"][row] >= 0:
            problem = f"its provider is below {fleet.name(int(fleet._store.row['parent'][row]))}"
            raise of_host(InvalidValue(problem, field="nodename"), host.host)
        if host.uuid and by_uuid[position] < 0:
            problem = f"the provider of its name has the uuid {fleet.uuid(row)}"
            raise of_host(DuplicateName(problem, field="uuid"), host.host)
    if len(np.unique(rows[known])) < len(known):
        seen: set[int] = set()
        for position in known.tolist():
            if int(rows[position]) in seen:
                raise of_host(DuplicateName("two reports are of one provider", field="uuid"), hosts[position].host)
            seen.add(int(rows[position]))


def _check_distinct(hosts: Sequence[Host], words: NDArray[np.uint64], given: NDArray[np.bool_]) -> None:
    """DuplicateName if two hosts have one uuid. O(hosts log hosts)."""
    if len(np.unique(words[given], axis=0)) == np.count_nonzero(given):
        return
    seen: set[tuple[int, int]] = set()
    for position in np.flatnonzero(given).tolist():
        key = (int(words[position, 0]), int(words[position, 1]))
        if key in seen:
            problem = f"two reports have the uuid {hosts[position].uuid}"
            raise of_host(DuplicateName(problem, field="uuid"), hosts[position].host)
        seen.add(key)


def _added(fleet: Fleet, hosts: Sequence[Host]) -> Rows:
    uuids = read_uuids(hosts, [host.uuid for host in hosts])
    words, given = uuids if uuids is not None else (None, None)
    names = [host.nodename or host.host for host in hosts]
    return fleet._providers.add(names, words, given, hosts=[host.host for host in hosts])


def _rename(fleet: Fleet, row: int, new: str) -> None:
    names, old = fleet._names, fleet.name(row)
    fleet._change_log.make(partial(names.rename, row, new), partial(names.rename, row, old))
    fleet._change_log.static_epoch += 1  # a signature may have been compiled for a request that names it


def _identify(fleet: Fleet, row: int, words: NDArray[np.uint64]) -> None:
    """Give a host another uuid: its compute node was made again."""
    rows, before = rows_array(row), fleet._providers.words(rows_array(row))

    def put(new: NDArray[np.uint64]) -> None:
        columns = fleet._store.row
        discard_uuids(fleet._providers.uuids, fleet._providers.words(rows))
        fleet._providers.uuids.add_many(new, rows)
        columns["uuid_hi"][rows], columns["uuid_lo"][rows] = new[:, 0], new[:, 1]
        fleet._change_log.static_epoch += 1

    fleet._change_log.make(partial(put, np.ascontiguousarray(words)), partial(put, before))


def _rehost(fleet: Fleet, rows: Rows, hosts: Sequence[str]) -> None:
    """Say which service hosts have the nodes at ``rows``. O(rows)."""
    nodes, column = fleet._nodes, fleet._store.row["service_host"]
    present = column[rows]
    differs = [
        position
        for position, (host, known) in enumerate(zip(hosts, present.tolist(), strict=True))
        if known < 0 or nodes.names.get(known) != host
    ]
    if not differs:
        return
    moved, before = rows[differs], present[differs]
    names = [hosts[position] for position in differs]
    span = nodes.names.span

    def redo() -> None:
        nodes.unlink(moved)
        nodes.link(moved, np.fromiter(map(nodes.names.intern, names), np.int32, len(names)))
        _spread(fleet, moved)

    def undo() -> None:
        nodes.unlink(moved)
        linked = before >= 0
        nodes.link(moved[linked], before[linked])
        nodes.names.truncate(span)
        _spread(fleet, moved)

    fleet._change_log.make(redo, undo)


def _spread(fleet: Fleet, rows: Rows) -> None:
    """Requests name service hosts, and guests of one are shown on all its nodes."""
    fleet._change_log.static_epoch += 1
    fleet._change_log.topology_epoch += 1
    fleet._change_log.changed(rows)


def _take_figures(fleet: Fleet, row: int) -> None:
    """Consumers of a provider that becomes a host take of its figures what they hold. O(consumers)."""
    ids, shapes, flags = [], [], []
    for consumer in fleet._kernel.consumers_on(row):
        line = fleet._kernel.consumer(consumer)
        if line[3] >= 0:
            classes, amounts, *_ = fleet._kernel.shape(line[3])
            held = dict(zip(classes, amounts, strict=True))
            ids.append(consumer)
            flags.append(line[7])
            vcpus, pcpus = (held.get(fleet.resource_class(name), 0) for name in ("VCPU", "PCPU"))
            shapes.append(fleet._shape(held, vcpus + pcpus, held.get(1, 0), 1024 * held.get(2, 0)))
    fleet._consumers.mark(ids, shapes, flags)


__all__ = ["rows_of"]
