import numpy as np
import numpy.typing as npt

def pack_decisions(
    labels: tuple[bytes, bytes, bytes, bytes, bytes],
    sequences: npt.NDArray[np.uint64],
    heads: list[bytes],
    places: list[bytes],
    amounts: list[bytes],
    hosts: list[str],
    nodes: list[str],
    uuids: npt.NDArray[np.uint64],
    providers: npt.NDArray[np.uint64],
    weights: npt.NDArray[np.float64],
    seeds: npt.NDArray[np.uint64],
) -> list[bytes]: ...
