"""Which hosts to order by when: a forecast's answer to capacity that runs out, with the lead times of hardware.

Hosts of an order come at the beginning of the day on which capacity would run out in too many of the seeds. The number
is the least with which it lasts until the next order, or the horizon, found by runs; it is ordered as many days earlier
as its hardware takes to come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

import msgspec

from ...placement.types.errors import InvalidValue, UnknownName
from ..run.fleet_plan import FleetPlan
from ..run.hardware import HOURS_PER_YEAR, Hardware, cost_of
from ..run.outcome import Outcome, exhausted_day
from .order_size import Demand, Least, Play, least, ordered
from .tasks import Task

MOST_ORDERS: Final = 50


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
    demand, allowed = Demand(tasks), _allowed(how.confidence, len(tasks))
    while kinds and (needed := _deadline(days, how.confidence)) is not None:
        if len(found.orders) == MOST_ORDERS:
            notes.append(f"more than {MOST_ORDERS} orders are needed: the first are told; --order-days orders for more")
            break
        last = min(horizon, needed + how.every_days - 1) if how.every_days else horizon
        tried = [(kind, least(tasks, kind, needed, last, allowed=allowed, demand=demand, play=play)) for kind in kinds]
        helping = [(kind, best.hosts) for kind, best in tried if best.hosts is not None]
        if not helping:
            notes += [_no_help(*each, last) for each in tried]
            break
        kind, hosts = min(helping, key=lambda each: _rank(each[0], each[1], needed, horizon))
        found.orders.append(_order(kind, hosts, needed, last, begins))
        tasks = [ordered(task, kind, hosts, needed) for task in tasks]
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


def _no_help(kind: Hardware, tried: Least, last: int) -> str:
    """Why no number of a kind helps, in words."""
    why = f", guests are refused: {tried.why}" if tried.why else ""
    return f"no order of {kind.name} makes capacity last through day {last}: with {tried.tried:,} more{why}"


def _allowed(confidence: float, seeds: int) -> int:
    """In so many of the seeds capacity may run out."""
    return math.floor((1 - confidence) * seeds + 1e-9)


def _deadline(days: Sequence[int | None], confidence: float) -> int | None:
    """The first day on which capacity has run out in more of the seeds than may be; None for never."""
    ranked = sorted(math.inf if day is None else day for day in days)
    found = ranked[min(_allowed(confidence, len(days)), len(ranked) - 1)] if ranked else math.inf
    return None if math.isinf(found) else int(found)


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
