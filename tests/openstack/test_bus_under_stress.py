"""What the bus does when databases fail or hang, and when more calls come than are taken at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.core.engine_commands import ReportHosts
from hostler.core.errors import StorageFailed

from .clouds import CELL, Cloud, instance_uuid, moment

pytest.importorskip("oslo_messaging", reason="the extra openstack is not installed")

from hostler.drivers.openstack.bus.follower import Changes, Follower
from hostler.drivers.openstack.bus.following import Following

from .in_memory_bus import PATIENCE, Running, running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_a_cell_whose_database_fails_keeps_no_other_from_being_followed(
    cloud: Cloud, exchange: str, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    second = Cloud(tmp_path / "second")
    second.host(9, seen=time.time())
    other = CELL.replace("1", "2")
    async with running(cloud, exchange) as it:
        cloud.write(
            cloud.api, "cell_mappings", id=3, uuid=other, name="x", database_connection=second.url("cell"), disabled=0
        )
        it.bus.reload()
        await it.until(lambda: it.service.state.fleet._names.find("cmp9") >= 0)
        second.script(second.cell, "ALTER TABLE services RENAME TO hidden")
        cloud.change(cloud.cell, "UPDATE services SET disabled = 1 WHERE host = 'cmp1'")
        await it.until(lambda: it.view("cmp1").service.disabled)
        second.script(second.cell, "ALTER TABLE hidden RENAME TO services")
        second.change(second.cell, "UPDATE services SET disabled = 1")
        await it.until(lambda: it.view("cmp9").service.disabled)
        cloud.change(cloud.api, "UPDATE cell_mappings SET disabled = 1 WHERE id = 3")
        it.bus.reload()
        await it.until(lambda: it.view("cmp9").service.disabled_reason == "its compute node is gone")


async def test_a_database_that_hangs_does_not_keep_the_bus_from_ending(
    cloud: Cloud, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, answers = threading.Event(), threading.Event()

    def hang(self: Follower, **_: Any) -> Changes:
        hung.set()
        answers.wait(PATIENCE)
        return Changes()

    async with running(cloud, exchange) as it:
        monkeypatch.setattr(Follower, "look", hang)
        await it.until(hung.is_set)
        with trio.fail_after(PATIENCE):
            await it.bus.drain()
    answers.set()


async def test_what_the_service_does_not_take_in_is_read_again(
    cloud: Cloud, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(cloud, exchange) as it:
        submit, refused = Following._submit, trio.Event()

        async def refuse(self: Following, command: Any) -> Any:
            if not refused.is_set() and isinstance(command, ReportHosts):
                refused.set()
                raise StorageFailed("the disk is full")
            return await submit(self, command)

        monkeypatch.setattr(Following, "_submit", refuse)
        cloud.change(cloud.cell, "UPDATE compute_nodes SET free_ram_mb = 100, updated_at = ?", moment(time.time() + 1))
        await it.until(refused.is_set)
        await it.until(lambda: it.view("cmp3").free_ram_mb == 100)


async def test_at_most_so_many_calls_are_taken_from_the_bus(
    cloud: Cloud, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(cloud, exchange, threads=2) as it:
        decided, go, most = it.bus._decided, trio.Event(), list[float]()

        async def slowly(request: Any, patience: float, key: Any) -> Any:
            most.append(in_hand(it))
            await go.wait()
            return await decided(request, patience)

        monkeypatch.setattr(it.bus, "_decided", slowly)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(it.select, instance_uuid(number))
            await it.until(lambda: len(most) == 2)
            await trio.sleep(0.1)
            go.set()
        assert len(most) == 5
        assert max(most) <= 2
        assert it.bus.metrics.calls("select_destinations", "ok") == 5
        await it.until(lambda: in_hand(it) == 0)


def in_hand(it: Running) -> float:
    (found,) = [each for each in it.bus.metrics.collect() if each.name == "hostler_nova_in_hand"]
    return found.samples[0].value
