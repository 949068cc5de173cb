from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._ranking import Ranking

def best_beside(
    ranking: Ranking,
    without: npt.NDArray[np.int32],
    beside: npt.NDArray[np.int32],
    members: npt.NDArray[np.float64] | None = None,
    wanted: int = 1,
    seed: int = 0,
) -> tuple[list[int], list[float]]: ...
def set_aside(
    ranking: Ranking, masks: Sequence[tuple[npt.NDArray[Any], int]], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]: ...
