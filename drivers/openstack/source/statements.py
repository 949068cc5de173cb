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
"""Drivers that take parameters by name, as ``%(name)s``, and whose rows have the values that SQLAlchemy would make of
them. SQLite has texts in place of times."""


@dataclass(frozen=True, slots=True)
class Statement:
    """``text`` as the driver takes it, with parameters by name; None where SQLAlchemy executes ``query``. ``row``:
    class of its rows; ``has_arrays``: keys are one parameter."""

    query: Any
    text: str | None
    row: Any
    has_arrays: bool

    def rows(self, connection: Any, keys: Sequence[Any], values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """Execute it. O(rows)."""
        text, given = self.text, dict(values)
        if text is None:
            return [tuple(each) for each in connection.execute(self.query, {**given, KEYS: keys} if keys else given)]
        if keys and self.has_arrays:
            given[KEYS] = list(keys)
        elif keys:
            named = {f"{KEYS}_{number}": key for number, key in enumerate(keys)}
            text = text.replace(_MARK, ", ".join([f"%({name})s" for name in named]))
            given |= named
        answer = connection.exec_driver_sql(text, given)
        found: Sequence[tuple[Any, ...]] = answer.cursor.fetchall()
        answer.close()
        return found


def compiled(query: Any, dialect: Any) -> Statement:
    """A statement for the driver of a database."""
    make: Any = namedtuple
    row = make("Row", [column.name for column in query.selected_columns], rename=True)
    text = str(query.compile(dialect=dialect)) if dialect.driver in _COMPILED else None
    return Statement(query, text, row, dialect.name == "postgresql")


def among(dialect: Any, name: str, kind: Any) -> Any:
    """A column of type ``kind`` is one of the keys, which are given to each execution and not none: an array where
    there are arrays, so that one text serves any number of them. Last of the conditions."""
    import sqlalchemy as sa

    if dialect.name == "postgresql":
        return sa.column(name, kind) == sa.any_(sa.bindparam(KEYS, type_=sa.ARRAY(kind)))
    if dialect.driver in _COMPILED:
        return sa.text(f"{dialect.identifier_preparer.quote(name)} in ({_MARK})")
    return sa.column(name, kind).in_(sa.bindparam(KEYS, expanding=True))


__all__ = ["KEYS", "Statement", "among", "compiled"]
