"""Workloads that come part by part: the guests and outcomes of all at once, in memory that time does not add to."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hostler.placement.types.errors import InvalidValue
from hostler.sim.run.policies import policy_of
from hostler.sim.run.run import Run
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.generator import Made, generate
from hostler.sim.trace.workload import NEVER, STEP_S, Workload, peaks

from .values import plan, written

BUSY = "arrival_s,lifetime_s,vcpus,memory_gb,batch,group\n" + "".join(
    f"{300 * n},{600 + 2400 * (n % 4)},{1 + n % 3},2,{n // 2},{'g' if n % 5 < 2 else ''}\n" for n in range(60)
)


def trace(folder: Path, text: str = BUSY) -> Workload:
    return read_trace(Path(written(folder, text)))


def made(folder: Path, days: float) -> Made:
    return Made(trace(folder), hours=24 * days, seed=3, growth_per_year=0.5, scale=1.5)


def test_days_follow_each_other_and_are_the_whole(tmp_path: Path) -> None:
    stream, whole = made(tmp_path, 3.5), generate(trace(tmp_path), hours=84, seed=3, growth_per_year=0.5, scale=1.5)
    parts = list(stream.parts())
    assert [(part.start_s // 86_400, len(part.steps)) for part in parts] == [(0, 288), (1, 288), (2, 288), (3, 144)]
    for name in ("arrival_s", "departure_s", "spec", "batch", "group"):
        assert np.concatenate([getattr(part, name) for part in parts]).tolist() == getattr(whole, name).tolist()
    assert (np.diff(whole.arrival_s) >= 0).all()
    assert np.unique(whole.batch).tolist() == list(range(int(whole.batch[-1]) + 1))
    assert len(whole) == pytest.approx(stream.expected, rel=0.1)


def test_a_groups_guests_come_in_one_batch(tmp_path: Path) -> None:
    whole = made(tmp_path, 5).whole()
    grouped = whole.group >= 0
    pairs = set(zip(whole.group[grouped].tolist(), whole.batch[grouped].tolist(), strict=True))
    assert len(pairs) == len(set(whole.group[grouped].tolist())) > 10


@pytest.mark.parametrize("wait_hours", [0.0, 1.0])
def test_a_run_is_the_same_part_by_part(tmp_path: Path, wait_hours: float) -> None:
    stream = made(tmp_path, 4)
    runs = [Run(plan(4), each, policy_of("nova"), wait_hours=wait_hours) for each in (stream, stream.whole())]
    one, other = (run.play() for run in runs)
    assert one.refused > 0
    assert one.waited > 0 or not wait_hours
    assert msgspec.json.encode(one) == msgspec.json.encode(other)


def test_the_busiest_step_is_found_without_the_whole(tmp_path: Path) -> None:
    stream = made(tmp_path, 3)
    whole = stream.whole()
    there = [
        int(whole.amounts(lambda flavor: flavor.vcpus)[(whole.arrival_s <= at) & (whole.departure_s > at)].sum())
        for at in whole.steps
    ]
    assert peaks(stream, [lambda spec: spec.flavor.vcpus]) == (len(whole), [max(there)])
    assert peaks(whole, [lambda spec: spec.flavor.vcpus, lambda spec: spec.flavor.memory_mb])[1][0] == max(there)


def test_groups_are_kept_as_long_as_they_have_members(tmp_path: Path) -> None:
    run = Run(plan(3), made(tmp_path, 6), policy_of("nova"), wait_hours=1.0)
    assert run.play().refused > 0
    fleet = run.engine.fleet
    guests = [uuid for place in run.site.places for uuid in fleet.instances(fleet.row(place.host))]
    held = {fleet.consumer(uuid).server_group for uuid in guests}
    assert set(fleet._groups) == held - {None}
    assert len(fleet._group_uuids) < 60
    fleet.check()


def peak_bytes(folder: Path, days: int) -> int:
    run = Run(plan(30), made(folder, days), policy_of("best-fit"))
    tracemalloc.start()
    try:
        run.play()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_longer_run_takes_no_more_memory(tmp_path: Path) -> None:
    peak_bytes(tmp_path, 1)  # what is compiled and imported once
    assert peak_bytes(tmp_path, 12) < 1.5 * peak_bytes(tmp_path, 3)


def test_guests_without_an_end_or_beyond_it_stay(tmp_path: Path) -> None:
    text = "arrival_s,lifetime_s,vcpus,memory_gb\n0,,1,1\n0,900000,1,1\n0,300,1,1\n900,300,1,1\n"
    run = Run(plan(2), trace(tmp_path, text), policy_of("nova"), until_hours=0.25)
    assert run.play().placed == 3
    assert run.alive == 2
    run = Run(plan(2), trace(tmp_path, text), policy_of("nova"))
    outcome = run.play()
    assert (outcome.placed, outcome.hours, run.alive) == (4, 250.0, 2)
    assert run.workload.end_s == 900 + STEP_S < NEVER


def test_a_trace_in_which_nobody_arrives_has_nothing_to_be_made_after(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="no guest arrives"):
        Made(replace(trace(tmp_path), standing=60), hours=1, seed=1)
