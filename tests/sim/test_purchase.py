"""Which hosts to buy, and when: tiny fleets whose answers are known or can be counted out."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.cli import main
from hostler.placement.types.errors import InvalidValue, UnknownName
from hostler.sim.questions.api import (
    FleetPlan,
    Growth,
    Hardware,
    Ordering,
    Source,
    Task,
    Wish,
    forecast,
    purchase,
    run,
    size,
)

from .values import written

pytest.importorskip("scipy", reason="mixes are computed by scipy")

SMALL = Hardware(name="small", vcpus=4, memory_gb=8, price=10, watts=100, rack_units=1, lead_time_days=30)
BIG = Hardware(name="big", vcpus=8, memory_gb=16, price=15, watts=220, rack_units=2, lead_time_days=60)


def fours(folder: Path, count: int, more: str = "") -> Source:
    return Source(trace=written(folder, "arrival_s,lifetime_s,vcpus,memory_gb\n" + "0,3600,4,4\n" * count + more))


def task(source: Source, *kinds: Hardware, **changes: Any) -> Task:
    return Task(plan=FleetPlan(hardware=kinds or (SMALL, BIG)), source=source, policy="best-fit", **changes)


@pytest.mark.parametrize(
    ("objective", "counts", "value"),
    [
        ("cost", {"small": 1, "big": 1}, 25),
        ("hosts", {"small": 0, "big": 2}, 2),
        ("power", {"small": 3, "big": 0}, 300),
    ],
)
def test_a_mix_is_best_by_its_objective(tmp_path: Path, objective: Any, counts: dict[str, int], value: float) -> None:
    found = purchase(task(fours(tmp_path, 3)), Wish(objective=objective))
    assert (found.counts, found.value, found.lower_bound, found.gap_percent) == (counts, value, value, 0.0)


@pytest.mark.parametrize(
    ("price", "burst", "hosts", "value"),
    [
        # Four guests of 16 vCPUs for an hour, on hosts of 64 that may be half full: two of them fit a host. Beyond, 32
        # vCPUs cost 16 an hour, which are 140,160 in a year of such hours.
        (1_000_000, 0.5, 1, 1_140_160),
        (140_000, 0.5, 2, 280_000),
        (141_000, 0.5, 1, 281_160),
        (300_000, 2.0, 2, 600_000),
        (300_000, 0.0, 1, 300_000),
    ],
)
def test_guests_in_a_public_cloud_are_weighed_by_their_price(
    tmp_path: Path, price: float, burst: float, hosts: int, value: float
) -> None:
    kind = Hardware(name="h", vcpus=64, memory_gb=256, price=price, watts=100)
    plan = FleetPlan(hardware=(kind,), burst_above_percent=50, burst_price_per_vcpu_hour=burst)
    guests = Source(trace=written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n" + "0,3600,16,1\n" * 4))
    asked = Task(plan=plan, source=guests, policy="best-fit")
    found = purchase(asked, Wish(objective="cost", years=1))
    assert (found.counts, found.value, found.lower_bound) == ({"h": hosts}, value, None)
    assert found.cost == hosts * price
    for objective in ("hosts", "power"):  # no price there: all guests are to be served on the hosts
        assert purchase(asked, Wish(objective=objective)).counts == {"h": 2}


@pytest.mark.parametrize(("burst", "prices"), [(0.01, (900, 1_500)), (0.3, (2_000, 3_000)), (5.0, (2_000, 5_000))])
def test_the_mix_beside_a_public_cloud_is_the_cheapest_of_all(
    tmp_path: Path, burst: float, prices: tuple[int, int]
) -> None:
    kinds = tuple(
        Hardware(name=name, vcpus=vcpus, memory_gb=256, price=price)
        for name, vcpus, price in zip(("small", "big"), (8, 16), prices, strict=True)
    )
    plan = FleetPlan(hardware=kinds, burst_above_percent=75, burst_price_per_vcpu_hour=burst)
    rows = "".join(f"{hour * 3600},{3600 * 3},{2 + hour % 3},1\n" for hour in range(8))
    guests = Source(trace=written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n" + rows))
    asked = Task(plan=plan, source=guests, policy="best-fit")
    found = purchase(asked, Wish(objective="cost", years=2))
    costs = []
    for counts in itertools.product(range(5), repeat=2):
        if any(counts):
            mix = dict(zip(("small", "big"), counts, strict=True))
            outcome, _ = run(msgspec.structs.replace(asked, counts=mix))
            if outcome.unserved == outcome.burst:
                there = sum(price * count for price, count in zip(prices, counts, strict=True))
                costs.append(there + outcome.burst_cost * 2 * 8_760 / outcome.hours)
    assert found.value == pytest.approx(min(costs), rel=1e-9)


def test_a_reserve_lets_any_one_host_fail(tmp_path: Path) -> None:
    """Two guests that fill a small host each: without one of two big hosts the other takes both."""
    found = purchase(task(fours(tmp_path, 2)), Wish(objective="hosts", reserve="host"))
    assert (found.counts, found.lower_bound) == ({"small": 0, "big": 2}, 2)
    found = purchase(task(fours(tmp_path, 2), SMALL), Wish(reserve="host"))
    assert (found.counts, found.value) == ({"small": 3}, 30)


def test_a_reserve_lets_any_one_rack_or_zone_fail(tmp_path: Path) -> None:
    """Three guests that fill a host each, on hosts that are dealt to three places: two places must hold all three."""
    racks = Hardware(name="h", vcpus=4, memory_gb=8, price=1, racks=3)
    assert purchase(task(fours(tmp_path, 3), racks), Wish(reserve="rack")).counts == {"h": 5}
    zones = Hardware(name="h", vcpus=4, memory_gb=8, price=1, zones=("a", "b", "c"))
    assert purchase(task(fours(tmp_path, 3), zones), Wish(reserve="zone")).counts == {"h": 5}


def test_guests_of_a_zone_cannot_survive_it(tmp_path: Path) -> None:
    source = Source(trace=written(tmp_path, "arrival_s,vcpus,memory_gb,zone\n0,1,1,zone-1\n"))
    with pytest.raises(InvalidValue, match="zone-1 cannot be elsewhere"):
        purchase(task(source, SMALL), Wish(reserve="zone"))


def test_a_target_leaves_guests_out(tmp_path: Path) -> None:
    found = purchase(task(fours(tmp_path, 10), SMALL), Wish(target_percent=20))
    assert (found.counts, found.lower_bound) == ({"small": 8}, 80)


def test_guests_that_wait_make_the_bound_unknown(tmp_path: Path) -> None:
    found = purchase(task(fours(tmp_path, 4), SMALL, wait_hours=24), Wish())
    assert (found.counts, found.lower_bound) == ({"small": 1}, None)


def test_what_stands_already_need_not_be_bought(tmp_path: Path) -> None:
    there = Hardware(name="there", vcpus=8, memory_gb=16, count=1)
    found = purchase(task(fours(tmp_path, 3), there, SMALL), Wish(kinds=("small",)))
    assert (found.counts, found.lower_bound) == ({"small": 1}, 10)


def test_hosts_of_the_fleet_file_stand_beside_those_of_a_catalogue(tmp_path: Path, capsys: Any) -> None:
    """Seven guests that fill a host each: five hosts stand, so that two are bought, though the old kind is cheaper."""
    (tmp_path / "fleet.toml").write_text('[[hardware]]\nname = "old"\ncount = 5\nvcpus = 4\nmemory_gb = 8\nprice = 3\n')
    (tmp_path / "shapes.csv").write_text("name,vcpus,memory_gb,price\nnew,4,8,10\n")
    asked = ["--trace", fours(tmp_path, 7).trace, "--fleet", str(tmp_path / "fleet.toml"), "--policy", "best-fit"]
    asked += ["--catalogue", str(tmp_path / "shapes.csv"), "--json"]
    assert main(["simulate", "size", *asked, "--objective", "cost"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["counts"], told["value"], told["lower_bound"]) == ({"new": 2}, 20, 20)
    assert main(["simulate", "size", *asked]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["hardware"], told["hosts"], told["lower_bound"]) == ("new", 2, 2)
    assert main(["simulate", "size", *asked, "--objective", "cost", "--hardware", "old,new"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"old": 7, "new": 0}


def test_guests_that_may_be_refused_are_left_out_of_anti_affinity_groups(tmp_path: Path) -> None:
    """Ten members that share no host, and 90 others: with ten guests refused 90 vCPUs are left, two hosts of 64, on
    which two members stand while eight are refused."""
    rows = "0,3600,1,1,a\n" * 10 + "0,3600,1,1,\n" * 90
    source = Source(trace=written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb,group\n" + rows))
    kind = Hardware(name="h", vcpus=64, memory_gb=256, price=10)
    found = purchase(task(source, kind), Wish(target_percent=10))
    assert (found.counts, found.value, found.lower_bound) == ({"h": 2}, 20, 20)
    found = purchase(task(source, kind), Wish(target_percent=5))
    assert (found.counts, found.lower_bound) == ({"h": 5}, 50)


def test_guests_after_the_end_of_the_run_are_not_bought_for(tmp_path: Path) -> None:
    """Two guests that fill a host each in the first hour, and ten after it, of which the run plays none."""
    source = fours(tmp_path, 2, "7200,3600,4,4\n" * 10)
    first = task(source, SMALL, until_hours=1.0)
    found = purchase(first, Wish())
    assert (found.counts, found.lower_bound, found.gap_percent) == ({"small": 2}, 20, 0.0)
    assert purchase(task(source, SMALL), Wish()).counts == {"small": 10}
    # Half of the two guests that come may be refused, not half of the twelve of the trace.
    assert purchase(first, Wish(target_percent=50)).counts == {"small": 1}
    found = purchase(first, Wish(reserve="host"))
    assert (found.counts, found.lower_bound) == ({"small": 3}, 30)
    sized = size(first)
    assert (sized.hosts, sized.lower_bound, sized.gap_percent) == (2, 2, 0.0)
    none = Source(trace=written(tmp_path, "arrival_s,vcpus,memory_gb\n-7200,4,4\n", "none.csv"), standing=False)
    with pytest.raises(InvalidValue, match="no guests in the first 1 hours"):
        purchase(task(none, SMALL, until_hours=1.0), Wish())


def test_guests_that_one_kind_alone_can_hold_are_bought_that_kind(tmp_path: Path) -> None:
    trace = "arrival_s,vcpus,memory_gb,gpus,traits,resources\n0,1,1,1,,\n0,1,1,,CUSTOM_FAST,\n0,1,1,,,CUSTOM_FPGA=1\n"
    kinds = (
        Hardware(name="plain", vcpus=8, memory_gb=16, price=1),
        Hardware(name="gpu", vcpus=8, memory_gb=16, price=50, gpus=1, gpu_model="T4"),
        Hardware(name="fast", vcpus=8, memory_gb=16, price=7, traits=("CUSTOM_FAST",)),
        Hardware(name="fpga", vcpus=8, memory_gb=16, price=9, resources={"CUSTOM_FPGA": 1}),
    )
    found = purchase(task(Source(trace=written(tmp_path, trace)), *kinds), Wish())
    assert (found.counts, found.gap_percent) == ({"plain": 0, "gpu": 1, "fast": 1, "fpga": 1}, 0.0)


def test_cost_counts_hours_and_energy(tmp_path: Path) -> None:
    """Over a year at 1 per kWh 100 W cost 876, so that the cheap host is dear."""
    cheap = Hardware(name="cheap", vcpus=4, memory_gb=8, price=100, watts=100)
    rented = Hardware(name="rented", vcpus=4, memory_gb=8, price_per_hour=0.1, watts=1)
    found = purchase(task(fours(tmp_path, 1), cheap, rented), Wish(years=1, energy_price=1.0))
    assert found.counts == {"cheap": 0, "rented": 1}
    assert found.value == pytest.approx(8760 * 0.101)


@settings(max_examples=10, deadline=None)
@given(
    size=st.integers(1, 5),
    guests=st.integers(1, 12),
    sizes=st.lists(st.tuples(st.integers(5, 16), st.integers(1, 20)), min_size=2, max_size=3),
)
def test_a_mix_for_equal_guests_is_the_best_of_all(
    tmp_path_factory: Any, size: int, guests: int, sizes: list[tuple[int, int]]
) -> None:
    """A host holds as many equal guests as its CPUs tell: every mix can be counted out."""
    folder = tmp_path_factory.mktemp("mix")
    kinds = [Hardware(name=f"k{n}", vcpus=cpus, memory_gb=999, price=price) for n, (cpus, price) in enumerate(sizes)]
    rows = f"0,3600,{size},1\n" * guests
    source = Source(trace=written(folder, "arrival_s,lifetime_s,vcpus,memory_gb\n" + rows))
    mixes = itertools.product(range(guests + 1), repeat=len(sizes))
    enough = [
        mix for mix in mixes if sum(n * (cpus // size) for n, (cpus, _) in zip(mix, sizes, strict=True)) >= guests
    ]
    least = min(sum(n * price for n, (_, price) in zip(mix, sizes, strict=True)) for mix in enough)
    found = purchase(task(source, *kinds), Wish(trials=200))
    assert found.value is not None
    assert found.lower_bound is not None
    assert found.lower_bound <= least
    assert found.value == least


def test_a_mix_holds_in_the_part_of_the_seeds_that_is_asked(tmp_path: Path) -> None:
    rows = "".join(f"{hour * 3600},7200,1,1\n" for hour in range(48))
    source = Source(
        trace=written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n" + rows), made_hours=72, growth_error=0.5
    )
    some = purchase(task(source, SMALL), Wish(seeds=tuple(range(5)), confidence=0.4))
    every = purchase(task(source, SMALL), Wish(seeds=tuple(range(5)), confidence=1.0))
    least = purchase(task(source, SMALL), Wish(seeds=tuple(range(5)), confidence=1e-12))
    assert some.value is not None
    assert every.value is not None
    assert least.value is not None
    assert least.value <= some.value <= every.value


@pytest.mark.parametrize(
    ("kinds", "wish", "words"),
    [
        ((Hardware(name="h", vcpus=4, memory_gb=8),), Wish(), "no price"),
        ((Hardware(name="h", vcpus=4, memory_gb=8),), Wish(objective="power"), "no watts"),
        ((Hardware(name="h", vcpus=2, memory_gb=8, price=1),), Wish(), "fits no host"),
        ((SMALL,), Wish(confidence=0.0), "confidence"),
        ((SMALL,), Wish(target_percent=100), "target"),
    ],
)
def test_wishes_that_cannot_be_are_refused(tmp_path: Path, kinds: tuple[Hardware, ...], wish: Wish, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        purchase(task(fours(tmp_path, 1), *kinds), wish)
    with pytest.raises(UnknownName, match="nope"):
        purchase(task(fours(tmp_path, 1)), Wish(kinds=("nope",)))


def test_a_catalogue_is_a_table_with_prices(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "shapes.csv").write_text(
        "name,vcpus,memory_gb,price,watts,rack_units,lead_time_days,currency\n"
        "small,4,8,10,100,1,30,EUR\nbig,8,16,15,220,2,60,EUR\n"
    )
    source = fours(tmp_path, 3)
    asked = ["--trace", source.trace, "--catalogue", str(tmp_path / "shapes.csv"), "--policy", "best-fit"]
    assert main(["simulate", "size", *asked, "--objective", "cost"]) == 0
    assert "1 small and 1 big: 25 EUR; no mix has less than 25" in capsys.readouterr().out
    assert main(["simulate", "size", *asked, "--objective", "cost", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(each["hardware"], each["hosts"], each["price"]) for each in told["bought"]] == [
        ("small", 1, 10.0),
        ("big", 1, 15.0),
    ]
    (tmp_path / "shapes.csv").write_text("name,vcpus,memory_gb,cost\nsmall,4,8,10\n")
    assert main(["simulate", "size", *asked, "--objective", "cost"]) == 1
    assert "cost" in capsys.readouterr().err


def growing(folder: Path, plan: FleetPlan) -> Task:
    """Guests of one vCPU that stay, ten a day on average, on a fleet for 40 of them."""
    rows = "".join(f"{day * 86400 + 3600 * hour},1,1\n" for day in range(10) for hour in range(0, 20, 2))
    source = Source(trace=written(folder, "arrival_s,vcpus,memory_gb\n0,1,1\n" + rows), made_hours=24 * 15)
    return Task(plan=plan, source=source, policy="best-fit")


def test_a_forecast_says_how_many_hosts_to_order_by_when(tmp_path: Path) -> None:
    """With the order no day of the horizon refuses more than the target, and with one host less one does."""
    kind = Hardware(name="h", count=20, vcpus=10, memory_gb=99, price=100, lead_time_days=3)
    asked = growing(tmp_path, FleetPlan(hardware=(kind,)))
    found = forecast(asked, range(2), ordering=Ordering(confidence=1.0), workers=1)
    (order,) = found.orders
    first = min(day for day in found.days if day is not None)
    assert (order.needed_day, order.order_day, order.lasts_to_day) == (first, first - 3, 15)
    assert order.price == 100 * order.hosts

    def days(hosts: int) -> list[int | None]:
        plan = FleetPlan(
            hardware=(kind,),
            growth=({"hardware": "h", "add": hosts, "at_hours": 24.0 * (first - 1)},),  # type: ignore[arg-type]
        )
        task = msgspec.structs.replace(asked, plan=msgspec.convert(msgspec.to_builtins(plan), FleetPlan))
        return forecast(task, range(2), workers=1).days

    assert not any(days(order.hosts))
    assert any(days(order.hosts - 1))


def test_orders_for_some_days_each_follow_each_other(tmp_path: Path) -> None:
    kind = Hardware(name="h", count=20, vcpus=10, memory_gb=99, price=100, lead_time_days=40)
    asked = growing(tmp_path, FleetPlan(hardware=(kind,)))
    found = forecast(asked, range(2), ordering=Ordering(confidence=1.0, every_days=5), workers=1)
    assert len(found.orders) > 1
    assert all(each.late for each in found.orders)
    assert found.orders[-1].lasts_to_day == 15


def standing(folder: Path, zone: str = "") -> Source:
    """27 guests of one vCPU that stand at the beginning and stay, and one a day."""
    rows = f"-300,,1,1,{zone}\n" * 27 + "".join(f"{86400 * day + 43200},3600,1,1,{zone}\n" for day in range(5))
    text = "arrival_s,departure_s,vcpus,memory_gb,zone\n" + rows.replace(",3600,", ",,")
    return Source(trace=written(folder, text, f"standing{zone}.csv"), made_hours=24 * 2)


def test_hosts_of_hour_0_are_there_before_the_guests_that_stand(tmp_path: Path) -> None:
    kind = Hardware(name="h", count=10, vcpus=1, memory_gb=99)
    source = Source(trace=written(tmp_path, "arrival_s,vcpus,memory_gb\n" + "-300,1,1\n" * 20 + "300,1,1\n"))
    plan = FleetPlan(hardware=(kind,), growth=(Growth(hardware="h", add=100, at_hours=0),))
    outcome = run(Task(plan=plan, source=source)).outcome
    assert (outcome.placed, outcome.refused, outcome.hosts_at_end) == (21, 0, 110)


def test_an_order_for_guests_that_stand_already_is_told(tmp_path: Path) -> None:
    """Ten hosts for 27 guests: 17 more on day 1, and one for each guest that comes in the two days."""
    kind = Hardware(name="h", count=10, vcpus=1, memory_gb=99, price=5)
    asked = Task(plan=FleetPlan(hardware=(kind,)), source=standing(tmp_path), policy="best-fit")
    found = forecast(asked, (0,), ordering=Ordering(confidence=1.0), workers=1)
    (order,) = found.orders
    assert (found.days, order.needed_day) == ([1], 1)
    assert order.hosts == run(asked).outcome.requests - 10


def test_an_order_that_cannot_help_is_a_note_and_the_forecast_stays(tmp_path: Path) -> None:
    """Guests of zone b find no host among those of zone a."""
    there = Hardware(name="there", count=1, vcpus=1, memory_gb=99, zones=("b",))
    kind = Hardware(name="h", vcpus=1, memory_gb=99, price=5, zones=("a",))
    asked = Task(plan=FleetPlan(hardware=(there, kind)), source=standing(tmp_path, "b"), policy="best-fit")
    found = forecast(asked, range(1), ordering=Ordering(), workers=1)
    assert (found.orders, found.seeds) == ([], 1)
    assert any(found.days)
    assert any("no order of h makes capacity last through day 2" in note for note in found.notes)


@pytest.mark.parametrize(
    ("kinds", "which"),
    [
        # In time before cheap.
        (
            ({"name": "soon", "price": 100, "lead_time_days": 0}, {"name": "slow", "price": 1, "lead_time_days": 90}),
            "soon",
        ),
        # Two days of a rented host cost 48, less than one that is bought.
        (({"name": "bought", "price": 100}, {"name": "rented", "price_per_hour": 1}), "rented"),
        (({"name": "bought", "price": 40}, {"name": "rented", "price_per_hour": 1}), "bought"),
        (({"name": "both", "price": 40, "price_per_hour": 1}, {"name": "bought", "price": 50}), "bought"),
    ],
)
def test_the_kind_that_comes_in_time_and_costs_least_is_ordered(
    tmp_path: Path, kinds: tuple[dict[str, Any], ...], which: str
) -> None:
    there = Hardware(name="there", count=10, vcpus=1, memory_gb=99)
    more = tuple(Hardware(vcpus=1, memory_gb=99, **kind) for kind in kinds)
    asked = Task(plan=FleetPlan(hardware=(there, *more)), source=standing(tmp_path), policy="best-fit")
    found = forecast(asked, (0,), ordering=Ordering(confidence=1.0), workers=1)
    assert [each.hardware for each in found.orders] == [which]


def test_kinds_without_a_price_are_not_compared(tmp_path: Path) -> None:
    free = Hardware(name="free", count=10, vcpus=1, memory_gb=99, lead_time_days=3)
    dear = Hardware(name="dear", vcpus=1, memory_gb=99, price=10)
    asked = Task(plan=FleetPlan(hardware=(free, dear)), source=standing(tmp_path), policy="best-fit")
    with pytest.raises(InvalidValue, match="hardware free has no price"):
        forecast(asked, (0,), ordering=Ordering(kinds=("dear", "free")), workers=1)
    found = forecast(asked, (0,), ordering=Ordering(confidence=1.0), workers=1)
    assert [each.hardware for each in found.orders] == ["dear"]
    assert "of hardware without a price none is ordered: free" in found.notes
    found = forecast(asked, (0,), ordering=Ordering(kinds=("free",), confidence=1.0), workers=1)
    assert [each.hardware for each in found.orders] == ["free"]
