"""The obvious twin of _shapes.pyx: a ranking of its own for each shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .fleet_py import Columns, checked
from .ranking.ranking_py import Ranking

AMOUNTS = 8


class Shapes:
    """Request shapes by number: a ranking, and the amounts that guests of this size need."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.rankings: list[Ranking] = []
        self._sizes: list[tuple[int, tuple[int, ...] | None]] = []
        self._shapes: list[tuple[int, int]] = []
        self.nbytes, self.with_rows = 0, list[int]()

    def __len__(self) -> int:
        return len(self._shapes)

    def add_ranking(self, ranking: Ranking) -> int:
        """Take in a ranking and return its number."""
        if ranking.columns is not self.columns:
            raise ValueError("a ranking of another fleet")
        self.rankings.append(ranking)
        return len(self.rankings) - 1

    def add_size(self, guest: int, amounts: Sequence[int] | None = None) -> int:
        """Take in a size and return its number."""
        if amounts is not None and len(amounts) > AMOUNTS:
            raise ValueError("too many amounts")
        self._sizes.append((guest, None if amounts is None else tuple(amounts)))
        return len(self._sizes) - 1

    def number(self, ranking: int, size: int) -> int:
        """The number of the shape of a ranking and a size, a new one if they have none."""
        if (ranking, size) in self._shapes:
            return self._shapes.index((ranking, size))
        if not 0 <= ranking < len(self.rankings) or not 0 <= size < len(self._sizes):
            raise IndexError("ranking or size out of range")
        amounts, chosen = self._sizes[size][1], self.rankings[ranking]
        if amounts is not None and len(amounts) != len(chosen.needs):
            raise ValueError("the amounts differ in number from what the ranking needs")
        if amounts is not None and not chosen.searches:
            raise ValueError("a ranking that searches no index has the amounts that it was made with")
        self._shapes.append((ranking, size))
        return len(self._shapes) - 1

    def forget(self) -> None:
        """Drop all shapes; rankings and sizes stay."""
        self._shapes.clear()

    def rankings_and_sizes(self, which: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """The number of the ranking and of the size of each shape, as two int32 arrays."""
        found = [self._shape(shape) for shape in checked(which, np.int32, 1).tolist()]
        return np.array([each[0] for each in found], np.int32), np.array([each[1] for each in found], np.int32)

    def _shape(self, shape: int) -> tuple[int, int]:
        if not 0 <= shape < len(self._shapes):
            raise IndexError("shape out of range")
        return self._shapes[shape]

    def ready(self, shape: int) -> tuple[Ranking, int]:
        """The ranking that decides for a shape, and the shape of the consumer that is added."""
        number, size = self._shape(shape)
        guest, amounts = self._sizes[size]
        ranking = self.rankings[number]
        if amounts is None:
            return ranking, guest
        needs = [
            (need.resource, amount, need.stage, need.units) for need, amount in zip(ranking.needs, amounts, strict=True)
        ]
        resized = ranking.resized(needs)
        assert resized is not None
        return resized, guest
