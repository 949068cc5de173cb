"""N+1 restored: moves after which any one host may fail so that all its guests find another host.

Whether a host may fail is tried: its guests are placed again elsewhere, the largest first, each on the fullest host
that takes it. For guests that find no host, room is made on another one, or guests leave the host while it still runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..decide.engine import Engine
from ..types.plans import LeftGuest, Measure, Plan, PlanOptions
from .choice import by_tightness, tightest
from .guests import Guest
from .make_room import CLEARED, RoomSearch
from .repacking import Repacking
from .spread import Spread
from .trial import Mark, OnRow, Trial
from .waves import in_waves, in_words

ROUNDS: Final = 6
"""Times that hosts which may not fail are gone through."""
SMALL: Final = 12
"""Hosts up to which other placements of all guests are tried."""
TARGETS: Final = 8
"""Hosts that are tried for a guest that leaves."""
DEEPEST: Final = 4
"""Moves that make room for one guest at most."""
ATTEMPTS: Final = 300
"""Questions and moves of a search for room for one guest."""
EFFORT: Final = 60_000_000
"""Hosts that are looked at by all questions and moves together, after which no more is tried to be mended."""
LEAST: Final = 20_000
"""Questions and moves that a plan has in any case."""
GUESTS: Final = 1_000
"""Guests that are looked at in the time of one question."""


class Proof:
    """Failures tried on a trial, one host at a time. ``rows``: the hosts that must be able to fail."""

    def __init__(self, trial: Trial, rows: Sequence[int]) -> None:
        self.trial, self.rows = trial, rows
        self._spread = Spread(trial)
        self._search = int(trial.fleet.column("num_instances").sum()) // GUESTS
        self._known: set[int] = set()
        self._hopeless: set[int] = set()
        """Requests, by identity, that no other host can take whatever moves."""
        self._until = trial.attempts + max(LEAST, EFFORT // max(trial.fleet.rows, 1))

    def homeless(self, row: int) -> list[Guest]:
        """The guests of a host that find no other host if it fails, the largest first; those included that may not
        move. Changes nothing. O(guests on it * hosts), and O(guests on it) where there are more hosts for each kind of
        guest than guests."""
        trial, lost = self.trial, list[Guest]()
        guests = trial.guests.on(row)
        if self._spread.finds(row, guests):
            return []
        allowed = np.ones(trial.fleet.rows, bool)
        allowed[row] = False
        mark = trial.hold()
        for guest in sorted(guests, key=lambda each: (-each.memory_mb, -each.disk_mb, each.uuid)):
            scan, rows = trial.targets(guest, allowed)
            if (
                scan is None
                or not len(rows)
                or trial.move(guest, tightest(scan, rows), "trial", passes=True) is not None
            ):
                lost.append(guest)
        trial.back(mark)
        return lost

    def unsafe(self) -> dict[int, list[Guest]]:
        """The hosts that may not fail, and their guests that find no other. O(guests * hosts)."""
        found = {row: self.homeless(row) for row in self.rows}
        return {row: guests for row, guests in found.items() if guests}

    def restore(self, most_moves: int) -> dict[int, list[Guest]]:
        """Move guests so that hosts may fail, with at most ``most_moves`` moves; the hosts that may not in the end."""
        unsafe, start = self.unsafe(), self.trial.hold()
        before = unsafe
        for _ in range(ROUNDS if unsafe else 0):
            # The largest first: room for one is room for smaller ones too, since one host fails at a time.
            order = sorted(unsafe, key=lambda row: (-unsafe[row][0].memory_mb, row))
            mended = [self._mend(row, most_moves) for row in order]
            unsafe = self.unsafe()
            if not unsafe or not any(mended):
                break
        if unsafe and len(self.rows) <= SMALL:
            unsafe = self._placed_again(start, unsafe, most_moves)
        if len(unsafe) >= len(before):
            self.trial.back(start)
            return before
        return unsafe

    def _placed_again(self, start: Mark, unsafe: dict[int, list[Guest]], most_moves: int) -> dict[int, list[Guest]]:
        """In a small fleet: look for another placement of all guests, from what was at the ``start``."""
        trial, now, steps = self.trial, self.trial.hold(), list(self.trial.steps)
        trial.back(start)
        fleet = trial.fleet
        rows = np.flatnonzero(fleet.is_host[: fleet.rows]).astype(np.int32)
        fixed = set(rows[trial.guests.immovable(rows)].tolist())
        if Repacking(trial, rows.tolist(), fixed).survive("another host for all guests if one fails"):
            found = self.unsafe()
            if len(found) < len(unsafe) and len(trial.steps) - start.steps <= most_moves:
                return found
        trial.fleet._history.go(now.version)
        trial.steps[:] = steps
        return unsafe

    def _mend(self, row: int, most_moves: int) -> bool:
        """Make moves after which fewer guests of a host would find no other; True if there are such."""
        gained = False
        while True:
            lost = self.homeless(row)
            if not any(self._house(guest, row, len(lost), most_moves) for guest in lost if not guest.stays):
                return gained
            gained = True

    def _house(self, guest: Guest, row: int, before: int, most_moves: int) -> bool:
        """Make room for a guest of a host that would find none, or have it leave."""
        trial, allowed = self.trial, np.ones(self.trial.fleet.rows, bool)
        allowed[row] = False
        scan = trial.scan(guest)
        left = most_moves - len(trial.steps)
        if scan is None or left <= 0 or trial.attempts > self._until or self._is_hopeless(guest, scan, allowed):
            return False
        mark = trial.hold()
        reason = f"a place for guests of {trial.fleet.name(row)} if it fails"
        search = RoomSearch(trial, reason, allowed)
        keep = frozenset({guest.uuid})
        made = search.make(scan, keep=keep, most=min(DEEPEST, left), attempts=ATTEMPTS, clear=min(CLEARED, left))
        trial.attempts += self._search  # it has looked at all guests
        if made is not None and len(trial.steps) > mark.steps and self._better(row, before, mark):
            return True
        trial.back(mark)
        # What leaves the host need not be the guest that finds none: any may make it one less.
        for other in [guest, *(each for each in trial.guests.on(row) if each.uuid != guest.uuid and not each.stays)]:
            found, rows = trial.targets(other, allowed)
            if found is None:
                continue
            for target in by_tightness(found, rows)[::-1][:TARGETS].tolist():
                if trial.move(other, target, reason) is None and self._better(row, before, mark):
                    return True
                trial.back(mark)
                if trial.attempts > self._until:
                    return False
        return False

    def _is_hopeless(self, guest: Guest, scan: OnRow, allowed: NDArray[np.bool_]) -> bool:
        """Whether no other host can take a guest, whatever moves. O(hosts + guests) for a new kind of request."""
        request = guest.request
        assert request is not None
        kind = id(request.spec)
        if kind not in self._known:
            self._known.add(kind)
            self.trial.attempts += self._search
            if not RoomSearch(self.trial, "", allowed).prospects(scan):
                self._hopeless.add(kind)
        return kind in self._hopeless

    def _better(self, row: int, before: int, start: Mark) -> bool:
        """Whether, by the moves since ``start``, fewer guests of a host find no other, and no more of the hosts that
        the moves have changed."""
        trial = self.trial
        if len(self.homeless(row)) >= before:
            return False
        steps = list(trial.steps)
        touched = {each for step in steps[start.steps :] for each in (step.source, step.target)} & set(self.rows)
        now = {each: len(self.homeless(each)) for each in touched - {row}}
        if not any(now.values()):
            return True
        after = trial.hold()
        trial.back(start)
        then = {each: len(self.homeless(each)) for each in now}
        trial.fleet._history.go(after.version)
        trial.steps[:] = steps
        return all(now[each] <= then[each] for each in now)


def evacuate_proof_plan(engine: Engine, goal: dict[str, object], rows: Sequence[int], options: PlanOptions) -> Plan:
    """The plan after which any one of ``rows`` may fail."""
    trial = Trial(engine, options)
    proof = Proof(trial, rows)
    before = len(proof.unsafe())
    bound = _never_safe(trial, rows)
    most = options.get("most_moves")
    unsafe = proof.restore(most if most is not None else 10**9)
    fleet, steps = trial.fleet, list(trial.steps)
    waves = in_waves(engine, options, [steps])
    left = tuple(
        LeftGuest(guest.uuid, fleet.name(row), trial.why_stays(guest) or "no other host can take it if its own fails")
        for row, guests in unsafe.items()
        for guest in guests
    )
    summary = f"{len(rows) - len(unsafe):,} of {len(rows):,} hosts may fail (before {len(rows) - before:,}"
    summary += f", at most {len(rows) - bound:,} can); {in_words(steps, waves)}"
    return Plan(
        goal=goal,
        summary=summary,
        complete=not unsafe,
        waves=waves,
        left=left,
        measures=(
            Measure(name="hosts_that_may_not_fail", before=before, after=len(unsafe), bound=bound, sense="at_least"),
        ),
        derived=sum(step.guest.derived for step in steps),
        made_at=fleet.now,
    )


def _never_safe(trial: Trial, rows: Sequence[int]) -> int:
    """Hosts that may not fail whatever moves: those with more of a resource than is free in all, which can neither be
    emptied nor give their guests to the others."""
    fleet = trial.fleet
    every = np.flatnonzero(fleet.is_host[: fleet.rows])
    limit, used = (np.maximum(fleet._store.inventory[name][:, every], 0) for name in ("limit", "used"))
    free = np.maximum(limit - used, 0).sum(axis=1)
    there = np.maximum(fleet._store.inventory["limit"][:, list(rows)], 0)
    return int(np.count_nonzero((there > free[:, None]).any(axis=0)))
