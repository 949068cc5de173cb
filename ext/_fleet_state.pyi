from typing import Any

import numpy as np
import numpy.typing as npt

from ._fleet import Columns
from ._uuids import UuidTable

def consumers(columns: Columns) -> dict[str, npt.NDArray[Any]]: ...
def set_consumers(
    columns: Columns,
    *,
    uuid: npt.NDArray[np.uint64],
    row: npt.NDArray[np.int32],
    shape: npt.NDArray[np.int32],
    project: npt.NDArray[np.int32],
    user: npt.NDArray[np.int32],
    group: npt.NDArray[np.int32],
    flags: npt.NDArray[np.int32],
    generation: npt.NDArray[np.int32],
    next: npt.NDArray[np.int32],
    free: npt.NDArray[np.int32],
) -> None: ...
def relist(columns: Columns, consumer: int, before: int) -> None: ...
def listed_before(columns: Columns, consumer: int) -> int: ...
def consumers_on_rows(columns: Columns, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]: ...
def find_uuids(table: UuidTable, uuids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]: ...
def discard_uuids(table: UuidTable, uuids: npt.NDArray[np.uint64]) -> None: ...
def used_ids(columns: Columns, shapes: int, projects: int, users: int) -> list[npt.NDArray[np.bool_]]: ...
def renumber(
    columns: Columns,
    shapes: npt.NDArray[np.int32],
    projects: npt.NDArray[np.int32],
    users: npt.NDArray[np.int32],
) -> None: ...
