"""Hosts emptied: guests are packed onto as few hosts as possible.

The hosts with the least load are emptied first, each whole or not at all, onto the fullest hosts that take its guests.
In a small fleet, sets of hosts are tried that the greedy order does not come to.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..decide.engine import Engine
from ..types.counting import counted
from ..types.plans import Measure, Plan, PlanOptions
from .choice import best_weighed, tightest
from .guests import Guest
from .make_room import RoomSearch
from .repacking import Repacking
from .trial import OnRow, Step, Trial
from .waves import in_waves, in_words

SMALL: Final = 16
"""Hosts in use up to which sets of hosts are tried."""
ATTEMPTS: Final = 6_000
"""Questions and moves that the search in a small fleet tries at most."""
REPACKED: Final = 60
"""Sets of hosts of one size for which all guests are packed again."""
FAILURES: Final = 24
"""Hosts in a row that could not be emptied, after which no fuller one is tried."""


class Consolidation:
    """The emptying of hosts on a trial. ``rows``: the hosts that may be emptied and that take guests."""

    def __init__(self, trial: Trial, rows: Sequence[int]) -> None:
        self._trial = trial
        fleet, inventory = trial.fleet, trial.fleet._store.inventory
        self.in_use = [row for row in rows if fleet._kernel.consumers_on(row)]
        used = np.array(self.in_use, np.int32)
        self.fixed = set(used[trial.guests.immovable(used)].tolist())
        limit = np.maximum(inventory["limit"][:, : fleet.rows], 0).astype(np.float64)
        share = np.divide(inventory["used"][:, : fleet.rows], limit, out=np.zeros_like(limit), where=limit > 0)
        self._load = share.max(axis=0)
        self.donors = sorted(
            (row for row in self.in_use if row not in self.fixed), key=lambda row: (float(self._load[row]), row)
        )
        self.emptied: list[int] = []

    def greedy(self, most: int) -> None:
        """Empty the hosts with the least load, one after the other, at most ``most``."""
        failures = 0
        for row in self.donors:
            if failures >= FAILURES or len(self.emptied) >= most:
                return
            failures = 0 if self._empty([row]) else failures + 1

    def exhaustive(self, most: int) -> None:
        """In a small fleet: try sets of more hosts than are emptied, at most ``most``, until one can be emptied."""
        trial, until = self._trial, self._trial.attempts + ATTEMPTS
        start, greedy, steps = trial.hold(), list(self.emptied), list(trial.steps)
        for size in range(most, len(greedy), -1):
            sets = sorted(itertools.combinations(self.donors, size), key=lambda chosen: sum(self._load[list(chosen)]))
            for chosen in sets:
                if trial.attempts > until:
                    break
                trial.back(self._clean)
                self.emptied = []
                if self._room_for(chosen) and any(self._empty(chosen, way) for way in range(_WAYS)):
                    return
        trial.back(self._clean)
        self.emptied = []
        if not self._repacked(most, len(greedy)):
            trial.back(start)
            trial.steps[:] = steps
            self.emptied = greedy

    def _repacked(self, most: int, least: int) -> bool:
        """Empty more than ``least`` hosts by packing all guests again; True if that was found."""
        packing = Repacking(self._trial, self.in_use, self.fixed)
        for size in range(most, least, -1):
            sets = sorted(itertools.combinations(self.donors, size), key=lambda chosen: sum(self._load[list(chosen)]))
            roomy = list(itertools.islice(filter(self._room_for, sets), REPACKED))
            names = (", ".join(self._trial.fleet.name(row) for row in chosen) for chosen in roomy)
            found = packing.empty(roomy, [f"empty {each}" for each in names])
            if found is not None:
                self.emptied = list(roomy[found])
                return True
        return False

    def run(self, most: int) -> None:
        """Empty as many hosts as are found, at most ``most``."""
        self._clean = self._trial.hold()
        self.greedy(most)
        if len(self.emptied) < most and len(self.in_use) <= SMALL:
            self.exhaustive(most)

    def _allowed(self, donors: Sequence[int]) -> NDArray[np.bool_]:
        allowed = np.zeros(self._trial.fleet.rows, bool)
        allowed[self.in_use] = True
        allowed[[*donors, *self.emptied]] = False
        return allowed

    def _room_for(self, donors: Sequence[int]) -> bool:
        """Whether the others have room for what the donors hold, class by class."""
        inventory = self._trial.fleet._store.inventory
        others = [row for row in self.in_use if row not in donors]
        room = np.maximum(inventory["limit"][:, others] - inventory["used"][:, others], 0).sum(axis=1)
        load = inventory["used"][:, list(donors)].sum(axis=1)
        return bool((load <= room).all())

    def _empty(self, donors: Sequence[int], way: int = 0) -> bool:
        """Empty hosts together, or change nothing."""
        trial, allowed = self._trial, self._allowed(donors)
        if not self._room_for_all(donors, allowed):
            return False
        mark = trial.hold()
        names = {row: trial.fleet.name(row) for row in donors}
        guests = [guest for row in donors for guest in trial.guests.on(row)]
        for guest in sorted(guests, key=lambda each: _order(each, way)):
            if not self._leave(guest, allowed, f"empty {names[guest.row]}", way):
                trial.back(mark)
                return False
        self.emptied += donors
        return True

    def _room_for_all(self, donors: Sequence[int], allowed: NDArray[np.bool_]) -> bool:
        inventory, rows = self._trial.fleet._store.inventory, np.flatnonzero(allowed)
        room = np.maximum(inventory["limit"][:, rows] - inventory["used"][:, rows], 0).sum(axis=1)
        return bool((inventory["used"][:, list(donors)].sum(axis=1) <= room).all())

    def _leave(self, guest: Guest, allowed: NDArray[np.bool_], reason: str, way: int) -> bool:
        trial = self._trial
        scan, rows = trial.targets(guest, allowed)
        if scan is None:
            return False
        if len(rows):
            return trial.move(guest, _choice(scan, rows, way), reason, passes=True) is None
        if len(self.in_use) > SMALL:
            return False
        search = RoomSearch(trial, f"make room for {guest.uuid}", allowed)
        row = search.make(scan, keep=frozenset({guest.uuid}), most=2, attempts=200)
        return row is not None and trial.move(guest, row, reason) is None


_WAYS: Final = 3


def _order(guest: Guest, way: int) -> tuple[float, str]:
    sizes = (guest.memory_mb, guest.memory_mb * guest.disk_mb, -guest.memory_mb)
    return -float(sizes[way]), guest.uuid


def _choice(scan: OnRow, rows: NDArray[np.int32], way: int) -> int:
    return best_weighed(scan, rows) if way == 2 else tightest(scan, rows)


def least_hosts(trial: Trial, rows: Sequence[int], fixed: set[int]) -> int:
    """Hosts that must stay in use whatever moves: those with guests that stay, and as many of the largest as hold what
    is used of each resource class. O(hosts log hosts)."""
    inventory, needed = trial.fleet._store.inventory, len(fixed)
    others = [row for row in rows if row not in fixed]
    for resource in range(len(trial.fleet.resource_classes)):
        limit = np.maximum(inventory["limit"][resource], 0)
        used = int(inventory["used"][resource, list(rows)].sum()) - int(limit[list(fixed)].sum())
        if used > 0:
            held = np.cumsum(np.sort(limit[others])[::-1])
            needed = max(needed, len(fixed) + int(np.searchsorted(held, used)) + 1)
    return min(needed, len(rows))


def consolidate_plan(
    engine: Engine, goal: dict[str, object], rows: Sequence[int], most: int | None, options: PlanOptions
) -> Plan:
    """The plan that empties as many of ``rows`` as it can, at most ``most``."""
    trial = Trial(engine, options)
    consolidation = Consolidation(trial, rows)
    before = len(consolidation.in_use)
    least = min(least_hosts(trial, rows, consolidation.fixed), before)
    wanted = before - least if most is None else min(most, before - least)
    consolidation.run(min(wanted, len(consolidation.donors)))
    steps: list[Step] = list(trial.steps)
    names = [trial.fleet.name(row) for row in consolidation.emptied]
    waves = in_waves(engine, options, [steps], names)
    after = before - len(names)
    most_possible = before - least
    summary = f"{counted(len(names), 'host')} emptied, at most {most_possible:,} can be; {in_words(steps, waves)}"
    return Plan(
        goal=goal,
        summary=summary,
        complete=len(names) >= wanted,
        waves=waves,
        measures=(Measure(name="hosts_in_use", before=before, after=after, bound=least, sense="at_least"),),
        derived=sum(step.guest.derived for step in steps),
        made_at=trial.fleet.now,
    )
