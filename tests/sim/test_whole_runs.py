"""A run counts everything that becomes of its guests: it goes on until the last of them has ended, and ``size`` counts
all that are not served."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hostler.placement.types.errors import InvalidValue
from hostler.sim.questions import planning
from hostler.sim.questions.tasks import Task, execute
from hostler.sim.run.fleet_plan import FleetPlan, Hardware, Outage

from .simulator import Guest, simulate
from .values import task, written

HEADER = "arrival_s,lifetime_s,vcpus,memory_gb\n"


def fleet(hosts: int, **changes: object) -> FleetPlan:
    kind = Hardware(name="h", count=hosts, vcpus=64, memory_gb=256, price_per_hour=2.0)
    return FleetPlan(hardware=(kind,), **changes)  # type: ignore[arg-type]  # tests pass what they please


def asked(folder: Path, rows: str, plan: FleetPlan, **changes: object) -> Task:
    return msgspec.structs.replace(task(written(folder, HEADER + rows)), plan=plan, **changes)


def test_size_counts_guests_that_wait_longer_than_they_may(tmp_path: Path) -> None:
    """A host serves one of the hundred guests in each of the hours 0 to 24."""
    found = planning.size(asked(tmp_path, "0,3600,64,1\n" * 100, fleet(1), wait_hours=24.0))
    assert found.hosts == 4
    assert planning.size(asked(tmp_path, "0,3600,64,1\n" * 100, fleet(1))).hosts == 100


def test_a_run_goes_on_until_the_last_guest_has_left(tmp_path: Path) -> None:
    outcome = execute(asked(tmp_path, "0,3600,64,1\n" * 100, fleet(1), wait_hours=24.0))
    assert (outcome.placed, outcome.refused, outcome.waiting, outcome.unserved) == (25, 75, 0, 75)
    assert (outcome.hours, outcome.guest_hours, outcome.cost) == (25.0, 25.0, 50.0)
    assert (outcome.mean_wait_hours, outcome.longest_wait_hours) == (12.5, 24.0)
    assert (outcome.requests_by_day, outcome.refused_by_day) == ([100, 0], [75, 0])


def test_a_run_ends_where_it_is_told(tmp_path: Path) -> None:
    outcome = execute(asked(tmp_path, "0,3600,64,1\n" * 100, fleet(1), wait_hours=24.0, until_hours=2.5))
    assert (outcome.hours, outcome.placed, outcome.waiting, outcome.unserved) == (2.5, 3, 97, 97)
    assert outcome.guest_hours == 2.5


def test_requests_that_may_wait_for_ever_are_not_served_when_nothing_leaves(tmp_path: Path) -> None:
    outcome = execute(asked(tmp_path, "0,,64,1\n" * 3, fleet(1), wait_hours=1e9))
    assert (outcome.placed, outcome.refused, outcome.waiting, outcome.unserved) == (1, 0, 2, 2)
    assert planning.size(asked(tmp_path, "0,,64,1\n" * 3, fleet(1), wait_hours=1e9)).hosts == 3


def test_size_counts_guests_that_are_lost_in_an_outage(tmp_path: Path) -> None:
    plan = fleet(2, failures=(Outage(host="h-00001", at_hours=5, hours=1),))
    found = planning.size(asked(tmp_path, "0,,32,1\n" * 4 + "43200,3600,1,1\n", plan))
    assert found.hosts == 3


def test_guests_that_run_elsewhere_are_paid_for_their_whole_life_and_not_served(tmp_path: Path) -> None:
    plan = fleet(2, burst_above_percent=50.0, burst_price_per_vcpu_hour=1.0)
    outcome = execute(asked(tmp_path, "0,3600,64,1\n" * 100, plan))
    assert (outcome.placed, outcome.burst, outcome.unserved) == (1, 99, 99)
    assert outcome.burst_cost == 99 * 64.0
    assert planning.size(asked(tmp_path, "0,3600,64,1\n" * 10, plan)).hosts == 20


def test_guests_elsewhere_without_an_end_are_paid_until_the_run_ends(tmp_path: Path) -> None:
    plan = fleet(1, burst_above_percent=0.0, burst_price_per_vcpu_hour=1.0)
    outcome = execute(asked(tmp_path, "0,,64,1\n" + "0,7200,1,1\n", plan))
    assert outcome.burst_cost == pytest.approx(2 * 64 + 2)


ROWS = st.builds(
    Guest,
    arrives=st.integers(0, 20_000),
    stays=st.none() | st.integers(0, 30_000),
    vcpus=st.integers(1, 6),
    gib=st.integers(1, 8),
)


@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.lists(ROWS, min_size=1, max_size=25),
    st.integers(1, 3),
    st.sampled_from([0, 1200, 7200, 36_000]),
    st.none() | st.sampled_from([3000, 19_800, 90_000]),
)
def test_runs_agree_with_a_simulator_that_shares_nothing_with_them(
    guests: list[Guest], hosts: int, wait: int, until: int | None
) -> None:
    rows = "".join(f"{g.arrives},{'' if g.stays is None else g.stays},{g.vcpus},{g.gib}\n" for g in guests)
    first = min(guest.arrives for guest in guests) // 300 * 300
    shifted = [Guest(g.arrives - first, g.stays, g.vcpus, g.gib) for g in guests]
    known = simulate(shifted, hosts, 8, 16, wait, until)
    plan = FleetPlan(hardware=(Hardware(name="h", count=hosts, vcpus=8, memory_gb=16),))
    with tempfile.TemporaryDirectory() as folder:
        given_until = None if until is None else until / 3600
        played = asked(Path(folder), rows, plan, policy="first-fit", wait_hours=wait / 3600, until_hours=given_until)
        outcome = execute(played)
    assert (outcome.placed, outcome.refused, outcome.waiting) == (known.placed, known.refused, known.waiting)
    assert outcome.waited == len(known.waits)
    assert outcome.longest_wait_hours == pytest.approx(max(known.waits, default=0) / 3600, abs=1e-4)
    assert outcome.guest_hours == pytest.approx(known.guest_seconds / 3600, abs=1e-3)
    assert outcome.unserved == known.refused + known.waiting


def test_a_trace_that_changes_is_read_again(tmp_path: Path) -> None:
    for guests in (1, 5, 3):
        assert execute(asked(tmp_path, "0,,1,1\n" * guests, fleet(1))).requests == guests


def test_the_bound_of_size_is_that_of_a_packing(tmp_path: Path) -> None:
    """Of guests of 33 of 64 vCPUs no two share a host, though their sum fits six."""
    found = planning.size(asked(tmp_path, "0,3600,33,1\n" * 10, fleet(1)))
    assert (found.hosts, found.lower_bound, found.gap_percent) == (10, 10, 0.0)


def test_the_bound_of_size_counts_gpus_and_groups(tmp_path: Path) -> None:
    kind = Hardware(name="g", count=1, vcpus=64, memory_gb=256, gpus=1, gpu_model="T4")
    header = "arrival_s,lifetime_s,vcpus,memory_gb,gpus,gpu_milli,group\n"
    for rows, least in (
        ("0,3600,1,1,1,1000,\n" * 8, 8),
        ("0,3600,1,1,1,600,\n" * 5, 5),
        ("0,3600,1,1,1,500,\n" * 6, 3),
        ("0,3600,1,1,0,0,g\n" * 7, 7),
    ):
        trace = task(written(tmp_path, header + rows))
        found = planning.size(msgspec.structs.replace(trace, plan=FleetPlan(hardware=(kind,))))
        assert (found.hosts, found.lower_bound) == (least, least)


def test_what_bound_a_refused_guest_is_what_would_have_placed_it(tmp_path: Path) -> None:
    header = "arrival_s,vcpus,memory_gb,zone\n"
    kind = Hardware(name="h", count=4, vcpus=4, memory_gb=16, zones=("a", "b"))

    def refusals(rows: str, **changes: object) -> dict[str, int]:
        plan = FleetPlan(hardware=(kind,), **changes)  # type: ignore[arg-type]  # tests pass what they please
        return execute(msgspec.structs.replace(task(written(tmp_path, header + rows)), plan=plan)).refusals

    assert refusals("0,4,4,\n" * 5) == {"VCPU": 1}
    assert refusals("0,1,16,\n" * 4 + "0,1,1,\n") == {"MEMORY_MB": 1}
    assert refusals("0,4,4,a\n" * 3) == {"VCPU in a": 1}
    down = (Outage(zone="b", at_hours=1, hours=9),)
    assert refusals("0,4,4,a\n" * 2 + "7200,2,2,\n", failures=down) == {"VCPU, with hosts out of service": 1}
    assert refusals("0,1,1,a\n" + "7200,2,2,b\n", failures=down) == {"hosts out of service in b": 1}


def test_the_bound_of_size_counts_groups_by_their_policy(tmp_path: Path) -> None:
    """Members that must be together, that may be together, that may be two on a host, and that must not."""
    kind = Hardware(name="h", count=1, vcpus=64, memory_gb=256)
    header = "arrival_s,lifetime_s,vcpus,memory_gb,group,group_policy,most_per_host\n"
    for rule, least in (("affinity,", 1), ("soft-anti-affinity,", 1), ("anti-affinity,2", 3), ("anti-affinity,", 5)):
        trace = task(written(tmp_path, header + f"0,3600,1,1,g,{rule}\n" * 5))
        plan = FleetPlan(hardware=(kind,))
        found = planning.size(msgspec.structs.replace(trace, plan=plan))
        assert found.lower_bound == least
        assert found.hosts is not None
        assert found.hosts >= least


def test_the_bound_of_size_counts_guests_that_only_one_kind_can_hold(tmp_path: Path) -> None:
    """Hosts beside it have room for all, but neither the trait nor the resource that half of the guests ask for."""
    plain = Hardware(name="plain", count=9, vcpus=64, memory_gb=256)
    special = Hardware(name="special", vcpus=4, memory_gb=16, traits=("CUSTOM_FAST",), resources={"CUSTOM_FPGA": 1})
    header = "arrival_s,lifetime_s,vcpus,memory_gb,traits,resources\n"
    for rows, least in (
        ("0,3600,2,1,CUSTOM_FAST,\n" * 4 + "0,3600,2,1,,\n" * 4, 2),
        ("0,3600,1,1,,CUSTOM_FPGA=1\n" * 3 + "0,3600,2,1,,\n" * 4, 3),
        ("0,3600,2,1,!CUSTOM_FAST,\n" * 4, 0),
    ):
        trace = task(written(tmp_path, header + rows))
        asked = msgspec.structs.replace(trace, plan=FleetPlan(hardware=(plain, special)))
        found = planning.size(asked, hardware="special")
        assert (found.hosts, found.lower_bound) == (least, least)


def test_guests_that_no_host_could_hold_are_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="fits no host") as raised:
        execute(asked(tmp_path, "0,60,2,4096\n0,60,2,2\n", fleet(3)))
    assert "memory_mb" in str(raised.value.hint)
    outcome = execute(asked(tmp_path, "0,60,2,4096\n0,60,2,2\n", fleet(3), refuse_impossible=True))
    assert (outcome.placed, outcome.refused) == (1, 1)
