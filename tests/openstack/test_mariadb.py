"""A cell in a real MariaDB, whose times have no fraction: sums of rows tell the changes that times do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from hostler.bench.environments import ServiceUnavailable
from hostler.bench.nova_following import empty
from hostler.bench.nova_tables import CELL, fill, metadata_of
from hostler.drivers.openstack.bus.follower import Changes, Follower
from hostler.drivers.openstack.source import changed_rows as rows
from hostler.drivers.openstack.source.compute_nodes import NODE_COLUMNS
from hostler.drivers.openstack.source.databases import Database, Reading
from hostler.drivers.openstack.source.nova_databases import Cell
from hostler.drivers.openstack.source.unplaced import unmoved

from .clouds import check_sums_of_keys

sqlalchemy = pytest.importorskip("sqlalchemy", reason="the extra openstack is not installed")
pytest.importorskip("pymysql", reason="the extra openstack is not installed")

HOSTS, GUESTS = 5, 2


class Followed:
    """A cell, and a follower of it that has read it once."""

    def __init__(self, url: str) -> None:
        self.engine = sqlalchemy.create_engine(url)
        tables = metadata_of("mariadb")
        tables.drop_all(self.engine)
        tables.create_all(self.engine)
        fill(self.engine, tables, hosts=HOSTS, guests=GUESTS, cell=url)
        self.database = Database("cell1", url, kept=True)
        self.cells = [Cell(self.database, CELL)]
        self.follower = Follower(lambda: self.cells, Database("api", url, kept=True))
        self.first = self.look(full=True)

    def look(self, *, full: bool = False, compared: bool = False) -> Changes:
        found = self.follower.look(now=time.time(), full=full, compared=compared)
        assert not found.failed
        return found

    def sql(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement), values)

    def close(self) -> None:
        self.follower.close()
        self.engine.dispose()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with empty("mariadb", tmp_path_factory.mktemp("mariadb")) as (url, _):
            yield url
    except ServiceUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(params=["mariadb", "mysql"])
def it(server: str, request: pytest.FixtureRequest) -> Iterator[Followed]:
    """By each name of the dialect that nova.conf may have."""
    made = Followed(server.replace("mariadb+", f"{request.param}+"))
    assert made.database.shown.startswith(f"{request.param}+")
    yield made
    made.close()


def test_sums_are_those_of_whole_rows_and_of_the_times_that_are_counted(it: Followed) -> None:
    assert [len(host.instances) for host in it.first.hosts] == [GUESTS] * HOSTS
    with it.database.reading() as reading:
        keys = list(rows.node_keys(reading))
        ids = [row.id for row in keys]
        whole = {row.id: row.row_sum for row in rows.nodes_by_id(reading, ids)}
        assert whole == rows.sums_of_rows(reading, ids)
        assert len(set(whole.values())) == HOSTS
        assert rows.sum_of_nodes(reading) == (HOSTS, sum(rows.microseconds(row.updated_at) for row in keys))


def test_heartbeats_are_the_same_as_texts_and_as_rows(it: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    it.sql("UPDATE services SET last_seen_up = NULL, version = NULL WHERE id = 2")
    with it.database.reading() as reading:
        texts = rows._heartbeats_of_texts(reading)
        assert texts is not None
        assert len(texts) == HOSTS
        assert rows.heartbeats(reading) == texts
        whole = sum(len("\t".join(["" if each is None else str(each) for each in line])) + 2 for line in texts) - 1
        for size in range(4, whole + 2):  # 4 is the least that the database takes
            monkeypatch.setattr(rows, "HEARD_BYTES", size)
            assert rows._heartbeats_of_texts(reading) == (texts if size >= whole else None), size
        monkeypatch.setattr(rows, "HEARD_BYTES", 20)
        assert sorted(map(tuple, rows.heartbeats(reading))) == sorted(texts)
        monkeypatch.undo()
    it.sql("UPDATE services SET host = NULL")
    with it.database.reading() as reading:
        assert rows._heartbeats_of_texts(reading) is None
        assert [host for host, *_ in rows.heartbeats(reading)] == [None] * HOSTS
    it.sql("UPDATE services SET deleted = id")
    with it.database.reading() as reading:
        assert rows._heartbeats_of_texts(reading) == []


def test_what_no_time_shows_is_found_by_sums_without_reading_rows(
    it: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    it.sql("UPDATE services SET version = NULL, disabled_reason = 'ö' WHERE id = 2")
    check_sums_of_keys(it.database)
    for table, there in (("compute_nodes", "id = 1"), ("instances", f"host = '{it.first.hosts[1].host}'")):
        it.sql(f"UPDATE {table} SET updated_at = '2026-01-02' WHERE {there}")  # before any window
    it.look(compared=True)
    (known,) = it.follower._known.values()
    known.turn = HOSTS + 1  # none of them has its turn now
    read, found = list[str](), Reading.rows

    def noted(reading: Reading, table: str, *names: Any, **how: Any) -> Any:
        read.append(table)
        return found(reading, table, *names, **how)

    monkeypatch.setattr(Reading, "rows", noted)
    assert it.look(compared=True).hosts == []
    tables = ("compute_nodes", "instances", "services")
    assert [table for table in read if table in tables] == []
    it.sql("UPDATE compute_nodes SET hypervisor_hostname = 'renamed' WHERE id = 1")
    assert [host.nodename for host in it.look(compared=True).hosts] == ["renamed"]
    (uuid,) = list(it.first.hosts[1].instances)[:1]
    it.sql("UPDATE instances SET node = NULL, host = NULL WHERE uuid = :uuid", uuid=uuid)
    assert [len(host.instances) for host in it.look(compared=True).hosts] == [GUESTS - 1]
    it.sql("UPDATE services SET disabled_reason = 'ä' WHERE id = 3")
    assert [host.service.disabled_reason for host in it.look(compared=True).hosts if host.service] == ["ä"]
    assert it.look(compared=True).hosts == []
    assert [table for table in read if table in tables] == list(tables)


def test_keys_with_marks_of_sql_are_keys(it: Followed) -> None:
    marks = ["x'%s", "%(keys)s", "a\\", 'b"', ":c"]
    with it.database.reading() as reading:
        places = [row.uuid for row in rows.instance_places(reading)]
        assert len(list(rows.instances_by_uuid(reading, [*places, *marks]))) == HOSTS * GUESTS
        assert rows.services_of(reading, marks) == {}


def test_changes_within_the_second_of_another_are_followed(it: Followed) -> None:
    assert [it.look().hosts for _ in range(2)] == [[], []]
    it.sql("UPDATE compute_nodes SET updated_at = utc_timestamp(), free_ram_mb = 7 WHERE id = 1")
    assert [host.free_ram_mb for host in it.look().hosts] == [7]
    it.sql("UPDATE compute_nodes SET free_ram_mb = 6 WHERE id = 1")
    assert [host.free_ram_mb for host in it.look().hosts] == [6]
    it.sql("UPDATE compute_nodes SET numa_topology = NULL WHERE id = 1")
    assert [host.numa_topology for host in it.look().hosts] == [None]
    assert it.look().hosts == []


def test_nodes_that_are_deleted_removed_and_made_again_are_told(it: Followed) -> None:
    names = sorted(host.nodename for host in it.first.hosts)
    deletion = "UPDATE compute_nodes SET deleted = id, deleted_at = utc_timestamp() WHERE id = "
    it.sql(deletion + "2")
    assert it.look().gone == [names[1]]
    it.sql("DELETE FROM compute_nodes WHERE id = 3")
    assert it.look().gone == [names[2]]
    it.sql(deletion + "4")
    columns = ", ".join(name for name in NODE_COLUMNS if name not in ("id", "uuid", "updated_at"))
    it.sql(
        f"INSERT INTO compute_nodes (uuid, deleted, updated_at, {columns})"
        f" SELECT 'another', 0, utc_timestamp(), {columns} FROM compute_nodes WHERE id = 4"
    )
    found = it.look()
    assert (found.gone, [host.uuid for host in found.hosts]) == ([], ["another"])


def test_an_evacuation_that_its_host_knows_is_told_from_one_whose_answer_was_lost(it: Followed) -> None:
    with it.database.reading() as reading:
        uuid = next(iter(rows.instance_places(reading))).uuid
    it.sql(
        "INSERT INTO migrations (instance_uuid, status, migration_type, deleted) VALUES"
        " (:uuid, 'accepted', 'evacuation', 0)",
        uuid=uuid,
    )
    assert unmoved(it.cells, {uuid: "target"}) == [uuid]
    it.sql("UPDATE migrations SET status = 'pre-migrating', dest_node = 'target'")
    assert unmoved(it.cells, {uuid: "target"}) == []
