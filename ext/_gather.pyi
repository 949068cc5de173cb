from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ._shapes import Shapes

class SpecTable:
    """Numbers of request shapes by spec."""

    @property
    def shapes(self) -> Shapes: ...
    @property
    def specs(self) -> dict[Any, Any]: ...
    @property
    def flavors(self) -> list[dict[Any, int]]: ...
    @property
    def images(self) -> list[dict[Any, int]]: ...
    @property
    def zones(self) -> list[dict[Any, int]]: ...
    @property
    def families(self) -> list[dict[int, int]]: ...
    def __init__(
        self, shapes: Shapes, kind: type[Any], others: tuple[str, ...], missing: Callable[[Any], int] | None = None
    ) -> None: ...
    def forget_objects(self) -> None: ...
    def find(self, spec: Any, project: Any = "") -> int: ...

def gather(
    requests: list[Any],
    first: int,
    kind: type[Any],
    table: SpecTable,
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
