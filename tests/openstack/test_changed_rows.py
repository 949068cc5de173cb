"""No change of Nova's databases is missed: late commits, deletions of every kind, guests that move, aggregates without
a fan-out; and a look at a cloud in which nothing happens reads no row."""

from __future__ import annotations

import copy
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hostler.drivers.openstack.bus import follower as followers
from hostler.drivers.openstack.bus.follower import Changes, Follower
from hostler.drivers.openstack.bus.known_rows import CellState
from hostler.drivers.openstack.bus.window import LONGEST, OVERLAP, Window
from hostler.drivers.openstack.source import changed_rows as rows
from hostler.drivers.openstack.source.compute_nodes import instances_counted
from hostler.drivers.openstack.source.databases import Database, Reading, SourceFailed
from hostler.drivers.openstack.source.nova_databases import cells_of

from .clouds import NOW, Cloud, moment

pytest.importorskip("sqlalchemy", reason="the extra openstack is not installed")

HOSTS = 4
LATE = OVERLAP.total_seconds() + 20.0
"""Seconds by which a commit is later than the overlap covers."""


class Followed:
    """A cloud of some hosts with a guest each, whose time passes by a second a look."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.now = cloud, NOW
        api = Database("api", self.cloud.url("api"))
        self.follower = Follower(lambda: cells_of(api), api, steady=lambda: self.now)
        assert self.look(full=True)[0] == [f"cmp{number}" for number in range(1, HOSTS + 1)]
        assert self.look() == ([], [])

    def changes(self, seconds: float = 1.0, **how: bool) -> Changes:
        self.now += seconds
        extent = {"full": False, "compared": False, "aggregates": False, **how}
        return self.follower.look(now=self.now, stale=frozenset(), **extent)

    def look(self, seconds: float = 1.0, **how: bool) -> tuple[list[str], list[str]]:
        """Nodes that are reported, and those that are gone."""
        found = self.changes(seconds, **how)
        return sorted(each.nodename for each in found.hosts), found.gone

    def guests(self, seconds: float = 1.0, **how: bool) -> dict[str, list[str]]:
        """Nodes that are reported, with the last digit of their guests."""
        hosts = self.changes(seconds, **how).hosts
        return {each.nodename: sorted(uuid[-1] for uuid in each.instances) for each in hosts}

    @property
    def known(self) -> CellState:
        """The rows of the only cell."""
        (state,) = self.follower._known.values()
        return state

    def sql(self, statement: str, *values: Any) -> None:
        self.cloud.change(self.cloud.cell, statement, *values)

    def ago(self, seconds: float) -> str:
        return moment(self.now - seconds)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    cloud = Cloud(tmp_path_factory.mktemp("made"))
    for number in range(1, HOSTS + 1):
        cloud.host(number, seen=NOW, updated_at=moment(NOW - 60.5), free_ram_mb=1_000)
        cloud.instance(number, number, None, updated_at=moment(NOW - 60.5))
    return cloud


@pytest.fixture
def it(made: Cloud, tmp_path: Path) -> Followed:
    cloud = copy.copy(made)
    for name in ("cell", "api"):
        path = tmp_path / f"{name}.sqlite"
        shutil.copyfile(getattr(made, name), path)
        setattr(cloud, name, path)
    cloud.change(cloud.api, "UPDATE cell_mappings SET database_connection = ? WHERE id = 2", cloud.url("cell"))
    return Followed(cloud)


@pytest.mark.parametrize("late", [0.25, 2.25, LATE, 86_400.25])
def test_a_node_whose_change_is_committed_late_is_reported_by_the_next_look(it: Followed, late: float) -> None:
    began = it.ago(late)
    it.sql("UPDATE compute_nodes SET free_ram_mb = 2, updated_at = ? WHERE id = 2", it.ago(-0.5))
    assert it.look() == (["cmp2"], [])
    it.sql("UPDATE compute_nodes SET free_ram_mb = 1, updated_at = ? WHERE id = 1", began)
    assert it.look() == (["cmp1"], [])
    assert it.look() == ([], [])


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("gap", [30.0, 3_600.0])
def test_what_changes_between_looks_that_are_far_apart_is_found_by_the_next(
    it: Followed, gap: float, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where a look in between fails because the database does not answer."""
    for table in ("instances", "compute_nodes"):
        it.sql(f"UPDATE {table} SET updated_at = ? WHERE id = 4", it.ago(-0.5))
    it.look()
    if fails:
        it.cloud.script(it.cloud.cell, "ALTER TABLE instances RENAME TO hidden")
        with pytest.raises(SourceFailed):
            it.look()
        it.cloud.script(it.cloud.cell, "ALTER TABLE hidden RENAME TO instances")
    it.now += gap
    it.sql("UPDATE instances SET host = 'cmp3', node = 'cmp3', updated_at = ? WHERE id = 1", it.ago(gap - 1.5))
    it.sql("UPDATE instances SET updated_at = ? WHERE id = 4", it.ago(0.5))
    assert it.look() == (["cmp1", "cmp3"], [])
    with caplog.at_level(logging.WARNING, "hostler.nova"):
        it.look(compared=True)
    assert not caplog.records, "no clock is blamed"


def test_instances_of_a_node_that_counts_them_are_not_read_again(it: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it counts others than those that are known: one was committed later than any window covers."""
    it.sql("UPDATE compute_nodes SET stats = ?, updated_at = ? WHERE id = 2", '{"num_instances": "1"}', it.ago(-0.5))
    it.sql("UPDATE instances SET updated_at = ? WHERE id = 4", it.ago(-0.5))
    assert it.guests() == {"cmp2": ["2"]}
    found, asked = rows.instances_on, list[list[str]]()

    def counted(reading: Reading, hosts: set[str]) -> Any:
        asked.append(sorted(hosts))
        return found(reading, hosts)

    monkeypatch.setattr(rows, "instances_on", counted)
    it.sql("UPDATE compute_nodes SET free_ram_mb = 7, updated_at = ? WHERE id = 2", it.ago(-0.5))
    assert it.guests() == {"cmp2": ["2"]}
    assert asked == [[]]
    it.sql("UPDATE instances SET host = 'cmp2', node = 'cmp2', updated_at = ? WHERE id = 1", it.ago(LATE))
    it.sql("UPDATE compute_nodes SET stats = ?, updated_at = ? WHERE id = 2", '{"num_instances": "2"}', it.ago(-0.5))
    assert it.guests() == {"cmp2": ["1", "2"]}
    assert asked == [[], ["cmp2"]]


@pytest.mark.parametrize(
    ("stats", "count"),
    [
        ('{"num_instances": "3"}', 3),
        ('{"failed_builds": "0"}', 0),
        ("{}", 0),
        (None, None),
        ("?", None),
        ('{"num_instances": "?"}', None),
    ],
)
def test_statistics_that_do_not_name_a_count_of_instances_name_none(stats: str | None, count: int | None) -> None:
    """As Nova's HostState reads them."""
    assert instances_counted(stats) == count


def test_a_clock_that_is_ahead_hides_no_change_of_others(it: Followed) -> None:
    it.sql("UPDATE compute_nodes SET free_ram_mb = 2, updated_at = ? WHERE id = 2", it.ago(-86_400.5))
    it.sql("UPDATE instances SET updated_at = ? WHERE id = 2", it.ago(-86_400.5))
    assert it.look() == (["cmp2"], [])
    it.sql("UPDATE instances SET host = 'cmp3', node = 'cmp3', updated_at = ? WHERE id = 1", it.ago(-0.5))
    it.sql("UPDATE compute_nodes SET free_ram_mb = 4, updated_at = ? WHERE id = 4", it.ago(-0.5))
    assert it.look() == (["cmp1", "cmp3", "cmp4"], [])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE compute_nodes SET deleted = id, deleted_at = ? WHERE id = 2",
        "UPDATE compute_nodes SET deleted = id, deleted_at = ?, updated_at = NULL WHERE id = 2",
        "DELETE FROM compute_nodes WHERE id = 2 AND ? != ''",
    ],
)
@pytest.mark.parametrize("late", [0.25, LATE])
def test_a_node_that_is_deleted_is_gone_by_the_next_look(it: Followed, statement: str, late: float) -> None:
    it.sql(statement, it.ago(late))
    assert it.look() == ([], ["cmp2"])
    assert it.look() == ([], [])


def test_a_node_that_is_made_again_under_its_name_is_reported_and_not_gone(it: Followed) -> None:
    it.sql("UPDATE compute_nodes SET deleted = id, deleted_at = ? WHERE id = 2", it.ago(0.5))
    it.cloud.host(12, seen=NOW, updated_at=it.ago(0.5))
    it.sql("UPDATE compute_nodes SET host = 'cmp2', hypervisor_hostname = 'cmp2' WHERE id = 12")
    it.sql("DELETE FROM services WHERE host = 'cmp12'")
    assert it.look() == (["cmp2"], [])


def test_a_guest_that_comes_or_goes_has_both_hosts_reported_though_their_rows_are_as_they_were(it: Followed) -> None:
    it.sql("UPDATE instances SET host = 'cmp3', node = 'cmp3', updated_at = ? WHERE id = 1", it.ago(0.5))
    assert it.guests() == {"cmp1": [], "cmp3": ["1", "3"]}
    it.sql("UPDATE instances SET host = NULL, node = NULL, updated_at = ? WHERE id = 3", it.ago(0.5))
    assert it.guests() == {"cmp3": ["1"]}
    it.cloud.instance(7, 2, None, updated_at=it.ago(0.5))
    assert it.guests() == {"cmp2": ["2", "7"]}
    it.sql("UPDATE instances SET root_gb = 4, updated_at = ? WHERE id = 1", it.ago(0.5))
    assert it.guests() == {}, "what is not of its host changes nothing"


@pytest.mark.parametrize("state", ["task_state = 'deleting'", "vm_state = 'deleted', task_state = NULL"])
@pytest.mark.parametrize("end", ["UPDATE instances SET deleted = id, deleted_at = 'x'", "DELETE FROM instances"])
def test_a_guest_that_is_deleted_leaves_its_host_though_the_deletion_has_no_time(
    it: Followed, state: str, end: str
) -> None:
    it.sql(f"UPDATE instances SET {state}, updated_at = ? WHERE id = 2", it.ago(0.5))
    assert it.guests() == {}
    assert it.guests(3_600.0) == {}, "deleting may take long"
    it.sql(f"{end} WHERE id = 2")
    assert it.guests() == {"cmp2": []}
    assert it.guests() == {}
    assert not it.known.ending


def test_a_deletion_that_fails_is_waited_for_no_longer(it: Followed) -> None:
    it.sql("UPDATE instances SET task_state = 'deleting', updated_at = ? WHERE id = 2", it.ago(0.5))
    it.look()
    it.sql("UPDATE instances SET task_state = NULL, vm_state = 'error', updated_at = ? WHERE id = 2", it.ago(0.5))
    assert it.look() == ([], [])
    assert not it.known.ending


@pytest.mark.parametrize(
    ("statement", "seen"),
    [
        ("UPDATE instances SET host = 'cmp3', node = 'cmp3', updated_at = ? WHERE id = 1", ["cmp1", "cmp3"]),
        ("UPDATE instances SET deleted = id, deleted_at = ? WHERE id = 1", ["cmp1"]),
        ("DELETE FROM instances WHERE id = 1 AND ? != ''", ["cmp1"]),
    ],
)
def test_what_no_time_shows_is_found_once_all_rows_are_compared(
    it: Followed, statement: str, seen: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    it.sql("UPDATE instances SET updated_at = ? WHERE id = 4", it.ago(-0.5))
    it.look()
    it.sql(statement, it.ago(LATE))
    assert it.look() == ([], [])
    it.known.turn = 8  # of a turn in which none of these hosts has its own
    with caplog.at_level(logging.WARNING, "hostler.nova"):
        assert it.look(compared=True) == (seen, [])
    widened = "UPDATE instances SET host" in statement
    assert ("written" in caplog.text) == widened
    began = it.ago(LATE)
    it.sql("UPDATE instances SET updated_at = ? WHERE id = 4", it.ago(-0.5))
    it.look()
    it.sql("UPDATE instances SET host = 'cmp3', node = 'cmp3', updated_at = ? WHERE id = 2", began)
    assert it.look() == ((["cmp2", "cmp3"] if widened else []), []), "the window covers what was late before"


def test_a_window_grows_to_its_bound_only() -> None:
    window = Window("t")
    for days in range(1, 5):
        since = window.since(NOW, 0.0)
        window.missed(since - days * LONGEST, since)
    assert window.overlap == LONGEST


@pytest.mark.parametrize("at", ["2026-09-21 14:13:23.500000", "2025-12-31 23:59:59.250000", "2031-01-01 00:00:00"])
def test_times_of_many_nodes_are_added_as_they_are_counted(tmp_path: Path, at: str) -> None:
    cloud, nodes = Cloud(tmp_path), 50_000
    with sqlite3.connect(cloud.cell) as made:
        made.executemany(
            "INSERT INTO compute_nodes (uuid, updated_at, deleted) VALUES (?, ?, 0)",
            ((str(number), at) for number in range(nodes)),
        )
    with Database("cell", cloud.url("cell")).reading() as reading:
        assert rows.sum_of_nodes(reading) == (nodes, nodes * rows.microseconds(datetime.fromisoformat(at)))


def test_services_are_followed_whatever_their_times_say(it: Followed) -> None:
    it.sql("UPDATE services SET disabled = 1, updated_at = NULL WHERE host = 'cmp1'")
    assert it.look() == (["cmp1"], [])
    it.sql("UPDATE services SET forced_down = 1 WHERE host = 'cmp2'")
    it.sql("UPDATE services SET disabled_reason = 'x' WHERE host = 'cmp1'")
    assert it.look() == (["cmp1", "cmp2"], [])
    it.sql("UPDATE services SET disabled = 0, forced_down = 0")
    assert it.look() == (["cmp1", "cmp2"], [])
    it.sql("UPDATE services SET version = 9 WHERE host = 'cmp3'")
    assert it.look(followers.HEARD_SECONDS) == (["cmp3"], [])
    it.sql("UPDATE services SET last_seen_up = ? WHERE host = 'cmp4'", it.ago(-5.5))
    changes = it.changes(followers.HEARD_SECONDS)
    assert (changes.hosts, changes.heard) == ([], ["cmp4"])
    it.sql("UPDATE services SET deleted = id WHERE host = 'cmp4'")
    it.sql("INSERT INTO services (host, binary, deleted, version) VALUES ('cmp9', 'nova-compute', 0, 99)")
    assert it.changes(followers.HEARD_SECONDS).newest == 99


def test_heartbeats_alone_are_read_without_the_other_columns(it: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "all_services", None)
    it.sql("UPDATE services SET last_seen_up = ? WHERE host = 'cmp2'", it.ago(-5.5))
    assert it.changes(followers.HEARD_SECONDS).heard == ["cmp2"]
    assert it.changes(followers.HEARD_SECONDS).heard == []


def test_aggregates_are_followed_without_fan_outs_also_where_rows_are_deleted(it: Followed) -> None:
    it.cloud.aggregate(1, "cmp1", "cmp2", availability_zone="z")
    assert it.look() == ([], [])
    assert it.look(followers.HEARD_SECONDS) == (["cmp1", "cmp2"], [])
    for statement in ("DELETE FROM aggregate_hosts WHERE host = 'cmp1'", "DELETE FROM aggregate_metadata"):
        it.cloud.change(it.cloud.api, statement)
        changes = it.changes(followers.HEARD_SECONDS)
        assert changes.hosts
    assert it.follower.aggregates["cmp2"][0].metadata == {}
    it.cloud.change(it.cloud.api, "DELETE FROM aggregate_hosts")
    assert it.look(aggregates=True) == (["cmp2"], [])


def test_every_node_is_reported_in_its_turn_unless_it_was_since_the_turn_before(it: Followed) -> None:
    names = [f"cmp{number}" for number in range(1, HOSTS + 1)]
    for _ in range(2):
        it.look(compared=True)
    assert sorted(name for _ in range(followers.ROUNDS) for name in it.look(compared=True)[0]) == names
    for turn in range(followers.ROUNDS):
        it.sql("UPDATE compute_nodes SET free_ram_mb = ?, updated_at = ? WHERE id = 3", turn, it.ago(-0.5))
        assert it.look() == (["cmp3"], [])
        assert "cmp3" not in it.look(compared=True)[0]
    it.look(compared=True)
    assert sorted(name for _ in range(followers.ROUNDS) for name in it.look(compared=True)[0]) == names


def test_cells_are_followed_while_the_api_database_fails(it: Followed) -> None:
    it.cloud.script(it.cloud.api, "ALTER TABLE aggregates RENAME TO hidden")
    it.sql("UPDATE services SET disabled = 1 WHERE host = 'cmp1'")
    changes = it.changes(followers.HEARD_SECONDS, compared=True)
    assert [each.nodename for each in changes.hosts if each.service and each.service.disabled] == ["cmp1"]
    assert [error.field for error in changes.failed] == ["api"]
    it.cloud.script(it.cloud.api, "ALTER TABLE hidden RENAME TO aggregates")
    assert not it.changes(followers.HEARD_SECONDS).failed


def test_a_look_at_a_cloud_in_which_nothing_happens_reads_no_row(it: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    it.look(600.0)
    found, read = Reading.rows, list[str]()

    def counted(self: Reading, table: str, *given: Any, **how: Any) -> Iterator[Any]:
        for row in found(self, table, *given, **how):
            read.append(table)
            yield row

    monkeypatch.setattr(Reading, "rows", counted)
    monkeypatch.setattr(followers, "SERVICES_A_SECOND", 1)
    assert [it.look() for _ in range(2)] == [([], [])] * 2
    assert read == []
