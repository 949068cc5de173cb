"""The scheduler in an application on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hostler import AsyncioScheduler, InvalidValue, UnknownName, open_asyncio_scheduler
from hostler.core.machine.event_log import Event
from hostler.core.machine.instance_queries import Instances
from hostler.core.machine.lifecycle_queries import Guests

from ..patience import HANG_SECONDS
from .test_embedded import REQUEST, config

Program = Callable[[AsyncioScheduler], Awaitable[Any]]


def run(program: Program, folder: Path | None = None) -> Any:
    """A program under asyncio, with a scheduler whose back end has nodes."""

    async def main() -> Any:
        async with open_asyncio_scheduler(config(folder)) as scheduler:
            while not (await scheduler.status()).backends[0].nodes:  # noqa: ASYNC110  # the status has no events
                await asyncio.sleep(0.02)
            return await program(scheduler)

    return asyncio.run(main())


def test_a_guest_is_made_and_seen_and_outlives_the_scheduler(tmp_path: Path) -> None:
    async def make(scheduler: AsyncioScheduler) -> str:
        decision = await scheduler.create_guest(REQUEST)
        uuid = decision.selections[0].instance_uuid
        found = await scheduler.until_settled(uuid)
        assert found is not None
        assert found.status == "active"
        return uuid

    async def stop(scheduler: AsyncioScheduler) -> str:
        await scheduler.stop_guest(uuid)
        found = await scheduler.until_settled(uuid)
        assert found is not None
        return (await scheduler.guest(uuid)).status

    uuid = run(make, tmp_path)
    assert run(stop, tmp_path) == "stopped"


def test_errors_arrive_as_they_are() -> None:
    async def program(scheduler: AsyncioScheduler) -> None:
        with pytest.raises(UnknownName):
            await scheduler.stop_guest("00000000-0000-4000-8000-000000000001")
        with pytest.raises(UnknownName):
            await scheduler.check_backend("none")
        await scheduler.check_backend("lab")

    run(program)


def test_a_wrong_configuration_is_refused() -> None:
    async def main() -> None:
        async with open_asyncio_scheduler({"backends": {"lab": {"driver": "model", "opions": {}}}}):
            raise AssertionError("it is open")

    with pytest.raises(InvalidValue, match="opions"):
        asyncio.run(main())


def test_events_are_an_asynchronous_iterator() -> None:
    async def program(scheduler: AsyncioScheduler) -> list[Event]:
        found: list[Event] = []

        async def follow() -> None:
            async for event in scheduler.watch(after=0):
                found.append(event)
                if event.code == "active":
                    return

        following = asyncio.create_task(follow())
        await scheduler.create_guest(REQUEST)
        await asyncio.wait_for(following, HANG_SECONDS)
        return found

    assert {"create_guest", "begin_build", "confirm_guest"} <= {event.command for event in run(program)}


def test_a_cancelled_call_is_carried_out_whole_or_not_at_all() -> None:
    """Calls that are cancelled sooner and later: what was decided is a guest, which holds its resources and is built;
    nothing else is held."""

    async def program(scheduler: AsyncioScheduler) -> None:
        answered, cancelled = set[str](), 0
        for number in range(20):
            call = asyncio.create_task(scheduler.create_guest(REQUEST))
            await asyncio.sleep(0.0005 * number)
            call.cancel()
            try:
                answered.add((await call).selections[0].instance_uuid)
            except asyncio.CancelledError:
                cancelled += 1
        assert cancelled
        last = (await scheduler.create_guest(REQUEST)).selections[0].instance_uuid
        answered.add(last)
        found = [event async for event in _until(scheduler, last)]
        decided = {uuid for event in found if event.command == "create_guest" for uuid in event.hosts}
        assert answered <= decided
        for uuid in decided:
            settled = await scheduler.until_settled(uuid)
            assert settled is not None
            assert settled.status == "active"
        assert {guest.uuid for guest in await scheduler.ask(Guests())} == decided
        assert {each.uuid for each in await scheduler.ask(Instances())} == decided
        with pytest.raises(UnknownName):
            await scheduler.guest("00000000-0000-4000-8000-000000000001")

    run(program)


@pytest.mark.parametrize("pause", [0.0, 0.001, 0.01])
def test_calls_while_it_closes_end_with_an_error_that_says_so(pause: float) -> None:
    """Neither the scheduler's thread nor a caller is left behind."""

    async def main() -> list[BaseException | None]:
        calls = []
        async with open_asyncio_scheduler(config()) as scheduler:
            calls += [asyncio.create_task(_forever(scheduler)) for _ in range(5)]
            await asyncio.sleep(pause)
        calls += [asyncio.create_task(_forever(scheduler)) for _ in range(5)]
        await asyncio.wait(calls, timeout=HANG_SECONDS)
        return [call.exception() for call in calls]

    ended = asyncio.run(main())
    assert [type(error) for error in ended] == [RuntimeError] * 10
    assert all("the scheduler is closed" in str(error) for error in ended)


async def _forever(scheduler: AsyncioScheduler) -> None:
    while True:
        await scheduler.ask(Guests())


async def _watch_forever(scheduler: AsyncioScheduler) -> None:
    async for _ in scheduler.watch():
        pass


def test_a_call_that_waits_ends_with_that_error_and_not_as_cancelled() -> None:
    async def main() -> None:
        async with open_asyncio_scheduler(config()) as scheduler:
            waiting = asyncio.ensure_future(_watch_forever(scheduler))
            await asyncio.sleep(0.1)
        with pytest.raises(RuntimeError, match="the scheduler is closed"):
            await waiting

    asyncio.run(main())


async def _until(scheduler: AsyncioScheduler, uuid: str) -> AsyncIterator[Event]:
    """All events up to the creation of a guest."""
    async for event in scheduler.watch(after=0):
        yield event
        if event.command == "create_guest" and uuid in event.hosts:
            return


def test_a_body_that_is_cancelled_closes_the_scheduler() -> None:
    async def main() -> None:
        async with open_asyncio_scheduler(config()) as scheduler:
            await asyncio.wait_for(scheduler.until_settled("x"), 5)
            await asyncio.sleep(60)

    async def short() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(main(), 2)

    asyncio.run(short())


def test_opening_can_be_cancelled() -> None:
    async def main() -> None:
        async with open_asyncio_scheduler(config()):
            await asyncio.sleep(60)

    async def short() -> None:
        task = asyncio.create_task(main())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(short())
