from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._fleet import Columns
from ._host_scores import HostScores
from ._provider_trees import TreeCounts
from ._shapes import Shapes
from .ranking._ranking import Ranking

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Bits = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

class NestedShape:
    """A request that takes of nested providers, on a fleet whose providers stay as they are."""

    seen: int
    asked: int
    soon: int
    def __init__(
        self,
        ranking: Ranking | None,
        root: Int32,
        guest: int,
        seen: int,
        *,
        counts: TreeCounts | None = None,
        known: Bits | None = None,
        on_root: Bits | None = None,
        scores: HostScores | None = None,
        values: Floats | None = None,
        device_slot: int = -1,
        kinds: Int32 | None = None,
        kind: int = -1,
        searched: Ranking | None = None,
        stage: int = 0,
        patience: int = 0,
        often: int = 0,
        asked: int = -1,
        soon: int = 0,
    ) -> None: ...

def place(
    columns: Columns,
    shapes: Shapes,
    nested: Sequence[NestedShape | None],
    nested_from: int,
    marks: Bits,
    which: Int32,
    uuids: UInt64,
    projects: Int32,
    users: Int32,
    building: bool,
    seed: int,
    sequence: int,
    out_row: Int32,
    out_consumer: Int32,
    out_score: Floats,
    out_counts: Int64,
    out_way: Int32,
    kinds: Int32 | None = None,
) -> tuple[int, bool]: ...
