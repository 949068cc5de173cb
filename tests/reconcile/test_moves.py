"""Moves of guests: both nodes hold the guest until its back end has moved it, or it is known to have stayed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hostler.core.lifecycle_commands import (
    AttachVolume,
    CreateVolume,
    DeleteGuest,
    DetachVolume,
    LoseGuest,
    MoveGuest,
    StopGuest,
)
from hostler.core.machine import guest_lives
from hostler.core.machine.plan_queries import CheckPlan, PlanMoves, check_plan, plan_moves
from hostler.drivers.model.driver import Faults
from hostler.drivers.protocol import NotFound
from hostler.placement.plan.goals import Drain
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.plans import Plan

from ..core.orders import uuid_of
from .cloud import Model, Running, Wrapped, create, ready, volume


def held(life: Running) -> dict[str, int]:
    """CPUs in use by node."""
    names = [name for each in life.state.lives.backends.values() for name in each.nodes]
    used = {name: life.state.fleet.inventory(name)["VCPU"][1] for name in names}
    return {name: amount for name, amount in used.items() if amount}


async def active(life: Running, **what: Any) -> str:
    """A guest that runs; returns its node."""
    decision = await life.submit(create(1, vcpus=2, project="p", **what))
    await life.until(lambda: life.status(1) == "active")
    await life.inventories(2)
    return str(decision.selections[0].node)


async def test_a_guest_moves_and_both_nodes_hold_it_meanwhile(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life)
        model.wire.faults = Faults(delay=20.0)
        decision = await life.submit(MoveGuest(uuid=uuid_of(1)))
        target = decision.selections[0].node
        assert target != source
        assert life.status(1) == "moving"
        assert held(life) == {source: 2, target: 2}
        await life.until(lambda: life.status(1) == "active")
        assert model.of(uuid_of(1))[0].node == target
        assert held(life) == {target: 2}
        model.wire.faults = Faults()
        await life.inventories(3)
        assert held(life) == {target: 2}
        assert life.state.usage.of("project:p")["VCPU"] == 2
        life.state.fleet.check()


async def beside_a_full_node(life: Running, model: Model) -> tuple[str, str]:
    """A guest that runs, and two nodes: its own, and one that has no memory for it, which no inventory tells."""
    source = await active(life)
    target = next(name for name in ("a-node-0", "a-node-1") if name != source)
    with model.world.content() as there:
        there.nodes[target].memory_mb = 100
    return source, target


async def test_a_target_that_is_full_leaves_the_guest_where_it_is(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source, target = await beside_a_full_node(life, model)
        await life.submit(MoveGuest(uuid=uuid_of(1), target=target))
        await life.until(lambda: life.status(1) == "active")
        guest = life.state.lives.guests[uuid_of(1)]
        assert (guest.node, held(life)) == (source, {source: 2})
        assert guest.fault is not None
        assert guest.fault.failure == "capacity"


async def test_a_guest_that_does_not_start_where_it_was_moved_cold_goes_back(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source, target = await beside_a_full_node(life, model)
        await life.submit(MoveGuest(uuid=uuid_of(1), kind="cold_migrate", target=target))
        guest = life.state.lives.guests[uuid_of(1)]
        await life.until(lambda: life.status(1) == "active" and guest.settled)
        (there_now,) = model.of(uuid_of(1))
        assert (there_now.node, there_now.power) == (source, "on")
        assert (guest.node, held(life)) == (source, {source: 2})
        assert guest.fault is not None
        assert guest.fault.failure == "capacity"


async def test_a_lost_answer_is_looked_up(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life)
        model.wire.faults = Faults(lost_answers=1.0)
        await life.submit(MoveGuest(uuid=uuid_of(1)))
        await trio.sleep(3)
        model.wire.faults = Faults()
        await life.until(lambda: life.status(1) == "active")
        assert len(model.of(uuid_of(1))) == 1
        assert model.of(uuid_of(1))[0].node == life.state.lives.guests[uuid_of(1)].node != source


async def test_a_move_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life)
        model.wire.faults = Faults(lost_requests=1.0)
        await life.submit(MoveGuest(uuid=uuid_of(1), seconds=30.0))
        await trio.sleep(60)
        assert life.status(1) == "moving", "where it is is not known"
        model.wire.faults = Faults()
        await life.until(lambda: life.status(1) == "active")
        assert life.state.lives.guests[uuid_of(1)].node == source == model.of(uuid_of(1))[0].node


async def test_plans_move_stopped_guests_cold_and_leave_those_that_are_not_settled(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life)

        def drained() -> Plan:
            return plan_moves(life.state, "admin", PlanMoves(goal=Drain(hosts=(source,))))

        live = drained()
        assert [(move.kind, move.cost > 1_000) for move in live.moves] == [("live_migrate", True)]
        await life.submit(StopGuest(uuid=uuid_of(1)))
        assert [each.reason for each in drained().left] == ["it is stopping"]
        await life.until(lambda: life.status(1) == "stopped")
        cold = drained()
        assert [(move.kind, move.cost) for move in cold.moves] == [("cold_migrate", cold.moves[0].disk_mb)]
        assert check_plan(life.state, "admin", CheckPlan(plan=cold)).valid
        reason = "the instance does not run: live_migrate is planned"
        found = check_plan(life.state, "admin", CheckPlan(plan=live)).differences
        assert [each.reason for each in found] == [reason]
        await life.submit(MoveGuest(uuid=uuid_of(1), kind="cold_migrate", target=cold.moves[0].target))
        await life.until(lambda: life.status(1) == "stopped")
        assert life.state.lives.guests[uuid_of(1)].node == cold.moves[0].target


async def test_a_stopped_guest_moves_cold_only(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life)
        await life.submit(StopGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "stopped")
        with pytest.raises(InvalidValue, match="stopped"):
            await life.submit(MoveGuest(uuid=uuid_of(1)))
        await life.submit(MoveGuest(uuid=uuid_of(1), kind="cold_migrate"))
        await life.until(lambda: life.status(1) == "stopped")
        assert model.of(uuid_of(1))[0].node != source


async def test_a_guest_on_a_node_that_is_down_is_evacuated_with_its_volumes(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2, pools=1)
    async with ready(model) as life:
        source = await active(life, volumes=(volume(11, project="p"),))
        with pytest.raises(InvalidValue, match="is up"):
            await life.submit(MoveGuest(uuid=uuid_of(1), kind="evacuate"))
        with model.world.content() as there:
            there.nodes[source].state = "down"
        await life.inventories(3)
        assert life.status(1) == "active", "of a guest on a node that is down nothing is known"
        decision = await life.submit(MoveGuest(uuid=uuid_of(1), kind="evacuate"))
        target = decision.selections[0].node
        await life.until(lambda: life.status(1) == "active")
        assert sorted(each.node for each in model.of(uuid_of(1))) == sorted([source, target])
        assert life.state.lives.guests[uuid_of(1)].node == target
        with model.world.content() as there:
            there.nodes[source].state = "up"
        await trio.sleep(60)
        (guest,) = model.of(uuid_of(1))
        assert (guest.node, guest.volumes) == (target, [uuid_of(11)]), "what was left on the source is removed"
        assert held(life) == {target: 2}


async def test_a_guest_that_is_deleted_while_it_moves_gives_back_both_nodes(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        await active(life)
        model.wire.faults = Faults(delay=10.0)
        await life.submit(MoveGuest(uuid=uuid_of(1)))
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) is None)
        model.wire.faults = Faults()
        await life.inventories(3)
        assert held(life) == {}
        assert model.of(uuid_of(1)) == []
        assert life.state.usage.of("project:p").get("VCPU", 0) == 0


@pytest.mark.parametrize("rules", [6, 7])
async def test_a_guest_that_is_lost_as_its_move_begins_gives_back_the_target(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, rules: int
) -> None:
    """The reconciler found it gone before the move began, and says so after that."""
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life)
        claim = life.state.lives.guests[uuid_of(1)].claim
        with model.world.content() as there:
            there.guests.clear()
        monkeypatch.setattr(guest_lives, "MOVING_FIRST", 7 if rules == 7 else 99)
        model.wire.faults = Faults(delay=1.0)
        await life.submit(MoveGuest(uuid=uuid_of(1)))
        with suppress(InvalidValue):
            await life.submit(LoseGuest(uuid=uuid_of(1), claim=claim))
        await life.until(lambda: life.status(1) == "error")
        assert held(life) == {source: 2}
        assert life.state.lives.guests[uuid_of(1)].settled
        life.state.fleet.check()


async def test_a_node_of_another_back_end_is_no_target(autojump_clock: MockClock) -> None:
    async with ready(Model("a", nodes=1), Model("b", nodes=1)) as life:
        source = await active(life)
        other = "b-node-0" if source == "a-node-0" else "a-node-0"
        with pytest.raises(InvalidValue, match="not one of back end"):
            await life.submit(MoveGuest(uuid=uuid_of(1), target=other))
        assert not (await life.submit(MoveGuest(uuid=uuid_of(1)))).placed


@pytest.mark.parametrize("failing", ["full", "late"])
async def test_a_cold_move_that_fails_has_the_guest_run_again_on_its_source(
    autojump_clock: MockClock, failing: str
) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life)
        if failing == "full":
            with model.world.content() as there:
                for name, node in there.nodes.items():
                    node.memory_mb = node.memory_mb if name == source else 100
        else:
            model.wire.faults = Faults(lost_answers=1.0)
            with model.world.content() as there:
                there.nodes["a-node-0" if source == "a-node-1" else "a-node-1"].state = "maintenance"
        await life.submit(MoveGuest(uuid=uuid_of(1), kind="cold_migrate", seconds=20.0))
        await trio.sleep(30)
        model.wire.faults = Faults()
        await life.until(lambda: life.status(1) == "active" and life.state.lives.guests[uuid_of(1)].settled)
        (guest,) = model.of(uuid_of(1))
        assert (guest.node, guest.power, held(life)) == (source, "on", {source: 2})
        await life.inventories(3)
        assert (life.status(1), guest.power) == ("active", "on")
        assert life.state.lives.guests[uuid_of(1)].fault is not None


async def test_a_paused_guest_moves_live_and_stays_paused_and_is_not_moved_cold(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life)
        model.of(uuid_of(1))[0].paused = True
        await life.submit(MoveGuest(uuid=uuid_of(1), kind="cold_migrate"))
        await life.until(lambda: life.status(1) == "active")
        fault = life.state.lives.guests[uuid_of(1)].fault
        assert fault is not None
        assert "paused" in fault.text
        assert (model.of(uuid_of(1))[0].node, model.of(uuid_of(1))[0].paused) == (source, True)
        await life.submit(MoveGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "active")
        (guest,) = model.of(uuid_of(1))
        assert guest.node != source
        assert (guest.power, guest.paused) == ("on", True)


async def test_an_evacuation_to_a_back_end_that_fails_to_build_is_given_up(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        source = await active(life, image="broken-later")
        with model.world.content() as there:
            there.nodes[source].state = "down"
        await life.inventories(3)
        model.wire.world.broken_images.add("broken-later")
        await life.submit(MoveGuest(uuid=uuid_of(1), kind="evacuate"))
        await life.until(lambda: life.status(1) == "active")
        guest = life.state.lives.guests[uuid_of(1)]
        assert guest.node == source
        assert guest.fault is not None
        assert "error" in guest.fault.text
        assert [each.node for each in model.of(uuid_of(1))] == [source]
        assert held(life) == {source: 2}


async def test_a_guest_that_is_not_as_desired_is_evacuated(autojump_clock: MockClock) -> None:
    """On a node that is down it can be neither stopped nor relieved of a volume."""
    model = Model("a", nodes=2, pools=1)
    async with ready(model) as life:
        source = await active(life)
        await life.submit(CreateVolume(request=volume(11, project="p").request))
        await life.until(lambda: life.volume_status(11) == "available")
        await life.submit(AttachVolume(uuid=uuid_of(1), volume=uuid_of(11)))
        await life.reconciler.until_settled()
        with model.world.content() as there:
            there.nodes[source].state = "down"
        await life.inventories(3)
        await life.submit(DetachVolume(uuid=uuid_of(1), volume=uuid_of(11)))
        await life.submit(StopGuest(uuid=uuid_of(1)))
        await trio.sleep(20)
        decision = await life.submit(MoveGuest(uuid=uuid_of(1), kind="evacuate"))
        target = decision.selections[0].node
        await life.until(lambda: life.status(1) == "stopped")
        (guest,) = [each for each in model.of(uuid_of(1)) if each.node == target]
        assert (guest.power, guest.volumes) == ("off", [])
        assert life.volume_status(11) == "available"


async def test_a_guest_that_disappears_while_it_moves_still_holds_its_source(autojump_clock: MockClock) -> None:
    """Reports that came meanwhile do not include it, and it is counted beside them again when it has stayed."""

    class Disappearing(Wrapped):
        async def call(self, operation: str, work: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
            if operation != "move_guest":
                return await work(*args, **more)
            with self.world.content() as there:
                there.guests.pop(self.of(uuid_of(1))[0].key)
            await trio.sleep(15)  # for some inventories
            raise NotFound("it is gone")

    model = Disappearing("a", nodes=2)
    for node in ("a-node-0", "a-node-1"):
        model.world.make_strangers_guest(node)
    async with ready(model) as life:
        source = await active(life)
        await life.submit(MoveGuest(uuid=uuid_of(1), kind="live_migrate"))
        await life.until(lambda: life.status(1) == "error")
        await life.inventories(3)
        other = "a-node-1" if source == "a-node-0" else "a-node-0"
        assert held(life) == {source: 3, other: 1}
