"""A quick proof that the guests of a host find others: where more hosts can take each kind of guest than there are
guests, each has a host of its own. Says nothing where that is not so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .guests import Guest
from .trial import Step, Trial

_Kind = tuple[int, str, int]


class Spread:
    """Which rows can take a guest of each kind, counted once for each state of a trial."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._steps: list[Step] = []
        self._rows: dict[_Kind, NDArray[np.bool_]] = {}

    def finds(self, row: int, guests: Sequence[Guest]) -> bool:
        """True if all ``guests`` of a row find another host at the same time. A claim changes what passes on its own
        row only, so that it is enough that each guest can have a row that no other takes: those guests choose first
        for which the fewest rows pass. O(guests), and O(kinds of guests * rows) in a new state."""
        trial, counts = self._trial, list[int]()
        if trial.context.compiled.custom:
            return False
        if self._steps != trial.steps:
            self._steps, self._rows = list(trial.steps), {}
        fleet = trial.fleet
        own = fleet._rows_of_service_host(fleet._service_host(row))
        known: dict[_Kind, int] = {}
        for guest in guests:
            if guest.stays:
                return False
            kind = self._kind(guest)
            count = known.get(kind) if kind is not None else None
            if count is None:
                passing = self._passing(guest, kind)
                if passing is None:
                    return False
                count = int(np.count_nonzero(passing)) - int(np.count_nonzero(passing[own]))
                if kind is not None:
                    known[kind] = count
            counts.append(count)
        return all(count > before for before, count in enumerate(sorted(counts)))

    def _kind(self, guest: Guest) -> _Kind | None:
        """What guests have in common that the same rows can take; None for members of server groups."""
        request = guest.request
        assert request is not None
        if request.server_group is not None:
            return None
        zone = int(self._trial.zones()[guest.row]) if guest.derived else -1
        return id(request.spec), request.project_id, zone

    def _passing(self, guest: Guest, kind: _Kind | None) -> NDArray[np.bool_] | None:
        passing = self._rows.get(kind) if kind is not None else None
        if passing is not None:
            return passing
        scan = self._trial.scan(guest)
        if scan is None or not scan.signature.simple:
            return None
        passing = scan.passing()
        if guest.derived:
            zones = self._trial.zones()
            passing &= zones == zones[guest.row]
        if kind is not None:
            self._rows[kind] = passing
        return passing
