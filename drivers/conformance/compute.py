"""Conformance of compute drivers."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

import pytest
import trio

from ..protocol import (
    Can,
    ComputeDriver,
    Conflict,
    DriverError,
    GuestSpec,
    Mark,
    NotFound,
    Permanent,
    Power,
    Transient,
    Unknown,
    adopts,
    attaches,
    moves,
)
from .bench import OTHERS, OURS, PATIENCE, ComputeBench, all_of, cancelled_at_every_await, new_uuid, settled
from .changes import ChangesConformance
from .faults import Subject, creation_is_cancelled, goes_away, hangs
from .guests import made as _made
from .guests import ours_of as _ours
from .guests import removed as _removed
from .guests import state_of as _state
from .optional import OptionalConformance

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NAMES = ("plain", "with space", "ünïcödé 客", "quote' \" <tag> & $(x) `y`", "../../etc/passwd", "n" * 255)
HOSTILE: Final = ("../../etc/passwd", "-x", "a\nb", "a\x00b", "x'\"<&>;$(x)")
"""Names that no image and network has."""


def _subject(bench: ComputeBench, driver: ComputeDriver) -> Subject[GuestSpec]:
    return Subject(
        new=bench.spec,
        create=driver.create_guest,
        made=lambda spec: _made(driver, spec),
        delete=driver.delete_guest,
        removed=lambda uuid: _removed(driver, uuid),
        ours=lambda uuid: _ours(driver, uuid),
    )


@pytest.mark.trio
class ComputeConformance(ChangesConformance, OptionalConformance):
    """Tests of a compute driver. Subclasses define the fixture ``bench``."""

    # basics

    async def test_facts_are_constant_and_within_bounds(self, bench: ComputeBench) -> None:
        """A driver says what its back end is and how it may be used."""
        async with bench.driver() as driver:
            facts = driver.facts
            await driver.check()
            assert driver.facts == facts
            assert facts.kind
            assert Can.COMPUTE in facts.can
            assert facts.poll > 0
            assert facts.concurrency >= 1
            assert facts.timeout > 0

    async def test_nodes_report_totals_and_use(self, bench: ComputeBench) -> None:
        """Totals are in CPUs, MiB and GiB; what a guest takes is in the use."""
        async with bench.driver() as driver:
            before = next(each for each in await all_of(driver.nodes()) if each.name == bench.node)
            assert before.vcpus >= bench.vcpus
            assert before.memory_mb >= bench.memory_mb
            spec = bench.spec()
            await _made(driver, spec)
            after = next(each for each in await all_of(driver.nodes()) if each.name == bench.node)
            assert after.used_vcpus - before.used_vcpus == bench.vcpus
            assert after.used_memory_mb - before.used_memory_mb == bench.memory_mb
            await driver.delete_guest(spec.mark.uuid)

    async def test_a_guest_lives(self, bench: ComputeBench) -> None:
        """Made, seen, stopped, started, removed."""
        async with bench.driver() as driver:
            spec = bench.spec()
            uuid = spec.mark.uuid
            guest = await _made(driver, spec)
            assert (guest.mark, guest.node) == (spec.mark, bench.node)
            assert (guest.vcpus, guest.memory_mb) == (bench.vcpus, bench.memory_mb)
            assert [each.key for each in await _ours(driver, uuid)] == [guest.key]
            await settled(lambda: driver.set_power(uuid, "off"))
            await _state(driver, uuid, "off")
            await settled(lambda: driver.set_power(uuid, "on"))
            await _state(driver, uuid, "on")
            await driver.delete_guest(uuid)
            with pytest.raises(NotFound):
                await driver.get_guest(uuid)
            assert not await _ours(driver, uuid)

    async def test_a_guest_can_be_made_stopped(self, bench: ComputeBench) -> None:
        """``power`` of the spec decides."""
        async with bench.driver() as driver:
            spec = bench.spec()._replace(power="off")
            assert (await _made(driver, spec)).state == "off"
            await driver.delete_guest(spec.mark.uuid)

    @pytest.mark.parametrize("name", NAMES)
    async def test_any_name_is_taken(self, bench: ComputeBench, name: str) -> None:
        """Names are texts of users; they identify nothing."""
        async with bench.driver() as driver:
            spec = bench.spec(name=name)
            await _made(driver, spec)
            assert len(await _ours(driver, spec.mark.uuid)) == 1
            await driver.delete_guest(spec.mark.uuid)

    async def test_a_missing_guest_is_not_found(self, bench: ComputeBench) -> None:
        """Where a guest is needed, its absence is an error of its own class."""
        async with bench.driver() as driver:
            with pytest.raises(NotFound):
                await driver.get_guest(new_uuid())
            with pytest.raises(NotFound):
                await driver.set_power(new_uuid(), "on")

    async def test_all_pages_are_listed(self, bench: ComputeBench) -> None:
        """More guests than one page has are all listed, each once."""
        async with bench.driver() as driver:
            specs = [bench.spec()._replace(power="off") for _ in range(bench.page)]
            for spec in specs:
                await settled(lambda spec=spec: driver.create_guest(spec))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            wanted = {spec.mark for spec in specs}
            found = [each.mark for each in await all_of(driver.guests()) if each.mark in wanted]
            assert len(found) == len(specs)
            assert set(found) == wanted
            for spec in specs:
                await driver.delete_guest(spec.mark.uuid)

    # idempotency

    async def test_making_a_guest_twice_makes_one(self, bench: ComputeBench) -> None:
        """The second creation returns the first guest."""
        async with bench.driver() as driver:
            spec = bench.spec()
            first = await _made(driver, spec)
            assert (await driver.create_guest(spec)).key == first.key
            assert len(await _ours(driver, spec.mark.uuid)) == 1
            await driver.delete_guest(spec.mark.uuid)

    async def test_making_a_guest_five_times_at_once_makes_one(self, bench: ComputeBench) -> None:
        """Concurrent creations join, or are refused as conflicts."""
        async with bench.driver() as driver:
            spec = bench.spec()
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(settled, lambda: driver.create_guest(spec))
            assert len(await _ours(driver, spec.mark.uuid)) == 1
            await driver.delete_guest(spec.mark.uuid)

    async def test_another_claim_or_size_is_a_conflict(self, bench: ComputeBench) -> None:
        """A uuid that is taken is not given to another claim; the guest that is there is unchanged."""
        async with bench.driver() as driver:
            spec = bench.spec()
            first = await _made(driver, spec)
            with pytest.raises(Conflict):
                await driver.create_guest(spec._replace(mark=spec.mark._replace(claim=2)))
            with pytest.raises(Conflict):
                await driver.create_guest(spec._replace(vcpus=bench.vcpus + 1))
            assert await driver.get_guest(spec.mark.uuid) == first
            await driver.delete_guest(spec.mark.uuid)

    async def test_deleting_is_repeatable(self, bench: ComputeBench) -> None:
        """A guest that is gone, or never was, is no error."""
        async with bench.driver() as driver:
            spec = bench.spec()
            await _made(driver, spec)
            await driver.delete_guest(spec.mark.uuid)
            await driver.delete_guest(spec.mark.uuid)
            await driver.delete_guest(new_uuid())

    async def test_deleting_for_another_claim_leaves_the_guest(self, bench: ComputeBench) -> None:
        """A late deletion of an earlier claim does not remove the guest of the present one."""
        async with bench.driver() as driver:
            spec = bench.spec(claim=7)
            first = await _made(driver, spec)
            await driver.delete_guest(spec.mark.uuid, 6)
            assert (await driver.get_guest(spec.mark.uuid)).key == first.key
            await driver.delete_guest(spec.mark.uuid, 7)
            assert not await _ours(driver, spec.mark.uuid)

    async def test_setting_power_is_repeatable(self, bench: ComputeBench) -> None:
        """Starting a running guest and stopping a stopped one change nothing."""
        async with bench.driver() as driver:
            spec = bench.spec()
            await _made(driver, spec)
            assert (await driver.set_power(spec.mark.uuid, "on")).state == "on"
            await settled(lambda: driver.set_power(spec.mark.uuid, "off"))
            await _state(driver, spec.mark.uuid, "off")
            assert (await driver.set_power(spec.mark.uuid, "off")).state == "off"
            await driver.delete_guest(spec.mark.uuid)

    # faults

    async def test_a_lost_answer_is_unknown_and_the_repetition_joins(self, bench: ComputeBench) -> None:
        """The guest is there although the call failed; the next call finds it."""
        if bench.lose_answers is None:
            pytest.skip("this back end cannot be made to lose answers")
        async with bench.driver() as driver:
            spec = bench.spec()
            with bench.lose_answers(), pytest.raises(Unknown):
                await driver.create_guest(spec)
            assert len(await _ours(driver, spec.mark.uuid)) == 1
            await _made(driver, spec)
            assert len(await _ours(driver, spec.mark.uuid)) == 1
            with bench.lose_answers(), pytest.raises(Unknown):
                await driver.delete_guest(spec.mark.uuid)
            await driver.delete_guest(spec.mark.uuid)
            assert not await _ours(driver, spec.mark.uuid)

    async def test_a_back_end_that_goes_away_in_any_step_has_one_guest_or_none(self, bench: ComputeBench) -> None:
        """Killed in the midst of a life and started again: what was not confirmed is made once, or removed."""
        if bench.outage is None:
            pytest.skip("this back end cannot be made to go away")
        async with bench.driver() as driver:

            async def live(spec: GuestSpec) -> None:
                await driver.create_guest(spec)
                await driver.get_guest(spec.mark.uuid)

            subject = _subject(bench, driver)
            assert await goes_away(bench.outage, bench, subject, live, subject.made) >= 2

    async def test_a_back_end_that_hangs_holds_up_nothing_else(self, bench: ComputeBench) -> None:
        """Calls that are given up end at once, more of them than may be under way; what the back end does later is done
        once, and its driver goes on."""
        if bench.hang is None:
            pytest.skip("this back end cannot be made to hang")
        async with bench.driver() as driver:
            await hangs(bench.hang, driver.facts.concurrency, _subject(bench, driver))

    async def test_a_creation_cancelled_at_any_await_leaves_one_guest_or_none(self, bench: ComputeBench) -> None:
        """After each, the same creation again makes exactly one guest."""
        async with bench.driver() as driver:
            assert await creation_is_cancelled(_subject(bench, driver)) >= 2

    async def test_listing_can_be_cancelled(self, bench: ComputeBench) -> None:
        """A cancelled listing leaves the driver usable."""
        async with bench.driver() as driver:

            async def listing() -> None:
                await all_of(driver.guests())

            await cancelled_at_every_await(listing, driver.check)

    async def test_what_is_impossible_leaves_nothing_behind(self, bench: ComputeBench) -> None:
        """A guest on a node that does not exist is refused by an error of the hierarchy."""
        async with bench.driver() as driver:
            spec = bench.spec()._replace(node="no-such-node")
            if Can.CHOOSES_HOST not in driver.facts.can:
                with pytest.raises(DriverError) as caught:
                    await driver.create_guest(spec)
                assert caught.value.failure in ("capacity", "not_found", "permanent")
                assert not await _ours(driver, spec.mark.uuid)

    async def test_hostile_names_of_images_and_networks_raise_errors_of_the_protocol(self, bench: ComputeBench) -> None:
        """No other error, and nothing stays behind that a deletion does not remove."""
        async with bench.driver() as driver:
            specs = [bench.spec()._replace(image=name) for name in HOSTILE]
            for spec in [*specs, *(bench.spec()._replace(networks=(name,)) for name in HOSTILE[-2:])]:
                with suppress(DriverError):
                    await driver.create_guest(spec)
                await settled(lambda spec=spec: driver.delete_guest(spec.mark.uuid))  # type: ignore[misc]  # as above
                assert not await _ours(driver, spec.mark.uuid)

    async def test_a_guest_that_asks_for_more_is_made_or_refused_for_good(self, bench: ComputeBench) -> None:
        """For user data, networks that may not exist, and a disk that is too large; a deletion removes what there is
        of it."""
        asked = ({"user_data": "#cloud-config\n"}, {"networks": ("no-such-network",)}, {"disk_gb": 1_000_000_000})
        async with bench.driver() as driver:
            for change in asked:
                spec = bench.spec()._replace(**change)
                try:
                    await settled(lambda spec=spec: driver.create_guest(spec))  # type: ignore[misc]  # as above
                except DriverError as error:
                    assert error.failure in ("capacity", "quota", "not_found", "permanent")  # noqa: PT017  # whose class is not the matter
                await driver.delete_guest(spec.mark.uuid)
                assert not await _ours(driver, spec.mark.uuid)

    # volumes and moves

    async def test_volumes_are_attached_and_detached(self, bench: ComputeBench) -> None:
        """Each call may be repeated; a guest can have volumes from its creation on."""
        if bench.make_volume is None:
            pytest.skip("no volume can be made for this back end")
        first, second = await bench.make_volume(), await bench.make_volume()
        async with bench.driver() as driver:
            assert attaches(driver)
            spec = bench.spec()._replace(volumes=(first,))
            uuid = spec.mark.uuid
            assert (await _made(driver, spec)).volumes == (first.volume,)
            for _ in range(2):
                await driver.attach(uuid, second)
            assert set((await driver.get_guest(uuid)).volumes) == {first.volume, second.volume}
            assert [set(each.volumes) for each in await _ours(driver, uuid)] == [{first.volume, second.volume}]
            if not bench.lets_go:
                await settled(lambda: driver.set_power(uuid, "off"))
            with trio.fail_after(PATIENCE):
                while not await driver.detach(uuid, second.volume):  # noqa: ASYNC110  # the guest is asked again
                    await trio.sleep(0.1)
            assert await driver.detach(uuid, second.volume)
            assert (await driver.get_guest(uuid)).volumes == (first.volume,)
            with pytest.raises(NotFound):
                await driver.attach(new_uuid(), second)
            await driver.delete_guest(uuid)

    @pytest.mark.parametrize("power", ["on", "off"])
    async def test_a_guest_moves(self, bench: ComputeBench, power: Power) -> None:
        """It is on one node afterwards, in the same state, with the same mark; a repetition changes nothing."""
        if bench.other_node is None:
            pytest.skip("guests of this back end do not move")
        async with bench.driver() as driver:
            assert moves(driver)
            spec = bench.spec()._replace(power=power)
            uuid = spec.mark.uuid
            await _made(driver, spec)
            for node, live in ((bench.other_node, power == "on" and bench.moves_live), (bench.node, False)):
                for _ in range(2):
                    moved = await driver.move_guest(uuid, node, live=live)
                    assert (moved.mark, moved.node, moved.state) == (spec.mark, node, power)
                    assert [each.node for each in await _ours(driver, uuid)] == [node]
            with pytest.raises(NotFound):
                await driver.move_guest(new_uuid(), bench.node, live=False)
            with pytest.raises(DriverError):
                await driver.move_guest(uuid, "no-such-node", live=False)
            assert len(await _ours(driver, uuid)) == 1
            await driver.delete_guest(uuid)

    async def test_a_move_cancelled_at_any_await_leaves_one_guest(self, bench: ComputeBench) -> None:
        """The same move again ends with the guest on its target."""
        if bench.other_node is None:
            pytest.skip("guests of this back end do not move")
        target = bench.other_node
        async with bench.driver() as driver:
            assert moves(driver)
            specs = [bench.spec()]
            await _made(driver, specs[-1])

            async def move() -> None:
                await driver.move_guest(specs[-1].mark.uuid, target, live=False)

            async def check() -> None:
                uuid = specs[-1].mark.uuid
                await settled(move)
                assert [each.node for each in await _ours(driver, uuid)] == [target]
                await driver.delete_guest(uuid)
                specs.append(bench.spec())
                await _made(driver, specs[-1])

            assert await cancelled_at_every_await(move, check) >= 2
            await driver.delete_guest(specs[-1].mark.uuid)

    async def test_a_node_that_is_down_hides_only_its_own_guests(self, bench: ComputeBench) -> None:
        """Guests on other nodes are made, found, changed and removed; of what is not found, the error names the node
        on which it may be."""
        if bench.other_node is None or bench.other_node_down is None:
            pytest.skip("no node of this back end can be made not to answer")
        async with bench.driver() as driver:
            here, there, new = bench.spec(), bench.spec()._replace(node=bench.other_node), bench.spec()
            for spec in (here, there):
                await _made(driver, spec)
            await all_of(driver.nodes())
            with bench.other_node_down():
                await driver.check()
                states = {node.name: node.state for node in await all_of(driver.nodes())}
                assert (states[bench.node], states[bench.other_node]) == ("up", "down")
                assert not await _ours(driver, there.mark.uuid)
                await _made(driver, new)
                assert len(await _ours(driver, here.mark.uuid)) == 1
                await settled(lambda: driver.set_power(here.mark.uuid, "off"))
                assert (await driver.get_guest(here.mark.uuid)).state == "off"
                for spec in (here, new):
                    await driver.delete_guest(spec.mark.uuid)
                    assert not await _ours(driver, spec.mark.uuid)
                for call in (driver.get_guest, driver.delete_guest):
                    for uuid in (there.mark.uuid, here.mark.uuid, new_uuid()):
                        with pytest.raises(Transient) as caught:
                            await call(uuid)
                        assert caught.value.nodes == {bench.other_node}
            await settled(lambda: driver.delete_guest(there.mark.uuid))

    # others on the same back end

    async def test_two_installations_do_not_touch_each_other(self, bench: ComputeBench) -> None:
        """Each sees the guests of the other, and can neither change nor remove them."""
        async with bench.driver() as ours, bench.driver(OTHERS) as others:
            spec = bench.spec()
            guest = await _made(ours, spec)
            with pytest.raises(NotFound):
                await others.get_guest(spec.mark.uuid)
            with pytest.raises(NotFound):
                await others.set_power(spec.mark.uuid, "off")
            await others.delete_guest(spec.mark.uuid)
            assert (await ours.get_guest(spec.mark.uuid)).key == guest.key
            seen = [each.mark for each in await all_of(others.guests())]
            assert spec.mark in seen
            await ours.delete_guest(spec.mark.uuid)

    async def test_strangers_are_listed_and_left_alone(self, bench: ComputeBench) -> None:
        """A guest that Hostler did not make has no mark, counts as use, and stays."""
        if bench.make_stranger is None:
            pytest.skip("no stranger can be made on this back end")
        async with bench.driver() as driver:
            key = await bench.make_stranger()
            spec = bench.spec()
            await _made(driver, spec)
            await driver.delete_guest(spec.mark.uuid)
            (stranger,) = [each for each in await all_of(driver.guests()) if each.key == key]
            assert stranger.mark is None

    async def test_a_stranger_is_adopted_and_becomes_a_stranger_again(self, bench: ComputeBench) -> None:
        """It is given a mark and loses it; nothing else about it changes."""
        if bench.make_stranger is None:
            pytest.skip("no stranger can be made on this back end")
        async with bench.driver() as driver, bench.driver(OTHERS) as others:
            if not adopts(driver) or not adopts(others):
                pytest.skip("the driver adopts no guests")
            key = await bench.make_stranger()
            (before,) = [each for each in await all_of(driver.guests()) if each.key == key]
            uuid = key if _UUID.fullmatch(key) else new_uuid()
            mark = Mark(OURS, uuid, 3, adopted=True)
            for _ in range(2):
                assert await driver.adopt_guest(key, mark) == before._replace(mark=mark)
            assert await driver.get_guest(uuid) == before._replace(mark=mark)
            with pytest.raises(Conflict):
                await driver.adopt_guest(key, mark._replace(claim=4))
            with pytest.raises(Conflict):
                await others.adopt_guest(key, mark._replace(installation=OTHERS))
            await others.disown_guest(uuid, 3)
            await driver.disown_guest(uuid, 4)
            assert (await driver.get_guest(uuid)).mark == mark
            for _ in range(2):
                await driver.disown_guest(uuid, 3)
            with pytest.raises(NotFound):
                await driver.get_guest(uuid)
            assert [each for each in await all_of(driver.guests()) if each.key == key] == [before]
            spec = bench.spec()
            made = await _made(driver, spec)
            await driver.disown_guest(spec.mark.uuid, spec.mark.claim)
            assert (await driver.get_guest(spec.mark.uuid)).key == made.key, "only what was adopted is disowned"
            await driver.delete_guest(spec.mark.uuid)
            missing = new_uuid()
            with pytest.raises(NotFound):
                await driver.adopt_guest(missing, mark._replace(uuid=missing))
            await driver.adopt_guest(key, mark)
            await driver.delete_guest(uuid)
            assert not [each for each in await all_of(driver.guests()) if each.key == key]

    async def test_changes_from_outside_are_seen(self, bench: ComputeBench) -> None:
        """A look-up tells what is so now."""
        if bench.change_outside is None:
            pytest.skip("nothing but the driver can change this back end")
        async with bench.driver() as driver:
            spec = bench.spec()
            await _made(driver, spec)
            await bench.change_outside(spec.mark.uuid, "stop")
            await _state(driver, spec.mark.uuid, "off")
            await bench.change_outside(spec.mark.uuid, "remove")
            with pytest.raises(NotFound):
                await driver.get_guest(spec.mark.uuid)

    async def test_errors_name_a_class_of_the_protocol(self, bench: ComputeBench) -> None:
        """A volume that cannot be attached is refused as permanent, where the driver attaches none."""
        async with bench.driver() as driver:
            if Can.ATTACH in driver.facts.can:
                return
            from ..protocol import Connection

            spec = bench.spec()._replace(volumes=(Connection(volume=new_uuid(), protocol="file", address="x"),))
            with pytest.raises(Permanent):
                await driver.create_guest(spec)
            assert not await _ours(driver, spec.mark.uuid)
