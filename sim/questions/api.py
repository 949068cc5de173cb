"""Capacity planning from Python: a function for each command of ``hostler simulate``, and the values that they take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..pack.instance import Instance
from ..pack.instance import read as read_instance
from ..pack.search import Packed, pack
from ..run.fleet_plan import FleetPlan, Growth, Hardware, Maintenance, NamedHost, Outage, read_fleet
from ..run.headroom import Busiest, Headroom
from ..run.run import Outcome
from ..run.standing_state import with_state
from ..trace.openb import openb
from . import planning
from .orders import Order, Ordering
from .planning import Compared, Forecast, Size, forecast, size
from .purchase import Purchase, Wish, purchase
from .tasks import Source, Task, outcomes, start


class Ran(NamedTuple):
    """A run's outcome, and what failures would have done at its busiest moment; None if no guest was there."""

    outcome: Outcome
    headroom: Headroom | None


def run(task: Task, *, spare: int = 1) -> Ran:
    """Play a task. ``spare``: how many of the fullest hosts are lost together in the trial of failures. InvalidValue,
    UnknownName and other HostlerErrors for what cannot be read or does not fit together."""
    playing = start(task)
    busiest = Busiest(playing, spare=spare)
    return Ran(playing.play(busiest.look), busiest.tried())


def sweep(
    task: Task,
    *,
    policies: Sequence[str] = (),
    cpu_ratios: Sequence[float] = (),
    hosts: Sequence[int] = (),
    hardware: str = "",
    seeds: Sequence[int] = (0,),
    workers: int = 0,
    cluster: str = "",
    resume: Path | None = None,
) -> list[tuple[Task, Outcome]]:
    """All combinations, in order, the seeds innermost; what is left out is as in the task.

    ``hosts``: numbers of ``hardware``, the first kind if it is not named. ``workers`` 0: one per core; ``cluster``:
    address of a Dask scheduler; ``resume``: a file that outcomes are kept in, so that none is played twice.
    """
    tasks = planning.grid(
        task,
        policies=policies or [task.policy],
        cpu_ratios=cpu_ratios,
        hosts=hosts,
        seeds=seeds,
        hardware=hardware,
    )
    results = [outcome for _, outcome in outcomes(tasks, workers=workers, cluster=cluster, resume=resume)]
    return list(zip(tasks, results, strict=True))


def compare(task: Task, policies: Sequence[str], *, seeds: Sequence[int] = (0,), workers: int = 0) -> list[Compared]:
    """Policies side by side on the same guests, with means and 95 % intervals over the seeds."""
    played = sweep(task, policies=policies, seeds=seeds, workers=workers)
    return planning.compare([task for task, _ in played], [outcome for _, outcome in played])


__all__ = [
    "Compared",
    "FleetPlan",
    "Forecast",
    "Growth",
    "Hardware",
    "Headroom",
    "Instance",
    "Maintenance",
    "NamedHost",
    "Order",
    "Ordering",
    "Outage",
    "Outcome",
    "Packed",
    "Purchase",
    "Ran",
    "Size",
    "Source",
    "Task",
    "Wish",
    "compare",
    "forecast",
    "openb",
    "pack",
    "purchase",
    "read_fleet",
    "read_instance",
    "run",
    "size",
    "sweep",
    "with_state",
]
