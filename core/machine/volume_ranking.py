"""The question which of some storage pools are best for a volume: names and weights, nothing is charged."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..storage_commands import AskedVolume
from .question import Query
from .ranking import Names
from .state import ServiceState
from .volumes import prepared


class RankVolume(Query, frozen=True):
    """Pools that pass for a volume, best first, with their weights; of all, or of those named in ``pools`` (their ids,
    or ``host@backend#pool`` where a cluster has another name), which are then weighed among each other. At most
    ``limit`` (0: all). For readers of the cloud."""

    request: AskedVolume
    pools: Names | None = None
    limit: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 100


class WeighedPool(msgspec.Struct, frozen=True):
    """A pool that passes, and its weight."""

    backend_id: str
    weight: float


class VolumeRanking(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to RankVolume. ``passed``: how many pools pass. Of pools that were named, ``refused`` has the stage
    that removed each, and ``unknown`` the names that no pool has; names are those of the question."""

    pools: list[WeighedPool]
    passed: int
    refused: dict[str, str] = {}
    unknown: list[str] = []


def rank_volume(state: ServiceState, user: str, query: RankVolume) -> VolumeRanking:
    """The answer. O(pools), and O(named pools * log of them)."""
    storage = state.storage
    pools = storage.pools
    request, _ = prepared(state, query.request, pools.now)
    named: dict[int, str] | None = None
    unknown = []
    if query.pools is not None:
        named, by_host = {}, dict[str, int]()
        if any(name not in pools.row_of for name in query.pools):
            by_host = {pools.fact(row).host: row for row in pools.row_of.values()}
        for name in query.pools:
            row = pools.row_of.get(name, by_host.get(name, -1))
            if row < 0:
                unknown.append(name)
            else:
                named.setdefault(row, name)
    backends = None if named is None else [pools.fact(row).backend_id for row in named]
    ranking = storage.rank(request, backends=backends)
    best = ranking.rows if not query.limit else ranking.rows[: query.limit]
    names = {} if named is None else named
    found = [
        WeighedPool(names.get(row, pools.fact(row).backend_id), weight)
        for row, weight in zip(best.tolist(), ranking.weights.tolist(), strict=False)
    ]
    refused = {
        names[row]: ranking.stages[stage]
        for row, stage in zip(ranking.considered.tolist(), ranking.stage_of.tolist(), strict=True)
        if stage >= 0 and row in names
    }
    return VolumeRanking(pools=found, passed=len(ranking.rows), refused=refused, unknown=unknown)
