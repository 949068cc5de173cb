"""What the rest of a tree's candidate search depends on, as a value: two partial choices with equal states can be
completed in the same ways, but for the names of interchangeable providers.

Left out is what no later slot can take: amounts beyond all that the later slots ask of a provider together, and
providers that none of them can use. Two providers are interchangeable if the same slots can use them, they have the
same amounts and traits, and nothing tells their places in the tree apart.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

from .slots import Prepared

Taken = tuple[tuple[int, int], ...]
"""What a slot takes of a row: places in ``left``, and amounts."""
Choices = Sequence[Sequence[tuple[int, Taken]]]
"""By slot, the rows that can fill it and what it takes of each."""


@dataclass(frozen=True, slots=True)
class _Level:
    """The slots from one on. ``most``: by place, what they can take of it together; ``users``: by row, which of them
    can use it; ``kinds``: by row, what its interchangeable rows have in common."""

    most: dict[int, int]
    users: dict[int, int]
    kinds: dict[int, Hashable]
    places: dict[int, tuple[int, ...]]
    suffixed: int


class States:
    """Of one tree's search. ``bits``: traits of a row that count; ``above``: a row and its ancestors."""

    def __init__(
        self,
        query: Prepared,
        choices: Choices,
        left: Sequence[int],
        bits: Callable[[int], int],
        above: Callable[[int], frozenset[int]],
        *,
        nested: bool,
    ) -> None:
        self._query, self._choices, self._nested = query, choices, nested
        self._first, self._bits, self._above = tuple(left), bits, above
        self._levels: dict[int, _Level] = {}

    def of(self, at: int, bits: int, rows: Sequence[int], left: Sequence[int]) -> Hashable:
        """The state before slot ``at`` is filled. O(slots x classes)."""
        level, query = self._level(at), self._query
        subtrees, fixed = self._subtrees(at, rows), set[int]()
        for common, _ in subtrees:
            fixed |= common
        taken = {rows[slot] for slot in range(at) if query.slots[slot].suffix} if query.isolate else set()
        touched = []
        for row in dict.fromkeys(rows[:at]):
            users = level.users.get(row)
            if users is None:
                continue
            places, most = level.places[row], level.most
            now = tuple(min(left[place], most[place]) for place in places)
            used = row in taken and bool(users & level.suffixed)
            if used or now != tuple(min(self._first[place], most[place]) for place in places):
                touched.append((("row", row) if row in fixed else level.kinds[row], now, used))
        # Kinds do not compare, but their counts do: a multiset is a dictionary of counts.
        counts: dict[Hashable, int] = {}
        for entry in touched:
            counts[entry] = counts.get(entry, 0) + 1
        return at, bits, frozenset(counts.items()), subtrees, None if self._nested else frozenset(rows[:at])

    def _subtrees(self, at: int, rows: Sequence[int]) -> tuple[tuple[frozenset[int], frozenset[int]], ...]:
        """Of each set of slots that is partly filled: the common ancestors, and which of them are chosen."""
        found = []
        for slots in self._query.subtrees:
            chosen = frozenset(rows[slot] for slot in slots if slot < at)
            if not any(slot >= at for slot in slots) or not chosen:
                found.append((frozenset[int](), frozenset[int]()))
                continue
            common = frozenset.intersection(*map(self._above, chosen))
            found.append((common, common & chosen))
        return tuple(found)

    def _level(self, at: int) -> _Level:
        known = self._levels.get(at)
        if known is None:
            known = self._levels[at] = self._made(at)
        return known

    def _made(self, at: int) -> _Level:
        slots, isolate = self._query.slots, self._query.isolate
        apart, together, users = dict[int, int](), dict[int, int](), dict[int, int]()
        places: dict[int, dict[int, int]] = {}
        collective = suffixed = 0
        for slot in range(at, len(slots)):
            alone = isolate and bool(slots[slot].suffix)
            suffixed |= bool(slots[slot].suffix) << slot
            collective |= not slots[slot].suffix
            for row, taken in self._choices[slot]:
                users[row] = users.get(row, 0) | 1 << slot
                mine = places.setdefault(row, {})
                for (index, _), (place, amount) in zip(slots[slot].amounts, taken, strict=True):
                    mine[index] = place
                    if alone:
                        apart[place] = max(apart.get(place, 0), amount)
                    else:
                        together[place] = together.get(place, 0) + amount
        most = {place: apart.get(place, 0) + together.get(place, 0) for place in {**apart, **together}}
        ordered = {row: tuple(place for _, place in sorted(mine.items())) for row, mine in places.items()}
        kinds = {row: self._kind(row, users[row], ordered[row], most, bool(collective)) for row in users}
        return _Level(most, users, kinds, ordered, suffixed)

    def _kind(self, row: int, users: int, places: tuple[int, ...], most: dict[int, int], collective: bool) -> Hashable:
        amounts = tuple(min(self._first[place], most[place]) for place in places)
        where: Hashable = None
        if not self._nested:
            where = row
        elif self._query.subtrees:
            where = ("row", row) if row in self._inner else self._above(row) - {row}
        return users, amounts, self._bits(row) if collective else 0, where

    @cached_property
    def _inner(self) -> frozenset[int]:
        """Rows below which there is another that some slot can use."""
        rows = {row for choice in self._choices for row, _ in choice}
        return frozenset(above for row in rows for above in self._above(row) if above != row)
