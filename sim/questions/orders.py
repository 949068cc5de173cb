"""Which hosts to order by when: a forecast's answer to capacity that runs out, with the lead times of hardware.

Hosts of an order come at the beginning of the day on which capacity would run out in too many of the seeds. The number
is the least with which it lasts until the next order, or the horizon, found by runs; it is ordered as many days earlier
as its hardware takes to come."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from typing import Final

import msgspec

from ...placement.types.errors import InvalidValue, UnknownName
from ..run.fleet_plan import FleetPlan, Growth, Hardware
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
    """How hosts are ordered: of which ``kinds`` (those of the plan with a price or a lead time if none is named; the
    cheapest is taken), each time for ``every_days`` (0: once, for the whole horizon), so that capacity lasts in the
    part ``confidence`` of the seeds."""

    kinds: tuple[str, ...] = ()
    every_days: int = 0
    confidence: float = 0.9


def orders(
    tasks: Sequence[Task], results: Sequence[Outcome], how: Ordering, play: Play, *, begins: str | None = None
) -> Iterator[Order]:
    """The orders that a forecast's ``tasks``, one of each seed, with their ``results`` lead to, the first first.
    ``begins``: the date of day 1. UnknownName for an unknown kind; InvalidValue for a kind of which no number helps, or
    orders without end."""
    if not 0 < how.confidence <= 1 or how.every_days < 0:
        raise InvalidValue("confidence or days between orders are out of range", field="confidence")
    plan, target = tasks[0].plan, tasks[0].stop_percent
    kinds = _kinds(plan, how)
    horizon = math.ceil(tasks[0].source.made_hours / 24)
    days = [exhausted_day(outcome, target) for outcome in results]
    for _ in range(MOST_ORDERS if kinds else 0):
        needed = _deadline(days, how.confidence)
        if needed is None:
            return
        last = min(horizon, needed + how.every_days - 1) if how.every_days else horizon
        found = [_least(tasks, kind, needed, last, how, play) for kind in kinds]
        helping = [(kind, hosts) for kind, hosts in zip(kinds, found, strict=True) if hosts is not None]
        if not helping:
            names = ", ".join(kind.name for kind in kinds)
            raise InvalidValue(
                f"no number of {names} has capacity last on day {needed}",
                field="order",
                hint="guests of a zone in which it does not stand, or larger than it?",
            )
        kind, hosts = min(helping, key=lambda each: (_cost(each[0]) * each[1], each[1]))
        yield _order(kind, hosts, needed, last, begins)
        tasks = [_with(task, kind, hosts, needed) for task in tasks]
        if last >= horizon:
            return
        days = [exhausted_day(outcome, target) for outcome in play(tasks)]
    if kinds:
        raise InvalidValue(f"more than {MOST_ORDERS} orders", field="order", hint="order for more days at a time")


def _kinds(plan: FleetPlan, how: Ordering) -> list[Hardware]:
    known = {kind.name: kind for kind in plan.hardware}
    for name in how.kinds:
        if name not in known:
            raise UnknownName.among("hardware", name, known, field="order")
    if how.kinds:
        return [known[name] for name in dict.fromkeys(how.kinds)]
    return [kind for kind in known.values() if kind.price or kind.price_per_hour or kind.lead_time_days]


def _cost(kind: Hardware) -> float:
    """What hosts of a kind are compared by: their price, or price per hour; 1 where there is none."""
    return kind.price or kind.price_per_hour or 1.0


def _deadline(days: Sequence[int | None], confidence: float) -> int | None:
    """The first day on which capacity has run out in more of the seeds than may be; None for never."""
    ranked = sorted(math.inf if day is None else day for day in days)
    allowed = math.floor((1 - confidence) * len(days) + 1e-9)
    found = ranked[min(allowed, len(ranked) - 1)] if ranked else math.inf
    return None if math.isinf(found) else int(found)


def _least(tasks: Sequence[Task], kind: Hardware, needed: int, last: int, how: Ordering, play: Play) -> int | None:
    """The fewest hosts of a kind that have capacity last from one day through another; None if no number does."""
    search = Search(1)
    most = MOST_TIMES * tasks[0].plan.hosts + 1_000
    while (hosts := search.candidate) is not None:
        if hosts > most:
            return None
        until = [msgspec.structs.replace(_with(task, kind, hosts, needed), until_hours=last * 24.0) for task in tasks]
        days = [exhausted_day(outcome, tasks[0].stop_percent) for outcome in play(until)]
        out = _deadline(days, how.confidence)
        search.note(hosts, holds=out is None or out > last)
    return search.enough


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
        late=day < 1,
        price=round(kind.price * hosts, 2),
        price_per_hour=round(kind.price_per_hour * hosts, 4),
        order_date=dates[0],
        needed_date=dates[1],
    )
