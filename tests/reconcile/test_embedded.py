"""The scheduler in an application's own process."""

from __future__ import annotations

import gc
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler import Flavor, HostlerError, InvalidValue, Request, RequestSpec, Scheduler, UnknownName, open_scheduler
from hostler.core.engine_commands import Release
from hostler.core.machine.queries import Instance
from hostler.core.process.config import BadConfig

from ..patience import HANG_SECONDS

REQUEST = Request(spec=RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=1_024)), project_id="p")


def config(folder: Path | None = None) -> dict[str, Any]:
    options: dict[str, Any] = {"nodes": 2, "poll": 0.1}
    found: dict[str, Any] = {"backends": {"lab": {"driver": "model", "options": options}}}
    if folder is not None:
        options["file"] = str(folder / "model.json")
        found["data"] = {"folder": str(folder / "data")}
    return found


async def ready(scheduler: Scheduler) -> None:
    while not scheduler.status().backends[0].nodes:  # noqa: ASYNC110  # the status has no events
        await trio.sleep(0.02)


async def test_guests_outlive_the_scheduler_and_go_on_with_the_next_one(tmp_path: Path) -> None:
    async with open_scheduler(config(tmp_path)) as scheduler:
        await ready(scheduler)
        decision = await scheduler.create_guest(REQUEST)
    (selection,) = decision.selections
    async with open_scheduler(config(tmp_path)) as scheduler:
        found = await scheduler.until_settled(selection.instance_uuid)
        assert found is not None
        assert (found.status, found.node) == ("active", selection.node)
        await scheduler.stop_guest(selection.instance_uuid)
        found = await scheduler.until_settled(selection.instance_uuid)
        assert found is not None
        assert found.status == "stopped"


async def test_a_key_makes_a_repetition_safe(tmp_path: Path) -> None:
    async with open_scheduler(config(tmp_path)) as scheduler:
        await ready(scheduler)
        first = await scheduler.create_guest(REQUEST, key="k")
        assert (await scheduler.create_guest(REQUEST, key="k")).selections == first.selections


async def test_a_uuid_is_the_same_one_however_it_is_written(tmp_path: Path) -> None:
    written, other = "AAAAAAAA-0000-4000-8000-00000000000A", "00000000-0000-4000-8000-{:012x}"

    def kept(scheduler: Scheduler) -> set[str]:
        return set(scheduler._service.state.requests.content()[1])

    async with open_scheduler(config(tmp_path)) as scheduler:
        await ready(scheduler)
        await scheduler.place(replace(REQUEST, instance_uuids=(written,)))
        await scheduler.submit(Release(uuids=(written,)))
        assert kept(scheduler) == set()
        await scheduler.place(replace(REQUEST, instance_uuids=(written,)))
        await scheduler.place(replace(REQUEST, instance_uuids=(other.format(1), other.format(2))))
        before = kept(scheduler)
        assert scheduler.ask(Instance(uuid=written)).uuid == written.lower()
    async with open_scheduler(config(tmp_path)) as scheduler:
        assert kept(scheduler) == before == {written.lower(), other.format(1), other.format(2)}


async def test_a_guest_is_found_by_its_uuid_however_it_is_written() -> None:
    written = "AAAAAAAA-0000-4000-8000-00000000000A"
    async with open_scheduler(config()) as scheduler:
        await ready(scheduler)
        await scheduler.create_guest(replace(REQUEST, instance_uuids=(written,)))
        found = await scheduler.until_settled(written)
        assert found is not None
        assert (found.status, found.uuid) == ("active", written.lower())
        assert await scheduler.console(written) == await scheduler.console(written.lower())
        await scheduler.delete_guest(written)
        assert await scheduler.until_settled(written) is None


async def test_a_cancelled_call_is_carried_out_whole_or_not_at_all() -> None:
    async with open_scheduler(config()) as scheduler:
        await ready(scheduler)
        for number in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(scheduler.create_guest, REQUEST)
                    for _ in range(number):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        while scheduler.status().unsettled:  # noqa: ASYNC110  # the status has no events
            await trio.sleep(0.02)
        assert set(scheduler.status().guests) <= {"active"}


async def test_a_slow_reader_is_told_of_the_gap() -> None:
    async with open_scheduler(config()) as scheduler:
        await ready(scheduler)
        scheduler._history._kept = 3
        for _ in range(10):
            await scheduler.place(REQUEST)
        kinds = []
        with trio.fail_after(HANG_SECONDS):
            async for event in scheduler.watch(after=0):
                kinds.append(event.kind)
                if len(kinds) == 4:
                    break
        assert kinds == ["gap", "decisions", "decisions", "decisions"]


async def test_a_reader_of_events_may_leave_at_any_time() -> None:
    async with open_scheduler() as scheduler:
        with suppress(HostlerError):
            await scheduler.place(REQUEST)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            async for event in scheduler.watch(after=0):
                assert event.sequence == 1
                break
            gc.collect()
        assert [str(each.message) for each in said if "watch" in str(each.message)] == []


async def test_without_back_ends_it_places_and_says_that_it_builds_nothing() -> None:
    async with open_scheduler() as scheduler:
        with pytest.raises(InvalidValue, match="no back ends"):
            scheduler.status()
        with pytest.raises(InvalidValue, match="no back end that is enabled"):
            await scheduler.create_guest(REQUEST)
        with pytest.raises(UnknownName):
            await scheduler.stop_guest("00000000-0000-4000-8000-000000000001")


async def test_a_wrong_configuration_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="unknown field `drive`") as caught:
        async with open_scheduler({"backends": {"a": {"drive": "model"}}}):
            pass
    assert caught.value.field == "config.backends[...]"
    (tmp_path / "c.toml").write_text("[backends.a]\n")
    with pytest.raises(BadConfig, match="driver is missing"):
        async with open_scheduler(tmp_path / "c.toml"):
            pass
