"""The row of this scheduler in Nova's table ``services``, by which `openstack compute service list` shows it as up."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Final

from ....placement.types.errors import InvalidValue
from ..source.databases import Database, SourceFailed
from ..source.nova_databases import CELL0

BINARY: Final = "nova-scheduler"
CELL0_NAME: Final = "cell0"
"""In place of a URL: the database that Nova's API database names for cell0."""


class ServiceRow:
    """One row, by host and binary: that of a nova-scheduler that ran on the host is taken over. Used by one thread at a
    time."""

    def __init__(self, database: Database, *, host: str, topic: str) -> None:
        self._database, self._host, self._topic = database, host, topic

    def beat(self, *, now: float, version: int) -> None:
        """Write that the service was seen at ``now`` (seconds since the epoch). ``version``: that of Nova's services,
        0 if it is not known. What an administrator set (disabled, forced down) stays. SourceFailed if the database
        fails."""
        import sqlalchemy
        from sqlalchemy import and_, column, insert, select, update

        at = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
        with self._database.writing() as connection:
            there = self._database.columns(connection, "services")
            if not there:
                raise SourceFailed(f"{self._database.name} has no table services", field=self._database.name)
            table = sqlalchemy.table("services", *(column(name) for name in there))
            mine = and_(table.c.host == self._host, table.c.binary == BINARY, table.c.deleted == 0)
            row = connection.execute(select(table.c.id, table.c.report_count, table.c.version).where(mine)).first()
            values: dict[str, Any] = {"last_seen_up": at, "updated_at": at, "version": version or 0}
            if row is not None:
                values |= {"report_count": (row.report_count or 0) + 1, "version": version or row.version or 0}
                connection.execute(update(table).where(table.c.id == row.id).values(**values))
                return
            values |= {
                **{"host": self._host, "binary": BINARY, "topic": self._topic, "created_at": at, "deleted": 0},
                **{"report_count": 1, "disabled": False, "forced_down": False, "uuid": str(uuid.uuid4())},
            }
            connection.execute(insert(table).values({name: each for name, each in values.items() if name in there}))


def row_of(given: str, api: Database) -> Database:
    """The database of the row: a URL, @FILE, or ``cell0``. InvalidValue if the API database names none for cell0."""
    if given != CELL0_NAME:
        return Database("nova.services_database", given)
    with api.reading() as reading:
        found = [
            row.database_connection
            for row in reading.rows("cell_mappings", ("id", "uuid", "database_connection"))
            if row.uuid == CELL0
        ]
    if not found or not found[0] or "{" in found[0]:
        problem = "the API database has no URL of cell0's database"
        raise InvalidValue(problem, field="nova.services_database", hint="give the URL itself")
    return Database("nova.services_database", found[0])


__all__ = ["ServiceRow", "row_of"]
