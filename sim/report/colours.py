"""The colours of charts: one of each policy, wherever it appears, also in different reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..run.policies import ABOUT
from .curves import Chart

COLOURS: Final = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
MARK: Final = "#dc2626"
LIMIT: Final = "#111827"
OUTAGE: Final = "#f59e0b"
DASHES: Final = ("solid", "dashed", "dotted", "dashdot")


class Palette:
    """The colours of a report's charts."""

    def __init__(self, charts: Sequence[Chart]) -> None:
        ways = [way for chart in charts for way in [c.way for c in chart.curves] + [p.way for p in chart.points] if way]
        known, free = list(ABOUT), list(COLOURS)
        self._of_way: dict[str, str] = {}
        # Policies of Hostler have colours of their own, and others what these leave; the rest is in turn.
        for way in sorted(dict.fromkeys(ways), key=lambda way: known.index(way) if way in known else len(known)):
            own = COLOURS[known.index(way) % len(COLOURS)] if way in known else ""
            free = free or list(COLOURS)
            self._of_way[way] = own if own in free else free[0]
            free.remove(self._of_way[way])

    def styles(self, ways: Sequence[str]) -> list[tuple[str, str]]:
        """The colour and the dash of curves of one chart: that of their policy, told apart by dashes where several are
        of one."""
        found, seen = [], dict.fromkeys(ways, 0)
        for number, way in enumerate(ways):
            colour = self._of_way.get(way, COLOURS[number % len(COLOURS)])
            found.append((colour, DASHES[seen[way] % len(DASHES)] if way else DASHES[0]))
            seen[way] += 1
        return found
