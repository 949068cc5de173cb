"""Room made for a request: the fewest moves after which a host can take it.

A host is worth trying if its static rules pass; the least number of its guests that free what is missing bounds the
moves from below. The search deepens move by move, so that the first answer has the fewest moves that it can find.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import NOT_A_HOST
from ..fleet.change_log import Rows
from .choice import by_tightness, room, tightest
from .guests import Guest
from .trial import OnRow, Trial

ATTEMPTS: Final = 2_000
"""Questions and moves that a search tries at most."""
COMBINATIONS: Final = 5_000
"""Sets of guests that are looked at on one host for one number of moves."""
SUBSETS: Final = 100
"""Sets of guests that are tried on one host for one number of moves."""
TARGETS: Final = 3
"""Hosts that are tried for a guest that makes room."""
DEEPEST: Final = 8
"""Moves at most that the search for the fewest goes down to."""
CLEARED: Final = 64
"""Moves at most for one request where no fewest were found."""
CLEARINGS: Final = 24
"""Hosts on which that is tried."""
HOSTS_A_STEP: Final = 64
"""Hosts that are looked at for the prospects of a guest in the time of one question."""
LOOKED_AT: Final = 512
"""Hosts of which it is looked whether their guests that can leave free enough."""
_NEVER: Final = 10**6


@dataclass(frozen=True, slots=True)
class Prospect:
    """A host that may take the request: the moves it needs at least, what is missing by resource class, and its guests
    with their amounts."""

    row: int
    least: int
    missing: NDArray[np.int64]


class RoomSearch:
    """The search for room for one request on a trial. ``allowed``: rows that may take the request or a guest that makes
    room; ``reason``: of the moves."""

    def __init__(self, trial: Trial, reason: str, allowed: NDArray[np.bool_] | None = None) -> None:
        self._trial, self._reason, self._allowed = trial, reason, allowed
        self._until = 0
        self._stuck: dict[tuple[int, str], bool] = {}
        """By what plain guests ask: whether no host has room for one as the trial stands when it is asked first."""

    def make(
        self,
        scan: OnRow,
        *,
        keep: frozenset[str] = frozenset(),
        most: int = DEEPEST,
        attempts: int = ATTEMPTS,
        clear: int = 0,
    ) -> int | None:
        """Move guests so that the request of ``scan`` passes on a row, which is returned; None, with nothing changed,
        if no way is found. ``keep``: instances that stay. ``clear``: where no way of ``most`` moves is found, one of up
        to so many is taken that need not be the shortest."""
        self._until = self._trial.attempts + attempts
        passing = self._passing(scan)
        if len(passing):
            return tightest(scan, passing)
        prospects = self.prospects(scan)
        row = self._fewest(scan, prospects, keep, most)
        return self._clear(scan, prospects, keep, clear) if row is None and clear else row

    def _fewest(self, scan: OnRow, prospects: Sequence[Prospect], keep: frozenset[str], most: int) -> int | None:
        for budget in range(1, most + 1):
            for prospect in prospects:
                if prospect.least > budget:
                    break
                if self._free(scan, prospect, budget, keep):
                    return prospect.row
                if self._trial.attempts > self._until:
                    return None
        return None

    def _clear(self, scan: OnRow, prospects: Sequence[Prospect], keep: frozenset[str], most: int) -> int | None:
        """Have guests leave one of the hosts that need the fewest moves, those first that free most of what is missing;
        all others where that is not enough."""
        trial, classes = self._trial, list(scan.signature.resources)
        tried = 0
        for prospect in [each for each in prospects if each.least <= most][:LOOKED_AT]:
            row, mark = prospect.row, trial.hold()
            chosen = fewest_freeing(trial, self._movable(row, keep), classes, prospect.missing, most)
            if not chosen:
                continue
            if tried == CLEARINGS:
                return None
            tried += 1
            self._until = trial.attempts + 2 * most
            if (
                self._leave(chosen, row, 0, keep)
                and self._rest_leaves(scan, row, keep, mark.steps + most)
                and scan.refusing(row) is None
            ):
                return row
            trial.back(mark)
        return None

    def _movable(self, row: int, keep: frozenset[str]) -> list[Guest]:
        """The guests on a row that another host has room for as it is, as far as is known."""
        guests = self._trial.guests.on(row)
        return [each for each in guests if not each.stays and each.uuid not in keep and not self._is_stuck(each)]

    def _is_stuck(self, guest: Guest) -> bool:
        """True if no host has room for a guest as the trial stands; False for guests in groups, which is not known."""
        request = guest.request
        if request is None or request.server_group is not None:
            return False
        key = id(request.spec), request.project_id
        if key not in self._stuck:
            scan = self._trial.scan(guest)
            self._stuck[key] = scan is None or not scan.passing().any()
        return self._stuck[key]

    def _rest_leaves(self, scan: OnRow, row: int, keep: frozenset[str], most: int) -> bool:
        """Have further guests leave a row, the smallest first, until the request passes or none can."""
        trial = self._trial
        allowed = np.ones(trial.fleet.rows, bool) if self._allowed is None else self._allowed
        for guest in sorted(trial.guests.on(row), key=lambda each: (each.memory_mb, each.uuid)):
            if scan.refusing(row) is None:
                return True
            if guest.stays or guest.uuid in keep or len(trial.steps) >= most:
                continue
            asked, rows = trial.targets(guest, allowed)
            if asked is not None and len(rows):
                trial.move(guest, tightest(asked, rows), self._reason, passes=True)
        return True

    def bound(self, scan: OnRow) -> int | None:
        """Moves that are needed at least; None if no host can ever take the request."""
        if len(self._passing(scan)):
            return 0
        return min((prospect.least for prospect in self.prospects(scan)), default=None)

    def _passing(self, scan: OnRow) -> Rows:
        passing = scan.passing()
        if self._allowed is not None:
            passing &= self._allowed[: len(passing)]
        return np.flatnonzero(passing).astype(np.int32)

    # hosts

    def prospects(self, scan: OnRow) -> list[Prospect]:
        """Hosts that could take the request if guests left, those first that need the fewest moves, then the least
        memory. O(hosts + guests)."""
        rows = self._static(scan)
        if not len(rows):
            return []
        trial, resources = self._trial, scan.signature.resources
        inventory, fleet = trial.fleet._store.inventory, trial.fleet
        classes = np.array(list(resources), np.intp)
        needs = np.array(list(resources.values()), np.int64)
        fits = np.all(inventory["limit"][classes][:, rows] >= needs[:, None], axis=0)
        rows = rows[fits]
        left = np.stack([room(fleet, rows, int(resource)) for resource in classes])
        missing = np.maximum(needs[:, None] - left, 0)
        _, positions, amounts = trial.guests.table(rows)
        least = _least(missing, positions, amounts[:, classes], len(rows))
        order = np.lexsort((rows, missing.sum(axis=0), least))
        return [
            Prospect(int(rows[index]), int(least[index]), missing[:, index])
            for index in order.tolist()
            if least[index] < _NEVER
        ]

    def _static(self, scan: OnRow) -> Rows:
        """Rows whose class passes every rule that reads only what does not change. O(rows)."""
        fleet, signature = self._trial.fleet, scan.signature
        stages = signature.ranking.stages()
        rows: Rows = np.flatnonzero(stages != NOT_A_HOST).astype(np.int32)
        passing = np.ones(len(fleet._classes), bool)
        for results in signature.class_results().values():
            passing[: len(results)] &= results
        rows = rows[passing[fleet._store.row["class_of"][rows]]]
        if self._allowed is not None:
            rows = rows[self._allowed[rows]]
        return rows

    # guests

    def _free(self, scan: OnRow, prospect: Prospect, budget: int, keep: frozenset[str]) -> bool:
        """Make room on one host with at most ``budget`` moves."""
        trial, row = self._trial, prospect.row
        trial.attempts += 1
        guests = [guest for guest in trial.guests.on(row) if not guest.stays and guest.uuid not in keep]
        table = trial.guests.amounts()
        classes = list(scan.signature.resources)
        held = {guest.uuid: table[guest.shape, classes] for guest in guests}
        useful = [guest for guest in guests if (held[guest.uuid] * (prospect.missing > 0)).any()] or guests
        for size in range(max(prospect.least, 1), budget + 1):
            # Without further moves, a guest leaves only for a host that has room.
            able = useful if size < budget else [guest for guest in useful if not self._is_stuck(guest)]
            for chosen in _sets(able, held, prospect.missing, size):
                mark = trial.hold()
                if self._leave(chosen, row, budget - size, keep) and scan.refusing(row) is None:
                    return True
                trial.back(mark)
                if trial.attempts > self._until:
                    return False
        return False

    def _leave(self, guests: Sequence[Guest], row: int, more: int, keep: frozenset[str]) -> bool:
        """Move all ``guests`` away from a row; ``more`` further moves may make room for them."""
        allowed = np.ones(self._trial.fleet.rows, bool) if self._allowed is None else self._allowed.copy()
        allowed[row] = False
        keep |= {each.uuid for each in guests}
        return self._leave_each(sorted(guests, key=lambda each: (-each.memory_mb, each.uuid)), allowed, more, keep)

    def _leave_each(self, guests: Sequence[Guest], allowed: NDArray[np.bool_], more: int, keep: frozenset[str]) -> bool:
        if not guests:
            return True
        trial, guest, rest = self._trial, guests[0], guests[1:]
        scan, rows = trial.targets(guest, allowed)
        if scan is None:
            return False
        mark = trial.hold()
        for target in by_tightness(scan, rows)[:TARGETS].tolist():
            if trial.move(guest, target, self._reason) is None and self._leave_each(rest, allowed, more, keep):
                return True
            trial.back(mark)
            if trial.attempts > self._until:
                return False
        if more <= 0:
            return False
        inner = RoomSearch(trial, self._reason, allowed)
        inner._until = self._until
        before = len(trial.steps)
        room_on = inner._for_guest(scan, guest, more, keep)
        if room_on is not None and trial.move(guest, room_on, self._reason) is None:
            return self._leave_each(rest, allowed, more - (len(trial.steps) - before - 1), keep)
        return False

    def _for_guest(self, scan: OnRow, guest: Guest, most: int, keep: frozenset[str]) -> int | None:
        """Make room for a guest that moves."""
        source = self._trial.fleet._rows_of_service_host(self._trial.fleet._service_host(guest.row))
        for budget in range(1, most + 1):
            # All hosts and guests are looked at, which of many takes as long as many questions.
            self._trial.attempts += self._trial.fleet.rows // HOSTS_A_STEP
            if self._trial.attempts > self._until:
                return None
            for prospect in self.prospects(scan):
                if prospect.least > budget or self._trial.attempts > self._until:
                    break
                if prospect.row not in source and self._free(scan, prospect, budget, keep):
                    return prospect.row
        return None


def fewest_freeing(
    trial: Trial, guests: Sequence[Guest], classes: Sequence[int], missing: NDArray[np.int64], most: int
) -> list[Guest]:
    """Few of ``guests``, the smallest of as many, that free what is ``missing`` of resource classes; none where at most
    ``most`` of them do not. O(guests * guests chosen)."""
    table, left = trial.guests.amounts(), list(guests)
    held = {guest.uuid: table[guest.shape, list(classes)] for guest in left}
    chosen: list[Guest] = []
    while (missing > 0).any() and left and len(chosen) < most:
        enough = [guest for guest in left if (held[guest.uuid] >= missing).all()]
        if enough:
            return [*chosen, min(enough, key=lambda each: (each.memory_mb, each.disk_mb, each.uuid))]
        shares = np.maximum(missing, 1)
        gains = [float((np.minimum(held[guest.uuid], missing) / shares).sum()) for guest in left]
        best = max(range(len(left)), key=lambda at: (gains[at], -left[at].memory_mb, left[at].uuid))
        if gains[best] <= 0:
            return []
        missing = np.maximum(missing - held[left[best].uuid], 0)
        chosen.append(left.pop(best))
    return chosen if not (missing > 0).any() else []


def _least(
    missing: NDArray[np.int64], positions: NDArray[np.int32], amounts: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Guests that must leave each host at least, by the greatest amounts of each class alone. ``missing``
    [classes, hosts]; ``positions`` and ``amounts`` [guests, classes] of the guests by host."""
    least = np.where(missing.any(axis=0), 0, 1).astype(np.int64)  # where nothing is missing, another rule refuses
    for index in range(len(missing)):
        order = np.lexsort((-amounts[:, index], positions))
        host, given = positions[order], amounts[order, index]
        starts = np.searchsorted(host, np.arange(count))
        total = np.concatenate(([0], np.cumsum(given)))
        within = total[1:] - total[starts[host]] if len(host) else total[1:]
        short = np.bincount(host, within < missing[index, host], minlength=count).astype(np.int64)
        ends = np.searchsorted(host, np.arange(count), side="right")
        held = total[ends] - total[starts]
        needed = np.where(missing[index] > 0, short + 1, 0)
        needed[held < missing[index]] = _NEVER
        least = np.maximum(least, needed)
    return least


def _sets(
    guests: Sequence[Guest], held: dict[str, NDArray[np.int64]], missing: NDArray[np.int64], size: int
) -> list[tuple[Guest, ...]]:
    """Sets of guests that free what is missing, those first that hold the least memory, then the least in all. Of many
    guests, those count that free the most of it."""
    if not 0 < size <= len(guests):
        return []
    amounts = np.array([held[guest.uuid] for guest in guests])
    count = len(guests)
    while count > size and math.comb(count, size) > COMBINATIONS:
        count -= 1
    freed = (np.minimum(amounts, missing) / np.maximum(missing, 1)).sum(axis=1)
    chosen = np.sort(np.argsort(-freed, kind="stable")[:count])
    sets = chosen[np.array(list(itertools.combinations(range(count), size)), np.intp)]
    total = amounts[sets].sum(axis=1)
    enough = (total >= missing).all(axis=1)
    sets, total = sets[enough], total[enough]
    memory = np.array([guest.memory_mb for guest in guests])
    order = np.lexsort((total.sum(axis=1), memory[sets].sum(axis=1)))[:SUBSETS]
    return [tuple(guests[index] for index in line) for line in sets[order].tolist()]
