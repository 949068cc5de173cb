"""The ways to fill a query's slots within one tree and the sharing providers that serve it, found depth first.

The last slot varies fastest; each slot tries the tree's providers in the tree's order, then the sharing ones. A partial
choice that cannot be completed is abandoned, and equivalent ones are not tried again (``memo``); a search with many
dead ends prunes ahead (``pruning``), and every search is bounded (`Effort`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..fleet.fleet import Fleet
from .memo import States, Taken
from .pruning import Bounds
from .slots import Prepared

Way = tuple[int, ...]
"""The row that fills each slot."""
PATIENCE = 16
"""Dead ends in a tree before the search looks ahead at each step."""
FREE_STEPS = 256
"""Of each tree; only those beyond count as effort."""
PORTION = 256
"""Steps that a tree takes of the effort at once."""


class SearchTakesLong(Exception):
    """A search exceeded its caller's ``patience``; it has changed nothing."""


@dataclass(slots=True)
class Effort:
    """Maximum steps (rows tried) of the search in all trees together beyond the free ones; None: no limit. ``spent``:
    the search of some tree was cut short. ``patience``: steps after which SearchTakesLong is raised, where free steps
    count a quarter, since they take less time; ``walked``: approximate steps taken."""

    left: int | None = None
    spent: bool = False
    patience: int | None = None
    walked: int = 0

    def walk(self, steps: int) -> None:
        """Count steps. SearchTakesLong."""
        self.walked += steps
        if self.patience is not None and self.walked > self.patience:
            raise SearchTakesLong

    def more(self) -> int:
        """Steps that a tree may still take; 0 if none are left. SearchTakesLong."""
        self.walk(PORTION)
        if self.left is None:
            return PORTION
        portion = min(self.left, PORTION)
        self.left -= portion
        self.spent |= portion == 0
        return portion


class TreeSearch:
    """One search of one tree. ``options``: by slot, the rows that can fill it by themselves."""

    def __init__(
        self,
        fleet: Fleet,
        query: Prepared,
        options: Sequence[list[int]],
        *,
        nested: bool = True,
        effort: Effort | None = None,
    ) -> None:
        """``nested`` False: no two providers of one tree."""
        self._effort = effort or Effort()
        self._fleet, self._slots, self._options = fleet, query.slots, options
        self._isolate, self._nested, self._subtrees = query.isolate, nested, query.subtrees
        self._left: list[int] = []
        self._choices = self._with_amounts()
        self._rows: list[int] = []
        self._amounts: list[Taken] = []
        self._ancestry: dict[int, frozenset[int]] = {}
        self._dead: set[object] = set()
        self._free = not query.isolate and nested and not query.subtrees
        self._bits: dict[int, int] = {}
        self._required = [mask for wish in query.wishes for mask in wish.required]
        self._all_bits = (1 << len(self._required)) - 1
        self._possible = self._possible_bits()
        self._states = States(query, self._choices, self._left, self._row_bits, self._ancestors, nested=nested)
        self._bounds = Bounds(query, self._choices, self._ancestors)

    def ways(self) -> Iterator[Way]:
        """All ways, lazily. Each costs a few steps; what leads nowhere is bounded by the distinct states, and by the
        effort: when that is spent the ways end."""
        left, rows, last = self._left, self._rows, len(self._slots) - 1
        if self._subtrees and self._bounds.open(0, rows, left) is None:
            return
        steps, allowed = 0, FREE_STEPS
        # One entry for each slot being filled: what is still to be tried, traits so far, whether a way was found.
        trying, bits, found = [iter(self._choices[0])], [0], [False]
        while trying:
            if steps > allowed:
                portion = self._effort.more()
                if not portion:
                    return
                allowed += portion
            at = len(rows)
            collective = bool(self._required) and not self._slots[at].suffix
            for row, amounts in trying[at]:
                steps += 1
                # The commonest dead end first: this runs for each step of each search.
                for place, amount in amounts:
                    if left[place] < amount:
                        break
                else:
                    if not (self._free or self._allowed(at, row)):
                        continue
                    after = bits[at] | self._row_bits(row) if collective else bits[at]
                    if collective and (after | self._possible[at + 1]) != self._all_bits:
                        continue
                    if at == last:
                        found[at] = True
                        yield (*rows, row)
                        continue
                    self._take(row, amounts)
                    if self._dead:
                        steps += len(left)  # what looking ahead costs
                        if not self._promising(at + 1, after):
                            self._give_back()
                            continue
                    trying.append(iter(self._choices[at + 1]))
                    bits.append(after)
                    found.append(False)
                    break
            else:
                if not found[at]:
                    self._dead.add(self._states.of(at, bits[at], rows, left))
                trying.pop()
                bits.pop()
                if found.pop() and found:
                    found[-1] = True
                if trying:
                    self._give_back()
        self._effort.walk(min(steps, FREE_STEPS) // 4)

    def _promising(self, at: int, bits: int) -> bool:
        """False if what is chosen is known to lead nowhere, or can be seen to."""
        state = self._states.of(at, bits, self._rows, self._left)
        if state in self._dead:
            return False
        if len(self._dead) < PATIENCE or self._bounds.open(at, self._rows, self._left) is not None:
            return True
        self._dead.add(state)
        return False

    def _take(self, row: int, amounts: Taken) -> None:
        for place, amount in amounts:
            self._left[place] -= amount
        self._rows.append(row)
        self._amounts.append(amounts)

    def _give_back(self) -> None:
        self._rows.pop()
        for place, amount in self._amounts.pop():
            self._left[place] += amount

    def _with_amounts(self) -> list[list[tuple[int, Taken]]]:
        """By slot and row: places in ``left`` and the amounts that the slot takes there. ``left`` is what each row has
        left of each class, at most its max_unit."""
        avail, places = self._fleet._store.inventory["avail"], dict[tuple[int, int], int]()
        choices: list[list[tuple[int, Taken]]] = []
        for slot, rows in zip(self._slots, self._options, strict=True):
            choices.append([])
            for row in rows:
                taken = []
                for index, amount in slot.amounts:
                    place = places.setdefault((index, row), len(places))
                    if place == len(self._left):
                        self._left.append(int(avail[index, row]))
                    taken.append((place, amount))
                choices[-1].append((row, tuple(taken)))
        return choices

    # what limits a choice

    def _allowed(self, at: int, row: int) -> bool:
        slot = self._slots[at]
        if (
            self._isolate
            and slot.suffix
            and any(row == other and self._slots[place].suffix for place, other in enumerate(self._rows))
        ):
            return False
        if not self._nested:
            roots = self._fleet._store.row["root"]
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
            parents, above, at = self._fleet._store.row["parent"], [row], int(self._fleet._store.row["parent"][row])
            while at >= 0:
                above.append(at)
                at = int(parents[at])
            known = self._ancestry[row] = frozenset(above)
        return known

    # traits that the unsuffixed group's providers must have together

    def _row_bits(self, row: int) -> int:
        bits = self._bits.get(row)
        if bits is None:
            number = int(self._fleet._store.row["class_of"][row])
            bits = self._bits[row] = sum(1 << place for place, mask in enumerate(self._required) if mask[number])
        return bits

    def _possible_bits(self) -> list[int]:
        """By slot: bits that it and later ones of the unsuffixed group can bring; all of them after the last."""
        possible, bits, last = [self._all_bits] * (len(self._slots) + 1), 0, True
        if not self._required:
            return possible
        for at in range(len(self._slots) - 1, -1, -1):
            if not self._slots[at].suffix:
                possible[at + 1] = 0 if last else possible[at + 1]
                last = False
                for row in self._options[at]:
                    bits |= self._row_bits(row)
            possible[at] = self._all_bits if last else bits
        return possible
