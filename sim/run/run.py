"""One run: a workload played on a fleet plan under a policy, optionally with a waiting queue, and its outcome."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...placement.decide.batch_decisions import Decisions
from ...placement.policy.policy import Policy
from ...placement.types.ordered_sum import ordered_sum
from ...placement.types.request import Request, RequestSpec
from ..trace.workload import ALONE, EPOCH_S, NEVER, STEP_S, Guests
from .binding import Binding
from .coming import NOBODY, Coming
from .evacuation import Disruption, Evacuation
from .fleet_plan import FleetPlan
from .groups import Groups
from .site import Site, check_zones
from .standing_state import StandingGuests

RESOURCES: Final = ("VCPU", "MEMORY_MB", "DISK_GB")
_GUESTS: Final = "6e79{:04x}-{:04x}-4000-8000-"
"""What the uuids of guests begin with: the number of their spec, in two halves. They end with the guest's own."""
Whole = NDArray[np.int64]
LONGEST_S: Final = 20 * 366 * 86_400
"""Requests that may wait longer than this wait for ever once nothing changes any more."""
SAMPLES: Final = 400
"""Number of parts of a run whose busiest steps are points of the curves, besides the last step: at most twice as many
points."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """How things stand ``hours`` into the run: percent of each resource that is given, by zone (``all``: of the
    fleet), and the percent of idle vCPUs that are stranded: no memory is left beside them."""

    hours: float
    guests: int
    waiting: int
    refused: int
    used_percent: dict[str, dict[str, float]]
    stranded_percent: float
    hosts_down: int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run. ``cpu_ratio``: the fleet's over-commit of CPUs. Waits in hours; ``guest_hours`` of the guests
    that were placed, within the run; ``burst``: guests beyond the plan's threshold, which were not tried here. Costs in
    the currency of the plan's prices, ``burst_cost`` of these and of the refused. ``unserved``: guests that were
    refused, lost with a host, still waiting at the end, or run elsewhere (``burst``)."""

    fleet: str
    workload: str
    policy: str
    cpu_ratio: float
    seed: int
    hosts: int
    hosts_at_end: int
    hours: float
    requests: int
    placed: int
    refused: int
    waiting: int
    refused_percent: float
    refusals: dict[str, int]
    burst: int
    unserved: int
    waited: int
    mean_wait_hours: float
    longest_wait_hours: float
    first_refusal_hours: float | None
    peak_percent: dict[str, float]
    mean_percent: dict[str, float]
    peak_guests: int
    guests_per_host_at_peak: float
    guest_hours: float
    cost: float
    cost_per_guest_hour: float | None
    burst_cost: float
    requests_by_day: list[int]
    refused_by_day: list[int]
    interrupted: bool
    samples: list[Sample]
    disruption: Disruption | None = None


class Run:
    """A run in progress. Deterministic: equal inputs, equal outcomes. UnknownName for guests of zones that the plan has
    not. ``wait_hours``: how long a request that finds no
    host may wait for one, first come first served. In memory are the guests that are there, those that wait, and the
    part of the workload that is being played.

    Guests of the plan's state stand there from the beginning; ``standing_leave``: when those of them leave that do, by
    uuid, in seconds of the workload.

    It goes on until the last guest with a known end has left and no request waits, or ends ``until_hours`` after its
    beginning. Guests that were made end at the horizon that they were made for.
    """

    def __init__(
        self,
        plan: FleetPlan,
        workload: Guests,
        policy: Policy,
        *,
        seed: int = 0,
        wait_hours: float = 0.0,
        until_hours: float | None = None,
        standing_leave: Mapping[str, int] | None = None,
    ) -> None:
        self.plan, self.workload, self.seed, self.wait_s = plan, workload, seed, wait_hours * 3600
        self._until_s = NEVER if until_hours is None else workload.start_s + round(until_hours * 3600)
        check_zones(plan, workload.specs)
        self.site = Site(plan, policy, seed=seed)
        self.engine = self.site.engine
        self.standing = StandingGuests(self.site.fleet, Path(plan.state)) if plan.state else None
        self.refusals: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.played = 0
        """Completed steps, those included in which nothing could happen."""
        self.placed = self.alive = self.offered = self.waited = self.burst = 0
        self.waited_s = self.longest_wait_s = 0
        self.peak_guests = 0
        self.first_refusal: float | None = None
        self.requests_by_day: list[int] = []
        self.refused_by_day: list[int] = []
        self._leaving: defaultdict[int, list[str]] = defaultdict(list)
        """By step: the guests that leave in it."""
        self._queue = NOBODY
        self._building: list[str] = []
        self.groups = Groups(self.engine)
        self._guest_s = self._burst_vcpu_s = self._burst_vcpus = 0
        self._host_hours_cost = 0.0
        self._now_s = self._reached = workload.start_s
        self._ends_s = workload.horizon_s
        """When the last guest with a known end leaves."""
        expected = -(-(min(self._ends_s, self._until_s) - workload.steps.start) // STEP_S)
        self.expected_steps = max(1, expected)
        """About how many steps the run has."""
        self._sums = np.zeros(len(RESOURCES))
        self._peaks = np.zeros(len(RESOURCES))
        self._measured = 0
        self.percent = np.zeros(len(RESOURCES))
        """What is given of each resource now."""
        self._busy = -1.0
        self._busiest: Sample | None = None
        """The busiest step since the last point of the curves."""
        self._memory_per_vcpu = workload.memory_per_vcpu
        self._uuid_of_spec = [_GUESTS.format(number >> 16, number & 0xFFFF) for number in range(len(workload.specs))]
        self._vcpus = np.array([spec.flavor.vcpus for spec in workload.specs], np.int64)
        self._known_places = -1
        self._row_of_place: Whole | slice = slice(0, 0)
        self._limits: Whole = np.zeros(len(RESOURCES), np.int64)
        """What all hosts can give of each resource."""
        self._zones: list[str] = []
        self._zone_of: Whole = np.empty(0, np.int64)
        self._price_per_hour = 0.0
        self._prices = {kind.name: kind.price_per_hour for kind in plan.hardware}
        self.evacuation = Evacuation(self)
        self._stand(standing_leave or {})

    def _stand(self, leave: Mapping[str, int]) -> None:
        """Take note of the guests of the state, and when they leave."""
        if self.standing is None:
            return
        self.alive = self.standing.count
        for uuid in self.standing.uuids:
            if uuid in leave:
                self._leaving[max(1, -(-(leave[uuid] - self.workload.steps.start) // STEP_S))].append(uuid)

    def play(self, advance: Callable[[], bool] = lambda: True, *, until_unserved: int | None = None) -> Outcome:
        """Play it all, or what is left of it. ``advance`` is called after each step; False ends the run there.
        ``until_unserved``: end it also once more than so many guests were refused, lost or run elsewhere."""
        start_s, interrupted = self.workload.steps.start, False
        stride, arrivals = max(1, self.expected_steps // SAMPLES), self._arrivals(self.played)
        last = not self._goes_on(self.played)
        while not last:
            number = self.played
            at_s = start_s + number * STEP_S
            self._step(number, at_s, next(arrivals, NOBODY))
            self.played = following = self._following(number)
            last = not self._goes_on(following)
            keep = following // stride > number // stride
            self._measure(at_s, STEP_S * (following - number), keep=keep, last=last)
            if not advance():
                interrupted = not last
                break
            if until_unserved is not None and self.unserved > until_unserved:
                break
        return self._outcome(interrupted)

    @property
    def hours(self) -> float:
        """How far it is: when the last step began."""
        return round((self._now_s - self.workload.start_s) / 3600, 4)

    @property
    def unserved(self) -> int:
        """Guests that were refused, lost with a host, or run elsewhere so far."""
        return self.refusals.total() + self.evacuation.lost_for.total() + self.burst

    def refuses(self, percent: float) -> bool:
        """True once more than ``percent`` of the requests of a whole day were refused."""
        pairs = zip(self.requests_by_day[:-1], self.refused_by_day[:-1], strict=True)
        return any(100 * refused > percent * max(n, 1) for n, refused in pairs)

    def spec_of(self, uuid: str) -> RequestSpec:
        """What a guest of this run asked for, as its uuid says; or a guest of the state."""
        if self.standing is not None:
            known = self.standing.spec_of(uuid)
            if known is not None:
                return known
        return self.workload.specs[int(uuid[4:8] + uuid[9:13], 16)]

    # guests and their hosts, for evacuation

    def take_off(self, uuids: Sequence[str]) -> dict[str, int]:
        """Release guests that leave their hosts before their time; uuid -> when each would have left, NEVER for after
        the run. O(guests)."""
        leaves, first = dict.fromkeys(uuids, NEVER), self.workload.steps.start
        for step, leaving in self._leaving.items():
            here = leaves.keys() & leaving
            if here:
                leaves.update(dict.fromkeys(here, first + step * STEP_S))
                self._leaving[step] = [uuid for uuid in leaving if uuid not in here]
        self.engine.release(uuids)
        self.alive -= len(uuids)
        return leaves

    def put_back(self, uuid: str, leaves: int) -> None:
        """Take note that a guest which was taken off has a host again."""
        if leaves != NEVER:
            self._leaving[(leaves - self.workload.steps.start) // STEP_S].append(uuid)
        self.engine.spawned(uuid)
        self.alive += 1

    def lost(self, uuid: str) -> None:
        """Record that a guest which was taken off will not return."""
        self.groups.left([uuid])

    # a step

    def _arrivals(self, played: int) -> Iterator[Coming]:
        """The arrivals in each step of the workload but the first ``played``. Guests that are there before the first
        step come in it."""
        number = step = 0
        for part in self.workload.parts():
            ends = np.searchsorted(part.arrival_s, np.array(part.steps), side="right").tolist()
            first = 0
            for at_s, last in zip(part.steps, ends, strict=True):
                if step >= played:
                    numbers = np.arange(number, number + last - first)
                    arrived = np.maximum(part.arrival_s[first:last], at_s)
                    columns = (part.departure_s, part.spec, part.group)
                    yield Coming(numbers, arrived, *(column[first:last] for column in columns))
                number, first, step = number + last - first, last, step + 1

    def _goes_on(self, number: int) -> bool:
        """True if there is a step with this number."""
        at_s = self.workload.steps.start + number * STEP_S
        if at_s >= self._until_s:
            return False
        if at_s < self.workload.end_s or at_s < self._ends_s:
            return True
        waits = bool(len(self._queue.number) or self.evacuation.off)
        changes = self._leaving or self.site.next_event_hours < math.inf or self.wait_s <= LONGEST_S
        return waits and bool(changes)

    def _following(self, number: int) -> int:
        """The next step in which anything may happen; when no more guests come, some are skipped."""
        following, start_s = number + 1, self.workload.steps.start
        begun = following < len(self.workload.steps) or self._building or self.evacuation.draining
        if begun or not self._goes_on(following):
            return following
        times = [time for time in (self._until_s, self._ends_s, self._give_up_s()) if time > start_s + number * STEP_S]
        event_s = self.workload.start_s + self.site.next_event_hours * 3600
        last = max(following, math.ceil((min(*times, event_s, NEVER) - start_s) / STEP_S))
        return next((step for step in range(following, last) if step in self._leaving), last)

    def _give_up_s(self) -> float:
        """When the first guest that waits for a host is no longer to wait, or its end comes; NEVER if none waits."""
        since = [each.since for each in self.evacuation.off.values()]
        leaves = [each.leaves for each in self.evacuation.off.values()]
        since += [int(self._queue.arrived_s.min())] if len(self._queue.number) else []
        return min([*(each + self.wait_s - STEP_S + 1 for each in since), *leaves, NEVER])

    def _step(self, number: int, at_s: int, arriving: Coming) -> None:
        changes = self.site.happen((at_s - self.workload.start_s) / 3600)
        self._depart(number)
        self.evacuation.step(at_s, changes)
        day = max(0, at_s - self.workload.start_s) // 86_400
        self.requests_by_day += [0] * (day + 1 - len(self.requests_by_day))
        self.refused_by_day += [0] * (day + 1 - len(self.refused_by_day))
        self.requests_by_day[day] += len(arriving.number)
        self.offered += len(arriving.number)
        coming = arriving
        if len(self._queue.number):
            coming = Coming(*map(np.concatenate, zip(self._queue, arriving, strict=True)))
        if self.plan.burst_above_percent is not None:
            coming = self._below(self.plan.burst_above_percent, coming, at_s)
        if not len(coming.number):
            return
        uuids = self._uuids(coming)
        decisions = self.engine.place_many(self._requests(coming, uuids, at_s))
        here = decisions.rows >= 0
        self._came(coming.of(np.flatnonzero(here)), list(compress(uuids, here.tolist())), at_s)
        self._turned_away(coming, np.flatnonzero(~here), decisions, at_s)

    def _below(self, percent: float, coming: Coming, at_s: int) -> Coming:
        """Those of the guests for whom less than ``percent`` of the vCPUs is given; the others run elsewhere."""
        rows, inventory = self._rows(), self.engine.fleet._store.inventory
        room = percent / 100 * self._limits[0] - inventory["used"][0, rows].sum()
        beyond = np.cumsum(self._vcpus[coming.spec]) > room
        self._queue = NOBODY
        self.burst += int(np.count_nonzero(beyond))
        self._bought(coming.of(np.flatnonzero(beyond)), at_s)
        return coming.of(np.flatnonzero(~beyond))

    def _bought(self, guests: Coming, at_s: int) -> None:
        """Guests run in a public cloud from now on, for as long as they would have here."""
        forever, vcpus = guests.departure_s == NEVER, self._vcpus[guests.spec]
        left = np.minimum(guests.departure_s - guests.arrived_s, max(0, self._until_s - at_s))
        self._burst_vcpu_s += int((vcpus * np.where(forever, 0, left)).sum())
        self._burst_vcpus += int(vcpus[forever].sum())

    def _uuids(self, coming: Coming) -> list[str]:
        begun = self._uuid_of_spec
        return [f"{begun[s]}{n:012x}" for s, n in zip(coming.spec.tolist(), coming.number.tolist(), strict=True)]

    def _requests(self, coming: Coming, uuids: list[str], at_s: int) -> list[Request]:
        specs, now = self.workload.specs, float(EPOCH_S + at_s)
        groups = self.groups.kept(coming.group)
        return [
            Request(spec=specs[spec], instance_uuids=(uuid,), server_group=group, now=now)
            for uuid, spec, group in zip(uuids, coming.spec.tolist(), groups, strict=True)
        ]

    def _depart(self, number: int) -> None:
        gone = self._leaving.pop(number, [])
        self.engine.spawned(self._building)
        self._building = []
        self.engine.release(gone)
        self.groups.left(gone)
        self.alive -= len(gone)

    def _came(self, guests: Coming, uuids: list[str], at_s: int) -> None:
        """Guests have been placed: note when they leave."""
        steps = self.workload.steps
        waits = at_s - guests.arrived_s
        departure = np.where(guests.departure_s == NEVER, NEVER, guests.departure_s + waits)
        leaving, never = self._leaving, (NEVER - steps.start) // STEP_S
        for uuid, step in zip(uuids, (-(-(departure - steps.start) // STEP_S)).tolist(), strict=True):
            if step < never:
                leaving[step].append(uuid)
        if waits.any():
            matter = guests.departure_s <= self.workload.horizon_s
            self._ends_s = max(self._ends_s, int(departure[matter].max(initial=0)))
        self._building = uuids
        self.groups.joined(guests.group, uuids)
        self.placed += len(uuids)
        self.alive += len(uuids)
        if waits.any():
            self.waited += int(np.count_nonzero(waits))
            self.waited_s += int(waits.sum())
            self.longest_wait_s = max(self.longest_wait_s, int(waits.max()))

    def _turned_away(self, coming: Coming, which: Whole, decisions: Decisions, at_s: int) -> None:
        """Guests without a host wait, or are refused finally."""
        waits = at_s + STEP_S - coming.arrived_s[which] <= self.wait_s
        self._queue = coming.of(which[waits])
        refused = which[~waits].tolist()
        binding = Binding(self.site, self.engine, self._rows()) if refused else None
        for position in refused:
            assert binding is not None
            refusal, number = decisions[position].refusal, int(coming.spec[position])
            grouped, stage = int(coming.group[position]) != ALONE, refusal.stage if refusal is not None else ""
            what = binding.of(number, self.workload.specs[number], grouped=grouped, stage=stage)
            self._refused(what, at_s, int(coming.arrived_s[position]))
        self._bought(coming.of(which[~waits]), at_s)
        self.groups.forget_empty(coming.group[which])

    def _refused(self, what: str, at_s: int, arrived_s: int) -> None:
        self.refusals[what] += 1
        self.refused_by_day[max(0, arrived_s - self.workload.start_s) // 86_400] += 1
        if self.first_refusal is None:
            self.first_refusal = (at_s - self.workload.start_s) / 3600

    # measuring

    def _measure(self, at_s: int, seconds: int, *, keep: bool, last: bool) -> None:
        """Note how full the fleet is for so many seconds; ``keep``: the busiest step since the last time this was said.
        What stands before the beginning counts from there. O(hosts)."""
        self._now_s, self._reached = at_s, min(at_s + seconds, max(self._until_s, at_s))
        seconds = max(0, self._reached - max(at_s, self.workload.start_s))
        self.peak_guests = max(self.peak_guests, self.alive)
        rows, store = self._rows(), self.engine.fleet._store
        used = store.inventory["used"][: len(RESOURCES)][:, rows]
        self.percent = percent = _percent(used.sum(axis=1), self._limits - self._limits_down())
        self._peaks = np.maximum(self._peaks, percent)
        self._sums += percent * seconds
        self._measured += seconds
        self._guest_s += self.alive * seconds
        self._burst_vcpu_s += self._burst_vcpus * seconds
        self._host_hours_cost += seconds / 3600 * self._price_per_hour
        self.evacuation.passed(seconds)
        busy = float(percent.max())
        if busy > self._busy:
            self._busy, self._busiest = busy, self._sample(at_s, used)
        if (keep or last) and self._busiest is not None:
            self.samples.append(self._busiest)
            if last and self._busiest.hours != self.hours:
                self.samples.append(self._sample(at_s, used))
            self._busy, self._busiest = -1.0, None

    def _sample(self, at_s: int, used: Whole) -> Sample:
        rows = self._rows()
        limit = self.engine.fleet._store.inventory["limit"][: len(RESOURCES)][:, rows]
        down = [host for host, reasons in self.site.down.items() if reasons > 0]
        if down:
            limit = limit.copy()
            places = {place.host: number for number, place in enumerate(self.site.places)}
            limit[:, [places[host] for host in down]] = 0
        by_zone = {"all": dict(zip(RESOURCES, self.percent.round(3).tolist(), strict=True))}
        for number, zone in enumerate(self._zones) if len(self._zones) > 1 else ():
            here = self._zone_of == number
            parts = _percent(used[:, here].sum(axis=1), limit[:, here].sum(axis=1))
            by_zone[zone] = dict(zip(RESOURCES, parts.round(3).tolist(), strict=True))
        idle = np.maximum(limit - used, 0)
        useful = np.minimum(idle[0], idle[1] / max(self._memory_per_vcpu, 1e-9))
        stranded = 100.0 * (1.0 - float(useful.sum()) / max(float(idle[0].sum()), 1.0)) if idle[0].any() else 0.0
        return Sample(
            hours=round((at_s - self.workload.start_s) / 3600, 4),
            guests=self.alive,
            waiting=len(self._queue.number),
            refused=self.refusals.total(),
            used_percent=by_zone,
            stranded_percent=round(stranded, 3),
            hosts_down=sum(reasons > 0 for reasons in self.site.down.values()),
        )

    def _limits_down(self) -> Whole | int:
        """What the hosts that are down could give of each resource."""
        down = [host for host, reasons in self.site.down.items() if reasons > 0]
        if not down:
            return 0
        fleet = self.engine.fleet
        found: Whole = fleet._store.inventory["limit"][: len(RESOURCES), [fleet.row(host) for host in down]].sum(axis=1)
        return found

    def _rows(self) -> Whole | slice:
        """Rows of the hosts, in the order of the site's places; a slice where they are neighbours."""
        places = self.site.places
        if len(places) != self._known_places:
            found = np.array([self.engine.fleet.row(place.host) for place in places], np.int64)
            self._known_places, self._row_of_place = len(places), found
            if len(found) and np.all(np.diff(found) == 1):
                self._row_of_place = slice(int(found[0]), int(found[-1]) + 1)
            limit = self.engine.fleet._store.inventory["limit"]
            self._limits = limit[: len(RESOURCES)][:, self._row_of_place].sum(axis=1)
            self._price_per_hour = ordered_sum(self._prices[place.hardware] for place in places)
            self._zones = sorted({place.zone for place in places})
            self._zone_of = np.array([self._zones.index(place.zone) for place in places], np.int64)
        return self._row_of_place

    def _outcome(self, interrupted: bool) -> Outcome:
        hours = (self._reached - self.workload.start_s) / 3600
        refused, guest_hours = self.refusals.total(), self._guest_s / 3600
        mean = self._sums / max(1, self._measured)
        cost = round(self._host_hours_cost, 2)
        return Outcome(
            fleet=self.plan.name,
            workload=self.workload.name,
            policy=self.engine.policy.name,
            cpu_ratio=self.plan.cpu_ratio,
            seed=self.seed,
            hosts=self.plan.hosts,
            hosts_at_end=len(self.site.places),
            hours=round(hours, 4),
            requests=self.offered,
            placed=self.placed,
            refused=refused,
            waiting=len(self._queue.number),
            refused_percent=round(100.0 * refused / max(1, self.offered), 4),
            refusals=dict(sorted(self.refusals.items(), key=lambda item: (-item[1], item[0]))),
            burst=self.burst,
            unserved=self.unserved + len(self._queue.number) + len(self.evacuation.off),
            waited=self.waited,
            mean_wait_hours=round(self.waited_s / 3600 / max(1, self.waited), 4),
            longest_wait_hours=round(self.longest_wait_s / 3600, 4),
            first_refusal_hours=self.first_refusal,
            peak_percent=dict(zip(RESOURCES, self._peaks.round(3).tolist(), strict=True)),
            mean_percent=dict(zip(RESOURCES, mean.round(3).tolist(), strict=True)),
            peak_guests=self.peak_guests,
            guests_per_host_at_peak=round(self.peak_guests / max(1, len(self.site.places)), 3),
            guest_hours=round(guest_hours, 3),
            cost=cost,
            cost_per_guest_hour=round(cost / guest_hours, 6) if guest_hours and cost else None,
            burst_cost=round(self._burst_vcpu_s / 3600 * self.plan.burst_price_per_vcpu_hour, 2),
            requests_by_day=self.requests_by_day,
            refused_by_day=self.refused_by_day,
            interrupted=interrupted,
            samples=[*self.samples, self._busiest] if self._busiest is not None else self.samples,
            disruption=self.evacuation.outcome(self._reached),
        )


def _percent(used: Whole, limit: Whole) -> NDArray[np.float64]:
    parts: NDArray[np.float64] = np.divide(100.0 * used, limit, out=np.zeros(len(used)), where=limit > 0)
    return parts
