"""Which hosts to buy: the mix of several kinds of host that costs least, is of fewest hosts or draws least power, and
keeps guests that are not served within a target, with a reserve for failures, in so many of several seeds.

Runs decide what holds, by the engine's own rules; a mixed-integer program (``covering``) tells where to begin, and
below which sum no mix can be. From the first mix that holds, hosts are left out and exchanged for cheaper ones as long
as that holds too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...placement.types.errors import InvalidValue, UnknownName
from ..run.fleet_plan import FleetPlan, checked
from ..run.hardware import HOURS_PER_YEAR, Hardware, cost_of
from ..run.headroom import AtSteps
from ..run.holding import asked, classes_of
from ..run.outcome import Outcome
from ..trace.generator import Made
from ..trace.workload import Guests
from .covering import Cover, Covering, Reserve
from .least import beside, busiest
from .planning import Watch, unwatched
from .tasks import Task, planned, source_of, start, workload_of

Objective = Literal["cost", "hosts", "power"]
MOST_MOMENTS: Final = 4
"""Moments at which failures are tried, and for which mixes are computed."""
_TIMES: Final = (1.0, 1.02, 1.05, 1.1, 1.15, 1.25, 1.4, 1.7, 2.0, 3.0, 5.0)
"""How many times as many guests mixes are computed for until one holds: what packing wastes."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a mix is to be. ``kinds``: hardware of the plan that may be bought, all if none is named; ``cost`` over
    ``years``, with ``energy_price`` per kWh; ``reserve``: any one host, rack or zone may fail when most is asked for;
    ``target_percent`` of the guests need not be served, in the part ``confidence`` of the ``seeds``; at most ``trials``
    mixes are played."""

    objective: Objective = "cost"
    kinds: tuple[str, ...] = ()
    years: float = 5.0
    energy_price: float = 0.0
    target_percent: float = 0.0
    reserve: Reserve = ""
    seeds: tuple[int, ...] = (0,)
    confidence: float = 0.9
    trials: int = 60


class Bought(msgspec.Struct, frozen=True, kw_only=True):
    """So many hosts of a kind, and what they cost and take together. ``lead_time_days`` after the order they come."""

    hardware: str
    hosts: int
    price: float
    price_per_hour: float
    watts: float
    rack_units: float
    lead_time_days: float


class MixTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A mix that was played: hosts by kind, the sum of the objective, whether it ``held`` in enough of the seeds, and
    ``why`` it did not, in words; empty if it held."""

    counts: dict[str, int]
    value: float
    held: bool
    why: str


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """The best mix that was found, None if none held. ``value``: the sum of the objective; no mix that holds has less
    than ``lower_bound`` (None where guests may wait, so that nothing is known); ``gap_percent`` above it. ``cost`` over
    the years; ``outcome``: of the first seed that held."""

    wish: Wish
    currency: str
    counts: dict[str, int] | None
    value: float | None
    lower_bound: float | None
    gap_percent: float | None
    bought: list[Bought]
    cost: float | None
    trials: list[MixTrial]
    outcome: Outcome | None
    interrupted: bool


def purchase(task: Task, wish: Wish) -> Purchase:
    """The best mix that is found. InvalidValue or UnknownName for a wish that cannot be, or guests that fit no host."""
    *_, found = purchases(task, wish)
    return found


def purchases(task: Task, wish: Wish, watch: Watch = unwatched) -> Iterator[Purchase]:
    """As ``purchase``, with what is known before the first trial and after each."""
    search = _Search(task, wish, watch)
    yield search.told(interrupted=True)
    for _ in search.steps():
        yield search.told(interrupted=True)
    yield search.told(interrupted=False)


def unit_of(kind: Hardware, wish: Wish) -> float:
    """What one host of a kind adds to the objective. InvalidValue where the kind does not tell."""
    match wish.objective:
        case "hosts":
            return 1.0
        case "power":
            found, missing = kind.watts, "watts"
        case "cost":
            found, missing = cost_of(kind, wish.years, wish.energy_price), "price or price_per_hour"
    if found <= 0:
        raise InvalidValue(f"hardware {kind.name} has no {missing}", field="fleet.hardware")
    return found


class _Search:
    """The mixes of a task that were tried, and the best of them."""

    def __init__(self, task: Task, wish: Wish, watch: Watch) -> None:
        _check(wish)
        self.task, self.wish, self.watch = task, wish, watch
        self.plan = checked(planned(task))
        self.kinds = _kinds(self.plan, wish)
        self.unit = {kind.name: unit_of(kind, wish) for kind in self.kinds}
        self.needed = max(1, math.ceil(wish.confidence * len(wish.seeds) - 1e-9))
        """Seeds in which a mix must hold."""
        self.trials: list[MixTrial] = []
        self.known: dict[tuple[int, ...], bool] = {}
        self.best: dict[str, int] | None = None
        self.outcome: Outcome | None = None
        self._last: Outcome | None = None
        self.priced = wish.objective == "cost" and self.plan.burst_above_percent is not None
        """Guests in a public cloud are served at a price, which is a part of the sum."""
        self.elsewhere: dict[tuple[int, ...], float] = {}
        """What guests in a public cloud cost over the years, by mix that holds."""
        self.steps_of: dict[int, list[int]] = {}
        self.allowed: dict[int, int] = {}
        covers = [(self._covering(seed), seed) for seed in wish.seeds]
        least = sorted(
            ((covering.least(self.unit), covering) for covering, _ in covers), key=lambda each: each[0].bound
        )
        first, self.covering = least[self.needed - 1]
        # A guest that waits, or runs elsewhere, is not there when most is asked for.
        self.bound = None if task.wait_hours or self.priced else first.bound
        self.first: Cover = first

    def _covering(self, seed: int) -> Covering:
        workload = workload_of(source_of(self.task), seed)
        bought = {kind.name for kind in self.kinds}
        classes = classes_of(workload.specs)
        amounts = [_amounts(workload, classes)]
        count, moments = busiest(workload, amounts, until_hours=self.task.until_hours)
        moments = moments[:MOST_MOMENTS]
        self.steps_of[seed] = [moment.step for moment in moments]
        self.allowed[seed] = math.floor(self.wish.target_percent / 100 * count)
        stay = self.task.standing_stay or not isinstance(workload, Made)
        return Covering(
            moments,
            workload.specs,
            workload.terms,
            self.kinds,
            beside(self.plan, bought, standing_stay=stay),
            reserve=self.wish.reserve,
            later={kind: sum(growth.add for growth in self.plan.growth if growth.hardware == kind) for kind in bought},
            allowed=self.allowed[seed],
        )

    def value(self, counts: Mapping[str, int]) -> float:
        """The sum of the objective."""
        hosts = sum(self.unit[name] * count for name, count in counts.items())
        return hosts + self.elsewhere.get(tuple(counts[kind.name] for kind in self.kinds), 0.0)

    def _rank(self, counts: Mapping[str, int]) -> tuple[float, ...]:
        """Mixes of the same sum: the one of fewest hosts, then of least cost, then of least power."""
        wish = self.wish
        cost = sum(cost_of(kind, wish.years, wish.energy_price) * counts[kind.name] for kind in self.kinds)
        watts = sum(kind.watts * counts[kind.name] for kind in self.kinds)
        order = [-counts[kind.name] for kind in self.kinds]
        return (round(self.value(counts), 6), sum(counts.values()), round(cost, 6), round(watts, 6), *order)

    # the search

    def steps(self) -> Iterator[None]:
        """Try mixes, one a step, as long as better ones may be found."""
        yield from self._until_one_holds()
        if self.best is None:
            return
        improved = True
        while improved and not self._done():
            before = self._rank(self.best)
            yield from self._fewer()
            if self.priced:
                yield from self._more()
            yield from self._exchanged()
            improved = self._rank(self.best) < before

    def _done(self) -> bool:
        reached = self.bound is not None and self.best is not None and self.value(self.best) <= self.bound * (1 + 1e-9)
        return reached or len(self.trials) >= self.wish.trials

    def _until_one_holds(self) -> Iterator[None]:
        """Mixes for more and more guests, until one holds; then for fewer again, between the last two."""
        low = high = 1.0
        for times in _TIMES:
            cover = self.first if times == 1.0 else self.covering.least(self.unit, times=times)
            high = times
            if self._try(cover.counts):
                yield
                break
            yield
            low = times
            if len(self.trials) >= self.wish.trials:
                return
        if self.best is None or high == 1.0:
            return
        for _ in range(4):
            if self._done():
                return
            times = (low + high) / 2
            held = self._try(self.covering.least(self.unit, times=times).counts)
            low, high = (low, times) if held else (times, high)
            yield

    def _fewer(self) -> Iterator[None]:
        """Leave hosts out, of the kind first that counts most, in growing strides."""
        for kind in sorted(self.kinds, key=lambda kind: -self.unit[kind.name]):
            stride = 1
            while self.best is not None and self.best[kind.name] and stride and not self._done():
                count = max(0, self.best[kind.name] - stride)
                stride = stride * 2 if self._try({**self.best, kind.name: count}) else stride // 2
                yield

    def _more(self) -> Iterator[None]:
        """Add hosts as long as what they save in a public cloud is more than they cost."""
        for kind in sorted(self.kinds, key=lambda kind: -self.unit[kind.name]):
            stride = 1
            while self.best is not None and stride and not self._done():
                better = self._try({**self.best, kind.name: self.best[kind.name] + stride})
                stride = stride * 2 if better else stride // 2
                yield

    def _exchanged(self) -> Iterator[None]:
        """Exchange hosts of one kind for fewer or cheaper ones of another."""
        for one in sorted(self.kinds, key=lambda kind: -self.unit[kind.name]):
            for other in self.kinds:
                if other is one:
                    continue
                for out, into in ((1, 1), (2, 1), (1, 2), (3, 2), (2, 3)):
                    gains = out * self.unit[one.name] - into * self.unit[other.name] > 1e-9
                    while gains and self.best is not None and self.best[one.name] >= out and not self._done():
                        changed = {one.name: self.best[one.name] - out, other.name: self.best[other.name] + into}
                        held = self._try({**self.best, **changed})
                        yield
                        if not held:
                            break

    def _try(self, counts: Mapping[str, int]) -> bool:
        """True if a mix holds, and is the best where guests elsewhere have a price; what was tried is known. The best
        that holds is kept."""
        counts = {kind.name: counts[kind.name] for kind in self.kinds}
        key = tuple(counts.values())
        if key not in self.known:
            why = self._played(counts)
            self.known[key] = not why
            self.trials.append(MixTrial(counts=counts, value=round(self.value(counts), 4), held=not why, why=why))
            if not why and (self.best is None or self._rank(counts) < self._rank(self.best)):
                self.best, self.outcome = counts, self._last
                return True
        return self.known[key] and not self.priced

    def _played(self, counts: Mapping[str, int]) -> str:
        """Why a mix does not hold in enough of the seeds; empty if it does."""
        held, failed, why, elsewhere = 0, 0, "", 0.0
        for seed in self.wish.seeds:
            found, outcome = self._seed(counts, seed)
            held, failed = held + (not found), failed + bool(found)
            why = why or found
            if not found and held == 1:
                self._last = outcome
            if not found and outcome is not None:
                elsewhere += self._burst_cost(outcome)
            if failed > len(self.wish.seeds) - self.needed:
                return why if len(self.wish.seeds) == 1 else f"{failed} of {held + failed} seeds: {why}"
            if held == self.needed:
                break
        self.elsewhere[tuple(counts.values())] = elsewhere / held
        return ""

    def _burst_cost(self, outcome: Outcome) -> float:
        """What guests in a public cloud cost over the years, if they go on as in the run."""
        hours = self.wish.years * HOURS_PER_YEAR
        return outcome.burst_cost * hours / outcome.hours if self.priced and outcome.hours else 0.0

    def _seed(self, counts: Mapping[str, int], seed: int) -> tuple[str, Outcome | None]:
        allowed = self.allowed[seed]
        most = -1 if self.priced else allowed
        task = msgspec.structs.replace(self.task, counts={**self.task.counts, **counts}, most_unserved=most, seed=seed)
        if not planned(task).hosts and not planned(task).growth:
            return "no hosts", None
        run = start(task)
        moments = AtSteps(run, self.steps_of[seed]) if self.wish.reserve else None
        with self.watch(f"mix of {planned(task).hosts:,} hosts, seed {seed}", run.expected_steps) as advance:

            def step() -> bool:
                advance()
                return moments.look() if moments is not None else True

            try:
                outcome = run.play(step, until_unserved=None if self.priced else allowed)
                unserved = outcome.unserved - (outcome.burst if self.priced else 0)
                if unserved > allowed:
                    return f"{unserved:,} not served", outcome
                failing = moments.failing(self.wish.reserve) if moments is not None else None
            finally:
                if moments is not None:
                    moments.close()
        return (f"{failing} may not fail" if failing else ""), outcome

    def told(self, *, interrupted: bool) -> Purchase:
        """What is known so far."""
        wish, best = self.wish, self.best
        bought = [_bought(kind, best[kind.name]) for kind in self.kinds if best is not None and best[kind.name]]
        value = self.value(best) if best is not None else None
        costs = [cost_of(kind, wish.years, wish.energy_price) * best[kind.name] for kind in self.kinds] if best else []
        bound = self.bound
        gap = 100 * (value / bound - 1) if value is not None and bound else (0.0 if value == bound == 0 else None)
        return Purchase(
            wish=wish,
            currency=self.plan.currency,
            counts=best,
            value=None if value is None else round(value, 4),
            lower_bound=None if bound is None else round(bound, 4),
            gap_percent=None if gap is None else round(max(0.0, gap), 3),
            bought=bought,
            cost=round(sum(costs), 2) if any(costs) else None,
            trials=list(self.trials),
            outcome=self.outcome,
            interrupted=interrupted,
        )


def _amounts(workload: Guests, classes: Sequence[str]) -> NDArray[np.int64]:
    rows = [asked(spec, classes) for spec in workload.specs]
    return np.array(rows, np.int64).reshape(len(rows), -1)


def _check(wish: Wish) -> None:
    if not 0 <= wish.target_percent < 100:
        raise InvalidValue(f"the target must be from 0 to 100 %, got {wish.target_percent} %", field="target")
    if not 0 < wish.confidence <= 1 or not wish.seeds:
        raise InvalidValue("the confidence must be above 0 and at most 1, of one seed or more", field="confidence")
    if not 0 < wish.years <= 100 or not 0 <= wish.energy_price < 1e6:
        raise InvalidValue("years or the price of energy is out of range", field="years")
    if wish.trials < 1:
        raise InvalidValue("at least one mix must be tried", field="trials")


def _kinds(plan: FleetPlan, wish: Wish) -> list[Hardware]:
    """The kinds that may be bought."""
    kinds = {kind.name: kind for kind in plan.hardware}
    for name in wish.kinds:
        if name not in kinds:
            raise UnknownName.among("hardware", name, kinds, field="hardware")
    named = {host.hardware for host in plan.named}
    wanted = dict.fromkeys(wish.kinds or [name for name in kinds if name not in named] or kinds)
    return [kinds[name] for name in wanted]


def _bought(kind: Hardware, hosts: int) -> Bought:
    return Bought(
        hardware=kind.name,
        hosts=hosts,
        price=round(kind.price * hosts, 2),
        price_per_hour=round(kind.price_per_hour * hosts, 4),
        watts=round(kind.watts * hosts, 1),
        rack_units=round(kind.rack_units * hosts, 1),
        lead_time_days=kind.lead_time_days,
    )
