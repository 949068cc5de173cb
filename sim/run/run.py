"""One run: a workload played on a fleet plan under a policy, optionally with a waiting queue, and its outcome."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.batch_decisions import Decisions
from ...placement.policy.policy import Policy
from ...placement.types.request import Request, RequestSpec
from ..trace.terms import Terms
from ..trace.workload import EPOCH_S, NEVER, STEP_S, Guests
from .binding import OUT, Binding
from .coming import NOBODY, Arrivals, Coming
from .contention import Contention
from .evacuation import Evacuation
from .fault_domains import FaultDomains
from .fleet_plan import FleetPlan
from .groups import Groups
from .host_columns import RESOURCES, HostColumns
from .observer import Observer
from .older_objects import spared
from .outages import Outages
from .outcome import Outcome, Sample
from .outcome_of_run import outcome_of
from .preemption import Preemption
from .room import Then
from .site import Site, completed
from .standing_state import StandingGuests
from .stretch import Stretches

_GUESTS: Final = "6e79{:04x}-{:04x}-4000-8000-"
"""What the uuids of guests begin with: the number of their spec, in two halves. They end with the guest's own."""
__all__ = ["RESOURCES", "Outcome", "Run", "Sample"]
Whole = NDArray[np.int64]
LONGEST_S: Final = 20 * 366 * 86_400
"""Requests that may wait longer than this wait for ever once nothing changes any more."""
SAMPLES: Final = 400
"""Parts of a run whose busiest steps are points of the curves, besides the last step: at most twice as many points."""


class Run:
    """A run in progress. Deterministic: equal inputs, equal outcomes. UnknownName for guests of zones that the plan has
    not. ``wait_hours``: how long a request that finds no host may wait for one, first come first served. In memory are
    the guests that are there, those that wait, and the part of the workload that is being played.

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
        self.specs = completed(plan, policy, workload.specs)
        self.site = Site(plan, policy, seed=seed)
        self.engine = self.site.engine
        self.standing = StandingGuests(self.site.fleet, Path(plan.state)) if plan.state else None
        self.refusals: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.played = 0
        """Completed steps, those included in which nothing could happen."""
        self.placed = self.alive = self.offered = self.waited = self.burst = 0
        self.waited_s = self.longest_wait_s = self.peak_guests = 0
        self.first_refusal: float | None = None
        self.requests_by_day: list[int] = []
        self.refused_by_day: list[int] = []
        self._leaving: defaultdict[int, list[str]] = defaultdict(list)
        """By step: the guests that leave in it."""
        self._queue, self._measured, self._busy = NOBODY, 0, -1.0
        self._building: list[str] = []
        self._vcpus = np.array([spec.flavor.vcpus for spec in workload.specs], np.int64)
        self._heed(workload.terms)
        self._guest_s, self._burst_vcpu_s, self._burst_vcpus, self._host_hours_cost = 0, 0, 0, 0.0
        self.now_s = self.reached_s = self.changed_s = workload.start_s
        """When the step that is being played, or was last, began; until when it has been played; when the last step
        began in which anything may have changed."""
        self._ends_s = workload.horizon_s
        """When the last guest with a known end leaves."""
        self.expected_steps = max(1, -(-(min(self._ends_s, self._until_s) - workload.steps.start) // STEP_S))
        """About how many steps the run has."""
        self._hosts = HostColumns(self.site)
        wished = {id(each): spec for each, spec in zip(self.specs, workload.specs, strict=True) if each is not spec}
        self.outages, self._binding = Outages(plan), Binding(self.site, wished)
        self._sums, self._peaks = np.zeros(len(self.resources)), np.zeros(len(self.resources))
        self.percent = np.zeros(len(self.resources))
        """What is given of each resource now."""
        self._busiest: Sample | None = None
        """The busiest step since the last point of the curves."""
        self._memory_per_vcpu = workload.memory_per_vcpu
        self._uuid_of_spec = [_GUESTS.format(number >> 16, number & 0xFFFF) for number in range(len(workload.specs))]
        self.evacuation = Evacuation(self)
        self._stride = max(1, self.expected_steps // SAMPLES)
        self._stretches = Stretches(self)
        self._stand(standing_leave or {})

    def _heed(self, terms: Sequence[Terms]) -> None:
        """What the trace says of guests beside their sizes, and who keeps count of it."""
        self.groups = Groups(self.engine, [(each.policy, each.most_per_host) for each in terms])
        self.preemption = Preemption(self, terms) if any(each.preemptible for each in terms) else None
        self._priority: Whole = np.array([each.priority for each in terms], np.int64)
        self._projects = [each.project for each in terms]
        used = any(each.usage is not None for each in terms)
        self.contention = Contention(self.engine, terms, self.specs) if used else None
        self.domains = FaultDomains(self, terms) if any(each.fault_domain for each in terms) else None
        self.observers: list[Observer] = [e for e in (self.contention, self.preemption, self.domains) if e is not None]
        """Notified when guests get, change or leave a host."""

    def _stand(self, leave: Mapping[str, int]) -> None:
        """Take note of the guests of the state, and when they leave."""
        if self.standing is None:
            return
        self.alive = self.standing.count
        for uuid in self.standing.uuids:
            for each in self.observers:
                each.stand(uuid, self.row_of(uuid), self.spec_of(uuid))
            if uuid in leave:
                self._leaving[max(1, -(-(leave[uuid] - self.workload.steps.start) // STEP_S))].append(uuid)

    @spared()
    def play(
        self,
        advance: Callable[[], bool] = lambda: True,
        *,
        until_unserved: int | None = None,
        every_step: bool = False,
    ) -> Outcome:
        """Play it all, or what is left of it. ``advance`` is called after each step, or after several in which guests
        only come and which are played together, unless it wants to see ``every_step``; False ends the run there.
        ``until_unserved``: end it also once more than so many guests were refused, lost or run elsewhere."""
        start_s, interrupted, together = self.workload.steps.start, False, not every_step and until_unserved is None
        coming, last = Arrivals(self.workload, self.played), not self._goes_on(self.played)
        while not last:
            number = self._step(self.played, coming, together=together)
            at_s = start_s + number * STEP_S
            self.played = following = self._following(number)
            last = not self._goes_on(following)
            keep = following // self._stride > number // self._stride
            self._measure(at_s, STEP_S * (following - number), keep=keep, last=last)
            if not advance():
                interrupted = not last
                break
            if until_unserved is not None and self.unserved > until_unserved:
                break
        return outcome_of(self, interrupted=interrupted)

    @property
    def resources(self) -> tuple[str, ...]:
        """What is measured: the resource classes of hosts, and GPUs where there are any."""
        return self._hosts.names

    @property
    def hours(self) -> float:
        """How far it is: when the last step began in which anything may have changed."""
        return round((self.changed_s - self.workload.start_s) / 3600, 4)

    @property
    def step(self) -> int:
        """Number of the last step that was played."""
        return (self.now_s - self.workload.steps.start) // STEP_S

    @property
    def unserved(self) -> int:
        """Guests that were refused, lost with a host, or run elsewhere so far."""
        return self.refusals.total() + self.evacuation.lost_for.total() + self.burst

    def spec_of(self, uuid: str) -> RequestSpec:
        """What a guest of this run asked for, as its uuid says; or a guest of the state, or of a named host."""
        if self.standing is not None:
            known = self.standing.spec_of(uuid)
            if known is not None:
                return known
        if uuid in self.site.used:
            return self.site.used[uuid]
        return self.specs[self.spec_number(uuid)]

    def project_of(self, uuid: str) -> str:
        """Whose a guest is; "" if that is not known."""
        number = self.spec_number(uuid)
        return self._projects[number] if number >= 0 else ""

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
        self._gone(uuids)
        return leaves

    def _gone(self, uuids: Sequence[str]) -> None:
        """Guests have left their hosts."""
        self.alive -= self._counted(uuids)
        for each in self.observers:
            each.left(uuids)

    def put_back(self, uuid: str, leaves: int) -> None:
        """Take note that a guest which was taken off has a host again."""
        if leaves != NEVER:
            self._leaving[(leaves - self.workload.steps.start) // STEP_S].append(uuid)
        self.engine.spawned(uuid)
        self._hosted([uuid], [self.row_of(uuid)], [self.spec_number(uuid)])

    def moved(self, uuid: str) -> None:
        """Record that a guest is on another host."""
        for each in self.observers:
            each.moved(uuid, self.row_of(uuid))

    def _hosted(self, uuids: Sequence[str], rows: Sequence[int], specs: Sequence[int]) -> None:
        """Guests have a host; a spec number below 0 is that of a guest that was there before the run."""
        self.alive += self._counted(uuids)
        for uuid, row, spec in zip(uuids, rows, specs, strict=True) if self.observers else ():
            for each in self.observers:
                if spec < 0:
                    each.stand(uuid, row, self.spec_of(uuid))
                else:
                    each.came(uuid, row, spec)

    def _counted(self, uuids: Sequence[str]) -> int:
        """How many guests those are; what is used of named hosts is none."""
        used = self.site.used
        return sum(uuid not in used for uuid in uuids) if used else len(uuids)

    def row_of(self, uuid: str) -> int:
        """The row that a guest is on."""
        fleet = self.engine.fleet
        return int(fleet._kernel.consumer(fleet.consumer_id(uuid))[2])

    def spec_number(self, uuid: str) -> int:
        """The number of a guest's spec; -1 for a guest of the state or of a named host."""
        if uuid in self.site.used:
            return -1
        if self.standing is not None and self.standing.spec_of(uuid) is not None:
            return -1
        return int(uuid[4:8] + uuid[9:13], 16)

    def bound(self, request: Request, stage: str) -> str:
        """What bound a guest of a failed host that was refused at a stage; that the host is out of service is known."""
        self._binding.renew(self._hosts.rows())
        return self._binding.of(request, stage=stage).removesuffix(OUT)

    def lost(self, uuid: str) -> None:
        """Record that a guest which was taken off will not return."""
        self.groups.left([uuid])

    # a step

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

    def _step(self, number: int, arrivals: Arrivals, *, together: bool) -> int:
        """Play a step, and those after it that may be played ``together`` with it; returns the last one's number."""
        arriving, at_s = arrivals.take(), self.workload.steps.start + number * STEP_S
        self.now_s = self.changed_s = at_s
        changes = self.site.happen((at_s - self.workload.start_s) / 3600)
        self._depart(number)
        self.evacuation.step(at_s, changes)
        steps = self._stretches.gathered(number, arriving, arrivals) if together else [arriving]
        if len(steps) > 1:
            for _ in steps[1:]:
                arrivals.take()
            self._stretches.play(number, steps)
            return number + len(steps) - 1
        self._offered(len(arriving.number), at_s)
        self._arrive(arriving, at_s)
        return number

    def _offered(self, requests: int, at_s: int) -> None:
        """So many guests ask for a host."""
        day = max(0, at_s - self.workload.start_s) // 86_400
        self.requests_by_day += [0] * (day + 1 - len(self.requests_by_day))
        self.refused_by_day += [0] * (day + 1 - len(self.refused_by_day))
        self.requests_by_day[day] += requests
        self.offered += requests

    def _arrive(self, arriving: Coming, at_s: int) -> None:
        """Place the guests that come in a step, and those that wait."""
        coming = arriving
        if len(self._queue.number):
            coming = Coming(*map(np.concatenate, zip(self._queue, arriving, strict=True)))
        if self.plan.burst_above_percent is not None:
            coming = self._below(self.plan.burst_above_percent, coming, at_s)
        if not len(coming.number):
            return
        if self._priority.any():
            coming = coming.of(np.argsort(-self._priority[coming.spec], kind="stable"))
        self._queue = NOBODY
        for part in (coming,) if self.domains is None else self.domains.parts(coming):
            self._place(part, at_s)

    def _place(self, coming: Coming, at_s: int) -> None:
        """Place guests that come or have waited; note those that find no host."""
        uuids = self._uuids(coming)
        requests = self._requests(coming, uuids, at_s)
        if self.domains is not None and len(requests) == 1:
            spec = self.domains.narrowed(requests[0].spec, int(coming.spec[0]), int(coming.group[0]))
            requests = [replace(requests[0], spec=spec)]
        decisions = self.engine.place_many(requests)
        here, rows = decisions.rows >= 0, decisions.rows
        self._came(coming.of(np.flatnonzero(here)), list(compress(uuids, here.tolist())), rows[here], at_s)
        if self.preemption is not None and not here.all():
            here, priorities = here.copy(), self._priority[coming.spec].tolist()
            for position, row in self.preemption.places(requests, priorities, np.flatnonzero(~here).tolist(), at_s):
                here[position] = True
                self._came(coming.of(np.array([position])), list(requests[position].instance_uuids), row, at_s)
        if len(which := np.flatnonzero(~here)):
            self._turned_away(coming, which, decisions, at_s, None)

    def _below(self, percent: float, coming: Coming, at_s: int) -> Coming:
        """Those of the guests for whom less than ``percent`` of the vCPUs is given; the others run elsewhere."""
        rows, inventory = self._hosts.rows(), self.engine.fleet._store.inventory
        room = percent / 100 * self._hosts.limits[0] - inventory["used"][0, rows].sum()
        beyond = np.cumsum(self._vcpus[coming.spec]) > room
        self._queue = NOBODY
        self.burst += int(np.count_nonzero(beyond))
        self._bought(coming.of(np.flatnonzero(beyond)), at_s)
        return coming.of(np.flatnonzero(~beyond))

    def _bought(self, guests: Coming, at_s: int) -> None:
        """Guests run in a public cloud from now on, for as long as they would have here."""
        forever, vcpus = guests.departure_s == NEVER, self._vcpus[guests.spec]
        begin_s = max(at_s, self.workload.start_s)
        left = np.minimum(guests.departure_s - guests.arrived_s - (begin_s - at_s), self._until_s - begin_s)
        left = np.where(forever, 0, np.maximum(left, 0))
        for each in self.observers:
            each.bought(self._uuids(guests), begin_s, np.where(forever, NEVER, begin_s + left).tolist())
        self._burst_vcpu_s += int((vcpus * left).sum())
        self._burst_vcpus += int(vcpus[forever].sum())

    def _uuids(self, coming: Coming) -> list[str]:
        begun = self._uuid_of_spec
        return [f"{begun[s]}{n:012x}" for s, n in zip(coming.spec.tolist(), coming.number.tolist(), strict=True)]

    def _requests(self, coming: Coming, uuids: list[str], at_s: int) -> list[Request]:
        specs, now = self.specs, float(EPOCH_S + at_s)
        groups, projects = self.groups.kept(coming.group, coming.spec), self._projects
        return [
            Request(spec=specs[spec], instance_uuids=(uuid,), server_group=group, now=now, project_id=projects[spec])
            for uuid, spec, group in zip(uuids, coming.spec.tolist(), groups, strict=True)
        ]

    def _depart(self, number: int) -> None:
        if self._building:
            self.engine.spawned(self._building)
            self._building = []
        gone = self._leaving.pop(number, [])
        if gone:
            self.engine.release(gone)
            self.groups.left(gone)
            self._gone(gone)

    def _came(self, guests: Coming, uuids: list[str], rows: NDArray[np.integer[Any]], at_s: int | Whole) -> None:
        """Guests have been placed on rows, at one time or one for each: note when they leave."""
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
        self._building += uuids
        self.groups.joined(guests.group, uuids)
        self.placed += len(uuids)
        self._hosted(uuids, rows.tolist(), guests.spec.tolist())
        if waits.any():
            self.waited += int(np.count_nonzero(waits))
            self.waited_s += int(waits.sum())
            self.longest_wait_s = max(self.longest_wait_s, int(waits.max()))

    def _turned_away(self, coming: Coming, which: Whole, decisions: Decisions, at_s: int, then: Then | None) -> None:
        """Guests without a host wait, or are refused finally. ``then``: by what hosts had given then, if not as now."""
        waits = at_s + STEP_S - coming.arrived_s[which] <= self.wait_s
        if waits.any():
            self._queue = Coming(*map(np.concatenate, zip(self._queue, coming.of(which[waits]), strict=True)))
        refused = which[~waits]
        lost, terms = coming.of(refused), self.workload.terms
        requests = self._requests(lost, [""] * len(refused), at_s)
        # The engine as it is now tells the stages, before rules are tried on another.
        stages = list(map(decisions.stage_of, refused.tolist()))
        self._binding.renew(self._hosts.rows(), then)
        for number, arrived_s, request, stage in zip(lost.spec, lost.arrived_s.tolist(), requests, stages, strict=True):
            domain = terms[number].fault_domain
            what = self._binding.of(request, stage=f"fault domain: {domain}" if domain else stage)
            self._refused(what, at_s, arrived_s)
        self._binding.forget()
        self._bought(lost, at_s)
        self.groups.forget_empty(coming.group[which])

    def _refused(self, what: str, at_s: int, arrived_s: int) -> None:
        self.refusals[what] += 1
        self.outages.refused((at_s - self.workload.start_s) / 3600)
        self.refused_by_day[max(0, arrived_s - self.workload.start_s) // 86_400] += 1
        if self.first_refusal is None:
            self.first_refusal = (at_s - self.workload.start_s) / 3600

    # measuring

    def _measure(self, at_s: int, seconds: int, *, keep: bool, last: bool) -> None:
        """Note how full the fleet is for so many seconds; ``keep``: the busiest step since the last time this was said.
        What stands before the beginning counts from there. O(hosts)."""
        used, self.percent = self._hosts.used(), self._hosts.percent()
        seconds = self._pass(at_s, seconds, self.alive)
        self._peaks = np.maximum(self._peaks, self.percent)
        self._sums += self.percent * seconds
        if self.contention is not None:
            self.contention.passed(seconds, *self._hosts.running())
        if (busy := float(self.percent.max())) > self._busy:
            self._busy = busy
            self._busiest = self._sample(at_s, used, self.percent, self.alive, self.refusals.total())
        if keep or last:
            point = self._busiest
            self._keep()
            if last and point is not None and point.hours != round((at_s - self.workload.start_s) / 3600, 4):
                self.samples.append(self._sample(at_s, used, self.percent, self.alive, self.refusals.total()))

    def _pass(self, at_s: int, seconds: int, guests: int) -> int:
        """So much time passes from a step on, with so many guests; how much of it is within the run."""
        self.now_s, self.reached_s = at_s, min(at_s + seconds, max(self._until_s, at_s))
        seconds = max(0, self.reached_s - max(at_s, self.workload.start_s))
        self.peak_guests = max(self.peak_guests, guests)
        self._measured += seconds
        self._guest_s += guests * seconds
        self._burst_vcpu_s += self._burst_vcpus * seconds
        self._host_hours_cost += seconds / 3600 * self._hosts.price_per_hour
        self.evacuation.passed(seconds)
        return seconds

    def _keep(self) -> None:
        """The busiest step since the last point becomes one."""
        if self._busiest is not None:
            self.samples.append(self._busiest)
            self._busy, self._busiest = -1.0, None

    def _sample(self, at_s: int, used: Whole, percent: NDArray[np.float64], guests: int, refused: int) -> Sample:
        by_zone = {"all": dict(zip(self.resources, percent.round(3).tolist(), strict=True))}
        return Sample(
            hours=round((at_s - self.workload.start_s) / 3600, 4),
            guests=guests,
            waiting=len(self._queue.number),
            refused=refused,
            used_percent=by_zone | self._hosts.percent_by_zone(used),
            capacity=self._hosts.capacity(),
            stranded_percent=self._hosts.stranded_percent(used, self._memory_per_vcpu),
            hosts_down=len(self.site.hosts_down),
        )
