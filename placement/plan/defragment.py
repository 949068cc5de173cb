"""More room for given shapes: guests move where they cost no room, so that what is free lies together.

The room for a shape is how many guests of it fit, host by host. Hosts are opened one after the other, those first that
need the fewest guests to leave. In a small fleet, all guests are packed again around the room that is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..decide.engine import Engine
from ..types.errors import InvalidValue, NoValidHost
from ..types.plans import Measure, Plan, PlanOptions
from ..types.request import Request
from .guests import Guest
from .make_room import fewest_freeing
from .repacking import Repacking
from .room_plan import one_instance
from .trial import OnRow, Trial
from .waves import in_waves, in_words

SMALL: Final = 16
"""Hosts up to which all guests are packed again."""
LEAVE: Final = 6
"""Guests that leave a host at most for one more place on it."""
FAILURES: Final = 60
"""Hosts in a row that could not be opened, after which no other is tried."""
Whole = NDArray[np.int64]


class Room:
    """The room for one request on a trial. ``rows``: those that count. Only the amounts of the request and the rules
    that do not change with guests count."""

    def __init__(self, trial: Trial, request: Request, rows: NDArray[np.int32]) -> None:
        context, fleet = trial.context, trial.fleet
        one = request.with_changes(instance_uuids=one_instance(trial))
        scan = OnRow(context, context.prepared(one))
        self.name = request.flavor.name
        self.classes = np.array(list(scan.signature.resources), np.intp)
        self.needs = np.array(list(scan.signature.resources.values()), np.int64)
        if not self.needs.any():
            raise InvalidValue(f"{self.name} asks for no resources", field="requests")
        passing = np.ones(len(fleet._classes), bool)
        for results in scan.signature.class_results().values():
            passing[: len(results)] &= results
        self.rows = rows[passing[fleet._store.row["class_of"][rows]]]
        self._inventory = fleet._store.inventory
        self._counts = np.zeros(fleet.rows, bool)
        self._counts[self.rows] = True

    def on(self, rows: NDArray[np.integer], less: Whole | None = None) -> Whole:
        """Places on each of the rows, int64; ``less``: amounts by resource class that are taken from each before."""
        free = self._inventory["limit"][self.classes][:, rows] - self._inventory["used"][self.classes][:, rows]
        if less is not None:
            free = free - less[self.classes][:, None]
        slots: Whole = np.maximum((free // np.maximum(self.needs, 1)[:, None]).min(axis=0), 0)
        return np.where(self._counts[rows], slots, 0)

    def total(self) -> int:
        """Places on all rows."""
        return int(self.on(self.rows).sum())

    def bound(self, rows: NDArray[np.int32]) -> int:
        """Places that there can be at most, wherever the guests of ``rows`` are: by what is free in all, and by what
        each host could have if it were empty."""
        limit, used = (self._inventory[name][self.classes] for name in ("limit", "used"))
        free = np.maximum(limit[:, rows] - used[:, rows], 0).sum(axis=1)
        empty = (np.maximum(limit[:, self.rows], 0) // np.maximum(self.needs, 1)[:, None]).min(axis=0)
        return min(int((free // np.maximum(self.needs, 1)).min()), int(empty.sum()))

    def missing(self, row: int) -> Whole:
        """What is missing on a row for one more place, by its resource classes."""
        free = self._inventory["limit"][self.classes, row] - self._inventory["used"][self.classes, row]
        places = int(self.on(np.array([row]))[0])
        short: Whole = np.maximum(self.needs * (places + 1) - free, 0)
        return short


class Defragmentation:
    """The search on a trial for more room on ``rows``."""

    def __init__(self, trial: Trial, rooms: Sequence[Room], rows: NDArray[np.int32]) -> None:
        self._trial, self._rooms, self._rows = trial, rooms, rows
        self._allowed = np.zeros(trial.fleet.rows, bool)
        self._allowed[rows] = True

    def totals(self) -> list[int]:
        """Places for each shape."""
        return [room.total() for room in self._rooms]

    def run(self, most_moves: int) -> None:
        """Open hosts while it gains places, with at most ``most_moves`` moves."""
        gained = True
        while gained and len(self._trial.steps) < most_moves:
            opened = [self._open_each(room, most_moves) for room in self._rooms]
            gained = any(opened)
        if len(self._rows) <= SMALL:
            self._pack_again(most_moves)

    def _open_each(self, room: Room, most_moves: int) -> bool:
        """Try to open each host once; True if one was opened."""
        trial, gained, failures = self._trial, False, 0
        for row in self._order(room):
            left = most_moves - len(trial.steps)
            if failures >= FAILURES or left <= 0:
                break
            if self._open(room, row, min(LEAVE, left)):
                gained, failures = True, 0
            else:
                failures += 1
        return gained

    def _order(self, room: Room) -> list[int]:
        """Rows with guests, those first that lack least for one more place."""
        inventory, rows = self._trial.fleet._store.inventory, room.rows
        limit, used = inventory["limit"][room.classes][:, rows], inventory["used"][room.classes][:, rows]
        needs = np.maximum(room.needs, 1)[:, None]
        places = room.on(rows)
        short = np.maximum(needs * (places + 1) - (limit - used), 0)
        possible: NDArray[np.bool_] = np.all(limit >= needs * (places + 1), axis=0)
        lack = (short / needs).max(axis=0)
        return [int(rows[at]) for at in np.lexsort((rows, lack)).tolist() if possible[at]]

    def _open(self, room: Room, row: int, most: int) -> bool:
        """Have guests leave a row so that it has one place more and no place is lost elsewhere; else change nothing."""
        trial, before = self._trial, self.totals()
        guests = [guest for guest in trial.guests.on(row) if not guest.stays]
        chosen = fewest_freeing(trial, guests, room.classes.tolist(), room.missing(row), most)
        if not chosen:
            return False
        mark = trial.hold()
        for guest in chosen:
            if not self._leave(guest, row, room.name):
                trial.back(mark)
                return False
        after = self.totals()
        if sum(after) > sum(before) and all(now >= then for now, then in zip(after, before, strict=True)):
            return True
        trial.back(mark)
        return False

    def _leave(self, guest: Guest, row: int, name: str) -> bool:
        """Move a guest to the row where it costs the fewest places, of these to the fullest."""
        trial = self._trial
        scan, rows = trial.targets(guest, self._allowed)
        if scan is None or not len(rows):
            return False
        amounts = trial.guests.amounts()[guest.shape]
        lost: Whole = np.zeros(len(rows), np.int64)
        for each in self._rooms:
            lost += each.on(rows) - each.on(rows, amounts)
        inventory = trial.fleet._store.inventory
        left = np.zeros(len(rows))
        for resource in scan.signature.resources:
            limit = np.maximum(inventory["limit"][resource].take(rows), 1)
            left += (limit - inventory["used"][resource].take(rows)) / limit
        target = int(rows[np.lexsort((rows, left, lost))[0]])
        return trial.move(guest, target, f"more room for {name}", passes=True) is None

    def _pack_again(self, most_moves: int) -> None:
        """In a small fleet: pack all guests around one place more, as long as that is found."""
        trial, rows = self._trial, self._rows.tolist()
        for room in self._rooms:
            others = [each for each in self._rooms if each is not room]
            while room.total() < room.bound(self._rows):
                before, mark = [each.total() for each in others], trial.hold()
                fixed = set(self._rows[trial.guests.immovable(self._rows)].tolist())
                packing = Repacking(trial, rows, fixed)
                needs = np.zeros(len(trial.fleet.resource_classes), np.int64)
                needs[room.classes] = room.needs
                wanted = [(needs, np.isin(self._rows, room.rows))] * (room.total() + 1)
                found = packing.make_room(wanted, f"more room for {room.name}")
                worse = any(each.total() < then for each, then in zip(others, before, strict=True))
                if not found or worse or len(trial.steps) > most_moves:
                    trial.back(mark)
                    break


def defragment_plan(
    engine: Engine, goal: dict[str, object], rows: Sequence[int], requests: Sequence[Request], options: PlanOptions
) -> Plan:
    """The plan that makes more room on ``rows`` for guests of the requests."""
    trial = Trial(engine, options)
    where = np.array(rows, np.int32)
    try:
        rooms = [Room(trial, request, where) for request in requests]
    except NoValidHost as error:
        raise InvalidValue(f"no host can ever take it: {error.args[0]}", field="requests") from None
    search = Defragmentation(trial, rooms, where)
    before, bounds = search.totals(), [room.bound(where) for room in rooms]
    most = options.get("most_moves")
    search.run(most if most is not None else 10**9)
    after, steps = search.totals(), list(trial.steps)
    waves = in_waves(engine, options, [steps])
    words = [
        f"room for {now:,} of {room.name} (before {then:,}, at most {bound:,} can be)"
        for room, now, then, bound in zip(rooms, after, before, bounds, strict=True)
    ]
    return Plan(
        goal=goal,
        summary=f"{'; '.join(words)}; {in_words(steps, waves)}",
        complete=True,
        waves=waves,
        measures=tuple(
            Measure(name=f"room_for_{room.name}", before=then, after=now, bound=bound)
            for room, now, then, bound in zip(rooms, after, before, bounds, strict=True)
        ),
        derived=sum(step.guest.derived for step in steps),
        made_at=trial.fleet.now,
    )
