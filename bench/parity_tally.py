"""How a comparison with recorded answers went."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """How the comparison went: ``differences`` are (case id, what differs), ``known`` the same for documented ones."""

    cases: int = 0
    equal: int = 0
    differences: list[tuple[str, str]] = field(default_factory=list)
    known: list[tuple[str, str]] = field(default_factory=list)
