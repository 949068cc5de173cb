"""GET /resource_providers with its filters: each provider is judged by itself, all of them at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..candidates.slots import Rows, prepare, wish_of
from ..fleet.fleet import Fleet
from ..fleet.provider_index import Mask
from ..request.placement_query import PlacementQuery, RequestGroup
from ..types.errors import HostlerError
from .answers import Provider
from .names import check_known_traits, check_resources
from .providers import find, show


def providers(fleet: Fleet, name: str | None, uuid: str | None, group: RequestGroup | None) -> list[Provider]:
    """See `PlacementModel.providers`."""
    rows = np.sort(fleet._index.layout().rows)
    if name is not None:
        rows = rows[rows == fleet._names.find(name)]
    if uuid is not None:
        rows = rows[rows == find(fleet, uuid)]
    if group is not None:
        rows = rows[_able(fleet, rows, group)] if _names_are_known(fleet, group) else rows[:0]
    return [show(fleet, row) for row in rows.tolist()]


def _names_are_known(fleet: Fleet, group: RequestGroup) -> bool:
    """BadRequest for a name that is not known, but False where the real service does not come to read it: it looks for
    the tree, required traits, forbidden ones, aggregates and resources in this order, until none is found."""
    if group.in_tree is not None and find(fleet, group.in_tree) < 0:
        return False
    check_known_traits(fleet, group.required.union(*group.any_of))
    before = RequestGroup(required=group.required, any_of=group.any_of)
    try:
        check_known_traits(fleet, group.forbidden)
        before = replace(before, member_of=group.member_of)
        check_resources(fleet, group.resources)
    except HostlerError:
        everywhere = np.sort(fleet._index.layout().rows)
        if before != RequestGroup() and not _able(fleet, everywhere, before).any():
            return False
        raise
    return True


def _able(fleet: Fleet, rows: NDArray[np.int32], group: RequestGroup) -> Mask:
    """Which of the rows meet a group, as one of its own would have to."""
    prepared = prepare(fleet, PlacementQuery(groups=(replace(group, suffix="_"),)))
    if prepared.hopeless and group.resources:
        return np.zeros(len(rows), bool)
    wish = wish_of(fleet, replace(group, suffix="_"))
    if wish.hopeless:
        return np.zeros(len(rows), bool)
    return Rows(fleet, rows, rows, fleet._index.layout().tree_of[rows], None).able(prepared.slots[0], wish)
