"""Dumps of Nova's and Placement's databases become the same fleet as the databases."""

from __future__ import annotations

import gzip
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler import InvalidValue
from hostler.drivers.imports.command import read_databases
from hostler.drivers.openstack.source.databases import Database
from hostler.drivers.openstack.source.options import SourceOptions

from .clouds import CELL, NOW, Cloud

AWKWARD = "it's \\ a \"flavor\";\n(1,'2'),\tÜ"
"""A name with every character that dumps escape or that could end a value."""


def tables(path: Path) -> list[tuple[str, list[tuple[str, str]], list[tuple[Any, ...]]]]:
    """Each table with its columns and their types, and its rows."""
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [
            (
                name,
                [(row[1], row[2].lower()) for row in database.execute(f"PRAGMA table_info({name})")],
                database.execute(f"SELECT * FROM {name}").fetchall(),
            )
            for name in names
        ]


def mysql(path: Path) -> str:
    """As mysqldump writes it."""
    escapes = str.maketrans({"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\n", "\t": "\\t"})
    types = {"boolean": "tinyint(1)", "integer": "int(11)", "float": "double"}

    def value(cell: Any) -> str:
        return "NULL" if cell is None else f"'{cell.translate(escapes)}'" if isinstance(cell, str) else str(cell)

    said = ["-- MySQL dump 10.13\n/*!40101 SET NAMES utf8 */;\nUSE `nova`;\n"]
    for name, columns, rows in tables(path):
        told = ",\n".join(f"  `{column}` {types.get(kind, kind)} DEFAULT NULL" for column, kind in columns)
        said.append(f"CREATE TABLE `{name}` (\n{told},\n  PRIMARY KEY (`a`,`b`),\n  KEY `k` (`a`)\n) ENGINE=InnoDB;\n")
        said.append(f"LOCK TABLES `{name}` WRITE;\n")
        if rows:
            shown = ",".join(f"({','.join(map(value, row))})" for row in rows)
            said.append(f"INSERT INTO `{name}` VALUES {shown};\n")
    return "".join([*said, "CREATE TABLE `other` (`id` int);\nINSERT INTO `other` VALUES (0);\nUNLOCK TABLES;\n"])


def postgresql(path: Path) -> str:
    """As pg_dump writes it."""
    escapes = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t"})
    types = {
        "datetime": "timestamp without time zone",
        "float": "double precision",
        "varchar(36)": "character varying(36)",
    }

    def value(cell: Any, kind: str) -> str:
        told = "\\N" if cell is None else str(cell).translate(escapes)
        return {"1": "t", "0": "f"}.get(told, told) if kind == "boolean" else told

    said = ["SET client_encoding = 'UTF8';\n\n"]
    for name, columns, rows in tables(path):
        told = ",\n".join(f"    {column} {types.get(kind, kind)}" for column, kind in columns)
        said.append(f"CREATE TABLE public.{name} (\n{told}\n);\n\nALTER TABLE public.{name} OWNER TO nova;\n")
        said.append(f"COPY public.{name} ({', '.join(column for column, _ in columns)}) FROM stdin;\n")
        said += ["\t".join(map(value, row, (kind for _, kind in columns))) + "\n" for row in rows]
        said.append("\\.\n\n")
    return "".join([*said, "COPY public.other (id) FROM stdin;\n1\n\\.\n"])


def sqlite(path: Path) -> str:
    """As ``sqlite3 .dump`` writes it, and pg_dump with --inserts."""
    with closing(sqlite3.connect(path)) as database:
        return "\n".join(database.iterdump()) + "\n"


def mysql_ignore(path: Path) -> str:
    """As mysqldump --insert-ignore writes it."""
    return mysql(path).replace("INSERT INTO", "INSERT  IGNORE INTO")


def mysql_replace(path: Path) -> str:
    """As mysqldump --replace writes it, without the header (--skip-comments) and quotes (--skip-quote-names)."""
    plain = mysql(path).replace("INSERT INTO", "REPLACE INTO").replace("-- MySQL dump 10.13\n", "")
    return plain.replace("  KEY `k` (`a`)\n", "  UNIQUE KEY `k` (`a`)\n").replace("`", "")


def on_conflict(path: Path) -> str:
    """As pg_dump --inserts --on-conflict-do-nothing writes it."""
    found = re.sub(r"^(INSERT INTO .*\));$", r"\1 ON CONFLICT DO NOTHING;", sqlite(path), flags=re.MULTILINE)
    assert "ON CONFLICT" in found
    return found


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setattr(time, "time", lambda: NOW)
    made = Cloud(tmp_path)
    for number in (1, 2):
        made.instance(number, number, made.host(number, traits=("CUSTOM_FAST",)), flavor={"name": AWKWARD})
    made.group(1, "anti-affinity", "dddddddd-0000-4000-8000-000000000001", rules='{"max_server_per_host": "2"}')
    return made


def taken(options: SourceOptions) -> tuple[Any, ...]:
    fleet, requests, report = read_databases(options)
    hosts = {fleet.name(row): sorted(map(str, fleet.inventory(fleet.name(row)).items())) for row in range(fleet.rows)}
    guests = {uuid: fleet.consumer(uuid) for uuid in requests}
    return hosts, guests, requests, msgspec.to_builtins(report)


@pytest.mark.parametrize("dumped", [mysql, mysql_ignore, mysql_replace, postgresql, sqlite, on_conflict])
def test_dumps_are_read_as_their_databases(cloud: Cloud, tmp_path: Path, dumped: Callable[[Path], str]) -> None:
    cell = f"{CELL}={cloud.url('cell')}"
    first = taken(SourceOptions(placement=cloud.url("placement"), nova_api=cloud.url("api"), nova_cell=[cell]))
    files = {name: tmp_path / f"{name}.dump" for name in ("placement", "api", "cell")}
    for name, path in files.items():
        data = dumped(getattr(cloud, name)).encode()
        path.write_bytes(gzip.compress(data) if name == "cell" else data)
    second = taken(
        SourceOptions(
            placement=str(files["placement"]), nova_api=str(files["api"]), nova_cell=[f"{CELL}={files['cell']}"]
        )
    )
    assert second == first
    assert [spec.flavor.name for spec in second[2].values()] == [AWKWARD, AWKWARD]


def test_a_file_of_sqlite_needs_no_url(cloud: Cloud) -> None:
    assert Database("nova_api", str(cloud.api)).shown == cloud.url("api")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no dump"),
        ("PGDMP\1\2", "archive of pg_dump"),
        ("CREATE TABLE other (id int);\n", "is no dump"),
        ("USE `nova`;\nUSE `nova_api`;\n", "line 2: it holds several databases, nova, nova_api"),
        ("INSERT INTO traits VALUES (1);\n", "no CREATE TABLE"),
        (
            "CREATE TABLE traits (id int, name text);\nINSERT INTO traits VALUES (1);\n",
            "line 2: 1 values, but 2 columns",
        ),
        ("CREATE TABLE traits (id int);\nINSERT INTO traits VALUES (replace('a', 'b'));\n", "line 2: no value"),
        ("CREATE TABLE traits (id int);\nINSERT INTO traits VALUES (1", "ends within a statement"),
        ("CREATE TABLE traits (id int);\nCOPY traits (id) FROM stdin;\n1\n", "ends within the rows"),
        (
            "CREATE TABLE traits (id int);\nCOPY traits (ids) FROM stdin;\n1\n\\.\n",
            "rows of traits: table traits has no",
        ),
    ],
)
def test_what_is_no_dump_says_so(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "dump").write_text(text)
    with pytest.raises(InvalidValue, match=problem):
        Database("nova_api", str(tmp_path / "dump"))


def test_a_dump_that_is_cut_off_or_no_text_is_an_error(tmp_path: Path) -> None:
    for data in (gzip.compress(b"CREATE TABLE traits (id int);\n" * 99)[:-9], b"CREATE TABLE \xff\xfe"):
        (tmp_path / "dump").write_bytes(data)
        with pytest.raises(InvalidValue, match="cannot be read"):
            Database("nova_api", str(tmp_path / "dump"))
