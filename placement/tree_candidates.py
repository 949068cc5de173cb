"""The ways to fill a query's slots within one tree and the sharing providers that serve it, found depth first.

The last slot varies fastest; each slot tries the tree's providers in the tree's order, then the sharing ones. A partial
choice that cannot be completed is left at once, and is not tried again in another guise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .candidate_slots import Prepared
from .fleet import Fleet

Way = tuple[int, ...]
"""The row that fills each slot."""


class TreeSearch:
    """One search of one tree. ``options``: by slot, the rows that can fill it by themselves."""

    def __init__(self, fleet: Fleet, query: Prepared, options: Sequence[list[int]], *, nested: bool = True) -> None:
        """``nested`` False: no two providers of one tree."""
        self._fleet, self._slots, self._options = fleet, query.slots, options
        self._isolate, self._nested, self._subtrees = query.isolate, nested, query.subtrees
        self._left: dict[tuple[int, int], int] = {}
        self._taken: dict[tuple[int, int], int] = {}
        self._rows: list[int] = []
        self._ancestry: dict[int, frozenset[int]] = {}
        self._dead: set[object] = set()
        self._last_plain = max((at for at, slot in enumerate(self._slots) if not slot.suffix), default=-1)
        self._bits: dict[int, int] = {}
        self._required = [mask for wish in query.wishes for mask in wish.required]
        self._all_bits = (1 << len(self._required)) - 1
        self._possible = self._possible_bits()

    def ways(self) -> Iterator[Way]:
        """All ways, lazily. Each costs a few steps; what leads nowhere is bounded by the distinct partial sums."""
        yield from self._from(0, 0)

    def _from(self, at: int, bits: int) -> Iterator[Way]:
        if at == len(self._slots):
            yield tuple(self._rows)
            return
        if self._dead and self._state(at, bits) in self._dead:
            return
        slot, found = self._slots[at], False
        plain = not slot.suffix
        for row in self._options[at]:
            new_bits = bits | self._row_bits(row) if plain and self._required else bits
            if plain and (new_bits | self._possible[at + 1]) != self._all_bits:
                continue
            if not self._allowed(at, row) or not self._take(slot.amounts, row):
                continue
            self._rows.append(row)
            for way in self._from(at + 1, new_bits):
                found = True
                yield way
            self._rows.pop()
            for index, amount in slot.amounts:
                self._taken[index, row] -= amount
        if not found:
            self._dead.add(self._state(at, bits))

    # what limits a choice

    def _take(self, amounts: tuple[tuple[int, int], ...], row: int) -> bool:
        """Take amounts of a row; False, with nothing taken, if the sum is more than it can give."""
        taken = self._taken
        for index, amount in amounts:
            key = (index, row)
            if taken.get(key, 0) + amount > self._room(key):
                return False
        for index, amount in amounts:
            taken[index, row] = taken.get((index, row), 0) + amount
        return True

    def _room(self, key: tuple[int, int]) -> int:
        room = self._left.get(key)
        if room is None:
            room = self._left[key] = int(self._fleet.store.inventory["avail"][key])
        return room

    def _allowed(self, at: int, row: int) -> bool:
        slot = self._slots[at]
        if (
            self._isolate
            and slot.suffix
            and any(row == other and self._slots[place].suffix for place, other in enumerate(self._rows))
        ):
            return False
        if not self._nested:
            roots = self._fleet.store.row["root"]
            if any(row != other and roots[row] == roots[other] for other in self._rows):
                return False
        return all(self._keeps_subtree(slots, at, row) for slots in self._subtrees if at in slots)

    def _keeps_subtree(self, slots: frozenset[int], at: int, row: int) -> bool:
        """True if, of the slots that need a common ancestor among their providers, one can still be it."""
        chosen = [self._rows[place] for place in slots if place < at]
        common = self._ancestors(row).intersection(*map(self._ancestors, chosen))
        if row in common or not common.isdisjoint(chosen):
            return True
        return any(not common.isdisjoint(self._options[place]) for place in slots if place > at)

    def _ancestors(self, row: int) -> frozenset[int]:
        """A row and all above it."""
        known = self._ancestry.get(row)
        if known is None:
            parents, above, at = self._fleet.store.row["parent"], [row], int(self._fleet.store.row["parent"][row])
            while at >= 0:
                above.append(at)
                at = int(parents[at])
            known = self._ancestry[row] = frozenset(above)
        return known

    # traits that the unsuffixed group's providers must have together

    def _row_bits(self, row: int) -> int:
        bits = self._bits.get(row)
        if bits is None:
            number = int(self._fleet.store.row["class_of"][row])
            bits = self._bits[row] = sum(1 << place for place, mask in enumerate(self._required) if mask[number])
        return bits

    def _possible_bits(self) -> list[int]:
        """By slot: bits that it and later ones of the unsuffixed group can bring; all of them after the last."""
        possible = [self._all_bits] * (len(self._slots) + 1)
        if not self._required:
            return possible
        bits = 0
        for at in range(self._last_plain, -1, -1):
            if at == self._last_plain:
                possible[at + 1] = 0
            if not self._slots[at].suffix:
                for row in self._options[at]:
                    bits |= self._row_bits(row)
            possible[at] = bits
        return possible

    def _state(self, at: int, bits: int) -> object:
        """All that the rest of the search depends on."""
        taken = frozenset((key, amount) for key, amount in self._taken.items() if amount)
        rows: object = None
        if self._isolate:
            rows = frozenset(row for place, row in enumerate(self._rows) if self._slots[place].suffix)
        subtrees = tuple(frozenset(self._rows[place] for place in slots if place < at) for slots in self._subtrees)
        used = None if self._nested else frozenset(self._rows)
        return at, bits, taken, rows, subtrees, used
