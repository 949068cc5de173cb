"""``/traits``, ``/traits/{name}`` and ``/resource_providers/{uuid}/traits``."""

from __future__ import annotations

from typing import Any, Final

from ...placement.api.answers import ProviderTraits
from ...placement.api.commands import CreateTrait, DeleteProviderTraits, DeleteTrait, SetTraits
from . import schemas
from .errors import bad_request
from .handling import Handling
from .messages import Request, Response, answer, dated, no_content
from .refusals import generation_checked
from .routing import Route
from .validation import check_query, read_json

_BAD_NAME: Final = (
    'The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix "CUSTOM_" and use'
    ' following characters: "A"-"Z", "0"-"9" and "_"'
)


async def list_traits(request: Request, api: Handling) -> Response:
    """GET /traits"""
    query = check_query(request, schemas.LIST_TRAITS)
    filters: dict[str, Any] = {}
    if "name" in query:
        operator, colon, value = query["name"].partition(":")
        if not colon:
            raise bad_request(
                "Badly formatted name parameter. Expected name query string parameter in form: "
                f'?name=[in|startswith]:[name1,name2|prefix]. Got: "{query["name"]}"'
            )
        if operator == "in":
            filters["names"] = value.split(",")
        elif operator == "startswith":
            filters["prefix"] = value
    if "associated" in query:
        if query["associated"].lower() not in ("true", "false"):
            raise bad_request('The query parameter "associated" only accepts "true" or "false"')
        filters["associated"] = query["associated"].lower() == "true"
    found = api.model.traits(**filters)
    times = [trait.updated for trait in found if trait.updated is not None]
    return answer(request, {"traits": [trait.name for trait in found]}, modified=max(times, default=None))


async def show_trait(request: Request, api: Handling) -> Response:
    """GET /traits/{name}"""
    trait = api.model.trait(request.items[0])
    return dated(request, no_content(), trait.updated)


async def create_trait(request: Request, api: Handling) -> Response:
    """PUT /traits/{name}"""
    name = request.items[0]
    if schemas.CUSTOM_TRAIT.problem(name) is not None:
        raise bad_request(_BAD_NAME)
    is_new = await api.writer.submit(CreateTrait(now=request.now, name=name))
    response = dated(request, Response(201 if is_new else 204), api.model.trait(name).updated)
    response.headers.append(("location", request.url(f"/traits/{name}")))
    return response


async def delete_trait(request: Request, api: Handling) -> Response:
    """DELETE /traits/{name}"""
    await api.writer.submit(DeleteTrait(now=request.now, name=request.items[0]))
    return no_content()


def _shown(request: Request, found: ProviderTraits) -> Response:
    body = {"traits": found.traits, "resource_provider_generation": found.generation}
    return answer(request, body, modified=found.updated)


async def list_provider_traits(request: Request, api: Handling) -> Response:
    """GET /resource_providers/{uuid}/traits"""
    return _shown(request, api.model.provider_traits(request.items[0]))


async def set_provider_traits(request: Request, api: Handling) -> Response:
    """PUT /resource_providers/{uuid}/traits"""
    body = await read_json(request, api, schemas.SET_TRAITS)
    command = SetTraits(
        now=request.now,
        provider=request.items[0],
        generation=int(body["resource_provider_generation"]),
        traits=tuple(body["traits"]),
    )
    with generation_checked():
        return _shown(request, await api.writer.submit(command))


async def delete_provider_traits(request: Request, api: Handling) -> Response:
    """DELETE /resource_providers/{uuid}/traits"""
    await api.writer.submit(DeleteProviderTraits(now=request.now, provider=request.items[0]))
    return no_content()


_OF_PROVIDER: Final = "/resource_providers/{uuid}/traits"
_RULE: Final = "placement:traits:"
_PROVIDER_RULE: Final = "placement:resource_providers:traits:"
ROUTES: Final = (
    Route("GET", "/traits", list_traits, f"{_RULE}list", since=6, gives_json=True),
    Route("GET", "/traits/{name}", show_trait, f"{_RULE}show", since=6),
    Route("PUT", "/traits/{name}", create_trait, f"{_RULE}update", since=6),
    Route("DELETE", "/traits/{name}", delete_trait, f"{_RULE}delete", since=6),
    Route("GET", _OF_PROVIDER, list_provider_traits, f"{_PROVIDER_RULE}list", since=6, gives_json=True),
    Route("PUT", _OF_PROVIDER, set_provider_traits, f"{_PROVIDER_RULE}update", since=6, body=True),
    Route("DELETE", _OF_PROVIDER, delete_provider_traits, f"{_PROVIDER_RULE}delete", since=6),
)
