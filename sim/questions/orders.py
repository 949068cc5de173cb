"""Which hosts to order by when: a forecast's answer to capacity that runs out, with the lead times of hardware.

Hosts of an order come at the beginning of the day on which capacity would run out in too many of the seeds. The number
is the least with which it lasts until the next order, or the horizon, found by runs; it is ordered as many days earlier
as its hardware takes to come."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

import msgspec

from ...placement.types.errors import InvalidValue, UnknownName
from ..run.fleet_plan import MOST_HOSTS, FleetPlan, Growth
from ..run.hardware import HOURS_PER_YEAR, Hardware, cost_of
from ..run.outcome import Outcome, exhausted_day
from ..run.sizing import Search
from .tasks import Task

MOST_ORDERS: Final = 50
MOST_TIMES: Final = 64
"""So many times the hosts that there are, and 1,000 more, are the most that one order may have."""
Play = Callable[[Sequence[Task]], Sequence[Outcome]]
"""Plays tasks, and gives their outcomes in order."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """So many hosts of ``hardware``, which must be there on ``needed_day`` and are to be ordered by ``order_day`` at
    the latest; days count from 1, those before it are over: then it is too ``late``, and capacity runs out before they
    come. With them capacity lasts through ``lasts_to_day``. ``price`` and ``price_per_hour`` of all. Dates where the
    trace has dates."""

    hardware: str
    hosts: int
    order_day: int
    needed_day: int
    lasts_to_day: int
    late: bool
    price: float
    price_per_hour: float
    order_date: str | None = None
    needed_date: str | None = None


class Ordering(msgspec.Struct, frozen=True, kw_only=True):
    """How hosts are ordered: of which ``kinds`` (those of the plan with a price if none is named, or the one with a
    lead time), each time for ``every_days`` (0: once, for the whole horizon), so that capacity lasts in the part
    ``confidence`` of the seeds. Of the kinds that come in time, or of all where none does, the one is taken that costs
    least from the day on which it is needed to the horizon, by ``price`` and ``price_per_hour``."""

    kinds: tuple[str, ...] = ()
    every_days: int = 0
    confidence: float = 0.9


class Orders(NamedTuple):
    """The orders, the first first, and notes on what they leave open: days for which no order helps, and kinds that
    are not compared."""

    orders: list[Order]
    notes: list[str]


def check_ordering(plan: FleetPlan, how: Ordering) -> None:
    """UnknownName for an unknown kind; InvalidValue for several kinds one of which has no price, or for numbers that
    are out of range."""
    if not 0 < how.confidence <= 1 or how.every_days < 0:
        raise InvalidValue("confidence or days between orders are out of range", field="confidence")
    known = {kind.name: kind for kind in plan.hardware}
    for name in how.kinds:
        if name not in known:
            raise UnknownName.among("hardware", name, known, field="order")
    names = list(dict.fromkeys(how.kinds))
    for name in names:
        if len(names) > 1 and not _priced(known[name]):
            problem = f"hardware {name} has no price or price_per_hour by which it can be compared"
            raise InvalidValue(problem, field="order", hint="give it one, or order one kind")


def orders(
    tasks: Sequence[Task], results: Sequence[Outcome], how: Ordering, play: Play, *, begins: str | None = None
) -> Orders:
    """The orders that a forecast's ``tasks``, one of each seed, with their ``results`` lead to. ``begins``: the date of
    day 1. Errors as of ``check_ordering``."""
    plan, target = tasks[0].plan, tasks[0].stop_percent
    check_ordering(plan, how)
    kinds, notes = _kinds(plan, how)
    found = Orders([], notes)
    horizon = math.ceil(tasks[0].source.made_hours / 24)
    days = [exhausted_day(outcome, target) for outcome in results]
    while kinds and (needed := _deadline(days, how.confidence)) is not None:
        if len(found.orders) == MOST_ORDERS:
            notes.append(f"more than {MOST_ORDERS} orders are needed: the first are told; --order-days orders for more")
            break
        last = min(horizon, needed + how.every_days - 1) if how.every_days else horizon
        tried = [(kind, _least(tasks, kind, needed, last, how, play)) for kind in kinds]
        helping = [(kind, least.hosts) for kind, least in tried if least.hosts is not None]
        if not helping:
            notes += [_no_help(kind, least, last) for kind, least in tried]
            break
        kind, hosts = min(helping, key=lambda each: _rank(each[0], each[1], needed, horizon))
        found.orders.append(_order(kind, hosts, needed, last, begins))
        tasks = [_with(task, kind, hosts, needed) for task in tasks]
        if last >= horizon:
            break
        days = [exhausted_day(outcome, target) for outcome in play(tasks)]
    return found


def _kinds(plan: FleetPlan, how: Ordering) -> tuple[list[Hardware], list[str]]:
    """The kinds that may be ordered, and what is to be said of others."""
    known = {kind.name: kind for kind in plan.hardware}
    if how.kinds:
        return [known[name] for name in dict.fromkeys(how.kinds)], []
    priced = [kind for kind in known.values() if _priced(kind)]
    others = [kind for kind in known.values() if kind.lead_time_days and not _priced(kind)]
    if not priced and len(others) == 1:
        return others, []
    names = ", ".join(kind.name for kind in others)
    return priced, [f"of hardware without a price none is ordered: {names}"] if others else []


def _priced(kind: Hardware) -> bool:
    return kind.price > 0 or kind.price_per_hour > 0


def _late(kind: Hardware, needed: int) -> bool:
    """True if hosts of a kind cannot come by a day, even if they are ordered on the first."""
    return needed - math.ceil(kind.lead_time_days) < 1


def _rank(kind: Hardware, hosts: int, needed: int, horizon: int) -> tuple[bool, float, int]:
    """Orders by whether they come in time, then by what they cost to the horizon, then by hosts."""
    years = 24 * (horizon - needed + 1) / HOURS_PER_YEAR
    return _late(kind, needed), hosts * cost_of(kind, years), hosts


def _no_help(kind: Hardware, least: _Least, last: int) -> str:
    """Why no number of a kind helps, in words."""
    why = f", guests are refused: {least.why}" if least.why else ""
    return f"no order of {kind.name} makes capacity last through day {last}: with {least.tried:,} more{why}"


def _deadline(days: Sequence[int | None], confidence: float) -> int | None:
    """The first day on which capacity has run out in more of the seeds than may be; None for never."""
    ranked = sorted(math.inf if day is None else day for day in days)
    allowed = math.floor((1 - confidence) * len(days) + 1e-9)
    found = ranked[min(allowed, len(ranked) - 1)] if ranked else math.inf
    return None if math.isinf(found) else int(found)


class _Least(NamedTuple):
    """The fewest hosts that are enough, None if no number is; of how many that was ``tried`` last, and why guests were
    refused then."""

    hosts: int | None
    tried: int
    why: str


def _least(tasks: Sequence[Task], kind: Hardware, needed: int, last: int, how: Ordering, play: Play) -> _Least:
    """The fewest hosts of a kind that have capacity last from one day through another."""
    search, plan, why = Search(1), tasks[0].plan, ""
    there = plan.hosts + sum(growth.add for growth in plan.growth)
    most = min(MOST_TIMES * there + 1_000, MOST_HOSTS - there)
    while (hosts := search.candidate) is not None:
        if hosts > most:
            return _Least(None, search.too_few, why)
        until = [msgspec.structs.replace(_with(task, kind, hosts, needed), until_hours=last * 24.0) for task in tasks]
        results = play(until)
        out = _deadline([exhausted_day(outcome, tasks[0].stop_percent) for outcome in results], how.confidence)
        holds = out is None or out > last
        why = why if holds else _most_refused(results)
        search.note(hosts, holds=holds)
    return _Least(search.enough, search.too_few, why)


def _most_refused(results: Sequence[Outcome]) -> str:
    """What most guests were refused for."""
    refused = sum((Counter(outcome.refusals) for outcome in results), Counter[str]())
    return min(refused, key=lambda what: (-refused[what], what), default="")


def _with(task: Task, kind: Hardware, hosts: int, day: int) -> Task:
    """The task with hosts that come at the beginning of a day."""
    growth = Growth(hardware=kind.name, add=hosts, at_hours=24.0 * (day - 1))
    plan = msgspec.structs.replace(task.plan, growth=(*task.plan.growth, growth))
    return msgspec.structs.replace(task, plan=plan)


def _order(kind: Hardware, hosts: int, needed: int, last: int, begins: str | None) -> Order:
    day = needed - math.ceil(kind.lead_time_days)
    first = None if begins is None else date.fromisoformat(begins)
    dates = [None if first is None else (first + timedelta(days=each - 1)).isoformat() for each in (day, needed)]
    return Order(
        hardware=kind.name,
        hosts=hosts,
        order_day=day,
        needed_day=needed,
        lasts_to_day=last,
        late=_late(kind, needed),
        price=round(kind.price * hosts, 2),
        price_per_hour=round(kind.price_per_hour * hosts, 4),
        order_date=dates[0],
        needed_date=dates[1],
    )
