"""Garbage collections during a run."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostler.placement.policy.policy import Policy
from hostler.sim.questions import planning
from hostler.sim.questions.tasks import Source, Task, execute, workload_of
from hostler.sim.run.fleet_plan import FleetPlan, Hardware
from hostler.sim.run.older_objects import COLLECTED, spared
from hostler.sim.run.run import Run


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    """The tests have their own objects frozen."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    yield
    if frozen:
        gc.freeze()


def test_older_objects_are_left_out_within_alone() -> None:
    with spared():
        assert gc.get_freeze_count() > 0
        with spared():
            pass
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_older_objects_are_collected_again_after_a_run_that_was_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt), spared():
        raise KeyboardInterrupt
    assert gc.get_freeze_count() == 0


def test_what_others_have_frozen_stays_so() -> None:
    gc.freeze()
    with spared():
        pass
    assert gc.get_freeze_count() > 0


def test_nothing_is_frozen_where_collections_are_off() -> None:
    gc.disable()
    try:
        with spared():
            assert gc.get_freeze_count() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("alone", [True, False])
def test_runs_in_one_process_are_freed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, alone: bool) -> None:
    made: list[weakref.ref[Run]] = []
    begin = Run.__init__

    def noted(run: Run, *given: Any, **named: Any) -> None:
        made.append(weakref.ref(run))
        begin(run, *given, **named)

    monkeypatch.setattr(Run, "__init__", noted)
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,lifetime_s,vcpus,memory_gb\n0,3600,2,4\n300,3600,2,4\n")
    source = Source(trace=str(trace))
    plan = FleetPlan(hardware=(Hardware(name="small", count=2, vcpus=4, memory_gb=8),))
    if alone:
        workload, policy = workload_of(source, 0), Policy.from_mapping({})
        for seed in range(3 * COLLECTED):
            Run(plan, workload, policy, seed=seed).play()
    else:
        tasks = planning.grid(
            Task(source=source, plan=plan), policies=["nova"], cpu_ratios=[], hosts=[2, 3, 4], seeds=range(COLLECTED)
        )
        for task in tasks:
            execute(task)
    assert len(made) == 3 * COLLECTED
    assert sum(run() is not None for run in made) <= COLLECTED + 1
