"""Interned values that nothing refers to are given back: memory follows what there is, not what there was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sized
from pathlib import Path

import pytest

from hostler import Engine, Flavor, Fleet, Inventory, Request, RequestSpec, load_fleet, save_fleet
from hostler.bench import growth
from hostler.bench.growth_changes import OWN, Library
from hostler.bench.growth_commands import Commands
from hostler.placement.fleet import reclaim
from hostler.placement.fleet.reclaim import CLASS_SLACK, SLACK
from hostler.placement.types.errors import HostlerError, UnknownName

from .reachable import reachable

SPEC = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=512))
MOST = 3 * SLACK


def started() -> Engine:
    return Library().engine


def disabled(engine: Engine, number: int) -> None:
    engine.fleet.set_service("n1", disabled=True, disabled_reason=f"ticket {number}")
    engine.fleet.set_service("n1", disabled=False)


def placed(engine: Engine, number: int) -> None:
    spec = RequestSpec(flavor=Flavor(name=f"f{number}", vcpus=1, memory_mb=512 + number))
    request = Request(spec=spec, project_id=f"p{number}", user_id=f"u{number}")
    engine.release(engine.place(request).selected.instance_uuid)


def classed(engine: Engine, number: int) -> None:
    name = f"CUSTOM_C{number}"
    engine.fleet.set_inventory("n3", {**OWN, name: Inventory(total=1 + number)})
    engine.release(engine.place(with_class(name, 1)).selected.instance_uuid)
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


@pytest.fixture
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches that a few changes fill."""
    for module, bound in growth.CACHES:
        monkeypatch.setattr(module, bound, 20_000 if "BYTES" in bound else 8)
    monkeypatch.setattr(reclaim, "SLACK", 8)
    monkeypatch.setattr(reclaim, "CLASS_SLACK", 8)


@pytest.mark.parametrize("kind", growth.kinds())
@pytest.mark.usefixtures("small_caches")
def test_random_names_leave_nothing_behind(kind: str) -> None:
    make, change = growth.kinds()[kind]
    it = make()
    root = it.machine.state if isinstance(it, Commands) else it
    held = []
    for number in range(160):
        change(it, number)
        if number % 8 == 7:
            held.append(reachable(root))
    # Without a bound there is at least one object a change more.
    assert min(held[12:]) - min(held[4:12]) < 40, held
    assert root.fleet._host_ips.span < 100
    assert root.fleet._nodes.names.span < 100
    root.fleet.check()


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


@pytest.mark.usefixtures("small_caches")
def test_nothing_is_given_back_while_a_fork_is_held_and_both_stay_right() -> None:
    engine = started()
    trial = engine.fork()
    for number in range(40):
        disabled(engine, number)
        placed(trial, number)
    engine.fleet.check()
    trial.fleet.check()
    assert max(sizes(engine.fleet)) >= 40
    del trial
    engine.fleet._reclaim.if_due()
    assert max(sizes(engine.fleet)) < 20


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


def with_class(name: str, amount: int = 2) -> Request:
    flavor = Flavor(name=name, vcpus=1, memory_mb=512, extra_specs={f"resources:{name}": str(amount)})
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
@pytest.mark.parametrize("kind", growth.kinds())
def test_memory_after_very_many_changes_is_what_it_began_with(kind: str) -> None:
    """HOSTLER_SOAK_CHANGES sets how many changes there are, 10^6 in all if it is left out."""
    count = growth.share(kind, int(os.environ.get("HOSTLER_SOAK_CHANGES", 10**6)))
    command = [sys.executable, "-m", "hostler.bench.growth", "--kind", kind, "--changes", str(count)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    text, grows = growth.line(kind, count, found)
    assert not grows, text
