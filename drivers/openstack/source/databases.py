"""Connections to the databases of OpenStack services, with the errors of the database as Hostler's. All but the row of
a scheduler in Nova's table ``services`` is only read. The extra ``openstack`` installs SQLAlchemy and the drivers;
nothing of Nova or Placement is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ....placement.types.errors import HostlerError, InvalidValue
from ....placement.types.extras import import_extra, not_importable
from .dumps import is_database_file, load_dump
from .statements import Statement, among, compiled

CHUNK: Final = 5_000
"""Rows fetched at a time."""
_DRIVERS: Final = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
"""Of URLs that name none."""
_LEVEL: Final = "REPEATABLE READ"
"""Isolation by which a transaction sees one state, of servers."""
_PATIENCE: Final[Mapping[str, Mapping[str, int]]] = {
    "psycopg": {
        **{"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3},
        "tcp_user_timeout": 60_000,
    },
    "pymysql": {"connect_timeout": 10, "read_timeout": 120, "write_timeout": 30},
}
"""Options of drivers by which a server that does not answer is an error (seconds, tcp_user_timeout in ms), unless the
URL has others."""


class SourceFailed(HostlerError):
    """A database or an API of OpenStack did not answer, or not as it should."""

    code = "source_failed"


class Database:
    """One database. ``name`` is what reports call it; no text of it names the password."""

    def __init__(self, name: str, url: str, *, kept: bool = False) -> None:
        """``url``: of the database, or the path of a dump of it or of a file of SQLite. InvalidValue for one that
        cannot be, or whose driver is missing. ``kept``: the connection by which it is read stays open until `close`,
        for readers that come again and again."""
        import_extra("sqlalchemy", "openstack", field=name)
        import sqlalchemy
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

        self.name = name
        self._columns: dict[str, dict[str, Any]] = {}
        self._statements: dict[str, Statement] = {}
        self._kept: Any = None
        if (path := _file_of(url)) is not None:
            if not is_database_file(path):
                self._engine, self.shown = _engine_on(load_dump(path, name)), str(path)
                return
            url = f"sqlite:///{path}"
        try:
            parsed = sqlalchemy.make_url(url_of(url))
            if parsed.drivername in _DRIVERS:
                parsed = parsed.set(drivername=_DRIVERS[parsed.drivername])
            self._check_file(parsed)
            try:
                self._engine = _engine(parsed)
            except ImportError:  # Nova's URLs name the drivers of its own environment
                usual = _DRIVERS.get(parsed.get_backend_name(), parsed.drivername)
                if usual == parsed.drivername:
                    raise
                parsed = parsed.set(drivername=usual)
                self._engine = _engine(parsed)
            # A file is opened by each reader: it may have been replaced meanwhile.
            self._kept = _kept_engine(parsed) if kept and parsed.get_backend_name() != "sqlite" else None
        except (ArgumentError, NoSuchModuleError, ValueError) as error:
            # The text of the first may have the URL in it, and so a password.
            why = str(error) if isinstance(error, NoSuchModuleError) else "it cannot be parsed"
            hint = "such as postgresql://USER:PASSWORD@HOST/nova_cell1, or @FILE with the URL in it"
            raise InvalidValue(f"{name}: the URL of the database is malformed: {why}", field=name, hint=hint) from None
        except ImportError as error:
            raise not_importable(error, "the driver of the database", extra="openstack", field=name) from None
        self.shown = parsed.render_as_string(hide_password=True)

    def _check_file(self, url: Any) -> None:
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            raise InvalidValue(f"{self.name}: there is no file {url.database}", field=self.name)

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """A transaction that reads one state of the database. SourceFailed if the database fails."""
        if self._kept is not None:
            with self._errors("read"), self._kept.connect() as connection:
                yield Reading(self, connection)
            return
        with self._errors("read"), self._engine.connect() as connection:
            level = "SERIALIZABLE" if self._engine.dialect.name == "sqlite" else _LEVEL
            yield Reading(self, connection.execution_options(isolation_level=level))

    def close(self) -> None:
        """Close the connection that is kept, if there is one; the next reader opens another."""
        if self._kept is not None:
            self._kept.dispose()

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """A connection in a transaction, which is committed at the end. SourceFailed if the database fails."""
        with self._errors("written"), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except SQLAlchemyError as error:
            self._columns.clear()  # its tables may have changed
            self._statements.clear()
            cause = getattr(error, "orig", None) or error
            text = str(cause).strip().splitlines()[0][:300] if str(cause).strip() else type(cause).__name__
            problem = f"{self.name} ({self.shown}) cannot be {done}: {text}"
            raise SourceFailed(problem, field=self.name) from error

    def columns(self, connection: Any, table: str) -> dict[str, Any]:
        """The columns of a table with their types; empty if there is no such table. O(columns), once a table."""
        import sqlalchemy

        if table not in self._columns:
            inspector = sqlalchemy.inspect(connection)
            if not inspector.has_table(table):
                return {}
            self._columns[table] = {each["name"]: each["type"] for each in inspector.get_columns(table)}
        return self._columns[table]

    def statement(self, connection: Any, name: str, make: Callable[[], Any]) -> Statement:
        """The statement of a name, which ``make`` gives the first time."""
        found = self._statements.get(name)
        if found is None:
            found = self._statements[name] = compiled(make(), connection.dialect)
        return found


def _file_of(url: str) -> Path | None:
    """The file that is given in place of a URL."""
    path = Path(url)
    try:
        return path if "://" not in url and not url.startswith("@") and path.is_file() else None
    except (OSError, ValueError):  # a URL that is no path
        return None


def _engine_on(connection: Any) -> Any:
    """An engine that has this connection of SQLite only."""
    import sqlalchemy

    return sqlalchemy.create_engine("sqlite://", creator=lambda: connection, poolclass=sqlalchemy.pool.StaticPool)


def _engine(url: Any) -> Any:
    import sqlalchemy

    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool, connect_args=_patience_of(url))


def _kept_engine(url: Any) -> Any:
    """An engine that keeps one connection, which is looked after before each use: the server may have ended it."""
    import sqlalchemy

    return sqlalchemy.create_engine(
        url, pool_size=1, max_overflow=1, pool_pre_ping=True, isolation_level=_LEVEL, connect_args=_patience_of(url)
    )


def _patience_of(url: Any) -> dict[str, int]:
    patience = _PATIENCE.get(url.get_driver_name(), {}) if url.host else {}
    return {name: each for name, each in patience.items() if name not in url.query}


class Reading:
    """One read-only transaction."""

    def __init__(self, database: Database, connection: Any) -> None:
        self._database, self._connection = database, connection

    def among(self, name: str, kind: Any) -> Any:
        """The condition that a column of type ``kind`` is one of the ``keys`` of `again`."""
        return among(self._connection.dialect, name, kind)

    @property
    def dialect(self) -> str:
        """SQLAlchemy's name of the kind of database, such as ``postgresql``."""
        return str(self._connection.dialect.name)

    @property
    def version(self) -> tuple[int, ...]:
        """The version of the database server, such as (16, 3); empty if it told none."""
        return tuple(self._connection.dialect.server_version_info or ())

    def columns(self, table: str) -> dict[str, Any]:
        """The columns of a table with their types; empty if there is no such table. O(columns), once a table."""
        return self._database.columns(self._connection, table)

    def set(self, variable: str, value: int) -> None:
        """Set a variable of MySQL's or MariaDB's for this connection."""
        self._connection.exec_driver_sql(f"SET SESSION {variable} = {value:d}")

    def rows(
        self,
        table: str,
        names: Sequence[str],
        *,
        alive: bool = False,
        where: Any = None,
        order: str | None = "id",
    ) -> Iterator[Any]:
        """Rows with the columns ``names`` as attributes, in order. A column that the table does not have, as its
        service is older, is None. ``alive``: without those that are deleted. SourceFailed if there is no such table.
        O(rows), a chunk in memory at a time."""
        query = self.select(table, names, alive=alive, where=where, order=order)
        answer = self._connection.execute(query.execution_options(stream_results=True))
        for chunk in answer.partitions(CHUNK):
            yield from chunk

    def again(self, name: str, make: Callable[[], Any], keys: Sequence[Any] = (), **values: Any) -> list[Any]:
        """All rows, as named tuples, of a statement that is asked often. ``make`` makes it, the first time only, with
        a bound parameter for each of ``values``, and `among` for ``keys``; ``name`` tells it from the others. O(rows),
        without the part that SQLAlchemy has in each execution."""
        statement = self._database.statement(self._connection, name, make)
        return list(map(statement.row._make, statement.rows(self._connection, keys, values)))

    def tuples(self, name: str, make: Callable[[], Any], **values: Any) -> Sequence[tuple[Any, ...]]:
        """`again`, with rows as the driver gives them, for many."""
        return self._database.statement(self._connection, name, make).rows(self._connection, (), values)

    def select(
        self, table: str, names: Sequence[str], *, alive: bool = False, where: Any = None, order: str | None = None
    ) -> Any:
        """The statement of `rows`. SourceFailed if there is no such table."""
        import sqlalchemy
        from sqlalchemy import column, select

        known = self.columns(table)
        if not known:
            hint = "is it the database of another service?"
            raise SourceFailed(f"{self._database.name} has no table {table}", field=self._database.name, hint=hint)
        there = [
            column(name, _plain(known[name])) if name in known else sqlalchemy.null().label(name) for name in names
        ]
        query = select(*there).select_from(sqlalchemy.table(table))
        if alive and "deleted" in known:
            query = query.where(column("deleted") == sqlalchemy.literal_column("0"))
        if where is not None:
            query = query.where(where)
        return query if order is None else query.order_by(column(order))

    def value(self, table: str, *figures: Any, where: Any = None) -> tuple[Any, ...]:
        """One row of figures of a table, such as counts. SourceFailed if there is no such table. O(rows) within the
        database."""
        return tuple(self._connection.execute(self.figures(table, *figures, where=where)).one())

    def figures(self, table: str, *figures: Any, where: Any = None) -> Any:
        """The statement of `value`."""
        import sqlalchemy

        if not self.columns(table):
            raise SourceFailed(f"{self._database.name} has no table {table}", field=self._database.name)
        query = sqlalchemy.select(*figures).select_from(sqlalchemy.table(table))
        return query if where is None else query.where(where)


def _plain(kind: Any) -> Any:
    """The type of a column as it was found, but for what SQLAlchemy would convert into texts of other packages."""
    import sqlalchemy

    return kind if isinstance(kind, (sqlalchemy.DateTime, sqlalchemy.Integer, sqlalchemy.Float)) else None


def url_of(given: str) -> str:
    """A URL, or that of the first line of the file that ``@FILE`` names, so that no password is on a command line.
    InvalidValue if the file cannot be read."""
    if not given.startswith("@"):
        return given
    path = Path(os.path.expanduser(given[1:]))
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise InvalidValue(f"{path} cannot be read: {error}", field="url") from None
    if not lines:
        raise InvalidValue(f"{path} is empty", field="url", hint="write the URL into it")
    return lines[0]


__all__ = ["Database", "Reading", "SourceFailed", "url_of"]
