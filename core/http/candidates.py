"""``/allocation_candidates``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import msgspec

from ...placement.api.answers import Candidates
from ...placement.candidates.tree_search import SearchTakesLong
from ...placement.request.placement_query import PlacementQuery
from .handling import Handling
from .messages import Request, Response, dated
from .refusals import naming
from .routing import Route

DICTS_SINCE: Final = 12
TRAITS_SINCE: Final = 17
ALL_CLASSES_SINCE: Final = 27
NESTED_SINCE: Final = 29
MAPPINGS_SINCE: Final = 34
PATIENCE: Final = 1_000
"""Search steps (a few milliseconds) after which a child process restarts the search, so that other requests are not
delayed."""
LONG_ANSWER: Final = 5_000
"""Number of expected candidates from which a child process computes the answer."""


async def list_candidates(request: Request, api: Handling) -> Response:
    """GET /allocation_candidates"""
    query = api.queries.of(request)
    most = api.config.max_allocation_candidates
    if most >= 0 and (query.limit is None or query.limit > most):
        query = replace(query, limit=most)
    find = partial(_found, request, api, query, api.next_seed() if api.config.randomize_allocation_candidates else None)
    with naming(resources="Invalid resource class in resources parameter"):
        providers = len(api.model.fleet)
        if min(providers, providers if query.limit is None else query.limit) > LONG_ANSWER:
            body = await api.children.ask(find)
        else:
            try:
                body = find(patience=PATIENCE)
            except SearchTakesLong:
                body = await api.children.ask(find)
    return dated(request, Response(200, body, "application/json"))


def _found(
    request: Request, api: Handling, query: PlacementQuery, seed: tuple[int, int] | None, *, patience: int | None = None
) -> bytes:
    """The candidates as JSON. SearchTakesLong."""
    found = api.model.allocation_candidates(
        query,
        nested=request.minor >= NESTED_SINCE,
        breadth_first=api.config.allocation_candidates_generation_strategy == "breadth-first",
        seed=seed,
        steps=api.config.limits.candidate_steps,
        patience=patience,
    )
    return msgspec.json.encode(in_form_of(found, query, request.minor))


def in_form_of(found: Candidates, query: PlacementQuery, minor: int) -> dict[str, Any]:
    """Candidates as microversion 1.``minor`` shows them."""
    requests: list[Any] = found.allocation_requests
    summaries: Mapping[str, Any] = found.provider_summaries
    if minor < MAPPINGS_SINCE:
        asked = {name for group in query.groups for name, _ in group.resources}
        requests = [_older_request(one["allocations"], minor) for one in requests]
        summaries = {uuid: _older_summary(summary, asked, minor) for uuid, summary in summaries.items()}
    return {"allocation_requests": requests, "provider_summaries": summaries}


def _older_request(allocations: Mapping[str, Any], minor: int) -> dict[str, Any]:
    """Without mappings; below 1.12 as a list."""
    if minor >= DICTS_SINCE:
        return {"allocations": allocations}
    listed = [
        {"resource_provider": {"uuid": uuid}, "resources": held["resources"]} for uuid, held in allocations.items()
    ]
    return {"allocations": listed}


def _older_summary(summary: Mapping[str, Any], asked: set[str], minor: int) -> dict[str, Any]:
    """Below 1.29 without the tree, below 1.27 only the requested classes, below 1.17 without traits."""
    resources = summary["resources"]
    if minor < ALL_CLASSES_SINCE:
        resources = {name: amounts for name, amounts in resources.items() if name in asked}
    older: dict[str, Any] = {"resources": resources}
    if minor >= TRAITS_SINCE:
        older["traits"] = summary["traits"]
    if minor >= NESTED_SINCE:
        older |= {key: summary[key] for key in ("parent_provider_uuid", "root_provider_uuid")}
    return older


ROUTES: Final = (
    Route(
        "GET",
        "/allocation_candidates",
        list_candidates,
        "placement:allocation_candidates:list",
        since=10,
        gives_json=True,
    ),
)
