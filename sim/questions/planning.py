"""The questions of capacity planning, answered by runs: how many hosts, when they run out, which policy is better."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from ...placement.types.errors import InvalidValue, UnknownName
from ..progress import Advance, Reached
from ..run.fleet_plan import FleetPlan
from ..run.outcome import Outcome, exhausted_day
from ..run.sizing import Search
from ..trace.generator import Made
from ..trace.workload import STEP_S, Guests
from .kept_outcomes import Kept
from .least import beside, lower_bound
from .order_size import Play
from .orders import Order, Ordering, check_ordering, orders
from .paired import Difference, by_day, by_seed, student
from .tasks import DEVOPS, Task, execute, outcomes, planned, source_of, workload_of


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A size that was tried, and guests not served: refused, lost with a host, waiting at the end, or run elsewhere."""

    hosts: int
    unserved: int
    held: bool


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A number of hosts played to the end: the guests not served and the requests refused, in percent of the requests,
    and the cost, with that of guests in a public cloud."""

    hosts: int
    unserved_percent: float
    refused_percent: float
    cost: float


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
    curve: list[CurvePoint] = []


Watch = Callable[[str, int], AbstractContextManager[Advance]]
"""Given what is played and in how many steps, a context whose value is called after each step."""


@contextmanager
def unwatched(label: str, steps: int) -> Iterator[Advance]:
    """No-op observer."""
    yield lambda steps=1: None


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
    workload = workload_of(source_of(task), task.seed)
    plan = planned(task)
    stay = task.standing_stay or not isinstance(workload, Made)
    guests, bound = _least(workload, plan, hardware, standing_stay=stay, until_hours=task.until_hours)
    allowed = math.floor(target_percent / 100 * guests)
    # Who is refused, waits, runs elsewhere or is lost with a host does not press on the busiest moment.
    fewer_may_do = allowed or task.wait_hours or plan.failures or plan.maintenance
    proven = not fewer_may_do and plan.burst_above_percent is None
    most = 2 * max(1, len(planned(task).zones)) * max(guests, bound)
    kept, search, trials, best = Kept(resume), Search(bound, proven=proven), list[Trial](), None
    while True:
        enough = search.enough
        yield Size(
            hardware=hardware,
            hosts=enough,
            at_least=search.too_few + 1,
            lower_bound=bound,
            gap_percent=_gap(enough, bound) if proven else None,
            target_percent=target_percent,
            trials=trials.copy(),
            outcome=best,
            interrupted=search.candidate is not None,
        )
        hosts = search.candidate
        if hosts is None:
            return
        if best is None and trials and trials[-1].hosts > most:
            last = trials[-1]
            problem = f"even with {last.hosts:,} {hardware}, {last.unserved:,} of {guests:,} guests are not served"
            hint = "`hostler simulate run` tells what they lack; --target allows some"
            raise InvalidValue(problem, field="target", hint=hint)
        tried = msgspec.structs.replace(task, counts={**task.counts, hardware: hosts}, most_unserved=allowed)
        outcome = _tried(tried, kept, watch)
        held = outcome.unserved <= allowed
        trials.append(Trial(hosts=hosts, unserved=outcome.unserved, held=held))
        search.note(hosts, holds=held)
        best = outcome if held else best


CURVE: Final = (0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 1.0)
"""Parts of the hosts that are needed for which refusals are shown."""


def with_curve(task: Task, found: Size, *, watch: Watch = unwatched) -> Size:
    """A size with what fewer hosts would refuse: the price of the last percent."""
    if found.hosts is None or found.interrupted:
        return found
    points = []
    for hosts in sorted({max(1, round(part * found.hosts)) for part in CURVE} if found.hosts else ()):
        tried = msgspec.structs.replace(task, counts={**task.counts, found.hardware: hosts}, most_unserved=-1)
        outcome = _tried(tried, Kept(None), watch)
        points.append(
            CurvePoint(
                hosts=hosts,
                unserved_percent=round(100 * outcome.unserved / max(1, outcome.requests), 4),
                refused_percent=outcome.refused_percent,
                cost=round(outcome.cost + outcome.burst_cost, 2),
            )
        )
    return msgspec.structs.replace(found, curve=points)


def _gap(hosts: int | None, bound: int) -> float | None:
    """How much more than the bound a number of hosts is, in percent."""
    if hosts is None or (hosts and not bound):
        return None
    return round(100.0 * (hosts / bound - 1.0), 3) if bound else 0.0


def _least(
    workload: Guests, plan: FleetPlan, hardware: str, *, standing_stay: bool, until_hours: float | None
) -> tuple[int, int]:
    """The number of guests that come until the run ends; and hosts of a kind that must be there from the beginning, by
    ``lower_bound``, if all that come later are there when most is asked for."""
    later = sum(growth.add for growth in plan.growth if growth.hardware == hardware)
    (kind,) = (each for each in plan.hardware if each.name == hardware)
    others = beside(plan, {hardware}, standing_stay=standing_stay)
    guests, bound = lower_bound(workload, kind, others, until_hours=until_hours)
    return guests, max(0 if others else 1, bound - later)


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
    workload = workload_of(source_of(task), task.seed)
    steps = max(1, (workload.horizon_s - workload.steps.start) // STEP_S)
    with watch(f"trial of {planned(task).hosts:,} hosts", steps) as advance:
        reached = Reached(advance)
        return kept.put(digest, execute(task, lambda run: reached(run.played)))


LEAST_BANDED: Final = 10
"""Runs below which the 10th and 90th percentiles are not told."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """On which day each seed's run refused more than the target, None where it never did; and over the seeds the
    median and the band from the 10th to the 90th percentile, None where that lies beyond the horizon; the band is not
    ``banded`` with fewer than ten runs, which cannot tell it. Of ``seeds`` runs those that were played: fewer if it was
    ended early. ``begins``: the date of day 1, where the trace has dates. ``notes``: what was assumed of the guests, by
    the first seed, and where no order helps. ``orders``: which hosts to order by when so that capacity lasts."""

    horizon_days: float
    target_percent: float
    growth_per_year: float
    seeds: int
    days: list[int | None]
    median_day: int | None
    early_day: int | None
    late_day: int | None
    banded: bool
    begins: str | None
    notes: list[str]
    outcomes: list[Outcome]
    interrupted: bool
    orders: list[Order] = []


def forecast(
    task: Task,
    seeds: Sequence[int],
    *,
    target_percent: float = 0.0,
    ordering: Ordering | None = None,
    workers: int = 0,
    cluster: str = "",
) -> Forecast:
    """When capacity runs out, over workloads that are made from several seeds; with ``ordering``, also which hosts to
    order by when. InvalidValue for a source that is not made."""

    def play(tasks: Sequence[Task]) -> list[Outcome]:
        return [outcome for _, outcome in outcomes(tasks, workers=workers, cluster=cluster)]

    tasks = forecast_tasks(task, seeds, target_percent=target_percent)
    if ordering is not None:
        check_ordering(task.plan, ordering)
    found = foreseen(tasks, play(tasks))
    return found if ordering is None else with_orders(found, tasks, ordering, play)


def with_orders(found: Forecast, tasks: Sequence[Task], how: Ordering, play: Play) -> Forecast:
    """A forecast with the orders that it leads to, and notes where no order helps; ``play`` plays what is tried."""
    told = orders(tasks, found.outcomes, how, play, begins=found.begins)
    return msgspec.structs.replace(found, orders=told.orders, notes=[*found.notes, *told.notes])


def forecast_tasks(task: Task, seeds: Sequence[int], *, target_percent: float = 0.0) -> list[Task]:
    """The runs of a forecast, one of each seed. InvalidValue for a source that is not made, and for a run that ends
    before its horizon, which would say nothing of the rest."""
    if not task.source.made_hours:
        raise InvalidValue("a forecast needs a horizon", field="days")
    if task.until_hours is not None and task.until_hours < task.source.made_hours:
        raise InvalidValue("a forecast goes on to its horizon", field="until", hint="name the horizon: --days")
    if not seeds:
        raise InvalidValue("a forecast needs seeds", field="seeds")
    return [msgspec.structs.replace(task, seed=seed, stop_percent=target_percent) for seed in seeds]


def foreseen(tasks: Sequence[Task], results: Sequence[Outcome]) -> Forecast:
    """What the outcomes of the first of a forecast's runs say."""
    first = tasks[0]
    days = [exhausted_day(outcome, first.stop_percent) for outcome in results]
    banded = len(days) >= LEAST_BANDED
    return Forecast(
        horizon_days=first.source.made_hours / 24,
        target_percent=first.stop_percent,
        growth_per_year=first.source.growth_per_year,
        seeds=len(tasks),
        days=days,
        median_day=_quantile(days, 0.5),
        early_day=_quantile(days, 0.1) if banded else None,
        late_day=_quantile(days, 0.9) if banded else None,
        banded=banded,
        begins=_date(workload_of(source_of(first), first.seed).epoch_s) if results else None,
        notes=workload_of(source_of(first), first.seed).notes if results else [],
        outcomes=list(results),
        interrupted=len(results) < len(tasks),
    )


def _date(epoch_s: int | None) -> str | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).date().isoformat()


def day_in_words(told: Forecast, day: int | None) -> str:
    """A day of a forecast, with its date where the trace has dates."""
    if day is None:
        return f"beyond {told.horizon_days:g} days"
    if told.begins is None:
        return f"day {day:,}"
    return f"day {day:,} ({date.fromisoformat(told.begins) + timedelta(days=day - 1)})"


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
    """The outcome of one policy, over-commit and size over all seeds. ``difference`` from the way of the same size that
    refused least, on the same guests; None for that way itself. ``contention_percent``: threshold in percent of a
    host's cores -> percent of host-hours in which guests want more, the mean over the seeds; None where the trace does
    not tell what guests use."""

    policy: str
    cpu_ratio: float
    hosts: int
    refused_percent: Interval
    peak_vcpu_percent: Interval
    stranded_percent: Interval
    cost_per_guest_hour: float | None
    seeds: list[int]
    difference: Difference | None = None
    contention_percent: dict[str, float] | None = None


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
    unknown kind, InvalidValue for a policy, ratio, number or seed that is there twice."""
    hardware = _kind(task, hardware)
    given = {"policies": policies, "cpu_ratios": cpu_ratios, "sizes": hosts, "seeds": seeds}
    for field, each in given.items():
        twice = next((one for at, one in enumerate(each) if one in each[:at]), None)
        if twice is not None:
            raise InvalidValue(f"{twice} is there twice", field=field)
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
    made = bool(tasks) and (tasks[0].source.made_hours > 0 or tasks[0].source.trace == DEVOPS)
    differences = _differences(groups, made)
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
            difference=differences.get((policy, ratio, hosts)),
            contention_percent=_contention([outcome for _, outcome in found]),
        )
        for (policy, ratio, hosts), found in groups.items()
    ]


def _contention(found: Sequence[Outcome]) -> dict[str, float] | None:
    """The mean contention of outcomes, by threshold."""
    told = [outcome.contention for outcome in found if outcome.contention is not None]
    if not told:
        return None
    return {each: round(statistics.fmean(one[each] for one in told), 4) for each in told[0]}


Way = tuple[str, float, int]


def _differences(groups: Mapping[Way, Sequence[tuple[int, Outcome]]], made: bool) -> dict[Way, Difference]:
    """How each way differs from the best of those with as many hosts. Made guests are other ones for each seed: pairs
    are seeds; the guests of one trace are the same for all: pairs are its days."""
    found: dict[Way, Difference] = {}
    for hosts in {way[2] for way in groups}:
        ways = [way for way in groups if way[2] == hosts]
        shared = set.intersection(*({seed for seed, _ in groups[way]} for way in ways))
        kept = {way: [outcome for seed, outcome in groups[way] if seed in shared] for way in ways}
        if not shared or len(ways) < 2:
            continue
        best = min(ways, key=lambda way: statistics.fmean(outcome.refused_percent for outcome in kept[way]))
        for way in (way for way in ways if way != best):
            if made:
                pair = [[outcome.refused_percent for outcome in kept[each]] for each in (way, best)]
                found[way] = by_seed(*pair, comparisons=len(ways) - 1)
            else:
                refused = [[outcome.refused_by_day for outcome in kept[each]] for each in (way, best)]
                days = max(len(each) for side in refused for each in side)
                one, other = ([sum(col) for col in _by_column(side, days)] for side in refused)
                asked = [sum(col) for col in _by_column([outcome.requests_by_day for outcome in kept[best]], days)]
                found[way] = by_day(one, other, asked, comparisons=len(ways) - 1)
    return found


def _by_column(rows: Sequence[Sequence[int]], width: int) -> list[tuple[int, ...]]:
    return list(zip(*([*row, *[0] * (width - len(row))] for row in rows), strict=True))


def _mean_stranded(outcome: Outcome) -> float:
    return statistics.fmean(sample.stranded_percent for sample in outcome.samples) if outcome.samples else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 6) if values else None


def interval(values: Sequence[float]) -> Interval:
    """The mean and its 95 % confidence interval by Student's t."""
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Interval(mean=round(mean, 4), low=None, high=None)
    half = student(0.975, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean=round(mean, 4), low=round(mean - half, 4), high=round(mean + half, 4))
