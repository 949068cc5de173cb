import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Bits = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

def score(
    policy: int,
    largest_cpu: float,
    largest_gpu: float,
    typical: Int64,
    share: Floats,
    typical_allowed: Bits,
    rows: Int32,
    cpu: Int64,
    idle: Int32,
    tags: Int32,
    shape: tuple[int, int, int],
    key: int,
) -> tuple[Floats, UInt64]: ...
def fragmentation(typical: Int64, share: Floats, typical_allowed: Bits, cpu: Int64, idle: Int32) -> Floats: ...
def place(
    policy: int,
    largest_cpu: float,
    largest_gpu: float,
    typical: Int64,
    share: Floats,
    typical_allowed: Bits,
    rows: Int32,
    cpu: Int64,
    room: Int64,
    idle: Int32,
    tags: Int32,
    allowed: Bits,
    shapes: Int64,
    needs: Int64,
    asked_of: Int32,
    keys: UInt64,
) -> tuple[Int32, UInt64, Floats]: ...
