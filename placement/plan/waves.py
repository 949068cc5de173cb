"""Steps arranged in waves: moves that may run side by side, with both ends of all of them held until the wave ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..decide.engine import Engine
from ..types.counting import counted
from ..types.plans import ANY, PlannedMove, PlanOptions, Wave
from .trial import Step, Trial

PER_HOST: Final = 4
"""Moves on one host at a time, in or out, unless the caller says otherwise."""


def in_waves(
    engine: Engine, options: PlanOptions, parts: Sequence[Sequence[Step]], goal: Collection[str] = ()
) -> tuple[Wave, ...]:
    """The steps of each part in waves. They are begun again on a fresh fork: a wave takes each step that the rules
    allow while all before it in the wave hold both ends, and that takes no room which a step left behind needs.
    ``goal``: nodes that the goal would have empty. O(steps * waves)."""
    trial, waves = Trial(engine, options), list[Wave]()
    fleet = trial.fleet
    generations = fleet._store.row["generation"][: fleet.rows].copy()
    full = {name for name in goal if fleet._kernel.consumers_on(fleet.row(name))}
    moved = set[str]()
    for part in parts:
        mark = trial.hold()
        for in_order in (False, True):
            made = _Part(trial, options, generations, in_order).waves(part, full, set(moved))
            if made is not None:
                break
            trial.back(mark)
        assert made is not None, "steps that were made one by one can be made again one by one"
        waves += made
        moved |= {step.guest.uuid for step in part}
        full -= {name for wave in made for name in wave.empty}
    return tuple(waves)


def in_words(steps: Sequence[Step], waves: Sequence[Wave]) -> str:
    """How many moves a plan has, and in how many waves."""
    return f"{counted(len(steps), 'move')} in {counted(len(waves), 'wave')}"


class _Part:
    """The waves of steps that belong together. ``in_order``: no step overtakes another."""

    def __init__(self, trial: Trial, options: PlanOptions, generations: NDArray[np.int64], in_order: bool) -> None:
        self._trial, self._options, self._in_order = trial, options, in_order
        self._generations = generations
        self._per_host = options.get("per_host", PER_HOST)
        self._admission = options.get("admission")

    def waves(self, steps: Sequence[Step], full: Collection[str], moved: set[str]) -> list[Wave] | None:
        """None if a step cannot be made although nothing is under way. ``moved``: instances that moved before."""
        trial, left, waves = self._trial, list(steps), list[Wave]()
        fleet, still = trial.fleet, set(full)
        while left:
            begun, later = self._begin(left)
            if not begun:
                return None
            moves = tuple(self._planned(step, again=step.guest.uuid in moved) for step in begun)
            moved |= {step.guest.uuid for step in begun}
            for step in begun:
                trial.end(step.guest.uuid)
                if self._admission is not None:
                    self._admission.end(step.guest.project_id, self._amounts(step))
            empty = {name for name in still if not fleet._kernel.consumers_on(fleet.row(name))}
            still -= empty
            waves.append(Wave(moves=moves, empty=tuple(sorted(empty))))
            left = later
        return waves

    def _begin(self, left: Sequence[Step]) -> tuple[list[Step], list[Step]]:
        """The steps that the next wave takes, begun, and the others."""
        begun, later = list[Step](), list[Step]()
        busy, waiting, targets = Counter[int](), set[str](), set[int]()
        for position, step in enumerate(left):
            source, target = step.source, step.target
            ready = (
                step.guest.uuid not in waiting
                and target not in targets
                and not (self._per_host and max(busy[source], busy[target]) >= self._per_host)
                and self._begun(step)
            )
            if ready:
                begun.append(step)
                busy.update((source, target))
                continue
            if self._in_order:
                return begun, list(left[position:])
            later.append(step)
            waiting.add(step.guest.uuid)
            targets.add(target)
        return begun, later

    def _begun(self, step: Step) -> bool:
        if self._trial.is_moving(step.guest):
            return False
        amounts = self._amounts(step)
        if self._admission is not None and not self._admission.begin(step.guest.project_id, amounts):
            return False
        if self._trial.begin(self._trial.again(step.guest), step.target) is None:
            return True
        if self._admission is not None:
            self._admission.end(step.guest.project_id, amounts)
        return False

    def _amounts(self, step: Step) -> dict[str, int]:
        fleet = self._trial.fleet
        classes, amounts, *_ = fleet._kernel.shape(step.guest.shape) if step.guest.shape >= 0 else ([], [])
        return {fleet.resource_classes[index]: amount for index, amount in zip(classes, amounts, strict=True)}

    def _planned(self, step: Step, *, again: bool) -> PlannedMove:
        fleet, guest, cost = self._trial.fleet, step.guest, self._options.get("cost")
        size = guest.memory_mb, guest.disk_mb
        copied_mb = sum(size) if guest.kind != "cold_migrate" else guest.disk_mb
        return PlannedMove(
            instance=guest.uuid,
            source=fleet.name(step.source),
            target=fleet.name(step.target),
            kind=guest.kind,
            reason=step.reason,
            memory_mb=size[0],
            disk_mb=size[1],
            cost=float(copied_mb) if cost is None else float(cost(guest.uuid, *size)),
            generation=ANY if again else guest.generation,
            source_generation=int(self._generations[step.source]),
            target_generation=int(self._generations[step.target]),
            project_id=guest.project_id,
        )
