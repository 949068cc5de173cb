from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._fleet import Columns

Masks = npt.NDArray[np.uint8] | None
Slot = tuple[Sequence[tuple[int, int, bool]], Masks, Masks, Masks, int, bool, bool, int]

class TreeCounts:
    """A query on the trees of a fleet, answered by counts."""

    def __init__(
        self,
        columns: Columns,
        root: npt.NDArray[np.int32],
        tree_of: npt.NDArray[np.int32],
        rows: npt.NDArray[np.int32],
        starts: npt.NDArray[np.int64],
        unsure: npt.NDArray[np.uint8] | None,
        slots: Sequence[Slot],
        roots: Masks = None,
        required: Sequence[npt.NDArray[np.uint8]] = (),
    ) -> None: ...
    def having(self, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]: ...
    def update(self, known: npt.NDArray[Any], changed: npt.NDArray[np.int32]) -> list[int] | None: ...
    def first(self, row: int) -> tuple[int, list[int] | None]: ...
