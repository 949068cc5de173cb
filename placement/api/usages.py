"""What the consumers of a project hold together, by resource class and by consumer type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..fleet.fleet import Fleet
from .allocations import INCOMPLETE, INSTANCE
from .answers import TypeUsage
from .names import class_rank

UNTYPED: Final = "unknown"
"""How the type of consumers without one is called."""
ALL: Final = "all"
"""The type that stands for all consumers."""


def of_project(fleet: Fleet, project_id: str, user_id: str | None) -> dict[str, int]:
    """See `PlacementModel.usages`."""
    ids, shapes = _consumers(fleet, project_id, user_id)
    return _total(fleet, ids, shapes)


def by_type(fleet: Fleet, project_id: str, user_id: str | None, consumer_type: str | None) -> dict[str, TypeUsage]:
    """See `PlacementModel.usages_by_type`."""
    ids, shapes = _consumers(fleet, project_id, user_id)
    if consumer_type == ALL:
        groups = {ALL: np.ones(len(ids), bool)} if len(ids) else {}
    else:
        notes = fleet._consumers.notes
        types = np.array([(notes[i].consumer_type or UNTYPED) if i in notes else INSTANCE for i in ids.tolist()])
        wanted = sorted(set(types.tolist())) if consumer_type is None else [consumer_type]
        groups = {name: types == name for name in wanted}
    return {
        name: TypeUsage(consumer_count=int(mask.sum()), usages=_total(fleet, ids[mask], shapes[mask]))
        for name, mask in groups.items()
        if mask.any()
    }


def _consumers(fleet: Fleet, project_id: str, user_id: str | None) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ids and shapes of the consumers that hold allocations."""
    projects = [fleet._projects.ids.get(name) for name in _names(project_id)]
    found = [fleet._kernel.consumers_of(project) for project in projects if project is not None]
    if not found:
        return np.empty(0, np.int32), np.empty(0, np.int32)
    ids, shapes, users = (np.concatenate(columns) for columns in zip(*found, strict=True))
    mask = shapes >= 0
    if user_id is not None:
        mask &= np.isin(users, [fleet._users.ids.get(name, -1) for name in _names(user_id)])
    return ids[mask], shapes[mask]


def _names(shown: str) -> tuple[str, ...]:
    """What a project or user that is shown may be called here: one without a name is shown as INCOMPLETE."""
    return (shown, "") if shown == INCOMPLETE else (shown,)


def _total(fleet: Fleet, ids: NDArray[np.int32], shapes: NDArray[np.int32]) -> dict[str, int]:
    held: Counter[int] = Counter()
    for shape, count in zip(*(found.tolist() for found in np.unique(shapes, return_counts=True)), strict=True):
        classes, amounts, *_ = fleet._kernel.shape(shape)
        _add(held, ((index, amount * count) for index, amount in zip(classes, amounts, strict=True)))
    for consumer in ids.tolist() if fleet._extras else ():
        if consumer in fleet._extras:
            _add(held, ((index, amount) for _, index, amount in fleet._extras[consumer].elsewhere))
    names = sorted(held, key=lambda index: class_rank(fleet, fleet.resource_classes[index]))
    return {fleet.resource_classes[index]: held[index] for index in names}


def _add(held: Counter[int], amounts: Iterable[tuple[int, int]]) -> None:
    for index, amount in amounts:
        held[index] += amount
