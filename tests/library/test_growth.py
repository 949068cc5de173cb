"""Interned values that nothing refers to are given back: memory follows what there is, not what there was."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sized
from pathlib import Path

import pytest

from hostler import (
    Aggregate,
    ConsumerAllocations,
    DeleteAllocations,
    Engine,
    Flavor,
    Fleet,
    Host,
    PlacementModel,
    Request,
    RequestSpec,
    SetAllocations,
    add_hosts,
    load_fleet,
    save_fleet,
)
from hostler.placement.fleet.reclaim import SLACK

SPEC = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=512))
MOST = 3 * SLACK


def started() -> Engine:
    engine = Engine()
    hosts = [
        Host(host=f"n{i}", vcpus_total=64, total_usable_ram_mb=10**6, total_usable_disk_gb=10**4) for i in range(4)
    ]
    add_hosts(engine.fleet, hosts)
    return engine


def disabled(engine: Engine, number: int) -> None:
    engine.fleet.set_service("n1", disabled=True, disabled_reason=f"ticket {number}")
    engine.fleet.set_service("n1", disabled=False)


def placed(engine: Engine, number: int) -> None:
    spec = RequestSpec(flavor=Flavor(name=f"f{number}", vcpus=1, memory_mb=512 + number))
    request = Request(spec=spec, project_id=f"p{number}", user_id=f"u{number}")
    engine.release(engine.place(request).selected.instance_uuid)


def allocated(engine: Engine, number: int) -> None:
    model, consumer = PlacementModel(engine.fleet), str(uuid.UUID(int=number + 1))
    allocations = ConsumerAllocations(
        allocations={engine.fleet.uuid(0): {"VCPU": 1, "MEMORY_MB": 1 + number}},
        project_id=f"p{number}",
        user_id=f"u{number}",
        generation=None,
        consumer_type=None,
    )
    model.apply(SetAllocations(now=1.0, consumers={consumer: allocations}))
    model.apply(DeleteAllocations(now=1.0, consumer=consumer))


def aggregated(engine: Engine, number: int) -> None:
    name = str(uuid.UUID(int=number + 1))
    engine.fleet.set_aggregates("n2", [Aggregate(uuid=name, name=name)])
    engine.fleet.set_aggregates("n2", [])


def grouped(engine: Engine, number: int) -> None:
    name = str(uuid.UUID(int=number + 10))
    engine.fleet.add_server_group(name, "anti-affinity")
    engine.fleet.remove_server_group(name)


def sizes(fleet: Fleet) -> list[int]:
    tables: tuple[Sized, ...] = (
        fleet.classes,
        fleet.projects,
        fleet.users,
        fleet.consumers.shapes,
        fleet.aggregates,
        fleet.group_uuids,
    )
    return [*map(len, tables), len(fleet.stats), len(fleet.pci_states)]


@pytest.mark.parametrize("change", [disabled, placed, allocated, aggregated, grouped])
def test_random_names_leave_nothing_behind(change: Callable[[Engine, int], None]) -> None:
    engine = started()
    for number in range(500):
        change(engine, number)
    assert max(sizes(engine.fleet)) <= MOST
    engine.fleet.check()


def test_what_is_used_stays_through_a_reclaim() -> None:
    engine = started()
    kept = [engine.place(Request(spec=SPEC, project_id=f"keep{i}", user_id=f"u{i}")) for i in range(5)]
    engine.fleet.set_service("n3", disabled=True, disabled_reason="stays")
    for number in range(300):
        placed(engine, number)
        disabled(engine, number)
    for number, decision in enumerate(kept):
        consumer = engine.fleet.consumer(decision.selected.instance_uuid)
        assert (consumer.project_id, consumer.user_id) == (f"keep{number}", f"u{number}")
        assert consumer.resources == {"VCPU": 1, "MEMORY_MB": 512}
    assert engine.fleet.host_class(3).disabled_reason == "stays"
    engine.release([decision.selected.instance_uuid for decision in kept])
    engine.fleet.check()
    assert not engine.fleet.store.inventory["used"].any()


def test_nothing_is_given_back_while_a_fork_is_held_and_both_stay_right() -> None:
    engine = started()
    trial = engine.fork()
    for number in range(300):
        disabled(engine, number)
        placed(trial, number)
    engine.fleet.check()
    trial.fleet.check()
    del trial
    engine.fleet._reclaim.if_due()
    assert max(sizes(engine.fleet)) <= MOST


def test_a_loaded_fleet_has_nothing_that_is_not_used(tmp_path: Path) -> None:
    engine = started()
    guest = engine.place(Request(spec=SPEC, project_id="p")).selected.instance_uuid
    for number in range(SLACK // 4):
        disabled(engine, number)
        placed(engine, number)
    save_fleet(engine.fleet, tmp_path / "fleet")
    loaded = load_fleet(tmp_path / "fleet")
    loaded.check()
    assert max(sizes(loaded)) <= 4
    assert loaded.consumer(guest) == engine.fleet.consumer(guest)
    assert Engine(loaded).place(Request(spec=SPEC)).host == engine.place(Request(spec=SPEC)).host
