"""Nova's engine and Placement's API are two views of one fleet: what one does, the other sees."""

from __future__ import annotations

import uuid

import pytest

from hostler import Engine, Flavor, Fleet, Host, Policy, Request, RequestSpec, add_hosts
from hostler.placement.api import commands as c
from hostler.placement.api.errors import Conflict
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.fleet.fleet import Inventory
from hostler.placement.request.placement_query import PlacementQuery, RequestGroup
from hostler.placement.types.host import Aggregate

ONE = str(uuid.UUID(int=1))
SMALL = RequestSpec(flavor=Flavor(name="small", vcpus=2, memory_mb=4_096, root_gb=10))


@pytest.fixture
def engine() -> Engine:
    fleet = Fleet()
    zone = Aggregate(uuid=str(uuid.UUID(int=7)), name="zone")
    size = {"vcpus_total": 8, "total_usable_ram_mb": 16_384, "total_usable_disk_gb": 100}
    hosts = [
        Host(host=f"node-{i}", traits=frozenset({"CUSTOM_RACK"}), aggregates=(zone,), **size)  # type: ignore[arg-type]  # figures
        for i in range(2)
    ]
    add_hosts(fleet, hosts)
    return Engine(fleet, Policy.nova_default())


def taking(model: PlacementModel, node: str, consumer: str = ONE, **resources: int) -> c.SetAllocations:
    """A write that gives a consumer resources of one host."""
    uuid_ = model.fleet.uuid(model.fleet.row(node))
    one = c.ConsumerAllocations(allocations={uuid_: resources}, project_id="project", user_id="user")
    return c.SetAllocations(consumers={consumer: one}, now=5.0)


def test_a_host_that_was_loaded_is_a_provider(engine: Engine) -> None:
    model = PlacementModel(engine.fleet)
    first = model.providers(name="node-0")[0]
    assert model.inventories(first.uuid).inventories["VCPU"].total == 8
    assert model.provider_traits(first.uuid).traits == ["CUSTOM_RACK"]
    assert model.provider_aggregates(first.uuid).aggregates == [str(uuid.UUID(int=7))]
    assert model.trait("CUSTOM_RACK").name == "CUSTOM_RACK"


def test_a_guest_that_the_engine_placed_holds_allocations(engine: Engine) -> None:
    chosen = engine.place(Request(spec=SMALL)).selected
    model = PlacementModel(engine.fleet)
    held = model.allocations(chosen.instance_uuid)
    assert held is not None
    assert held.allocations[chosen.provider_uuid][0] == {"VCPU": 2, "MEMORY_MB": 4_096, "DISK_GB": 10}
    assert (held.generation, held.consumer_type) == (1, "INSTANCE")


def test_allocations_written_through_the_api_leave_the_engine_less(engine: Engine) -> None:
    model = PlacementModel(engine.fleet)
    model.apply(taking(model, "node-0", VCPU=2, MEMORY_MB=14_000))
    engine.fleet.check()
    assert engine.fleet.column("free_ram_mb").tolist() == [2_384.0, 16_384.0]
    assert engine.place(Request(spec=SMALL)).selected.node == "node-1"
    assert [host.node for host in engine.explain(Request(spec=SMALL)).refused] == ["node-0"]


def test_a_guest_of_the_engine_keeps_what_the_api_does_not_write(engine: Engine) -> None:
    engine.fleet.add_server_group(str(uuid.UUID(int=9)), "anti-affinity")
    group = str(uuid.UUID(int=9))
    chosen = engine.place(Request(spec=SMALL, server_group=group)).selected
    model = PlacementModel(engine.fleet)
    model.apply(taking(model, chosen.node, chosen.instance_uuid, VCPU=1))
    engine.fleet.check()
    consumer = engine.fleet.consumer(chosen.instance_uuid)
    assert (consumer.server_group, consumer.building, consumer.generation) == (group, True, 2)
    other = engine.place(Request(spec=SMALL, server_group=group)).selected
    assert other.node != chosen.node


def test_the_engine_releases_what_the_api_wrote(engine: Engine) -> None:
    model = PlacementModel(engine.fleet)
    model.apply(taking(model, "node-0", VCPU=2))
    engine.release(ONE)
    assert model.allocations(ONE) is None
    assert model.usages("project") == {}
    engine.fleet.check()


def test_a_fork_of_the_engine_does_not_see_what_the_api_writes_later(engine: Engine) -> None:
    fork = engine.what_if()
    model = PlacementModel(engine.fleet)
    model.apply(taking(model, "node-0", VCPU=2))
    assert PlacementModel(fork.fleet).allocations(ONE) is None
    assert PlacementModel(engine.fleet).allocations(ONE) is not None


def test_the_engine_and_the_candidates_agree_on_who_has_room(engine: Engine) -> None:
    wanted = PlacementQuery(groups=(RequestGroup(resources=(("MEMORY_MB", 4_096), ("VCPU", 2))),))
    for _ in range(10):
        found = PlacementModel(engine.fleet).allocation_candidates(wanted)
        decision = engine.place(Request(spec=SMALL))
        assert decision.placed == bool(found.allocation_requests)
        if decision.placed:
            assert decision.selected.provider_uuid in found.provider_summaries


def test_a_child_provider_made_through_the_api_gives_the_engine_its_devices(engine: Engine) -> None:
    model, child = PlacementModel(engine.fleet), str(uuid.UUID(int=20))
    spec = RequestSpec(flavor=Flavor(name="gpu", vcpus=1, memory_mb=512, extra_specs={"resources:VGPU": "1"}))
    assert not engine.place(Request(spec=spec)).placed
    parent = engine.fleet.uuid(1)
    model.apply(c.CreateProvider(uuid=child, name="gpu", parent=parent, now=1.0))
    add = c.AddInventory(provider=child, resource_class="VGPU", inventory=Inventory(total=1), now=1.0)
    model.apply(add)
    chosen = engine.place(Request(spec=spec)).selected
    assert chosen.node == "node-1"
    assert model.provider_usages(child).usages == {"VGPU": 1}
    with pytest.raises(Conflict, match="in use"):
        model.apply(c.DeleteInventories(provider=child, now=2.0))


def test_a_consumer_that_is_on_no_host_hints_at_none(engine: Engine) -> None:
    model, pool = PlacementModel(engine.fleet), str(uuid.UUID(int=20))
    model.apply(c.CreateProvider(uuid=pool, name="pool", now=1.0))
    model.apply(c.AddInventory(provider=pool, resource_class="DISK_GB", inventory=Inventory(total=9), now=1.0))
    model.apply(taking(model, "pool", DISK_GB=5))
    hinted = Request(spec=RequestSpec(flavor=SMALL.flavor, scheduler_hints={"different_host": (ONE,)}, prepare=False))
    assert engine.place(hinted).placed
    engine.fleet.check()


def test_usages_of_projects_are_right_after_thousands_of_guests_came_and_went() -> None:
    fleet = Fleet()
    add_hosts(
        fleet,
        [
            Host(host=f"node-{i}", vcpus_total=512, total_usable_ram_mb=4_000_000, total_usable_disk_gb=90_000)
            for i in range(8)
        ],
    )
    engine = Engine(fleet)
    placed = engine.place_many(Request(spec=SMALL, project_id=f"p{number % 1_500}") for number in range(3_000))
    held = [decision.selected.instance_uuid for decision in placed]
    for uuid_ in held[1::3]:
        engine.release(uuid_)
    fork = engine.what_if()
    fork.place(Request(spec=SMALL, project_id="p0"))
    for side, more in ((fork, 1), (engine, 0)):
        side.fleet.check()
        model = PlacementModel(side.fleet)
        for project in (0, 1, 2, 1_024, 1_499):
            left = sum(number % 3 != 1 for number in range(project, 3_000, 1_500)) + (more if project == 0 else 0)
            assert model.usages(f"p{project}").get("VCPU", 0) == 2 * left
