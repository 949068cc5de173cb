"""Small plans, traces and tasks."""

from __future__ import annotations

from pathlib import Path

from hostler.sim.questions.tasks import Source, Task
from hostler.sim.run.fleet_plan import FleetPlan, Hardware

TRACE = """arrival_s,lifetime_s,vcpus,memory_gb,batch
0,3600,2,4,a
0,7200,2,4,a
300,600,4,8,b
700,,1,2,c
4000,300,2,2,d
"""


def written(folder: Path, text: str = TRACE, name: str = "trace.csv") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def plan(hosts: int = 3, **changes: object) -> FleetPlan:
    kind = Hardware(name="small", count=hosts, vcpus=4, memory_gb=8, price_per_hour=2.0)
    return FleetPlan(hardware=(kind,), **changes)  # type: ignore[arg-type]  # tests pass what they please


def task(trace: str, hosts: int = 3, **changes: object) -> Task:
    given = {"plan": plan(hosts)} | changes
    return Task(source=Source(trace=trace), **given)  # type: ignore[arg-type]  # as above
