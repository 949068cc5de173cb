"""Runs of requests of which some take of nested providers, or are weighed by GPUs, in one kernel call."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...ext.draws import words
from ...ext.nested_batch import place
from ...ext.tables import format_many
from .batch_decisions import Decisions
from .batch_plan import Answers, Plan
from .nested_batch import NestedAnswer
from .nested_shapes import NestedParts
from .shape_table import NESTED


def plain_parts(which: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Where consecutive requests of plain shapes begin and end. O(requests)."""
    ends = np.flatnonzero(np.diff(which < NESTED, prepend=False, append=False)).tolist()
    return list(zip(ends[::2], ends[1::2], strict=True))


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
    )
    if done < count:
        uuids = uuids[:done].copy()  # the others may be made again
    return Answers(
        which[:done], uuids, rows[:done], consumers[:done], scores[:done], counts[:done], ways[:done], not undecided
    )


def nested_taken(plan: Plan, answers: Answers) -> list[tuple[int, NestedParts, list[int]]]:
    """Of each request of a nested shape: its position, what its signature is in the kernel, and its way. What it takes
    elsewhere is noted. O(requests)."""
    fleet, shapes, found = plan.fleet, plan.shapes, []
    assert answers.ways is not None
    ways, rows, consumers = answers.ways.tolist(), answers.rows.tolist(), answers.consumers.tolist()
    for at, number in enumerate(answers.which.tolist()):
        if number < NESTED:
            continue
        parts = shapes.nested_shapes.ready(number - NESTED, shapes.nested[number - NESTED])
        assert parts is not None
        extras = parts.extras(rows[at], ways[at]) if rows[at] >= 0 else None
        if extras is not None:
            fleet._consumers.keep_extras(consumers[at], extras)
        found.append((at, parts, ways[at]))
    return found


def add_nested(
    plan: Plan,
    decisions: Decisions,
    first: int,
    sequence: int,
    answers: Answers,
    taken: list[tuple[int, NestedParts, list[int]]],
) -> None:
    """Take in the answers to requests of nested shapes. O(requests)."""
    seeds = words(plan.context.seed, sequence, len(answers.rows)).tolist()
    rows, consumers, counts = answers.rows.tolist(), answers.consumers.tolist(), answers.counts.tolist()
    scores, uuids, which = answers.scores.tolist(), format_many(answers.uuids), answers.which.tolist()
    for at, parts, way in taken:
        signature, row = plan.shapes.nested[which[at] - NESTED], rows[at]
        mine = counts[at][: len(signature.stages)]
        what = partial(parts.taken, signature, row, way)
        answer = NestedAnswer(sequence + at, seeds[at], signature, mine, row, scores[at], consumers[at], what)
        decisions._add_nested(first + at, plan.batch[first + at], uuids[at], answer)
