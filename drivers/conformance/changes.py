"""Conformance of compute drivers when what they change is interrupted: answers that are lost and calls that are
cancelled, in every operation after the creation; and many lives one after the other."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from ..protocol import ComputeDriver, Guest, Mark, Transient, Unknown, attaches, moves, resizes, snapshots
from .bench import OURS, PATIENCE, ComputeBench, cancelled_at_every_await, new_uuid, settled
from .guests import made, made_snapshot, ours_of, removed, state_of

CYCLES: Final = "HOSTLER_CONFORMANCE_CYCLES"
"""Variable of the environment: the number of lives in the test of many lives (3)."""
_LIBRARIES: Final = ("hostler", "httpx", "httpcore", "trio", "ssl")


def cycles() -> int:
    """The number of lives in the test of many lives."""
    return int(os.environ.get(CYCLES, "3"))


def held() -> tuple[int, int, int]:
    """Open files, threads, and objects of Hostler and of libraries that drivers use, of this process."""
    gc.collect()
    objects = sum(type(each).__module__.split(".")[0] in _LIBRARIES for each in gc.get_objects())
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), objects


async def _interrupted(bench: ComputeBench, call: Callable[[], Awaitable[Any]]) -> Any:
    """A call whose answers are lost, and the same again."""
    assert bench.lose_answers is not None
    with bench.lose_answers(), suppress(Unknown, Transient):
        await call()
    return await settled(call)


async def _of(driver: ComputeDriver, uuid: str) -> Guest:
    (found,) = await ours_of(driver, uuid)
    return found


@pytest.mark.trio
class ChangesConformance:
    """Part of ``ComputeConformance``; what a driver cannot do is left out."""

    async def test_changes_whose_answers_are_lost_are_made_once(self, bench: ComputeBench) -> None:
        """Power, size, volumes, snapshots and moves: the same call again ends as if none was lost."""
        if bench.lose_answers is None:
            pytest.skip("this back end cannot be made to lose answers")
        volume = await bench.make_volume() if bench.make_volume is not None else None
        async with bench.driver() as driver:
            spec = bench.spec()._replace(disk_gb=bench.disk_gb)
            uuid = spec.mark.uuid
            await made(driver, spec)
            if snapshots(driver):
                mark = Mark(OURS, new_uuid(), 1)
                await _interrupted(bench, lambda: driver.snapshot_guest(uuid, mark, "name"))
                await made_snapshot(driver, uuid, mark)
                await _interrupted(bench, lambda: driver.delete_snapshot(mark.uuid))
            if attaches(driver) and volume is not None:
                await _interrupted(bench, lambda: driver.attach(uuid, volume))
                assert (await _of(driver, uuid)).volumes == (volume.volume,)
            await _interrupted(bench, lambda: driver.set_power(uuid, "off"))
            await state_of(driver, uuid, "off")
            if attaches(driver) and volume is not None:
                await _interrupted(bench, lambda: driver.detach(uuid, volume.volume))
                with trio.fail_after(PATIENCE):
                    while not await settled(lambda: driver.detach(uuid, volume.volume)):  # noqa: ASYNC110  # the guest is asked again
                        await trio.sleep(0.05)
                assert (await _of(driver, uuid)).volumes == ()
            if resizes(driver):
                await _interrupted(bench, lambda: driver.resize_guest(uuid, *bench.other_size))
                found = await _of(driver, uuid)
                assert (found.vcpus, found.memory_mb) == bench.other_size
            if moves(driver) and bench.other_node is not None:
                target = bench.other_node
                await _interrupted(bench, lambda: driver.move_guest(uuid, target, live=False))
                assert (await _of(driver, uuid)).node == target
            await removed(driver, uuid)

    async def test_a_stop_cancelled_at_any_await_ends_when_it_is_repeated(self, bench: ComputeBench) -> None:
        """The guest is there once, stopped."""
        async with bench.driver() as driver:
            spec = bench.spec()
            uuid = spec.mark.uuid
            await made(driver, spec)

            async def stop() -> None:
                await driver.set_power(uuid, "off")

            async def check() -> None:
                await settled(stop)
                await state_of(driver, uuid, "off")
                assert len(await ours_of(driver, uuid)) == 1
                await settled(lambda: driver.set_power(uuid, "on"))
                await state_of(driver, uuid, "on")

            assert await cancelled_at_every_await(stop, check) >= 2
            await removed(driver, uuid)

    async def test_a_volume_is_attached_once_although_the_call_is_cancelled(self, bench: ComputeBench) -> None:
        """At any of its awaits; so with the call that detaches it."""
        if bench.make_volume is None:
            pytest.skip("no volume can be made for this back end")
        volume = await bench.make_volume()
        async with bench.driver() as driver:
            assert attaches(driver)
            spec = bench.spec()._replace(power="off")
            uuid = spec.mark.uuid
            await made(driver, spec)

            async def attach() -> None:
                await driver.attach(uuid, volume)

            async def detach() -> None:
                await driver.detach(uuid, volume.volume)

            async def let_go() -> None:
                with trio.fail_after(PATIENCE):
                    while not await settled(lambda: driver.detach(uuid, volume.volume)):  # noqa: ASYNC110  # the guest is asked again
                        await trio.sleep(0.05)

            async def attached() -> None:
                await settled(attach)
                assert (await _of(driver, uuid)).volumes == (volume.volume,)
                await let_go()

            async def detached() -> None:
                await let_go()
                assert (await _of(driver, uuid)).volumes == ()
                await settled(attach)

            assert await cancelled_at_every_await(attach, attached) >= 2
            await settled(attach)
            assert await cancelled_at_every_await(detach, detached) >= 2
            await removed(driver, uuid)

    async def test_many_lives_leave_nothing_behind(self, bench: ComputeBench) -> None:
        """No file, thread, connection or object for each of them, and nothing on the back end."""
        async with bench.driver() as driver:

            async def live() -> None:
                spec = bench.spec()
                await made(driver, spec)
                await settled(lambda: driver.set_power(spec.mark.uuid, "off"))
                await removed(driver, spec.mark.uuid)
                assert not await ours_of(driver, spec.mark.uuid)

            await live()
            files, threads, objects = held()
            count = cycles()
            for _ in range(count):
                await live()
            after = held()
            assert after[0] <= files + 16 + count // 100
            assert after[1] <= threads + 16
            assert after[2] <= objects + 2_000 + count
