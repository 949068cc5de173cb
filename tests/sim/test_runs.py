"""Runs: nothing is lost between requests and guests; waiting, failures, costs; made workloads; planning questions."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hostler.core.cli import main
from hostler.placement.policy.policy import Policy
from hostler.placement.types.errors import HostlerError, InvalidValue
from hostler.sim.questions import planning
from hostler.sim.questions.tasks import Source, Task, execute, outcomes, start
from hostler.sim.run.fleet_plan import FleetPlan, Growth, Hardware
from hostler.sim.run.headroom import Busiest
from hostler.sim.run.policies import policy_of
from hostler.sim.run.run import Run
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.generator import Made, devops, generate
from hostler.sim.trace.workload import NEVER

from .values import TRACE, plan, task, written

BUSY = "arrival_s,lifetime_s,vcpus,memory_gb\n" + "".join(f"{300 * n},2400,2,2\n" for n in range(60))


def test_a_run_accounts_for_every_request(tmp_path: Path) -> None:
    run = start(task(written(tmp_path), hosts=1))
    outcome = run.play()
    assert (outcome.requests, outcome.placed, outcome.refused) == (5, 3, 2)
    assert outcome.refusals == {"VCPU and MEMORY_MB": 2}
    assert sum(outcome.refused_by_day) == outcome.refused
    assert outcome.peak_percent["VCPU"] == 100.0
    run.site.fleet.check()
    guests = [uuid for place in run.site.places for uuid in run.site.fleet.instances(run.site.fleet.row(place.host))]
    assert len(guests) == run.alive
    used = int(run.site.fleet._store.inventory["used"][0].sum())
    assert used == sum(run.spec_of(uuid).flavor.vcpus for uuid in guests) > 0


def test_what_finds_no_host_may_wait(tmp_path: Path) -> None:
    outcome = execute(task(written(tmp_path), hosts=1, wait_hours=2.0))
    assert outcome.waited >= 1
    assert outcome.placed + outcome.refused + outcome.waiting == outcome.requests
    assert 0 < outcome.longest_wait_hours <= 2.0
    assert outcome.mean_wait_hours <= outcome.longest_wait_hours


@pytest.mark.parametrize("zone", ["zone-1", "zone-2"])
@pytest.mark.parametrize("extra_specs", ["", "hw:watchdog_action=reset", "hw:numa_nodes=1"])
def test_guests_may_ask_for_a_zone_whose_hosts_come_later(tmp_path: Path, zone: str, extra_specs: str) -> None:
    """Whatever follows from their flavors."""
    trace = written(
        tmp_path, f"arrival_s,vcpus,memory_gb,extra_specs,zone\n0,1,1,,zone-1\n300,2,4,{extra_specs},{zone}\n"
    )
    kinds = [
        Hardware(name=name, count=count, vcpus=8, memory_gb=24, numa_cells=2, zones=(zone,))
        for name, count, zone in (("a", 2, "zone-1"), ("b", 0, "zone-2"))
    ]
    fleet = FleetPlan(hardware=tuple(kinds), growth=(Growth(hardware="b", add=2, at_hours=1.0),))
    policy = policy_of("nova", filters=["NUMATopologyFilter"])
    outcome = Run(fleet, read_trace(Path(trace)), policy, wait_hours=3.0).play()
    assert (outcome.placed, outcome.refused, outcome.waited) == (2, 0, int(zone == "zone-2"))
    assert Run(fleet, read_trace(Path(trace)), policy).play().refused == int(zone == "zone-2")


@pytest.mark.parametrize(
    ("extra_specs", "named"), [("pci_passthrough:alias=gpu:1", "gpu"), ("hw:numa_nodes=1", "NUMATopologyFilter")]
)
def test_guests_that_a_policy_cannot_judge_are_told_before_a_run(tmp_path: Path, extra_specs: str, named: str) -> None:
    trace = written(tmp_path, f"arrival_s,vcpus,memory_gb,extra_specs\n0,1,1,\n900000,2,4,{extra_specs}\n")
    with pytest.raises(HostlerError, match=named):
        Run(FleetPlan(hardware=plan().hardware), read_trace(Path(trace)), policy_of("nova"))


def test_costs_follow_hosts_and_hours(tmp_path: Path) -> None:
    outcome = execute(task(written(tmp_path)))
    assert outcome.cost == pytest.approx(3 * 2.0 * outcome.hours, abs=0.01)
    burst = msgspec.structs.replace(task(written(tmp_path), hosts=1), plan=plan(1, burst_price_per_vcpu_hour=1.0))
    assert execute(burst).burst_cost > 0


def test_guests_beyond_a_threshold_go_to_a_public_cloud(tmp_path: Path) -> None:
    """Of three hosts' twelve vCPUs half may be given: of eight guests of one vCPU six stay, and two are bought for ten
    minutes; then there is room again."""
    guests = "arrival_s,lifetime_s,vcpus,memory_gb\n" + "0,600,1,1\n" * 8 + "600,600,1,1\n"
    bought = plan(3, burst_above_percent=50.0, burst_price_per_vcpu_hour=3.0)
    asked = msgspec.structs.replace(task(written(tmp_path, guests)), plan=bought)
    outcome = execute(asked)
    assert (outcome.placed, outcome.burst, outcome.refused, outcome.waiting) == (7, 2, 0, 0)
    assert outcome.burst_cost == pytest.approx(2 * 600 / 3600 * 3.0)
    assert outcome.peak_percent["VCPU"] == 50.0
    nobody = execute(msgspec.structs.replace(asked, plan=plan(3, burst_above_percent=0.0)))
    assert (nobody.placed, nobody.burst) == (0, 9)
    assert execute(msgspec.structs.replace(asked, plan=plan(3))).burst == 0


def test_a_run_can_be_ended_early_and_says_so(tmp_path: Path) -> None:
    steps = iter([True, True, False])
    outcome = start(task(written(tmp_path))).play(lambda: next(steps), every_step=True)
    assert outcome.interrupted
    assert outcome.hours == pytest.approx(0.25)


def test_failures_are_tried_when_busiest_and_change_nothing(tmp_path: Path) -> None:
    run = start(task(written(tmp_path), hosts=3))
    busiest = Busiest(run)
    outcome = run.play(busiest.look)
    told = busiest.tried()
    assert outcome == start(task(written(tmp_path), hosts=3)).play()
    assert told is not None
    assert told.guests == outcome.peak_guests
    assert told.used_percent == outcome.peak_percent
    assert told.losses[0].guests >= 1
    assert run.engine.fleet.column("service_up")[run.site.fleet.is_host].all()


@pytest.mark.parametrize(("hosts", "survives"), [(2, 0), (3, 1), (5, 3)])
def test_so_many_hosts_may_fail_until_a_guest_finds_none(tmp_path: Path, hosts: int, survives: int) -> None:
    """Eight guests of one vCPU, on hosts of four."""
    guests = "arrival_s,lifetime_s,vcpus,memory_gb\n" + "0,600,1,1\n" * 8 + "1200,600,1,1\n"
    kind = Hardware(name="small", count=hosts, vcpus=4, memory_gb=64)
    run = Run(FleetPlan(hardware=(kind,)), read_trace(Path(written(tmp_path, guests))), policy_of("worst-fit"))
    busiest = Busiest(run)
    run.play(busiest.look)
    told = busiest.tried()
    assert told is not None
    assert [(each.kind, each.survives, each.of) for each in told.survives] == [("host", survives, hosts)]
    assert (told.at_hours, told.guests) == (0.0, 8)
    assert bool(told.losses[0].homeless) == (survives == 0)


def test_members_of_a_group_that_lose_their_hosts_stay_apart(tmp_path: Path) -> None:
    guests = "arrival_s,vcpus,memory_gb,group\n" + "0,1,1,g\n" * 3
    kind = Hardware(name="small", count=3, vcpus=4, memory_gb=64)
    run = Run(FleetPlan(hardware=(kind,)), read_trace(Path(written(tmp_path, guests))), policy_of("nova"))
    busiest = Busiest(run)
    run.play(busiest.look)
    told = busiest.tried()
    assert told is not None
    assert (told.survives[0].survives, told.losses[0].homeless) == (0, 1)


def test_nothing_is_tried_under_a_policy_that_would_use_hosts_that_are_down(tmp_path: Path) -> None:
    careless = Policy.from_toml("[filter_scheduler]\nenabled_filters = []\n")
    run = Run(plan(), read_trace(Path(written(tmp_path))), careless)
    busiest = Busiest(run)
    run.play(busiest.look)
    assert busiest.tried() is None


def test_made_guests_follow_the_trace(tmp_path: Path) -> None:
    trace = read_trace(Path(written(tmp_path, BUSY)))
    made = generate(trace, hours=240, seed=1)
    assert generate(trace, hours=240, seed=1).arrival_s.tolist() == made.arrival_s.tolist()
    assert generate(trace, hours=240, seed=2).arrival_s.tolist() != made.arrival_s.tolist()
    assert len(made) == pytest.approx(12 * 240, rel=0.1)
    assert set((made.departure_s - made.arrival_s).tolist()) == {2400}
    grown = generate(trace, hours=24 * 365, seed=1, growth_per_year=1.0)
    first, second = np.histogram(grown.arrival_s, 2)[0]
    assert second / first == pytest.approx(2**0.5, rel=0.05)


def test_days_of_the_week_differ_as_they_do_in_a_trace_that_tells_of_one(tmp_path: Path) -> None:
    per_day, hour = (40, 30, 20, 10, 60, 10, 0), 3600
    rows = [(day * 24 + 8 + n % 10) * hour for day in range(14) for n in range(per_day[day % 7])]
    text = "arrival_s,lifetime_s,vcpus,memory_gb\n" + "".join(f"{at},600,1,1\n" for at in (0, *rows, 14 * 86_400 - 1))
    made = generate(read_trace(Path(written(tmp_path, text))), hours=24 * 7 * 50, seed=1)
    counts = np.bincount(made.arrival_s // 86_400 % 7, minlength=7) / 50
    assert counts == pytest.approx([40.5, 30, 20, 10, 60, 10, 0.5], rel=0.1, abs=0.3)
    assert np.bincount(made.arrival_s % 86_400 // 3600, minlength=24)[[7, 18, 22]].tolist() == [0, 0, 0]


def test_a_snapshot_with_a_guest_a_day_is_full_when_the_71st_has_come(tmp_path: Path) -> None:
    """930 guests stand at the end on room for 1,000. The trace ends with its 30th arrival, so that 29 have come in 29
    days: one a day, and the 71st arrival of such a process is on day 71 at the median, by the gamma distribution."""
    rows = "0,1,1\n" * 900 + "".join(f"{86_400 * day + 43_200},1,1\n" for day in range(30))
    trace = read_trace(Path(written(tmp_path, f"arrival_s,vcpus,memory_gb\n{rows}")))
    days = []
    for seed in range(200):
        made = Made(trace, hours=24 * 120, seed=seed, warm_up=True)
        assert made.standing == 930
        assert made.expected / 120 == pytest.approx(1.0, abs=0.005)
        arrival_s = np.concatenate([part.arrival_s for part in made.parts()])[930:]
        days.append(int(arrival_s[70]) // 86_400 + 1)
    # The standard error of a median of 200 is 0.75 days.
    assert abs(statistics.median(days) - 71) < 2.5


def test_a_trace_of_less_than_a_week_makes_all_days_alike(tmp_path: Path) -> None:
    text = "arrival_s,lifetime_s,vcpus,memory_gb\n" + "".join(
        f"{n % 6 * 86_400},600,1,1\n" for n in (*range(60), 0, 0, 0)
    )
    made = generate(read_trace(Path(written(tmp_path, text))), hours=24 * 7 * 100, seed=1)
    counts = np.bincount(made.arrival_s // 86_400 % 7, minlength=7)
    assert counts.tolist() == pytest.approx([counts.mean()] * 7, rel=0.15)


def test_lifetimes_that_the_trace_cut_off_are_drawn_from_longer_ones(tmp_path: Path) -> None:
    text = BUSY + "17700,,1,1\n" + "0,18000,1,1\n"
    made = generate(read_trace(Path(written(tmp_path, text))), hours=48, seed=1)
    assert NEVER not in made.departure_s.tolist()


@pytest.mark.parametrize(
    "wrong", [{"hours": 0.0}, {"hours": 1.0, "scale": 0.0}, {"hours": 1.0, "growth_per_year": -1.0}]
)
def test_workloads_that_cannot_be_made_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        generate(read_trace(Path(written(tmp_path))), seed=1, **wrong)


def test_builds_come_on_working_days_and_give_everything_back() -> None:
    week = devops(days=7, seed=3)
    days, builds = np.unique(week.arrival_s // 86_400, return_counts=True)
    assert days.tolist() == [0, 1, 2, 3, 4]
    assert builds.min() >= 50 * 30
    assert np.unique(week.batch, return_counts=True)[1].tolist() == [30] * int(week.batch.max() + 1)
    assert week.departure_s.max() < NEVER


def test_builds_grow_and_are_scaled() -> None:
    assert len(devops(days=28, seed=3, scale=3.0)) == pytest.approx(3 * len(devops(days=28, seed=3)), rel=0.1)
    grown = devops(days=365, seed=3, growth_per_year=3.0)
    first, last = (np.count_nonzero(grown.arrival_s // (28 * 86_400) == month) for month in (0, 12))
    assert last / first == pytest.approx(4.0 ** (12 * 28 / 365), rel=0.1)
    for wrong in ({"scale": 0.0}, {"growth_per_year": -1.0}, {"scale": 1e9}):
        with pytest.raises(InvalidValue):
            devops(seed=3, **wrong)  # type: ignore[arg-type]  # floats only


def test_the_size_found_holds_and_one_host_less_does_not(tmp_path: Path) -> None:
    found = planning.size(task(written(tmp_path, BUSY)))
    assert not found.interrupted
    assert found.hosts is not None
    assert found.hosts == found.at_least >= found.lower_bound >= 1
    assert execute(task(written(tmp_path, BUSY), hosts=found.hosts)).refused == 0
    assert execute(task(written(tmp_path, BUSY), hosts=found.hosts - 1)).refused > 0
    lenient = planning.size(task(written(tmp_path, BUSY)), target_percent=40.0)
    assert lenient.at_least <= found.hosts


def test_each_trial_narrows_down_how_many_hosts_are_needed(tmp_path: Path) -> None:
    known = list(planning.sizes(task(written(tmp_path, BUSY))))
    final = known[-1]
    assert (known[0].hosts, known[0].at_least, known[0].outcome) == (None, known[0].lower_bound, None)
    assert [len(each.trials) for each in known] == list(range(len(known)))
    assert [each.interrupted for each in known] == [True] * (len(known) - 1) + [False]
    for each in known:
        assert each.at_least <= final.at_least
        assert each.hosts is None or each.hosts >= final.at_least


SPIKE = (
    "arrival_s,lifetime_s,vcpus,memory_gb\n"
    + "0,300,4,8\n" * 10
    + "".join(f"{600 * n},300,4,8\n" for n in range(1, 11))
)


def test_a_target_or_waits_may_need_fewer_hosts_than_the_busiest_moment(tmp_path: Path) -> None:
    strict, target, waits = (
        planning.size(task(written(tmp_path, SPIKE), wait_hours=wait), target_percent=percent)
        for percent, wait in ((0.0, 0.0), (40.0, 0.0), (0.0, 5.0))
    )
    assert (strict.hosts, strict.lower_bound, strict.gap_percent) == (10, 10, 0.0)
    assert (target.hosts, target.lower_bound, target.gap_percent) == (2, 10, None)
    assert waits.hosts == 1


def test_hosts_that_come_later_count_for_the_bound(tmp_path: Path) -> None:
    trace = written(tmp_path, "arrival_s,vcpus,memory_gb\n0,1,1\n" + "18000,4,8\n" * 9)
    grown = msgspec.structs.replace(task(trace), plan=plan(growth=(Growth(hardware="small", add=20, at_hours=1),)))
    found = planning.size(grown)
    assert (found.hosts, found.lower_bound) == (1, 1)


def test_questions_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    asked = task(written(tmp_path))
    with pytest.raises(HostlerError, match="hardware"):
        planning.size(asked, hardware="large")
    with pytest.raises(InvalidValue, match="target"):
        planning.size(asked, target_percent=100.0)
    tiny = msgspec.structs.replace(plan(), hardware=(Hardware(name="t", count=1, vcpus=1, memory_gb=8),))
    with pytest.raises(InvalidValue, match="fits no host"):
        planning.size(msgspec.structs.replace(asked, plan=tiny))
    with pytest.raises(InvalidValue, match="horizon"):
        planning.forecast(asked, [1])


def made_task(trace: str, hours: float, growth: float = 0.0) -> Task:
    return Task(plan=plan(6), source=Source(trace=trace, made_hours=hours, growth_per_year=growth))


def test_growth_uses_capacity_up_on_a_day_within_a_band(tmp_path: Path) -> None:
    asked = made_task(written(tmp_path, BUSY), hours=24 * 60, growth=30.0)
    found = planning.forecast(asked, range(3), target_percent=5.0, workers=1)
    assert found.median_day is not None
    assert (found.banded, found.early_day, found.late_day) == (False, None, None)
    banded = planning.foreseen(planning.forecast_tasks(asked, range(12), target_percent=5.0), found.outcomes * 4)
    assert banded.banded
    assert banded.early_day is not None
    assert banded.late_day is not None
    assert banded.early_day <= found.median_day <= banded.late_day
    assert planning.forecast(asked, range(3), target_percent=5.0, workers=2) == found
    assert not found.interrupted
    tasks = planning.forecast_tasks(asked, range(3), target_percent=5.0)
    cut = planning.foreseen(tasks, found.outcomes[:1])
    assert (cut.interrupted, cut.days, cut.seeds) == (True, found.days[:1], 3)
    assert planning.foreseen(tasks, []).median_day is None
    roomy = msgspec.structs.replace(asked, plan=plan(500))
    assert planning.forecast(roomy, [0], target_percent=5.0).median_day is None


def test_sweeps_answer_alike_however_they_are_spread_and_go_on_where_they_were(tmp_path: Path) -> None:
    asked = made_task(written(tmp_path, BUSY), hours=24)
    tasks = planning.grid(asked, policies=["nova", "best-fit"], hosts=[4, 6], seeds=[0, 1])
    one = [outcome for _, outcome in outcomes(tasks, workers=1)]
    kept = tmp_path / "kept.jsonl"
    assert [outcome for _, outcome in outcomes(tasks, workers=2, resume=kept)] == one
    lines = kept.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(tasks)
    kept.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert [outcome for _, outcome in outcomes(tasks, workers=1, resume=kept)] == one
    assert kept.read_bytes().splitlines(keepends=True) == lines
    kept.write_bytes(b"{}\n")
    with pytest.raises(InvalidValue, match="line 1"):
        list(outcomes(tasks, resume=kept))
    compared = planning.compare(tasks, one)
    ways = [(each.policy, each.hosts, each.seeds) for each in compared]
    assert ways[:2] == [("nova", 4, [0, 1]), ("nova", 6, [0, 1])]


def test_a_cluster_of_two_workers_gives_the_same_outcomes(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    asked = made_task(written(tmp_path, BUSY), hours=12)
    tasks = planning.grid(asked, policies=["nova"], seeds=[0, 1, 2])
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        spread = [outcome for _, outcome in outcomes(tasks, cluster=cluster.scheduler_address)]
    assert spread == [outcome for _, outcome in outcomes(tasks, workers=1)]


def test_intervals_are_students() -> None:
    found = planning.interval([1.0, 2.0, 3.0])
    assert [found.low, found.mean, found.high] == pytest.approx([-0.4843, 2.0, 4.4843], abs=1e-3)
    assert planning.interval([5.0]).low is None


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    asked = made_task(written(tmp_path, BUSY), hours=24)
    assert msgspec.json.encode(execute(asked)) == msgspec.json.encode(execute(asked))


def test_a_policy_of_ones_own_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[hostler]\nname = "own"\n[filter_scheduler]\nram_weight_multiplier = -1.0\n')
    assert policy_of(str(path)).name == "own"
    assert execute(task(written(tmp_path, TRACE), policy=str(path))).policy == "own"
    with pytest.raises(HostlerError, match="policy"):
        policy_of("nove")


def test_run_takes_a_trace_without_departures_too(tmp_path: Path) -> None:
    trace = written(tmp_path, "arrival_s,vcpus,memory_gb\n0,1,1\n")
    assert Run(plan(1), read_trace(Path(trace)), policy_of("nova")).play().placed == 1


COMMANDS = [
    ["run"],
    ["size", "--target", "10"],
    ["forecast", "--days", "3", "--seeds", "2", "--workers", "1"],
    ["compare", "--policies", "nova,best-fit", "--workers", "1"],
    ["sweep", "--sizes", "3,4", "--cpu-ratios", "1,2", "--workers", "1"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_answer_in_words_and_in_json(tmp_path: Path, capsys: Any, command: list[str]) -> None:
    shape = ["--trace", written(tmp_path, BUSY), "--hosts", "3", "--vcpus", "4", "--memory-gb", "8"]
    arguments = ["simulate", *command, *shape]
    assert main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 1
    assert main([*arguments, "--json"]) == 0
    first = capsys.readouterr().out
    assert isinstance(json.loads(first), dict)
    assert main([*arguments, "--json"]) == 0
    assert capsys.readouterr().out == first


def test_bad_words_on_the_command_line_are_named(tmp_path: Path, capsys: Any) -> None:
    trace = written(tmp_path)
    for wrong in (["--columns", "x"], ["--policy", "nove"], ["--report", str(tmp_path / "x.doc")]):
        assert main(["simulate", "run", "--trace", trace, *wrong]) == 1
        assert "hostler:" in capsys.readouterr().err
    assert main(["simulate", "sweep", "--trace", trace, "--sizes", "3,x"]) == 1
