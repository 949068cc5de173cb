"""Engines that share a fleet: each is where its own commands led, as if the others were not there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.ext.tables import format_uuid
from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.gpu.providers import add_gpus, gpu_extra_specs
from hostler.placement.load.bulk import add_hosts
from hostler.placement.types.request import Flavor, Request, RequestSpec

from .commands import Commands, commands
from .dump import dump, live_rows
from .values import host, uuid_of

SPECS = (
    RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=512)),
    RequestSpec(flavor=Flavor(name="big", vcpus=2, memory_mb=2048, root_gb=5)),
    RequestSpec(flavor=Flavor(name="custom", vcpus=1, memory_mb=256, extra_specs={"trait:CUSTOM_A": "required"})),
)
placements = st.tuples(st.just("place"), st.integers(0, 2), st.integers(0, 3), st.integers(0, 999))
engines = st.integers(0, 9)
steps = st.one_of(
    st.tuples(engines, commands),
    st.tuples(engines, placements),
    st.tuples(engines, placements),
    st.tuples(engines, st.just("fork")),
)


@pytest.mark.property
@given(st.lists(steps, max_size=25))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_each_engine_is_where_its_own_commands_lead_a_fresh_one(history: list[Any]) -> None:
    paths: list[tuple[Engine, list[Any], list[Any]]] = [(new_engine(), [], [])]
    for number, step in history:
        engine, path, answers = paths[number % len(paths)]
        if step == "fork":
            paths.append((engine.fork(), list(path), list(answers)))
        else:
            path.append(step)
            answers.append(do(engine, step))
    for engine, path, answers in (*paths, *reversed(paths)):
        fresh = new_engine()
        assert [do(fresh, step) for step in path] == answers
        assert state(engine.fleet) == state(fresh.fleet)
        engine.fleet.check()


def new_engine() -> Engine:
    fleet = Fleet(seed=2)
    add_hosts(fleet, [host(f"n{number}", number) for number in range(5)])
    return Engine(fleet, seed=4)


def do(engine: Engine, step: Any) -> Any:
    """Carry out a command or a placement; what it answers."""
    name, a, b, c = step
    if name != "place":
        return Commands(engine.fleet).do(step)
    uuids = tuple(uuid_of(1000 + c + i) for i in range(b))
    if any(engine.fleet._kernel.consumers.get(uuid) >= 0 for uuid in uuids):
        return None
    return engine.place(Request(spec=SPECS[a], instance_uuids=uuids, project_id=f"p{b}"))


def state(fleet: Fleet) -> dict[str, Any]:
    """The state without ids that depend on what other engines have made known."""
    whole = dump(fleet)
    for column in ("class_of", "stats", "metrics", "host_ip", "pci"):
        del whole["columns"][column]
    whole["classes"] = [fleet._host_class(row) for row in live_rows(fleet)]
    whole["consumers"] = {fleet.uuid(row): guests(fleet, row) for row in live_rows(fleet)}
    return whole


def guests(fleet: Fleet, row: int) -> list[Any]:
    found: list[Any] = [fleet._consumers.also_on.get(row, {})]
    for number in fleet._kernel.consumers_on(row):
        uuid = format_uuid(*fleet._kernel.consumer(number)[:2])
        found.append((number, fleet.consumer(uuid), fleet._extras.get(number), fleet._image_properties.get(number)))
    return found


def test_a_what_if_leaves_the_fleet_as_it_was() -> None:
    engine = new_engine()
    before = dump(engine.fleet)
    trial = engine.what_if()
    add_hosts(trial.fleet, [host("extra", 1)])
    trial.fleet.remove_provider("n0")
    trial.place(Request(spec=SPECS[0]))
    assert dump(engine.fleet) == before
    assert len(trial.fleet) == 5
    assert dump(engine.fleet) == before


def test_each_fork_has_its_own_time() -> None:
    engine = new_engine()
    fork = engine.fork()
    fork.fleet.advance(500.0)
    assert engine.fleet.now is None
    assert fork.fleet.now == 500.0


def test_services_that_a_fork_takes_down_leave_provider_trees_known() -> None:
    """What was compiled of nested providers holds on, and still says what a fleet says that never had the fork."""
    half = RequestSpec(flavor=Flavor(name="half", vcpus=1, memory_mb=64, extra_specs=gpu_extra_specs(500, 1)))

    def placed(engine: Engine) -> list[str | None]:
        decisions = engine.place_many([Request(spec=half)] * 5)
        return [decision.host if decision.placed else None for decision in decisions]

    def made(*, forked: bool) -> list[str | None]:
        engine = new_engine()
        add_hosts(engine.fleet, [host(f"g{number}") for number in range(3)])
        add_gpus(engine.fleet, {f"g{number}": 1 for number in range(3)})
        first = [engine.place(Request(spec=half, instance_uuids=(uuid_of(number),))).host for number in range(2)]
        for number in range(3) if forked else ():
            epoch, trial = engine.fleet._topology_epoch, engine.fork()
            trial.fleet.set_service([f"g{number}"], forced_down=True, disabled=True)
            assert f"g{number}" not in placed(trial)
            assert engine.fleet._topology_epoch == epoch
        engine.fleet.check()
        return [*first, *placed(engine)]

    assert made(forked=True) == made(forked=False)


def test_a_provider_that_a_fork_moves_makes_trees_unknown() -> None:
    engine = new_engine()
    add_hosts(engine.fleet, [host("g0")])
    before, trial = engine.fleet._topology_epoch, engine.fork()
    add_gpus(trial.fleet, {"g0": 2})
    assert len(trial.fleet) == len(engine.fleet) + 2
    assert engine.fleet._topology_epoch > before
