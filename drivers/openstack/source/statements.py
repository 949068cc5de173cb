"""Statements that are asked again and again: compiled once, and handed to the driver of the database as they are. What
SQLAlchemy does in each execution (key of its cache, types of parameters and rows) takes longer than the reading of some
rows."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

KEYS: Final = "keys"
"""The parameter of `among`."""
_MARK: Final = "__hostler_keys__"
"""In place of the keys, where a statement needs a parameter for each."""
_COMPILED: Final = ("psycopg", "pymysql")
"""Drivers whose rows have the values that SQLAlchemy would make of them. SQLite has texts in place of times."""


@dataclass(frozen=True, slots=True)
class Statement:
    """``text`` as the driver takes it, None where SQLAlchemy executes ``query``; ``names``: of its parameters in order,
    None where the driver takes them by name; ``row``: class of its rows."""

    query: Any
    text: str | None
    names: tuple[str, ...] | None
    row: Any

    def rows(self, connection: Any, keys: Sequence[Any], values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """Execute it. O(rows)."""
        if self.text is None:
            given = {**values, KEYS: list(keys)} if keys else dict(values)
            return [tuple(each) for each in connection.execute(self.query, given)]
        text, parameters = self.text, dict[str, Any](values)
        given: Any = parameters
        if self.names is None:
            if keys:
                parameters[KEYS] = list(keys)
        else:
            given = tuple(parameters[name] for name in self.names)
            if keys:
                text = text.replace(_MARK, ", ".join(["%s"] * len(keys)))
                given = (*given, *keys)
        answer = connection.exec_driver_sql(text, given)
        found: Sequence[tuple[Any, ...]] = answer.cursor.fetchall()
        answer.close()
        return found


def compiled(query: Any, dialect: Any) -> Statement:
    """A statement for the driver of a database."""
    row: Any = namedtuple("Row", [column.name for column in query.selected_columns], rename=True)  # noqa: PYI024
    if dialect.driver not in _COMPILED:
        return Statement(query, None, None, row)
    made = query.compile(dialect=dialect)
    return Statement(query, str(made), tuple(made.positiontup or ()) if made.positional else None, row)


def among(dialect: Any, name: str, kind: Any) -> Any:
    """A column of type ``kind`` is one of the keys, which are given to each execution and not none: an array where
    there are arrays, so that one text serves any number of them. Last of the conditions."""
    import sqlalchemy as sa

    if dialect.name == "postgresql":
        return sa.column(name, kind) == sa.any_(sa.bindparam(KEYS, type_=sa.ARRAY(kind)))
    if dialect.driver in _COMPILED:
        return sa.literal_column(f"{dialect.identifier_preparer.quote(name)} in ({_MARK})", sa.Boolean)
    return sa.column(name, kind).in_(sa.bindparam(KEYS, expanding=True))


__all__ = ["KEYS", "Statement", "among", "compiled"]
