import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

def first_fit(sizes: Int64, capacity: Int64, order: Int32) -> Int32: ...
def bin_centric(sizes: Int64, capacity: Int64, weights: Floats, by_norm: bool, bonus: Floats) -> Int32: ...
def empty_a_bin(sizes: Int64, capacity: Int64, bin_of: Int32, bins: int, moves: int, seed: int) -> Int32 | None: ...
