"""Load evened out: guests leave the fullest hosts for the emptiest, with as few moves as that takes.

Each step lowers the load of the fullest host that can be relieved by more than ``margin``, so that a balanced fleet has
an empty plan and repeated plans settle. Where no single move does, two guests are exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..decide.engine import Engine
from ..types.plans import Measure, Plan, PlanOptions
from .guests import Guest
from .trial import Trial
from .waves import in_waves, in_words

CANDIDATES: Final = 6
"""Guests of a host that are looked at for one move."""
PARTNERS: Final = 4
"""Hosts that an exchange is tried with."""
SMALL: Final = 16
"""Hosts up to which chains of two moves are tried."""


class Balancing:
    """Moves on a trial that even out the load of ``rows`` in a resource class."""

    def __init__(self, trial: Trial, rows: Sequence[int], resource: int, margin: float) -> None:
        self._trial, self._resource, self._margin = trial, resource, margin
        limit = trial.fleet._store.inventory["limit"][resource]
        self.rows = np.array([row for row in rows if limit[row] > 0], np.int32)
        self._guests: dict[int, list[Guest]] = {}

    def loads(self) -> NDArray[np.float64]:
        """The share of each row that is used."""
        inventory = self._trial.fleet._store.inventory
        used, limit = inventory["used"][self._resource, self.rows], inventory["limit"][self._resource, self.rows]
        share: NDArray[np.float64] = used / limit
        return share

    @property
    def mean(self) -> float:
        """The share of all rows together that is used; no plan has a lower greatest load."""
        inventory = self._trial.fleet._store.inventory
        limit = float(inventory["limit"][self._resource, self.rows].sum())
        return float(inventory["used"][self._resource, self.rows].sum()) / limit if limit else 0.0

    def run(self, threshold: float, most: int) -> None:
        """Relieve hosts whose load is more than ``threshold`` above the mean, with at most ``most`` moves."""
        stuck, mean = np.zeros(len(self.rows), bool), self.mean
        while len(self._trial.steps) < most and not stuck.all():
            loads = self.loads()
            fullest = int(np.argmax(np.where(stuck, -1.0, loads)))
            if loads[fullest] <= mean + threshold:
                return
            left = most - len(self._trial.steps)
            if (
                self._relieve(fullest, loads, mean)
                or (left >= 2 and self._exchange(fullest, loads))
                or (left >= 2 and len(self.rows) <= SMALL and self._chain(fullest, loads))
            ):
                stuck[:] = False
            else:
                stuck[fullest] = True

    def _amount(self, guest: Guest) -> int:
        return int(self._trial.guests.amounts()[guest.shape, self._resource])

    def _on(self, index: int) -> list[Guest]:
        """Guests of a host that take of the resource class."""
        found = self._guests.get(index)
        if found is None:
            guests = self._trial.guests.on(int(self.rows[index]))
            found = self._guests[index] = [each for each in guests if not each.stays and self._amount(each)]
        return found

    def _limit(self, row: int) -> float:
        return float(self._trial.fleet._store.inventory["limit"][self._resource, row])

    def _relieve(self, fullest: int, loads: NDArray[np.float64], mean: float) -> bool:
        """Move the guest whose departure helps most; False if none helps by more than the margin."""
        trial, row = self._trial, int(self.rows[fullest])
        limit = self._limit(row)
        wanted = (loads[fullest] - mean) * limit
        guests = sorted(self._on(fullest), key=lambda each: (abs(self._amount(each) - wanted), each.uuid))
        allowed = np.zeros(trial.fleet.rows, bool)
        allowed[self.rows[loads < loads[fullest]]] = True
        best: tuple[float, Guest, int] | None = None
        for guest in guests[:CANDIDATES]:
            _, rows = trial.targets(guest, allowed)
            if not len(rows):
                continue
            amount, inventory = self._amount(guest), trial.fleet._store.inventory
            after = (inventory["used"][self._resource, rows] + amount) / inventory["limit"][self._resource, rows]
            target = int(np.argmin(after))
            peak = max(float(after[target]), float(loads[fullest]) - amount / limit)
            if peak < loads[fullest] - self._margin and (best is None or peak < best[0]):
                best = peak, guest, int(rows[target])
        if best is None:
            return False
        _, guest, target = best
        return self._moved(guest, target, fullest)

    def _moved(self, guest: Guest, target: int, source: int) -> bool:
        trial = self._trial
        reason = f"{trial.fleet.name(guest.row)} is fuller than {trial.fleet.name(target)}"
        if trial.move(guest, target, reason) is not None:
            return False
        self._guests.pop(source, None)
        self._guests.pop(int(np.searchsorted(self.rows, target)), None)
        return True

    def _exchange(self, fullest: int, loads: NDArray[np.float64]) -> bool:
        """Exchange a guest for a smaller one of an emptier host."""
        row = int(self.rows[fullest])
        for partner in np.argsort(loads, kind="stable")[:PARTNERS].tolist():
            other = int(self.rows[partner])
            pairs = []
            for guest in self._on(fullest):
                for back in self._on(partner):
                    more = self._amount(guest) - self._amount(back)
                    here = loads[fullest] - more / self._limit(row)
                    there = loads[partner] + more / self._limit(other)
                    if more > 0 and max(here, there) < loads[fullest] - self._margin:
                        pairs.append((max(here, there), guest.uuid, back.uuid, guest, back))
            for *_, guest, back in sorted(pairs, key=lambda pair: pair[:3])[:CANDIDATES]:
                mark = self._trial.hold()
                for first, to, second, then in ((back, row, guest, other), (guest, other, back, row)):
                    if self._moved(first, to, partner) and self._moved(second, then, fullest):
                        return True
                    self._trial.back(mark)
                    self._guests.clear()
        return False

    def _chain(self, fullest: int, loads: NDArray[np.float64]) -> bool:
        """Move a guest to a host from which another leaves for a third; none of them may become as full as the fullest
        host is."""
        trial, peak = self._trial, float(loads[fullest]) - self._margin
        inventory = trial.fleet._store.inventory
        used, limit = inventory["used"][self._resource], inventory["limit"][self._resource]
        for guest in sorted(self._on(fullest), key=lambda each: (-self._amount(each), each.uuid))[:CANDIDATES]:
            for partner in np.argsort(loads, kind="stable").tolist():
                target = int(self.rows[partner])
                over = used[target] + self._amount(guest) - peak * limit[target]
                if partner == fullest:
                    continue
                for other in [each for each in self._on(partner) if self._amount(each) > over]:
                    amount = self._amount(other)
                    allowed = np.zeros(trial.fleet.rows, bool)
                    allowed[self.rows[used[self.rows] + amount < peak * limit[self.rows]]] = True
                    allowed[int(self.rows[fullest])] = False
                    _, rows = trial.targets(other, allowed)
                    if not len(rows):
                        continue
                    third = int(rows[np.argmin((used[rows] + amount) / limit[rows])])
                    mark = trial.hold()
                    if self._moved(other, third, partner) and self._moved(guest, target, fullest):
                        return True
                    trial.back(mark)
                    self._guests.clear()
        return False


def balance_plan(
    engine: Engine,
    goal: dict[str, object],
    rows: Sequence[int],
    resource: int,
    threshold: float,
    margin: float,
    most: int,
    options: PlanOptions,
) -> Plan:
    """The plan that evens out the load of rows."""
    trial = Trial(engine, options)
    up = trial.fleet.column("service_up")
    balancing = Balancing(trial, sorted(row for row in rows if up[row]), resource, margin)
    before = balancing.loads()
    balancing.run(threshold, most)
    after, mean = balancing.loads(), balancing.mean
    steps = list(trial.steps)
    waves = in_waves(engine, options, [steps])
    name = trial.fleet.resource_classes[resource]
    peaks = [float(loads.max()) if len(loads) else 0.0 for loads in (before, after)]
    summary = (
        f"the fullest host goes from {peaks[0]:.1%} to {peaks[1]:.1%} of {name}, the mean is {mean:.1%}; "
        f"{in_words(steps, waves)}"
    )
    spread = [float(loads.std()) if len(loads) else 0.0 for loads in (before, after)]
    return Plan(
        goal=goal,
        summary=summary,
        complete=peaks[1] <= mean + threshold,
        waves=waves,
        measures=(
            Measure(name="greatest_load", before=peaks[0], after=peaks[1], bound=mean, sense="at_least"),
            Measure(name="standard_deviation_of_load", before=spread[0], after=spread[1], bound=0, sense="at_least"),
        ),
        derived=sum(step.guest.derived for step in steps),
        made_at=trial.fleet.now,
    )
