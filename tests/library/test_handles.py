"""A Fleet is a handle on one version: what a caller holds never follows another engine."""

from __future__ import annotations

import gc

from hostler import (
    CreateTrait,
    Engine,
    Flavor,
    Fleet,
    Host,
    PlacementModel,
    Request,
    RequestSpec,
    VolumeEngine,
    add_hosts,
)

SPEC = RequestSpec(flavor=Flavor(name="s", vcpus=1, memory_mb=1024))
REQUEST = Request(spec=SPEC)


def started(hosts: int = 2) -> tuple[Fleet, Engine]:
    fleet = Fleet()
    add_hosts(fleet, [Host(host=f"n{i}", vcpus_total=16, total_usable_ram_mb=65536) for i in range(hosts)])
    return fleet, Engine(fleet)


def test_an_update_by_the_first_fleet_lands_on_its_version_after_a_fork_was_used() -> None:
    fleet, engine = started()
    trial = engine.what_if()
    trial.place(REQUEST)
    fleet.set_service("n0", disabled=True)
    assert engine.fleet is fleet
    assert engine.fleet._host_class(0).disabled
    assert not trial.fleet._host_class(0).disabled
    assert engine.place(REQUEST).host == "n1"


def test_each_fork_has_a_fleet_of_its_own_and_each_sees_its_own_guests() -> None:
    fleet, engine = started()
    trial = engine.fork()
    assert trial.fleet is not fleet
    mine, theirs = engine.place(REQUEST).selected.instance_uuid, trial.place_many([REQUEST] * 3).uuids()
    for _ in range(3):
        assert fleet._kernel.consumer_count == 1
        assert trial.fleet._kernel.consumer_count == 3
    assert fleet.consumer(mine).uuid == mine
    trial.fleet._release_uuids(theirs)
    fleet._release_uuids([mine])
    for each in (fleet, trial.fleet):
        each.check()
        assert not each._kernel.consumer_count


def test_the_fleet_of_a_fork_stays_usable_without_its_engine() -> None:
    fleet, engine = started()
    trial = engine.fork()
    trial.place(REQUEST)
    kept = trial.fleet
    del trial
    gc.collect()
    engine.place_many([REQUEST] * 2)
    assert (kept._kernel.consumer_count, fleet._kernel.consumer_count) == (1, 2)
    again = Engine(kept)
    again.place(REQUEST)
    assert (kept._kernel.consumer_count, fleet._kernel.consumer_count) == (2, 2)


def test_nothing_is_recorded_once_all_forks_are_gone() -> None:
    fleet, engine = started()
    trial = engine.fork()
    trial.place(REQUEST)
    assert fleet._history.recording
    del trial
    engine.place(REQUEST)
    assert not fleet._history.recording


def test_a_placement_model_and_a_volume_engine_stay_at_the_version_they_were_made_for() -> None:
    fleet, engine = started()
    model, volumes = PlacementModel(fleet), VolumeEngine(fleet)
    trial = engine.fork()
    other = PlacementModel(trial.fleet)
    other.apply(CreateTrait(now=1.0, name="CUSTOM_TRIAL"))
    trial.place(REQUEST)
    assert "CUSTOM_TRIAL" not in {each.name for each in model.traits()}
    assert "CUSTOM_TRIAL" in {each.name for each in other.traits()}
    model.apply(CreateTrait(now=1.0, name="CUSTOM_MINE"))
    assert "CUSTOM_MINE" not in {each.name for each in other.traits()}
    assert volumes.fleet._kernel.consumer_count == 0
