"""Guests that are said to find hosts in whatever way they are placed do find them: placed by hand, each on any host
that has room, as unkindly as chance makes it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hostler.sim.run.failure_trials import Trials
from hostler.sim.run.fleet_plan import FleetPlan, Hardware
from hostler.sim.run.headroom import Busiest
from hostler.sim.run.placing_bounds import Asked, Room, all_placed
from hostler.sim.run.policies import policy_of
from hostler.sim.run.run import Run
from hostler.sim.trace.files import read_trace

from .values import written

Shape = tuple[int, int, int, int, int]
"""vCPUs, memory, GPUs, thousandths of each, what it is bound to (0: nothing, 1: zone 1, 2: a model of GPUs)."""


@dataclass
class Host:
    zone: int
    vcpus: int
    memory: int
    gpus: list[int] = field(default_factory=list)
    model: bool = False

    def may_take(self, bound: int) -> bool:
        return (True, self.zone == 1, self.model)[bound]

    def takes(self, shape: Shape, chance: random.Random) -> bool:
        """Give a guest its room if there is some, on GPUs drawn at random."""
        vcpus, memory, count, milli, zone = shape
        able = [at for at, left in enumerate(self.gpus) if left >= milli]
        if self.vcpus < vcpus or self.memory < memory or len(able) < count or not self.may_take(zone):
            return False
        self.vcpus, self.memory = self.vcpus - vcpus, self.memory - memory
        for at in chance.sample(able, count):
            self.gpus[at] -= milli
        return True


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    count = draw(st.sampled_from([0, 0, 1, 2]))
    milli = draw(st.sampled_from([250, 500, 1000])) if count else 0
    return draw(st.integers(0, 4)), draw(st.integers(1, 6)), count, milli, draw(st.sampled_from([0, 0, 0, 1, 2]))


hosts = st.builds(
    Host,
    zone=st.sampled_from([1, 1, 2]),
    vcpus=st.integers(2, 16),
    memory=st.integers(4, 24),
    gpus=st.lists(st.sampled_from([1000, 1000, 500, 0]), max_size=4),
    model=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(hosts, min_size=2, max_size=8),
    st.lists(shapes(), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 3), max_size=14),
    st.randoms(use_true_random=False),
)
def test_guests_find_hosts_in_any_way(
    fleet: list[Host], kinds: list[Shape], which: list[int], chance: random.Random
) -> None:
    counts = Counter(at for at in which if at < len(kinds))
    asked = Asked(
        np.array([(vcpus, memory, 0, count) for vcpus, memory, count, _, _ in kinds], np.int64),
        np.array([milli for *_, milli, _ in kinds], np.int64),
        np.array([zone for *_, zone in kinds], np.int64),
    )
    left = np.array([[each.vcpus, each.memory, 0] for each in fleet], np.int64).T
    gpus = np.array([each.gpus + [0] * (4 - len(each.gpus)) for each in fleet], np.int64)
    there = [np.array([each.may_take(bound) for each in fleet]) for bound in range(3)]
    promised = all_placed(asked, counts, Room(left, left, gpus), there)
    event(f"{'promised' if promised else 'not told'}")
    guests = [kinds[at] for at in counts.elements()]
    for _ in range(6 if promised else 0):
        trial = [Host(each.zone, each.vcpus, each.memory, list(each.gpus), each.model) for each in fleet]
        chance.shuffle(guests)
        for shape in sorted(guests, key=lambda each: (-each[2] * each[3], -each[0], -each[1])):
            chance.shuffle(trial)
            assert any(host.takes(shape, chance) for host in trial)


def test_racks_of_mixed_guests_are_not_tried(tmp_path: Path) -> None:
    """Ten racks a fifth full: that any three may fail is told by sums, though one guest in eight is large."""
    kind = Hardware(name="h", count=40, vcpus=16, memory_gb=64, racks=10)
    rows = "arrival_s,vcpus,memory_gb\n" + ("0,8,8\n" + "0,1,2\n" * 7) * 9
    run = Run(FleetPlan(hardware=(kind,)), read_trace(Path(written(tmp_path, rows))), policy_of("worst-fit"))
    busiest = Busiest(run)
    run.play(busiest.look)
    moment = busiest._kept
    assert moment is not None
    engine = moment.engine()
    racks = moment._domains(engine, "rack")
    bounds = Trials(engine, list(moment.places), moment.spec_of)._bounds
    assert bounds.decided([host for name in list(racks)[:3] for host in racks[name]])
    busiest.close()


def test_room_that_no_guest_may_take_alone_is_no_room(tmp_path: Path) -> None:
    """A guest of 12 vCPUs fits no host of 4, though its over-commit leaves 32: that of 16 may not fail."""
    kinds = (
        Hardware(name="big", count=1, vcpus=16, memory_gb=64),
        Hardware(name="small", count=3, vcpus=4, memory_gb=64, cpu_allocation_ratio=8),
    )
    run = Run(
        FleetPlan(hardware=kinds),
        read_trace(Path(written(tmp_path, "arrival_s,vcpus,memory_gb\n0,12,1\n"))),
        policy_of("first-fit"),
    )
    busiest = Busiest(run)
    run.play(busiest.look)
    told = busiest.tried()
    assert told is not None
    assert [(each.kind, each.survives, each.which) for each in told.survives if each.kind == "host"] == [
        ("host", 0, ["big-00001"])
    ]


def test_guests_that_name_gpu_models_are_told_by_sums(tmp_path: Path) -> None:
    """Two guests of a T4 each on four such hosts, beside hosts of A10s that may not take them: any one of these may
    fail, and of the A10s, of which all are given, none."""
    kinds = (
        Hardware(name="t", count=4, vcpus=16, memory_gb=64, gpus=1, gpu_model="T4"),
        Hardware(name="a", count=2, vcpus=16, memory_gb=64, gpus=1, gpu_model="A10"),
    )
    rows = "arrival_s,vcpus,memory_gb,gpus,gpu_milli,gpu_models\n" + "0,1,1,1,1000,T4\n" * 2 + "0,1,1,1,1000,A10\n" * 2
    run = Run(FleetPlan(hardware=kinds), read_trace(Path(written(tmp_path, rows))), policy_of("first-fit"))
    busiest = Busiest(run)
    run.play(busiest.look)
    moment = busiest._kept
    assert moment is not None
    engine = moment.engine()
    bounds = Trials(engine, list(moment.places), moment.spec_of)._bounds
    assert {name: bounds.decided([name]) for name in moment._domains(engine, "host")} == {
        **{f"t-{number:05}": True for number in range(1, 5)},
        "a-00001": False,
        "a-00002": False,
    }
    busiest.close()
