from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._fleet import Columns
from ._shapes import Shapes
from .ranking import Ranking

def place(
    columns: Columns,
    shapes: Shapes,
    which: npt.NDArray[np.int32],
    uuids: npt.NDArray[np.uint64],
    projects: npt.NDArray[np.int32],
    users: npt.NDArray[np.int32],
    groups: npt.NDArray[np.int32],
    building: bool,
    seed: int,
    sequence: int,
    out_row: npt.NDArray[np.int32],
    out_consumer: npt.NDArray[np.int32],
    out_score: npt.NDArray[np.float64],
    out_counts: npt.NDArray[np.int64],
) -> int:
    """Place guests one after the other; returns how many, fewer than all if the next one's uuid exists."""

def place_alike(
    columns: Columns,
    ranking: Ranking,
    shape: int,
    uuids: npt.NDArray[np.uint64],
    project: int,
    user: int,
    building: bool,
    again: Sequence[tuple[int, float, float]],
    out_row: npt.NDArray[np.int32],
    out_consumer: npt.NDArray[np.int32],
    out_score: npt.NDArray[np.float64],
    out_parts: npt.NDArray[np.float64],
) -> int:
    """Place guests of one shape one after the other; returns how many, fewer than all where a search may not be what
    decides."""

def release(columns: Columns, consumers: npt.NDArray[np.int32]) -> None:
    """Drop distinct live consumers in order, or none of them."""

def find(columns: Columns, uuids: npt.NDArray[np.uint64], out: npt.NDArray[np.int32]) -> None:
    """Consumer ids of ``uuids``, -1 where there is none."""
