"""Resizes of guests: the node holds both sizes until the back end has resized the guest, or it is known to have kept
its size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from hostler.core.engine_commands import AddHosts, AddServerGroup
from hostler.core.lifecycle_commands import CreateGuest, ResizeGuest, StopGuest
from hostler.drivers.model.driver import Faults, ModelDriver
from hostler.drivers.protocol import Can, Capacity, DriverError, Permanent, Transient, Unknown
from hostler.placement.types.errors import InvalidValue

from ..core.orders import asked, hosts, uuid_of
from .cloud import Model, Wrapped, ready
from .test_moves import active, held


def resize(vcpus: int, memory_mb: int = 1_024, **what: Any) -> ResizeGuest:
    request = asked(vcpus=vcpus, memory_mb=memory_mb, project="p")
    return ResizeGuest(uuid=uuid_of(1), request=request, **what)


def seen(model: Model) -> tuple[str, int, int, str]:
    (guest,) = model.of(uuid_of(1))
    return guest.node, guest.vcpus, guest.memory_mb, guest.power


async def test_a_guest_is_resized_and_its_node_holds_both_sizes_meanwhile(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        node = await active(life)
        model.wire.faults = Faults(delay=20.0)
        decision = await life.submit(resize(8, 4_096))
        assert decision.selections[0].node == node
        assert life.status(1) == "resizing"
        assert held(life) == {node: 2 + 8}
        model.wire.faults = Faults(delay=1.0)
        await life.until(lambda: life.status(1) == "active")
        assert seen(model) == (node, 8, 4_096, "on")
        guest = life.state.lives.guests[uuid_of(1)]
        assert (guest.size, guest.fault) == ((8, 4_096), None)
        model.wire.faults = Faults()
        await life.inventories(3)
        assert held(life) == {node: 8}
        assert life.state.usage.of("project:p")["VCPU"] == 8
        life.state.fleet.check()


async def test_reports_during_a_resize_count_each_size_once(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        node = await active(life)
        model.wire.faults = Faults(lost_requests=0.9, seed=1)
        await life.submit(resize(8, seconds=600.0))
        model.wire.faults = Faults()
        with model.world.content() as there:  # the back end has resized it; its answer was lost
            for guest in there.guests.values():
                guest.vcpus = 8
        await life.until(lambda: life.status(1) == "active")
        await life.inventories(2)
        assert held(life) == {node: 8}


async def test_a_guest_moves_to_a_node_that_has_room_for_its_new_size(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life)
        other = next(name for name in ("a-node-0", "a-node-1") if name != source)
        model.world.make_strangers_guest(source, vcpus=1, memory_mb=60_000)
        await life.inventories(2)
        decision = await life.submit(resize(2, 20_000))
        assert decision.selections[0].node == other
        await life.until(lambda: life.status(1) == "active")
        assert seen(model) == (other, 2, 20_000, "on")
        assert life.state.lives.guests[uuid_of(1)].node == other
        await life.inventories(2)
        assert held(life)[other] == 2
        life.state.fleet.check()


async def test_a_resize_for_which_the_back_end_has_no_room_leaves_the_guest_running_as_it_was(
    autojump_clock: MockClock,
) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        node = await active(life)
        with model.world.content() as there:
            there.nodes[node].memory_mb = 2_000
        await life.submit(resize(2, 4_096))
        await life.until(lambda: life.status(1) == "active" and life.state.lives.guests[uuid_of(1)].settled)
        assert seen(model) == (node, 2, 1_024, "on")
        guest = life.state.lives.guests[uuid_of(1)]
        assert guest.fault is not None
        assert (guest.fault.failure, guest.size) == ("capacity", (2, 1_024))
        assert held(life) == {node: 2}
        assert life.state.usage.of("project:p")["VCPU"] == 2


@pytest.mark.parametrize("error", [Capacity, Permanent, Transient])
async def test_one_that_does_not_start_with_its_new_size_runs_with_the_old_one(
    autojump_clock: MockClock, error: type[DriverError]
) -> None:
    """The answer of the resize is lost, and starting it fails: for good, or until the time of the resize is over."""

    class Failing(Wrapped):
        async def call(self, operation: str, work: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
            if operation == "set_power" and self.of(uuid_of(1))[0].vcpus == 8:
                raise error("it does not start")
            result = await work(*args, **more)
            if operation == "resize_guest" and args[1] == 8:
                with self.world.content() as there:
                    for guest in there.guests.values():
                        guest.power = "off"
                raise Unknown("the answer was lost")
            return result

    model = Failing("a", nodes=1)
    async with ready(model) as life:
        node = await active(life)
        await life.submit(resize(8, seconds=120.0))
        guest = life.state.lives.guests[uuid_of(1)]
        await life.until(lambda: life.status(1) == "active" and guest.settled)
        assert seen(model) == (node, 2, 1_024, "on")
        assert held(life) == {node: 2}
        assert guest.fault is not None
        assert guest.fault.failure == error("").failure


async def test_one_that_is_found_stopped_with_its_new_size_is_started(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        node = await active(life)
        model.wire.faults = Faults(lost_requests=1.0)
        await life.submit(resize(8, seconds=600.0))
        await trio.sleep(3)
        with model.world.content() as there:  # the service was cut off between the two calls
            for each in there.guests.values():
                each.vcpus, each.power = 8, "off"
        model.wire.faults = Faults()
        await life.until(lambda: life.status(1) == "active" and life.state.lives.guests[uuid_of(1)].settled)
        assert seen(model) == (node, 8, 1_024, "on")
        assert life.state.lives.guests[uuid_of(1)].fault is None


async def test_one_that_was_moved_for_it_and_cannot_be_resized_goes_back(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life)
        other = next(name for name in ("a-node-0", "a-node-1") if name != source)
        with model.world.content() as there:
            there.nodes[other].memory_mb = 2_000  # room for what it has, not for what it is to have
        await life.submit(resize(2, 4_096, target=other))
        await life.until(lambda: life.status(1) == "active" and life.state.lives.guests[uuid_of(1)].settled)
        assert seen(model) == (source, 2, 1_024, "on")
        assert held(life) == {source: 2}


@pytest.mark.parametrize("lost", ["requests", "answers"])
async def test_lost_requests_and_answers_end_in_one_size(autojump_clock: MockClock, lost: str) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        node = await active(life)
        model.wire.faults = Faults(lost_requests=float(lost == "requests"), lost_answers=float(lost == "answers"))
        await life.submit(resize(4, seconds=600.0))
        await trio.sleep(5)
        model.wire.faults = Faults()
        await life.until(lambda: life.status(1) == "active" and life.state.lives.guests[uuid_of(1)].settled)
        assert seen(model) == (node, 4, 1_024, "on")
        assert held(life) == {node: 4}


@pytest.mark.parametrize("memory_mb", [2_048, 65_000])
async def test_one_that_was_resized_outside_is_charged_so_or_gets_its_size_back(
    autojump_clock: MockClock, memory_mb: int
) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        node = await active(life)
        await life.inventories(2)
        with model.world.content() as there:
            for guest in there.guests.values():
                guest.vcpus, guest.memory_mb = 3, memory_mb
        size = (3, 2_048) if memory_mb == 2_048 else (2, 1_024)
        await life.inventories(4)
        await life.until(lambda: life.status(1) == "active" and life.state.lives.guests[uuid_of(1)].settled)
        await life.inventories(2)
        assert seen(model) == (node, *size, "on")
        assert life.state.lives.guests[uuid_of(1)].size == size
        assert held(life) == {node: size[0]}


async def test_a_stopped_guest_is_resized_and_stays_stopped(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        node = await active(life)
        await life.submit(StopGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "stopped")
        await life.submit(resize(4))
        await life.until(lambda: life.status(1) == "stopped")
        assert seen(model) == (node, 4, 1_024, "off")


async def test_what_cannot_be_resized_is_refused(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        await active(life)
        with pytest.raises(InvalidValue, match="has 2 CPUs and 1024 MiB"):
            await life.submit(resize(2))
        flavor = {"name": "larger", "vcpus": 3, "memory_mb": 1_024, "root_gb": 7}
        with pytest.raises(InvalidValue, match="cannot become one of 7 GiB"):
            await life.submit(ResizeGuest(uuid=uuid_of(1), request=asked(project="p", flavor=flavor)))
        with pytest.raises(InvalidValue, match="is in project"):
            await life.submit(ResizeGuest(uuid=uuid_of(1), request=asked(vcpus=3, project="q")))
        assert not (await life.submit(resize(2, 65_000))).placed, "both sizes do not fit"
        assert life.status(1) == "active"
        await life.submit(resize(3))
        with pytest.raises(InvalidValue, match="is resizing"):
            await life.submit(resize(4))


async def test_a_guest_is_resized_to_no_node_without_a_back_end(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        node = await active(life)
        await life.submit(AddHosts(hosts=hosts(1)))
        model.world.make_strangers_guest(node, memory_mb=60_000)
        await life.inventories(2)
        with pytest.raises(InvalidValue, match="node node-0, which was selected, is of no back end"):
            await life.submit(resize(2, 20_000))
        assert life.status(1) == "active"
        assert held(life) == {node: 2 + 1}
        assert life.state.fleet.inventory("node-0")["VCPU"][1] == 0
        assert life.state.usage.of("project:p")["MEMORY_MB"] == 1_024
        assert (await life.submit(resize(3))).placed


async def test_a_back_end_that_resizes_no_guests_says_so(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = ModelDriver.__init__

    def without(self: ModelDriver, *args: Any) -> None:
        opened(self, *args)
        self.facts = self.facts._replace(can=self.facts.can & ~(Can.RESIZE | Can.SNAPSHOT | Can.CONSOLE))

    monkeypatch.setattr(ModelDriver, "__init__", without)
    async with ready(Model("a", nodes=1)) as life:
        await active(life)
        with pytest.raises(InvalidValue, match="back end a, which has the guest, resizes no guests"):
            await life.submit(resize(4))


async def test_a_guest_of_an_anti_affinity_group_is_resized_on_its_node(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        await life.submit(AddServerGroup(uuid=uuid_of(70), policy="anti-affinity"))
        request = msgspec.structs.replace(asked(1, vcpus=2, project="p"), server_group=uuid_of(70))
        await life.submit(CreateGuest(request=request))
        await life.until(lambda: life.status(1) == "active")
        assert (await life.submit(resize(4))).placed
