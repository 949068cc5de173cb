"""What one call of the kernel decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types.request import Request


@dataclass(slots=True)
class Run:
    """Consecutive requests that one kernel call decided; the first is number ``first`` of all, and gets number
    ``sequence`` of the engine's decisions. ``stage_names`` by number in ``rankings``, ``resources`` (amounts by
    resource class index) by number in ``sizes``."""

    first: int
    sequence: int
    requests: Sequence[Request]
    stage_names: Sequence[tuple[str, ...]]
    resources: Sequence[Mapping[int, int]]
    rankings: NDArray[np.int32]
    sizes: NDArray[np.int32]
    uuids: NDArray[np.uint64]
    rows: NDArray[np.int32]
    scores: NDArray[np.float64]
    counts: NDArray[np.int64]
