"""Necessary conditions for filling the remaining slots, checked without search: by subtrees, and by matching slots to
providers. What it refuses cannot be filled; what it accepts may still fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .memo import Choices
from .slots import Prepared


class Bounds:
    """Of one tree's search. ``above``: a row and its ancestors."""

    def __init__(self, query: Prepared, choices: Choices, above: Callable[[int], frozenset[int]]) -> None:
        self._query, self._choices, self._above = query, choices, above

    def open(self, at: int, rows: Sequence[int], left: Sequence[int]) -> dict[int, list[int]] | None:
        """By slot from ``at`` on, the rows that may still fill it; None if they cannot all be filled. O(slots x rows),
        and a matching for each resource class that several slots ask for."""
        query, slots = self._query, range(at, len(self._query.slots))
        taken = {rows[slot] for slot in range(at) if query.slots[slot].suffix} if query.isolate else set[int]()
        able: dict[int, list[int]] = {}
        for slot in slots:
            barred = taken if query.slots[slot].suffix else ()
            able[slot] = [
                row
                for row, amounts in self._choices[slot]
                if row not in barred and all(left[place] >= amount for place, amount in amounts)
            ]
        for together in query.subtrees:
            self._below_one(together, at, rows, able)
        if not all(able.values()):
            return None
        if query.isolate:
            apart = {slot: able[slot] for slot in slots if query.slots[slot].suffix}
            if not matched(apart, {row: 1 for found in apart.values() for row in found}):
                return None
        return able if self._enough(at, able, left) else None

    def _below_one(self, together: frozenset[int], at: int, rows: Sequence[int], able: dict[int, list[int]]) -> None:
        """Keep, of the slots that need a common ancestor among their rows, the rows that may have one."""
        rest = [slot for slot in sorted(together) if slot >= at]
        chosen = {rows[slot] for slot in together if slot < at}
        common = frozenset.intersection(*map(self._above, chosen)) if chosen else None
        anchors = set() if common is None else chosen & common
        for slot in rest:
            anchors.update(row for row in able[slot] if common is None or row in common)
        for slot in rest:
            anchors.intersection_update(frozenset().union(*map(self._above, able[slot])))
        for slot in rest:
            able[slot] = [row for row in able[slot] if not anchors.isdisjoint(self._above(row))]

    def _enough(self, at: int, able: Mapping[int, list[int]], left: Sequence[int]) -> bool:
        """Whether, of each class, every slot could get the least amount that any asks for."""
        asking: dict[int, list[int]] = {}
        for slot in range(at, len(self._query.slots)):
            for index, _ in self._query.slots[slot].amounts:
                asking.setdefault(index, []).append(slot)
        return all(
            matched({slot: able[slot] for slot in slots}, self._room(slots, left))
            for slots in asking.values()
            if len(slots) > 1
        )

    def _room(self, slots: Sequence[int], left: Sequence[int]) -> dict[int, int]:
        """By row, how many of the slots it could take if each took the least that any of them does, of each class that
        all of them ask for."""
        asked = [dict(self._query.slots[slot].amounts) for slot in slots]
        least = {index: min(one[index] for one in asked) for index in asked[0] if all(index in one for one in asked)}
        room: dict[int, int] = {}
        for slot in slots:
            for row, taken in self._choices[slot]:
                if row not in room:
                    amounts = zip(self._query.slots[slot].amounts, taken, strict=True)
                    room[row] = min(left[place] // least[index] for (index, _), (place, _) in amounts if index in least)
        return room


def matched(able: Mapping[int, Sequence[int]], room: Mapping[int, int]) -> bool:
    """Whether each slot can have one of its rows if a row takes a limited number of slots. Augmenting paths: O(slots x
    pairs)."""
    held: dict[int, list[int]] = {}

    def settle(slot: int, tried: set[int]) -> bool:
        for row in able[slot]:
            if row in tried:
                continue
            tried.add(row)
            inside = held.setdefault(row, [])
            if len(inside) < room[row]:
                inside.append(slot)
                return True
            for place, other in enumerate(inside):
                if settle(other, tried):
                    inside[place] = slot
                    return True
        return False

    return all(settle(slot, set()) for slot in able)
