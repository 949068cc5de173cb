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

    def _held(self) -> Amounts:
        held = np.zeros_like(self._free)
        np.add.at(held, self._hosts, self._amounts)
        return held

    def _packed(self, kept: NDArray[np.bool_], number: int) -> NDArray[np.int64] | None:
        """A host for each guest, by position in ``rows``, the largest guests first in a random order behind the
        first; None if some guest finds none. Guests of hosts that stay as they are keep their place."""
        free, targets = self._free + self._held(), self._hosts.astype(np.int64)
        stays = self._fixed[self._hosts]
        np.subtract.at(free, self._hosts[stays], self._amounts[stays])
        spread = 0.0 if number == 0 else 0.1 + 0.4 * self._random.random()
        keys = [size * (1 + spread * (self._random.random() - 0.5)) for size in self._size.tolist()]
        for guest in sorted(np.flatnonzero(~stays).tolist(), key=lambda each: -keys[each]):
            self._packings -= 1
            left = free - self._amounts[guest]
            fits = kept & (left >= 0).all(axis=1)
            home = int(self._hosts[guest])
            if fits[home] and (number % 2 == 0 or self._random.random() < 0.5):
                chosen = home
            elif fits.any():
                rest = np.where(fits, (left / np.maximum(free, 1)).sum(axis=1), np.inf)
                chosen = int(np.argmin(rest))
            else:
                return None
            targets[guest] = chosen
            free[chosen] -= self._amounts[guest]
        return targets

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
