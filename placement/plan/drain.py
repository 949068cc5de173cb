"""Hosts drained for maintenance, all together or some at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..decide.engine import Engine
from ..types.counting import counted
from ..types.errors import InvalidValue
from ..types.plans import LeftGuest, Measure, Plan, PlanOptions
from .choice import best_weighed
from .guests import Guest
from .make_room import RoomSearch
from .trial import Step, Trial
from .waves import in_waves, in_words

NOWHERE: Final = "no host can take it"
SEARCHES: Final = 4
"""Searches in vain for room for a guest of a batch, after which no more are made."""


@dataclass
class Drained:
    """What draining came to: the steps batch by batch, and the guests that stay."""

    parts: list[list[Step]] = field(default_factory=list)
    left: list[LeftGuest] = field(default_factory=list)


def rows_of(engine: Engine, names: Sequence[str]) -> list[int]:
    """Rows of hosts by node name or service host, in order. UnknownName for others, InvalidValue if one is named
    twice."""
    fleet, rows = engine.fleet, list[int]()
    for name in names:
        found = [fleet.row(name, field="hosts")] if fleet._names.find(name) >= 0 else fleet._rows_of_service_host(name)
        rows += found or [fleet.row(name, field="hosts")]
    for row in rows:
        if not fleet.is_host[row]:
            raise InvalidValue(f"{fleet.name(row)} is a resource provider, but no host", field="hosts")
    if len(set(rows)) < len(rows):
        raise InvalidValue("a host is named twice", field="hosts")
    return rows


def drain(trial: Trial, batches: Sequence[Sequence[int]], keep_free: float) -> Drained:
    """Move the guests of each batch of rows to other hosts. While a batch is drained, hosts of later ones take guests
    only where no other host does, and those of earlier ones are in use again. ``keep_free``: share of each target's
    capacity that stays free."""
    drained = Drained()
    waiting = {row for batch in batches for row in batch}
    for batch in batches:
        before = len(trial.steps)
        every = np.ones(trial.fleet.rows, bool)
        every[list(batch)] = False
        first = every.copy()
        first[list(waiting)] = False
        searches = SEARCHES
        for guest in _largest_first([guest for row in batch for guest in trial.guests.on(row)]):
            reason = f"drain {trial.fleet.name(guest.row)}"
            moved = _moved(trial, guest, (first, every), keep_free, reason)
            if not moved and not keep_free and not trial.why_stays(guest) and searches:
                moved = _room_made(trial, guest, every, reason)
                searches -= not moved
            if not moved:
                why = trial.why_stays(guest) or NOWHERE
                drained.left.append(LeftGuest(guest.uuid, trial.fleet.name(guest.row), why))
        drained.parts.append(trial.steps[before:])
        waiting -= set(batch)
    return drained


def _largest_first(guests: list[Guest]) -> list[Guest]:
    return sorted(guests, key=lambda guest: (-guest.memory_mb, -guest.disk_mb, guest.uuid))


def _moved(trial: Trial, guest: Guest, masks: Sequence[NDArray[np.bool_]], keep_free: float, reason: str) -> bool:
    for allowed in masks:
        scan, rows = trial.targets(guest, allowed)
        if scan is None:
            return False
        if keep_free and len(rows):
            inventory = trial.fleet._store.inventory
            for resource, amount in scan.signature.resources.items():
                limit = inventory["limit"][resource, rows]
                rows = rows[limit - inventory["used"][resource, rows] - amount >= keep_free * limit]
                if not len(rows):
                    break
        if len(rows) and trial.move(guest, best_weighed(scan, rows), reason, passes=True) is None:
            return True
    return False


def _room_made(trial: Trial, guest: Guest, allowed: NDArray[np.bool_], reason: str) -> bool:
    """Move a guest to a host where other guests make room for it."""
    scan = trial.scan(guest)
    mark = trial.hold()
    search = RoomSearch(trial, f"make room for {guest.uuid}", allowed)
    row = None if scan is None else search.make(scan, keep=frozenset({guest.uuid}), attempts=200)
    if row is not None and trial.move(guest, row, reason) is None:
        return True
    trial.back(mark)
    return False


def drain_plan(
    engine: Engine, goal: dict[str, object], batches: Sequence[Sequence[int]], keep_free: float, options: PlanOptions
) -> Plan:
    """The plan that drains batches of rows."""
    trial = Trial(engine, options)
    fleet = trial.fleet
    names = [fleet.name(row) for batch in batches for row in batch]
    full = sum(bool(trial.guests.on(row)) for batch in batches for row in batch)
    drained = drain(trial, batches, keep_free)
    left = {each.node for each in drained.left}
    steps = [step for part in drained.parts for step in part]
    waves = in_waves(engine, options, drained.parts, names)
    derived = sum(step.guest.derived for step in steps)
    emptied = sum(name not in left for name in names)
    summary = f"{emptied:,} of {counted(len(names), 'host')} drained; {in_words(steps, waves)}"
    if drained.left:
        summary += f"; {counted(len(drained.left), 'guest')} {'stays' if len(drained.left) == 1 else 'stay'}"
    measure = Measure(name="hosts_with_guests", before=full, after=len(left), bound=0, sense="at_least")
    return Plan(
        goal=goal,
        summary=summary,
        complete=not drained.left,
        waves=waves,
        left=tuple(drained.left),
        measures=(measure,),
        derived=derived,
        made_at=fleet.now,
    )
