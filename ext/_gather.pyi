from typing import Any

import numpy as np
import numpy.typing as npt

def gather(
    requests: list[Any],
    first: int,
    kind: type[Any],
    specs: dict[Any, Any],
    projects: dict[str, int],
    users: dict[str, int],
    groups: dict[str, int],
    which: npt.NDArray[np.int32],
    uuids: npt.NDArray[np.uint64],
    project: npt.NDArray[np.int32],
    user: npt.NDArray[np.int32],
    group: npt.NDArray[np.int32],
    times: npt.NDArray[np.float64],
) -> int: ...
