"""The pure-Python twin of _nested_batch.pyx: one call of the other twins per guest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .constants import BUILDING, NOT_A_HOST, STAGES
from .devices_py import HostScores
from .draws import word
from .fleet_py import Columns, checked
from .provider_trees_py import SOME, UNSURE, TreeCounts
from .ranking.beside_py import best_beside, set_aside
from .ranking.ranking_py import Ranking
from .shapes_py import Shapes
from .tables_py import format_uuid

Array = npt.NDArray[Any]


class NestedShape:
    """A request that takes of nested providers, or is weighed by devices; see the kernel."""

    def __init__(
        self,
        ranking: Ranking | None,
        root: Array,
        guest: int,
        seen: int,
        *,
        counts: TreeCounts | None = None,
        known: Array | None = None,
        on_root: Array | None = None,
        scores: HostScores | None = None,
        values: Array | None = None,
        device_slot: int = -1,
        kinds: Array | None = None,
        kind: int = -1,
        searched: Ranking | None = None,
        stage: int = 0,
        patience: int = 0,
        often: int = 0,
        asked: int = -1,
        soon: int = 0,
    ) -> None:
        either = searched if ranking is None else ranking
        if either is None or (ranking is None and soon > often):
            raise ValueError("a ranking is needed")
        if searched is not None and (counts is None or not 1 <= stage < NOT_A_HOST or searched.shuffle):
            raise ValueError("a ranking that is searched needs counts and their stage, and does not shuffle")
        self.columns = columns = either.columns
        if searched is not None and searched.columns is not columns:
            raise ValueError("parts of another fleet")
        if (
            (scores is None) != (values is None)
            or (counts is None) != (known is None)
            or (counts is None) != (on_root is None)
        ):
            raise ValueError("scores need values, and counts what is known and on roots, and the reverse")
        if any(part is not None and part._columns is not columns for part in (counts, scores)):
            raise ValueError("parts of another fleet")
        arrays = [array for array in (known, values) if array is not None]
        if len(root) < columns.rows or any(len(array) != columns.capacity for array in arrays):
            raise ValueError("a value for each row is needed")
        slots = () if counts is None else counts._slots
        if on_root is not None and len(on_root) != len(slots):
            raise ValueError("a mark for each slot is needed")
        if device_slot >= 0:
            needs = slots[device_slot][0] if device_slot < len(slots) else ()
            if (
                scores is None
                or on_root is None
                or len(needs) != 1
                or on_root[device_slot]
                or needs[0][0] != scores._device
            ):
                raise ValueError("a slot for devices asks for devices alone, of other rows than the root")
        if kinds is not None and (scores is None or kinds.shape != (columns.capacity, scores._below.shape[1] + 2)):
            raise ValueError("kinds of guests need scores, and a number for each row and kind")
        if kind < -1:
            raise ValueError("a kind is a number from 0 on")
        columns.check_shape(guest)
        self.kinds, self.kind = kinds, kind
        self.ranking, self.counts, self.scores, self.known, self.values = ranking, counts, scores, known, values
        self.root, self.on_root, self.guest, self.device_slot = root, on_root, guest, device_slot
        self.seen, self.patience, self._slots = seen, patience, slots
        self.searched, self.stage, self.often, self.asked, self.soon = searched, stage, often, asked, soon
        self._judged_by = either if searched is None else searched

    def slot_of_place(self) -> list[int]:
        """By place of a way, its slot."""
        return [number for number, slot in enumerate(self._slots) for _ in range(slot[-1])]

    def _scored(self, row: int) -> bool:
        scores = self.scores
        return scores is None or not scores._rule.shapes or self.columns.class_of[row] < scores._classes

    def _is_host(self, row: int) -> bool:
        number, stages = int(self.columns.class_of[row]), self._judged_by.class_stage
        return number < len(stages) and stages[number] != NOT_A_HOST

    def catch_up(self) -> bool:
        """Bring the arrays up to date with the log; False if that cannot be done here."""
        columns = self.columns
        changed = columns.changed(self.seen)
        if changed is None:
            return False
        named = [row for row in changed.tolist() if 0 <= row < columns.rows]
        for top in dict.fromkeys(int(self.root[row]) for row in named):
            if not 0 <= top < columns.rows:
                continue
            answer = SOME if self.counts is None else self.counts._judge(top)[0]
            weighed = self.scores is not None and self._is_host(top)
            if answer == UNSURE or (weighed and not self._scored(top)):
                return False
            value = self.scores.score(top, self._tags(top))[0] if weighed and self.scores is not None else 0.0
            was = answer if self.known is None else self.known[top], value if self.values is None else self.values[top]
            if was != (answer, value):
                if self.known is not None:
                    self.known[top] = answer
                if self.values is not None:
                    self.values[top] = value
                if top not in named:
                    columns.mark_changed(np.array([top], np.int32))
        self.seen = columns.version
        return True

    def asks(self) -> Ranking | None:
        """The ranking to be asked now; None if it is there no more."""
        version = self.columns.version
        if self.searched is None:
            return self.ranking
        self.soon = self.soon + 1 if self.asked >= 0 and version - self.asked <= self.patience else 0
        self.asked = version
        return self.ranking if self.soon > self.often else self.searched

    def decide(self, ranking: Ranking, seed: int, width: int) -> tuple[list[int], list[float], list[int]]:
        """The best row and its score, if there is one, and rows by the stage that refuses them."""
        if ranking is not self.searched or self.known is None or self.counts is None:
            return *ranking.best(-1, 1, seed), ranking.counts(-1, width)
        counts = np.array(ranking.counts(-1, STAGES), np.int64)
        trees = self.counts._rows[self.counts._starts[:-1][np.diff(self.counts._starts) > 0]]
        mask = np.ones(self.columns.capacity, np.uint8)
        mask[self.root[trees]] = self.known[self.root[trees]]
        aside = set_aside(ranking, [(mask, self.stage)], counts)
        rows, scores = best_beside(ranking, aside, np.zeros(0, np.int32), None, 1, seed)
        return rows, scores, counts[:width].tolist()

    def _tags(self, row: int) -> list[int]:
        assert self.scores is not None
        return [0] * (self.scores._below.shape[1] + 2) if self.kinds is None else list(self.kinds[row].tolist())

    def check(self, columns: Columns, room: int, kinds: Array | None) -> None:
        """ValueError for another fleet's columns, too little room for a way, and kinds that the scores do not read."""
        self._judged_by._check_capacity()
        if self.columns is not columns or len(self.slot_of_place()) > room or len(self.root) < columns.rows:
            raise ValueError("a shape of another fleet, or no room for the way of a guest")
        if kinds is None:
            if self.kinds is not None:
                raise ValueError("a shape reads kinds of guests that are not counted")
        elif self.kind >= kinds.shape[1] or (self.kinds is not None and self.kinds is not kinds):
            raise ValueError("kinds of guests that a shape does not read")

    def way_of(self, row: int) -> list[int] | None:
        """Rows that fill the slots on a root, in their order; None if that is left undecided."""
        if self.counts is None or self.on_root is None:
            return []
        answer, way = self.counts.first(row)
        places = self.slot_of_place()
        if (
            answer != SOME
            or way is None
            or any((at == row) != self.on_root[s] for at, s in zip(way, places, strict=True))
        ):
            return None
        if self.device_slot < 0 or self.scores is None:
            return way
        if not self._scored(row):
            return None
        taken = self.scores.score(row, self._tags(row))[1]
        devices = [int(gpu) for bit, gpu in enumerate(self.scores._below[row]) if taken >> bit & 1]
        if len(devices) != self._slots[self.device_slot][-1]:
            return None
        left = iter(devices)
        return [next(left) if s == self.device_slot else at for at, s in zip(way, places, strict=True)]

    def charge(self, way: Sequence[int]) -> None:
        """Take what a guest takes of other rows than the root."""
        columns, on_root = self.columns, self.on_root
        others = []
        for row, number in zip(way, self.slot_of_place(), strict=True):
            if on_root is None or on_root[number]:
                continue
            for resource, amount, _ in self._slots[number][0]:
                columns.used[resource, row] += amount
                room = columns.limit[resource, row] - columns.used[resource, row]
                columns.avail[resource, row] = min(room, columns.max_unit[resource, row])
            others.append(row)
        for row in dict.fromkeys(others):
            columns.generation[row] += 1
            columns.mark_changed(np.array([row], np.int32))


def _shape(nested: Sequence[NestedShape | None], number: int) -> NestedShape:
    shape = nested[number] if number < len(nested) else None
    if shape is None:
        raise IndexError("shape out of range")
    return shape


def place(
    columns: Columns,
    shapes: Shapes,
    nested: Sequence[NestedShape | None],
    nested_from: int,
    marks: Array,
    which: Array,
    uuids: Array,
    projects: Array,
    users: Array,
    building: bool,
    seed: int,
    sequence: int,
    out_row: Array,
    out_consumer: Array,
    out_score: Array,
    out_counts: Array,
    out_way: Array,
    kinds: Array | None = None,
) -> tuple[int, bool]:
    """Place guest i, of request shape ``which[i]``, or of shape ``which[i] - nested_from`` of ``nested``, each seeing
    the claims before it. Returns (guests that were processed, whether the next one is left undecided)."""
    n, width, room = len(checked(which, np.int32, 1)), out_counts.shape[1], out_way.shape[1]
    lines = (uuids, projects, users, out_row, out_consumer, out_score, out_counts, out_way)
    if uuids.shape[1] != 2 or not 1 <= width <= STAGES or room < 1 or any(len(line) != n for line in lines):
        raise ValueError("batch columns differ in length")
    if shapes.columns is not columns or len(marks) != columns.capacity:
        raise ValueError("shapes of another fleet")
    if kinds is not None and (len(kinds) != columns.capacity or kinds.shape[1] < 2):
        raise ValueError("kinds of guests of another fleet")
    for number in which.tolist():
        if number < nested_from:
            shapes.ready(number)
        else:
            _shape(nested, number - nested_from).check(columns, room, kinds)
    out_row[:], out_consumer[:], out_score[:] = -1, -1, 0.0
    for i, number in enumerate(which.tolist()):
        high, low = uuids[i].tolist()
        if columns.consumers.get(format_uuid(high, low)) >= 0:
            return i, False
        shape = nested[number - nested_from] if number >= nested_from else None
        if shape is None:
            ranking, guest = shapes.ready(number)
        else:
            if not shape.catch_up():
                return i, True
            asked = shape.asks()
            if asked is None:
                return i, True
            ranking, guest = asked, shape.guest
        drawn = word(seed, sequence + i)
        if shape is None:
            rows, scores = ranking.best(-1, 1, drawn)
            out_counts[i] = ranking.counts(-1, width)
        else:
            rows, scores, out_counts[i] = shape.decide(ranking, drawn, width)
        if not rows:
            continue
        way = [] if shape is None else shape.way_of(rows[0])
        if way is None or (kinds is not None and shape is not None and shape.kind < 0):
            return i, True
        owner = int(projects[i]), int(users[i])
        out_consumer[i] = columns.add_consumer(high, low, rows[0], guest, *owner, -1, BUILDING if building else 0)
        out_row[i], out_score[i] = rows[0], scores[0]
        if shape is not None:
            shape.charge(way)
            out_way[i, : len(way)] = way
        if kinds is not None:
            kinds[rows[0], 0 if shape is None else shape.kind] += 1
    return n, False
