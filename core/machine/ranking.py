"""The question which of some hosts are best for a request: names and scores, nothing is claimed."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from .. import engine_commands as p
from .question import Query
from .state import ServiceState

Names = Annotated[tuple[str, ...], msgspec.Meta(max_length=100_000)]


class Rank(Query, frozen=True):
    """Hosts that pass for a request, best first, with their weights; of all, or of those named in ``hosts`` (service
    hosts or nodes), which are then weighed among each other. At most ``limit`` (0: all). For readers of the cloud."""

    request: p.Asked
    hosts: Names | None = None
    limit: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 100


class RankedHostLine(msgspec.Struct, frozen=True):
    """A host that passes, and its weight."""

    host: str
    node: str
    weight: float


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to Rank. ``passed``: how many hosts pass. Of hosts that were named, ``refused`` has the stage that
    removed each node, and ``unknown`` the names that no host has."""

    hosts: list[RankedHostLine]
    passed: int
    refused: dict[str, str] = {}
    unknown: list[str] = []


def rank(state: ServiceState, user: str, query: Rank) -> Ranking:
    """The answer. O(hosts), and O(named hosts * log of them) in Python."""
    engine = state.engine
    fleet, rows, unknown = engine.fleet, None, []
    if query.hosts is not None:
        found: dict[int, None] = {}
        for name in query.hosts:
            of_name = fleet._rows_of_service_host(name)
            if not of_name and (row := fleet._names.find(name)) >= 0 and fleet.is_host[row]:
                of_name = [row]
            if not of_name:
                unknown.append(name)
            found.update(dict.fromkeys(of_name))
        rows = np.array(sorted(found), np.int32)
    ranked = engine.rank(state.request(query.request, None), rows=rows)
    best = ranked.rows if not query.limit else ranked.rows[: query.limit]
    names = [
        RankedHostLine(fleet._service_host(row), fleet.name(row), weight)
        for row, weight in zip(best.tolist(), ranked.weights.tolist(), strict=False)
    ]
    refused = {} if rows is None else {fleet.name(row): stage for row, stage in ranked.refused()}
    return Ranking(hosts=names, passed=len(ranked.rows), refused=refused, unknown=unknown)
