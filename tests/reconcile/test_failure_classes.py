"""Every class of failure, in every operation of a life, before the back end has done what it was asked or after it: at
the end desired is observed once, nothing is held twice, and what was given up is said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hostler.core.lifecycle_commands import (
    AttachVolume,
    CreateVolume,
    DeleteGuest,
    DeleteGuestSnapshot,
    DetachVolume,
    MoveGuest,
    ResizeGuest,
    SetBackend,
    SnapshotGuest,
    StartGuest,
    StopGuest,
)
from hostler.core.machine.lives import GuestLife, SnapshotLife
from hostler.core.storage_commands import DeleteVolumes
from hostler.drivers.model.driver import ModelDriver
from hostler.drivers.protocol import (
    Capacity,
    Conflict,
    Denied,
    DriverError,
    Guest,
    Mark,
    NotFound,
    Permanent,
    Power,
    Quota,
    Transient,
    Unknown,
    VolumeSpec,
)

from ..core.orders import asked, uuid_of
from .cloud import Running, Wrapped, create, ready, volume

CLASSES = (Transient, Unknown, Capacity, Quota, Conflict, NotFound, Permanent, Denied)
TRIED_AGAIN = (Transient, Unknown, Conflict)
SECONDS = 60.0
POLL = 5.0
"""Seconds between inventories of the model."""


class Failing(Wrapped):
    """A model whose driver fails in one operation, ``left`` times, before or after it is carried out."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.operation, self.after, self.left = "", False, 0
        self.error: type[DriverError] = Transient
        self.calls = 0

    def fails(self, operation: str, error: type[DriverError], *, after: bool, times: int) -> None:
        self.operation, self.error, self.after, self.left, self.calls = operation, error, after, times, 0

    def well(self) -> None:
        self.left = 0

    async def call(self, operation: str, work: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
        failing = operation == self.operation and self.left > 0
        self.calls += operation == self.operation
        if not failing:
            return await work(*args, **more)
        self.left -= 1
        if self.after:
            await work(*args, **more)
        raise self.error(f"{operation} fails")


OPERATIONS: dict[str, Callable[[], Any]] = {
    "create_guest": lambda: create(2, build_seconds=SECONDS),
    "set_power": lambda: StopGuest(uuid=uuid_of(1)),
    "delete_guest": lambda: DeleteGuest(uuid=uuid_of(1)),
    "move_guest": lambda: MoveGuest(uuid=uuid_of(1), kind="live_migrate", seconds=SECONDS),
    "resize_guest": lambda: ResizeGuest(uuid=uuid_of(1), request=asked(vcpus=2, memory_mb=2_048), seconds=SECONDS),
    "attach": lambda: AttachVolume(uuid=uuid_of(1), volume=uuid_of(12), seconds=SECONDS),
    "detach": lambda: DetachVolume(uuid=uuid_of(1), volume=uuid_of(11), seconds=SECONDS),
    "snapshot_guest": lambda: SnapshotGuest(uuid=uuid_of(1), snapshot=uuid_of(31), seconds=SECONDS),
    "delete_snapshot": lambda: DeleteGuestSnapshot(uuid=uuid_of(1), snapshot=uuid_of(30)),
    "create_volume": lambda: CreateVolume(request=volume(13).request, build_seconds=SECONDS),
    "delete_volume": lambda: DeleteVolumes(uuids=(uuid_of(12),)),
}
"""Operations of drivers, and the commands that need them."""


@asynccontextmanager
async def world() -> AsyncIterator[tuple[Failing, Running]]:
    """A back end with a guest that has a volume, a snapshot of it where it can be deleted, and a volume of none."""
    model = Failing("a", nodes=2, pools=2)
    async with ready(model) as life:
        await life.submit(create(1, volumes=(volume(11),), image="debian"))
        await life.submit(CreateVolume(request=volume(12).request))
        await life.reconciler.until_settled()
        yield model, life


async def _with_snapshot(life: Running) -> None:
    await life.submit(SnapshotGuest(uuid=uuid_of(1), snapshot=uuid_of(30)))
    await life.reconciler.until_settled()


async def _settle(life: Running) -> None:
    with trio.fail_after(1_200):
        await life.reconciler.until_settled()
    await trio.sleep(4 * POLL)
    with trio.fail_after(1_200):
        await life.reconciler.until_settled()


def check(model: Failing, life: Running) -> None:
    """What is desired is there once, with its volumes and snapshots; nothing else is, and nothing is held twice."""
    lives = life.state.lives
    life.state.fleet.check()
    there = {
        (mark.uuid, mark.claim, guest.node, guest.power, guest.vcpus, tuple(sorted(guest.volumes)))
        for mark, guest in model.guests()
        if mark is not None
    }
    wanted = {
        (each.uuid, each.claim, each.node, _power(each.status), each.vcpus, tuple(sorted(each.volumes)))
        for each in lives.guests.values()
        if each.status in ("active", "stopped")
    }
    assert there == wanted
    assert len(model.guests()) == len(wanted)
    assert all(each.settled and each.volumes == each.attached for each in lives.guests.values())
    assert not any(each.attaching or each.detaching or each.move for each in lives.guests.values())
    volumes = {mark.uuid for mark, _ in model.volumes() if mark is not None}
    assert volumes == {each.uuid for each in lives.volumes.values() if each.status == "available"}
    assert all((each.guest == "") == (each.uuid not in _attached(life)) for each in lives.volumes.values())
    with model.world.content(change=False) as content:
        snapshots = len(content.snapshots)
    assert snapshots == sum(
        each.status == "available" for guest in lives.guests.values() for each in guest.snapshots.values()
    )
    holding = [each for each in lives.guests.values() if each.node]
    assert life.state.fleet._kernel.consumer_count == len(holding)


def _attached(life: Running) -> set[str]:
    return {uuid for each in life.state.lives.guests.values() for uuid in each.volumes}


def _power(status: str) -> str:
    return "on" if status == "active" else "off"


def _faults(life: Running) -> set[str]:
    lives = life.state.lives
    of_guests: list[GuestLife | SnapshotLife] = list(lives.guests.values())
    of_guests += [each for guest in lives.guests.values() for each in guest.snapshots.values()]
    faults = [*(each.fault for each in of_guests), *(each.fault for each in lives.volumes.values())]
    return {each.failure for each in faults if each is not None}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_failure_of_each_class_ends_with_what_is_desired(
    autojump_clock: MockClock, operation: str, *, after: bool
) -> None:
    """It happens twice, which an operation of its own outlasts or not."""
    for error in CLASSES:
        async with world() as (model, life):
            if operation == "delete_snapshot":
                await _with_snapshot(life)
            model.fails(operation, error, after=after, times=2)
            await life.submit(OPERATIONS[operation]())
            if error is Denied:
                await life.until(lambda: not life.reconciler.status().backends[0].enabled)  # it is awaited here
                model.well()
                await life.submit(SetBackend(name="a", enabled=True))
            await _settle(life)
            assert model.calls, f"{operation} is called"
            check(model, life)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_failure_that_does_not_end_is_said_and_holds_up_nothing(
    autojump_clock: MockClock, operation: str, *, after: bool
) -> None:
    """It is tried again with longer waits, or given up; the class is told, and once the back end is well all is."""
    for error in CLASSES[:-1]:
        async with world() as (model, life):
            if operation == "delete_snapshot":
                await _with_snapshot(life)
            model.fails(operation, error, after=after, times=1_000_000)
            await life.submit(OPERATIONS[operation]())
            await trio.sleep(4 * SECONDS)
            assert model.calls < 60, "no loop without waits"
            model.fails("", error, after=False, times=0)
            told = _faults(life)
            await _settle(life)
            check(model, life)
            assert told or after, "what a look-up does not find done is said"


@pytest.mark.parametrize("error", [Permanent, Capacity, Quota])
async def test_a_guest_that_cannot_be_started_stays_stopped_and_says_why(
    autojump_clock: MockClock, error: type[DriverError]
) -> None:
    async with world() as (model, life):
        await life.submit(StopGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "stopped")
        model.fails("set_power", error, after=False, times=1)
        await life.submit(StartGuest(uuid=uuid_of(1)))
        await life.reconciler.until_settled()
        guest = life.state.lives.guests[uuid_of(1)]
        assert (guest.shown, guest.desired) == ("stopped", "stopped")
        assert guest.fault is not None
        assert (guest.fault.failure, guest.fault.text) == (error.failure, "set_power fails")
        await life.submit(StartGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "active")
        assert life.state.lives.guests[uuid_of(1)].fault is None, "it is well again"


async def test_a_guest_in_a_state_of_error_is_not_started_for_ever(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: ModelDriver, uuid: str, want: Power) -> Guest:
        return (await self.get_guest(uuid))._replace(state="error")

    monkeypatch.setattr(ModelDriver, "set_power", broken)
    async with world() as (_, life):
        await life.submit(StopGuest(uuid=uuid_of(1)))
        await life.reconciler.until_settled()
        assert life.status(1) == "active"
        assert "state of error" in str(life.state.lives.guests[uuid_of(1)].fault)


async def test_a_volume_that_cannot_be_attached_in_time_is_free_again(autojump_clock: MockClock) -> None:
    async with world() as (model, life):
        model.fails("attach", Conflict, after=False, times=1_000_000)
        await life.submit(AttachVolume(uuid=uuid_of(1), volume=uuid_of(12), seconds=100.0))
        await trio.sleep(90)
        assert life.volume_status(12) == "in_use"
        await life.until(lambda: life.volume_status(12) == "available")
        guest = life.state.lives.guests[uuid_of(1)]
        assert guest.fault is not None
        assert (guest.shown, guest.fault.failure) == ("active", "conflict")


@pytest.mark.parametrize("what", ["detached", "attached"])
async def test_volumes_that_others_detach_or_attach_are_as_desired_again(autojump_clock: MockClock, what: str) -> None:
    async with world() as (model, life):
        (guest,) = model.of(uuid_of(1))
        with model.world.content() as there:
            kept = there.guests[guest.key]
            kept.volumes = [] if what == "detached" else [uuid_of(11), uuid_of(12)]
        await life.until(lambda: model.of(uuid_of(1))[0].volumes == [uuid_of(11)])
        await _settle(life)
        check(model, life)


@pytest.mark.parametrize("operation", ["delete_guest", "delete_volume", "delete_snapshot"])
async def test_a_removal_that_fails_again_and_again_says_why(autojump_clock: MockClock, operation: str) -> None:
    async with world() as (model, life):
        if operation == "delete_snapshot":
            await _with_snapshot(life)
        model.fails(operation, Conflict, after=False, times=1_000_000)
        await life.submit(OPERATIONS[operation]())
        await life.until(lambda: "conflict" in _faults(life))
        model.well()
        await _settle(life)
        check(model, life)
        assert "conflict" not in _faults(life)


@pytest.mark.parametrize("operation", ["create_volume", "snapshot_guest"])
async def test_what_is_made_late_of_one_that_was_given_up_is_removed(autojump_clock: MockClock, operation: str) -> None:
    """What is in error, with nothing left of it, has no claim on what a request makes that arrives afterwards."""
    async with world() as (model, life):
        model.fails(operation, Permanent, after=False, times=1)
        await life.submit(OPERATIONS[operation]())
        await life.reconciler.until_settled()
        lives = life.state.lives
        snapshot = next(iter(lives.guests[uuid_of(1)].snapshots.values()), None)
        failed = snapshot if snapshot is not None else lives.volumes[uuid_of(13)]
        assert failed.shown == "error"
        mark = Mark(lives.installation, failed.uuid, failed.claim)
        if operation == "create_volume":
            model.world.create_volume(VolumeSpec(mark, "late", "a-pool-0", 10))
        else:
            model.world.snapshot_guest(uuid_of(1), mark, "late")
        await _settle(life)
        check(model, life)
