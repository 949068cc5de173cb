"""Small fleets packed again: a placement of all guests on some of the hosts is searched by amounts alone, and then
reached move by move under the engine's rules."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .guests import Guest
from .trial import Trial

PACKINGS: Final = 20_000
"""Guests that are given a host by amounts, over all orders and sets of hosts."""
REACHES: Final = 12
"""Placements that are tried to be reached under the engine's rules."""
DETOURS: Final = 8
"""Guests that may wait on a third host, where no guest can go to its target yet."""

Amounts = NDArray[np.int64]


class Repacking:
    """The guests of ``rows`` on a trial, and what each takes and each host has, by resource class."""

    def __init__(self, trial: Trial, rows: Sequence[int], fixed: set[int]) -> None:
        self._trial = trial
        self._rows = np.array(rows, np.int32)
        self._fixed = np.isin(self._rows, sorted(fixed))
        ids, self._hosts, self._amounts = trial.guests.table(self._rows)
        self._guests = [trial.guests.of(consumer) for consumer in ids.tolist()]
        inventory = trial.fleet._store.inventory
        free = inventory["limit"][:, self._rows] - inventory["used"][:, self._rows]
        self._free: Amounts = np.ascontiguousarray(free.T)
        limit = np.maximum(self._free + self._held(), 1)
        self._size = (self._amounts / limit.max(axis=0)).max(axis=1)
        self._random = random.Random(0)
        self._packings, self._reaches = PACKINGS, REACHES
        self._tried: set[bytes] = set()

    def empty(self, sets: Sequence[Sequence[int]], reasons: Sequence[str]) -> int | None:
        """Empty the hosts of one of the sets together, and return which; None, and nothing is changed, if none was
        found within ``PACKINGS`` and ``REACHES``, which all calls share. One order of the guests after the other is
        tried for all sets."""
        kept = [np.isin(self._rows, list(donors), invert=True) for donors in sets]
        number = 0
        while sets and self._packings > 0 and self._reaches > 0:
            for which, reason in enumerate(reasons):
                targets = self._packed(kept[which], number)
                if targets is None or targets.tobytes() in self._tried:
                    continue
                self._tried.add(targets.tobytes())
                self._reaches -= 1
                if self._reach(targets, reason):
                    return which
            number += 1
        return None

    def make_room(self, wanted: Sequence[tuple[Amounts, NDArray[np.bool_]]], reason: str) -> bool:
        """Pack the guests so that there is room for all that is ``wanted``: amounts by resource class, and the hosts of
        ``rows`` that count. Changes nothing if none was found within ``PACKINGS`` and ``REACHES``."""
        number = 0
        while self._packings > 0 and self._reaches > 0:
            targets = self._packed(np.ones(len(self._rows), np.bool_), number, wanted)
            number += 1
            if targets is None or targets.tobytes() in self._tried:
                continue
            self._tried.add(targets.tobytes())
            self._reaches -= 1
            if self._reach(targets, reason):
                return True
        return False

    def survive(self, reason: str) -> bool:
        """Place the guests so that, by amounts, the guests of any one host find room on the others. Of the placements
        that are found within ``PACKINGS``, those with the fewest moves are tried first. Changes nothing if none is."""
        found: list[tuple[int, NDArray[np.int64]]] = []
        everywhere, number = np.ones(len(self._rows), np.bool_), 0
        while self._packings > 0 and len(found) < REACHES:
            targets = self._packed(everywhere, number, at_random=True)
            number += 1
            if targets is not None and targets.tobytes() not in self._tried and self._survives(targets):
                found.append((int(np.count_nonzero(targets != self._hosts)), targets))
            if targets is not None:
                self._tried.add(targets.tobytes())
        return any(self._reach(targets, reason) for _, targets in sorted(found, key=lambda each: each[0]))

    def _survives(self, targets: NDArray[np.int64]) -> bool:
        """Whether the guests of any one host find room on the others, the largest first, each on the fullest."""
        free = self._free + self._held()
        np.subtract.at(free, targets, self._amounts)
        for failed in range(len(self._rows)):
            left = free.copy()
            left[failed] = -1
            guests = np.flatnonzero(targets == failed)
            for guest in guests[np.argsort(-self._size[guests], kind="stable")].tolist():
                rest = left - self._amounts[guest]
                fits = (rest >= 0).all(axis=1)
                if not fits.any():
                    return False
                share = np.where(fits, (rest / np.maximum(left, 1)).sum(axis=1), np.inf)
                left[int(np.argmin(share))] -= self._amounts[guest]
        return True

    def _held(self) -> Amounts:
        held = np.zeros_like(self._free)
        np.add.at(held, self._hosts, self._amounts)
        return held

    def _packed(
        self,
        kept: NDArray[np.bool_],
        number: int,
        wanted: Sequence[tuple[Amounts, NDArray[np.bool_]]] = (),
        at_random: bool = False,
    ) -> NDArray[np.int64] | None:
        """A host for each guest, by position in ``rows``, the largest guests first in a random order behind the
        first; None if some guest finds none. Guests of hosts that stay as they are keep their place."""
        free, targets = self._free + self._held(), self._hosts.astype(np.int64)
        stays = self._fixed[self._hosts]
        np.subtract.at(free, self._hosts[stays], self._amounts[stays])
        if not self._set_aside(free, wanted, number):
            return None
        spread = 0.0 if number == 0 else 0.1 + 0.4 * self._random.random()
        keys = [size * (1 + spread * (self._random.random() - 0.5)) for size in self._size.tolist()]
        for guest in sorted(np.flatnonzero(~stays).tolist(), key=lambda each: -keys[each]):
            self._packings -= 1
            left = free - self._amounts[guest]
            fits = kept & (left >= 0).all(axis=1)
            home = int(self._hosts[guest])
            if fits[home] and (number % 2 == 0 or self._random.random() < 0.5):
                chosen = home
            elif at_random and fits.any():
                places = np.flatnonzero(fits)
                chosen = int(places[self._random.randrange(len(places))])
            elif fits.any():
                rest = np.where(fits, (left / np.maximum(free, 1)).sum(axis=1), np.inf)
                chosen = int(np.argmin(rest))
            else:
                return None
            targets[guest] = chosen
            free[chosen] -= self._amounts[guest]
        return targets

    def _set_aside(self, free: Amounts, wanted: Sequence[tuple[Amounts, NDArray[np.bool_]]], number: int) -> bool:
        """Take what is wanted from hosts, the emptiest first, or of those at random; False if there is no room."""
        idle = self._free.copy()
        for amounts, counts in wanted:
            self._packings -= 1
            fits = np.flatnonzero(counts & (free >= amounts).all(axis=1))
            if not len(fits):
                return False
            if number == 0 or self._random.random() < 0.5:
                chosen = int(fits[np.argmax((idle[fits] / np.maximum(amounts, 1))[:, amounts > 0].min(axis=1))])
            else:
                chosen = int(fits[self._random.randrange(len(fits))])
            free[chosen] -= amounts
            idle[chosen] -= amounts
        return True

    def _reach(self, targets: NDArray[np.int64], reason: str) -> bool:
        """Move each guest to its target, both ends held while it moves; changes nothing if some rule refuses."""
        trial, mark, detours = self._trial, self._trial.hold(), 0
        left = {number: int(self._rows[targets[number]]) for number in np.flatnonzero(targets != self._hosts).tolist()}
        while left:
            moved = [number for number, row in left.items() if self._move(number, row, reason)]
            for number in moved:
                del left[number]
            if moved:
                continue
            detours += 1
            if detours > DETOURS or not any(self._detour(number, row, reason) for number, row in left.items()):
                trial.back(mark)
                return False
        return True

    def _move(self, number: int, row: int, reason: str) -> bool:
        guest = self._now(number)
        allowed = np.zeros(self._trial.fleet.rows, bool)
        allowed[row] = True
        scan, rows = self._trial.targets(guest, allowed)
        return scan is not None and len(rows) > 0 and self._trial.move(guest, row, reason, passes=True) is None

    def _detour(self, number: int, target: int, reason: str) -> bool:
        """Have a guest wait on another host of the fleet that has room for it."""
        guest = self._now(number)
        allowed = np.zeros(self._trial.fleet.rows, bool)
        allowed[self._rows] = True
        allowed[target] = False
        scan, rows = self._trial.targets(guest, allowed)
        return scan is not None and any(
            self._trial.move(guest, row, f"{reason}, by way of a third host", passes=True) is None
            for row in rows.tolist()[::-1]
        )

    def _now(self, number: int) -> Guest:
        return self._trial.again(self._guests[number])
