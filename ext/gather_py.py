"""The pure-Python twin of _gather.pyx."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .tables_py import parse_uuid


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
) -> int:
    """Fill the columns from ``requests[first:]`` and return the position of the first request that needs a closer
    look."""
    n = len(requests)
    if (
        first < 0
        or any(len(column) != n for column in (which, uuids, project, user, group, times))
        or uuids.shape[1] != 2
    ):
        raise ValueError("batch columns differ in length")
    for i in range(first, n):
        request = requests[i]
        if type(request) is not kind or not _is_plain(request):
            return i
        number = specs.get(request.spec, -1)
        numbers = (
            number.get(request.project_id, -1) if isinstance(number, dict) else number,
            projects.get(request.project_id, -1),
            users.get(request.user_id, -1),
            0 if request.server_group is None else groups.get(request.server_group, -1),
        )
        if min(numbers) < 0:
            return i
        if request.instance_uuids:
            try:
                uuids[i] = parse_uuid(request.instance_uuids[0])
            except ValueError:
                return i
        times[i] = math.nan if request.now is None else request.now
        which[i], project[i], user[i] = numbers[:3]
        group[i] = -1 if request.server_group is None else numbers[3]
    return n


def _is_plain(request: Any) -> bool:
    """One uuid or none, no alternates, a finite time or none, and texts where texts belong."""
    texts = (request.project_id, request.user_id, *(() if request.server_group is None else (request.server_group,)))
    uuids = request.instance_uuids
    if (
        not all(type(text) is str for text in texts)
        or type(uuids) is not tuple
        or len(uuids) > 1
        or not all(type(uuid) is str for uuid in uuids)
    ):
        return False
    timely = request.now is None or (type(request.now) is float and math.isfinite(request.now))
    return timely and type(request.alternates) is int and request.alternates == 0
