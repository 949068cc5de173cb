"""Decisions are numbered, and uuids that requests leave out are made from the numbers: none comes twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler import (
    DuplicateName,
    Engine,
    Flavor,
    Fleet,
    Host,
    Request,
    RequestSpec,
    add_hosts,
    load_fleet,
    save_fleet,
)

SMALL = RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=64))


def fleet() -> Fleet:
    made = Fleet()
    add_hosts(made, [Host(host=f"h{i}", vcpus_total=64, total_usable_ram_mb=65_536) for i in range(3)])
    return made


def places(engine: Engine, count: int) -> list[tuple[int, str]]:
    singly = [engine.place(Request(spec=SMALL)) for _ in range(count)]
    decisions = [*singly, *engine.place_many([Request(spec=SMALL)] * count)]
    return [(decision.sequence, decision.selected.instance_uuid) for decision in decisions]


def test_numbers_go_up_by_one_and_uuids_differ() -> None:
    made = places(Engine(fleet()), 5)
    assert [number for number, _ in made] == list(range(1, 11))
    assert len({uuid for _, uuid in made}) == 10


def test_engines_on_one_fleet_count_together() -> None:
    shared = fleet()
    made = places(Engine(shared), 3) + places(Engine(shared), 3)
    assert [number for number, _ in made] == list(range(1, 13))
    shared.check()


def test_an_engine_on_a_loaded_fleet_goes_on_counting(tmp_path: Path) -> None:
    engine = Engine(fleet())
    places(engine, 4)
    save_fleet(engine.fleet, tmp_path / "fleet")
    again = Engine(load_fleet(tmp_path / "fleet"))
    assert again.sequence == 8
    assert places(again, 4) == places(engine, 4)


def test_a_fork_counts_on_its_own_from_where_it_began() -> None:
    engine = Engine(fleet())
    places(engine, 2)
    fork = engine.fork()
    tried = places(fork, 3)
    assert (engine.sequence, fork.sequence) == (4, 10)
    assert places(engine, 3) == tried


def test_a_call_that_fails_takes_no_number() -> None:
    engine = Engine(fleet())
    [(_, uuid), *_] = places(engine, 1)
    taken = Request(spec=SMALL, instance_uuids=(uuid,))
    with pytest.raises(DuplicateName):
        engine.place(taken)
    assert engine.sequence == 2
    assert [each.sequence for each in engine.place_many([Request(spec=SMALL), taken, Request(spec=SMALL)])] == [3, 0, 4]
