"""Conformance of storage drivers."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from ..protocol import Can, Conflict, DriverError, NotFound, StorageDriver, Unknown, Volume, VolumeSpec
from .bench import OTHERS, StorageBench, all_of, new_uuid, settled
from .faults import Subject, creation_is_cancelled, goes_away, hangs

HOSTILE = ("../../etc/passwd", "..", "-x", "a\nb", "a\x00b", "x'\"<&>;$(x)")
NAMES = ("plain", "ünïcödé 客", "quote' \" <tag> & $(x)", "../../etc/passwd", "n" * 255)


async def _ours(driver: StorageDriver, uuid: str) -> list[Volume]:
    return [each for each in await all_of(driver.volumes()) if each.mark is not None and each.mark.uuid == uuid]


def _subject(bench: StorageBench, driver: StorageDriver) -> Subject[VolumeSpec]:
    return Subject(
        new=bench.spec,
        create=driver.create_volume,
        made=lambda spec: settled(lambda: driver.create_volume(spec)),
        delete=driver.delete_volume,
        removed=lambda uuid: settled(lambda: driver.delete_volume(uuid)),
        ours=lambda uuid: _ours(driver, uuid),
    )


@pytest.mark.trio
class StorageConformance:
    """Tests of a storage driver. Subclasses define the fixture ``bench``."""

    async def test_facts_are_constant(self, bench: StorageBench) -> None:
        """A driver says what its back end is."""
        async with bench.driver() as driver:
            facts = driver.facts
            await driver.check()
            assert driver.facts == facts
            assert Can.STORAGE in facts.can

    async def test_pools_report_what_is_provisioned(self, bench: StorageBench) -> None:
        """Sizes are in GiB; the size of a volume is in what is provisioned."""
        async with bench.driver() as driver:
            before = next(each for each in await all_of(driver.pools()) if each.name == bench.pool)
            assert before.total_gb >= before.free_gb >= 0
            spec = bench.spec(size_gb=3)
            await driver.create_volume(spec)
            after = next(each for each in await all_of(driver.pools()) if each.name == bench.pool)
            assert after.provisioned_gb - before.provisioned_gb == 3
            await driver.delete_volume(spec.mark.uuid)

    @pytest.mark.parametrize("name", NAMES)
    async def test_a_volume_lives(self, bench: StorageBench, name: str) -> None:
        """Made, seen, connected, extended, removed, under any name."""
        async with bench.driver() as driver:
            spec = bench.spec(name=name)
            uuid = spec.mark.uuid
            made = await driver.create_volume(spec)
            assert (made.mark, made.pool, made.size_gb, made.state) == (spec.mark, bench.pool, 1, "available")
            assert await driver.get_volume(uuid) == made
            assert await _ours(driver, uuid) == [made]
            connection = await driver.connect(uuid, bench.node)
            assert connection.volume == uuid
            assert await driver.connect(uuid, bench.node) == connection
            assert (await driver.extend_volume(uuid, 2)).size_gb == 2
            assert (await driver.extend_volume(uuid, 2)).size_gb == 2
            with pytest.raises(Conflict):
                await driver.extend_volume(uuid, 1)
            await driver.delete_volume(uuid)
            with pytest.raises(NotFound):
                await driver.get_volume(uuid)

    async def test_a_missing_volume_is_not_found(self, bench: StorageBench) -> None:
        """Where a volume is needed, its absence is an error of its own class; a deletion needs none."""
        async with bench.driver() as driver:
            with pytest.raises(NotFound):
                await driver.get_volume(new_uuid())
            with pytest.raises(NotFound):
                await driver.connect(new_uuid(), bench.node)
            await driver.delete_volume(new_uuid())

    async def test_all_pages_are_listed(self, bench: StorageBench) -> None:
        """More volumes than one page has are all listed, each once."""
        async with bench.driver() as driver:
            specs = [bench.spec() for _ in range(bench.page)]
            for spec in specs:
                await driver.create_volume(spec)
            wanted = {spec.mark for spec in specs}
            found = [each.mark for each in await all_of(driver.volumes()) if each.mark in wanted]
            assert len(found) == len(specs)
            assert set(found) == wanted
            for spec in specs:
                await driver.delete_volume(spec.mark.uuid)

    async def test_making_a_volume_five_times_at_once_makes_one(self, bench: StorageBench) -> None:
        """Concurrent creations join, or are refused as conflicts."""
        async with bench.driver() as driver:
            spec = bench.spec()
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(settled, lambda: driver.create_volume(spec))
            (made,) = await _ours(driver, spec.mark.uuid)
            assert await driver.create_volume(spec) == made
            await driver.delete_volume(spec.mark.uuid)

    async def test_another_claim_or_size_is_a_conflict(self, bench: StorageBench) -> None:
        """A uuid that is taken is not given to another claim; the volume that is there is unchanged."""
        async with bench.driver() as driver:
            spec = bench.spec()
            first = await driver.create_volume(spec)
            with pytest.raises(Conflict):
                await driver.create_volume(spec._replace(mark=spec.mark._replace(claim=2)))
            with pytest.raises(Conflict):
                await driver.create_volume(spec._replace(size_gb=2))
            assert await driver.get_volume(spec.mark.uuid) == first
            await driver.delete_volume(spec.mark.uuid)

    async def test_deleting_is_repeatable_and_keeps_to_the_claim(self, bench: StorageBench) -> None:
        """A late deletion of an earlier claim leaves the volume of the present one."""
        async with bench.driver() as driver:
            spec = bench.spec(claim=7)
            await driver.create_volume(spec)
            await driver.delete_volume(spec.mark.uuid, 6)
            assert len(await _ours(driver, spec.mark.uuid)) == 1
            await driver.delete_volume(spec.mark.uuid, 7)
            await driver.delete_volume(spec.mark.uuid, 7)
            assert not await _ours(driver, spec.mark.uuid)

    async def test_a_lost_answer_is_unknown_and_the_repetition_joins(self, bench: StorageBench) -> None:
        """The volume is there although the call failed; the next call finds it."""
        if bench.lose_answers is None:
            pytest.skip("this back end cannot be made to lose answers")
        async with bench.driver() as driver:
            spec = bench.spec()
            with bench.lose_answers(), pytest.raises(Unknown):
                await driver.create_volume(spec)
            await driver.create_volume(spec)
            assert len(await _ours(driver, spec.mark.uuid)) == 1
            await driver.delete_volume(spec.mark.uuid)

    async def test_a_back_end_that_goes_away_in_any_step_has_one_volume_or_none(self, bench: StorageBench) -> None:
        """Killed in the midst of a life and started again: what was not confirmed is made once, or removed."""
        if bench.outage is None:
            pytest.skip("this back end cannot be made to go away")
        async with bench.driver() as driver:

            async def live(spec: VolumeSpec) -> None:
                await driver.create_volume(spec)
                await driver.connect(spec.mark.uuid, bench.node)
                await driver.extend_volume(spec.mark.uuid, 2)

            async def finish(spec: VolumeSpec) -> None:
                assert (await driver.extend_volume(spec.mark.uuid, 2)).size_gb == 2

            assert await goes_away(bench.outage, bench, _subject(bench, driver), live, finish) >= 2

    async def test_a_back_end_that_hangs_holds_up_nothing_else(self, bench: StorageBench) -> None:
        """Calls that are given up end at once, more of them than may be under way; what the back end does later is done
        once, and its driver goes on."""
        if bench.hang is None:
            pytest.skip("this back end cannot be made to hang")
        async with bench.driver() as driver:
            await hangs(bench.hang, driver.facts.concurrency, _subject(bench, driver))

    async def test_a_creation_cancelled_at_any_await_leaves_one_volume_or_none(self, bench: StorageBench) -> None:
        """After each, the same creation again makes exactly one volume."""
        async with bench.driver() as driver:
            assert await creation_is_cancelled(_subject(bench, driver)) >= 2

    async def test_what_is_impossible_leaves_nothing_behind(self, bench: StorageBench) -> None:
        """A volume in a pool that does not exist is refused by an error of the hierarchy."""
        async with bench.driver() as driver:
            spec = bench.spec()._replace(pool="no-such-pool")
            with pytest.raises(DriverError) as caught:
                await driver.create_volume(spec)
            assert caught.value.failure in ("capacity", "not_found", "permanent")
            assert not await _ours(driver, spec.mark.uuid)

    async def test_hostile_names_of_images_raise_errors_of_the_protocol(self, bench: StorageBench) -> None:
        """No other error, and nothing stays behind that a deletion does not remove."""
        async with bench.driver() as driver:
            for name in HOSTILE:
                spec = bench.spec()._replace(image=name)
                with suppress(DriverError):
                    await driver.create_volume(spec)
                await driver.delete_volume(spec.mark.uuid)
                assert not await _ours(driver, spec.mark.uuid)

    async def test_two_installations_do_not_touch_each_other(self, bench: StorageBench) -> None:
        """Each sees the volumes of the other, and can neither change nor remove them."""
        async with bench.driver() as ours, bench.driver(OTHERS) as others:
            spec = bench.spec()
            await ours.create_volume(spec)
            with pytest.raises(NotFound):
                await others.get_volume(spec.mark.uuid)
            await others.delete_volume(spec.mark.uuid)
            assert len(await _ours(ours, spec.mark.uuid)) == 1
            assert spec.mark in [each.mark for each in await all_of(others.volumes())]
            await ours.delete_volume(spec.mark.uuid)

    async def test_strangers_are_listed_and_left_alone(self, bench: StorageBench) -> None:
        """A volume that Hostler did not make has no mark, and stays."""
        if bench.make_stranger is None:
            pytest.skip("no stranger can be made on this back end")
        async with bench.driver() as driver:
            key = await bench.make_stranger()
            (stranger,) = [each for each in await all_of(driver.volumes()) if each.key == key]
            assert stranger.mark is None
