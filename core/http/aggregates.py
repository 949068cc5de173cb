"""``/resource_providers/{uuid}/aggregates``."""

from __future__ import annotations

from typing import Any, Final

from msgspec import structs

from ...placement.api.answers import ProviderAggregates
from ...placement.api.commands import SetAggregates
from . import schemas
from .handling import Handling
from .messages import Request, Response, answer
from .refusals import generation_checked
from .routing import Route
from .validation import plain_uuid, read_json

GENERATION_SINCE: Final = 19


def _shown(request: Request, found: ProviderAggregates) -> Response:
    body: dict[str, Any] = {"aggregates": found.aggregates}
    if request.minor >= GENERATION_SINCE:
        body["resource_provider_generation"] = found.generation
    return answer(request, body)


async def list_aggregates(request: Request, api: Handling) -> Response:
    """GET .../aggregates"""
    return _shown(request, api.model.provider_aggregates(request.items[0]))


async def set_aggregates(request: Request, api: Handling) -> Response:
    """PUT .../aggregates; the answer repeats them as they were given."""
    uuid = api.model.provider(request.items[0]).uuid
    generation = None
    if request.minor >= GENERATION_SINCE:
        body = await read_json(request, api, schemas.SET_AGGREGATES_19)
        generation, uuids = int(body["resource_provider_generation"]), body["aggregates"]
    else:
        uuids = await read_json(request, api, schemas.SET_AGGREGATES)
    aggregates = tuple(dict.fromkeys(map(plain_uuid, uuids)))
    command = SetAggregates(now=request.now, provider=uuid, aggregates=aggregates, generation=generation)
    with generation_checked():
        found = await api.writer.submit(command)
    return _shown(request, structs.replace(found, aggregates=list(uuids)))


_PATH: Final = "/resource_providers/{uuid}/aggregates"
_RULE: Final = "placement:resource_providers:aggregates:"
ROUTES: Final = (
    Route("GET", _PATH, list_aggregates, f"{_RULE}list", since=1, gives_json=True),
    Route("PUT", _PATH, set_aggregates, f"{_RULE}update", since=1, body=True, type_first=True),
)
