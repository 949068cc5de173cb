import numpy as np
import numpy.typing as npt

Sizes = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]

def fit_in_turn(sizes: Sizes, capacity: Sizes, order: Numbers, norm: int) -> Numbers: ...
def fill_in_turn(sizes: Sizes, capacity: Sizes, order: Numbers, rule: int) -> Numbers: ...
def eliminate(
    sizes: Sizes, capacity: Sizes, bins: Numbers, count: int, steps: int, stirs: int, seed: int
) -> tuple[Numbers | None, int]: ...
