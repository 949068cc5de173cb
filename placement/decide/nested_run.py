"""Runs of requests of which some take of nested providers, or are weighed by GPUs, in one kernel call."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...ext.draws import word
from ...ext.nested_batch import place
from ...ext.tables import format_uuid
from ..types.request import Request
from .batch_plan import Answers, Plan
from .nested_batch import NestedAnswer
from .nested_shapes import NestedParts
from .shape_table import NESTED
from .signature import Signature


def plain_parts(which: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Where consecutive requests of plain shapes begin and end. O(requests)."""
    found, first = [], -1
    for at, number in enumerate(which.tolist()):
        if number >= NESTED:
            if first >= 0:
                found.append((first, at))
            first = -1
        elif first < 0:
            first = at
    return [*found, (first, len(which))] if first >= 0 else found


def ask_for_nested(plan: Plan, sequence: int, first: int, last: int) -> Answers:
    """Have the kernel decide and claim requests of which some are of nested shapes; the first gets number ``sequence``.
    It looks at each uuid before it decides."""
    fleet, span, count, nested = plan.fleet, slice(first, last), last - first, plan.shapes.nested_shapes
    which, uuids = plan.which[span], plan.uuids[span]
    rows, consumers = np.empty(count, np.int32), np.empty(count, np.int32)
    stages = [len(plan.shapes.nested[number - NESTED].stages) for number in set(which.tolist()) if number >= NESTED]
    scores, counts = np.empty(count, np.float64), np.empty((count, max(plan.shapes.width, *stages)), np.int64)
    ways = np.empty((count, nested.places), np.int32)
    done, undecided = place(
        fleet._kernel,
        plan.shapes.shapes,
        nested.kernels,
        NESTED,
        nested.marks,
        which,
        uuids,
        plan.projects[span],
        plan.users[span],
        True,
        plan.context.seed,
        sequence,
        rows,
        consumers,
        scores,
        counts,
        ways,
        nested.kinds,
    )
    nested.counted()
    if done < count:
        uuids = uuids[:done].copy()  # the others may be made again
    return Answers(
        which[:done], uuids, rows[:done], consumers[:done], scores[:done], counts[:done], ways[:done], not undecided
    )


Kinds = dict[int, tuple[Signature, NestedParts]]
"""By number of a nested shape: its signature, and what it is in the kernel."""


def keep_taken(plan: Plan, answers: Answers) -> Kinds:
    """Note what guests of nested shapes take elsewhere than on their hosts; the shapes that were asked for.
    O(requests)."""
    fleet, shapes = plan.fleet, plan.shapes
    assert answers.ways is not None
    which, kinds = answers.which.tolist(), Kinds()
    for number in set(which):
        if number >= NESTED:
            signature = shapes.nested[number - NESTED]
            parts = shapes.nested_shapes.ready(number - NESTED, signature)
            assert parts is not None
            kinds[number] = signature, parts
    keep = fleet._consumers.keep_extras
    ways, columns = answers.ways.tolist(), zip(which, answers.rows.tolist(), answers.consumers.tolist(), strict=True)
    for (number, row, consumer), way in zip(columns, ways, strict=True):
        if number >= NESTED and row >= 0:
            extras = kinds[number][1].extras(row, way)
            if extras is not None:
                keep(consumer, extras)
    return kinds


class NestedRun:
    """Consecutive requests that one kernel call decided, some of nested shapes. The first is number ``first`` of all,
    and gets number ``sequence`` of the engine's decisions."""

    def __init__(self, plan: Plan, first: int, sequence: int, answers: Answers, kinds: Kinds) -> None:
        self.first, self._sequence, self.answers, self._kinds = first, sequence, answers, kinds
        self._requests, self._seed = plan.batch[first : first + len(answers.rows)], plan.context.seed

    @property
    def nested(self) -> list[int]:
        """Numbers of the requests of nested shapes. O(requests)."""
        found: list[int] = (np.flatnonzero(self.answers.which >= NESTED) + self.first).tolist()
        return found

    def removed(self, index: int) -> dict[str, int]:
        """Hosts that each stage removed for request number ``index``. O(stages)."""
        at = index - self.first
        signature, _ = self._kinds[int(self.answers.which[at])]
        counts = self.answers.counts[at, 1 : len(signature.stages)].tolist()
        return dict(zip(signature.stage_names, counts, strict=True))

    def told(self, index: int) -> tuple[Request, str, NestedAnswer]:
        """The request of number ``index``, the uuid of its instance, and the answer. O(stages + slots)."""
        at, answers = index - self.first, self.answers
        assert answers.ways is not None
        signature, parts = self._kinds[int(answers.which[at])]
        row, way, sequence = int(answers.rows[at]), answers.ways[at].tolist(), self._sequence + at
        mine = answers.counts[at, : len(signature.stages)].tolist()
        what = partial(parts.taken, signature, row, way)
        consumer, weight = int(answers.consumers[at]), float(answers.scores[at])
        answer = NestedAnswer(sequence, word(self._seed, sequence), signature, mine, row, weight, consumer, what)
        return self._requests[at], format_uuid(*answers.uuids[at].tolist()), answer
