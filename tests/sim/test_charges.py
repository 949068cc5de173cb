"""Usage and cost rows: what each guest used of which host, and that the rows sum up to what the hosts cost."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from hostler.core.cli import main
from hostler.sim.questions.tasks import Task, start
from hostler.sim.run.charges import COLUMNS, Charges
from hostler.sim.run.fleet_plan import FleetPlan, Growth, Hardware, Outage
from hostler.sim.run.run import Outcome

from .values import task, written


@pytest.mark.parametrize("policy", ["nova", "best-fit"])
def test_rows_have_the_guests_days_hosts_and_shares(tmp_path: Path, policy: str) -> None:
    """One guest of half a host's CPUs and a quarter of its memory, for 12 hours over midnight, at 2 an hour."""
    trace = "arrival_s,lifetime_s,vcpus,memory_gb,project\n0,300,1,1,\n64800,43200,2,2,blue\n"
    run = start(task(written(tmp_path, trace), hosts=1, policy=policy))
    charges = Charges(run)
    run.play()
    rows = [row for row in charges.rows() if row["SubAccountId"] == "blue"]
    assert [(row["ChargePeriodStart"], row["ConsumedQuantity"]) for row in rows] == [
        ("2026-01-01T00:00:00Z", 12.0),
        ("2026-01-02T00:00:00Z", 12.0),
    ]
    assert {row["CapacityReservationId"] for row in rows} == {"small-00001"}
    assert [row["EffectiveCost"] for row in rows] == [pytest.approx(6 * 2 * 0.375)] * 2


def test_rows_sum_up_to_what_the_hosts_and_the_public_cloud_cost(tmp_path: Path) -> None:
    kind = Hardware(name="h", count=2, vcpus=4, memory_gb=8, price_per_hour=2.0)
    plan = FleetPlan(
        hardware=(kind,),
        growth=(Growth(hardware="h", add=1, at_hours=30),),
        failures=(Outage(host="h-00001", at_hours=5, hours=2),),
        burst_price_per_vcpu_hour=0.5,
    )
    rows = "".join(f"{3600 * hour},{7200 + 1800 * (hour % 7)},{1 + hour % 4},2\n" for hour in range(50))
    asked = task(written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n" + rows), plan=plan)
    run = start(asked)
    charges = Charges(run)
    outcome = run.play()
    found = list(charges.rows())
    here = sum(row["BilledCost"] for row in found if row["ProviderName"] != "public cloud")
    away = sum(row["BilledCost"] for row in found if row["ProviderName"] == "public cloud")
    assert outcome.refused
    assert here == pytest.approx(outcome.cost, abs=0.01)
    assert away == pytest.approx(outcome.burst_cost, abs=0.01)
    used: defaultdict[str, float] = defaultdict(float)
    for row in found:
        if row["CapacityReservationStatus"] == "Used":
            used[row["ResourceId"]] += row["PricingQuantity"]
    assert sum(used.values()) == pytest.approx(outcome.guest_hours, abs=0.01)


def charged(asked: Task) -> tuple[Outcome, list[dict[str, Any]]]:
    run = start(asked)
    charges = Charges(run)
    outcome = run.play()
    return outcome, list(charges.rows())


def test_hosts_cost_from_the_step_in_which_they_come(tmp_path: Path) -> None:
    """A host of 100 an hour that is due after 0.51 h comes in the step of 35 minutes: 25 minutes to the hour's end."""
    kind = Hardware(name="h", count=1, vcpus=4, memory_gb=8, price_per_hour=100.0)
    plan = FleetPlan(hardware=(kind,), growth=(Growth(hardware="h", add=1, at_hours=0.51),))
    trace = written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n0,3600,1,1\n")
    outcome, rows = charged(task(trace, plan=plan))
    assert outcome.cost == pytest.approx(100 + 100 * 25 / 60, abs=0.01)
    assert sum(row["BilledCost"] for row in rows) == pytest.approx(outcome.cost, abs=0.01)


def test_a_guest_that_waits_and_is_refused_is_charged_for_as_long_as_it_would_have_run(tmp_path: Path) -> None:
    """Two hours of four vCPUs at 1, after an hour of waiting, though the run ends with the guest that has the host."""
    kind = Hardware(name="h", count=1, vcpus=4, memory_gb=8)
    plan = FleetPlan(hardware=(kind,), burst_price_per_vcpu_hour=1.0)
    trace = written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n0,7200,4,4\n0,7200,4,4\n")
    outcome, rows = charged(task(trace, plan=plan, wait_hours=1.0))
    away = [row for row in rows if row["ProviderName"] == "public cloud"]
    assert (outcome.hours, outcome.burst_cost, sum(row["BilledCost"] for row in away)) == (2.0, 8.0, 8.0)
    assert sum(row["PricingQuantity"] for row in away) == 2.0
    for until, cost in ((1.5, 2.0), (2.5, 6.0)):
        outcome, rows = charged(task(trace, plan=plan, wait_hours=1.0, until_hours=until))
        told = sum(row["BilledCost"] for row in rows if row["ProviderName"] == "public cloud")
        assert outcome.burst_cost == pytest.approx(told, abs=0.01)
        assert told == pytest.approx(cost, abs=0.5)


def test_refused_guests_are_in_no_public_cloud_where_none_is_named(tmp_path: Path) -> None:
    trace = written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n0,7200,4,4\n0,7200,4,4\n")
    outcome, rows = charged(task(trace, hosts=1))
    assert outcome.refused == 1
    assert {row["ProviderName"] for row in rows} == {"fleet"}
    assert len([row for row in rows if row["ResourceType"] == "Instance"]) == 1


def test_rows_are_written_as_csv_and_parquet(tmp_path: Path, capsys: Any) -> None:
    trace, shape = written(tmp_path), ["--hosts", "3", "--vcpus", "4", "--memory-gb", "8"]
    path = tmp_path / "rows.csv"
    assert main(["simulate", "run", "--trace", trace, *shape, "--focus", str(path)]) == 0
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len({row["ResourceId"] for row in rows}) == 5
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    assert main(["simulate", "run", "--trace", trace, *shape, "--focus", str(path)]) == 0
    assert parquet.read_table(path).num_rows == len(rows)
    capsys.readouterr()
    assert main(["simulate", "run", "--trace", trace, *shape, "--focus", str(tmp_path / "rows.txt")]) == 1
    assert ".csv or .parquet" in capsys.readouterr().err
