"""Clouds in a real PostgreSQL: the same is read as of SQLite, and the row in ``services`` is kept."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostler.bench.environments import ServiceUnavailable
from hostler.bench.placement_database import database
from hostler.drivers.openstack.bus.follower import SETTLED, Follower
from hostler.drivers.openstack.bus.service_row import ServiceRow, row_of
from hostler.drivers.openstack.source import changed_rows
from hostler.drivers.openstack.source.databases import Database, Reading, SourceFailed
from hostler.drivers.openstack.source.nova_databases import Cell, cells_of, read_nova
from hostler.drivers.openstack.source.placement_database import read_placement

from .clouds import API_TABLES, CELL_TABLES, NOW, PLACEMENT, Cloud, check_sums_of_keys, moment

psycopg = pytest.importorskip("psycopg", reason="the extra openstack is not installed")

from psycopg import sql  # noqa: E402

BOOLEANS = ("disabled", "forced_down")
PARTS = {"placement": PLACEMENT, "cell": CELL_TABLES, "api": API_TABLES}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with database("postgresql", tmp_path_factory.mktemp("pg")) as made:
            yield made.url
    except ServiceUnavailable as error:
        pytest.skip(str(error))


def url(server: str, name: str) -> str:
    """As nova.conf has it: with a driver that is not installed here."""
    assert "+psycopg2" in server
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="module")
def cloud(server: str, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    """A cloud in SQLite, of which PostgreSQL has a copy."""
    made = Cloud(tmp_path_factory.mktemp("cloud"))
    rows = [made.host(number) for number in (1, 2)]
    for number in range(4):
        made.instance(number, 1 + number % 2, rows[number % 2], spec={"availability_zone": None})
    made.aggregate(1, "cmp1", availability_zone="z")
    made.group(1, "anti-affinity", "dddddddd-0000-4000-8000-000000000001")
    made.change(made.api, "UPDATE cell_mappings SET database_connection = ? WHERE id = 2", url(server, "cell"))
    made.change(made.api, "UPDATE cell_mappings SET database_connection = ? WHERE id = 1", url(server, "cell"))
    with psycopg.connect(server.replace("+psycopg2", ""), autocommit=True) as connection:
        for name in PARTS:
            connection.execute(f"CREATE DATABASE {name}")
    for name, tables in PARTS.items():
        with psycopg.connect(url(server, name).replace("+psycopg2", "")) as connection:
            copy(getattr(made, name), tables, connection)
    return made


def copy(path: Path, tables: str, connection: Any) -> None:
    """Tables of SQLite and their rows."""
    made = tables.replace("DATETIME", "TIMESTAMP").replace("FLOAT", "DOUBLE PRECISION")
    made = made.replace("INTEGER PRIMARY KEY", "SERIAL PRIMARY KEY").replace(" binary ", ' "binary" ')
    connection.execute(made.encode())
    source = sqlite3.connect(path)
    for table in re.findall(r"CREATE TABLE (\w+)", tables):
        found = source.execute(f"SELECT * FROM {table}")
        names = [each[0] for each in found.description]
        columns, marks = (
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join([sql.Placeholder()] * len(names)),
        )
        query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier(table), columns, marks)
        for row in found:
            pairs = zip(names, row, strict=True)
            connection.execute(query, [bool(each) if name in BOOLEANS else each for name, each in pairs])
        serial = "SELECT setval(pg_get_serial_sequence(%s, 'id'), 1000)"
        if "id" in names:
            connection.execute(serial, [table])
    source.close()


def test_the_same_is_read_as_of_sqlite(server: str, cloud: Cloud) -> None:
    ours, theirs = (Database("d", each) for each in (url(server, "placement"), cloud.url("placement")))
    assert read_placement(ours) == read_placement(theirs)
    api = Database("d", url(server, "api"))
    (cell,) = cells_of(api)
    found = read_nova([Cell(Database("c", url(server, "cell")), cell.uuid)], api, now=NOW)
    wanted = read_nova([Cell(Database("c", cloud.url("cell")), cell.uuid)], Database("d", cloud.url("api")), now=NOW)
    assert found == wanted
    assert len(found.nodes) == 2
    check_sums_of_keys(Database("c", url(server, "cell")))


def test_rows_are_read_where_the_database_has_no_digests(
    server: str, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database("c", url(server, "cell"))
    with database.reading() as reading:
        assert reading.version >= (11,)
        assert changed_rows.sum_of_node_keys(reading) is not None
        monkeypatch.setattr(Reading, "version", (10, 23))
        for sums in (changed_rows.sum_of_node_keys, changed_rows.sum_of_place_keys, changed_rows.sum_of_service_keys):
            assert sums(reading) is None
    api = Database("d", url(server, "api"))
    follower = Follower(lambda: cells_of(api), api)
    assert len(follower.look(now=NOW + 30, full=True).hosts) == 2
    looked = follower.look(now=NOW + 30, full=False, compared=True)
    assert not looked.failed
    assert looked.gone == []


def test_changes_are_followed_and_the_row_of_the_service_is_kept(server: str, cloud: Cloud) -> None:
    api = Database("d", url(server, "api"))
    steady = iter((0.0, SETTLED, 2 * SETTLED))
    follower = Follower(lambda: cells_of(api), api, steady=lambda: next(steady))
    found = follower.look(now=NOW + 30, full=True)
    assert sorted(each.nodename for each in found.hosts) == ["cmp1", "cmp2"]
    assert follower.look(now=NOW + 30, full=False).hosts == []
    plain = url(server, "cell").replace("+psycopg2", "")
    with psycopg.connect(plain) as connection:
        connection.execute("UPDATE services SET disabled = true WHERE host = 'cmp1'")
    changes = follower.look(now=NOW + 60, full=False)
    assert [(each.nodename, each.service.disabled) for each in changes.hosts if each.service] == [("cmp1", True)]
    row = ServiceRow(row_of("cell0", api), host="control", topic="scheduler")
    row.beat(now=NOW, version=0)
    with psycopg.connect(plain) as connection:
        connection.execute("UPDATE services SET disabled = true WHERE host = 'control'")
    row.beat(now=NOW + 10, version=74)
    with psycopg.connect(plain) as connection:
        query = (
            "SELECT \"binary\", topic, report_count, disabled, version, deleted FROM services WHERE host = 'control'"
        )
        assert connection.execute(query).fetchall() == [("nova-scheduler", "scheduler", 2, True, 74, 0)]
    assert changes.newest == 74


def test_a_commit_that_comes_late_is_seen_and_a_connection_that_was_ended_is_made_again(
    server: str, cloud: Cloud
) -> None:
    plain, now = url(server, "cell").replace("+psycopg2", ""), time.time()
    api, cell = (Database(name, url(server, name), kept=True) for name in ("api", "cell"))
    follower = Follower(lambda: [Cell(cell)], api, steady=lambda: now)
    follower.look(now=now, full=True)
    change = "UPDATE compute_nodes SET free_ram_mb = %s, updated_at = %s WHERE host = %s"
    with psycopg.connect(plain) as late, psycopg.connect(plain, autocommit=True) as prompt:
        late.execute(change, (1, moment(now - 3_600.25), "cmp1"))
        prompt.execute(change, (2, moment(now + 0.25), "cmp2"))
        now += 5.0
        assert [each.nodename for each in follower.look(now=now, full=False).hosts] == ["cmp2"]
        mine = [late.info.backend_pid, prompt.info.backend_pid]
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'cell' AND pid <> ALL(%s)"
        assert prompt.execute(ended, (mine,)).fetchall() == [(True,)]
        late.commit()
    assert [each.nodename for each in follower.look(now=now, full=False).hosts] == ["cmp1"]
    with psycopg.connect(plain) as connection:
        busy = "SELECT state, xact_start FROM pg_stat_activity WHERE datname = 'cell' AND pid <> pg_backend_pid()"
        assert connection.execute(busy).fetchall() == [("idle", None)], "no transaction is open between looks"
        follower.close()
        while connection.execute(busy).fetchall():
            connection.commit()
            time.sleep(0.01)


def test_a_server_that_does_not_answer_is_an_error(server: str) -> None:
    with pytest.raises(SourceFailed, match="cannot be read"), Database("d", url(server, "nowhere")).reading():
        pass
    gone = Database("d", "postgresql://u:secret@127.0.0.1:9/d")
    with pytest.raises(SourceFailed) as caught, gone.reading():
        pass
    assert "secret" not in str(caught.value)
