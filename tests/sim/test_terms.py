"""What a trace says of guests beside their sizes: groups of every policy, wishes, projects, priorities, and what they
use of their CPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hostler.core.cli import main
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.request import Flavor, RequestSpec
from hostler.sim.questions.tasks import Source, Task, execute, start
from hostler.sim.run.contention import Contention
from hostler.sim.run.fleet_plan import FleetPlan, Hardware, Outage
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.terms import Terms, Usage

from .values import written


def _sized(vcpus: int, **extra: str) -> RequestSpec:
    return RequestSpec(flavor=Flavor(name="f", vcpus=vcpus, memory_mb=1024, extra_specs=extra))


def plan(hosts: int, vcpus: int = 4, **more: Any) -> FleetPlan:
    return FleetPlan(hardware=(Hardware(name="h", count=hosts, vcpus=vcpus, memory_gb=64, **more),))


def played(folder: Path, text: str, fleet: FleetPlan, **more: Any) -> Any:
    run = start(Task(plan=fleet, source=Source(trace=written(folder, text)), **more))
    return run.play(), run


@pytest.mark.parametrize(
    ("policy", "policy_of_hosts", "hosts_used", "refused"),
    [
        ("anti-affinity", "best-fit", 2, 1),
        ("affinity", "worst-fit", 1, 0),
        ("soft-anti-affinity", "best-fit", 2, 0),
        ("soft-affinity", "worst-fit", 1, 0),
    ],
)
def test_a_group_spreads_as_its_policy_says(
    policy: str, policy_of_hosts: str, hosts_used: int, refused: int, tmp_path: Path
) -> None:
    """Three guests of one vCPU on two hosts of four."""
    text = "arrival_s,vcpus,memory_gb,group,group_policy\n" + f"0,1,1,g,{policy}\n" * 3
    outcome, run = played(tmp_path, text, plan(2), policy=policy_of_hosts)
    fleet = run.engine.fleet
    assert sum(bool(fleet.instances(fleet.row(place.host))) for place in run.site.places) == hosts_used
    assert outcome.refused == refused


def test_so_many_guests_of_a_group_share_a_host_as_it_allows(tmp_path: Path) -> None:
    text = "arrival_s,vcpus,memory_gb,group,most_per_host\n" + "0,1,1,g,2\n" * 5
    outcome, _ = played(tmp_path, text, plan(2))
    assert (outcome.placed, outcome.refused) == (4, 1)


def test_custom_resources_and_traits_find_the_hosts_that_have_them(tmp_path: Path) -> None:
    """Two FPGAs are on the one fast host: of three guests that want one, two are placed, and none that shuns it."""
    fleet = plan(1, 16, traits=("CUSTOM_FAST",), resources={"CUSTOM_FPGA": 2})
    text = "arrival_s,vcpus,memory_gb,resources,traits\n" + "0,1,1,CUSTOM_FPGA=1,CUSTOM_FAST\n" * 3
    outcome, _ = played(tmp_path, text + "300,1,1,,!CUSTOM_FAST\n", fleet, refuse_impossible=True)
    assert (outcome.placed, outcome.refused) == (2, 2)


def test_a_guest_of_two_numa_cells_is_refused_where_a_host_has_one(tmp_path: Path) -> None:
    text = "arrival_s,vcpus,memory_gb,extra_specs\n0,2,2,hw:numa_nodes=2\n"
    assert played(tmp_path, text, plan(1, numa_cells=2), policy="best-fit")[0].refused == 0
    outcome, _ = played(tmp_path, text, plan(1, numa_cells=1), policy="best-fit", refuse_impossible=True)
    assert outcome.refused == 1


def test_a_project_is_known_to_the_engine(tmp_path: Path) -> None:
    _, run = played(tmp_path, "arrival_s,vcpus,memory_gb,project\n0,1,1,p1\n", plan(1))
    fleet = run.engine.fleet
    (uuid,) = fleet.instances(fleet.row("h-00001"))
    assert fleet.consumer(uuid).project_id == "p1"


def test_of_guests_that_come_together_the_greatest_priority_goes_first(tmp_path: Path) -> None:
    """Room for one: it is that of priority 5, though it is named last."""
    text = "arrival_s,vcpus,memory_gb,priority\n0,4,1,0\n0,4,2,1\n0,4,3,5\n"
    outcome, run = played(tmp_path, text, plan(1))
    (uuid,) = run.engine.fleet.instances(run.engine.fleet.row("h-00001"))
    assert run.spec_of(uuid).flavor.memory_mb == 3 * 1024
    assert outcome.refused == 2


def test_a_guest_takes_the_place_of_preemptible_ones_that_matter_less(tmp_path: Path) -> None:
    """A host full of four preemptible guests: one of two vCPUs takes the place of the two that came last."""
    text = "arrival_s,vcpus,memory_gb,priority,preemptible\n" + "0,1,1,0,1\n" * 4 + "600,2,1,1,0\n"
    outcome, run = played(tmp_path, text, plan(1))
    assert (outcome.placed, outcome.refused, outcome.preempted) == (5, 0, 2)
    assert outcome.unserved == 2
    assert run.alive == 3
    run.engine.fleet.check()


def test_guests_of_the_same_priority_are_not_preempted(tmp_path: Path) -> None:
    text = "arrival_s,vcpus,memory_gb,priority,preemptible\n" + "0,1,1,1,1\n" * 4 + "600,2,1,1,0\n"
    outcome, _ = played(tmp_path, text, plan(1))
    assert (outcome.refused, outcome.preempted) == (1, 0)


def test_a_preempted_guest_comes_back_when_there_is_room_and_it_may_wait(tmp_path: Path) -> None:
    text = "arrival_s,lifetime_s,vcpus,memory_gb,priority,preemptible\n0,9000,4,1,0,1\n600,1200,4,1,1,0\n"
    outcome, _ = played(tmp_path, text, plan(1), wait_hours=2.0)
    assert (outcome.preempted, outcome.unserved) == (1, 0)
    assert outcome.disruption is not None
    assert (outcome.disruption.evacuated, outcome.disruption.downtime_hours) == (1, round(1200 / 3600, 3))


@pytest.mark.parametrize(
    ("columns", "values", "words"),
    [
        ("group_policy", "apart", "group_policy is 'apart'"),
        ("most_per_host", "0", "most_per_host is '0'"),
        ("traits", "fast", "traits is 'fast'"),
        ("resources", "CUSTOM_A", "resources is 'CUSTOM_A'"),
        ("extra_specs", "hw", "extra_specs is 'hw'"),
        ("priority", "high", "priority is 'high'"),
        ("preemptible", "maybe", "preemptible is 'maybe'"),
        ("cpu_usage_percent,cpu_usage_p95_percent", "50,40", "cpu_usage_p95_percent is '40'"),
    ],
)
def test_what_is_wrong_with_a_term_is_said_with_its_line(columns: str, values: str, words: str, tmp_path: Path) -> None:
    trace = written(tmp_path, f"arrival_s,vcpus,memory_gb,{columns}\n0,1,1,{values}\n")
    with pytest.raises(HostlerError) as caught:
        read_trace(Path(trace))
    assert f"line 2: {words}" in str(caught.value)


def test_a_group_of_two_policies_is_an_error(tmp_path: Path) -> None:
    trace = written(tmp_path, "arrival_s,vcpus,memory_gb,group,group_policy\n0,1,1,g,affinity\n0,1,1,g,\n")
    with pytest.raises(HostlerError, match="unlike that of other guests of its group"):
        read_trace(Path(trace))


# what guests use


def test_contention_is_the_share_of_host_hours_in_which_guests_want_more(tmp_path: Path) -> None:
    """Over-commit of 2 on 4 cores: eight guests that use half of a vCPU want all four for one hour of two."""
    text = "arrival_s,lifetime_s,vcpus,memory_gb,cpu_usage_percent\n" + "0,3600,1,1,50\n" * 8 + "0,7200,1,1,0\n"
    outcome, _ = played(tmp_path, text, plan(1, cpu_allocation_ratio=3.0))
    assert outcome.contention == {"70": 50.0, "80": 50.0, "90": 50.0, "100": 0.0}


def test_a_trace_without_usage_tells_nothing_of_contention(tmp_path: Path) -> None:
    assert played(tmp_path, "arrival_s,vcpus,memory_gb\n0,1,1\n", plan(1))[0].contention is None


def test_demand_is_normal_with_the_guests_means_and_variances() -> None:
    """16 guests of 1 vCPU, mean 0.5, 95th percentile 0.5 + 1.645 * 0.25: together 8 ± 1, above 9 with 15.87 %."""
    usage = Usage(mean=0.5, p95=0.5 + 1.6448536 * 0.25)
    found = Contention(None, [Terms(usage=usage)], [_sized(1)])  # type: ignore[arg-type]  # the engine is not asked
    for number in range(16):
        found.came(f"g{number}", 0, 0)
    found.passed(300, np.array([0]), np.array([9.0]))
    assert abs(found.percent()["100"] - 15.8655) < 0.001


def test_guests_with_cpus_of_their_own_want_none_of_those_that_are_shared() -> None:
    usage = Usage(mean=1.0, p95=1.0)
    alone = _sized(4, **{"hw:cpu_policy": "dedicated"})
    found = Contention(None, [Terms(usage=usage)] * 2, [_sized(4), alone])  # type: ignore[arg-type]  # as above
    found.came("a", 0, 1)
    found.passed(300, np.array([0]), np.array([1.0]))
    assert found.percent()["90"] == 0.0


def test_a_guest_that_moves_or_leaves_takes_its_demand_along() -> None:
    found = Contention(None, [Terms(usage=Usage(mean=1.0, p95=1.0))], [_sized(4)])  # type: ignore[arg-type]  # as above
    found.came("a", 0, 0)
    found.moved("a", 1)
    found.passed(300, np.array([0, 1]), np.array([4.0, 4.0]))
    assert found.percent()["90"] == 50.0
    found.left(["a", "b"])
    found.passed(300, np.array([0, 1]), np.array([4.0, 4.0]))
    assert found.percent()["90"] == 25.0


def prometheus(folder: Path, series: dict[str, list[str]]) -> str:
    result = [
        {"metric": {"domain": name}, "values": [[60 * at, text] for at, text in enumerate(values)]}
        for name, values in series.items()
    ]
    return written(
        folder, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}), "p.json"
    )


def test_usage_comes_from_prometheus_by_the_ids_of_guests(tmp_path: Path) -> None:
    usage = prometheus(tmp_path, {"a": ["40", "60"], "b": ["0"] * 19 + ["100"]})
    trace = written(tmp_path, "id,arrival_s,vcpus,memory_gb\na,0,4,1\nb,0,4,1\nc,0,4,1\n")
    found = read_trace(Path(trace), usage=Path(usage))
    terms = [found.terms[number].usage for number in found.spec.tolist()]
    assert terms == [Usage(mean=0.5, p95=0.6), Usage(mean=0.05, p95=0.05), None]
    assert found.specs[0] is found.specs[1]
    assert "CPU usage of 2 of 3 guests is known" in found.notes


def test_usage_that_names_no_guest_is_an_error(tmp_path: Path) -> None:
    trace = written(tmp_path, "id,arrival_s,vcpus,memory_gb\na,0,4,1\n")
    with pytest.raises(HostlerError, match="names no guest"):
        read_trace(Path(trace), usage=Path(prometheus(tmp_path, {"x": ["1"]})))
    with pytest.raises(HostlerError, match="no range result"):
        read_trace(Path(trace), usage=Path(trace))


def test_compare_shows_the_risk_of_over_commit_beside_its_gain(tmp_path: Path, capsys: Any) -> None:
    text = "arrival_s,lifetime_s,vcpus,memory_gb,cpu_usage_percent\n" + "0,7200,1,1,60\n" * 12
    shape = ["--hosts", "1", "--vcpus", "4", "--memory-gb", "64"]
    args = ["simulate", "compare", "--trace", written(tmp_path, text), *shape, "--policies", "nova"]
    assert main([*args, "--cpu-ratios", "1,2,4"]) == 0
    found = capsys.readouterr().out
    assert "host-hours above 90 % of the cores" in " ".join(found.split())
    assert main([*args, "--cpu-ratios", "1,2,4", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)["compared"]
    assert [each["refused_percent"]["mean"] for each in compared] == [66.6667, 33.3333, 0.0]
    assert [each["contention_percent"]["90"] for each in compared] == [0.0, 100.0, 100.0]


def test_an_interrupted_run_with_usage_and_preemptible_guests_goes_on_to_the_same_end(tmp_path: Path) -> None:
    from hostler.sim.run import checkpoint
    from hostler.sim.run.headroom import Busiest

    text = "arrival_s,vcpus,memory_gb,priority,preemptible,cpu_usage_percent\n"
    text += "".join(f"{300 * at},1,1,{at % 3},{at % 2},{10 * at}\n" for at in range(9))
    task = Task(plan=plan(1), source=Source(trace=written(tmp_path, text)), wait_hours=1.0)
    whole = execute(task)
    first = start(task)
    first.play(lambda: first.played < 6)
    checkpoint.save(first, Busiest(first), "t", tmp_path / "kept")
    second = start(task)
    checkpoint.resume(second, Busiest(second), "t", tmp_path / "kept")
    assert second.play() == whole


def test_a_weigher_reads_how_long_a_guest_is_expected_to_stay(tmp_path: Path) -> None:
    """In hours, up to the next power of two."""
    rows = "0,300,1,1,\n0,300,1,1,900\n0,300,1,1,18000\n0,300,1,1,28800\n"
    trace = read_trace(Path(written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb,expected_lifetime_s\n" + rows)))
    specs = [trace.specs[spec] for spec in trace.spec.tolist()]
    assert [spec.flavor.extra_specs.get("hostler:expected_lifetime_h") for spec in specs] == [None, "1", "8", "8"]


def racks(hosts: int, **changes: Any) -> FleetPlan:
    """Hosts for four guests each in three racks."""
    return FleetPlan(hardware=(Hardware(name="h", count=hosts, vcpus=4, memory_gb=8, racks=3),), **changes)


def by_rack(run: Any) -> dict[str, int]:
    """Guests by rack."""
    fleet, found = run.engine.fleet, dict[str, int]()
    for place in run.site.places:
        rack = place.rack[-2:]
        found[rack] = found.get(rack, 0) + len(fleet.instances(fleet.row(place.host)))
    return found


SPREAD = "arrival_s,vcpus,memory_gb,group,group_policy,most_per_host,fault_domain\n"


def test_members_are_spread_over_racks_one_by_one(tmp_path: Path) -> None:
    """Five guests on six hosts, under a policy that would fill the first host."""
    trace = written(tmp_path, SPREAD + "0,1,1,a,anti-affinity,4,rack\n" * 5)
    run = start(Task(plan=racks(6), source=Source(trace=trace), policy="first-fit"))
    run.play()
    assert by_rack(run) == {"r1": 2, "r2": 2, "r3": 1}


def test_a_member_is_refused_where_only_a_fuller_domain_has_room(tmp_path: Path) -> None:
    """A guest fills the host of the second rack; the group's third member may not join the first rack."""
    rows = "0,4,8,,,,\n" + "300,1,1,a,anti-affinity,4,rack\n" * 3
    run = start(Task(plan=racks(3), source=Source(trace=written(tmp_path, SPREAD + rows)), policy="first-fit"))
    outcome = run.play()
    assert (outcome.placed, outcome.refused) == (3, 1)
    assert list(outcome.refusals) == ["fault domain: rack"]


def test_members_are_spread_again_after_a_failure(tmp_path: Path) -> None:
    """The rack of two members fails: its guests go to the other two, one each."""
    trace = written(tmp_path, SPREAD + "0,1,1,a,anti-affinity,4,rack\n" * 6 + "9000,1,1,,,,\n")
    outage = Outage(rack="zone-1/h-r1", at_hours=1, hours=2)
    run = start(Task(plan=racks(6, failures=(outage,)), source=Source(trace=trace), policy="first-fit"))
    assert run.play().disruption is not None
    assert {rack: count for rack, count in by_rack(run).items() if rack != "r1"} in (
        {"r2": 3, "r3": 4},
        {"r2": 4, "r3": 3},
    )


def test_a_fault_domain_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostlerError, match="fault_domain"):
        read_trace(Path(written(tmp_path, SPREAD + "0,1,1,a,anti-affinity,4,room\n")))


def test_domains_in_which_a_guest_could_not_stand_are_not_waited_for(tmp_path: Path) -> None:
    """Racks of two zones: members that are bound to zone a are spread over its two racks; those of 8 GPUs stay on the
    one rack whose hosts have them."""
    kinds = (
        Hardware(name="h", count=4, vcpus=4, memory_gb=8, zones=("a", "b"), racks=2),
        Hardware(name="g", count=2, vcpus=4, memory_gb=8, zones=("b",), racks=1, gpus=4),
    )
    header = SPREAD.replace("\n", ",zone,gpus\n")
    rows = "0,1,1,a,anti-affinity,9,rack,a,\n" * 4 + "0,1,1,b,anti-affinity,9,rack,,2\n" * 2
    plan = FleetPlan(hardware=kinds)
    run = start(Task(plan=plan, source=Source(trace=written(tmp_path, header + rows)), policy="first-fit"))
    outcome = run.play()
    assert (outcome.placed, outcome.refused) == (6, 0)
    fleet = run.engine.fleet
    found = {p.rack: len(fleet.instances(fleet.row(p.host))) for p in run.site.places if p.zone == "a"}
    assert list(found.values()) == [2, 2]


def test_rules_that_would_do_nothing_are_refused(tmp_path: Path) -> None:
    for text, words in (
        (SPREAD + "0,1,1,,anti-affinity,4,rack\n", "line 2: fault_domain is 'rack', of a guest that is in no group"),
        (SPREAD + "0,1,1,a,affinity,,rack\n", "line 2: fault_domain is 'rack', but guests of an affinity group"),
        (SPREAD + "0,1,1,a,,2,rack\n0,1,1,a,,2,zone\n", "line 3: fault_domain is 'zone', unlike"),
        ("arrival_s,vcpus,memory_gb,group_policy\n0,1,1,affinity\n", "of a guest that is in no group"),
    ):
        with pytest.raises(HostlerError) as error:
            read_trace(Path(written(tmp_path, text)))
        assert words in str(error.value)
    trace = written(tmp_path, SPREAD + "0,1,1,a,anti-affinity,4,row\n")
    with pytest.raises(HostlerError, match="spread by row, but no host has one"):
        start(Task(plan=racks(6), source=Source(trace=trace), policy="first-fit"))
