"""Steps in which guests only come are played together: nothing that comes of a run tells."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.fleet.inventories import Inventory
from hostler.placement.gpu.providers import GPU_MILLI, add_gpus
from hostler.placement.load.bulk import add_hosts
from hostler.placement.persist.file import save
from hostler.placement.types.host import Aggregate, Host
from hostler.sim.run.binding import Binding, _Found
from hostler.sim.run.coming import Coming
from hostler.sim.run.fleet_plan import FleetPlan, Growth, Hardware, Maintenance, Outage
from hostler.sim.run.headroom import Busiest
from hostler.sim.run.policies import policy_of, typical_guests
from hostler.sim.run.room import Came
from hostler.sim.run.run import Run
from hostler.sim.run.standing_state import with_state
from hostler.sim.run.stretch import Stretches
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.workload import Workload
from tests.sim.values import written

NAMES = ["fgd", "gpu-clustering", "best-fit", "random", "nova"]


def guests(tmp_path: Path, seed: int) -> Workload:
    """Guests with and without GPUs that come in bursts, of which few leave, with pauses between them."""
    draw, at_s, rows = random.Random(seed), 0, "arrival_s,lifetime_s,vcpus,memory_gb,gpus,gpu_milli,zone\n"
    for _ in range(70):
        at_s += draw.choice([0, 0, 40, 300, 900, 5000])
        lifetime = draw.choice([600, 9000, *[""] * 8])
        gpus, milli = draw.choice([(0, 0), (1, 1000), (1, 300), (2, 1000)])
        zone = draw.choice(["zone-1", "zone-2", *[""] * 6])
        rows += f"{at_s},{lifetime},{draw.choice([1, 2, 3])},{draw.choice([1, 2, 6])},{gpus},{milli},{zone}\n"
    return read_trace(Path(written(tmp_path, rows)))


def plan() -> FleetPlan:
    """Hosts that are too few in the end, of which some fail and more come."""
    zones = ("zone-1", "zone-2")
    large = Hardware(name="a", count=5, vcpus=8, memory_gb=24, gpus=3, gpu_model="T4", zones=zones, price_per_hour=0.7)
    small = Hardware(name="b", count=3, vcpus=6, memory_gb=24, zones=zones)
    failure = Outage(host="a-00002", at_hours=3.2, hours=9)
    maintenance = Maintenance(zone="zone-1", at_hours=14, hours=2, notice_hours=0.5)
    growth = Growth(hardware="b", add=2, at_hours=11.1)
    return FleetPlan(hardware=(large, small), failures=(failure,), maintenance=(maintenance,), growth=(growth,))


@pytest.mark.parametrize(
    ("name", "fleet"), [*((name, plan()) for name in NAMES), ("fgd", FleetPlan(hardware=plan().hardware))]
)
def test_steps_played_together_give_the_outcome_of_steps_one_by_one(
    tmp_path: Path, name: str, fleet: FleetPlan
) -> None:
    trace = guests(tmp_path, seed=NAMES.index(name))
    policy = policy_of(name, typical_guests(dict.fromkeys(trace.specs, 1)))
    one_by_one, together = (Run(fleet, trace, policy, seed=3, until_hours=40.0) for _ in range(2))
    steps: list[int] = []

    def noted() -> bool:
        steps.append(together.played)
        return True

    expected, found = one_by_one.play(every_step=True), together.play(noted)
    assert found == expected
    assert expected.refused > 0
    assert min(expected.placed, len(expected.samples)) > 10
    # Sums that are printed rounded are the same to the last bit.
    assert (one_by_one._sums.tolist(), one_by_one._host_hours_cost) == (
        together._sums.tolist(),
        together._host_hours_cost,
    )
    first, second = (run.engine.fleet for run in (one_by_one, together))
    uuids = [uuid for place in one_by_one.site.places for uuid in first.instances(first.row(place.host))]
    assert [first.consumer(uuid) for uuid in uuids] == [second.consumer(uuid) for uuid in uuids]
    second.check()
    assert len(steps) < one_by_one.played / 2


def wishes(tmp_path: Path, seed: int) -> Workload:
    """Guests that stay, with wishes for which hosts that have room in sum refuse some of them."""
    draw, at_s, rows = random.Random(seed), 0, "arrival_s,vcpus,memory_gb,gpus,gpu_milli,gpu_models,traits,resources\n"
    for _ in range(90):
        at_s += draw.choice([0, 40, 300, 900])
        gpus, milli = draw.choice([(0, 0), (0, 0), (1, 600), (2, 400), (3, 300)])
        model = draw.choice(["T4", "T4|V100", ""]) if gpus else ""
        trait = draw.choice(["CUSTOM_X", "!CUSTOM_X", "", "", ""])
        fpgas = draw.choice(["CUSTOM_FPGA=1", "CUSTOM_FPGA=2", "", "", ""])
        rows += f"{at_s},{draw.choice([1, 2, 5])},{draw.choice([1, 2, 7])},{gpus},{milli},{model},{trait},{fpgas}\n"
    return read_trace(Path(written(tmp_path, rows)))


@pytest.mark.parametrize(("name", "seed"), [("fgd", 1), ("best-fit", 2), ("best-fit", 3)])
def test_what_bound_guests_is_that_of_their_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, seed: int
) -> None:
    """Guests of five vCPUs are given none of the hosts of four, with over-commit; and no host takes more than six."""
    trace, tried = wishes(tmp_path, seed), []
    small = Hardware(name="a", count=4, vcpus=4, cpu_allocation_ratio=4.0, memory_gb=40, gpus=2, gpu_model="T4")
    other = Hardware(name="b", count=3, vcpus=8, memory_gb=24, traits=("CUSTOM_X",), resources={"CUSTOM_FPGA": 3})
    made = policy_of(name, typical_guests(dict.fromkeys(trace.specs, 1)), filters=["NumInstancesFilter"])
    options = made.options.filter_scheduler
    limited = msgspec.structs.replace(options, max_instances_per_host=6)
    policy = replace(made, options=msgspec.structs.replace(made.options, filter_scheduler=limited))
    one_by_one, together = (Run(FleetPlan(hardware=(small, other)), trace, policy, seed=3) for _ in range(2))
    assert together._stretches.may_be
    after = Came.engine_after

    def noted(self: Came, number: int) -> Engine:
        tried.append(len(self.uuids) - number)
        found = after(self, number)
        assert found.fleet._kernel.consumer_count == together.placed - tried[-1]
        return found

    monkeypatch.setattr(Came, "engine_after", noted)
    with monkeypatch.context() as patch:
        patch.setattr(Binding, "_holds", lambda *_: False)
        expected = one_by_one.play(every_step=True)
    assert together.play() == expected
    assert len(expected.refusals) > 5
    # Rules were tried at a step after which more guests came that were placed with it.
    assert max(tried) > 0


def test_what_bound_guests_is_kept_while_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests of three sizes that leave again, on hosts that are full, of which some fail, are emptied and come."""
    draw, at_s, rows = random.Random(5), 0, "arrival_s,lifetime_s,vcpus,memory_gb,gpus,gpu_milli,zone\n"
    for _ in range(250):
        at_s += draw.choice([0, 100, 300])
        sizes = draw.choice(["3,4,0,0,", "1,14,0,0,zone-1", "3,9,0,0,zone-2", "1,1,2,700,"])
        rows += f"{at_s},{draw.choice([1200, 4000, 30000])},{sizes}\n"
    trace, holds, kept = read_trace(Path(written(tmp_path, rows))), Binding._holds, Counter[bool]()
    again, afresh = (Run(plan(), trace, policy_of("best-fit"), seed=3, until_hours=40.0) for _ in range(2))

    def noted(self: Binding, found: _Found) -> bool:
        answer = holds(self, found)
        kept[answer] += 1
        return answer

    monkeypatch.setattr(Binding, "_holds", noted)
    found = again.play(every_step=True)
    monkeypatch.setattr(Binding, "_holds", lambda *_: False)
    assert found == afresh.play(every_step=True)
    assert len(found.refusals) > 4
    assert min(kept[True], kept[False]) > 2


def state(folder: Path, other: str) -> Path:
    """Three hosts with GPUs in a file, and a provider beside or below them that may give what guests ask for."""
    shared = Aggregate(uuid="6e750000-0000-4000-8000-0000000000aa", name="shared")
    fleet = Fleet(seed=1)
    hosts = [
        Host(
            host=f"n{number}",
            vcpus_total=8 if number or other != "cells" else 0,
            cpu_allocation_ratio=1.0,
            total_usable_ram_mb=65536,
            total_usable_disk_gb=0 if number and other == "pool" else 100,
            aggregates=(shared,) if number else (),
        )
        for number in range(3)
    ]
    add_hosts(fleet, hosts)
    if other == "pool":
        fleet.add_provider("pool", traits=["MISC_SHARES_VIA_AGGREGATE"], aggregates=[shared])
        fleet.set_inventory("pool", {"DISK_GB": Inventory(total=10000)})
    if other == "cells":
        fleet.add_provider("n0/cell", parent="n0")
        fleet.set_inventory("n0/cell", {"VCPU": Inventory(total=8)})
    if other == "GPUs":
        add_gpus(fleet, {"n1": 2})
        own = {name: inventory for name, (inventory, _) in fleet.inventory("n0").items()}
        fleet.set_inventory("n0", own | {GPU_MILLI: Inventory(total=1000, max_unit=1000)})
    save(fleet, folder / "fleet")
    return folder / "fleet"


@pytest.mark.parametrize(("other", "together"), [("", True), ("pool", False), ("cells", False), ("GPUs", False)])
def test_what_other_providers_than_hosts_give_is_measured_as_one_by_one(
    tmp_path: Path, other: str, together: bool
) -> None:
    gpus = 1 if other == "GPUs" else 0
    rows = "".join(f"{300 * number},1,1,20,{gpus},{1000 * gpus}\n" for number in range(12))
    trace = read_trace(Path(written(tmp_path, "arrival_s,vcpus,memory_gb,disk_gb,gpus,gpu_milli\n" + rows)))
    stands = with_state(None, state(tmp_path, other))
    one_by_one, run = (Run(stands, trace, policy_of("worst-fit"), seed=3) for _ in range(2))
    expected = one_by_one.play(every_step=True)
    assert run.play() == expected
    assert expected.placed > 1
    assert run._stretches.may_be is together


def test_the_busiest_moment_is_when_the_last_guest_came_and_not_when_others_were_refused(tmp_path: Path) -> None:
    rows = "".join(f"{300 * number},2,1\n" for number in range(30))
    trace = read_trace(Path(written(tmp_path, "arrival_s,vcpus,memory_gb\n" + rows)))
    hosts = FleetPlan(hardware=(Hardware(name="a", count=2, vcpus=8, memory_gb=24),))
    moments = []
    for every_step in (True, False):
        run = Run(hosts, trace, policy_of("best-fit"))
        busiest = Busiest(run)
        outcome = run.play(busiest.look, every_step=every_step)
        assert (outcome.placed, outcome.refused) == (8, 22)
        moments.append(busiest.tried())
    assert moments[0] is not None
    assert moments[0].at_hours == round(7 * 300 / 3600, 4)
    assert moments[0] == moments[1]


@pytest.mark.parametrize(("column", "wait_hours"), [("priority", 0.0), ("group", 0.0), ("gpus", 1.0)])
def test_steps_that_depend_on_each_other_are_played_one_by_one(tmp_path: Path, column: str, wait_hours: float) -> None:
    rows = f"arrival_s,vcpus,memory_gb,{column}\n" + "".join(f"{300 * n},1,1,{n % 2}\n" for n in range(9))
    trace = read_trace(Path(written(tmp_path, rows)))
    run = Run(FleetPlan(hardware=plan().hardware), trace, policy_of("best-fit"), wait_hours=wait_hours)
    seen: list[int] = []

    def noted() -> bool:
        seen.append(run.played)
        return True

    run.play(noted)
    assert seen[:9] == list(range(1, 10))


def test_the_limits_of_a_stretch_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostler.sim.run.stretch.MOST_GUESTS", 4)
    monkeypatch.setattr("hostler.sim.run.stretch.MOST_STEPS", 3)
    rows = "arrival_s,vcpus,memory_gb\n" + "".join(f"{300 * (n // 3)},1,1\n" for n in range(40))
    run = Run(FleetPlan(hardware=plan().hardware), read_trace(Path(written(tmp_path, rows))), policy_of("best-fit"))
    lengths: list[list[int]] = []
    play = Stretches.play

    def noted(self: Stretches, number: int, steps: Sequence[Coming]) -> None:
        lengths.append([len(each.number) for each in steps])
        play(self, number, steps)

    monkeypatch.setattr(Stretches, "play", noted)
    run.play()
    assert lengths[:2] == [[3, 3], [3, 3]]
