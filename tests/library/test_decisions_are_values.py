"""What a batch has decided does not change with the fleet, whenever it is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hostler import Aggregate, Engine, Flavor, Fleet, Host, Request, RequestSpec, add_hosts
from hostler.placement.api.commands import UpdateProvider
from hostler.placement.api.placement_model import PlacementModel

REQUEST = Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1)))
ZONE = Aggregate(uuid="11111111-2222-4333-8444-555555555555", name="z", metadata={"availability_zone": "az1"})


def replaced(engine: Engine, uuids: list[str]) -> None:
    engine.release(uuids)
    for name in ("n0", "n1", "n2"):
        engine.fleet.remove_provider(name)
    add_hosts(engine.fleet, [Host(host=f"m{i}", vcpus_total=8, total_usable_ram_mb=8192) for i in range(3)])


def moved_to_another_zone(engine: Engine, uuids: list[str]) -> None:
    metadata = {"availability_zone": "az2"}
    engine.fleet.update_aggregate(Aggregate(uuid=ZONE.uuid, name="z", metadata=metadata))


def taken_out_of_the_zone(engine: Engine, uuids: list[str]) -> None:
    for name in ("n0", "n1", "n2"):
        engine.fleet.set_aggregates(name, [])


def renamed(engine: Engine, uuids: list[str]) -> None:
    for row in range(3):
        command = UpdateProvider(now=1.0, uuid=engine.fleet.uuid(row), name=f"r{row}")
        PlacementModel(engine.fleet).apply(command)


def on_a_fork(engine: Engine, uuids: list[str]) -> None:
    trial = engine.fork()
    replaced(trial, uuids)


def test_a_batch_may_be_iterated_after_one_of_its_decisions_was_looked_at() -> None:
    engine = Engine(Fleet())
    add_hosts(engine.fleet, [Host(host=f"n{i}", vcpus_total=8, total_usable_ram_mb=8192) for i in range(3)])
    decisions = engine.place_many([REQUEST] * 4)
    first, third = decisions[0], decisions[2]
    read = list(decisions)
    assert (read[0], read[2]) == (first, third)
    assert [each.selected.instance_uuid for each in decisions] == decisions.uuids()


@pytest.mark.parametrize("change", [replaced, moved_to_another_zone, taken_out_of_the_zone, renamed, on_a_fork])
def test_decisions_read_later_are_those_that_were_made(change: Callable[[Engine, list[str]], None]) -> None:
    engine = Engine(Fleet())
    hosts = [Host(host=f"n{i}", vcpus_total=8, total_usable_ram_mb=8192, aggregates=(ZONE,)) for i in range(3)]
    add_hosts(engine.fleet, hosts)
    early, late = Engine.place_many(engine, [REQUEST] * 4), engine.place_many([REQUEST] * 4)
    twin = engine.fork()
    expected = [(each.host, each.selected.node, each.selected.availability_zone) for each in list(early)]
    fork_expected = [(each.host, each.selected.availability_zone) for each in twin.place_many([REQUEST] * 4)]
    fork_late = engine.fork().place_many([REQUEST] * 4)
    change(engine, [*early.uuids(), *late.uuids()])
    assert [(each.host, each.selected.node, each.selected.availability_zone) for each in early] == expected
    assert {each.selected.availability_zone for each in late} == {"az1"}
    assert {each.host for each in late} <= {"n0", "n1", "n2"}
    assert [(each.host, each.selected.availability_zone) for each in fork_late] == fork_expected
