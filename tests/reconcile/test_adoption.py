"""Strangers on a back end become guests of a project: charged once, marked, never stopped or removed by a failure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from hostler.core.lifecycle_commands import AdoptGuest, DeleteGuest, StartGuest, StopGuest
from hostler.core.machine.orders import Order
from hostler.core.tenancy.commands import CreateDomain, CreateProject, SetLimits
from hostler.core.tenancy.errors import QuotaExceeded
from hostler.drivers.model.driver import Faults
from hostler.placement.types.errors import DuplicateName, HostlerError, InvalidValue, UnknownName

from ..core.orders import LOCAL, asked, uuid_of
from ..core.simulation import Disk
from .cloud import Model, Running, create, ready, running


def adopt(key: str, number: int = 1, node: str = "a-node-0", **size: Any) -> AdoptGuest:
    return AdoptGuest(backend="a", key=key, node=node, request=asked(number, **{"project": "p", **size}))


def used(life: Running, node: str = "a-node-0") -> dict[str, int]:
    return {name: amount for name, (_, amount) in life.state.fleet.inventory(node).items() if amount}


async def test_a_stranger_is_charged_to_its_project_and_goes_on(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    key = model.world.make_strangers_guest("a-node-0", vcpus=4, memory_mb=60_000)
    async with ready(model) as life:
        assert used(life) == {"VCPU": 4, "MEMORY_MB": 60_000}
        (stranger,) = life.reconciler.strangers("a", "", 10)
        assert (stranger.key, stranger.node, stranger.vcpus, stranger.memory_mb) == (key, "a-node-0", 4, 60_000)
        decision = await life.submit(adopt(key, vcpus=4, memory_mb=60_000))
        assert decision.placed
        assert used(life) == {"VCPU": 4, "MEMORY_MB": 60_000}, "counted once, although it fits but once"
        await life.until(lambda: life.status(1) == "active")
        await life.inventories(3)
        assert used(life) == {"VCPU": 4, "MEMORY_MB": 60_000}
        assert life.state.usage.of("project:p")["VCPU"] == 4
        assert life.reconciler.strangers("a", "", 10) == []
        assert (len(model.guests()), model.world.creations) == (1, [])
        await life.submit(StopGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "stopped")
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) is None)
        await life.inventories(2)
        assert (used(life), model.guests()) == ({}, [])
        life.state.fleet.check()


async def test_a_stranger_that_is_off_stays_off(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    key = model.world.make_strangers_guest("a-node-0")
    with model.world.content() as there:
        there.guests[key].power = "off"
    async with ready(model) as life:
        await life.submit(adopt(key))
        await life.until(lambda: life.status(1) == "stopped")
        await life.reconciler.until_settled()
        assert model.guests()[0][1].power == "off"


async def test_what_is_ours_already_or_not_there_is_refused(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    key = model.world.make_strangers_guest("a-node-0")
    async with ready(model) as life:
        await life.submit(adopt(key))
        await life.until(lambda: life.status(1) == "active")
        await life.submit(create(2))
        await life.until(lambda: life.status(2) == "active")
        before = used(life)
        refused: list[tuple[AdoptGuest, type[HostlerError]]] = [
            (adopt(key, 3), DuplicateName),
            (adopt(life.state.lives.guests[uuid_of(2)].key, 3), DuplicateName),
            (adopt("other", 2), DuplicateName),
            (adopt("other", 3, node="elsewhere"), InvalidValue),
            (msgspec.structs.replace(adopt("other", 3), backend="none"), UnknownName),
        ]
        for command, error in refused:
            with pytest.raises(error):
                await life.submit(command)
        assert used(life) == before
        await life.submit(adopt("other", 3))
        await life.until(lambda: life.status(3) == "error")
        fault = life.state.lives.guests[uuid_of(3)].fault
        assert fault is not None
        assert "no guest other" in fault.text
        assert used(life) == before


@pytest.mark.parametrize("wrong", [{"vcpus": 2}, {"memory_mb": 512}, {"node": "a-node-1"}])
async def test_a_stranger_that_is_not_what_it_was_said_to_be_stays_one(
    autojump_clock: MockClock, wrong: dict[str, Any]
) -> None:
    model = Model("a", nodes=2)
    key = model.world.make_strangers_guest("a-node-0")
    async with ready(model) as life:
        await life.submit(adopt(key, **wrong))
        await life.until(lambda: life.status(1) == "error")
        fault = life.state.lives.guests[uuid_of(1)].fault
        assert fault is not None
        assert "is on a-node-0 with 1 CPUs and 1024 MiB" in fault.text
        assert not life.state.lives.failed_builds, "the node is not at fault"
        with pytest.raises(InvalidValue, match="not adopted"):
            await life.submit(StartGuest(uuid=uuid_of(1)))
        await life.inventories(2)
        assert used(life) == {"VCPU": 1, "MEMORY_MB": 1_024}
        assert [mark for mark, _ in model.guests()] == [None]
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        assert life.status(1) is None
        await life.submit(adopt(key))
        await life.until(lambda: life.status(1) == "active")


async def test_the_quota_of_the_project_holds(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    key = model.world.make_strangers_guest("a-node-0", vcpus=4)
    async with ready(model) as life:
        limits = SetLimits(scope="project:p", limits={"VCPU": 3})
        for command in (CreateDomain(id="d"), CreateProject(id="p", domain="d"), limits):
            await life.service.writer.submit(Order(life.service.now(), LOCAL, command))
        with pytest.raises(QuotaExceeded):
            await life.submit(adopt(key, vcpus=4))
        assert used(life) == {"VCPU": 4, "MEMORY_MB": 1_024}
        assert life.state.usage.of("project:p").get("VCPU", 0) == 0
        await life.inventories(2)
        assert [mark for mark, _ in model.guests()] == [None]


async def test_an_adoption_that_is_given_up_leaves_a_stranger_that_runs(autojump_clock: MockClock) -> None:
    """Also when its mark is written after that."""
    model = Model("a", nodes=1)
    key = model.world.make_strangers_guest("a-node-0")
    async with ready(model) as life:
        model.wire.faults = Faults(lost_requests=1.0, late=1.0)
        await life.submit(adopt(key))
        await trio.sleep(1)
        assert life.status(1) == "building"
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        model.wire.faults = Faults()
        await life.until(lambda: life.status(1) is None)
        model.wire.settle_all()
        await trio.sleep(60)
        ((mark, guest),) = model.guests()
        assert (mark, guest.power) == (None, "on")
        assert used(life) == {"VCPU": 1, "MEMORY_MB": 1_024}
        assert life.reconciler.backends["a"].counts.orphans_removed == 0


async def test_a_crash_while_a_stranger_is_adopted_ends_with_it_adopted(
    autojump_clock: MockClock, tmp_path: Any
) -> None:
    import random

    model = Model("a", nodes=1)
    key = model.world.make_strangers_guest("a-node-0", vcpus=4)
    disk = Disk(random.Random(1), tmp_path)
    async with ready(model, disk=disk) as life:
        model.wire.faults = Faults(lost_answers=1.0)
        await life.submit(adopt(key, vcpus=4))
        await trio.sleep(1)
    model.wire.faults = Faults()
    async with running(model, disk=disk) as life:
        await life.until(lambda: life.status(1) == "active")
        await life.inventories(2)
        ((mark, _),) = model.guests()
        assert mark is not None
        assert (mark.uuid, mark.adopted) == (uuid_of(1), True)
        assert used(life) == {"VCPU": 4, "MEMORY_MB": 1_024}
