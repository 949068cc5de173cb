"""The pure-Python twin of _gather.pyx."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .shapes_py import Shapes
from .tables_py import parse_uuid


class SpecTable:
    """Numbers of request shapes by spec: by its parts where each part alone says what it asks for, else by its content;
    see the kernel."""

    def __init__(
        self, shapes: Shapes, kind: type[Any], others: tuple[str, ...], missing: Callable[[Any], int] | None = None
    ) -> None:
        self.shapes, self._kind, self._others, self._missing = shapes, kind, others, missing
        self.specs: dict[Any, Any] = {}
        self.flavors, self.images, self.zones, self.families = ([dict[Any, int]() for _ in range(6)] for _ in range(4))

    def forget_objects(self) -> None:
        """Look at every spec again; nothing else is kept here."""

    def find(self, spec: Any, project: Any = "") -> int:
        """The shape of a spec, -1 if it is not known."""
        number = self._by_parts(spec) if self._missing is not None and type(spec) is self._kind else -1
        if number >= 0:
            return number
        try:
            found = self.specs.get(spec, -1)
            return int(found.get(project, -1) if isinstance(found, dict) else found)
        except TypeError:
            return -1

    def _by_parts(self, spec: Any) -> int:
        if any(getattr(spec, name) for name in self._others):
            return -1
        if type(spec.is_bfv) is not bool or not (spec.prepare is None or type(spec.prepare) is bool):
            return -1
        way = 3 * spec.is_bfv + (0 if spec.prepare is None else 1 + spec.prepare)
        try:
            flavor = self.flavors[way].get(spec.flavor)
            image = self.images[way].get(spec.image)
            zone = self.zones[way].get(spec.availability_zone)
        except TypeError:
            flavor = image = zone = None
        if -1 in (flavor, image, zone):
            return -1
        assert self._missing is not None
        if flavor is None or image is None or zone is None:
            return self._missing(spec)
        family = self.families[way].get((flavor >> 32) << 40 | image << 20 | zone)
        if family is None:
            return self._missing(spec)
        return -1 if family < 0 else self.shapes.number(family, flavor & 0xFFFFFFFF)


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
        numbers = (
            table.find(request.spec, request.project_id),
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
