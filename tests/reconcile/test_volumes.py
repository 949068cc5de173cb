"""Guests with volumes on back ends of their own: made first, attached, detached and removed in reverse order, through
failures of either back end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import MockClock

from hostler.core.backends.protocol import DriverContext
from hostler.core.console.guest_volumes import read_volume
from hostler.core.engine_commands import SetAggregates, SetPolicy
from hostler.core.lifecycle_commands import (
    AttachVolume,
    CreateVolume,
    DeleteGuest,
    DetachVolume,
    MoveGuest,
    SetBackend,
    StartGuest,
    guest_volume,
)
from hostler.core.machine.orders import Order
from hostler.core.storage_commands import DeleteVolumes, ExtendVolume
from hostler.drivers.model.driver import Faults, ModelDriver
from hostler.drivers.model.world import IMAGES_BROKEN, IMAGES_REFUSED
from hostler.drivers.protocol import Can, Page, Volume, VolumeSpec
from hostler.placement.storage.decision import VolumeDecision
from hostler.placement.types.errors import InUse, InvalidValue
from hostler.placement.types.host import Aggregate

from ..core.orders import LOCAL, uuid_of
from .cloud import Model, Running, create, ready, volume


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "NAME=VALUE"),
        ("size", "no size"),
        ("size=0", "no size"),
        ("type=gold", "no size"),
        ("5,size=6", "NAME=VALUE"),
        ("5,colour=red", "NAME=VALUE"),
        ("5,keep=perhaps", "yes or no"),
    ],
)
def test_a_volume_that_is_written_wrongly_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidValue, match=problem):
        read_volume(text)


def test_a_volume_is_written_by_its_size_or_by_name() -> None:
    assert read_volume("20") == guest_volume(20)
    wanted = guest_volume(5, volume_type="gold", zone="a", image="debian", name="root", keep=True, uuid=uuid_of(1))
    assert read_volume(f"size=5,type=gold,zone=a,image=debian,name=root,keep=yes,uuid={uuid_of(1)}") == wanted


def free_gb(life: Running, backend_id: str) -> float:
    pools = life.state.storage.pools
    return float(pools.columns["free"][pools.row_of[backend_id]])


async def test_a_guest_is_built_once_its_volumes_are_and_has_them_attached(autojump_clock: MockClock) -> None:
    compute, disks = Model("a"), Model("d", nodes=0, pools=2)
    async with ready(compute, disks) as life:
        disks.wire.faults = Faults(delay=5.0)
        wanted = (volume(11, image="debian", project="p"), volume(12, size_gb=30, project="p"))
        decision = await life.submit(create(1, project="p", volumes=wanted))
        assert decision.placed
        assert life.state.usage.of("project:p")["gigabytes"] == 40
        await life.until(lambda: life.volume_status(11) == "in_use")
        await life.until(lambda: life.status(1) == "active")
        (guest,) = compute.of(uuid_of(1))
        assert guest.volumes == [uuid_of(11), uuid_of(12)]
        assert sorted((each.size_gb, mark.uuid) for mark, each in disks.volumes() if mark) == [
            (10, uuid_of(11)),
            (30, uuid_of(12)),
        ]
        assert life.volume_status(12) == "in_use"


async def test_volumes_go_with_their_guest_after_it_and_kept_ones_stay(autojump_clock: MockClock) -> None:
    compute, disks = Model("a"), Model("d", nodes=0, pools=1)
    async with ready(compute, disks) as life:
        await life.submit(create(1, volumes=(volume(11), volume(12, keep=True))))
        await life.until(lambda: life.status(1) == "active")
        compute.wire.down = True
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await trio.sleep(30)
        assert len(disks.volumes()) == 2, "a volume is removed after the guest that uses it"
        compute.wire.down = False
        await life.until(lambda: life.status(1) is None)
        assert [mark.uuid for mark, _ in disks.volumes() if mark] == [uuid_of(12)]
        assert life.volume_status(12) == "available"
        delete = DeleteVolumes(uuids=(uuid_of(12),))
        await life.service.writer.submit(Order(life.service.now(), LOCAL, delete))
        await life.until(lambda: life.volume_status(12) is None)
        assert disks.volumes() == []
        assert not life.state.volumes.volumes


async def test_without_room_for_a_volume_nothing_is_placed(autojump_clock: MockClock) -> None:
    async with ready(Model("a"), Model("d", nodes=0, pools=1)) as life:
        decision = await life.submit(create(1, volumes=(volume(11), volume(12, size_gb=20_000))))
        assert decision.refusal is not None
        assert "volumes" in decision.refusal.sentence
        assert not life.state.lives.volumes
        assert life.state.fleet._kernel.consumer_count == 0


async def test_a_volume_that_cannot_be_made_undoes_the_others_and_the_guest_is_placed_again(
    autojump_clock: MockClock,
) -> None:
    compute, disks = Model("a"), Model("d", nodes=0, pools=1)
    async with ready(compute, disks) as life:
        await life.submit(create(1, volumes=(volume(11), volume(12, image=IMAGES_REFUSED))))
        await life.until(lambda: life.status(1) == "error")
        assert disks.volumes() == []
        assert compute.world.creations == []
        assert not life.state.volumes.volumes
        guest = life.state.lives.guests[uuid_of(1)]
        assert guest.fault is not None
        assert "no image" in guest.fault.text


async def test_a_full_pool_is_tried_as_often_as_attempts_allow(autojump_clock: MockClock) -> None:
    compute, disks = Model("a"), Model("d", nodes=0, pools=1)
    async with ready(compute, disks) as life:
        with disks.world.content() as there:
            there.pools["d-pool-0"].total_gb = 1
        await life.submit(create(1, volumes=(volume(11),), attempts=2))
        await life.until(lambda: life.status(1) == "error")
        guest = life.state.lives.guests[uuid_of(1)]
        assert guest.failed_pools[0] == "d@model#d-pool-0"
        with disks.world.content() as there:
            there.pools["d-pool-0"].total_gb = 1_000
        await life.inventories(2)


async def test_a_host_that_fails_has_the_guest_and_its_volumes_placed_again(autojump_clock: MockClock) -> None:
    compute, disks = Model("a", nodes=2), Model("d", nodes=0, pools=1)
    async with ready(compute, disks) as life:
        disks.wire.faults = Faults(delay=2.0)
        decision = await life.submit(create(1, volumes=(volume(11),)))
        first = decision.selections[0].node
        with compute.world.content() as there:
            there.nodes[first].memory_mb = 100
        await life.until(lambda: life.status(1) == "active")
        (guest,) = compute.of(uuid_of(1))
        assert guest.node != first
        assert [mark.claim for mark, _ in disks.volumes() if mark] == [life.state.lives.volumes[uuid_of(11)].claim]
        assert len(disks.world.creations) == 2


async def test_a_volume_is_made_attached_detached_and_removed_by_itself(autojump_clock: MockClock) -> None:
    compute, disks = Model("a"), Model("d", nodes=0, pools=1)
    async with ready(compute, disks) as life:
        await life.submit(create(1))
        await life.submit(CreateVolume(request=volume(11).request, name="data"))
        await life.until(lambda: life.volume_status(11) == "available" and life.status(1) == "active")
        await life.submit(AttachVolume(uuid=uuid_of(1), volume=uuid_of(11)))
        await life.reconciler.until_settled()
        assert compute.of(uuid_of(1))[0].volumes == [uuid_of(11)]
        with pytest.raises(InUse, match="of guest"):
            await life.service.writer.submit(Order(life.service.now(), LOCAL, DeleteVolumes(uuids=(uuid_of(11),))))
        grown = ExtendVolume(uuid=uuid_of(11), new_size_gb=20)
        with pytest.raises(InUse, match="carries out"):
            await life.service.writer.submit(Order(life.service.now(), LOCAL, grown))
        await life.submit(DetachVolume(uuid=uuid_of(1), volume=uuid_of(11)))
        await life.reconciler.until_settled()
        assert compute.of(uuid_of(1))[0].volumes == []
        assert life.volume_status(11) == "available"


async def test_a_back_end_that_is_disabled_gets_no_new_volumes(autojump_clock: MockClock) -> None:
    async with ready(Model("a"), Model("d", nodes=0, pools=1)) as life:
        await life.submit(SetBackend(name="d", enabled=False))
        with pytest.raises(InvalidValue, match="has pools"):
            await life.submit(CreateVolume(request=volume(11).request))
        decision = await life.submit(create(1, volumes=(volume(12),)))
        assert not decision.placed


async def test_claims_that_are_not_made_yet_count_in_the_report_of_their_pool(autojump_clock: MockClock) -> None:
    disks = Model("d", nodes=0, pools=1)
    async with ready(Model("a"), disks) as life:
        disks.wire.down = True
        await life.submit(CreateVolume(request=volume(11, size_gb=100).request))
        disks.wire.down = False
        await life.inventories(3)
        assert free_gb(life, "d@model#d-pool-0") == 9_900


async def test_a_volume_that_disappeared_is_in_error_and_an_orphan_is_removed(autojump_clock: MockClock) -> None:
    disks = Model("d", nodes=0, pools=1)
    async with ready(Model("a"), disks) as life:
        await life.submit(CreateVolume(request=volume(11).request))
        await life.until(lambda: life.volume_status(11) == "available")
        with disks.world.content() as there:
            (known,) = there.volumes.values()
            known.mark = known.mark.replace(uuid_of(11), uuid_of(77))
        await life.until(lambda: life.volume_status(11) == "error")
        await trio.sleep(60)
        assert disks.volumes() == []


async def test_a_guest_whose_volume_is_lost_is_not_built_again_without_it(autojump_clock: MockClock) -> None:
    compute, disks = Model("a"), Model("d", nodes=0, pools=1)
    async with ready(compute, disks) as life:
        await life.submit(create(1, volumes=(volume(11),)))
        await life.until(lambda: life.status(1) == "active")
        with disks.world.content() as there, compute.world.content() as guests:
            there.volumes.clear()
            guests.guests.clear()
        await life.until(lambda: life.status(1) == "error" and life.volume_status(11) == "error")
        with pytest.raises(InvalidValue, match="not available"):
            await life.submit(StartGuest(uuid=uuid_of(1)))
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) is None and life.volume_status(11) is None)


async def test_a_volume_of_a_guest_that_is_lost_while_it_is_detached_is_free(autojump_clock: MockClock) -> None:
    compute, disks = Model("a"), Model("d", nodes=0, pools=1)
    async with ready(compute, disks) as life:
        await life.submit(create(1))
        await life.submit(CreateVolume(request=volume(11).request))
        await life.until(lambda: life.volume_status(11) == "available" and life.status(1) == "active")
        await life.submit(AttachVolume(uuid=uuid_of(1), volume=uuid_of(11)))
        await life.reconciler.until_settled()
        compute.wire.down = True
        await life.submit(DetachVolume(uuid=uuid_of(1), volume=uuid_of(11)))
        with compute.world.content() as there:
            there.guests.clear()
        compute.wire.down = False
        await life.until(lambda: life.status(1) == "error")
        assert life.volume_status(11) == "available"
        await life.submit(StartGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "active")
        assert compute.of(uuid_of(1))[0].volumes == []
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) is None)
        delete = DeleteVolumes(uuids=(uuid_of(11),))
        await life.service.writer.submit(Order(life.service.now(), LOCAL, delete))
        await life.until(lambda: life.volume_status(11) is None)


@pytest.mark.parametrize("image", ["", "debian"])
async def test_the_volume_that_a_guest_without_an_image_was_made_with_is_not_detached(
    autojump_clock: MockClock, image: str
) -> None:
    async with ready(Model("a"), Model("d", nodes=0, pools=1)) as life:
        made = (volume(11, image="debian" if image else ""), volume(12))
        await life.submit(create(1, image=image, volumes=made))
        await life.until(lambda: life.status(1) == "active")
        detach = DetachVolume(uuid=uuid_of(1), volume=uuid_of(11))
        if not image:
            with pytest.raises(InvalidValue, match="boots from"):
                await life.submit(detach)
        else:
            await life.submit(detach)
        await life.submit(DetachVolume(uuid=uuid_of(1), volume=uuid_of(12)))
        await life.reconciler.until_settled()
        assert life.state.lives.guests[uuid_of(1)].volumes == ([] if image else [uuid_of(11)])


@pytest.mark.parametrize("field", ["source", "group"])
async def test_a_volume_with_a_source_or_group_is_refused(autojump_clock: MockClock, field: str) -> None:
    """A driver would make it blank."""
    disks = Model("d", nodes=0, pools=1)
    async with ready(Model("a"), disks) as life:
        await life.submit(CreateVolume(request=volume(11).request))
        await life.until(lambda: life.volume_status(11) == "available")
        plain = volume(12)
        changed = msgspec.structs.replace(plain.request, **{field: uuid_of(11)})
        with pytest.raises(InvalidValue, match=f"no volumes with a {field}") as caught:
            await life.submit(CreateVolume(request=changed))
        assert caught.value.field == f"request.{field}"
        with pytest.raises(InvalidValue, match=f"no volumes with a {field}") as caught:
            await life.submit(create(1, volumes=(volume(13), msgspec.structs.replace(plain, request=changed))))
        assert caught.value.field == f"volumes[1].request.{field}"
        assert len(disks.volumes()) == 1
        assert life.state.fleet._kernel.consumer_count == 0


async def test_a_volume_or_guest_that_is_made_in_error_is_a_failure_and_not_made_for_ever(
    autojump_clock: MockClock,
) -> None:
    compute, disks = Model("a"), Model("d", nodes=0, pools=1)
    async with ready(compute, disks) as life:
        await life.submit(CreateVolume(request=volume(11).request, image=IMAGES_BROKEN))
        await life.until(lambda: life.volume_status(11) == "error")
        assert (disks.volumes(), len(disks.world.creations)) == ([], 1)
        await life.submit(create(1, image=IMAGES_BROKEN, attempts=2))
        await life.until(lambda: life.status(1) == "error")
        assert (compute.guests(), len(compute.world.creations)) == ([], 2)
        await life.submit(create(2, volumes=(volume(12, image=IMAGES_BROKEN),), attempts=2))
        await life.until(lambda: life.status(2) == "error")
        assert disks.volumes() == []
        fault = life.state.lives.guests[uuid_of(2)].fault
        assert fault is not None
        assert "state of error" in fault.text


async def test_a_volume_that_comes_to_be_in_error_is_shown_so(autojump_clock: MockClock) -> None:
    disks = Model("d", nodes=0, pools=1)
    async with ready(Model("a"), disks) as life:
        await life.submit(CreateVolume(request=volume(11).request))
        await life.until(lambda: life.volume_status(11) == "available")
        disks.volumes()[0][1].broken = True
        await life.until(lambda: life.volume_status(11) == "error")
        assert "state of error" in str(life.state.lives.volumes[uuid_of(11)].fault)
        assert len(disks.volumes()) == 1, "it is not removed: its data may be what a user wants"


async def test_where_a_policy_says_so_a_guest_and_its_volumes_are_in_one_zone(autojump_clock: MockClock) -> None:
    """``[cinder] cross_az_attach`` of Nova 33: volumes are placed, attached and follow a move within a zone only."""
    model = Model("a", nodes=3, pools=1)
    async with ready(model) as life:
        for at, zone in enumerate(("nova", "east", "east")):
            zoned = Aggregate(uuid=uuid_of(9_000 + at), name=f"zone-{at}", metadata={"availability_zone": zone})
            await life.submit(SetAggregates(name=f"a-node-{at}", aggregates=(zoned,)))
        await life.submit(create(1, volumes=(volume(9),)))
        await life.until(lambda: life.status(1) == "active")
        await life.submit(SetPolicy(policy={"cinder": {"cross_az_attach": False}}))
        for number in range(2, 6):
            decision = await life.submit(create(number, volumes=(volume(10 + number),)))
            assert decision.selections[0].node == "a-node-0", "the zone of the pool"
        free = [(await life.submit(create(number))).selections[0].node for number in range(20, 26)]
        await life.reconciler.until_settled()
        far = 20 + next(at for at, node in enumerate(free) if node != "a-node-0")
        assert isinstance(await life.submit(CreateVolume(request=volume(30).request)), VolumeDecision)
        await life.until(lambda: life.volume_status(30) == "available")
        with pytest.raises(InvalidValue, match="is in availability zone nova"):
            await life.submit(AttachVolume(uuid=uuid_of(far), volume=uuid_of(30)))
        with pytest.raises(InvalidValue, match="is in availability zone nova"):
            await life.submit(MoveGuest(uuid=uuid_of(2), target="a-node-1"))
        assert not (await life.submit(MoveGuest(uuid=uuid_of(2)))).placed, "no other node is in the zone"
        await life.submit(SetPolicy(policy={}))
        await life.submit(AttachVolume(uuid=uuid_of(far), volume=uuid_of(30)))
        await life.reconciler.until_settled()
        assert (await life.submit(MoveGuest(uuid=uuid_of(2)))).placed


class Bare(Model):
    """Its driver attaches no volumes."""

    @asynccontextmanager
    async def _open(self, context: DriverContext) -> AsyncIterator[ModelDriver]:
        async with super()._open(context) as driver:
            driver.facts = driver.facts._replace(can=driver.facts.can & ~Can.ATTACH)
            yield driver


async def test_a_guest_with_volumes_is_placed_where_they_can_be_attached(autojump_clock: MockClock) -> None:
    bare, disks = Bare("a", nodes=2), Model("b", nodes=0, pools=1)
    async with ready(bare, disks) as life:
        refused = await life.submit(create(1, volumes=(volume(9),)))
        assert not refused.placed
        assert disks.volumes() == []
        assert (await life.submit(create(2))).placed
        await life.submit(CreateVolume(request=volume(10).request))
        await life.reconciler.until_settled()
        with pytest.raises(InvalidValue, match="back end a, which has the guest, attaches no volumes"):
            await life.submit(AttachVolume(uuid=uuid_of(2), volume=uuid_of(10)))
        disks.world.add(nodes=1, prefix="b-")
        await life.inventories(2)
        decision = await life.submit(create(3, volumes=(volume(11),)))
        assert decision.selections[0].node == "b-node-0"
        assert b"ignore_hosts" not in bytes(life.state.requests.get(uuid_of(3)) or b""), "what was asked is kept"
        await life.until(lambda: life.status(3) == "active")


async def test_a_volume_of_a_driver_that_names_no_key_outlives_a_passing_error(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made, and is not what came late of one that was not."""
    create, get, listed = ModelDriver.create_volume, ModelDriver.get_volume, ModelDriver.volumes
    broken = False

    def keyless(found: Volume) -> Volume:
        return found._replace(key="", state="error" if broken else found.state)

    async def create_volume(self: ModelDriver, spec: VolumeSpec) -> Volume:
        return keyless(await create(self, spec))

    async def get_volume(self: ModelDriver, uuid: str) -> Volume:
        return keyless(await get(self, uuid))

    async def volumes(self: ModelDriver) -> AsyncIterator[Page[Volume]]:
        async for page in listed(self):
            yield page._replace(items=tuple(map(keyless, page.items)))

    for method in (create_volume, get_volume, volumes):
        monkeypatch.setattr(ModelDriver, method.__name__, method)
    disks = Model("d", nodes=0, pools=1)
    async with ready(disks) as life:
        await life.submit(CreateVolume(request=volume(11, project="p").request))
        await life.until(lambda: life.volume_status(11) == "available")
        broken = True
        await life.until(lambda: life.volume_status(11) == "error")
        broken = False
        await trio.sleep(3_600)
        with disks.world.content(change=False) as there:
            assert len(there.volumes) == 1
