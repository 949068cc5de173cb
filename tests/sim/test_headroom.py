"""What is said of failures, against the trial of every set of hosts, placed by hand."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hostler.sim.run import failure_trials
from hostler.sim.run.failure_trials import Survival, Trials
from hostler.sim.run.fleet_plan import FleetPlan, Hardware, Outage
from hostler.sim.run.headroom import Busiest, Headroom
from hostler.sim.run.policies import policy_of
from hostler.sim.run.run import Run
from hostler.sim.trace.files import read_trace

from .values import written

HEADER = "arrival_s,vcpus,memory_gb\n"


def tried(folder: Path, rows: str, plan: FleetPlan, policy: str = "best-fit") -> tuple[Headroom, Run]:
    run = Run(plan, read_trace(Path(written(folder, HEADER + rows))), policy_of(policy))
    busiest = Busiest(run)
    run.play(busiest.look)
    told = busiest.tried()
    assert told is not None
    return told, run


def survival(told: Headroom, kind: str = "host") -> Survival:
    return next(each for each in told.survives if each.kind == kind)


def test_a_host_that_alone_has_room_for_a_guest_is_missed(tmp_path: Path) -> None:
    """The guest of 300 GiB fits the fat host only, which is not the fullest by vCPUs."""
    kinds = (
        Hardware(name="big", count=3, vcpus=64, memory_gb=256),
        Hardware(name="fat", count=1, vcpus=32, memory_gb=512),
    )
    told, _ = tried(tmp_path, "0,8,300\n" + "300,1,1\n" * 60, FleetPlan(hardware=kinds))
    assert survival(told) == Survival(kind="host", survives=0, of=4, found=1, which=["fat-00001"])


def test_hosts_that_are_down_are_none_of_those_that_may_fail(tmp_path: Path) -> None:
    kind = Hardware(name="h", count=4, vcpus=4, memory_gb=8)
    plan = FleetPlan(hardware=(kind,), failures=(Outage(host="h-00004", at_hours=0, hours=100),))
    told, run = tried(tmp_path, "0,4,4\n300,4,4\n", plan)
    assert survival(told).of == 3
    assert told.used_percent["VCPU"] == 66.667
    assert run.samples[-1].used_percent["all"]["VCPU"] == 66.667


def test_racks_and_zones_are_tried_each(tmp_path: Path) -> None:
    kind = Hardware(name="h", count=6, vcpus=4, memory_gb=8, zones=("a", "b", "c"), racks=2)
    told, _ = tried(tmp_path, "0,4,4\n" * 4, FleetPlan(hardware=(kind,)), "worst-fit")
    assert survival(told, "zone") == Survival(kind="zone", survives=1, of=3, found=2, which=["a", "b"])
    assert survival(told, "rack").survives == 2


def test_many_hosts_have_a_proven_number_and_a_worst_one_that_was_found(tmp_path: Path) -> None:
    kind = Hardware(name="h", count=40, vcpus=8, memory_gb=64)
    told, _ = tried(tmp_path, "0,1,1\n" * 160 + "0,3,2\n", FleetPlan(hardware=(kind,)), "worst-fit")
    found = survival(told)
    assert found.found is not None
    assert 1 <= found.survives < found.found
    # Each host has room for one guest as large as the largest, and four guests: 5 a host that fails, 39 in all.
    assert found.survives == 7


def test_gpus_bound_what_may_fail(tmp_path: Path) -> None:
    """Four guests of two whole GPUs each on six hosts with two: two hosts are empty, for the guests of any two."""
    kind = Hardware(name="g", count=6, vcpus=64, memory_gb=256, gpus=2)
    path = Path(written(tmp_path, "arrival_s,vcpus,memory_gb,gpus\n" + "0,1,1,2\n" * 4))
    run = Run(FleetPlan(hardware=(kind,)), read_trace(path), policy_of("worst-fit"))
    busiest = Busiest(run)
    run.play(busiest.look)
    told = busiest.tried()
    assert told is not None
    found = survival(told)
    assert (found.survives, found.found, found.of) == (2, 3, 6)


def test_failures_that_sums_decide_are_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty hosts, each with one guest and room for seven more: nothing is placed but for the losses that are told."""
    tries: list[tuple[str, ...]] = []
    fail = Trials._fail

    def counted(self: Trials, hosts: Sequence[str]) -> tuple[int, int]:
        tries.append(tuple(hosts))
        return fail(self, hosts)

    monkeypatch.setattr(Trials, "_fail", counted)
    kind = Hardware(name="h", count=60, vcpus=8, memory_gb=64)
    told, _ = tried(tmp_path, "0,1,1\n" * 60, FleetPlan(hardware=(kind,)), "worst-fit")
    assert (survival(told).survives, survival(told).found) == (52, 53)
    assert len(tries) == len(told.losses)


HOSTS = st.lists(st.tuples(st.integers(2, 8), st.integers(2, 12)), min_size=2, max_size=5)
GUESTS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=14)


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(HOSTS, GUESTS, st.booleans())
def test_claims_hold_for_every_set_of_hosts(
    hosts: list[tuple[int, int]], guests: list[tuple[int, int]], few: bool
) -> None:
    """Each set of as many hosts as are said to be able to fail is failed by hand, with the same rule for who goes
    where; with ``few`` no sets are tried by the program but single hosts."""
    kinds = tuple(Hardware(name=f"k{n}", count=1, vcpus=v, memory_gb=g) for n, (v, g) in enumerate(hosts))
    rows = "".join(f"0,{vcpus},{gib}\n" for vcpus, gib in guests)
    before, failure_trials.FEW = failure_trials.FEW, 300 if few else 0  # type: ignore[misc]  # a constant
    try:
        with tempfile.TemporaryDirectory() as folder:
            try:
                told, run = tried(Path(folder), rows, FleetPlan(hardware=kinds), "first-fit")
            except AssertionError:
                return  # no guest found a host
            fleet = run.engine.fleet
            here = {
                place.host: [run.spec_of(uuid).flavor for uuid in sorted(fleet.instances(fleet.row(place.host)))]
                for place in run.site.places
            }
    finally:
        failure_trials.FEW = before  # type: ignore[misc]  # as above
    found = survival(told)
    sizes = {place.host: hosts[number] for number, place in enumerate(run.site.places)}

    def survives(failing: tuple[str, ...]) -> bool:
        left = {name: [v, g * 1024] for name, (v, g) in sizes.items() if name not in failing}
        for name in left:
            for flavor in here[name]:
                left[name][0] -= flavor.vcpus
                left[name][1] -= flavor.memory_mb
        moved = [flavor for name in failing for flavor in here[name]]
        for flavor in sorted(moved, key=lambda each: (-each.vcpus, -each.memory_mb)):
            fits = [n for n, (v, m) in left.items() if v >= flavor.vcpus and m >= flavor.memory_mb]
            if not fits:
                return False
            left[fits[0]][0] -= flavor.vcpus
            left[fits[0]][1] -= flavor.memory_mb
        return True

    for together in range(1, found.survives + 1):
        assert all(survives(failing) for failing in itertools.combinations(sizes, together))
    if found.found is not None:
        assert not survives(tuple(found.which))
        if found.found == found.survives + 1 == 1:
            assert not all(survives((name,)) for name in sizes)
