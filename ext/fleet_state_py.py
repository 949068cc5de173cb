"""The pure-Python twin of _fleet_state.pyx."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .fleet_py import FLAGS, Columns, Consumer, checked
from .tables_py import UuidTable, format_uuid

_FIGURES = ("row", "shape", "project", "user", "group", "flags", "generation")
_FREE = Consumer(0, 0, -1, -1, 0, 0, -1, 0, generation=0)


def consumers(columns: Columns) -> dict[str, npt.NDArray[Any]]:
    """All consumer ids that were ever given out; see the kernel."""
    found = [consumer or _FREE for consumer in columns._consumers]
    arrays: dict[str, npt.NDArray[Any]] = {
        "uuid": np.array([(c.hi, c.lo) for c in found], np.uint64).reshape(-1, 2),
        **{name: np.array([getattr(c, name) for c in found], np.int32) for name in _FIGURES},
        "next": np.full(len(found), -1, np.int32),
        "free": np.array(columns._free[::-1], np.int32),
    }
    for on in columns._on.values():
        for older, newer in pairwise(on):
            arrays["next"][newer] = older
    return arrays


def set_consumers(columns: Columns, **arrays: npt.NDArray[Any]) -> None:
    """Restore the consumers that ``consumers`` returned; see the kernel."""
    n = len(checked(arrays["row"], np.int32, 1))
    if columns._consumers:
        raise ValueError("the columns have consumers")
    uuid, free = checked(arrays["uuid"], np.uint64, 2), checked(arrays["free"], np.int32, 1)
    lines = [checked(arrays[name], np.int32, 1) for name in (*_FIGURES, "next")]
    if uuid.shape != (n, 2) or len(free) > n or any(len(line) != n for line in lines):
        raise ValueError("consumer columns differ in length")
    ids: list[int] = free.tolist()
    rows: list[int] = arrays["row"].tolist()
    if sorted(ids) != [id for id, row in enumerate(rows) if row == -1]:
        raise ValueError("consumers and free ids do not add up")
    figures = zip(*(arrays[name].tolist() for name in _FIGURES), strict=True)
    for id, ((hi, lo), figure) in enumerate(zip(uuid.tolist(), figures, strict=True)):
        consumer = Consumer(hi, lo, *figure)
        columns._consumers.append(None if consumer.row == -1 else consumer)
        if consumer.row != -1:
            _enter(columns, id, consumer)
    columns._free = ids[::-1]
    _list(columns, rows, arrays["next"].tolist())


def _enter(columns: Columns, id: int, consumer: Consumer) -> None:
    if not 0 <= consumer.row < columns.rows or not -1 <= consumer.shape < len(columns._shapes):
        raise ValueError("a consumer is on no row, or of no shape")
    if not -1 <= consumer.group < len(columns._groups) or consumer.project < 0 or consumer.user < 0:
        raise ValueError("a consumer is of no group, project or user")
    if not 0 <= consumer.flags < FLAGS or consumer.generation < 1:
        raise ValueError("a consumer's flags or generation cannot be")
    try:
        columns.consumers.add(format_uuid(consumer.hi, consumer.lo), id)
    except KeyError:
        raise ValueError("a consumer is there twice") from None
    if consumer.group >= 0:
        columns._join(columns._groups[consumer.group], consumer.row, 1)


def _list(columns: Columns, rows: list[int], following: list[int]) -> None:
    live = [id for id, row in enumerate(rows) if row != -1]
    after = {following[id]: id for id in live if following[id] != -1}
    if len(after) < sum(following[id] != -1 for id in live):
        raise ValueError("a row's list of consumers cannot be")
    for older, newer in after.items():
        if not 0 <= older < len(rows) or rows[older] != rows[newer]:
            raise ValueError("a row's list of consumers cannot be")
    for id in live:
        if id not in after:
            if rows[id] in columns._on:
                raise ValueError("a row has two lists of consumers")
            on = [id]
            while following[on[-1]] != -1:
                on.append(following[on[-1]])
            columns._on[rows[id]] = on[::-1]
            columns.first[rows[id]] = id
    if sum(map(len, columns._on.values())) != len(live):
        raise ValueError("the rows' lists leave out some consumers")


def relist(columns: Columns, consumer: int, before: int) -> None:
    """Put a consumer, the newest on its row, behind ``before`` in the row's list: to undo a removal."""
    row, other = columns._consumer(consumer).row, columns._consumer(before).row
    on = columns._on[row]
    if on[-1] != consumer or other != row or before == consumer:
        raise ValueError("not the newest consumer, or on another row")
    on.pop()
    on.insert(on.index(before), consumer)
    columns.first[row] = on[-1]


def listed_before(columns: Columns, consumer: int) -> int:
    """The next newer consumer on the same row, -1 if there is none."""
    on = columns._on[columns._consumer(consumer).row]
    newer = on[on.index(consumer) + 1 :]
    return newer[0] if newer else -1


def consumers_on_rows(columns: Columns, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Consumers on ``rows``, int32 [4, n]: id, position in ``rows``, shape and flags; see the kernel."""
    found = [
        (id, position, columns._consumer(id).shape, columns._consumer(id).flags)
        for position, row in enumerate(checked(rows, np.int32, 1).tolist())
        for id in columns.consumers_on(row)
    ]
    return np.ascontiguousarray(np.array(found, np.int32).reshape(-1, 4).T)


def find_uuids(table: UuidTable, uuids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    """The value of each uuid, -1 where there is none."""
    if checked(uuids, np.uint64, 2).shape[1] != 2:
        raise ValueError("a uuid is two words")
    return np.array([table.get(format_uuid(hi, lo)) for hi, lo in uuids.tolist()], np.int32)


def discard_uuids(table: UuidTable, uuids: npt.NDArray[np.uint64]) -> None:
    """Take uuids out; KeyError, with those before it gone, for one that is not there."""
    if checked(uuids, np.uint64, 2).shape[1] != 2:
        raise ValueError("a uuid is two words")
    for hi, lo in uuids.tolist():
        table.pop(format_uuid(hi, lo))


def used_ids(columns: Columns, shapes: int, projects: int, users: int) -> list[npt.NDArray[np.bool_]]:
    """Which shapes, projects and users some consumer has; see the kernel."""
    found = [np.zeros(count, np.bool_) for count in (shapes, projects, users)]
    if shapes < len(columns._shapes):
        raise ValueError("there are more shapes")
    for consumer in columns._consumers:
        if consumer is not None:
            if consumer.project >= projects or consumer.user >= users:
                raise ValueError("there are more projects or users")
            if consumer.shape >= 0:
                found[0][consumer.shape] = True
            found[1][consumer.project] = found[2][consumer.user] = True
    return found


def renumber(
    columns: Columns,
    shapes: npt.NDArray[np.int32],
    projects: npt.NDArray[np.int32],
    users: npt.NDArray[np.int32],
) -> None:
    """Give the shapes, projects and users of all consumers other numbers; see the kernel."""
    lines = [checked(line, np.int32, 1).tolist() for line in (shapes, projects, users)]
    if len(lines[0]) != len(columns._shapes):
        raise ValueError("one number per shape")
    kept = [number for number in lines[0] if number >= 0]
    if kept != list(range(len(kept))):
        raise ValueError("shapes are not numbered in order")
    for consumer in columns._consumers:
        if consumer is None:
            continue
        if consumer.shape >= 0 and lines[0][consumer.shape] < 0:
            raise ValueError("a consumer's shape has no number")
        for line, number, what in ((lines[1], consumer.project, "project"), (lines[2], consumer.user, "user")):
            if number >= len(line) or line[number] < 0:
                raise ValueError(f"a consumer's {what} has no number")
    for id, consumer in enumerate(columns._consumers):
        if consumer is not None:
            shape = lines[0][consumer.shape] if consumer.shape >= 0 else -1
            numbers = {"shape": shape, "project": lines[1][consumer.project], "user": lines[2][consumer.user]}
            columns._consumers[id] = replace(consumer, **numbers)
    columns._shapes = [shape for shape, number in zip(columns._shapes, lines[0], strict=True) if number >= 0]
