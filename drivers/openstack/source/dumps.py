"""Dumps of the databases of Nova and Placement, as ``mysqldump``, ``mariadb-dump``, ``pg_dump`` in plain text or
``sqlite3 .dump`` write them, taken into a database in memory: the tables that are read, with all their columns."""

from __future__ import annotations

import io
import re
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from ....placement.types.errors import InvalidValue
from ....sim.trace.rows import decompressed
from .dump_values import called, copied, unescaped

TABLES: Final = frozenset(
    {
        *("resource_classes", "resource_providers", "inventories", "allocations", "resource_provider_aggregates"),
        *("placement_aggregates", "traits", "resource_provider_traits", "projects", "users", "consumers"),
        *("consumer_types", "services", "compute_nodes", "instances", "instance_extra", "pci_devices", "migrations"),
        *("cell_mappings", "aggregates", "aggregate_hosts", "aggregate_metadata", "instance_groups"),
        *("instance_group_member", "instance_group_policy", "request_specs"),
    }
)
"""Tables that are taken; others, such as of actions and events, are passed over."""
_SQLITE: Final = b"SQLite format 3\0"
_BEGINS: Final = ("CREATE ", "INSERT ", "REPLACE ", "COPY ", "USE ", "\\CONNECT ", "COMMENT ON ")
_NAMED: Final = re.compile(
    r"""(?P<word>CREATE\ (?:UNLOGGED\ )?TABLE(?:\ IF\ NOT\ EXISTS)?|(?:INSERT(?:\s+IGNORE)?|REPLACE)\s+INTO|COPY)\s+
        (?:[`"]?[\w-]+[`"]?\.)?[`"]?(?P<name>[\w-]+)[`"]?\s*(?:\((?P<columns>[^)']*)\))?""",
    re.VERBOSE | re.IGNORECASE,
)
_DATABASE: Final = re.compile(
    r"""(?:USE|\\CONNECT)\s+(?:-\S+\s+)?[`"]*(?:dbname=)?'?(?P<name>[^`"';\s]+)""", re.IGNORECASE
)
"""USE of MySQL and \\connect of PostgreSQL's programs."""
_COLUMN: Final = re.compile(r"""^\s*(?P<begins>[`"]?(?P<name>\w+))[`"]?\s+(?P<type>[A-Za-z]+(?:\s*\(\d+\))?)""")
_PART: Final = re.compile(
    r"""(?:[^,('`"]|\((?:[^()]|\([^()]*\))*\)|'(?:[^'\\]|\\.|'')*'|`[^`]*`|"[^"]*")+""", re.DOTALL
)
"""A column or key in the parentheses of CREATE TABLE."""
_KEYS: Final = frozenset({"primary", "unique", "constraint", "foreign", "check", "fulltext", "period"})
"""What a key or constraint begins with, without quotes. Behind ``KEY`` is a name in quotes, as no type is."""
_BACKSLASHES: Final = re.compile(
    r"\s*(?:(?:_\w+\s*)?'(?P<text>(?:[^'\\]++|\\.|'')*+)'|(?P<plain>[^,()'\s]++))\s*(?P<end>[,)])", re.DOTALL
)
"""A value as MySQL writes it."""
_STANDARD: Final = re.compile(
    r"\s*(?:'(?P<text>(?:[^']++|'')*+)'|(?P<plain>[xX]'[0-9a-fA-F]*+'|[^,()'\s]++))(?:::[\w ]+)?\s*(?P<end>[,)])",
    re.DOTALL,
)
_HEADER: Final = 5
"""Lines among which the one is by which MySQL's programs name themselves."""
_GAP: Final = re.compile(r"\s*,?\s*")
_BEHIND: Final = re.compile(r"(?:ON CONFLICT DO NOTHING)?\s*;?", re.IGNORECASE)
"""What may be behind the rows of an INSERT."""
_END: Final = re.compile(r"\s*(?P<end>[,)])")


def is_database_file(path: Path) -> bool:
    """True for a file of SQLite itself."""
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def load_dump(path: Path, field: str) -> sqlite3.Connection:
    """A database in memory with the tables of a dump, which may be compressed by gzip or zstandard. InvalidValue, with
    the line, for another file, or one that holds several databases. O(file)."""
    made = sqlite3.connect(":memory:", check_same_thread=False)
    reader = _Dump(path, field, made)
    try:
        with _opened(path, field) as text:
            reader.read(text)
    except (OSError, EOFError, UnicodeError, zlib.error) as error:
        raise InvalidValue(f"{path} cannot be read: {error}", field=field) from None
    if not reader.columns:
        hint = "a dump in plain SQL, by mysqldump or pg_dump, of one database with its tables"
        raise InvalidValue(f"{path} is no dump of a database of Nova or Placement", field=field, hint=hint)
    made.commit()
    return made


@contextmanager
def _opened(path: Path, field: str) -> Iterator[IO[str]]:
    with path.open("rb") as raw:
        begun = raw.peek(5)[:5]
        if begun == b"PGDMP":
            problem = f"{path} is an archive of pg_dump, not plain SQL"
            raise InvalidValue(problem, field=field, hint=f"pg_restore -f FILE {path.name} makes plain SQL of it")
        with io.TextIOWrapper(decompressed(raw, field), encoding="utf-8-sig", newline="\n") as text:
            yield text


class _Dump:
    """Takes the statements of a dump. ``columns``: of each table, with their types in SQLite."""

    def __init__(self, path: Path, field: str, made: sqlite3.Connection) -> None:
        self._path, self._field, self._made = path, field, made
        self.columns: dict[str, dict[str, str]] = {}
        self._database, self._databases = "", set[str]()
        """The one whose tables follow, and those that had some."""
        self._line, self._backslashes = 0, False

    def read(self, text: IO[str]) -> None:
        """Take all statements. InvalidValue for one that cannot be read."""
        lines = self._counted(text)
        for line in lines:
            self._backslashes |= self._line <= _HEADER and line.startswith(("-- MySQL dump", "-- MariaDB dump"))
            if not line.upper().startswith(_BEGINS):
                continue
            if (database := _DATABASE.match(line)) is not None:
                self._database = database["name"]
                continue
            named = _NAMED.match(line)
            name, word = ("", line) if named is None else (named["name"], named["word"])
            columns, word = _names(named and named["columns"]), word[:4].upper()
            if word == "COPY" and "FROM STDIN" in line.upper():
                self._insert(name, columns, self._copied(lines))
            elif word == "CREA" and name in TABLES:
                self._create(name, line, lines)
            elif word in ("INSE", "REPL") and name in TABLES:
                self._insert(name, columns, self._valued(line, lines))
            elif word in ("INSE", "REPL", "COMM"):
                for _ in self._statement(line, lines):  # whose texts may have lines like those of statements
                    pass

    def _counted(self, text: IO[str]) -> Iterator[str]:
        for self._line, line in enumerate(text, 1):
            yield line

    def _wrong(self, problem: str) -> InvalidValue:
        hint = "dump one database, in plain SQL, with its tables"
        return InvalidValue(f"{self._path}, line {self._line}: {problem[:200]}", field=self._field, hint=hint)

    def _create(self, name: str, line: str, lines: Iterator[str]) -> None:
        self._databases.add(self._database)
        if len(self._databases) > 1:
            raise self._wrong(f"it holds several databases, {', '.join(sorted(self._databases))}")
        if name in self.columns:
            raise self._wrong(f"the table {name} is there twice")
        statement = [line]
        while not statement[-1].rstrip().endswith(";"):
            statement.append(next(lines, ";"))
        body, _, options = "".join(statement).partition("(")[2].rpartition(")")
        self._backslashes |= "ENGINE=" in options.upper()
        found = (_COLUMN.match(part) for part in _PART.findall(body))
        columns = {each["name"]: _type(each["type"]) for each in found if each and each["begins"].lower() not in _KEYS}
        if not columns:
            raise self._wrong(f"the table {name} has no columns")
        told = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
        self._made.execute(f'CREATE TABLE "{name}" ({told})')
        self.columns[name] = columns

    def _insert(self, name: str, named: Sequence[str], rows: Iterator[list[Any]]) -> None:
        if name not in TABLES:
            for _ in rows:
                pass
            return
        if name not in self.columns:
            raise self._wrong(f"rows of {name}, of which no CREATE TABLE tells the columns")
        kinds = self.columns[name]
        columns = list(named) or list(kinds)
        flags = [at for at, column in enumerate(columns) if kinds.get(column) == "BOOLEAN"]
        told = ", ".join(f'"{column}"' for column in columns)
        command = f'INSERT INTO "{name}" ({told}) VALUES ({", ".join("?" * len(columns))})'

        def checked() -> Iterator[list[Any]]:
            for row in rows:
                if len(row) != len(columns):
                    raise self._wrong(f"{len(row)} values, but {len(columns)} columns of {name}")
                for at in flags:
                    row[at] = _FLAGS.get(str(row[at]).lower(), row[at])
                yield row

        try:
            self._made.executemany(command, checked())
        except sqlite3.Error as error:
            raise self._wrong(f"rows of {name}: {error}") from None

    def _copied(self, lines: Iterator[str]) -> Iterator[list[Any]]:
        """Rows after COPY of PostgreSQL."""
        for line in lines:
            if line.rstrip("\r\n") == "\\.":
                return
            yield [None if cell == "\\N" else copied(cell) for cell in line.rstrip("\r\n").split("\t")]
        raise self._wrong("it ends within the rows of a table")

    def _valued(self, line: str, lines: Iterator[str]) -> Iterator[list[Any]]:
        """Rows of an INSERT, which MySQL writes in one line, and others with what their texts have of lines."""
        backslashes, statement = self._escapes(line), "".join(self._statement(line, lines))
        begun = re.search(r"\bVALUES\s*(?=\()", statement, re.IGNORECASE)
        if begun is None:
            raise self._wrong("INSERT without VALUES")
        yield from self._tuples(statement, begun.end(), _BACKSLASHES if backslashes else _STANDARD, backslashes)

    def _escapes(self, line: str) -> bool:
        """True if the texts of an INSERT have backslashes, and lines as ``\\n``, as those of MySQL."""
        return self._backslashes or "`" in line.partition("(")[0]

    def _statement(self, line: str, lines: Iterator[str]) -> Iterator[str]:
        """The lines of a statement with texts."""
        backslashes, quotes = self._escapes(line), line.count("'")
        yield line
        while not line.rstrip().endswith(";") or (quotes % 2 and not backslashes):
            more = next(lines, None)
            if more is None:
                raise self._wrong("it ends within a statement")
            line = more
            quotes += line.count("'")
            yield line

    def _tuples(self, statement: str, at: int, value: re.Pattern[str], backslashes: bool) -> Iterator[list[Any]]:
        while statement[at : at + 1] == "(":
            at += 1
            row: list[Any] = []
            while True:
                cell, end, at = self._value(statement, at, value, backslashes)
                row.append(cell)
                if end == ")":
                    break
            yield row
            gap = _GAP.match(statement, at)
            at = at if gap is None else gap.end()
        if not _BEHIND.fullmatch(statement[at:].strip()):
            raise self._wrong(f"what is behind the rows: {statement[at : at + 40]!r}")

    def _value(self, statement: str, at: int, value: re.Pattern[str], backslashes: bool) -> tuple[Any, str, int]:
        """The value at a place, what ends it, and the place behind that."""
        found = value.match(statement, at)
        if found is not None:
            text = found["text"]
            cell = _plain(found["plain"]) if text is None else _quoted(text, backslashes)
            return cell, found["end"], found.end()
        try:
            cell, behind = called(statement, at)
        except ValueError:
            ended = None
        else:
            ended = _END.match(statement, behind)
        if ended is None:
            raise self._wrong(f"no value: {statement[at : at + 40]!r}")
        return cell, ended["end"], ended.end()


_FLAGS: Final = {"t": 1, "true": 1, "f": 0, "false": 0}


def _names(columns: str | None) -> list[str]:
    return [name.strip().strip('`"') for name in (columns or "").split(",") if name.strip()]


def _type(told: str) -> str:
    """The type of SQLite for one of another database, as SQLAlchemy understands it."""
    kind = re.sub(r"\s", "", told.lower())
    if kind in ("tinyint(1)", "boolean", "bool"):
        return "BOOLEAN"
    if kind.startswith(("datetime", "timestamp")):
        return "DATETIME"
    if kind.startswith(("float", "double", "real", "numeric", "decimal")):
        return "FLOAT"
    return "INTEGER" if "int" in kind or "serial" in kind else "TEXT"


def _quoted(text: str, backslashes: bool) -> str:
    return unescaped(text) if backslashes else text.replace("''", "'")


def _plain(text: str) -> Any:
    """A value without quotes."""
    if text.upper() == "NULL":
        return None
    if text[:2].lower() in ("0x", "x'"):
        return bytes.fromhex(text[2:].rstrip("'")).decode("utf-8", errors="replace")
    return _FLAGS.get(text.lower(), text)


__all__ = ["TABLES", "is_database_file", "load_dump"]
