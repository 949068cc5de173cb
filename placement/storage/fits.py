"""How many more volumes of one kind fit, pool by pool, until capacity or a filter says no."""

from __future__ import annotations

import numpy as np

from ..decide.fits import Fit
from ..types.errors import InvalidValue
from .context import VolumeContext
from .placement import place
from .pools.filters.base import FACTS
from .pools.filters.capacity import CapacityFilter
from .pools.request import VolumeRequest


def fits(context: VolumeContext, request: VolumeRequest, limit: int | None) -> Fit:
    """See ``VolumeEngine.fits``. Where capacity is all that changes as volumes come, each pool is counted by itself;
    else volumes are placed on a fork until one is refused."""
    filter_properties = context.filter_properties(request, retry=None)
    rules = [rule for rule in context.policy.filters if rule.applies(filter_properties)]
    capacity = any(isinstance(rule, CapacityFilter) for rule in rules)
    if limit is None and (not capacity or not request.spec.size_gb or _endless(context, request)):
        why = "they have no size, the capacity of a pool is not a number, or no filter checks it"
        problem = f"the number of volumes is unbounded: {why}"
        raise InvalidValue(problem, field="limit", hint="give a limit")
    if capacity and all(rule.reads == FACTS or isinstance(rule, CapacityFilter) for rule in rules):
        return _counted(context, request, limit)
    return _tried(context, request, limit)


def _endless(context: VolumeContext, request: VolumeRequest) -> bool:
    ranking = context.rank(request)
    room = context.pools.columns[CapacityFilter.column(context.filter_properties(request))]
    return bool(np.isinf(room[ranking.rows]).any())


def _counted(context: VolumeContext, request: VolumeRequest, limit: int | None) -> Fit:
    size, pools = request.spec.size_gb, context.pools
    column = CapacityFilter.column(context.filter_properties(request))
    by_pool: dict[str, int] = {}
    left = limit
    trial = context.fork()
    for row in context.rank(request).rows.tolist():
        count = _room(trial, row, column, size, left)
        if count:
            by_pool[pools.fact(row).backend_id] = count
            left = None if left is None else left - count
    context.fleet  # noqa: B018  # brings the state back from the fork
    return Fit(sum(by_pool.values()), by_pool)


def _room(trial: VolumeContext, row: int, column: str, size: int, limit: int | None) -> int:
    """How many volumes go into a pool: about its room, and then one by one, as sums of doubles may differ."""
    pools = trial.pools
    room = float(pools.columns[column][row])
    if np.isinf(room) or not size:
        return (limit or 0) if room > 0 or (not size and room == 0) else 0
    count = max(int(room) // size - 1, 0)
    if limit is not None:
        count = min(count, limit)
    pools.consume(row, count * size)
    while (limit is None or count < limit) and pools.columns[column][row] >= size:
        pools.consume(row, size)
        count += 1
    return count


def _tried(context: VolumeContext, request: VolumeRequest, limit: int | None) -> Fit:
    trial = context.fork()
    by_pool: dict[str, int] = {}
    total = 0
    while limit is None or total < limit:
        decision = place(trial, request.with_changes(volume_id=None))
        if decision.selection is None:
            break
        name = decision.selection.backend_id
        by_pool[name] = by_pool.get(name, 0) + 1
        total += 1
    context.fleet  # noqa: B018  # brings the state back from the fork
    return Fit(total, by_pool)
