"""Volumes that are to be detached while the call that attaches them is under way, in every order of its end."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hostler.core.lifecycle_commands import AttachVolume, CreateVolume, DetachVolume, LifecycleCommand, RefuseAttachment
from hostler.core.reconcile.reconciler import Reconciler
from hostler.drivers.model.driver import ModelDriver
from hostler.drivers.protocol import Connection, Permanent

from ..core.orders import uuid_of
from .cloud import Model, Running, create, ready, volume

ON: dict[str, Any] = {"uuid": uuid_of(1), "volume": uuid_of(11)}


class Slow:
    """Attaching that waits on its way, and fails for good before (``refused``) or after it has attached (``lost``)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
        self.begun, self.go = trio.Event(), trio.Event()
        attach, slow = ModelDriver.attach, self

        async def attached(self: ModelDriver, uuid: str, volume: Connection) -> None:
            slow.begun.set()
            await slow.go.wait()
            if end != "refused":
                await attach(self, uuid, volume)
            if end != "attached":
                raise Permanent("no free slot")

        monkeypatch.setattr(ModelDriver, "attach", attached)


async def attaching(life: Running, slow: Slow) -> None:
    """A guest to which a volume is being attached."""
    await life.submit(create(1, project="p"))
    await life.submit(CreateVolume(request=volume(11, project="p").request))
    await life.until(lambda: (life.status(1), life.volume_status(11)) == ("active", "available"))
    await life.submit(AttachVolume(**ON))
    await slow.begun.wait()


def cling(model: Model, clings: bool) -> None:
    with model.world.content() as there:
        for guest in there.guests.values():
            guest.clings = clings


def is_free(life: Running, model: Model) -> bool:
    guest = life.state.lives.guests[uuid_of(1)]
    free = guest.settled and (guest.volumes, guest.attached, guest.attaching, guest.detaching) == ([], [], {}, {})
    return free and not model.of(uuid_of(1))[0].volumes and not life.state.lives.volumes[uuid_of(11)].guest


@pytest.mark.parametrize("end", ["attached", "refused", "lost"])
async def test_a_volume_detached_while_it_is_attached_is_free_however_that_ends(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    model, slow = Model("a", nodes=1, pools=1), Slow(monkeypatch, end)
    async with ready(model) as life:
        await attaching(life, slow)
        await life.submit(DetachVolume(**ON))
        slow.go.set()
        await life.until(lambda: is_free(life, model))
        assert life.state.lives.guests[uuid_of(1)].fault is None


async def test_one_detached_just_before_its_refusal_is_told_is_free(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, slow = Model("a", nodes=1, pools=1), Slow(monkeypatch, "refused")
    submit = Reconciler.submit
    async with ready(model) as life:
        await attaching(life, slow)

        async def told(self: Reconciler, command: LifecycleCommand) -> Any:
            if isinstance(command, RefuseAttachment):
                await life.submit(DetachVolume(**ON))
            return await submit(self, command)

        monkeypatch.setattr(Reconciler, "submit", told)
        slow.go.set()
        await life.until(lambda: not life.state.lives.guests[uuid_of(1)].volumes)
        await life.until(lambda: is_free(life, model))


async def test_one_that_was_attached_meanwhile_and_is_not_let_go_in_time_stays(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, slow = Model("a", nodes=1, pools=1), Slow(monkeypatch, "attached")
    async with ready(model) as life:
        await attaching(life, slow)
        cling(model, True)
        await life.submit(DetachVolume(**ON, seconds=60.0))
        slow.go.set()
        guest = life.state.lives.guests[uuid_of(1)]
        await life.until(lambda: guest.settled)
        assert (guest.volumes, guest.attached, guest.detaching) == ([uuid_of(11)], [uuid_of(11)], {})
        assert guest.fault is not None
        assert guest.fault.text == "the guest has not let the volume go in time"
        cling(model, False)
        await life.submit(DetachVolume(**ON))
        await life.until(lambda: is_free(life, model))


async def test_a_volume_is_let_go_in_time_though_its_call_waits_behind_long_ones(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ModelDriver.create_guest

    async def slow(self: ModelDriver, *given: Any, **named: Any) -> Any:
        await trio.sleep(8.0)  # longer than a call to detach may take
        return await made(self, *given, **named)

    async with ready(Model("a", nodes=20, pools=1, concurrency=1)) as life:
        await life.submit(create(1, project="p"))
        await life.submit(CreateVolume(request=volume(11, project="p").request))
        await life.until(lambda: (life.status(1), life.volume_status(11)) == ("active", "available"))
        await life.submit(AttachVolume(**ON))
        guest = life.state.lives.guests[uuid_of(1)]
        await life.until(lambda: guest.settled and guest.attached == [uuid_of(11)])
        monkeypatch.setattr(ModelDriver, "create_guest", slow)
        for number in range(100, 120):
            await life.submit(create(number, vcpus=1, memory_mb=64))
        await trio.sleep(1.0)
        await life.submit(DetachVolume(**ON, seconds=100.0))
        await life.until(lambda: guest.settled)
        assert (guest.attached, guest.fault) == ([], None)
