"""What happens to guests outside of Hostler, or by requests that arrive late: they are on other nodes than was known,
or there although they were gone."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from hostler.core.lifecycle_commands import CreateGuest, StopGuest

from ..core.orders import uuid_of
from .cloud import Model, Running, create, ready, volume


async def _settled_on(life: Running, model: Model, number: int) -> tuple[str, str]:
    """A guest that runs, its node, and the other one."""
    await life.submit(create(number, vcpus=2))
    await life.until(lambda: life.status(number) == "active")
    await trio.sleep(1)
    source = model.of(uuid_of(number))[0].node
    return source, next(f"a-node-{at}" for at in range(2) if f"a-node-{at}" != source)


async def test_a_guest_that_was_moved_outside_is_followed(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        for number, power in ((1, "on"), (2, "off")):
            _, target = await _settled_on(life, model, number)
            if power == "off":
                await life.submit(StopGuest(uuid=uuid_of(number)))
                await life.until(lambda number=number: life.status(number) == "stopped")  # type: ignore[misc]  # a default
                await trio.sleep(1)
            model.of(uuid_of(number))[0].node = target
            await life.inventories(3)
            known = life.state.lives.guests[uuid_of(number)]
            assert (known.node, known.move, known.settled) == (target, None, True)
            assert life.state.fleet.consumer(uuid_of(number)).provider == target
            (guest,) = model.of(uuid_of(number))
            assert (guest.node, guest.power) == (target, power)
        used = sum(life.state.fleet.inventory(name)["VCPU"][1] for name in ("a-node-0", "a-node-1"))
        assert used == 4
        life.state.fleet.check()


async def test_a_guest_that_was_moved_outside_to_a_full_node_is_moved_back(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        source, target = await _settled_on(life, model, 1)
        model.world.make_strangers_guest(target, vcpus=16 * 16)
        await life.inventories(2)
        model.of(uuid_of(1))[0].node = target
        await life.inventories(3)
        assert model.of(uuid_of(1))[0].node == source
        assert life.state.lives.guests[uuid_of(1)].node == source
        assert life.state.fleet.consumer(uuid_of(1)).provider == source


async def test_a_guest_that_is_made_late_while_its_volume_is_removed_is_removed_too(autojump_clock: MockClock) -> None:
    """The guest was given up and is not there. Then a request to make it arrives, with the volume."""
    model = Model("a", nodes=1, pools=1, build_seconds=100.0)
    async with ready(model) as life:
        command: CreateGuest = create(1, volumes=(volume(9),), build_seconds=20.0, attempts=1)
        await life.submit(command)
        await life.until(lambda: len(model.of(uuid_of(1))) == 1)
        (made,) = model.of(uuid_of(1))
        delete = model.world.delete_volume

        def late(installation: str, uuid: str, claim: int | None = None) -> None:
            model.world.delete_volume = delete  # type: ignore[method-assign]  # as it was
            with model.world.content() as there:
                there.guests[made.key] = made
            delete(installation, uuid, claim)

        model.world.delete_volume = late  # type: ignore[method-assign]  # the guest is made again just before
        await life.until(lambda: life.status(1) == "error")
        assert model.guests() == []
        assert model.volumes() == []
        assert life.state.fleet._kernel.consumer_count == 0
