"""Snapshots of guests: made, listed, used as images and removed, each once, whatever is lost on the way."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from hostler.core.lifecycle_commands import (
    DeleteGuest,
    DeleteGuestSnapshot,
    MoveGuest,
    SetBackend,
    SnapshotGuest,
)
from hostler.core.machine.lifecycle_queries import GuestSnapshotLine, GuestSnapshots
from hostler.core.machine.queries import answer
from hostler.drivers.model.driver import Faults, ModelDriver
from hostler.drivers.protocol import Mark, Snapshot
from hostler.placement.types.errors import InUse, InvalidValue, UnknownName

from ..core.orders import LOCAL, uuid_of
from .cloud import Model, Running, create, ready
from .test_moves import active

SNAPSHOT = uuid_of(50)


def lines(life: Running) -> list[GuestSnapshotLine]:
    found: list[GuestSnapshotLine] = answer(life.state, LOCAL, GuestSnapshots(uuid=uuid_of(1)))
    return found


def marks(model: Model) -> list[str]:
    with model.world.content(change=False) as there:
        return [found.uuid for each in there.snapshots.values() if (found := Mark.parse(each.mark)) is not None]


async def snapshot(life: Running, uuid: str = SNAPSHOT) -> None:
    await life.submit(SnapshotGuest(uuid=uuid_of(1), snapshot=uuid, name="before the upgrade"))
    await life.until(lambda: lines(life)[0].status in ("available", "error"))


async def test_a_snapshot_is_made_once_and_removed(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        await active(life)
        first = await life.submit(SnapshotGuest(uuid=uuid_of(1), snapshot=SNAPSHOT, name="x"))
        again = await life.submit(SnapshotGuest(uuid=uuid_of(1), snapshot=SNAPSHOT.upper(), name="x"))
        assert (first.snapshot, again.claim) == (SNAPSHOT, first.claim)
        machine = life.service.machine
        assert machine.decode_result(machine.encode_result(first)) == first, "as an answer to a key is kept"
        await life.until(lambda: lines(life)[0].status == "available")
        (line,) = lines(life)
        assert (line.name, line.guest, line.backend, line.key[:9]) == ("x", uuid_of(1), "a", "snapshot-")
        assert marks(model) == [SNAPSHOT]
        with pytest.raises(InUse, match="has 1 snapshots"):
            await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await life.submit(DeleteGuestSnapshot(uuid=uuid_of(1), snapshot=SNAPSHOT))
        await life.until(lambda: not lines(life))
        assert marks(model) == []
        with pytest.raises(UnknownName):
            await life.submit(DeleteGuestSnapshot(uuid=uuid_of(1), snapshot=SNAPSHOT))
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) is None)


async def test_uuids_are_made_where_none_are_given(autojump_clock: MockClock) -> None:
    async with ready(Model("a")) as life:
        await active(life)
        made = [(await life.submit(SnapshotGuest(uuid=uuid_of(1)))).snapshot for _ in range(2)]
        assert len(set(made)) == 2
        await life.until(lambda: [each.status for each in lines(life)] == ["available"] * 2)
        assert {each.uuid for each in lines(life)} == set(made)


async def test_lost_answers_make_no_second_one(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        await active(life)
        model.wire.faults = Faults(lost_answers=1.0)
        await life.submit(SnapshotGuest(uuid=uuid_of(1), snapshot=SNAPSHOT))
        await trio.sleep(5)
        model.wire.faults = Faults()
        await life.until(lambda: lines(life)[0].status == "available")
        assert marks(model) == [SNAPSHOT]
        model.wire.faults = Faults(lost_answers=1.0)
        await life.submit(DeleteGuestSnapshot(uuid=uuid_of(1), snapshot=SNAPSHOT))
        await trio.sleep(5)
        model.wire.faults = Faults()
        await life.until(lambda: not lines(life))
        assert marks(model) == []


async def test_one_that_takes_too_long_is_in_error_and_what_is_left_of_it_removed(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        await active(life)
        model.world.build_seconds = 1_000.0
        await life.submit(SnapshotGuest(uuid=uuid_of(1), snapshot=SNAPSHOT, seconds=20.0))
        await life.until(lambda: lines(life)[0].status == "error")
        assert lines(life)[0].reason == "it was not made in time"
        assert marks(model) == []
        assert life.status(1) == "active"


async def test_one_that_disappears_is_in_error_and_one_without_a_claim_is_removed(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        await active(life)
        await snapshot(life)
        stray = Mark(life.state.lives.installation, uuid_of(51), 99)
        foreign = Mark("another", uuid_of(52), 1)
        with model.world.content() as there:
            (made,) = there.snapshots.values()
            there.snapshots.clear()
            for key, mark in (("s-1", stray), ("s-2", foreign)):
                there.snapshots[key] = type(made)(key=key, mark=str(mark), name=key)
        await life.until(lambda: lines(life)[0].status == "error")
        await life.until(lambda: marks(model) == [uuid_of(52)])
        assert lines(life)[0].failure == "not_found"


async def test_guests_of_the_project_are_made_from_it_on_its_back_end(autojump_clock: MockClock) -> None:
    model, other = Model("a"), Model("b", nodes=5)
    async with ready(model, other) as life:
        await life.submit(create(1, project="p"))
        await life.until(lambda: life.status(1) == "active")
        await snapshot(life)
        image = "snapshot:" + SNAPSHOT
        with pytest.raises(InvalidValue, match="no snapshot"):
            await life.submit(create(2, project="q", image=image))
        await life.submit(create(9, project="q", image=lines(life)[0].key))
        await life.until(lambda: life.status(9) == "error")
        for number in range(2, 6):
            await life.submit(create(number, project="p", image=image))
            await life.until(lambda number=number: life.status(number) == "active")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        backends = {life.state.lives.guests[uuid_of(number)].backend for number in range(2, 6)}
        assert backends == {lines(life)[0].backend}
        with pytest.raises(InUse, match="was made from snapshot"):
            await life.submit(DeleteGuestSnapshot(uuid=uuid_of(1), snapshot=SNAPSHOT))


async def test_no_guest_moves_while_a_snapshot_of_it_is_made(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        await active(life)
        model.wire.faults = Faults(delay=10.0)
        await life.submit(SnapshotGuest(uuid=uuid_of(1)))
        with pytest.raises(InvalidValue, match="is being made"):
            await life.submit(MoveGuest(uuid=uuid_of(1)))
        model.wire.faults = Faults()
        await life.until(lambda: lines(life)[0].status == "available")
        assert (await life.submit(MoveGuest(uuid=uuid_of(1)))).placed


async def test_a_disabled_back_end_makes_it_once_it_is_enabled_again(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        await active(life)
        await life.submit(SetBackend(name="a", enabled=False, reason="maintenance"))
        await life.submit(SnapshotGuest(uuid=uuid_of(1), snapshot=SNAPSHOT))
        await trio.sleep(60)
        assert (lines(life)[0].status, marks(model)) == ("placed", [])
        await life.submit(SetBackend(name="a", enabled=True))
        await life.until(lambda: lines(life)[0].status == "available")


async def test_the_console_is_asked_of_the_back_end(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        node = await active(life)
        address = await life.reconciler.console(uuid_of(1))
        assert (address.kind, address.node, node in address.address) == ("url", node, True)
        with pytest.raises(UnknownName):
            await life.reconciler.console(uuid_of(2))


async def test_a_snapshot_whose_image_the_driver_does_not_name_is_in_error(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be used, and would count as one that was never made."""
    make = ModelDriver.snapshot_guest

    async def snapshot_guest(self: ModelDriver, uuid: str, mark: Mark, name: str) -> Snapshot:
        return (await make(self, uuid, mark, name))._replace(key="")

    monkeypatch.setattr(ModelDriver, "snapshot_guest", snapshot_guest)
    async with ready(Model("a")) as life:
        await active(life)
        await snapshot(life)
        (line,) = lines(life)
        assert line.status == "error"
        assert "does not name the image" in str(line)
