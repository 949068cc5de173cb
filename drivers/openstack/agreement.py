"""Whether a stock scheduler's choice is one that Hostler could have made: equal up to ties. Knows no service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

TOLERANCE: Final = 1e-9
"""Weights that differ by less, relative to the larger one or to 1, are equal: stock adds its weights in the order in
which it found its weighers."""

Result = Literal["same", "tie", "both_refused", "other", "refused_here", "refused_there", "error", "dropped"]
"""``same``: the same first choice. ``tie``: another one of equal weight. ``both_refused``: neither found one.
``other``: stock chose one of less weight here. ``refused_here``: Hostler refuses stock's choice. ``refused_there``:
stock refused a request that Hostler would place. ``error``: Hostler failed. ``dropped``: not compared, as too many
waited."""
AGREE: Final[frozenset[str]] = frozenset({"same", "tie", "both_refused"})


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison; ``best`` and ``chosen``: Hostler's choice and stock's, None where there is none."""

    result: Result
    best: str | None
    chosen: str | None

    @property
    def agrees(self) -> bool:
        """Whether both answers are equal up to ties."""
        return self.result in AGREE


def compare(weights: Mapping[str, float], chosen: str | None, *, among: int = 1) -> Compared:
    """Compare stock's first choice with Hostler's. ``weights``: of the candidates that pass here, best first.
    ``among``: the number of best ones that stock picks one of at random (``host_subset_size``). O(among)."""
    best = next(iter(weights), None)
    if chosen is None:
        return Compared("both_refused" if best is None else "refused_there", best, None)
    if chosen not in weights:
        return Compared("refused_here", best, chosen)
    if chosen == best:
        return Compared("same", best, chosen)
    last = list(weights.values())[min(among, len(weights)) - 1]
    weight = weights[chosen]
    equal = weight >= last - TOLERANCE * max(1.0, abs(last), abs(weight))
    return Compared("tie" if equal else "other", best, chosen)
