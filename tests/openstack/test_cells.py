"""Cells are told apart by their uuids, whatever they are called; and what a cell that failed was to be looked at for is
done once it answers, without the others being read again for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from hostler.core.errors import Overloaded
from hostler.core.process.bus_metrics import BusMetrics
from hostler.core.service import Service
from hostler.drivers.openstack.bus.follower import Changes, Follower
from hostler.drivers.openstack.bus.following import Following
from hostler.drivers.openstack.source.databases import Database, SourceFailed
from hostler.drivers.openstack.source.nova_databases import cells_of

from .clouds import CELL, NOW, Cloud, moment

pytest.importorskip("sqlalchemy", reason="the extra openstack is not installed")

OTHER = "22222222-2222-4222-8222-222222222222"


class TwoCells:
    """A cloud of the cells ``a`` with cmp1, cmp2 and ``b`` with cmp3, whose time passes by a second a look."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.a, self.b = self._cloud(folder / "a", 1, 2), self._cloud(folder / "b", 3)
        self.api("UPDATE cell_mappings SET database_connection = ? WHERE id = 2", self.a.url("cell"))
        self.map_other("other")
        api = Database("api", self.a.url("api"))
        self.follower = Follower(lambda: cells_of(api), api, steady=lambda: self.now)
        assert self.look(full=True) == (["cmp1", "cmp2", "cmp3"], [])
        assert self.look() == ([], [])

    @staticmethod
    def _cloud(folder: Path, *numbers: int) -> Cloud:
        folder.mkdir()
        cloud = Cloud(folder)
        for number in numbers:
            cloud.host(number, seen=NOW, updated_at=moment(NOW - 60.5))
        return cloud

    def map_other(self, name: str) -> None:
        columns = "id, uuid, name, database_connection, disabled"
        self.api(f"INSERT INTO cell_mappings ({columns}) VALUES (3, ?, ?, ?, 0)", OTHER, name, self.b.url("cell"))

    def api(self, statement: str, *values: Any) -> None:
        self.a.change(self.a.api, statement, *values)

    def changes(self, **how: Any) -> Changes:
        self.now += 1.0
        return self.follower.look(now=self.now, **{"full": False, **how})

    def look(self, **how: Any) -> tuple[list[str], list[str]]:
        """Nodes that are reported, and those that are gone."""
        found = self.changes(**how)
        return sorted(host.nodename for host in found.hosts), sorted(found.gone)

    @contextmanager
    def failing(self, *clouds: Cloud) -> Iterator[None]:
        for cloud in clouds:
            cloud.script(cloud.cell, "ALTER TABLE compute_nodes RENAME TO hidden")
        yield
        for cloud in clouds:
            cloud.script(cloud.cell, "ALTER TABLE hidden RENAME TO compute_nodes")


@pytest.fixture
def it(tmp_path: Path) -> TwoCells:
    return TwoCells(tmp_path)


def test_a_cell_that_is_called_otherwise_keeps_its_hosts(it: TwoCells) -> None:
    it.api("UPDATE cell_mappings SET name = 'renamed' WHERE id = 3")
    assert it.look(compared=True)[1] == []
    assert it.follower.cells == {"cell cell1", "cell renamed"}


def test_cells_that_are_called_alike_are_two(it: TwoCells) -> None:
    it.api("UPDATE cell_mappings SET name = 'cell1' WHERE id = 3")
    assert it.look(full=True) == (["cmp1", "cmp2", "cmp3"], [])
    assert it.look() == ([], [])
    names = {f"cell cell1 ({uuid})" for uuid in (CELL, OTHER)}
    assert it.follower.cells == names, "reports and metrics tell them apart"
    with it.failing(it.b):
        changes = it.changes()
    assert {*changes.read, *(str(error.field) for error in changes.failed)} == names


def test_a_node_that_is_in_another_cell_now_is_not_gone(it: TwoCells) -> None:
    it.b.host(1, seen=NOW, updated_at=moment(it.now))
    it.a.change(it.a.cell, "DELETE FROM compute_nodes WHERE id = 1")
    assert it.look() == (["cmp1"], [])


def test_the_nodes_of_a_cell_that_is_no_more_are_gone_once_another_answers(it: TwoCells) -> None:
    it.api("DELETE FROM cell_mappings WHERE id = 3")
    with it.failing(it.a), pytest.raises(SourceFailed):
        it.look(compared=True)
    assert it.look()[1] == ["cmp3"]
    assert it.look() == ([], [])
    it.map_other("again")
    assert "cmp3" in it.look(compared=True)[0]


@pytest.mark.parametrize("others", [True, False])
def test_aggregates_that_changed_while_a_cell_failed_are_reported_once(it: TwoCells, others: bool) -> None:
    it.a.aggregate(1, "cmp1", "cmp3", availability_zone="z")
    if others:
        with it.failing(it.b):
            assert it.look(aggregates=True) == (["cmp1"], [])
            assert it.look() == ([], []), "not again for the one that fails"
        assert it.look() == (["cmp3"], [])
    else:
        with it.failing(it.a, it.b), pytest.raises(SourceFailed):
            it.look(aggregates=True)
        assert it.look() == (["cmp1", "cmp3"], [])
    assert it.look() == ([], [])


def test_all_that_a_look_was_to_do_for_a_cell_that_failed_is_done_for_it_alone(it: TwoCells) -> None:
    with it.failing(it.b):
        assert it.look(full=True) == (["cmp1", "cmp2"], [])
        assert it.look(stale=frozenset({"cmp3"})) == ([], [])
    assert it.look() == (["cmp3"], [])
    it.b.instance(9, 3, None, updated_at=moment(NOW - 3_600.5))
    assert it.look() == ([], []), "only a comparison shows it"
    with it.failing(it.b):
        it.look(compared=True)
    it.follower._known[OTHER].turn = 4  # in which it is not the node's turn anyway
    assert it.look() == (["cmp3"], [])
    assert it.look() == ([], [])


def test_cells_and_aggregates_are_read_once_the_api_database_answers(it: TwoCells) -> None:
    it.api("DELETE FROM cell_mappings WHERE id = 3")
    it.api("INSERT INTO cell_mappings (id, uuid, database_connection) VALUES (4, 'x', '{scheme}://')")
    changes = it.changes(compared=True)
    assert [error.field for error in changes.failed] == ["api"]
    assert changes.read == ["cell cell1", "cell other"], "cells that are known are followed"
    it.api("DELETE FROM cell_mappings WHERE id = 4")
    assert it.look()[1] == ["cmp3"]


class Looks:
    """A follower whose looks fail, or find a host and one that is gone, as they are told."""

    api, cells = "api", frozenset[str]()
    aggregates: dict[str, Any] = {}  # noqa: RUF012  # of the class as it is replaced

    def __init__(self, *ends: Exception | Changes) -> None:
        self.ends, self.asked = list(ends), list[dict[str, Any]]()

    def look(self, **how: Any) -> Changes:
        self.asked.append(how)
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


def following(looks: Looks, told: list[Any]) -> Following:
    fleet = SimpleNamespace(_names=SimpleNamespace(find=lambda name: 0))
    service = SimpleNamespace(clock=lambda: NOW, now=lambda: NOW, state=SimpleNamespace(fleet=fleet))
    metrics = SimpleNamespace(looked=lambda cell: None, look_failed=lambda: None, has_cells=lambda cells: None)
    made = Following(cast(Service, service), cast(Follower, looks), cast(BusMetrics, metrics))

    async def submit(command: Any) -> None:
        told.append(command.name)
        if len(told) == 1:
            raise Overloaded("full")

    made._submit = submit  # type: ignore[method-assign]
    made._with_claims = set  # type: ignore[method-assign]
    return made


async def looked(made: Following) -> None:
    with pytest.raises((SourceFailed, Overloaded, ZeroDivisionError)):
        await made.look()


def test_a_comparison_that_failed_is_done_by_the_next_look() -> None:
    looks = Looks(SourceFailed("down"), ZeroDivisionError(), Changes())

    async def main() -> None:
        made = following(looks, [])
        made._look_at_all, made._compare = False, True
        await looked(made)
        await looked(made)
        await made.look()

    trio.run(main)
    assert [(how["full"], how["compared"]) for how in looks.asked] == [(False, True), (False, True), (True, False)]


def test_nodes_that_are_gone_are_told_until_the_service_takes_it_in() -> None:
    told = list[Any]()
    looks = Looks(Changes(gone=["cmp1", "cmp2"]), Changes(), Changes())

    async def main() -> None:
        made = following(looks, told)
        await looked(made)
        await made.look()
        await made.look()

    trio.run(main)
    assert told == ["cmp1", "cmp1", "cmp2"]
    assert looks.asked[1]["full"]
