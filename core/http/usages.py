"""``/usages`` and ``/resource_providers/{uuid}/usages``."""

from __future__ import annotations

from typing import Any, Final

from . import schemas
from .handling import Handling
from .messages import Request, Response, answer
from .routing import Route
from .validation import check_query

TYPES_SINCE: Final = 38
RULE: Final = "placement:usages"


async def show_provider_usages(request: Request, api: Handling) -> Response:
    """GET /resource_providers/{uuid}/usages"""
    found = api.model.provider_usages(request.items[0])
    return answer(request, {"resource_provider_generation": found.generation, "usages": found.usages})


async def show_usages(request: Request, api: Handling) -> Response:
    """GET /usages: a project's reader may see that project's."""
    api.authorize(request, RULE, request.query.last().get("project_id"))
    query = check_query(request, schemas.at(schemas.USAGES, request.minor))
    project, user = query["project_id"], query.get("user_id")
    if request.minor < TYPES_SINCE:
        return answer(request, {"usages": api.model.usages(project, user_id=user)})
    found = api.model.usages_by_type(project, user_id=user, consumer_type=query.get("consumer_type"))
    usages: dict[str, Any] = {name: {**one.usages, "consumer_count": one.consumer_count} for name, one in found.items()}
    return answer(request, {"usages": usages})


ROUTES: Final = (
    Route("GET", "/usages", show_usages, RULE, since=9, gives_json=True, own_policy=True),
    Route(
        "GET",
        "/resource_providers/{uuid}/usages",
        show_provider_usages,
        "placement:resource_providers:usages",
        gives_json=True,
    ),
)
