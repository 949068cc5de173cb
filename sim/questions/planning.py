"""The questions of capacity planning, answered by runs: how many hosts, when they run out, which policy is better."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.request import RequestSpec
from ..run.fleet_plan import FleetPlan, Hardware
from ..run.run import Outcome
from ..run.sizing import Search
from ..trace.workload import STEP_S, Guests, peaks
from .kept_outcomes import Kept
from .tasks import Task, execute, outcomes, planned, workload_of

_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom; beyond, 2.1 is on the safe side up to 18, and 1.96
is the limit."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A size that was tried, and guests not served: refused, lost with a host, waiting at the end, or run elsewhere."""

    hosts: int
    unserved: int
    held: bool


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest number of hosts of ``hardware`` that keeps refusals within the target, and what a perfect packing of
    the busiest moment would need to refuse nothing at once. ``gap_percent``: how much more that is, None where fewer
    may do, as refusals or waits are allowed, or hosts fail.

    Of a search that was ended early (``interrupted``) ``hosts`` is the smallest number found to hold, None if there is
    none yet; at least ``at_least`` are needed. They are equal when the search has ended.
    """

    hardware: str
    hosts: int | None
    at_least: int
    lower_bound: int
    gap_percent: float | None
    target_percent: float
    trials: list[Trial]
    outcome: Outcome | None
    interrupted: bool


Watch = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Given what is played and in how many steps, a context whose value is called after each step."""


@contextmanager
def unwatched(label: str, steps: int) -> Iterator[Callable[[], None]]:
    """No-op observer."""
    yield lambda: None


def size(task: Task, *, hardware: str = "", target_percent: float = 0.0) -> Size:
    """Look for the number of hosts of one kind (the first) that the task needs, the others as they are.

    Assumes that more hosts never refuse more. UnknownName for an unknown kind, InvalidValue for a guest that fits no
    host, or for an invalid target.
    """
    *_, found = sizes(task, hardware=hardware, target_percent=target_percent)
    return found


def sizes(
    task: Task,
    *,
    hardware: str = "",
    target_percent: float = 0.0,
    resume: Path | None = None,
    watch: Watch = unwatched,
) -> Iterator[Size]:
    """As ``size``, with what is known before the first trial and after each. ``resume``: a file that the outcomes of
    trials are kept in, so that none is played twice."""
    hardware = _kind(task, hardware)
    if not 0 <= target_percent < 100:
        raise InvalidValue(f"the target must be from 0 to 100 %, got {target_percent} %", field="target")
    workload = workload_of(task.source, task.seed)
    plan = planned(task)
    guests, bound = _least(workload, plan, hardware)
    allowed = math.floor(target_percent / 100 * guests)
    # Who is refused, waits, runs elsewhere or is lost with a host does not press on the busiest moment.
    fewer_may_do = allowed or task.wait_hours or plan.failures or plan.maintenance
    proven = not fewer_may_do and plan.burst_above_percent is None
    kept, search, trials, best = Kept(resume), Search(bound, proven=proven), list[Trial](), None
    while True:
        enough = search.enough
        yield Size(
            hardware=hardware,
            hosts=enough,
            at_least=search.too_few + 1,
            lower_bound=bound,
            gap_percent=round(100.0 * (enough / bound - 1.0), 3) if enough is not None and proven else None,
            target_percent=target_percent,
            trials=trials.copy(),
            outcome=best,
            interrupted=search.candidate is not None,
        )
        hosts = search.candidate
        if hosts is None:
            return
        tried = msgspec.structs.replace(task, counts={**task.counts, hardware: hosts}, most_unserved=allowed)
        outcome = _tried(tried, kept, watch)
        held = outcome.unserved <= allowed
        trials.append(Trial(hosts=hosts, unserved=outcome.unserved, held=held))
        search.note(hosts, holds=held)
        best = outcome if held else best


def _least(workload: Guests, plan: FleetPlan, hardware: str) -> tuple[int, int]:
    """The number of guests; and hosts of a kind that must be there from the beginning, by ``lower_bound``, if all that
    come later are there when most is asked for."""
    later = Counter({kind.name: 0 for kind in plan.hardware})
    for growth in plan.growth:
        later[growth.hardware] += growth.add
    grown = {kind.name: msgspec.structs.replace(kind, count=kind.count + later[kind.name]) for kind in plan.hardware}
    kind = grown.pop(hardware)
    guests, bound = lower_bound(workload, kind, list(grown.values()))
    return guests, max(1, bound - later[hardware])


def _kind(task: Task, hardware: str) -> str:
    """The kind of host that is meant: the first if none is named."""
    kinds = [kind.name for kind in task.plan.hardware]
    if hardware and hardware not in kinds:
        raise UnknownName.among("hardware", hardware, kinds, field="hardware")
    return hardware or kinds[0]


def _tried(task: Task, kept: Kept, watch: Watch) -> Outcome:
    """The outcome of a task, pending or done."""
    digest = task.digest if kept.path is not None else ""
    known = kept.get(digest)
    if known is not None:
        return known
    workload = workload_of(task.source, task.seed)
    steps = max(1, (workload.horizon_s - workload.steps.start) // STEP_S)
    with watch(f"trial of {planned(task).hosts:,} hosts", steps) as advance:
        return kept.put(digest, execute(task, lambda run: advance()))


def lower_bound(workload: Guests, kind: Hardware, others: Sequence[Hardware] = ()) -> tuple[int, int]:
    """The number of guests; and hosts of ``kind`` that even a perfect packing needs beside the others when most is
    asked for at once, in all or in one zone, at least one. Holds for refusing nothing. InvalidValue for a guest that
    fits neither."""
    zones = ["", *sorted({spec.availability_zone for spec in workload.specs if spec.availability_zone})]
    count, most = peaks(workload, [partial(_asked, index, zone) for zone in zones for index in range(len(_FIELDS))])
    if not count:
        raise InvalidValue(f"{workload.name}: no guests", field="trace")
    for spec in workload.specs:
        asked = [_asked(index, "", spec) for index in range(len(_FIELDS))]
        if all(any(a > b for a, b in zip(asked, _holds(each), strict=True)) for each in (kind, *others)):
            raise InvalidValue(f"{workload.name}: a guest {spec.flavor.name} fits no host", field="trace")
    needs = [1]
    for zone, peaked in zip(zones, zip(*[iter(most)] * len(_FIELDS), strict=True), strict=True):
        there = [sum(_holds(each)[index] * _hosts_in(each, zone) for each in others) for index in range(len(_FIELDS))]
        missing = [(peak - has, holds) for peak, has, holds in zip(peaked, there, _holds(kind), strict=True)]
        hosts = max((math.ceil(amount / holds) if holds else 1 for amount, holds in missing if amount > 0), default=0)
        needs.append(_dealt(kind, zone, hosts))
    return count, max(needs)


_FIELDS: Final = ("vcpus", "memory_mb", "root_gb")


def _asked(index: int, zone: str, spec: RequestSpec) -> int:
    """How much of a field a guest asks for, in a zone if one is named."""
    return getattr(spec.flavor, _FIELDS[index]) if zone in ("", spec.availability_zone) else 0


def _hosts_in(kind: Hardware, zone: str) -> int:
    """Hosts of a kind in a zone, or in all."""
    if not zone:
        return kind.count
    return sum(1 for number in range(kind.count) if kind.zones[number % len(kind.zones)] == zone)


def _dealt(kind: Hardware, zone: str, hosts: int) -> int:
    """Hosts of a kind required for a number of hosts in one zone: they are distributed over its zones in turn."""
    if not zone or zone not in kind.zones or not hosts:
        return hosts
    return (hosts - 1) * len(kind.zones) + kind.zones.index(zone) + 1


def _holds(kind: Hardware) -> tuple[float, float, float]:
    """vCPUs, MiB and GiB of a host."""
    memory_mb = round(kind.memory_gb * 1024) * kind.ram_allocation_ratio
    return kind.vcpus * kind.cpu_allocation_ratio, memory_mb, kind.disk_gb * kind.disk_allocation_ratio


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """On which day each seed's run refused more than the target, None where it never did; and over the seeds the
    median and the band from the 10th to the 90th percentile, None where that lies beyond the horizon. Of ``seeds``
    runs those that were played: fewer if it was ended early."""

    horizon_days: float
    target_percent: float
    growth_per_year: float
    seeds: int
    days: list[int | None]
    median_day: int | None
    early_day: int | None
    late_day: int | None
    outcomes: list[Outcome]
    interrupted: bool


def forecast(
    task: Task, seeds: Sequence[int], *, target_percent: float = 0.0, workers: int = 0, cluster: str = ""
) -> Forecast:
    """When capacity runs out, over workloads that are made from several seeds. InvalidValue for a source that is not
    made."""
    tasks = forecast_tasks(task, seeds, target_percent=target_percent)
    return foreseen(tasks, [outcome for _, outcome in outcomes(tasks, workers=workers, cluster=cluster)])


def forecast_tasks(task: Task, seeds: Sequence[int], *, target_percent: float = 0.0) -> list[Task]:
    """The runs of a forecast, one of each seed. InvalidValue for a source that is not made."""
    if not task.source.made_hours:
        raise InvalidValue("a forecast needs a horizon", field="days")
    if not seeds:
        raise InvalidValue("a forecast needs seeds", field="seeds")
    return [msgspec.structs.replace(task, seed=seed, stop_percent=target_percent) for seed in seeds]


def foreseen(tasks: Sequence[Task], results: Sequence[Outcome]) -> Forecast:
    """What the outcomes of the first of a forecast's runs say."""
    first = tasks[0]
    days = [exhausted_day(outcome, first.stop_percent) for outcome in results]
    return Forecast(
        horizon_days=first.source.made_hours / 24,
        target_percent=first.stop_percent,
        growth_per_year=first.source.growth_per_year,
        seeds=len(tasks),
        days=days,
        median_day=_quantile(days, 0.5),
        early_day=_quantile(days, 0.1),
        late_day=_quantile(days, 0.9),
        outcomes=list(results),
        interrupted=len(results) < len(tasks),
    )


def exhausted_day(outcome: Outcome, target_percent: float) -> int | None:
    """The first day, from 1, on which more than ``target_percent`` of the requests were refused."""
    pairs = zip(outcome.requests_by_day, outcome.refused_by_day, strict=True)
    return next((day for day, (n, refused) in enumerate(pairs, 1) if 100 * refused > target_percent * max(n, 1)), None)


def _quantile(days: Collection[int | None], part: float) -> int | None:
    """The nearest-rank quantile; None stands for later than all, and for nothing known."""
    if not days:
        return None
    ranked = sorted(days, key=lambda day: math.inf if day is None else day)
    return ranked[max(0, math.ceil(part * len(ranked)) - 1)]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over seeds and its 95 % confidence interval, None for one seed alone."""

    mean: float
    low: float | None
    high: float | None


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one policy, over-commit and size over all seeds."""

    policy: str
    cpu_ratio: float
    hosts: int
    refused_percent: Interval
    peak_vcpu_percent: Interval
    stranded_percent: Interval
    cost_per_guest_hour: float | None
    seeds: list[int]


def grid(
    task: Task,
    *,
    policies: Sequence[str],
    cpu_ratios: Sequence[float] = (),
    hosts: Sequence[int] = (),
    seeds: Sequence[int] = (0,),
    hardware: str = "",
) -> list[Task]:
    """All combinations, in order. ``hosts``: of ``hardware``, the first kind if it is not named. UnknownName for an
    unknown kind."""
    hardware = _kind(task, hardware)
    combined = itertools.product(policies, cpu_ratios or (task.cpu_ratio,), hosts or (None,), seeds)
    return [
        msgspec.structs.replace(
            task,
            policy=policy,
            cpu_ratio=ratio,
            counts=task.counts if count is None else {**task.counts, hardware: count},
            seed=seed,
        )
        for policy, ratio, count, seed in combined
    ]


def compare(tasks: Sequence[Task], results: Sequence[Outcome]) -> list[Compared]:
    """Outcomes of a grid by everything but the seed, in order of the tasks."""
    groups: dict[tuple[str, float, int], list[tuple[int, Outcome]]] = {}
    for task, outcome in zip(tasks, results, strict=True):
        groups.setdefault((task.policy, task.cpu_ratio, outcome.hosts), []).append((task.seed, outcome))
    return [
        Compared(
            policy=policy,
            cpu_ratio=ratio,
            hosts=hosts,
            refused_percent=interval([outcome.refused_percent for _, outcome in found]),
            peak_vcpu_percent=interval([outcome.peak_percent["VCPU"] for _, outcome in found]),
            stranded_percent=interval([_mean_stranded(outcome) for _, outcome in found]),
            cost_per_guest_hour=_mean([o.cost_per_guest_hour for _, o in found if o.cost_per_guest_hour is not None]),
            seeds=[seed for seed, _ in found],
        )
        for (policy, ratio, hosts), found in groups.items()
    ]


def _mean_stranded(outcome: Outcome) -> float:
    return statistics.fmean(sample.stranded_percent for sample in outcome.samples) if outcome.samples else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 6) if values else None


def interval(values: Sequence[float]) -> Interval:
    """The mean and its 95 % confidence interval by Student's t."""
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Interval(mean=round(mean, 4), low=None, high=None)
    t = _T[n - 2] if n - 2 < len(_T) else (2.12 if n < 100 else 1.985)
    half = t * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean=round(mean, 4), low=round(mean - half, 4), high=round(mean + half, 4))
