"""``/allocations``, ``/allocations/{consumer_uuid}`` and ``/resource_providers/{uuid}/allocations``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import UNSET

from ...placement.api.commands import ConsumerAllocations, DeleteAllocations, SetAllocations
from ...placement.api.errors import CONCURRENT_UPDATE, BadRequest, Conflict
from . import schemas
from .errors import HttpError, bad_request
from .handling import Handling
from .messages import Request, Response, answer, no_content
from .refusals import said_as
from .routing import Route
from .validation import is_uuid, plain_uuid, read_json

UNKNOWN_TYPE: Final = "unknown"
"""How a consumer without a type is shown."""


def consumer_of(body: Mapping[str, Any], request: Request, api: Handling) -> ConsumerAllocations:
    """The allocations that a body requests for one consumer, in the format of its microversion."""
    allocations = body["allocations"]
    if isinstance(allocations, list):
        held = {plain_uuid(one["resource_provider"]["uuid"]): _amounts(one["resources"]) for one in allocations}
    else:
        held = {_provider(uuid): _amounts(one["resources"]) for uuid, one in allocations.items()}
    generation: Any = UNSET
    if request.minor >= 28:
        given = body["consumer_generation"]
        generation = None if given is None else int(given)
    return ConsumerAllocations(
        allocations=held,
        project_id=body.get("project_id", api.config.incomplete_consumer_project_id),
        user_id=body.get("user_id", api.config.incomplete_consumer_user_id),
        generation=generation,
        consumer_type=body["consumer_type"] if request.minor >= 38 else UNSET,
    )


def _amounts(resources: Mapping[str, Any]) -> dict[str, int]:
    """JSON has no integers of its own: 2.0 is one too."""
    return {name: int(amount) for name, amount in resources.items()}


def _provider(uuid: str) -> str:
    """A key of 36 hexadecimal digits and dashes may still be no uuid."""
    if not is_uuid(uuid):
        raise bad_request(f"Allocation for resource provider '{uuid}' that does not exist.")
    return plain_uuid(uuid)


def consumer_uuid(text: str) -> str:
    """The consumer's uuid, dashed. HttpError 400."""
    if not is_uuid(text):
        raise bad_request(f"Malformed consumer_uuid: {text}")
    return plain_uuid(text)


async def show_allocations(request: Request, api: Handling) -> Response:
    """GET /allocations/{consumer_uuid}"""
    uuid = request.items[0]
    found = api.model.allocations(plain_uuid(uuid)) if is_uuid(uuid) else None
    if found is None or not found.allocations:
        return answer(request, {"allocations": {}})
    held = {
        provider: {"resources": resources, "generation": generation}
        for provider, (resources, generation) in found.allocations.items()
    }
    body: dict[str, Any] = {"allocations": held}
    if request.minor >= 12:
        body |= {"project_id": found.project_id, "user_id": found.user_id}
    if request.minor >= 28:
        body["consumer_generation"] = found.generation
    if request.minor >= 38:
        body["consumer_type"] = found.consumer_type or UNKNOWN_TYPE
    return answer(request, body, modified=found.updated)


async def show_provider_allocations(request: Request, api: Handling) -> Response:
    """GET /resource_providers/{uuid}/allocations"""
    found = api.model.provider_allocations(request.items[0])
    held: dict[str, dict[str, Any]] = {}
    for consumer, (resources, generation) in found.allocations.items():
        held[consumer] = {"resources": resources}
        if request.minor >= 28:
            held[consumer]["consumer_generation"] = generation
    body = {"allocations": held, "resource_provider_generation": found.generation}
    return answer(request, body, modified=found.updated)


async def set_allocations(request: Request, api: Handling) -> Response:
    """PUT /allocations/{consumer_uuid}"""
    uuid = consumer_uuid(request.items[0])
    body = await read_json(request, api, schemas.at(schemas.SET_ALLOCATIONS, request.minor))
    command = SetAllocations(now=request.now, consumers={uuid: consumer_of(body, request, api)}, infer_types=True)
    await _submit(command, api, f"Unable to allocate inventory for consumer {uuid}: ")
    return no_content()


async def manage_allocations(request: Request, api: Handling) -> Response:
    """POST /allocations"""
    body = await read_json(request, api, schemas.at(schemas.MANAGE_ALLOCATIONS, request.minor))
    command = SetAllocations(now=request.now, consumers=consumers_of(body, request, api), infer_types=True)
    await _submit(command, api, "Unable to allocate inventory ")
    return no_content()


def consumers_of(body: Mapping[str, Any], request: Request, api: Handling) -> dict[str, ConsumerAllocations]:
    """What each consumer shall hold."""
    return {consumer_uuid(uuid): consumer_of(one, request, api) for uuid, one in body.items()}


async def _submit(command: SetAllocations, api: Handling, prefix: str) -> None:
    try:
        with said_as(400, prefix, BadRequest):
            await api.writer.submit(command)
    except Conflict as error:
        if error.placement_code == CONCURRENT_UPDATE:
            raise
        raise HttpError(409, f"Unable to allocate inventory: {error.args[0]}", code=error.placement_code) from error


async def delete_allocations(request: Request, api: Handling) -> Response:
    """DELETE /allocations/{consumer_uuid}"""
    uuid = request.items[0]
    if not is_uuid(uuid):
        raise HttpError(404, f"No allocations for consumer '{uuid}'")
    await api.writer.submit(DeleteAllocations(now=request.now, consumer=plain_uuid(uuid)))
    return no_content()


_ONE: Final = "/allocations/{consumer_uuid}"
_OF_PROVIDER: Final = "/resource_providers/{uuid}/allocations"
_RULE: Final = "placement:allocations:"
ROUTES: Final = (
    Route("POST", "/allocations", manage_allocations, f"{_RULE}manage", since=13, body=True),
    Route("GET", _ONE, show_allocations, f"{_RULE}list", gives_json=True),
    Route("PUT", _ONE, set_allocations, f"{_RULE}update", body=True),
    Route("DELETE", _ONE, delete_allocations, f"{_RULE}delete"),
    Route(
        "GET",
        _OF_PROVIDER,
        show_provider_allocations,
        "placement:resource_providers:allocations:list",
        gives_json=True,
    ),
)
