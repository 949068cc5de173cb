"""Dumps of Nova's and Placement's databases become the same fleet as the databases."""

from __future__ import annotations

import gzip
import re
import shutil
import sqlite3
import subprocess
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
from hostler.drivers.openstack.source.dumps import load_dump
from hostler.drivers.openstack.source.options import SourceOptions

from .clouds import CELL, NOW, Cloud

AWKWARD = "it's \\ a \"flavor\";\n(1,'2'),\tÜ"
"""A name with every character that dumps escape or that could end a value."""


SERVICES = "CREATE TABLE public.services (\n    id integer\n);\nCOPY public.services (id) FROM stdin;\n"


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
        (
            "USE `nova`;\nCREATE TABLE `services` (`id` int);\nUSE `nova_api`;\nCREATE TABLE `traits` (`id` int);\n",
            "line 4: it holds several databases, nova, nova_api",
        ),
        (
            f"\\connect nova\n{SERVICES}1\n\\.\n\\connect -reuse-previous=on \"dbname='nova_cell0'\"\n{SERVICES}\\.\n",
            "line 9: it holds several databases, nova, nova_cell0",
        ),
        (f"{SERVICES}1\n\\.\n{SERVICES}\\.\n", "line 7: the table services is there twice"),
        ("CREATE TABLE traits (id int);\nINSERT INTO traits VALUES (lower('A'));\n", "line 2: no value"),
        ("CREATE TABLE traits (id int);\nINSERT INTO traits VALUES (char(10);\n", "line 2: no value"),
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


def test_a_dump_that_is_damaged_cut_off_or_no_text_is_an_error(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="the extra imports is not installed")
    text = b"CREATE TABLE traits (id int);\n" + b"".join(
        b"INSERT INTO traits VALUES (%d);\n" % at for at in range(9_999)
    )
    zipped, packed = gzip.compress(text), zstandard.ZstdCompressor().compress(text)
    damaged = [data[:20] + b"\xff" * 40 + data[60:] for data in (zipped, packed)]
    for data in (zipped[:-9], packed[: len(packed) // 2], *damaged, b"CREATE TABLE \xff\xfe"):
        (tmp_path / "dump").write_bytes(data)
        with pytest.raises(InvalidValue, match="cannot be read"):
            Database("nova_api", str(tmp_path / "dump"))


def rows_of(text: str, tmp_path: Path, table: str = "services") -> list[tuple[Any, ...]]:
    (tmp_path / "dump").write_text(text)
    with closing(load_dump(tmp_path / "dump", "nova_cell")) as database:
        return database.execute(f"SELECT * FROM {table}").fetchall()


@pytest.mark.parametrize(
    "passed",
    [
        "INSERT INTO public.instance_faults VALUES (1, 'no host\nUse another flavor\nuse less memory\n');\n",
        "INSERT INTO instance_faults VALUES (1, 'sql was;\nCREATE TABLE services (\n  id int\n);\nit''s all\n');\n",
        "INSERT INTO other VALUES (1, 'a\n\\connect b\nINSERT INTO services VALUES (7);\nUSE c;\n');\n",
        "COMMENT ON TABLE public.services IS 'as\nINSERT INTO services VALUES (7);\nhas it';\n",
        'COPY public."other table" (text) FROM stdin;\nINSERT INTO services VALUES (7);\n\\.\n',
        "\\connect postgres\n\\connect template1\n",
    ],
)
def test_texts_of_what_is_passed_over_are_no_statements(tmp_path: Path, passed: str) -> None:
    """As pg_dump --inserts has them, in lines."""
    text = f"{SERVICES}1\n\\.\n{passed}INSERT INTO public.services VALUES (2);\n"
    assert rows_of(text, tmp_path) == [(1,), (2,)]


def test_quotes_of_copied_rows_are_as_they_are(tmp_path: Path) -> None:
    """PostgreSQL's COPY doubles none."""
    text = "CREATE TABLE public.services (\n    binary text\n);\nCOPY public.services (binary) FROM stdin;\n"
    assert rows_of(f"{text}a''b and '' and \\\\n\n\\.\n", tmp_path) == [("a''b and '' and \\n",)]


@pytest.mark.parametrize("begun", ["INSERT INTO", "INSERT  IGNORE INTO", "REPLACE INTO"])
def test_rows_of_mysql_are_taken_however_they_are_to_be_put_in(tmp_path: Path, begun: str) -> None:
    text = f"-- MySQL dump 10.13\nCREATE TABLE `services` (\n  `id` int\n);\n{begun} `services` VALUES (1),(2);\n"
    assert rows_of(text, tmp_path) == [(1,), (2,)]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("replace('a\\nb\\n','\\n',char(10))", "a\nb\n"),
        ("replace(replace('a\\r\\nit''s (x), \\012','\\r',char(13)),'\\n',char(10))", "a\r\nit's (x), \\012"),
        ("unistr('a\\u000ab\\u001b\\\\n''\\+01F600')", "a\nb\x1b\\n'\N{GRINNING FACE}"),
        ("X'4142'", "AB"),
    ],
)
def test_values_that_sqlite_writes_as_expressions_are_evaluated(tmp_path: Path, value: str, told: str) -> None:
    text = f"CREATE TABLE services(id integer, host text);\nINSERT INTO services VALUES(1,{value});\n"
    assert rows_of(text, tmp_path) == [(1, told)]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the program sqlite3 is not installed")
def test_what_the_program_sqlite3_dumps_is_read_as_its_database(tmp_path: Path) -> None:
    texts = [AWKWARD, "ssh-rsa x\n", "a\r\nb\\n\\012\r", "\x1b[0m\t'\n''", "\n", "replace('a','b')"]
    with closing(sqlite3.connect(tmp_path / "made")) as made:
        made.execute("CREATE TABLE instances(id integer, key_data text)")
        made.executemany("INSERT INTO instances VALUES (?, ?)", enumerate(texts))
        made.commit()
    text = subprocess.run(["sqlite3", tmp_path / "made", ".dump"], capture_output=True, check=True).stdout.decode()
    assert [told for _, told in rows_of(text, tmp_path, "instances")] == texts
