"""Interned values that nothing refers to are given back: memory follows what there is, not what there was."""

from __future__ import annotations

import gc
import os
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
    HostReport,
    Inventory,
    PciPool,
    PlacementModel,
    Request,
    RequestSpec,
    SetAllocations,
    add_hosts,
    load_fleet,
    report_hosts,
    save_fleet,
)
from hostler.placement.fleet.reclaim import CLASS_SLACK, SLACK
from hostler.placement.types.errors import HostlerError, UnknownName

OWN = {"VCPU": Inventory(total=64), "MEMORY_MB": Inventory(total=10**6), "DISK_GB": Inventory(total=10**4)}
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


def reported(engine: Engine, number: int) -> None:
    name = str(uuid.UUID(int=number + 1))
    facts = {"stats": {name: "1"}, "metrics": {name: 1.0}, "cpu_info": name, "cell_uuid": name, "hypervisor_type": name}
    size = {"vcpus_total": 64, "total_usable_ram_mb": 10**6, "total_usable_disk_gb": 10**4}
    aggregates = (Aggregate(uuid=name, name=name),)
    pools = (PciPool(count=1, tags={"vendor_id": name}),)
    host = Host(host="n0", aggregates=aggregates, pci_pools=pools, instances={name: {}}, **size, **facts)  # type: ignore[arg-type]  # dictionaries for several fields
    report_hosts(engine.fleet, [HostReport(host=host, at=1.0 + number)])


def classed(engine: Engine, number: int) -> None:
    name = f"CUSTOM_C{number}"
    engine.fleet.set_inventory("n3", {**OWN, name: Inventory(total=1 + number)})
    with_class = Flavor(name=name, vcpus=1, memory_mb=512, extra_specs={f"resources:{name}": "1"})
    engine.release(engine.place(Request(spec=RequestSpec(flavor=with_class))).selected.instance_uuid)
    engine.fleet.set_inventory("n3", OWN)


def sizes(fleet: Fleet) -> list[int]:
    tables: tuple[Sized, ...] = (
        fleet._classes,
        fleet._projects,
        fleet._users,
        fleet._consumers.shapes,
        fleet.aggregates,
        fleet._group_uuids,
        fleet.resource_classes,
    )
    return [*map(len, tables), len(fleet._stats), len(fleet._pci_states)]


CHANGES = [disabled, placed, allocated, aggregated, grouped, reported, classed]


@pytest.mark.parametrize("change", CHANGES)
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
    assert engine.fleet._host_class(3).disabled_reason == "stays"
    engine.release([decision.selected.instance_uuid for decision in kept])
    engine.fleet.check()
    assert not engine.fleet._store.inventory["used"].any()


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


def with_class(name: str) -> Request:
    flavor = Flavor(name=name, vcpus=1, memory_mb=512, extra_specs={f"resources:{name}": "2"})
    return Request(spec=RequestSpec(flavor=flavor))


def test_columns_of_custom_classes_are_given_back_and_others_keep_theirs(tmp_path: Path) -> None:
    churned, quiet = started(), started()
    for engine in (churned, quiet):
        engine.fleet.set_inventory("n0", {**OWN, "CUSTOM_KEPT": Inventory(total=7)})
        engine.place(with_class("CUSTOM_KEPT"))
    for number in range(200):
        classed(churned, number)
    assert len(churned.fleet.resource_classes) < 4 * CLASS_SLACK
    churned.fleet.check()
    churned.sequence = quiet.sequence
    save_fleet(churned.fleet, tmp_path / "fleet")
    for engine in (churned, Engine(load_fleet(tmp_path / "fleet"))):
        engine.fleet.check()
        trial = quiet.what_if()
        for each in (engine, trial):
            each.fleet.set_inventory("n1", {**OWN, "CUSTOM_NEW": Inventory(total=4, step_size=2)})
        for name in ("CUSTOM_KEPT", "CUSTOM_NEW", "CUSTOM_KEPT", "CUSTOM_NEW", "CUSTOM_NEW", "CUSTOM_KEPT"):
            assert engine.place(with_class(name)) == trial.place(with_class(name))
        engine.fleet.check()


def test_a_vacant_place_has_no_name_that_can_be_asked_for() -> None:
    engine = started()
    for number in range(3 * CLASS_SLACK):
        classed(engine, number)
    vacant = [name for name in engine.fleet.resource_classes if name.startswith("VACANT")]
    assert vacant
    with pytest.raises(HostlerError):
        engine.fleet.resource_class(vacant[0], create=True)
    with pytest.raises(UnknownName) as error:
        engine.fleet.resource_class("CUSTOM_VACANT")
    assert "VACANT_" not in (error.value.hint or "").replace("CUSTOM_VACANT", "")


@pytest.mark.soak
@pytest.mark.parametrize("change", CHANGES)
def test_memory_after_very_many_changes_is_what_it_began_with(change: Callable[[Engine, int], None]) -> None:
    """HOSTLER_SOAK_CHANGES sets how many changes there are, 10^6 in all if it is left out."""
    count = int(os.environ.get("HOSTLER_SOAK_CHANGES", 10**6)) // len(CHANGES)
    engine = started()
    for number in range(min(5_000, count)):
        change(engine, number)
    began = resident()
    for number in range(5_000, 5_000 + count):
        change(engine, number)
    assert max(sizes(engine.fleet)) <= MOST
    assert resident() - began < 8 << 20
    engine.fleet.check()


def resident() -> int:
    """Bytes of memory that the process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
