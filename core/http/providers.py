"""``/resource_providers`` and ``/resource_providers/{uuid}``."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from ...placement.api.answers import Provider
from ...placement.api.commands import CreateProvider, DeleteProvider, UpdateProvider
from ...placement.api.errors import BadRequest, NotFound
from ...placement.request.placement_query import RequestGroup
from . import schemas
from .errors import not_found
from .handling import Handling
from .messages import Request, Response, answer, no_content
from .query_values import memberships, resources, traits
from .refusals import naming, said_as
from .routing import Route
from .validation import check_query, plain_uuid, read_json

_LINKS: Final = (("inventories", 0), ("usages", 0), ("aggregates", 1), ("traits", 6), ("allocations", 11))
_AT_FAULT: Final = {
    "resources": "Invalid resource class in resources parameter",
    "traits": 'Invalid trait(s) in "required" parameter',
}


def represent(request: Request, provider: Provider) -> dict[str, Any]:
    """A provider as its microversion shows it."""
    url = f"{request.prefix}/resource_providers/{provider.uuid}"
    links = [{"rel": "self", "href": url}]
    links += [{"rel": name, "href": f"{url}/{name}"} for name, since in _LINKS if request.minor >= since]
    shown = {"uuid": provider.uuid, "name": provider.name, "generation": provider.generation, "links": links}
    if request.minor >= 14:
        shown |= {"parent_provider_uuid": provider.parent, "root_provider_uuid": provider.root}
    return shown


async def list_providers(request: Request, api: Handling) -> Response:
    """GET /resource_providers"""
    query = check_query(request, schemas.at(schemas.LIST_PROVIDERS, request.minor))
    required, forbidden, any_of = traits(request)
    member_of, forbidden_aggregates = memberships(request)
    group = RequestGroup(
        resources=tuple(sorted(resources(query["resources"]).items())) if "resources" in query else (),
        required=required,
        forbidden=forbidden,
        any_of=any_of,
        member_of=member_of,
        forbidden_aggregates=forbidden_aggregates,
        in_tree=query.get("in_tree"),
    )
    with naming(**_AT_FAULT):
        found = api.model.providers(
            name=query.get("name") or None, uuid=query.get("uuid"), group=None if group == RequestGroup() else group
        )
    times = [provider.updated for provider in found if provider.updated is not None]
    modified = max(times, default=None)
    return answer(request, {"resource_providers": [represent(request, one) for one in found]}, modified=modified)


async def create_provider(request: Request, api: Handling) -> Response:
    """POST /resource_providers"""
    schema = schemas.CREATE_PROVIDER_14 if request.minor >= 14 else schemas.CREATE_PROVIDER
    body = await read_json(request, api, schema)
    uuid = plain_uuid(body["uuid"]) if body.get("uuid") else api.new_uuid()
    parent = body.get("parent_provider_uuid")
    command = CreateProvider(
        now=request.now,
        uuid=uuid,
        name=body["name"],
        parent=None if parent is None else plain_uuid(parent),
    )
    with said_as(400, f'Unable to create resource provider "{body["name"]}", {uuid}: ', BadRequest):
        provider = await api.writer.submit(command)
    if request.minor >= 20:
        response = answer(request, represent(request, provider), modified=provider.updated)
    else:
        response = Response(201)
    response.headers.append(("location", request.url(f"/resource_providers/{uuid}")))
    return response


async def show_provider(request: Request, api: Handling) -> Response:
    """GET /resource_providers/{uuid}"""
    provider = api.model.provider(request.items[0])
    return answer(request, represent(request, provider), modified=provider.updated)


async def update_provider(request: Request, api: Handling) -> Response:
    """PUT /resource_providers/{uuid}"""
    uuid = request.items[0]
    api.model.provider(uuid)  # 404 takes precedence over errors in the body
    schema = schemas.UPDATE_PROVIDER_14 if request.minor >= 14 else schemas.UPDATE_PROVIDER
    body = await read_json(request, api, schema)
    parent = body.get("parent_provider_uuid", UNSET)
    command = UpdateProvider(
        now=request.now,
        uuid=uuid,
        name=body["name"],
        parent=plain_uuid(parent) if isinstance(parent, str) else parent,
        may_move=request.minor >= 37,
    )
    with said_as(400, f"Unable to save resource provider {uuid}: ", BadRequest):
        provider = await api.writer.submit(command)
    return answer(request, represent(request, provider), modified=provider.updated)


async def delete_provider(request: Request, api: Handling) -> Response:
    """DELETE /resource_providers/{uuid}"""
    uuid = request.items[0]
    try:
        await api.writer.submit(DeleteProvider(now=request.now, uuid=uuid))
    except NotFound as error:
        raise not_found(f"No resource provider with uuid {uuid} found for delete") from error
    return no_content()


_RULE: Final = "placement:resource_providers:"
ROUTES: Final = (
    Route("GET", "/resource_providers", list_providers, f"{_RULE}list", gives_json=True),
    Route("POST", "/resource_providers", create_provider, f"{_RULE}create", body=True),
    Route("GET", "/resource_providers/{uuid}", show_provider, f"{_RULE}show", gives_json=True),
    Route("DELETE", "/resource_providers/{uuid}", delete_provider, f"{_RULE}delete"),
    Route("PUT", "/resource_providers/{uuid}", update_provider, f"{_RULE}update", body=True),
)
