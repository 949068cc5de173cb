"""Failures and maintenance in a run: who moves, is stopped or lost, and that nothing runs where nothing can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.core.cli import main
from hostler.placement.types.errors import InvalidValue
from hostler.sim.questions.tasks import execute, start
from hostler.sim.run.evacuation import Disruption
from hostler.sim.run.fleet_plan import FleetPlan, Hardware, Maintenance, Outage
from hostler.sim.run.policies import policy_of
from hostler.sim.run.run import Outcome, Run
from hostler.sim.trace.files import read_trace

from .values import plan, task, written

HEADER = "arrival_s,lifetime_s,vcpus,memory_gb\n"
LONG = HEADER + "0,36000,2,2\n" * 4
CPUS_EACH = 4


def played(folder: Path, trace: str, fleet: FleetPlan, **options: Any) -> Outcome:
    asked = msgspec.structs.replace(task(written(folder, trace), **options), plan=fleet)
    return execute(asked)


def disruption(outcome: Outcome) -> Disruption:
    assert outcome.disruption is not None
    return outcome.disruption


def trace_of(hours: int) -> str:
    """Four guests of half a host, and one much later that makes the run so long."""
    return LONG + f"{hours * 3600},300,1,1\n"


def test_a_failed_hosts_guests_are_placed_again(tmp_path: Path) -> None:
    fleet = plan(3, failures=(Outage(host="small-00001", at_hours=1, hours=2),))
    outcome = played(tmp_path, trace_of(6), fleet, policy="first-fit")
    told = disruption(outcome)
    assert (told.stopped, told.evacuated, told.lost, told.waiting) == (2, 2, 0, 0)
    assert (told.migrated, told.downtime_hours, told.down_host_hours) == (0, 0.0, 2.0)
    assert outcome.guest_hours == pytest.approx(4 * 10 + 1 / 12, abs=0.01)


def test_those_that_find_no_host_are_lost_with_the_reason(tmp_path: Path) -> None:
    fleet = plan(2, failures=(Outage(host="small-00001", at_hours=1, hours=2),))
    outcome = played(tmp_path, trace_of(6), fleet)
    told = disruption(outcome)
    assert (told.stopped, told.evacuated, told.lost) == (2, 0, 2)
    assert told.lost_for == {"MEMORY_MB": 2} or told.lost_for == {"VCPU": 2}
    assert outcome.guest_hours == pytest.approx(2 * 1 + 2 * 10 + 1 / 12, abs=0.01)
    assert outcome.requests == outcome.placed == 5
    assert outcome.unserved == 2


def test_they_wait_where_requests_may_wait(tmp_path: Path) -> None:
    fleet = plan(2, failures=(Outage(host="small-00001", at_hours=1, hours=2),))
    told = disruption(played(tmp_path, trace_of(6), fleet, wait_hours=3.0))
    assert (told.stopped, told.evacuated, told.lost) == (2, 2, 0)
    assert told.downtime_hours == pytest.approx(2 * 2.0)
    assert told.longest_downtime_hours == pytest.approx(2.0)


def test_those_that_wait_at_the_end_are_told(tmp_path: Path) -> None:
    fleet = plan(2, failures=(Outage(host="small-00001", at_hours=1, hours=2),))
    outcome = played(tmp_path, trace_of(2), fleet, wait_hours=3.0, until_hours=2 + 1 / 12)
    told = disruption(outcome)
    assert (told.waiting, outcome.unserved) == (2, 3)
    assert told.downtime_hours == pytest.approx(2 * (1 + 1 / 12), abs=0.01)


def test_a_guest_that_would_have_left_meanwhile_is_lost(tmp_path: Path) -> None:
    fleet = plan(1, failures=(Outage(host="small-00001", at_hours=1, hours=5),))
    told = disruption(played(tmp_path, HEADER + "0,7200,2,2\n28800,300,1,1\n", fleet, wait_hours=24.0))
    assert told.lost_for == {"no host before its end": 1}
    assert told.downtime_hours == 1.0


def test_guests_move_before_maintenance_begins_and_none_stops(tmp_path: Path) -> None:
    fleet = plan(3, maintenance=(Maintenance(host="small-00001", at_hours=2, hours=2, notice_hours=1),))
    run = start(msgspec.structs.replace(task(written(tmp_path, trace_of(6)), policy="first-fit"), plan=fleet))
    row = run.engine.fleet.row("small-00001")
    on: list[int] = []

    def look() -> bool:
        on.append(len(run.engine.fleet.instances(row)))
        return True

    told = disruption(run.play(look, every_step=True))
    assert (told.migrated, told.stopped, told.downtime_hours, told.down_host_hours) == (2, 0, 0.0, 2.0)
    assert set(on[:12]) == {2}
    assert set(on[12:48]) == {0}


def test_who_cannot_move_in_time_stops_with_the_host(tmp_path: Path) -> None:
    full = HEADER + "0,36000,4,4\n" * 2 + "14400,300,1,1\n"
    fleet = plan(2, maintenance=(Maintenance(host="small-00002", at_hours=2, hours=1, notice_hours=1),))
    told = disruption(played(tmp_path, full, fleet, wait_hours=2.0))
    assert (told.migrated, told.stopped, told.evacuated, told.downtime_hours) == (0, 1, 1, 1.0)


def test_a_host_with_two_reasons_to_be_down_comes_back_after_both(tmp_path: Path) -> None:
    outages = (Outage(zone="zone-1", at_hours=1, hours=1), Outage(host="small-00001", at_hours=1.5, hours=3))
    run = Run(plan(2, failures=outages), read_trace(Path(written(tmp_path, trace_of(6)))), policy_of("nova"))
    found = {hours: (run.site.happen(hours), +run.site.down)[1] for hours in (0.5, 1, 1.6, 2.5, 4, 5)}
    assert [sorted(down) for down in found.values()] == [
        [],
        ["small-00001", "small-00002"],
        ["small-00001", "small-00002"],
        ["small-00001"],
        ["small-00001"],
        [],
    ]


def test_a_host_that_fails_for_two_reasons_at_once_stops_its_guests_once(tmp_path: Path) -> None:
    outages = (Outage(zone="zone-1", at_hours=1, hours=1), Outage(host="small-00001", at_hours=1, hours=1))
    told = disruption(played(tmp_path, trace_of(3), plan(2, failures=outages)))
    assert (told.stopped, told.lost) == (4, 4)


def test_a_policy_that_does_not_look_at_services_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[filter_scheduler]\nenabled_filters = ["ImagePropertiesFilter"]\n')
    fleet = plan(2, failures=(Outage(host="small-00001", at_hours=1, hours=2),))
    with pytest.raises(InvalidValue, match="ComputeFilter"):
        played(tmp_path, LONG, fleet, policy=str(own))
    assert played(tmp_path, LONG, plan(2), policy=str(own)).placed == 4


def test_outages_are_told_in_words_and_in_json(tmp_path: Path, capsys: Any) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text("""
[[hardware]]
name = "small"
count = 3
vcpus = 4
memory_gb = 8
racks = 3
[[failures]]
rack = "zone-1/small-r1"
at_hours = 1
hours = 1
""")
    arguments = ["simulate", "run", "--trace", written(tmp_path, trace_of(3)), "--fleet", str(fleet)]
    arguments += ["--policy", "first-fit"]
    assert main(arguments) == 0
    assert "2 guests stopped with their hosts: 2 evacuated, 0 lost" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"]["disruption"]["evacuated"] == 2


GUEST = st.tuples(st.integers(0, 24), st.integers(1, 30), st.integers(1, 4), st.booleans())
TARGET = st.one_of(
    st.integers(1, 5).map(lambda number: {"host": f"a-{number:05}"}),
    st.sampled_from([{"zone": "z1"}, {"zone": "z2"}, {"rack": "z1/a-r1"}, {"rack": "z2/a-r2"}]),
)
HOUR = st.integers(0, 24).map(lambda steps: steps / 12)


@st.composite
def fleets(draw: st.DrawFn) -> FleetPlan:
    kind = Hardware(name="a", count=5, vcpus=CPUS_EACH, memory_gb=64, zones=("z1", "z2"), racks=2)
    failures = [Outage(at_hours=draw(HOUR), hours=draw(HOUR), **draw(TARGET)) for _ in range(draw(st.integers(0, 4)))]
    planned = [
        Maintenance(at_hours=draw(HOUR), hours=draw(HOUR), notice_hours=draw(HOUR), **draw(TARGET))
        for _ in range(draw(st.integers(0, 3)))
    ]
    return FleetPlan(hardware=(kind,), failures=tuple(failures), maintenance=tuple(planned))


@pytest.mark.property
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fleet=fleets(),
    guests=st.lists(GUEST, min_size=1, max_size=30),
    policy=st.sampled_from(["nova", "best-fit", "random"]),
    wait_hours=st.sampled_from([0.0, 0.5, 4.0]),
)
def test_nothing_is_ever_on_a_down_host_and_no_guest_is_counted_twice(
    tmp_path: Path, fleet: FleetPlan, guests: list[tuple[int, int, int, bool]], policy: str, wait_hours: float
) -> None:
    lines = [f"{300 * at},{300 * stays},{vcpus},1,{'g' if apart else ''}\n" for at, stays, vcpus, apart in guests]
    text = HEADER.replace("\n", ",group\n") + "".join(lines) + "10800,300,1,1,\n"
    run = Run(fleet, read_trace(Path(written(tmp_path, text))), policy_of(policy), wait_hours=wait_hours)

    def look() -> bool:
        engine_fleet = run.engine.fleet
        here = 0
        for place in run.site.places:
            row = engine_fleet.row(place.host)
            on = engine_fleet.instances(row)
            here += len(on)
            assert not (on and run.site.down[place.host])
            assert bool(engine_fleet.column("service_up")[row]) == (
                run.site.down[place.host] <= 0 and run.site.closing[place.host] <= 0
            )
            used = sum(run.spec_of(uuid).flavor.vcpus for uuid in on)
            assert used == engine_fleet._store.inventory["used"][0, row] <= CPUS_EACH
        assert here == run.alive
        return True

    outcome = run.play(look, every_step=True)
    run.engine.fleet.check()
    told = outcome.disruption or Disruption()
    assert told.stopped == told.evacuated + told.lost + told.waiting
    assert outcome.placed + outcome.refused + outcome.waiting == outcome.requests
    assert told.downtime_hours >= told.longest_downtime_hours >= 0
    assert outcome.guest_hours >= 0
    assert (outcome.disruption is None) == (not fleet.failures and not fleet.maintenance)
