"""One implementation of the kernels, with columns, rankings and request shapes of its own, to compare with another."""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from .world import Arrays, Signature, int32

RequestShape: TypeAlias = tuple[int, int, list[int] | None]
"""A ranking, the shape of the consumer, and the amounts that are needed; None: those of the ranking."""


class Side:
    """One implementation: its columns, its own copy of the arrays, its rankings."""

    def __init__(
        self, fleet: ModuleType, ranking: ModuleType, batch: ModuleType, shapes: ModuleType, arrays: Arrays
    ) -> None:
        self.ranking, self.batch, self.shapes = ranking, batch, shapes
        self.columns = fleet.Columns()
        self.rankings: list[Any] = []
        self.table = shapes.Shapes(self.columns)
        self.sizes: dict[tuple[int, ...], int] = {}
        self.attach(arrays)
        self.index = ranking.HostIndex(self.columns, counted_from=0)

    def attach(self, arrays: Arrays) -> None:
        self.arrays = {name: array.copy() for name, array in arrays.items()}
        self.columns.attach(**self.arrays)

    def make(self, signature: Signature, number: int) -> Any:
        """A ranking; two of three search the index that they share."""
        index = self.index if number % 3 else None
        return self.ranking.Ranking(self.columns, index=index, **signature.arguments)

    def number(self, ranking: int, guest: int, amounts: list[int] | None) -> int:
        """A request shape, in a table that is made anew when a ranking was."""
        if [id(each) for each in self.table.rankings] != [id(each) for each in self.rankings]:
            self.table, self.sizes = self.shapes.Shapes(self.columns), {}
            for each in self.rankings:
                self.table.add_ranking(each)
        key = (guest, *(amounts or ()))
        if key not in self.sizes:
            self.sizes[key] = self.table.add_size(guest, amounts)
        return int(self.table.number(ranking, self.sizes[key]))

    def place(
        self,
        guests: list[RequestShape],
        uuids: Any,
        groups: Any,
        building: bool,
        seed: int,
        width: int,
    ) -> tuple[Any, ...]:
        n, which = len(guests), int32([self.number(*guest) for guest in guests])
        rows, ids, scores = np.full(n, 9, np.int32), np.full(n, 9, np.int32), np.full(n, 9.0)
        counts = np.full((n, width), 9, np.int64)
        owners = np.arange(n, dtype=np.int32)
        columns = (which, uuids, owners, owners, groups)
        done = self.batch.place(
            self.columns, self.table, *columns, building, seed, seed % 97, rows, ids, scores, counts
        )
        return done, rows, ids, scores, counts

    def place_alike(self, ranking: int, shape: int, uuids: Any, building: bool, again: Any) -> tuple[Any, ...]:
        made, n = self.rankings[ranking], len(uuids)
        rows, ids, scores = np.full(n, 9, np.int32), np.full(n, 9, np.int32), np.full(n, 9.0)
        parts = np.zeros((n, len(made.row_parts(0)), 3))
        outs = (rows, ids, scores, parts)
        done = self.batch.place_alike(self.columns, made, shape, uuids, 3, 4, building, again, *outs)
        return done, *(out[:done].tolist() for out in outs)

    def find(self, uuids: Any) -> Any:
        found = np.zeros(len(uuids), np.int32)
        self.batch.find(self.columns, uuids, found)
        return found
