"""Plans on small clouds against the optimum of a mixed-integer program over the final placements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hostler import Balance, Consolidate, Drain, Flavor, MakeRoom, Request, RequestSpec

from .clouds import Cloud, engine_of, random_cloud

optimize = pytest.importorskip("scipy.optimize", reason="needs scipy, of the extra test")


class Program:
    """Binary x[guest, host] says where each guest is in the end. Every host keeps its capacity."""

    def __init__(self, cloud: Cloud, more: tuple[int, ...] = ()) -> None:
        self.cloud, self.more = cloud, more
        self.hosts, self.guests = len(cloud.machines), len(cloud.guests)
        self.size = self.guests * self.hosts + self.hosts + 1
        self.rows: list[tuple[np.ndarray[Any, Any], float, float]] = []
        for guest in range(self.guests):
            row = np.zeros(self.size)
            row[guest * self.hosts : (guest + 1) * self.hosts] = 1
            self.rows.append((row, 1, 1))

    def x(self, guest: int, host: int) -> int:
        return guest * self.hosts + host

    def y(self, host: int) -> int:
        return self.guests * self.hosts + host

    @property
    def peak(self) -> int:
        return self.size - 1

    def capacities(self, taken: tuple[int, int, int] = (0, 0, 0), *, by_use: bool = False) -> None:
        """Capacity of each host; ``taken``: of host h where y[h] is 1. ``by_use``: y[h] says that h is in use."""
        for host, machine in enumerate(self.cloud.machines):
            for index, name in enumerate(("vcpus", "memory_mb", "disk_gb")):
                row = np.zeros(self.size)
                for guest, value in enumerate(self.cloud.guests):
                    row[self.x(guest, host)] = getattr(value, name)
                capacity = getattr(machine, name)
                row[self.y(host)] = -capacity if by_use else taken[index]
                self.rows.append((row, -np.inf, 0 if by_use else capacity))

    def least(self, cost: np.ndarray[Any, Any], fixed: dict[int, float] | None = None) -> float | None:
        lower, upper = np.zeros(self.size), np.ones(self.size)
        for index, value in (fixed or {}).items():
            lower[index] = upper[index] = value
        matrix = np.array([row for row, _, _ in self.rows])
        limits = optimize.LinearConstraint(matrix, [low for _, low, _ in self.rows], [high for _, _, high in self.rows])
        whole = np.ones(self.size)
        whole[self.peak] = 0
        found = optimize.milp(
            cost,
            constraints=limits,
            integrality=whole,
            bounds=optimize.Bounds(lower, upper),
            options={"time_limit": 4, "mip_rel_gap": 0.005},
        )
        if found.status == 1:  # out of time: the bound that is proved by then
            return float(found.mip_dual_bound)
        return float(found.fun) if found.success else None


def is_stuck(cloud: Cloud) -> bool:
    """True if no guest fits on another host, so that nothing can move at all. The program does not know that."""
    free = {
        machine.name: [
            getattr(machine, name) - sum(getattr(guest, name) for guest in cloud.guests if guest.host == machine.name)
            for name in ("vcpus", "memory_mb", "disk_gb")
        ]
        for machine in cloud.machines
    }
    return not any(
        guest.vcpus <= vcpus and guest.memory_mb <= memory_mb and guest.disk_gb <= disk_gb
        for guest in cloud.guests
        for host, (vcpus, memory_mb, disk_gb) in free.items()
        if host != guest.host
    )


def in_use(cloud: Cloud) -> int:
    """The fewest hosts in use that any placement has."""
    program = Program(cloud)
    program.capacities(by_use=True)
    cost = np.zeros(program.size)
    cost[program.y(0) : program.y(0) + program.hosts] = 1
    found = program.least(cost)
    assert found is not None
    return round(found)


def moves_for(cloud: Cloud, size: tuple[int, int, int]) -> int | None:
    """The fewest guests on another host in any placement that has room of a size on one host."""
    program = Program(cloud)
    program.capacities(size)
    row = np.zeros(program.size)
    row[program.y(0) : program.y(0) + program.hosts] = 1
    program.rows.append((row, 1, 1))
    cost = np.zeros(program.size)
    for guest, value in enumerate(cloud.guests):
        for host, machine in enumerate(cloud.machines):
            cost[program.x(guest, host)] = machine.name != value.host
    found = program.least(cost)
    return None if found is None else round(found)


def least_peak(cloud: Cloud) -> float:
    """The lowest greatest share of memory in use that any placement has."""
    program = Program(cloud)
    program.capacities()
    for host, machine in enumerate(cloud.machines):
        row = np.zeros(program.size)
        for guest, value in enumerate(cloud.guests):
            row[program.x(guest, host)] = value.memory_mb / machine.memory_mb
        row[program.peak] = -1
        program.rows.append((row, -np.inf, 0))
    cost = np.zeros(program.size)
    cost[program.peak] = 1
    found = program.least(cost)
    assert found is not None
    return found


def can_be_drained(cloud: Cloud, host: int) -> bool:
    program = Program(cloud)
    program.capacities()
    fixed = {program.x(guest, host): 0.0 for guest in range(program.guests)}
    return program.least(np.zeros(program.size), fixed) is not None


SEEDS = range(24)


def cloud_of(seed: int) -> Cloud:
    return random_cloud(seed, machines=4 + seed % 9, load=0.45 + 0.05 * (seed % 7), plain=True)


def test_consolidation_is_within_5_percent_of_the_optimum() -> None:
    planned = optimal = 0.0
    for seed in SEEDS:
        cloud = cloud_of(seed)
        engine, asked = engine_of(cloud)
        measure = engine.plan(Consolidate(), asked=asked).measures[0]
        best = in_use(cloud)
        assert measure.bound is not None
        assert measure.bound <= best <= measure.after
        if is_stuck(cloud):
            continue
        planned, optimal = planned + measure.after, optimal + best
    assert planned <= 1.05 * optimal, (planned, optimal)


def test_balance_is_within_5_percent_of_the_optimum() -> None:
    planned = optimal = 0.0
    for seed in range(12):
        cloud = cloud_of(seed)
        engine, asked = engine_of(cloud)
        goal = Balance(threshold=0.0, margin=0.0, most=1.0)
        peak, best = engine.plan(goal, asked=asked).measures[0].after, least_peak(cloud)
        assert peak >= best - 1e-6
        if is_stuck(cloud):
            continue
        planned, optimal = planned + peak, optimal + best
    assert planned <= 1.05 * optimal, (planned, optimal)


def test_making_room_is_within_5_percent_of_the_optimum() -> None:
    planned = optimal = 0
    for seed in SEEDS:
        cloud = cloud_of(seed)
        engine, asked = engine_of(cloud)
        size = (8, 8_192 + 4_096 * (seed % 2), 100)
        flavor = Flavor(name="wanted", vcpus=size[0], memory_mb=size[1], root_gb=size[2])
        plan = engine.plan(MakeRoom(request=Request(spec=RequestSpec(flavor=flavor))), asked=asked)
        best = moves_for(cloud, size)
        if best is None:
            assert not plan.complete
            continue
        if best and is_stuck(cloud):
            assert not plan.complete
            continue
        assert plan.complete, (seed, best)
        bound = plan.measures[0].bound
        assert bound is not None
        assert bound <= best <= len(plan.moves)
        planned, optimal = planned + len(plan.moves), optimal + best
    assert optimal
    assert planned <= 1.05 * optimal, (planned, optimal)


def test_what_can_be_drained_is_drained() -> None:
    planned = optimal = 0
    for seed in SEEDS:
        cloud = cloud_of(seed)
        engine, asked = engine_of(cloud)
        planned += engine.plan(Drain(hosts=("n1",)), asked=asked).complete
        optimal += can_be_drained(cloud, 1) and not is_stuck(cloud)
    assert optimal
    assert planned >= 0.95 * optimal, (planned, optimal)
