"""Steps in which guests only come, or nothing happens, played together: their requests in one call, and the figures of
each step from what it placed. What comes of a run is the same, to the last bit, as if they were played one by one, but
the busiest moment of the headroom, which is looked for at the end of each stretch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.batch_decisions import Decisions
from ...placement.filters.base import Filter
from ...placement.gpu.providers import GPU_MILLI
from ...placement.policy.rule_checks import fields_of
from ...placement.types.errors import HostlerError
from ...placement.types.request import Request, RequestSpec
from ...placement.weighers.base import Weigher
from ..trace.workload import ALONE, EPOCH_S, STEP_S
from .coming import Arrivals, Coming
from .hardware import PCPU
from .host_columns import GPU, RESOURCES, percent_of
from .played import Played
from .room import Came, Then

MOST_GUESTS: Final = 1024
"""Guests from which on no further step is taken in."""
FEW_GUESTS: Final = 64
"""The same where rules were tried on forks that the guests of later steps had left."""
MOST_STEPS: Final = 4096
WORTH: Final = 5
"""Steps from which on it takes less to play them together though guests come in one of them at most."""
_CPUS: Final = "hw:"
"""Extra specs by which guests of one spec may take other CPUs on other hosts."""
Whole = NDArray[np.int64]


class Stretches:
    """The stretches of a run."""

    def __init__(self, run: Played) -> None:
        self.run = run
        specs = run.specs
        quiet = run.wait_s < STEP_S and run.plan.burst_above_percent is None
        plain = not run._priority.any() and PCPU not in run.resources and all(map(_takes_alike, specs))
        alike, policy = plain and not _is_elsewhere(run), run.engine.policy
        self._alike = bool(quiet and alike and not _reads_building(policy.filters, specs))
        self._builds = self._alike and _reads_building(policy.weighers, specs)
        """True if it matters within a stretch which guests are being built."""
        self._most = MOST_GUESTS
        self._takes: dict[int, Whole] = {}
        """What guests of a spec number take of each resource."""

    @property
    def may_be(self) -> bool:
        """False if only idle steps may be played together: observers, which may come at any time, see each step."""
        return self._alike and not self.run.observers

    def gathered(self, number: int, arriving: Coming, coming: Arrivals) -> list[Coming]:
        """The arrivals of step ``number`` and of those after it that are played with it; the first alone where it is
        better played by itself. Takes nothing of ``coming``. O(steps) of them."""
        run, found = self.run, [arriving]
        steps, guests, least = run.workload.steps, len(arriving.number), _leaves(arriving)
        idle = not self.may_be
        if idle and (guests or len(run._queue.number) or run.contention is not None):
            return found
        if run.evacuation.off or run.evacuation.draining or np.any(arriving.group != ALONE):
            return found
        for following in range(number + 1, min(len(steps), number + MOST_STEPS)):
            at_s = steps.start + following * STEP_S
            if guests >= self._most or at_s >= min(run._until_s, least) or following in run._leaving:
                break
            if run.site.next_event_hours <= (at_s - run.workload.start_s) / 3600:
                break
            more = coming.ahead(len(found) - 1)
            if len(more.number):
                if idle or np.any(more.group != ALONE):
                    break
                guests, least = guests + len(more.number), min(least, _leaves(more))
            found.append(more)
        busy = sum(len(each.number) > 0 for each in found)
        return found if busy > 1 or len(found) >= WORTH else found[:1]

    def play(self, number: int, steps: Sequence[Coming]) -> None:
        """Play the steps from ``number`` on, whose arrivals are given, but the figures of the last one. O(guests)
        placements, O(hosts) once and for each point of the curves, and for each step with refusals."""
        run, first_s = self.run, self.run.workload.steps.start + number * STEP_S
        coming = Coming(*map(np.concatenate, zip(*steps, strict=True)))
        ends = np.cumsum([len(each.number) for each in steps])
        before, alive = run._hosts.used().copy(), run.alive
        rows: NDArray[np.int32] = np.empty(0, np.int32)
        taken, decisions = np.empty((0, len(run.resources)), np.int64), None
        if len(coming.number):
            uuids = run._uuids(coming)
            built_at = np.unique(ends[ends < len(uuids)]).tolist() if self._builds else ()
            decisions = run.engine.place_many(self._requests(coming, uuids, first_s, ends), built_at=built_at)
            rows, taken = decisions.rows, self._taken(coming, decisions)
        here = rows >= 0
        placed = np.concatenate([np.zeros(1, np.int64), np.cumsum(here)])[ends]
        more = np.diff(placed, prepend=0)
        figures = _Figures(run, number, before, taken, rows, ends, alive + placed)
        came = Came(run.engine, [])
        if placed[-1]:
            which = np.flatnonzero(here)
            guests, came = coming.of(which), Came(run.engine, [uuids[at] for at in which.tolist()])
            run._came(guests, came.uuids, rows[which], guests.arrived_s)
            # Those of the last step alone are still being built when the next one begins.
            built = int(placed[-2])
            if not self._builds or ends[-2] == ends[-1]:
                run.engine.spawned(run._building[:built])
            run._building = run._building[built:]
        refused = np.flatnonzero(~here)
        bounds = [0, *np.searchsorted(refused, ends).tolist()]
        for at, each in enumerate(steps):
            run.now_s = first_s + at * STEP_S
            run._offered(len(each.number), run.now_s)
            if more[at]:
                run.changed_s = run.now_s
            if decisions is not None and bounds[at] < bounds[at + 1]:
                mine = refused[bounds[at] : bounds[at + 1]]
                run._turned_away(coming, mine, decisions, run.now_s, Then(came, int(placed[at])))
            if at < len(steps) - 1:
                figures.note(at)
        self._most = FEW_GUESTS if came.forked else MOST_GUESTS
        figures.sum_up()

    def _requests(self, coming: Coming, uuids: Sequence[str], first_s: int, ends: Whole) -> list[Request]:
        specs, projects = self.run.specs, self.run._projects
        times = np.repeat(np.arange(len(ends)) * STEP_S + (EPOCH_S + first_s), np.diff(ends, prepend=0))
        columns = zip(uuids, coming.spec.tolist(), times.astype(np.float64).tolist(), strict=True)
        return [
            Request(spec=specs[spec], instance_uuids=(uuid,), now=now, project_id=projects[spec])
            for uuid, spec, now in columns
        ]

    def _taken(self, coming: Coming, decisions: Decisions) -> Whole:
        """What each guest took of each resource, int64[guests, resources]."""
        rows, spec = decisions.rows, coming.spec
        taken = np.zeros((len(rows), len(self.run.resources)), np.int64)
        for number in np.unique(spec[rows >= 0]).tolist():
            which = np.flatnonzero((spec == number) & (rows >= 0))
            amounts = self._takes.get(number)
            if amounts is None:
                told = decisions[int(which[0])].amounts()
                names = [GPU_MILLI if name == GPU else name for name in self.run.resources]
                amounts = self._takes[number] = np.array([told.get(name, 0) for name in names], np.int64)
            taken[which] = amounts
        return taken


class _Step(NamedTuple):
    """A step that may become a point of the curves: its position, and how many guests had been refused."""

    at: int
    refused: int


class _Figures:
    """The figures of the steps of a stretch: ``used`` is what hosts had given after one of them."""

    def __init__(
        self, run: Played, number: int, before: Whole, taken: Whole, rows: NDArray[np.int32], ends: Whole, alive: Whole
    ) -> None:
        self.run, self.number, self.used = run, number, before
        self._taken, self._rows, self._ends, self._alive = taken, rows, ends, alive.tolist()
        sums = np.concatenate([np.zeros((1, taken.shape[1]), np.int64), np.cumsum(taken, axis=0)])[ends[:-1]]
        hosts = run._hosts
        self._percent = percent_of(before.sum(axis=1) + sums, hosts.limits - hosts.limits_down())
        self._busy = self._percent.max(axis=1).tolist()
        self._seconds: list[int] = []
        self._reached = 0
        """Guests that ``used`` includes."""
        self._point: _Step | None = None

    def _advance(self, at: int) -> None:
        last = int(self._ends[at])
        if self._reached < last:
            rows = self._rows[self._reached : last]
            here = np.flatnonzero(rows >= 0)
            positions = self.run._hosts.positions(rows[here])
            for used, taken in zip(self.used, self._taken[self._reached : last][here].T, strict=True):
                np.add.at(used, positions, taken)
            self._reached = last

    def _make_point(self) -> None:
        """Make the point of the curves that was put off. O(hosts)."""
        assert self._point is not None
        (at, refused), self._point, run = self._point, None, self.run
        self._advance(at)
        run._busiest = run._sample(self._at_s(at), self.used, self._percent[at], self._alive[at], refused)

    def _at_s(self, at: int) -> int:
        return self.run.workload.steps.start + (self.number + at) * STEP_S

    def note(self, at: int) -> None:
        """Take in the figures of step ``at``, as ``Run`` does for one alone."""
        run, guests, number = self.run, self._alive[at], self.number + at
        seconds = run._pass(self._at_s(at), STEP_S, guests)
        self._seconds.append(seconds)
        if self._busy[at] > run._busy:
            run._busy, self._point = self._busy[at], _Step(at, run.refusals.total())
        if (number + 1) // run._stride > number // run._stride:
            if self._point is not None:
                self._make_point()
            run._keep()

    def sum_up(self) -> None:
        """Bring the means and peaks of the run up to date."""
        run = self.run
        if self._point is not None:
            self._make_point()
        run._peaks = np.maximum(run._peaks, self._percent.max(axis=0))
        # One after the other, as they would be added step by step.
        for percent, seconds in zip(self._percent, self._seconds, strict=True):
            run._sums = run._sums + percent * seconds


def _leaves(coming: Coming) -> int:
    """When the first of the guests leaves; a time that no run reaches if there are none."""
    return int(coming.departure_s.min(initial=1 << 62))


def _takes_alike(spec: RequestSpec) -> bool:
    """True if all guests of a spec take the same of any host."""
    plain_image = spec.image is None or not spec.image.properties
    return plain_image and not any(key.startswith(_CPUS) for key in spec.flavor.extra_specs)


def _is_elsewhere(run: Played) -> bool:
    """True if guests may be given resources of other providers than those of which the figures are: VCPU, MEMORY_MB and
    DISK_GB of the places' hosts, GPUs of providers below them. A fleet from a state may have pools that hosts share,
    cells that are providers, or hosts without CPUs. O(providers)."""
    fleet = run.engine.fleet
    hosts, roots = fleet.is_host[: fleet.rows], fleet._store.row["root"][: fleet.rows]
    total = fleet._store.inventory["total"][:, : fleet.rows]
    if np.count_nonzero(hosts) != len(run.site.places) or total[: len(RESOURCES), ~hosts].any():
        return True
    if GPU not in run.resources or GPU_MILLI not in fleet.resource_classes:
        return False
    below = hosts[roots] & (roots != np.arange(fleet.rows))
    return bool(total[fleet.resource_class(GPU_MILLI), ~below].any())


def _reads_building(rules: Iterable[Filter | Weigher], specs: Sequence[RequestSpec]) -> bool:
    """True if a rule may read how many guests of a host are being built: it tells the steps of a stretch apart."""
    try:
        return any("num_io_ops" in fields_of(rule, Request(spec=spec)) for rule in rules for spec in specs)
    except HostlerError:
        return True
