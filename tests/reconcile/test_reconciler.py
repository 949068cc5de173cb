"""What the reconciler does about each difference between desired and observed, and about each class of failure."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hostler.core.engine_commands import Release
from hostler.core.lifecycle_commands import CreateGuest, DeleteGuest, SetBackend, StartGuest, StopGuest
from hostler.core.machine.orders import Order
from hostler.core.reconcile.backend import STEPS_A_CALL
from hostler.drivers.model.driver import Faults
from hostler.drivers.model.world import IMAGES_REFUSED
from hostler.drivers.protocol import GuestSpec, Permanent, Unknown
from hostler.placement.types.errors import InUse, InvalidValue

from ..core.orders import LOCAL, asked, uuid_of
from .cloud import Model, create, ready


async def test_a_guest_is_placed_built_stopped_started_and_removed(autojump_clock: MockClock) -> None:
    model = Model("a", build_seconds=3.0)
    async with ready(model) as life:
        decision = await life.submit(create(1, vcpus=2))
        assert life.status(1) == "placed"
        await life.until(lambda: life.status(1) == "active")
        (guest,) = model.of(uuid_of(1))
        assert (guest.node, guest.vcpus, guest.power) == (decision.selections[0].node, 2, "on")
        await life.submit(StopGuest(uuid=uuid_of(1)))
        assert life.status(1) == "stopping"
        await life.until(lambda: life.status(1) == "stopped")
        assert model.of(uuid_of(1))[0].power == "off"
        await life.submit(StartGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "active")
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        assert life.status(1) == "deleting"
        assert life.state.fleet._kernel.consumer_count == 1, "its resources are held until it is gone"
        await life.until(lambda: life.status(1) is None)
        assert model.of(uuid_of(1)) == []
        assert life.state.fleet._kernel.consumer_count == 0


async def test_a_guest_can_be_made_stopped(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        await life.submit(create(1, stopped=True))
        await life.until(lambda: life.status(1) == "stopped")
        assert model.of(uuid_of(1))[0].power == "off"


async def test_names_of_images_and_networks_are_mapped_and_user_data_is_read(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    (tmp_path / "web").write_text("#cloud-config\n")
    model = Model("a")
    seen = []
    create_guest = model.world.create_guest
    model.world.create_guest = lambda want: (seen.append(want), create_guest(want))[1]  # type: ignore[method-assign, func-returns-value]  # to see what the driver was given
    config = {"images": {"debian": "img-12"}, "networks": {"front": "net-1"}, "user_data": tmp_path}
    async with ready(model, **config) as life:
        await life.submit(create(1, image="debian", networks=("front", "back"), user_data="web"))
        await life.until(lambda: life.status(1) == "active")
    (want,) = seen
    assert (want.image, want.networks, want.user_data) == ("img-12", ("net-1", "back"), "#cloud-config\n")


@pytest.mark.parametrize("name", ["a\x00b", "a\nb", "\x7f"])
@pytest.mark.parametrize("field", ["image", "networks"])
async def test_a_name_with_control_characters_reaches_no_driver(
    autojump_clock: MockClock, field: str, name: str
) -> None:
    model = Model("a")
    async with ready(model) as life:
        await life.submit(create(1, **{field: (name,) if field == "networks" else name}))
        await life.until(lambda: life.status(1) == "error")
        fault = life.state.lives.guests[uuid_of(1)].fault
        assert fault is not None
        assert fault.failure == "permanent"
        assert "control characters" in fault.text
    with model.world.content(change=False) as there:
        assert not there.guests


async def test_user_data_that_is_not_there_is_an_error_of_the_guest(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with ready(Model("a"), user_data=tmp_path) as life:
        await life.submit(create(1, user_data="missing"))
        await life.until(lambda: life.status(1) == "error")
        fault = life.state.lives.guests[uuid_of(1)].fault
        assert fault is not None
        assert "missing cannot be read" in fault.text


async def test_without_a_back_end_a_guest_is_refused(autojump_clock: MockClock) -> None:
    async with ready() as life:
        with pytest.raises(InvalidValue, match="no back end that is enabled has nodes"):
            await life.submit(create(1))


async def test_a_full_node_is_left_for_another_and_counts_as_a_failed_build(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        decision = await life.submit(create(1))
        first = decision.selections[0].node
        with model.world.content() as there:
            there.nodes[first].memory_mb = 100
        await life.until(lambda: life.status(1) == "active")
        (guest,) = model.of(uuid_of(1))
        assert guest.node != first
        assert life.state.lives.failed_builds == {first: 1}
        row = life.state.fleet.row(first)
        assert life.state.fleet.column("failed_builds")[row] == 1
        life.state.fleet.check()


async def test_a_guest_that_no_node_takes_is_in_error_and_holds_nothing(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        model.wire.faults = Faults(full=1.0)
        await life.submit(create(1, project="p"))
        await life.until(lambda: life.status(1) == "error")
        guest = life.state.lives.guests[uuid_of(1)]
        assert guest.fault is not None
        assert guest.fault.failure == "capacity"
        assert len(guest.failed_hosts) == 2
        assert life.state.fleet._kernel.consumer_count == 0
        assert life.state.usage.of("project:p").get("instances", 0) == 0
        model.wire.faults = Faults()
        await life.submit(StartGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "active")
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) is None)


async def test_a_permanent_failure_is_not_tried_elsewhere(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        await life.submit(create(1, image=IMAGES_REFUSED))
        await life.until(lambda: life.status(1) == "error")
        assert len(life.state.lives.guests[uuid_of(1)].failed_hosts) == 1
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        assert life.status(1) is None


async def test_a_back_end_that_does_not_answer_delays_and_then_the_guest_is_built_elsewhere(
    autojump_clock: MockClock,
) -> None:
    a, b = Model("a", nodes=1), Model("b", nodes=1)
    async with ready(a, b) as life:
        decision = await life.submit(create(1, build_seconds=60.0))
        first, other = (a, b) if decision.selections[0].node.startswith("a-") else (b, a)
        first.wire.down = True
        await trio.sleep(100)
        assert life.status(1) == "clearing", "what may be left there is removed before it is made elsewhere"
        assert other.of(uuid_of(1)) == []
        first.wire.down = False
        await life.until(lambda: life.status(1) == "active")
        assert len(other.of(uuid_of(1))) == 1
        assert first.of(uuid_of(1)) == []


async def test_a_back_end_that_hangs_delays_no_other(autojump_clock: MockClock) -> None:
    a, b = Model("a", nodes=1), Model("b", nodes=1)
    async with ready(a, b) as life:
        a.wire.hanging = trio.Event()
        for number in range(1, 9):
            await life.submit(create(number))
        on_b = [each.uuid for each in life.state.lives.guests.values() if each.backend == "b"]
        assert 0 < len(on_b) < 8
        began = trio.current_time()
        await life.until(lambda: all(life.state.lives.guests[uuid].status == "active" for uuid in on_b))
        assert trio.current_time() - began < 1.0


async def test_no_more_calls_are_under_way_than_the_driver_allows(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=4, concurrency=3)
    async with ready(model) as life:
        model.wire.faults = Faults(delay=0.5)
        for number in range(1, 31):
            await life.submit(create(number))
        await life.reconciler.until_settled()
        assert model.wire.most_in_flight <= 3 + 1, "the inventory has a call of its own"


async def test_refused_credentials_disable_the_back_end_until_an_operator_enables_it(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        model.wire.denied = True
        await life.submit(create(1))
        await life.until(lambda: not life.state.lives.backends["a"].enabled)
        assert "denied" in life.state.lives.backends["a"].reason
        with pytest.raises(InvalidValue):
            await life.submit(create(2))
        model.wire.denied = False
        await trio.sleep(100)
        assert model.of(uuid_of(1)) == []
        await life.submit(SetBackend(name="a", enabled=True))
        await life.until(lambda: life.status(1) == "active")


async def test_a_disabled_back_end_gets_no_calls_and_no_guests(autojump_clock: MockClock) -> None:
    a, b = Model("a", nodes=1), Model("b", nodes=1)
    async with ready(a, b) as life:
        await life.submit(SetBackend(name="a", enabled=False, reason="maintenance"))
        for number in range(1, 5):
            decision = await life.submit(create(number))
            assert decision.selections[0].node == "b-node-0"
        await life.reconciler.until_settled()
        await trio.sleep(30)
        assert a.guests() == []


async def test_a_guest_that_was_shut_down_outside_stays_stopped(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        await life.submit(create(1))
        await life.until(lambda: life.status(1) == "active")
        model.of(uuid_of(1))[0].power = "off"
        await life.until(lambda: life.status(1) == "stopped")
        await trio.sleep(30)
        assert model.of(uuid_of(1))[0].power == "off"


async def test_a_guest_that_was_started_outside_although_stopped_is_stopped_again(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        await life.submit(create(1, stopped=True))
        await life.until(lambda: life.status(1) == "stopped")
        await trio.sleep(1)
        model.of(uuid_of(1))[0].power = "on"
        await life.inventories(2)
        await life.until(lambda: life.status(1) == "stopped")
        assert model.of(uuid_of(1))[0].power == "off"


async def test_a_guest_that_disappears_is_in_error_and_can_be_built_again(autojump_clock: MockClock) -> None:
    model = Model("a")
    async with ready(model) as life:
        await life.submit(create(1))
        await life.until(lambda: life.status(1) == "active")
        await trio.sleep(1)
        with model.world.content() as there:
            there.guests.clear()
        await life.until(lambda: life.status(1) == "error")
        await life.submit(StartGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) == "active")
        assert len(model.of(uuid_of(1))) == 1


async def test_orphans_are_removed_after_two_sightings_and_strangers_never(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        await life.submit(create(1))
        await life.until(lambda: life.status(1) == "active")
        installation = life.state.lives.installation
        with model.world.content() as there:
            (ours,) = there.guests.values()
        orphan = ours.mark.replace(uuid_of(1), uuid_of(77))
        others = orphan.replace(installation, "another")
        model.world.make_strangers_guest("a-node-0", vcpus=4)
        with model.world.content() as there:
            for number, mark in enumerate((orphan, others)):
                key = f"made-outside-{number}"
                there.guests[key] = type(ours)(
                    key=key, mark=mark, name="x", node="a-node-0", vcpus=1, memory_mb=1_024, power="on"
                )
        await life.inventories(1)
        assert len(model.of(uuid_of(77))) == 2, "one sighting is not enough"
        await trio.sleep(60)
        assert [each.mark for each in model.of(uuid_of(77))] == [others]
        assert len(model.of(uuid_of(1))) == 1
        assert life.reconciler.backends["a"].counts.orphans_removed == 1
        assert life.reconciler.backends["a"].counts.strangers == 2
        _, used = life.state.fleet.inventory("a-node-0")["VCPU"]
        assert used == 1 + 1 + 4, "the guest, that of the other installation, and the stranger"


async def test_nodes_come_go_down_and_come_back(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1)
    async with ready(model) as life:
        model.world.add(nodes=2, prefix="a-")
        await life.until(lambda: len(life.state.fleet) == 2)
        with model.world.content() as there:
            gone = there.nodes.pop("a-node-0")
        await life.inventories(2)
        for number in range(1, 4):
            assert (await life.submit(create(number))).selections[0].node == "a-node-1"
        with model.world.content() as there:
            there.nodes["a-node-0"] = gone
        await life.inventories(2)
        placed = [(await life.submit(create(number))).selections[0].node for number in range(4, 8)]
        assert "a-node-0" in placed


async def test_a_request_that_arrives_after_its_guest_was_deleted_leaves_an_orphan_which_is_removed(
    autojump_clock: MockClock,
) -> None:
    model = Model("a")
    async with ready(model) as life:
        model.wire.faults = Faults(lost_requests=1.0, late=1.0)
        await life.submit(create(1))
        await life.until(lambda: life.status(1) == "building")
        await trio.sleep(0.1)
        model.wire.faults = Faults()
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) is None)
        model.wire.settle_all()
        assert len(model.of(uuid_of(1))) == 1
        await life.inventories(4)
        assert model.of(uuid_of(1)) == []
        assert life.reconciler.backends["a"].counts.orphans_removed == 1


async def test_commands_on_claims_refuse_guests_that_a_back_end_carries_out(autojump_clock: MockClock) -> None:
    async with ready(Model("a")) as life:
        await life.submit(create(1))
        with pytest.raises(InUse, match="delete_guest"):
            await life.service.writer.submit(Order(life.service.now(), LOCAL, Release(uuids=(uuid_of(1),))))


async def test_a_guest_is_deleted_before_it_is_begun_without_a_call(autojump_clock: MockClock) -> None:
    model = Model("a", concurrency=1)
    async with ready(model) as life:
        await life.submit(SetBackend(name="a", enabled=True))
        model.wire.hanging = trio.Event()
        for number in range(1, STEPS_A_CALL + 1):
            await life.submit(create(number))
        queue = life.reconciler.backends["a"].queue
        await life.until(lambda: len(queue.running) == STEPS_A_CALL)
        await life.submit(create(STEPS_A_CALL + 1))
        assert life.status(STEPS_A_CALL + 1) == "placed"
        await life.submit(DeleteGuest(uuid=uuid_of(STEPS_A_CALL + 1)))
        assert life.status(STEPS_A_CALL + 1) is None
    assert model.of(uuid_of(STEPS_A_CALL + 1)) == []


async def test_a_second_guest_of_the_same_uuid_is_refused(autojump_clock: MockClock) -> None:
    async with ready(Model("a")) as life:
        await life.submit(create(1))
        with pytest.raises(Exception, match="there is a guest"):
            await life.submit(CreateGuest(request=asked(1)))


async def test_removals_go_before_creations(autojump_clock: MockClock) -> None:
    model = Model("a", nodes=1, concurrency=1)
    async with ready(model) as life:
        await life.submit(create(1))
        await life.until(lambda: life.status(1) == "active")
        model.wire.faults = Faults(delay=1.0)
        for number in range(2, 10):
            await life.submit(create(number))
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) is None)
        assert sum(each.status == "active" for each in life.state.lives.guests.values()) <= 2


async def test_a_node_that_does_not_answer_takes_down_neither_its_back_end_nor_the_guests_of_others(
    autojump_clock: MockClock,
) -> None:
    model = Model("a", nodes=2)
    async with ready(model) as life:
        nodes = {}
        for number in (1, 2):
            nodes[number] = (await life.submit(create(number, vcpus=10))).selections[0].node
        await life.until(lambda: life.status(1) == life.status(2) == "active")
        assert nodes[1] != nodes[2]
        with model.world.content() as there:
            there.nodes[nodes[2]].state = "down"
        await life.inventories(2)
        await life.submit(StopGuest(uuid=uuid_of(1)))
        await life.submit(StopGuest(uuid=uuid_of(2)))
        await life.until(lambda: life.status(1) == "stopped")
        await trio.sleep(120)
        await life.submit(DeleteGuest(uuid=uuid_of(1)))
        await life.until(lambda: life.status(1) is None)
        await life.submit(create(3))
        await life.until(lambda: life.status(3) == "active")
        assert life.status(2) == "stopping", "what is on a node that is down is not known"
        (status,) = life.reconciler.status().backends
        assert status.breaker == "closed"
        with model.world.content() as there:
            there.nodes[nodes[2]].state = "up"
        await life.until(lambda: life.status(2) == "stopped")


@pytest.mark.parametrize("form", ["as it is", "base64"])
@pytest.mark.parametrize("kind", [Unknown, Permanent, ValueError])
async def test_no_error_repeats_user_data(
    kind: type[Exception], form: str, autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "password: correct horse"
    text = f"#cloud-config\n{secret}\n"
    (tmp_path / "web").write_text(text)
    model = Model("a")
    said = text if form == "as it is" else base64.b64encode(text.encode()).decode()

    def create_guest(want: GuestSpec) -> None:
        raise kind(f"cannot take {said}")

    async with ready(model, user_data=tmp_path) as life:
        model.world.create_guest = create_guest  # type: ignore[method-assign, assignment]  # it always fails
        await life.submit(create(1, user_data="web", build_seconds=5.0, attempts=1))
        await life.until(lambda: life.status(1) == "error")
        fault = life.state.lives.guests[uuid_of(1)].fault
        assert fault is not None
        shown = f"{fault} {life.reconciler.status()} {caplog.text}"
        assert "repeats its user data" in shown
        assert secret not in shown
        assert said[:30] not in shown
