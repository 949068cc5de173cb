"""Questions on a fleet that stands already: its hosts, guests, groups and services are those of the state's file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hostler.core.cli import main
from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet, Inventory
from hostler.placement.load.bulk import add_hosts
from hostler.placement.load.reports import report_hosts
from hostler.placement.persist.file import load, save
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import Aggregate, Host, RunningInstance, Service
from hostler.placement.types.host_report import HostReport
from hostler.placement.types.request import Destination, Flavor, Request, RequestSpec
from hostler.sim.questions.planning import size
from hostler.sim.questions.tasks import Source, Task, execute, start
from hostler.sim.run.fleet_plan import Outage
from hostler.sim.run.headroom import Busiest
from hostler.sim.run.standing_state import with_state
from hostler.sim.trace.lifetimes import Lifetimes
from hostler.sim.trace.workload import NEVER

from .values import written

DAY_S = 86_400


def guest(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def state(folder: Path, hosts: int = 3, guests: int = 2, **service: Any) -> Path:
    """Hosts of 8 vCPUs in zone z, each with so many guests of 2 vCPUs."""
    zone = Aggregate(uuid=guest(1), name="z", metadata={"availability_zone": "z", "rack": "r"})
    fleet = Fleet()
    held = RunningInstance(flavor=Flavor(name="f", vcpus=2, memory_mb=1024))
    add_hosts(
        fleet,
        [
            Host(
                host=f"n{at}",
                vcpus_total=8,
                cpu_allocation_ratio=1.0,
                total_usable_ram_mb=32768,
                aggregates=(zone,),
                instances={guest(100 * at + number): held for number in range(1, guests + 1)},
                service=Service(**service) if at == 1 else Service(),
            )
            for at in range(1, hosts + 1)
        ],
    )
    path = folder / "cloud.hostler"
    save(fleet, path)
    return path


def arrivals(folder: Path, count: int, size: int = 4) -> str:
    return written(folder, "arrival_s,vcpus,memory_gb\n" + f"0,{size},1\n" * count)


def test_a_run_begins_with_the_hosts_and_guests_of_the_state(tmp_path: Path) -> None:
    """Three hosts of 8 vCPUs, 4 used on each: three guests of 4 fit, a fourth does not."""
    plan = with_state(None, state(tmp_path))
    outcome = execute(Task(plan=plan, source=Source(trace=arrivals(tmp_path, 4))))
    assert (outcome.hosts, outcome.placed, outcome.refused, outcome.peak_guests) == (3, 3, 1, 9)
    assert outcome.peak_percent["VCPU"] == 100.0


def test_size_says_how_many_hosts_are_to_be_bought_beside_the_state(tmp_path: Path) -> None:
    plan = with_state(None, state(tmp_path))
    (kind,) = plan.hardware
    assert kind.zones == ("z",)
    found = size(Task(plan=plan, source=Source(trace=arrivals(tmp_path, 6))))
    assert (found.hardware, found.hosts, found.lower_bound) == ("8 vCPU, 32 GiB", 2, 2)
    assert size(Task(plan=plan, source=Source(trace=arrivals(tmp_path, 2)))).hosts == 0


def test_guests_of_the_state_are_evacuated_as_what_they_hold(tmp_path: Path) -> None:
    plan = with_state(None, state(tmp_path))
    run = start(Task(plan=plan, source=Source(trace=arrivals(tmp_path, 1, 1))))
    busiest = Busiest(run)
    run.play(busiest.look)
    found = busiest.tried()
    assert found is not None
    (hosts,) = [each for each in found.survives if each.kind == "host"]
    assert hosts.survives == 1


def test_a_host_that_was_down_or_disabled_stays_so(tmp_path: Path) -> None:
    for service in ({"disabled": True}, {"forced_down": True}):
        plan = with_state(None, state(tmp_path, **service))
        outcome = execute(Task(plan=plan, source=Source(trace=arrivals(tmp_path, 3))))
        assert (outcome.placed, outcome.refused) == (2, 1)


def test_heartbeats_of_the_time_of_the_state_do_not_take_hosts_out(tmp_path: Path) -> None:
    path = state(tmp_path, last_seen_up=1_700_000_000.0)
    outcome = execute(Task(plan=with_state(None, path), source=Source(trace=arrivals(tmp_path, 3))))
    assert outcome.refused == 0


def test_over_commit_of_a_sweep_is_that_of_the_hosts_that_stand(tmp_path: Path) -> None:
    plan = with_state(None, state(tmp_path))
    outcome = execute(Task(plan=plan, source=Source(trace=arrivals(tmp_path, 6)), cpu_ratio=2.0))
    assert (outcome.refused, outcome.cpu_ratio) == (0, 2.0)


def test_standing_guests_leave_as_guests_of_the_trace_do_or_stay(tmp_path: Path) -> None:
    """Guests of the trace live for one hour: after a day of them those that stood are gone, unless they stay."""
    rows = "".join(f"{3600 * hour},3600,1,1\n" for hour in range(48))
    trace = written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n" + rows)
    source = Source(trace=trace, made_hours=24.0)
    task = Task(plan=with_state(None, state(tmp_path)), source=source)
    left = start(task)
    left.play()
    assert left.alive <= 3
    stay = start(Task(plan=task.plan, source=source, standing_stay=True))
    stay.play()
    assert stay.alive >= 6


def test_guests_met_at_some_moment_have_half_a_constant_life_left() -> None:
    lives = np.full(200, 10 * DAY_S)
    fitted = Lifetimes(np.zeros(200, np.int64), lives, np.ones(200, np.bool_))
    left = fitted.left(0, 20_000, np.random.default_rng(0))
    assert left.max() <= 10 * DAY_S
    assert abs(left.mean() / DAY_S - 5) < 0.1


def test_what_is_left_of_exponential_lives_is_as_long_as_a_life() -> None:
    rng = np.random.default_rng(1)
    lives = np.ceil(rng.exponential(2 * DAY_S, 20_000) / 300).astype(np.int64) * 300
    fitted = Lifetimes(np.zeros(len(lives), np.int64), lives, np.ones(len(lives), np.bool_))
    left = fitted.left(0, 20_000, rng)
    assert np.all(left < NEVER)
    assert abs(left.mean() / DAY_S - 2) < 0.08


@pytest.mark.parametrize("question", ["run", "size", "forecast", "compare", "sweep"])
def test_every_question_takes_a_state(question: str, tmp_path: Path, capsys: Any) -> None:
    rows = "".join(f"{3600 * hour},7200,1,1\n" for hour in range(48))
    trace = written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n" + rows)
    more = {"forecast": ["--days", "3", "--seeds", "2", "--workers", "1"], "compare": ["--policies", "nova,best-fit"]}
    args = ["simulate", question, "--trace", trace, "--state", str(state(tmp_path)), "--json", *more.get(question, [])]
    assert main(args) == 0
    assert json.loads(capsys.readouterr().out)


def test_a_file_that_is_no_state_is_named(tmp_path: Path, capsys: Any) -> None:
    trace = arrivals(tmp_path, 1)
    assert main(["simulate", "run", "--trace", trace, "--state", trace]) == 1
    assert "trace.csv" in capsys.readouterr().err


def test_guests_keep_the_server_group_that_they_have_in_the_state(tmp_path: Path) -> None:
    path = state(tmp_path, hosts=2, guests=0)
    from hostler.placement.persist.file import load
    from hostler.placement.types.request import Request, RequestSpec

    fleet = load(path)
    fleet.add_server_group(guest(7), "anti-affinity")
    engine = Engine(fleet)
    spec = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1024))
    for number in (1, 2):
        engine.place(Request(spec=spec, instance_uuids=(guest(number),), server_group=guest(7)))
    save(fleet, path)
    run = start(Task(plan=with_state(None, path), source=Source(trace=arrivals(tmp_path, 1, 1))))
    busiest = Busiest(run)
    run.play(busiest.look)
    found = busiest.tried()
    assert found is not None
    assert next(each.survives for each in found.survives if each.kind == "host") == 0


def moving_state(folder: Path) -> Path:
    """Two nodes of one service host and two hosts, each with a guest; one guest moves, one stands on two hosts."""
    fleet = Fleet()
    sizes = {"vcpus_total": 8, "cpu_allocation_ratio": 1.0, "total_usable_ram_mb": 32768}
    flavor = Flavor(name="f", vcpus=2, memory_mb=1024)
    held = RunningInstance(flavor=flavor)
    places = (("ir", "n1"), ("ir", "n2"), ("n3", "n3"), ("n4", "n4"))
    hosts = [
        Host(host=host, nodename=node, instances={guest(at): held}, **sizes)  # type: ignore[arg-type]  # one dict
        for at, (host, node) in enumerate(places, start=1)
    ]
    add_hosts(fleet, hosts)
    spec = RequestSpec(flavor=flavor, requested_destination=Destination(host="n4", node="n4"))
    assert Engine(fleet).begin_move(guest(3), Request(spec=spec)).placed
    also = replace(hosts[2], instances={guest(3): held, guest(4): held})
    report_hosts(fleet, [HostReport(host=also, at=10.0)])
    assert set(fleet.instances(fleet.row("n3"))) == {guest(3), guest(4)}
    path = folder / "moving.hostler"
    save(fleet, path)
    return path


def test_guests_that_move_or_stand_on_two_hosts_are_one_guest_each(tmp_path: Path) -> None:
    plan = with_state(None, moving_state(tmp_path))
    trace = arrivals(tmp_path, 1, size=1)
    outcome = execute(Task(plan=plan, source=Source(trace=trace)))
    assert outcome.peak_guests == 5
    assert outcome.peak_percent["VCPU"] == 100 * 9 / 32
    run = start(Task(plan=plan, source=Source(trace=trace)))
    busiest = Busiest(run)
    run.play(busiest.look)
    found = busiest.tried()
    assert found is not None
    (hosts,) = [each for each in found.survives if each.kind == "host"]
    assert (hosts.survives, hosts.of) == (2, 4)  # 9 vCPUs do not fit on one
    failures = tuple(Outage(at_hours=0.5, hours=0.2, host=name) for name in ("n1", "n3"))
    changed = msgspec.structs.replace(plan, failures=failures)
    longer = written(tmp_path, "arrival_s,vcpus,memory_gb\n0,1,1\n7200,1,1\n")
    disrupted = execute(Task(plan=changed, source=Source(trace=longer))).disruption
    assert disrupted is not None
    assert (disrupted.stopped, disrupted.evacuated, disrupted.lost) == (2, 2, 0)  # n1's, and the trace's on n3


def test_devices_of_custom_classes_below_the_hosts_are_taken_and_given_back(tmp_path: Path) -> None:
    """Three hosts with a mediated device each: of four guests one is refused, and a later one takes one that is free
    again. A guest that asks for more than a host has fits none."""
    path = state(tmp_path)
    fleet = Engine(load(path)).fleet
    for at in (1, 2, 3):
        fleet.add_provider(f"card-{at}", parent=f"n{at}")
        fleet.set_inventory(f"card-{at}", {"CUSTOM_MDEV": Inventory(total=1)})
    save(fleet, path)
    come = "0,3600,1,1,resources:CUSTOM_MDEV=1\n" * 3 + "600,,1,1,resources:CUSTOM_MDEV=1\n"
    head, late = "arrival_s,departure_s,vcpus,memory_gb,extra_specs\n", "7200,,1,1,resources:CUSTOM_MDEV=1\n"
    trace = written(tmp_path, head + come + late)
    outcome = execute(Task(plan=with_state(None, path), source=Source(trace=trace)))
    assert (outcome.placed, outcome.refused) == (4, 1)
    more = written(tmp_path, "arrival_s,vcpus,memory_gb,extra_specs\n0,1,1,resources:CUSTOM_MDEV=2\n")
    with pytest.raises(InvalidValue, match="fits no host"):
        execute(Task(plan=with_state(None, path), source=Source(trace=more)))
