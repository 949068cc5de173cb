"""Volumes that a guest does not let go, that keep it from starting, or that are detached early."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from hostler.core.lifecycle_commands import (
    AttachVolume,
    CreateVolume,
    DetachVolume,
    MoveGuest,
    StartGuest,
    StopGuest,
)
from hostler.drivers.model.driver import Faults, ModelDriver
from hostler.drivers.protocol import Guest, Permanent, Power
from hostler.placement.types.errors import InvalidValue

from ..core.orders import uuid_of
from .cloud import Model, create, ready, volume


async def test_a_detach_that_does_not_end_delays_nothing_else_and_is_given_up(autojump_clock: MockClock) -> None:
    compute, disks = Model("a"), Model("d", nodes=0, pools=1)
    async with ready(compute, disks) as life:
        await life.submit(create(1, volumes=(volume(11), volume(12), volume(13))))
        await life.until(lambda: life.status(1) == "active")
        compute.of(uuid_of(1))[0].clings = True
        await life.submit(DetachVolume(uuid=uuid_of(1), volume=uuid_of(12), seconds=60.0))
        await trio.sleep(20)
        assert life.volume_status(12) == "in_use"
        with pytest.raises(InvalidValue, match="attached or detached"):
            await life.submit(MoveGuest(uuid=uuid_of(1)))
        await trio.sleep(60)
        guest = life.state.lives.guests[uuid_of(1)]
        assert guest.settled
        assert guest.volumes == guest.attached
        assert sorted(guest.volumes) == [uuid_of(11), uuid_of(12), uuid_of(13)]
        assert guest.fault is not None
        assert "let the volume go" in guest.fault.text
        await life.submit(MoveGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "active")
        await life.submit(DetachVolume(uuid=uuid_of(1), volume=uuid_of(12)))
        await trio.sleep(20)
        began = trio.current_time()
        await life.submit(StopGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "stopped")
        assert trio.current_time() - began < 10
        await life.until(lambda: life.volume_status(12) == "available")
        assert guest.attached == guest.volumes == [uuid_of(11), uuid_of(13)]


async def test_a_driver_that_waits_for_a_guest_to_let_go_holds_up_no_stop(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait_forever(self: ModelDriver, uuid: str, volume: str) -> bool:
        await trio.sleep_forever()
        return True

    monkeypatch.setattr(ModelDriver, "detach", wait_forever)
    async with ready(Model("a"), Model("d", nodes=0, pools=1)) as life:
        await life.submit(create(1, volumes=(volume(11), volume(12))))
        await life.until(lambda: life.status(1) == "active")
        await life.submit(DetachVolume(uuid=uuid_of(1), volume=uuid_of(12)))
        await trio.sleep(1)
        began = trio.current_time()
        await life.submit(StopGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "stopped")
        assert trio.current_time() - began < 10


async def test_a_guest_that_a_volume_keeps_from_starting_lets_it_go(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    power = ModelDriver.set_power

    async def refuse(self: ModelDriver, uuid: str, want: Power) -> Guest:
        if want == "on" and uuid_of(12) in compute.of(uuid)[0].volumes:
            raise Permanent("the volume cannot be read")
        return await power(self, uuid, want)

    compute = Model("a")
    async with ready(compute, Model("d", nodes=0, pools=1)) as life:
        await life.submit(create(1, stopped=True, volumes=(volume(11), volume(12))))
        await life.until(lambda: life.status(1) == "stopped")
        monkeypatch.setattr(ModelDriver, "set_power", refuse)
        await life.submit(StartGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "stopped")
        fault = life.state.lives.guests[uuid_of(1)].fault
        assert fault is not None
        assert fault.text == "the volume cannot be read"
        await life.submit(DetachVolume(uuid=uuid_of(1), volume=uuid_of(12)))
        await life.submit(StartGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "active")
        assert compute.of(uuid_of(1))[0].volumes == [uuid_of(11)]


async def test_a_volume_that_is_detached_before_it_is_seen_attached_is_free_afterwards(
    autojump_clock: MockClock,
) -> None:
    model = Model("a", nodes=1, pools=1)
    async with ready(model) as life:
        await life.submit(create(1, project="p"))
        await life.submit(CreateVolume(request=volume(11, project="p").request))
        await life.until(lambda: (life.status(1), life.volume_status(11)) == ("active", "available"))
        model.wire.faults = Faults(delay=20.0)
        await life.submit(AttachVolume(uuid=uuid_of(1), volume=uuid_of(11)))
        await life.submit(DetachVolume(uuid=uuid_of(1), volume=uuid_of(11)))
        await life.until(lambda: life.volume_status(11) == "available")
        assert model.of(uuid_of(1))[0].volumes == []
        assert life.state.lives.guests[uuid_of(1)].settled
