"""Conformance of what a compute driver need not be able to do: sizes that change, snapshots, consoles."""

from __future__ import annotations

import pytest

from ..protocol import (
    ComputeDriver,
    Conflict,
    DriverError,
    GuestSpec,
    Mark,
    NotFound,
    Permanent,
    Power,
    Snapshot,
    SnapshottingDriver,
    has_consoles,
    resizes,
    snapshots,
)
from .bench import OTHERS, OURS, ComputeBench, all_of, cancelled_at_every_await, new_uuid, settled
from .guests import made, made_snapshot, ours_of, state_of


def _mark(installation: str = OURS, claim: int = 1) -> Mark:
    return Mark(installation, new_uuid(), claim)


async def _listed(driver: SnapshottingDriver, uuid: str) -> list[Snapshot]:
    found = await all_of(driver.snapshots())
    return [each for each in found if each.mark is not None and each.mark.uuid == uuid]


async def _with_disk(bench: ComputeBench, driver: ComputeDriver) -> GuestSpec:
    spec = bench.spec()._replace(disk_gb=bench.disk_gb)
    await made(driver, spec)
    return spec


@pytest.mark.trio
class OptionalConformance:
    """Part of ``ComputeConformance``; each test is skipped for a driver that cannot do it."""

    @pytest.mark.parametrize("power", ["on", "off"])
    async def test_a_guest_is_resized(self, bench: ComputeBench, power: Power) -> None:
        """It has the new size on its node, in the state that it was in, with its mark; a repetition changes nothing."""
        async with bench.driver() as driver:
            if not resizes(driver):
                pytest.skip("the back end resizes no guests")
            spec = bench.spec()._replace(power=power)
            uuid, sizes = spec.mark.uuid, [bench.other_size, (bench.vcpus, bench.memory_mb)]
            first = await made(driver, spec)
            for vcpus, memory_mb in sizes:
                for _ in range(2):
                    await settled(lambda: driver.resize_guest(uuid, vcpus, memory_mb))  # noqa: B023  # it is awaited here
                    found = await state_of(driver, uuid, power)
                    assert (found.vcpus, found.memory_mb) == (vcpus, memory_mb)
                    assert (found.mark, found.node) == (spec.mark, first.node)
            assert len(await ours_of(driver, uuid)) == 1
            with pytest.raises(NotFound):
                await driver.resize_guest(new_uuid(), 1, 64)
            await driver.delete_guest(uuid)

    async def test_a_resize_cancelled_at_any_await_leaves_one_of_two_sizes(self, bench: ComputeBench) -> None:
        """The same resize again ends with the new size."""
        async with bench.driver() as driver:
            if not resizes(driver):
                pytest.skip("the back end resizes no guests")
            spec = bench.spec()
            uuid, small = spec.mark.uuid, (bench.vcpus, bench.memory_mb)
            await made(driver, spec)

            async def resize() -> None:
                await driver.resize_guest(uuid, *bench.other_size)

            async def check() -> None:
                await settled(resize)
                (found,) = await ours_of(driver, uuid)
                assert (found.vcpus, found.memory_mb) == bench.other_size
                await settled(lambda: driver.resize_guest(uuid, *small))
                await settled(lambda: driver.set_power(uuid, "on"))

            assert await cancelled_at_every_await(resize, check) >= 2
            await driver.delete_guest(uuid)

    @pytest.mark.parametrize("power", ["on", "off"])
    async def test_a_snapshot_is_made_listed_used_and_removed(self, bench: ComputeBench, power: Power) -> None:
        """Each call may be repeated; another claim is a conflict; it outlasts the guest, and is that of one
        installation."""
        async with bench.driver() as driver, bench.driver(OTHERS) as others:
            if not snapshots(driver):
                pytest.skip("the back end makes no snapshots")
            assert snapshots(others)
            spec, mark = await _with_disk(bench, driver), _mark()
            if power == "off":
                await settled(lambda: driver.set_power(spec.mark.uuid, "off"))
            first = await made_snapshot(driver, spec.mark.uuid, mark)
            assert await made_snapshot(driver, spec.mark.uuid, mark) == first
            assert await driver.get_snapshot(mark.uuid) == first
            assert await _listed(driver, mark.uuid) == [first]
            assert (await driver.get_guest(spec.mark.uuid)).state == power
            with pytest.raises(Conflict):
                await driver.snapshot_guest(spec.mark.uuid, mark._replace(claim=2), "name")
            await others.delete_snapshot(mark.uuid)
            await driver.delete_snapshot(mark.uuid, 2)
            await settled(lambda: driver.delete_guest(spec.mark.uuid))
            assert await _listed(driver, mark.uuid) == [first]
            copy = bench.spec()._replace(image=first.key, disk_gb=bench.disk_gb)
            await made(driver, copy)
            await settled(lambda: driver.delete_guest(copy.mark.uuid))
            for _ in range(2):
                await settled(lambda: driver.delete_snapshot(mark.uuid, 1))
            assert await _listed(driver, mark.uuid) == []

    async def test_what_is_not_there_has_no_snapshot(self, bench: ComputeBench) -> None:
        """Nothing is left of it."""
        async with bench.driver() as driver:
            if not snapshots(driver):
                pytest.skip("the back end makes no snapshots")
            mark = _mark()
            with pytest.raises(NotFound):
                await driver.snapshot_guest(new_uuid(), mark, "name")
            with pytest.raises(NotFound):
                await driver.get_snapshot(mark.uuid)
            await driver.delete_snapshot(mark.uuid)

    async def test_a_snapshot_cancelled_at_any_await_is_made_once(self, bench: ComputeBench) -> None:
        """The same snapshot again is made whole."""
        async with bench.driver() as driver:
            if not snapshots(driver):
                pytest.skip("the back end makes no snapshots")
            spec, mark = await _with_disk(bench, driver), [_mark()]

            async def snapshot() -> None:
                await driver.snapshot_guest(spec.mark.uuid, mark[-1], "name")

            async def check() -> None:
                found = await made_snapshot(driver, spec.mark.uuid, mark[-1])
                assert await _listed(driver, mark[-1].uuid) == [found]
                await settled(lambda: driver.delete_snapshot(mark[-1].uuid))
                mark.append(_mark())

            assert await cancelled_at_every_await(snapshot, check) >= 2
            await driver.delete_guest(spec.mark.uuid)

    async def test_the_console_of_a_guest_that_runs_is_told(self, bench: ComputeBench) -> None:
        """Of one that does not run, and of none, it is an error of a class."""
        async with bench.driver() as driver:
            if not has_consoles(driver):
                pytest.skip("the back end tells no consoles")
            spec = bench.spec()
            guest = await made(driver, spec)
            try:
                found = await driver.console(spec.mark.uuid)
            except Permanent:
                found = None  # it has none
            if found is not None:
                assert found.address
                assert found.node == guest.node
            await settled(lambda: driver.set_power(spec.mark.uuid, "off"))
            await state_of(driver, spec.mark.uuid, "off")
            with pytest.raises(DriverError):
                await driver.console(spec.mark.uuid)
            with pytest.raises(NotFound):
                await driver.console(new_uuid())
            await driver.delete_guest(spec.mark.uuid)
