import numpy as np
import numpy.typing as npt

from ._fleet import Columns

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Bits = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

class HostScores:
    """Scores of hosts for one request, read from the columns as they are."""

    def __init__(
        self,
        columns: Columns,
        policy: int,
        largest_cpu: float,
        largest_gpu: float,
        typical: Int64,
        share: Floats,
        allowed: Bits,
        below: Int32,
        device: int,
        cpu: int,
        cpu_milli: int,
        shape: tuple[int, int, int],
        key: int = 0,
        beside: HostScores | None = None,
    ) -> None: ...
    def of(self, rows: Int32, tags: Int32 | None = None) -> tuple[Floats, UInt64]: ...
