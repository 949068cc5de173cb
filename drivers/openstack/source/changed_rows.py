"""Queries for rows of Nova's databases that changed: by their times, by what is unusual about them, or by sums that
differ. Deleted rows stay in the tables of a cell, with ``deleted_at`` and the old ``updated_at``; the API database has
them no longer. Of the tables that are asked by time, ``instances`` has an index on ``updated_at``; ``compute_nodes``
has as many rows as there are hosts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, cast

from . import compute_nodes as cn
from .databases import Reading

Key = TypeVar("Key", int, str)
CHUNK: Final = 500
"""Keys of one query."""
HEARD_CHUNK: Final = 500
"""Services of one text of heartbeats."""
HEARD_BYTES: Final = 1_000_000
"""What a text of heartbeats may have: some 300 bytes a service at most."""
INSTANCES: Final = "instances"
_MICROSECONDS: Final = {
    "postgresql": "((extract(epoch from updated_at) - 1767225600) * 1000000)::bigint",
    "mysql": "timestampdiff(microsecond, '2026-01-01', updated_at)",
    "mariadb": "timestampdiff(microsecond, '2026-01-01', updated_at)",
    "sqlite": (
        "(strftime('%s', updated_at) - 1767225600) * 1000000 + cast(substr(updated_at || '000000', 21, 6) as integer)"
    ),
}
"""Expressions of dialects for a time as microseconds since _EPOCH."""
_DIGITS: Final = 12
"""Hexadecimal ones of a digest that are added. No sum of them overflows: PostgreSQL, MySQL and MariaDB add whole
numbers as decimals, of more than 64 bits."""
_KEY: Final = {
    "postgresql": "('x' || substr(encode(sha256(convert_to({}, 'UTF8')), 'hex'), 1, 12))::bit(48)::bigint",
    "mysql": "cast(conv(left(sha2(convert({} using utf8mb4), 256), 12), 16, 10) as unsigned)",
    "mariadb": "cast(conv(left(sha2(convert({} using utf8mb4), 256), 12), 16, 10) as unsigned)",
}
"""Expressions of dialects for `key_of` of a text."""
_WITH_SHA256: Final = (11,)
"""The first version of PostgreSQL that has ``sha256(bytea)``."""
_NODE_KEY: Final = ("id", "uuid", "host", "hypervisor_hostname")
_PLACE_KEY: Final = ("uuid", "host", "node")
_SERVICE_KEY: Final = ("id", "host", "version", "disabled_reason")
_WHOLE_SECONDS: Final = ("mysql", "mariadb")
"""Dialects in which Nova's times have no fraction."""
_EPOCH: Final = datetime(2026, 1, 1)
"""Near to the times that are added, since SQLite adds in 64 bits; Nova's times name no zone."""
_MICROSECOND: Final = timedelta(microseconds=1)
_KEYS: Final = ("id", "uuid", "host", "hypervisor_hostname", "updated_at", "deleted")
_HOST: Final = cn.SERVICE_COLUMNS.index("host")
_PLACES: Final = ("uuid", "host", "node", "updated_at")
_CHANGED_PLACES: Final = (*_PLACES, "deleted", "vm_state", "task_state")
_OF_AGGREGATES: Final = ("aggregates", "aggregate_hosts", "aggregate_metadata")


def node_keys(reading: Reading) -> Iterator[Any]:
    """Of all compute nodes that are not deleted, the keys and the time of the last change. O(nodes)."""
    return reading.rows(cn.NODES, _KEYS, alive=True, order=None)


def changed_node_keys(reading: Reading, since: datetime) -> Iterable[Any]:
    """Of compute nodes that were changed or deleted at ``since`` or later, or never reported, the same; ``deleted`` is
    not 0 for deleted ones. O(nodes) within the database, O(found) here."""

    def make() -> Any:
        from sqlalchemy import DateTime, and_, bindparam, or_

        updated, deleted_at, deleted = _time("updated_at"), _time("deleted_at"), _column("deleted")
        at = bindparam("since", type_=DateTime())
        where = or_(updated >= at, deleted_at >= at, and_(updated.is_(None), deleted == literal(0)))
        return reading.select(cn.NODES, _KEYS, where=where)

    return reading.again("changed nodes", make, since=since)


def sum_of_nodes(reading: Reading) -> tuple[int, int] | None:
    """How many compute nodes are not deleted, and the sum of the times of their last changes (microseconds since 2026),
    which no change leaves as it was but one within a second of another where times have no fraction. None where the
    database cannot add times. O(nodes) within the database."""
    text = _MICROSECONDS.get(reading.dialect)
    if text is None:
        return None

    def make() -> Any:
        from sqlalchemy import Integer, and_, func, literal_column

        where = and_(_column("deleted") == literal(0), _column("uuid").is_not(None))
        return reading.figures(cn.NODES, func.count(), func.sum(literal_column(text, Integer)), where=where)

    ((count, total),) = reading.tuples("sum of nodes", make)
    return int(count), int(total or 0)


def sum_of_node_keys(reading: Reading) -> tuple[int, int] | None:
    """How many compute nodes are not deleted, and the sum of `key_of` of id, uuid, host and name, which tells whether
    all are known without reading them. None where the database has no digests, as SQLite and a PostgreSQL before 11.
    O(nodes) within the database."""
    return _sum_of_keys(reading, cn.NODES, _NODE_KEY, lambda: _column("uuid").is_not(None))


def sum_of_place_keys(reading: Reading) -> tuple[int, int] | None:
    """The same of instances on a host, by uuid, host and node."""
    return _sum_of_keys(reading, INSTANCES, _PLACE_KEY, lambda: _column("host").is_not(None))


def sum_of_service_keys(reading: Reading) -> tuple[int, int] | None:
    """The same of nova-compute services, by id, host, version and why it is disabled."""
    return _sum_of_keys(reading, cn.SERVICES, _SERVICE_KEY, _computes)


def _sum_of_keys(
    reading: Reading, table: str, names: Sequence[str], where: Callable[[], Any]
) -> tuple[int, int] | None:
    text = _KEY.get(reading.dialect)
    if text is None or (reading.dialect == "postgresql" and reading.version < _WITH_SHA256):
        return None

    def make() -> Any:
        from sqlalchemy import Integer, and_, func, literal_column

        known = reading.columns(table)
        key = text.format(f"concat_ws('|', {', '.join(name for name in names if name in known)})")
        alive = and_(_column("deleted") == literal(0), where())
        return reading.figures(table, func.count(), func.sum(literal_column(key, Integer)), where=alive)

    ((count, total),) = reading.tuples(f"keys of {table}", make)
    return int(count), int(total or 0)


def key_of(*values: object) -> int:
    """A number for values that are not None, as the sums of keys add it."""
    text = "|".join([str(value) for value in values if value is not None])
    return int(hashlib.sha256(text.encode()).hexdigest()[:_DIGITS], 16)


def microseconds(at: datetime | None) -> int:
    """A time of the database as `sum_of_nodes` adds it; 0 for none."""
    return 0 if at is None else (at - _EPOCH) // _MICROSECOND


def nodes_by_id(reading: Reading, ids: Sequence[int]) -> list[Any]:
    """Whole rows of compute nodes, of at most CHUNK ids, with a last column ``row_sum``: of `sums_of_rows`, or None."""

    def make() -> Any:
        from sqlalchemy import BigInteger

        query = reading.select(cn.NODES, cn.NODE_COLUMNS, where=reading.among("id", BigInteger()))
        return query.add_columns(_row_sum(reading).label("row_sum"))

    return reading.again("nodes", make, ids) if ids else []


def sums_of_rows(reading: Reading, ids: Collection[int]) -> dict[int, str] | None:
    """A sum over the columns of compute nodes by id, which tells whether a row is as it was without reading it; None
    where times have fractions, so that theirs tell. O(ids)."""
    if reading.dialect not in _WHOLE_SECONDS:
        return None

    def make() -> Any:
        from sqlalchemy import BigInteger

        query = reading.select(cn.NODES, ("id",), where=reading.among("id", BigInteger()))
        return query.add_columns(_row_sum(reading).label("row_sum"))

    return {id: total for some in chunks_of(ids) for id, total in reading.again("sums of nodes", make, some)}


def _row_sum(reading: Reading) -> Any:
    from sqlalchemy import String, func, literal_column, null

    if reading.dialect not in _WHOLE_SECONDS:
        return null()
    known = reading.columns(cn.NODES)
    texts = [func.coalesce(_column(name), literal_column("char(1)")) for name in cn.NODE_COLUMNS if name in known]
    return func.md5(func.concat_ws(literal_column("char(0)"), *texts), type_=String)


Service = tuple[Any, ...]
"""The columns SERVICE_COLUMNS of a service."""


def all_services(reading: Reading) -> dict[str, Service]:
    """The nova-compute services by host. O(services)."""
    rows = reading.rows(cn.SERVICES, cn.SERVICE_COLUMNS, alive=True, where=_computes(), order=None)
    return {row[_HOST]: tuple(row) for row in rows}


def heartbeats(reading: Reading) -> Sequence[tuple[str, Any, Any]]:
    """The host of each nova-compute service, when it was last heard, and its version: what changes of services that
    are not unusual. O(services)."""
    if reading.dialect in _WHOLE_SECONDS:
        found = _heartbeats_of_texts(reading)
        if found is not None:
            return found

    def make() -> Any:
        return reading.select(cn.SERVICES, ("host", "last_seen_up", "version"), alive=True, where=_computes())

    return cast("Sequence[tuple[str, Any, Any]]", reading.tuples("heartbeats", make))


def _heartbeats_of_texts(reading: Reading) -> list[tuple[str, Any, Any]] | None:
    """The heartbeats of many services a row, as texts: the driver takes as long for each row as Python for twenty of
    these lines. None if a line is not whole, as one is that the database has cut off: each ends with a tab, so that
    a version that lost digits shows. Services without a host, of which there are no lines, count as such too."""

    def make() -> Any:
        from sqlalchemy import Integer, String, column, func, literal_column

        line = (
            "group_concat(concat(host, '\t', coalesce(last_seen_up, ''), '\t', coalesce(version, ''), '\t')"
            " separator '\n')"
        )
        some = (func.count(type_=Integer), literal_column(line, String))
        where = _computes() & (_column("deleted") == literal(0))
        return reading.figures(cn.SERVICES, *some, where=where).group_by(column("id").op("div")(literal(HEARD_CHUNK)))

    reading.set("group_concat_max_len", HEARD_BYTES)
    rows = reading.tuples("heartbeats as texts", make)
    lines = "\n".join([text or "" for _, text in rows]).split("\n") if rows else []  # NULL where no service has a host
    found = [
        (host, datetime.fromisoformat(seen) if seen else None, int(version) if version else None)
        for host, seen, version, _ in (line.split("\t") for line in lines if line.count("\t") == 3)
    ]
    return found if len(found) == sum(count for count, _ in rows) else None


def unusual_services(reading: Reading) -> dict[str, Service]:
    """Those that are disabled or forced down: few, so that a change of it is seen without a time. O(services) within
    the database, O(found) here."""

    def make() -> Any:
        from sqlalchemy import Boolean, and_, column, or_, true

        marks = [column(name, Boolean).is_(true()) for name in ("disabled", "forced_down")]
        where = and_(_computes(), or_(*marks))
        return reading.select(cn.SERVICES, cn.SERVICE_COLUMNS, alive=True, where=where)

    return {row[_HOST]: row for row in reading.tuples("unusual services", make)}


def services_of(reading: Reading, hosts: Iterable[str]) -> dict[str, Service]:
    """Those of service hosts."""

    def make() -> Any:
        from sqlalchemy import String

        return reading.select(cn.SERVICES, cn.SERVICE_COLUMNS, alive=True, where=reading.among("host", String()))

    found: dict[str, Service] = {}
    for some in chunks_of(hosts):
        rows = reading.again("services", make, some)
        found |= {row.host: tuple(row) for row in rows if row.binary == cn.COMPUTE}
    return found


def instance_places(reading: Reading) -> Iterator[Any]:
    """Of all instances on a host that are not deleted, uuid, host, node and the time of the last change. O(rows)."""
    return reading.rows(INSTANCES, _PLACES, alive=True, where=_column("host").is_not(None), order=None)


def changed_instance_places(reading: Reading, since: datetime) -> list[Any]:
    """Of instances that were changed at ``since`` or later, deleted ones among them, the same and their states."""

    def make() -> Any:
        from sqlalchemy import DateTime, bindparam

        where = _time("updated_at") >= bindparam("since", type_=DateTime())
        return reading.select(INSTANCES, _CHANGED_PLACES, where=where)

    return reading.again("changed instances", make, since=since)


def instances_by_uuid(reading: Reading, uuids: Iterable[str]) -> Iterator[Any]:
    """Instances that are there, deleted ones among them, with their states."""

    def make() -> Any:
        from sqlalchemy import String

        return reading.select(INSTANCES, _CHANGED_PLACES, where=reading.among("uuid", String()))

    for some in chunks_of(uuids):
        yield from reading.again("instances", make, some)


def instances_on(reading: Reading, hosts: Iterable[str]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Instances of service hosts by host and node, as a Host has them. O(instances)."""

    def make() -> Any:
        from sqlalchemy import String

        return reading.select(INSTANCES, _PLACES, alive=True, where=reading.among("host", String()))

    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for some in chunks_of(hosts):
        for row in reading.again("instances of hosts", make, some):
            found.setdefault((row.host, row.node), {})[row.uuid] = {}
    return found


def mark_of_aggregates(reading: Reading) -> tuple[Any, ...]:
    """Figures that are others once an aggregate, a host or metadata was added, changed or deleted. A change that is
    committed after a later one has the same: a look at all of them shows it."""
    from sqlalchemy import func

    figures = (func.count(), func.max(_column("id")), func.max(_time("updated_at")))
    return tuple(reading.value(table, *figures) for table in _OF_AGGREGATES)


def _column(name: str) -> Any:
    from sqlalchemy import column

    return column(name)


def _time(name: str) -> Any:
    from sqlalchemy import DateTime, column

    return column(name, DateTime)


def _computes() -> Any:
    return _column("binary") == literal(cn.COMPUTE)


def literal(value: Any) -> Any:
    """A constant of a statement that is compiled once."""
    from sqlalchemy import literal_column

    return literal_column(repr(value))


def column_among(reading: Reading, name: str, keys: Collection[Any]) -> Any:
    """A column is one of ``keys``: an array where there are arrays, so that one query serves any number of them."""
    if reading.dialect != "postgresql":
        return _column(name).in_(keys)
    from sqlalchemy import ARRAY, BigInteger, String, any_, column, literal

    kind = BigInteger() if name == "id" else String()
    return column(name, kind) == any_(literal(list(keys), ARRAY(kind)))


def chunks_of(keys: Iterable[Key]) -> Iterator[list[Key]]:
    """Keys in order, CHUNK at a time."""
    ordered = sorted(keys)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]


__all__ = [
    "CHUNK",
    "Service",
    "all_services",
    "changed_instance_places",
    "changed_node_keys",
    "chunks_of",
    "column_among",
    "heartbeats",
    "instance_places",
    "instances_by_uuid",
    "instances_on",
    "key_of",
    "mark_of_aggregates",
    "microseconds",
    "node_keys",
    "nodes_by_id",
    "services_of",
    "sum_of_node_keys",
    "sum_of_nodes",
    "sum_of_place_keys",
    "sum_of_service_keys",
    "sums_of_rows",
    "unusual_services",
]
