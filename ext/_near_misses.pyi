from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._fleet import Columns

HIDDEN: int

class Rules:
    """What judges rows, each rule under the number of its stage."""

    def __init__(
        self,
        columns: Columns,
        class_words: npt.NDArray[np.int64],
        needs: Sequence[tuple[int, int, int, bool]] = (),
        bounds: Sequence[tuple[int, float, float, int]] = (),
        masks: Sequence[tuple[npt.NDArray[Any], int]] = (),
        considered: npt.NDArray[np.uint8] | None = None,
        split: tuple[int, npt.NDArray[np.uint8], int, int, float, float] | None = None,
    ) -> None: ...
    def set_time(self, now: float, within: float, beats: int) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def find(
        self,
    ) -> tuple[int, int, int, int, dict[int, tuple[int, int]], dict[int, tuple[tuple[int, int, int], ...]]]: ...
    def could_pass(self) -> bool: ...
